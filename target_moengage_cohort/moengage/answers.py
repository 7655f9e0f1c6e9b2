"""The meaning of the Cohort Sync API's answers; pure.

200 with ``"status": "success"`` means *accepted*, not applied. 400 means that the request will
never be accepted as it is, perhaps because of one of its members. 415 means a bug of ours, 401 and
403 that the run must stop, 413 that the body must be smaller, 429 that the request came too early.
After 5xx, time-outs and dropped connections the request may or may not have been applied; sending
the same bytes again does no harm.
"""

from __future__ import annotations

import enum
import re
import typing as t
from email.utils import parsedate_to_datetime

import msgspec

from target_moengage_cohort.core.errors import (
    InputError,
    InternalError,
    SettingsError,
    TargetError,
    TryAgainError,
)
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
    wait_seconds: float | None = None  # that the server asks for
    sent: bool = True  # whether the request may have left; not if no connection was made
    app_name: str | None = None  # the workspace's, if an accepted log-in contains it


class _Error(msgspec.Struct):
    message: t.Any = None
    type: t.Any = None
    request_id: t.Any = None
    attribute: t.Any = None


class _AnswerBody(msgspec.Struct):
    """An answer's body; lenient, because a part of an unforeseen type must not hide the others."""

    status: t.Any = None
    error: _Error | str | None = None
    app_name: t.Any = None


_decode = msgspec.json.Decoder(_AnswerBody).decode

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

    ``now`` are the seconds since 1970 on this machine, for responses without a ``Date``.
    ``secrets`` returns what must not be shown: the key and the request's identifiers.
    """
    try:
        body = _decode(content)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        if status == 200 and content.lstrip()[:1] in {b"", b"{"}:  # noqa: PLR2004
            return Answer(Outcome.RETRY, "the answer was cut off")
        body = _AnswerBody()
    if status == 200 and body.status == "success":  # noqa: PLR2004 - "accepted" in the API's words
        if not isinstance(body.app_name, str):
            return Answer(Outcome.ACCEPTED, "accepted")
        return Answer(Outcome.ACCEPTED, "accepted", app_name=scrub(body.app_name, secrets()))
    outcome = _OUTCOMES.get(status, Outcome.RETRY if status >= 500 else Outcome.UNEXPECTED)  # noqa: PLR2004
    if status == 200 and body.status == "fail":  # noqa: PLR2004
        outcome = Outcome.REFUSED
    wait = wait_seconds(headers, now, limited=outcome is Outcome.RATE_LIMITED)
    message = scrub(_message(body.error), secrets())
    if outcome is Outcome.UNEXPECTED and status == 200:  # noqa: PLR2004
        message = "with a body that is not MoEngage's"
    return Answer(outcome, f"HTTP {status} {message}".rstrip(), wait)


def _message(error: _Error | str | None) -> str:
    if not isinstance(error, _Error):
        return mask_identifiers(error or "")
    message = mask_identifiers(": ".join(str(part) for part in (error.type, error.message) if part))
    if error.attribute:
        message += f" (attribute {mask_identifiers(str(error.attribute))})"
    if re.fullmatch(r"[\w-]{1,64}", str(error.request_id or "")):
        message += f" (request_id {error.request_id})"
    return message


def final_error(answer: Answer, cohort_id: str, max_retry_seconds: int) -> TargetError:
    """Return the error that ends a run after an answer that leaves nothing to try."""
    cohort, summary = f"cohort {cohort_id!r}", answer.summary
    if answer.outcome in {Outcome.REFUSED, Outcome.TOO_LARGE}:
        return InputError(
            "request_refused",
            f"MoEngage refused a request for {cohort}: {summary}. Retrying it unchanged will not "
            "help; check what the message names in the cohort's mapping and rows, or in the "
            "settings",
        )
    if answer.outcome in {Outcome.RETRY, Outcome.RATE_LIMITED}:
        return TryAgainError(
            "retries_exhausted",
            f"no request was accepted within {max_retry_seconds} s (max_retry_seconds). The last "
            f"one was for {cohort}: {summary}. Run it again; it resumes from the last STATE",
        )
    return _error(answer, f"a request for {cohort}")


def login_error(answer: Answer) -> TargetError | None:
    """Return the error after the answer to a log-in; ``None`` if the credentials are good."""
    summary = answer.summary
    if answer.outcome is Outcome.ACCEPTED:
        return None
    if answer.outcome in {Outcome.RETRY, Outcome.RATE_LIMITED}:
        return TryAgainError(
            "moengage_unavailable",
            f"could not check the credentials: {summary}. Try again in a minute; if it fails "
            "again, check the network, data_center and api_url",
        )
    if answer.outcome is Outcome.REFUSED:
        return SettingsError(
            "credentials_refused",
            f"MoEngage refused to check the credentials: {summary}; check workspace_id, "
            "data_api_key, partner and data_center",
        )
    return _error(answer, "the request to check the credentials")


def _error(answer: Answer, request: str) -> TargetError:
    summary = answer.summary
    if answer.outcome is Outcome.CREDENTIALS:
        return SettingsError(
            "credentials_refused",
            f"MoEngage refused the credentials ({summary}); check workspace_id, data_api_key and "
            "data_center, and that the key may use Cohort Sync",
        )
    if answer.outcome is Outcome.OUR_FAULT:
        return InternalError(
            "malformed_request",
            f"MoEngage rejected {request} as malformed: {summary}. This is a bug in "
            "target-moengage-cohort; please report it",
        )
    msg = f"unexpected answer to {request}: {summary}; check api_url and data_center"
    return SettingsError("unexpected_answer", msg)


def rejection_reason(answer: Answer) -> str:
    """Return why a member that was refused alone cannot be delivered."""
    why = " as too large" if answer.outcome is Outcome.TOO_LARGE else ""
    return f"MoEngage refused it{why}: {answer.summary}"


def wait_seconds(headers: Mapping[str, str], now: float, *, limited: bool) -> float | None:
    """Return how long the server asks to wait; ``None`` if it does not say.

    It is the longer of the limit's reset and ``Retry-After``, from 0 to `LONGEST_WAIT_SECONDS`. The
    server's clock may differ from ours, so a moment counts relative to the answer's ``Date``, or
    to ``now``, seconds since 1970 on this machine, for answers without one. Answers that are not a
    429 (``limited``) contain the limit's reset, too, but do not ask to wait for it.
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
    return min(max(0.0, *waits), LONGEST_WAIT_SECONDS) if waits else None


def _moment(date: str) -> float | None:
    try:
        return parsedate_to_datetime(date).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None
