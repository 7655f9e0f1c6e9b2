"""The meaning of the answers of the Segments and the Analytics API; pure."""

from __future__ import annotations

import re
import typing as t
from http import HTTPStatus

import msgspec

from target_moengage_cohort.moengage import api_errors
from target_moengage_cohort.moengage.answers import Answer, Outcome, answered
from target_moengage_cohort.moengage.redaction import mask_identifiers, scrub

if t.TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from target_moengage_cohort.moengage.calls import Call

T = t.TypeVar("T")

_OUTCOMES = {
    401: Outcome.CREDENTIALS,
    403: Outcome.CREDENTIALS,
    408: Outcome.RETRY,
    415: Outcome.OUR_FAULT,
    429: Outcome.RATE_LIMITED,
}
_FIELDS = ("title", "target", "message", "description")
_CODE = re.compile(r"[45][0-9]{2}|[A-Z]{2,4}[0-9]{3}|[A-Z]+(_[A-Z]+)*")  # as ER001, NOT_FOUND


def classify(
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    *,
    now: float,
    secrets: Callable[[], Iterable[str]],
    names: Iterable[str] = (),
) -> Answer:
    """Classify an HTTP response; for most arguments see `answers.classify`.

    The message may show the ``names`` in the request. Some errors come as ``text/plain`` that holds
    JSON, so the content type says nothing.
    """
    try:
        decoded = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        decoded = None
    fields = decoded if isinstance(decoded, dict) else {}
    error = fields.get("error", fields)
    error = error if isinstance(error, dict) else {"message": error}
    outcome = _outcome(status, error)
    message = scrub(_message(error, names), secrets())
    if status < HTTPStatus.MULTIPLE_CHOICES:
        message = ""
        if not isinstance(decoded, dict):
            is_cut = body.lstrip()[:1] in {b"", b"{"}
            outcome = Outcome.RETRY if is_cut else Outcome.UNEXPECTED
            message = "the answer was cut off" if is_cut else "with a body that is not MoEngage's"
    answer = answered(outcome, status, message, body, headers, now)
    return msgspec.structs.replace(answer, content=fields)


def _message(error: Mapping[str, t.Any], names: Iterable[str]) -> str:
    """Return the texts of an error, each once; a code that looks like one is not an identifier."""
    code = str(error.get("code") or "")
    shown = [code] if _CODE.fullmatch(code) else []
    fields = _FIELDS if shown else ("code", *_FIELDS)
    texts = dict.fromkeys(str(error[name]) for name in fields if error.get(name))
    if texts:
        shown.append(mask_identifiers(": ".join(texts), names))
    return ": ".join(shown)


def _outcome(status: int, error: Mapping[str, t.Any]) -> Outcome:
    """Return the next step: a retry helps with none of a call's other errors."""
    if HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
        return Outcome.ACCEPTED
    if status == HTTPStatus.TOO_MANY_REQUESTS and api_errors.is_segment_limit(error):
        return Outcome.REFUSED
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return Outcome.RETRY
    is_refusal = status >= HTTPStatus.BAD_REQUEST
    return _OUTCOMES.get(status, Outcome.REFUSED if is_refusal else Outcome.UNEXPECTED)


def content(call: Call, answer: Answer, kind: type[T]) -> T:
    """Return what a final answer contains, or raise the error that it is."""
    if answer.outcome is not Outcome.ACCEPTED:
        raise api_errors.error(call, answer)
    try:
        return msgspec.convert(answer.content, kind)
    except msgspec.ValidationError:
        raise api_errors.unexpected(call, answer) from None
