"""The errors of the Segments and the Analytics API, each with a stable code."""

from __future__ import annotations

import typing as t
from http import HTTPStatus

from target_moengage_cohort.core.commands import suggest
from target_moengage_cohort.core.errors import InternalError, SettingsError, TargetError
from target_moengage_cohort.moengage.answers import Outcome
from target_moengage_cohort.moengage.calls import Api

if t.TYPE_CHECKING:
    from collections.abc import Mapping

    from target_moengage_cohort.moengage.answers import Answer
    from target_moengage_cohort.moengage.calls import Call

_SCOPES = {Api.SEGMENTS: "Segmentation APIs", Api.ANALYTICS: "Dashboard & Analyze APIs"}
_TRIAL = ("check", "--probe")
_UNKNOWN_DATABASE = ("client not found", "dbname")  # the second is of the header's name
_SEGMENT_LIMIT = "active segments limit"
_FORBIDDEN_OPERATION = "forbidden operation"
_REFUSALS = {
    403: (
        "segment_read_only",
        "segments that are archived, internal, imported or from a file cannot be updated",
    ),
    404: ("segment_not_found", "check its name"),
    409: (
        "name_exists",
        "choose another name, or change that segment; MoEngage never frees a cohort's name",
    ),
    412: ("cyclic_segment", "a segment must not be in its own filters"),
    413: ("payload_too_large", "use fewer values"),
    424: ("query_failed", "start the query again"),
    428: (
        "quota_exceeded",
        "the dashboards share this monthly quota; wait for the next month",
    ),
    429: ("segment_limit", "archive segments that no campaign uses"),
}


class Existing(t.NamedTuple):
    """The segment that conflicts with another one."""

    name: str
    id: str


class ApiError(TargetError):
    """MoEngage refuses a call.

    Attributes:
        existing: The segment that has these filters already, after `filters_exist`.
        count: How many active segments there are, after `segment_limit`, if MoEngage says so.
        limit: How many there may be.
        is_doubted: Whether an earlier attempt at the same call had no answer. It may have been
            applied, so that a segment that exists by now may be the call's own.
    """

    def __init__(self, code: str, message: str, answer: Answer) -> None:
        super().__init__(code, message)
        fields = _error(answer)
        name, segment_id = fields.get("existing_cs_name"), fields.get("existing_cs_id")
        self.existing: Existing | None = None
        if isinstance(name, str) and isinstance(segment_id, str):
            self.existing = Existing(name, segment_id)
        self.count, self.limit = _number(fields, "actual_count"), _number(fields, "limit")
        self.is_doubted = answer.is_doubted


def is_segment_limit(error: Mapping[str, t.Any]) -> bool:
    """Return whether a 429 is about the number of segments, which no wait changes."""
    return _SEGMENT_LIMIT in _text(error).lower()


def unexpected(call: Call, answer: Answer) -> SettingsError:
    """Return the error after an answer that is not MoEngage's."""
    msg = f"cannot {call.what}: unexpected answer ({answer.summary}); check api_url and data_center"
    return SettingsError("unexpected_answer", msg)


def error(call: Call, answer: Answer) -> TargetError:
    """Return the error after a final answer that refuses a call."""
    if answer.status == HTTPStatus.UNAUTHORIZED:
        return SettingsError("credentials_refused", _credentials(call, answer))
    if answer.status == HTTPStatus.FORBIDDEN and not _is_read_only(call, answer):
        return _forbidden(call, answer)
    if answer.status == HTTPStatus.BAD_REQUEST and _is_database(answer):
        msg = (
            f"cannot {call.what}: MoEngage does not know this database ({answer.summary}); set "
            "db_name to the database name that MoEngage shows for the workspace"
        )
        return SettingsError("db_name_refused", msg)
    if answer.outcome is Outcome.OUR_FAULT:
        msg = (
            f"MoEngage rejected a request to {call.what} as malformed: {answer.summary}. This is a "
            "bug in target-moengage-cohort; please report it"
        )
        return InternalError("malformed_request", msg)
    is_refusal = answer.outcome in {Outcome.REFUSED, Outcome.CREDENTIALS}
    if not is_refusal or (answer.status == HTTPStatus.NOT_FOUND and not _is_moengage_s(answer)):
        return unexpected(call, answer)
    code, advice = _refusal(call, answer)
    return ApiError(code, f"cannot {call.what}: {answer.summary}; {advice}", answer)


def _refusal(call: Call, answer: Answer) -> tuple[str, str]:
    """Return the code of a refusal, and what to do."""
    if answer.status == HTTPStatus.NOT_FOUND and call.api is Api.ANALYTICS:
        return "query_not_found", "start the query again"
    if answer.status == HTTPStatus.CONFLICT and "existing_cs_id" in _error(answer):
        return "filters_exist", "another segment has these filters; use that one"
    return _REFUSALS.get(answer.status or 0, ("request_refused", "check what the message names"))


def _is_database(answer: Answer) -> bool:
    """Return whether a 400 is about the header with the database's name."""
    text = _text(_error(answer)).lower()
    return any(each in text for each in _UNKNOWN_DATABASE)


def _is_moengage_s(answer: Answer) -> bool:
    """Return whether an error has MoEngage's shape: gateways and wrong hosts have a 404, too."""
    fields = answer.content or {}
    return isinstance(fields.get("error"), dict) or {"title", "description"} <= fields.keys()


def _is_read_only(call: Call, answer: Answer) -> bool:
    """Return whether a 403 is about the segment, and not about the key."""
    text = str(_error(answer)).lower()
    return call.method == "PATCH" and _FORBIDDEN_OPERATION in text


def _credentials(call: Call, answer: Answer) -> str:
    return (
        f"cannot {call.what}: MoEngage refused the key in {_held(call, answer)} "
        f"({answer.summary}); set {call.api} to a key of this workspace with the scope "
        f"{_SCOPES[call.api]}, and check workspace_id and data_center. To try it: "
        f"{suggest(*_TRIAL)}"
    )


def _held(call: Call, answer: Answer) -> str:
    """Return the setting that holds the key."""
    name = answer.key_setting
    return name if name == call.api else f"{name} ({call.api} is not set)"


def _forbidden(call: Call, answer: Answer) -> SettingsError:
    """Return the error of a 403, which does not show what to change."""
    if answer.is_html:
        msg = (
            f"cannot {call.what}: a firewall refused access ({answer.summary}, with a page instead "
            "of MoEngage's answer): the account's API firewall, or a proxy. Add this machine's "
            "public IP address to the account's allow-list in MoEngage"
        )
        return SettingsError("blocked_by_firewall", msg)
    msg = (
        f"cannot {call.what}: MoEngage refused access ({answer.summary}); probably the key in "
        f"{_held(call, answer)} lacks the scope {_SCOPES[call.api]}: set {call.api} to a key with "
        "it. Otherwise the account is suspended, MoEngage has blocked this client, or the "
        "account's API firewall (IP allow-list) does not list this machine. To try it: "
        f"{suggest(*_TRIAL)}"
    )
    return SettingsError("scope_missing", msg)


def _error(answer: Answer) -> Mapping[str, t.Any]:
    fields = answer.content or {}
    inner = fields.get("error")
    return inner if isinstance(inner, dict) else fields


def _text(error: Mapping[str, t.Any]) -> str:
    """Return the text of an error: v2 has a description where the others have a message."""
    return f"{error.get('message')} {error.get('description')}"


def _number(fields: Mapping[str, t.Any], name: str) -> int | None:
    value = fields.get(name)
    return value if isinstance(value, int) else None
