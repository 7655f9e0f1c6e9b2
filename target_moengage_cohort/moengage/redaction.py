"""Redacts secrets and identifiers in the API's messages, so that they can be logged; pure."""

from __future__ import annotations

import html
import json
import re
import typing as t
from urllib.parse import quote, quote_plus, unquote

if t.TYPE_CHECKING:
    from collections.abc import Iterable

_LONGEST_MESSAGE = 300
_LONGEST_QUOTE = 16_384  # as much of a message as is examined to obtain its first 300 characters
_SHORTEST_PART = 4  # shorter parts of a secret do not give it away
_REDACTED = "[redacted]"
_QUOTED = r"[^\s\"'<>]{3,}"
_WORD = r"[^\s\"'`,;:()\[\]{}<>=]"
_AROUND_WORDS = ".…!?/\\#*|&-_"
_IDENTIFIER = re.compile(r"[0-9@%]|[^\x00-\x7f\u2013-\u2026]")  # typography gives nothing away
_QUANTITY = re.compile(
    r"[0-9]+(?:[.,][0-9]+)*(?=(?: ?[KMG]B| (?:B|bytes|characters|million|seconds|minutes|hours|days"
    r"|months))[.,;:)]*(?:\s|$))"
)
_ORDINARY_WORDS = """
    aborted about accepted access account action active after again all allowed already also
    analytics and another any archived are array attribute attributes authentication
    authorization available bad because been before being between blank blocked body breached
    bson byte bytes callback called can canceled cancelled cannot carriage category certificate
    change changed character characters check client code cohort cohorts column columns comma
    compute conflict connection contact contains could created creation csv custom cyclic data
    database date days denied description did does domain double download duplicate duplicates
    during each either email emails empty encoding engine entity error errors exceeded exception
    exist existing exists expected expired expiry failed failure fetch fetched fetching field
    fields file files filter filters firewall first for forbidden format found from given
    greater had has have header headers help host hour hours how html http https identifier
    identifiers included integer internal into invalid its json just keys large last later
    length less limit limits line lines link list long longer malformed many match matched
    maximum may member members memory message minimum minute minutes mismatch missing moengage
    month more most much must name named names negate nested new none not now null number object
    occurred one only operation operations operator other our out over page parameter parameters
    parse parsed parsing pass passed payload per permission please processed processing profile
    property provided query quota quote quoted quotes rate reached read reading reason received
    redacted refused rejected remove removed request requests required resource response result
    results retry row rows same scan scope seconds see segment segments sent server service
    should size some source status string success such support suspended than that the their
    them then there these they this time timed timeout timestamp title token too total try two
    type unable unauthorized under unexpected unique unknown unreadable unsupported until update
    updated upload uploaded url used user users using utf valid value values version was when
    which while who why will with within without workspace wrong yet you your
"""
# A part of an identifier may be such a word, as the first half of "user-4711" is.
_ORDINARY = frozenset(_ORDINARY_WORDS.split())
_LONGEST_WORD = max(map(len, _ORDINARY))
"""Words of MoEngage's own messages, which give no identifier away."""


def scrub(text: str, secrets: Iterable[str]) -> str:
    """Return a message on one line, at most 300 characters long, without secrets and their parts.

    It may quote the request, in part or in another form. Ordinary words stay unless one of them is
    a whole secret.
    """
    if not (text := _one_line(text[:_LONGEST_QUOTE])):
        return text
    distinct = {_one_line(form) for secret in secrets for form in _forms(secret)} - {""}
    forms = sorted(distinct, key=len, reverse=True)
    lowered = text.lower()
    for form in forms:
        if len(form) >= _SHORTEST_PART and form.lower() in lowered:
            text = re.sub(re.escape(form), _redacted_unless_in_word, text, flags=re.IGNORECASE)
    for form in forms:
        if form[:_SHORTEST_PART].lower() in lowered:
            text = _redact_beginnings(text, form)
    haystack = "\n".join(forms).lower()

    def redact(match: re.Match[str]) -> str:
        word = match.group()
        part = word.strip(_AROUND_WORDS).lower()
        is_part = part in haystack and part not in _ORDINARY
        return _REDACTED if len(part) >= _SHORTEST_PART and is_part else word

    return re.sub(f"{_WORD}+", redact, text)[:_LONGEST_MESSAGE]


def mask_identifiers(text: str, shown: Iterable[str] = (), *, only_ordinary: bool = False) -> str:
    """Redact words that look like identifiers: those of earlier requests are not at hand.

    Quantities stay, and so do the words of texts that are `shown` anyway. With `only_ordinary`, no
    other words stay than ordinary ones: for texts about identifiers that are not at hand.
    """
    text = text[:_LONGEST_QUOTE]
    known = {_bare(word) for each in shown for word in re.findall(_QUOTED, each)} | {"UTF-8"}
    quantities = {match.start() for match in _QUANTITY.finditer(text)}

    def redact(match: re.Match[str]) -> str:
        word = match.group()
        if match.start() in quantities or _bare(word) in known:
            return word
        if not _IDENTIFIER.search(word) and not (only_ordinary and _has_other_words(word)):
            return word
        return _REDACTED + word[len(word.rstrip(".,;:)")) :]

    return re.sub(_QUOTED, redact, text)


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
        in_word |= bool(text[position:]) and text[position - 1 : position + 1].isalnum()
        is_whole = position - start == len(form)
        is_ordinary = text[start:position].strip(_AROUND_WORDS + " ").lower() in _ORDINARY
        if not in_word and (is_whole or not is_ordinary):
            text = text[:start] + _REDACTED + text[position:]
            position = start + len(_REDACTED)
    return text


def _redacted_unless_in_word(match: re.Match[str]) -> str:
    """Redact a secret, unless it is only a part of an ordinary word."""
    before = re.search(
        r"[^\W_]*$", match.string[max(0, match.start() - _LONGEST_WORD) : match.start()]
    )
    after = re.match(r"[^\W_]*", match.string[match.end() : match.end() + _LONGEST_WORD])
    around = (before[0] if before else "", after[0] if after else "")
    is_within = any(around) and match[0].join(around).lower() in _ORDINARY
    return match[0] if is_within else _REDACTED


def _has_other_words(text: str) -> bool:
    """Return whether a text has other words than ordinary ones; two letters are too few for one."""
    return any(each.lower() not in _ORDINARY for each in re.findall(r"[^\W_]{3,}", text))


def _bare(word: str) -> str:
    return word.strip(".,;:()[]")


def _one_line(text: str) -> str:
    return re.sub(r"[\x00-\x20\x7f-\x9f\u2028\u2029]+", " ", text).strip()


def _forms(secret: str) -> set[str]:
    """Return the forms in which a text may contain a secret: plain, or escaped."""
    return {
        secret,
        json.dumps(secret)[1:-1],
        json.dumps(secret, ensure_ascii=False)[1:-1],
        json.dumps(secret)[1:-1].replace("/", "\\/"),
        unquote(secret),
        quote(secret, errors="replace"),
        quote(secret, safe="", errors="replace"),
        quote_plus(secret, errors="replace"),
        html.escape(secret),
    }
