"""Decoders for rows and records in JSON; pure."""

from __future__ import annotations

import json
import re
import typing as t
from decimal import Decimal

import msgspec
from msgspec import UNSET

from target_moengage_cohort.core.deletions import Spellings

if t.TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

UNDECODABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What msgspec raises for a line that a decoder does not accept."""

_T = t.TypeVar("_T")


def _exact_number(digits: str) -> Decimal | None:
    """Return a number with all its digits; zeros after a written exponent's point are not digits.

    So an exponent of 0 or more shows that one was written: see `identifier`.
    """
    try:
        number = Decimal(digits)
    except ArithmeticError:  # it is out of range
        return None
    if "e" in digits.lower() and number == (whole := number.to_integral_value()):
        return whole
    return number


def decoder(type_: type[_T]) -> msgspec.json.Decoder[_T]:
    """Return a decoder that reads numbers with a fraction or an exponent as `Decimal`."""
    return msgspec.json.Decoder(type_, float_hook=_exact_number)


decode_record = decoder(dict[str, t.Any]).decode
"""Decodes a whole record; numbers with a fraction or an exponent are `Decimal`."""


def attributes(columns: Mapping[str, str], keys: Sequence[str]) -> dict[str, str]:
    """Return the attributes of a row by a `RowLayout`, each with its column."""
    mapped = set(columns.values())
    return {**columns} | {f"key_{n}": key for n, key in enumerate(keys) if key not in mapped}


def row_decoder(type_: type[_T], columns: Mapping[str, str]) -> Callable[[bytes], _T]:
    """Return a decoder as `decoder` does; marks of deletions may be written in any case."""
    decode, corrected = decoder(type_).decode, Spellings(columns).corrected
    return lambda line: decode(corrected(line))


def row_type(columns: Mapping[str, str], keys: Sequence[str]) -> type[msgspec.Struct]:
    """Return a struct type for rows: an attribute per role and key, ``UNSET`` if absent."""
    names = attributes(columns, keys)
    fields = [(name, t.Any, UNSET) for name in names]
    return msgspec.defstruct("Row", fields, rename=names, gc=False)


def is_decodable_column(name: str) -> bool:
    """Return whether a struct type for rows can have a column of this name."""
    return not re.search(r'["\\\x00-\x1f]', name)


_encode = msgspec.json.Encoder(decimal_format="number").encode


def repair(line: bytes) -> bytes | None:
    """Return a line as standard JSON; ``None`` if it is not repairable, or is a STATE.

    Python's `json` writes ``NaN``, which is not JSON, and lone surrogates, which UTF-8 cannot
    encode. The former becomes null, as in taps that avoid it. The latter becomes a list, which no
    mapped column accepts.
    """
    try:
        value = json.loads(line, parse_float=_as_written, parse_constant=lambda _name: None)
        repaired = _encode(_without_surrogates(value))
    except (ValueError, RecursionError):
        return None
    is_state = isinstance(value, dict) and value.get("type") == "STATE"
    return None if repaired == line or is_state else repaired


def _as_written(digits: str) -> msgspec.Raw | None:
    return None if _exact_number(digits) is None else msgspec.Raw(digits.encode())


def _without_surrogates(value: t.Any) -> t.Any:
    """Return a JSON value with ``[]`` in place of each text that UTF-8 cannot encode."""
    if isinstance(value, str):
        return value if value.encode(errors="replace").decode() == value else []
    if isinstance(value, list):
        return [_without_surrogates(item) for item in value]
    if isinstance(value, dict):
        items = _without_surrogates([*map(list, value.items())])
        return {key: item for key, item in items if key != []}
    return value
