"""The meaning of the Cohort Sync API's answers; pure.

200 with ``"status": "success"`` means *accepted*, not applied. 400 means that the request will
never be accepted as it is, perhaps because of one of its members. After 5xx, time-outs and dropped
connections it may or may not have been applied; sending the same bytes again does no harm.
"""

from __future__ import annotations

import enum
import re
import typing as t
from email.utils import parsedate_to_datetime
from http import HTTPStatus

import msgspec

from target_moengage_cohort.core import errors
from target_moengage_cohort.moengage.redaction import mask_identifiers, scrub

if t.TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

LONGEST_WAIT_SECONDS = 120.0
_NUMBER = r"\s*\d+(\.\d+)?\s*"


class Outcome(enum.Enum):
    """The next step after an answer."""

    ACCEPTED = "accepted"
    RETRY = "retry"
    RATE_LIMITED = "rate limited"
    TOO_LARGE = "too large"
    REFUSED = "refused"
    OUR_FAULT = "our fault"
    CREDENTIALS = "credentials refused"
    UNEXPECTED = "unexpected"


class Answer(msgspec.Struct, frozen=True):
    """A classified answer, or the absence of one; its texts are scrubbed."""

    outcome: Outcome
    summary: str  # the status and the API's message, or what went wrong
    wait_seconds: float | None = None  # that the server asks for, up to `LONGEST_WAIT_SECONDS`
    sent: bool = True  # whether the request may have left; not if no connection was made
    app_name: str | None = None  # the workspace's, if an accepted log-in contains it
    status: int | None = None  # the HTTP status, if there was a response
    asked_seconds: float | None = None  # as `wait_seconds`, however long
    is_html: bool = False  # whether the body is a page, which is not MoEngage's
    request_id: str | None = None  # that MoEngage gave the request
    is_about_cohort: bool = False  # whether it names an attribute of the cohort, and no member's
    content: dict[str, t.Any] | None = None  # of the Segments and the Analytics API; not scrubbed
    is_doubted: bool = False  # whether an earlier attempt at the same call may have been applied
    key_setting: str = "data_api_key"  # the setting that has the key of the request
    seconds: float = 0.0  # from the attempt's start until it was over


_OF_COHORT = ("cohort_id", "cohort_name", "cohort_description")
_OUTCOMES = {
    400: Outcome.REFUSED,
    401: Outcome.CREDENTIALS,
    403: Outcome.CREDENTIALS,
    408: Outcome.RETRY,
    413: Outcome.TOO_LARGE,
    415: Outcome.OUR_FAULT,
    429: Outcome.RATE_LIMITED,
}


def classify(
    status: int,
    headers: Mapping[str, str],
    content: bytes,
    *,
    now: float,
    secrets: t.Callable[[], Iterable[str]],
) -> Answer:
    """Classify an HTTP response, whose headers' names match in any case.

    ``now`` are seconds since 1970; ``secrets`` returns the key and the request's identifiers.
    """
    body, is_cut = None, False
    try:
        body = msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        is_cut = content.lstrip()[:1] in {b"", b"{"}
    if not isinstance(body, dict):
        body = {}
    outcome = _OUTCOMES.get(status, Outcome.RETRY if status >= 500 else Outcome.UNEXPECTED)  # noqa: PLR2004
    message = scrub(_message(body.get("error")), secrets())
    if status == HTTPStatus.OK:
        if is_cut:
            return Answer(Outcome.RETRY, "the answer was cut off", status=status)
        if body.get("status") == "success":
            name = body.get("app_name")
            name = scrub(name, secrets()) if isinstance(name, str) else None
            return Answer(Outcome.ACCEPTED, "accepted", app_name=name, status=status)
        if body.get("status") == "fail":
            outcome = Outcome.REFUSED
        else:
            message = "with a body that is not MoEngage's"
    answer = answered(outcome, status, message, content, headers, now)
    error = body.get("error")
    is_about_cohort = isinstance(error, dict) and error.get("attribute") in _OF_COHORT
    return msgspec.structs.replace(
        answer, request_id=_request_id(error), is_about_cohort=is_about_cohort
    )


def answered(
    outcome: Outcome,
    status: int,
    message: str,
    content: bytes,
    headers: Mapping[str, str],
    now: float,
) -> Answer:
    """Return the answer that an HTTP response is; its message is scrubbed."""
    asked = asked_seconds(headers, now, limited=outcome is Outcome.RATE_LIMITED)
    return Answer(
        outcome,
        f"HTTP {status} {message}".rstrip(),
        None if asked is None else min(asked, LONGEST_WAIT_SECONDS),
        status=status,
        asked_seconds=asked,
        is_html=content.lstrip()[:1] == b"<",
    )


def _request_id(error: object) -> str | None:
    value = str(error.get("request_id") or "") if isinstance(error, dict) else ""
    return value if re.fullmatch(r"[\w-]{1,64}", value) else None


def _message(error: object) -> str:
    if not isinstance(error, dict):
        return mask_identifiers(error if isinstance(error, str) else "")
    parts = (str(error[key]) for key in ("type", "message") if error.get(key))
    message = mask_identifiers(": ".join(parts))
    if error.get("attribute"):
        message += f" (attribute {mask_identifiers(str(error['attribute']))})"
    if (request_id := _request_id(error)) is not None:
        message += f" (request_id {request_id})"
    return message


