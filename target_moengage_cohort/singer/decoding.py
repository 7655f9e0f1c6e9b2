"""JSON lines into structs, one by one or many at once; pure."""

from __future__ import annotations

import json
import re
import typing as t
from decimal import Decimal

import msgspec
from msgspec import UNSET

if t.TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from target_moengage_cohort.core.errors import InputError

PIECE_BYTES = 1 << 16  # one unusual line among the others costs the speed of one piece

LONGEST_LINE = 1 << 27
"""Bytes; whoever writes a longer line writes no rows, and all of it would have to be in memory."""

UNDECODABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What msgspec raises where a line is not what a decoder is for."""


def _number(digits: str) -> Decimal | None:
    """A number with a fraction or an exponent, exactly; ``None`` beyond all bounds."""
    try:
        return Decimal(digits)
    except ArithmeticError:
        return None


def _texts_only(value: t.Any) -> t.Any:
    """A JSON value with ``[]``, which is no identifier, for each text that UTF-8 cannot carry."""
    if isinstance(value, str):
        return value if value.encode(errors="replace").decode() == value else []
    if isinstance(value, list):
        return [_texts_only(item) for item in value]
    if isinstance(value, dict):
        items = ((_texts_only(key), _texts_only(item)) for key, item in value.items())
        return {key: item for key, item in items if key != []}
    return value


_encode = msgspec.json.Encoder(decimal_format="number").encode
decode_record = msgspec.json.Decoder(dict[str, t.Any], float_hook=_number).decode
"""Decodes a whole record; numbers with a fraction or an exponent are `Decimal`."""


def row_type(columns: Mapping[str, str], keys: Sequence[str]) -> type[msgspec.Struct]:
    """A struct type for rows: an attribute for each role and each key, ``UNSET`` if absent.

    Args:
        columns: Role → column.
        keys: See `Reader.expect`.
    """
    mapped = set(columns.values())
    roles = {**columns} | {f"key_{n}": key for n, key in enumerate(keys) if key not in mapped}
    fields = [(role, t.Any, UNSET) for role in roles]
    return msgspec.defstruct("Row", fields, rename=roles, gc=False)


def can_be_looked_for(column: str) -> bool:
    """Whether a struct type for rows can have a column of this name."""
    return not re.search(r'["\\\x00-\x1f]', column)


_T = t.TypeVar("_T")


def decoder(kind: type[_T]) -> msgspec.json.Decoder[_T]:
    """A decoder by which numbers with a fraction or an exponent are `Decimal`."""
    return msgspec.json.Decoder(kind, float_hook=_number)


def decode_plain(decode: t.Callable[[bytes], list[t.Any]], piece: bytes) -> list[t.Any] | None:
    """Decode all lines of a piece at once; ``None`` if one of them is of another kind."""
    try:
        decoded = decode(piece)
    except UNDECODABLE:
        return None
    # msgspec also takes JSON on several lines, and several on one.
    lines = piece.count(b"\n") + (not piece.endswith(b"\n"))
    return decoded if len(decoded) == lines else None


def mended(line: bytes) -> bytes | None:
    """Turn a line into JSON as the standard has it; ``None`` if it is none, or a STATE.

    Python's `json` writes ``NaN`` and halves of surrogate pairs, which are no JSON or no text. A
    number that is none becomes null, as in taps that know of it; a text that is none becomes
    something that no column may hold.
    """
    try:
        value = json.loads(line, parse_float=_number, parse_constant=lambda _name: None)
        found = _encode(_texts_only(value))
    except (ValueError, RecursionError):
        return None
    is_state = isinstance(value, dict) and value.get("type") == "STATE"
    return None if found == line or is_state else found


def pieces(block: bytes) -> Iterator[bytes]:
    """Cut whole lines into pieces of some of them."""
    start = 0
    while start < len(block):
        end = block.find(b"\n", start + PIECE_BYTES) + 1 or len(block)
        yield block[start:end]
        start = end


_Chunk = t.TypeVar("_Chunk", bytes, "bytes | None")


def blocks(chunks: Iterable[_Chunk], too_long: t.Callable[[], InputError]) -> Iterator[_Chunk]:
    """Cut what comes in chunks at the last line break of each; the last line may lack its own.

    ``None`` among the chunks is passed on.

    Args:
        chunks: What comes.
        too_long: Makes the error for a line of more than `LONGEST_LINE`, which is the one after
            all that were yielded.

    Raises:
        InputError: A line is too long.
    """
    parts: list[bytes] = []
    size = 0
    for chunk in chunks:
        if chunk is None:
            yield chunk
            continue
        end = chunk.rfind(b"\n") + 1
        if end:
            yield b"".join([*parts, chunk[:end]])
            parts, size = [], 0
        if end < len(chunk):
            parts.append(chunk[end:])
            size += len(parts[-1])
            if size > LONGEST_LINE:
                raise too_long()
    if parts:
        yield b"".join(parts)
