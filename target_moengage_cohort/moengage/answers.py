"""What an answer of the Cohort Sync API means; pure.

200 with ``"status": "success"`` means *accepted*, not applied. 400 means that the request will
never do as it is, perhaps for one of its members, 415 that we are at fault, 401 and 403 that the
run must stop, 413 that the body must be smaller, 429 that it came too early. After 5xx, time-outs
and dropped connections nobody knows whether it was applied, and sending the same bytes again does
no harm.
"""

from __future__ import annotations

import enum
import html
import json
import re
import typing as t
from email.utils import parsedate_to_datetime
from urllib.parse import quote, quote_plus

import msgspec

from target_moengage_cohort.core.errors import (
    InputError,
    InternalError,
    SettingsError,
    TryAgainError,
)

if t.TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from target_moengage_cohort.core.errors import TargetError

LONGEST_WAIT_SECONDS = 120.0
_LONGEST_MESSAGE = 300
_LONGEST_QUOTE = 16_384  # what of an error is looked at, to take its first 300 characters
_SHORTEST_TELLING = 4
_REDACTED = "[redacted]"
_WORD = r"[^\s\"'`,;:()\[\]{}<>=]"
_NUMBER = r"\s*\d+(\.\d+)?\s*"
_CREDENTIALS = (
    "MoEngage refused the credentials ({}); check workspace_id, data_api_key and data_center, and "
    "that the key may use Cohort Sync"
)
_AROUND_WORDS = ".…!?/\\#*|&-_"


class Outcome(enum.Enum):
    """What happens next."""

    ACCEPTED = "accepted"
    RETRY = "retry"
    RATE_LIMITED = "rate limited"
    TOO_LARGE = "too large"
    REFUSED = "refused"
    OUR_FAULT = "our fault"
    CREDENTIALS = "credentials refused"
    UNEXPECTED = "unexpected"


class Answer(msgspec.Struct, frozen=True):
    """A classified answer, or its absence.

    Attributes:
        outcome: What happens next.
        summary: For people, scrubbed: the status and what the API says, or what went wrong.
        wait_seconds: How long the server asks to wait, or ``None`` if it does not say.
        sent: Whether the request may have left; ``False`` if no connection was made.
        app_name: The workspace's name, where an accepted log-in tells it; scrubbed.
    """

    outcome: Outcome
    summary: str
    wait_seconds: float | None = None
    sent: bool = True
    app_name: str | None = None


class _Error(msgspec.Struct):
    message: t.Any = None
    type: t.Any = None
    request_id: t.Any = None
    attribute: t.Any = None


