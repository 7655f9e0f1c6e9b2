"""Redacts secrets and identifiers in the API's messages, so that they can be logged; pure."""

from __future__ import annotations

import html
import json
import re
import typing as t
from urllib.parse import quote, quote_plus

if t.TYPE_CHECKING:
    from collections.abc import Iterable

_LONGEST_MESSAGE = 300
_LONGEST_QUOTE = 16_384  # as much of a message as is examined to obtain its first 300 characters
_SHORTEST_PART = 4  # shorter parts of a secret do not give it away
_REDACTED = "[redacted]"
_WORD = r"[^\s\"'`,;:()\[\]{}<>=]"
_AROUND_WORDS = ".…!?/\\#*|&-_"


def scrub(text: str, secrets: Iterable[str]) -> str:
    """Return a message on one line, at most 300 characters long, without secrets and their parts.

    It may quote the request, in part or in another form.
    """
    if not (text := _one_line(text[:_LONGEST_QUOTE])):
        return text
    distinct = {_one_line(form) for secret in secrets for form in _forms(secret)} - {""}
    forms = sorted(distinct, key=len, reverse=True)
    lowered = text.lower()
    for form in forms:
        if len(form) >= _SHORTEST_PART and form.lower() in lowered:
            text = re.sub(re.escape(form), _REDACTED, text, flags=re.IGNORECASE)
    for form in forms:
        if form[:_SHORTEST_PART].lower() in lowered:
            text = _redact_beginnings(text, form)
    haystack = "\n".join(forms).lower()

    def redact(match: re.Match[str]) -> str:
        word = match.group()
        part = word.strip(_AROUND_WORDS).lower()
        return _REDACTED if len(part) >= _SHORTEST_PART and part in haystack else word

    return re.sub(f"{_WORD}+", redact, text)[:_LONGEST_MESSAGE]


def mask_identifiers(text: str) -> str:
    """Redact words that look like identifiers: those of earlier requests are not at hand."""

    def redact(match: re.Match[str]) -> str:
        word = match.group()
        if re.search(r"[0-9@%]|[^\x00-\x7f]", word):
            return _REDACTED + word[len(word.rstrip(".,;:)")) :]
        return word

    return re.sub(r"[^\s\"'<>]{3,}", redact, text[:_LONGEST_QUOTE])


def _redact_beginnings(text: str, form: str) -> str:
    """Redact words that are the truncated beginning of a secret, or all of a short one."""
    beginning = re.compile(re.escape(form[:_SHORTEST_PART]), re.IGNORECASE)
    position = 0
    while (match := beginning.search(text, position)) is not None:
        start, position = match.span()
        for ours, theirs in zip(form[_SHORTEST_PART:], text[position:], strict=False):
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
    """Return the forms in which a text may contain a secret: plain, or escaped."""
    return {
        secret,
        json.dumps(secret)[1:-1],
        json.dumps(secret, ensure_ascii=False)[1:-1],
        quote(secret, errors="replace"),
        quote(secret, safe="", errors="replace"),
        quote_plus(secret, errors="replace"),
        html.escape(secret),
    }