def final_error(answer: Answer, cohort_id: str, max_retry_seconds: int) -> errors.TargetError:
    """Return the error that ends a run after an answer that leaves nothing to try."""
    cohort, summary = f"cohort {cohort_id!r}", answer.summary
    if answer.outcome in {Outcome.REFUSED, Outcome.TOO_LARGE}:
        msg = (
            f"MoEngage refused a request for {cohort}: {summary}. Retrying it unchanged will not "
            "help; check what the message names in the cohort's mapping, its rows, or the "
            "settings"
        )
        return errors.InputError("request_refused", msg)
    asked = answer.asked_seconds
    if answer.outcome is Outcome.RATE_LIMITED and asked is not None and asked > max_retry_seconds:
        msg = (
            f"MoEngage requires a wait of {asked:,.0f} s before the next request, longer than "
            f"max_retry_seconds ({max_retry_seconds} s). The last request was for {cohort}: "
            f"{summary}. Run again after that time"
        )
        return errors.TryAgainError("rate_limited", msg)
    if answer.outcome in {Outcome.RETRY, Outcome.RATE_LIMITED}:
        msg = (
            f"no request was accepted within {max_retry_seconds} s (max_retry_seconds). The last "
            f"one was for {cohort}: {summary}. Check the network and MoEngage's status, then run "
            "again"
        )
        return errors.TryAgainError("retries_exhausted", msg)
    return _error(answer, f"a request for {cohort}")


def login_error(answer: Answer) -> errors.TargetError | None:
    """Return the error after the answer to a log-in; ``None`` if the credentials are good."""
    if answer.outcome is Outcome.ACCEPTED:
        return None
    if answer.outcome in {Outcome.RETRY, Outcome.RATE_LIMITED}:
        msg = (
            f"could not check the credentials: {answer.summary}. Try again in a minute; if it "
            "fails again, check the network, data_center and api_url"
        )
        return errors.TryAgainError("moengage_unavailable", msg)
    if answer.outcome is Outcome.REFUSED:
        msg = (
            f"MoEngage refused to check the credentials: {answer.summary}; check workspace_id, "
            "data_api_key, partner and data_center"
        )
        return errors.SettingsError("credentials_refused", msg)
    return _error(answer, "the request to check the credentials")


def _error(answer: Answer, request: str) -> errors.TargetError:
    if answer.status == HTTPStatus.FORBIDDEN:
        return _forbidden(answer)
    if answer.outcome is Outcome.CREDENTIALS:
        msg = (
            f"MoEngage refused the credentials ({answer.summary}); check workspace_id, "
            "data_api_key and data_center, and that the key may use Cohort Sync"
        )
        return errors.SettingsError("credentials_refused", msg)
    if answer.outcome is Outcome.OUR_FAULT:
        msg = (
            f"MoEngage rejected {request} as malformed: {answer.summary}. This is a bug in "
            "target-moengage-cohort; please report it"
        )
        return errors.InternalError("malformed_request", msg)
    msg = f"unexpected answer to {request}: {answer.summary}; check api_url and data_center"
    return errors.SettingsError("unexpected_answer", msg)


def _forbidden(answer: Answer) -> errors.SettingsError:
    """Return the error of a 403, which does not show what to change."""
    if answer.is_html:
        msg = (
            f"a firewall refused access ({answer.summary}, with a page instead of MoEngage's "
            "answer): the account's API firewall, or a proxy. Add this machine's public IP "
            "address to the account's allow-list in MoEngage"
        )
        return errors.SettingsError("blocked_by_firewall", msg)
    msg = (
        f"MoEngage refused access ({answer.summary}). One of these is the cause: the account is "
        "suspended; MoEngage has blocked this client; data_api_key lacks the permission for "
        "Cohort Sync; or the account's API firewall (IP allow-list) does not list this machine"
    )
    return errors.SettingsError("credentials_refused", msg)


def rejection_reason(answer: Answer) -> str:
    """Return why a member that was refused alone cannot be delivered."""
    why = " as too large" if answer.outcome is Outcome.TOO_LARGE else ""
    return f"MoEngage refused it{why}: {answer.summary}"


def wait_seconds(headers: Mapping[str, str], now: float, *, limited: bool) -> float | None:
    """Return how long to wait as the server asks, up to `LONGEST_WAIT_SECONDS`, if it says so."""
    asked = asked_seconds(headers, now, limited=limited)
    return None if asked is None else min(asked, LONGEST_WAIT_SECONDS)


def asked_seconds(headers: Mapping[str, str], now: float, *, limited: bool) -> float | None:
    """Return how long the server asks to wait; ``None`` if it does not say.

    It is the longer of the limit's reset and ``Retry-After``, and never negative. Every answer may
    contain the reset, but only a 429 (``limited``) asks to wait for it. A moment counts relative to
    the answer's ``Date``, by the server's clock, or else to ``now``.
    """
    server_now = _moment(headers.get("Date", "")) or now
    waits = []
    if limited and re.fullmatch(_NUMBER, reset := headers.get("x-ratelimit-reset", "")):
        waits.append(float(reset) - server_now)
    after = headers.get("Retry-After", "")
    if re.fullmatch(_NUMBER, after):
        waits.append(float(after))
    elif (moment := _moment(after)) is not None:
        waits.append(moment - server_now)
    return max(0.0, *waits) if waits else None


def _moment(date: str) -> float | None:
    try:
        return parsedate_to_datetime(date).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None