class _AnswerBody(msgspec.Struct):
    """Lenient: a part of an unforeseen type must not hide what the others say."""

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
    """Say what an answer means.

    Args:
        status: The HTTP status.
        headers: The answer's headers, by names of any case.
        content: The answer's body.
        now: Seconds since 1970 here, for answers without a ``Date``.
        secrets: Gives what must not be shown: the key and the request's identifiers.
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
    said = scrub(_said(body.error), secrets())
    if outcome is Outcome.UNEXPECTED and status == 200:  # noqa: PLR2004
        said = "with a body that is not MoEngage's"
    return Answer(outcome, f"HTTP {status} {said}".rstrip(), wait)


def _said(error: _Error | str | None) -> str:
    if not isinstance(error, _Error):
        return _masked(error or "")
    said = _masked(": ".join(str(part) for part in (error.type, error.message) if part))
    if error.attribute:
        said += f" (attribute {_masked(str(error.attribute))})"
    if re.fullmatch(r"[\w-]{1,64}", str(error.request_id or "")):
        said += f" (request_id {error.request_id})"
    return said


def _masked(text: str) -> str:
    """Redact what looks like an identifier: it may be of a member of an earlier request."""

    def word(match: re.Match[str]) -> str:
        found = match.group()
        if re.search(r"[0-9@%]|[^\x00-\x7f]", found):
            return _REDACTED + found[len(found.rstrip(".,;:)")) :]
        return found

    return re.sub(r"[^\s\"'<>]{3,}", word, text[:_LONGEST_QUOTE])


def verdict(answer: Answer, cohort_id: str, max_retry_seconds: int) -> TargetError:
    """The error that ends a run after an answer that nothing more can be done about.

    Args:
        answer: The last answer to a request.
        cohort_id: The request's cohort.
        max_retry_seconds: The setting, for a request that was retried until then.
    """
    cohort, said = f"the cohort {cohort_id!r}", answer.summary
    if answer.outcome is Outcome.CREDENTIALS:
        return SettingsError(_CREDENTIALS.format(said))
    if answer.outcome in {Outcome.REFUSED, Outcome.TOO_LARGE}:
        return InputError(
            f"MoEngage refused a request of {cohort}: {said}; trying again as it is will not "
            "help: look for what it names in the cohort's mapping and rows, or in the settings"
        )
    if answer.outcome is Outcome.OUR_FAULT:
        return InternalError(
            f"MoEngage takes a request of {cohort} for malformed: {said}. No setting and no row is "
            "to blame for that; please report it"
        )
    if answer.outcome is Outcome.UNEXPECTED:
        return SettingsError(
            f"unexpected answer to a request of {cohort}: {said}; check api_url and data_center"
        )
    return TryAgainError(
        f"no request was accepted within {max_retry_seconds} s (max_retry_seconds), the last one "
        f"of {cohort}: {said}; run it again, it goes on from the last STATE"
    )


def login_verdict(answer: Answer) -> TargetError | None:
    """What is wrong after the answer to a log-in; ``None`` if the credentials are good."""
    said = answer.summary
    if answer.outcome is Outcome.ACCEPTED:
        return None
    if answer.outcome is Outcome.CREDENTIALS:
        return SettingsError(_CREDENTIALS.format(said))
    if answer.outcome in {Outcome.RETRY, Outcome.RATE_LIMITED}:
        return TryAgainError(
            f"MoEngage could not check the credentials: {said}; try again in a minute, and if it "
            "stays so, check the network, data_center and api_url"
        )
    if answer.outcome is Outcome.OUR_FAULT:
        return InternalError(
            f"MoEngage takes the request to check the credentials for malformed: {said}. No "
            "setting is to blame for that; please report it"
        )
    if answer.outcome is Outcome.REFUSED:
        return SettingsError(
            f"MoEngage refused to check the credentials: {said}; check workspace_id, data_api_key, "
            "partner and data_center"
        )
    return SettingsError(
        f"unexpected answer to the request to check the credentials: {said}; check api_url and "
        "data_center"
    )


def offence(answer: Answer) -> str:
    """Why a member cannot be delivered, who was refused alone."""
    what = "finds it too large" if answer.outcome is Outcome.TOO_LARGE else "refuses it"
    return f"MoEngage {what}: {answer.summary}"


def wait_seconds(headers: Mapping[str, str], now: float, *, limited: bool) -> float | None:
    """How long the server asks to wait.

    Its clock need not be ours, so a moment is taken relative to the answer's ``Date``.

    Args:
        headers: The answer's headers.
        now: Seconds since 1970 here, for answers without a ``Date``.
        limited: Whether this is a 429. Other answers tell the limit's reset, too, but do not
            ask to wait for it.

    Returns:
        Seconds from 0 to `LONGEST_WAIT_SECONDS`: the longer of the limit's reset and
        ``Retry-After``; ``None`` if it says neither.
    """
    there = _moment(headers.get("Date", "")) or now
    waits = []
    if limited and re.fullmatch(_NUMBER, reset := headers.get("x-ratelimit-reset", "")):
        waits.append(float(reset) - there)
    after = headers.get("Retry-After", "")
    if re.fullmatch(_NUMBER, after):
        waits.append(float(after))
    elif (moment := _moment(after)) is not None:
        waits.append(moment - there)
    return min(max(0.0, *waits), LONGEST_WAIT_SECONDS) if waits else None


def _moment(date: str) -> float | None:
    try:
        return parsedate_to_datetime(date).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None


def scrub(text: str, secrets: Iterable[str]) -> str:
    """Make an API's words fit for a log: no secret, nor a telling part of one.

    Args:
        text: What the API says; it may quote the request, in part or in another form.
        secrets: The key and the identifiers of the request's members.

    Returns:
        The text on one line, at most 300 characters long.
    """
    text = _one_line(text[:_LONGEST_QUOTE])
    if not text:
        return text
    found = {_one_line(form) for secret in secrets for form in _forms(secret)} - {""}
    forms = sorted(found, key=len, reverse=True)
    lowered = text.lower()
    for form in forms:
        if len(form) >= _SHORTEST_TELLING and form.lower() in lowered:
            text = re.sub(re.escape(form), _REDACTED, text, flags=re.IGNORECASE)
    for form in forms:
        if form[:_SHORTEST_TELLING].lower() in lowered:
            text = _without_beginnings(text, form)
    haystack = "\n".join(forms).lower()

    def word(match: re.Match[str]) -> str:
        found = match.group()
        part = found.strip(_AROUND_WORDS).lower()
        return _REDACTED if len(part) >= _SHORTEST_TELLING and part in haystack else found

    return re.sub(f"{_WORD}+", word, text)[:_LONGEST_MESSAGE]


def _without_beginnings(text: str, form: str) -> str:
    """Redact where words are a secret's beginning, cut off, or a whole one that is short."""
    beginning = re.compile(re.escape(form[:_SHORTEST_TELLING]), re.IGNORECASE)
    position = 0
    while (match := beginning.search(text, position)) is not None:
        start, position = match.span()
        for ours, theirs in zip(form[_SHORTEST_TELLING:], text[position:], strict=False):
            if ours.lower() != theirs.lower():
                break
            position += 1
        in_word = text[start - 1 : start + 1].isalnum() if start else False
        if not in_word and not (text[position - 1 : position + 1].isalnum() and text[position:]):
            text = text[:start] + _REDACTED + text[position:]
            position = start + len(_REDACTED)
    return text


def _one_line(text: str) -> str:
    return re.sub(r"[\x00-\x20\x7f-\x9f\u2028\u2029]+", " ", text).strip()


def _forms(secret: str) -> set[str]:
    """A secret as it may stand in a text: plain, or escaped for JSON, a URL or HTML."""
    return {
        secret,
        json.dumps(secret)[1:-1],
        json.dumps(secret, ensure_ascii=False)[1:-1],
        quote(secret, errors="replace"),
        quote(secret, safe="", errors="replace"),
        quote_plus(secret, errors="replace"),
        html.escape(secret),
    }
