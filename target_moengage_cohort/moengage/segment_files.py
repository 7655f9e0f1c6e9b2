"""The rules of MoEngage for the files of file segments; pure."""

from __future__ import annotations

import math
import re
import typing as t
from hashlib import blake2b

AttributeType: t.TypeAlias = t.Literal["string", "double"]

MOST_BYTES = 150_000_000
"""Of a file; 150 MB may mean more, and this is the reading that passes no limit."""

FAULTS = {
    "quote": "has a quote",
    "comma": "has a comma",
    "line_break": "has a line break",
    "nul_byte": "has a NUL byte",
    "quoted": "is in apostrophes",
    "blank": "is blank",
    "not_a_number": "is not a number",
}
"""The rules that a value may break, by their codes, as predicates."""

_FORBIDDEN = re.compile('[",\r\n\0]')
_CODES = {'"': "quote", ",": "comma", "\0": "nul_byte"}
# MoEngage forbids quotes. Within a value an apostrophe is none, and names have it: o'brien.
_IN_APOSTROPHES = re.compile("'(.*')?")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_BUCKETS = 256
_DIGEST_BYTES, _NUMBER_BYTES = 12, 4


def value_fault(value: str, kind: AttributeType) -> str | None:
    """Return the code of the rule that a value breaks, or ``None``.

    MoEngage trims nothing, so white space around a value is a part of it.
    """
    if match := _FORBIDDEN.search(value):
        return _CODES.get(match[0], "line_break")
    if _IN_APOSTROPHES.fullmatch(value):
        return "quoted"
    if not value.strip():
        return "blank"
    return "not_a_number" if kind == "double" and not _is_number(value) else None


def _is_number(value: str) -> bool:
    # Python's own form allows more, such as 1_000 and the digits of other scripts.
    return _NUMBER.fullmatch(value) is not None and math.isfinite(float(value))


class SeenValues:
    """The values of a file, in 16 bytes each, to find one that it has twice."""

    def __init__(self) -> None:
        self._buckets = [bytearray() for _ in range(_BUCKETS)]

    def add(self, value: bytes, number: int) -> None:
        """Add the value with a number."""
        digest = blake2b(value, digest_size=_DIGEST_BYTES).digest()
        self._buckets[digest[0]] += digest + number.to_bytes(_NUMBER_BYTES)

    def first_repeated(self) -> tuple[int, int] | None:
        """Return the numbers of the first value that is there already, and of that one."""
        repeated = [pair for each in self._buckets if (pair := _first_repeated(each)) is not None]
        return min(repeated, default=None)


def _first_repeated(bucket: bytearray) -> tuple[int, int] | None:
    """Return likewise the numbers of the first repeated value of a bucket, in its order."""
    numbers: dict[bytes, int] = {}
    for at in range(0, len(bucket), _DIGEST_BYTES + _NUMBER_BYTES):
        digest = bytes(bucket[at : at + _DIGEST_BYTES])
        rest = bucket[at + _DIGEST_BYTES : at + _DIGEST_BYTES + _NUMBER_BYTES]
        number = int.from_bytes(rest)
        if (before := numbers.setdefault(digest, number)) != number:
            return number, before
    return None
