"""Odd JSON and altered messages as input for fuzz tests."""

import json
import os
import typing as t

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

SEED = int(os.environ.get("SEED", "20261122"))


def fuzzed(short: int):
    """Return the settings of a fuzz test: `short` examples, or FUZZ times as many."""
    return settings(
        max_examples=short * int(os.environ.get("FUZZ", "1")),
        database=None,
        deadline=None,
        print_blob=True,
        suppress_health_check=list(HealthCheck),
    )


VALUES = (
    b"null", b"true", b"0", b"-0", b"1.0", b"1.5", b"[]", b"{}", b'""', b'"a"', b'"u\\u0000"',
    b"NaN", b"-Infinity", b"1e400", b"1e-400", b"1e1000000000", b"18446744073709551616",
    b"-9223372036854775809", b"9" * 400, b'"\\ud800"', b'"\xff"', b'"\xed\xa0\x80"', b"\0",
    b'"\\u0000"', b'[{"a":[1,null]}]', b'{"uid":"u1"}', b"[" * 200 + b"]" * 200,
    b"[" * 100_000 + b"]" * 100_000, b'{"a":' * 5_000 + b"1" + b"}" * 5_000,
    b'"' + b"x" * 9_999 + b'"',
    b'"RECORD"', b'"STATE"', b'"SCHEMA"', b'"users"', b'"/dev/null"', b'["/dev/null"]', b'["/"]',
    b'["nope://x"]', b'["zip://x"]', b'["github://x"]', b'["dir://x"]', b'["\\u0000"]',
    b'["file://%00"]',
    b'["' + b"x" * 300 + b'"]', b'{"format":"parquet"}', b'{"format":"arrow"}', b'["uid"]',
    b'{"properties":{"uid":{"type":5,"anyOf":7}}}', b'{"properties":{"uid":null}}',
    b'{"properties":{"uid":{"anyOf":[{"type":["integer",{}]},null]}}}', b'["a\\nb"]',
)  # fmt: skip
"""JSON, or nearly, that may stand where something else is expected."""

_PIECES = (*VALUES, *(bytes([byte]) for byte in b'"\\{}[],:\n\r \xff'), b"\xef\xbb\xbf")
_MARK = "@@ODD@@"


def _places(value: t.Any, path: tuple[t.Any, ...] = ()) -> t.Iterator[tuple[t.Any, ...]]:
    """Yield the paths to all values within a message."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in items:
        yield (*path, key)
        if isinstance(inner, dict | list):
            yield from _places(inner, (*path, key))


@st.composite
def odd_messages(draw: t.Any, messages: st.SearchStrategy[dict[str, t.Any]]) -> bytes:
    """Draw a line with a valid message in which one value or name is replaced."""
    message = json.loads(json.dumps(draw(messages)))
    *path, last = draw(st.sampled_from(list(_places(message))))
    inner = message
    for key in path:
        inner = inner[key]
    value = inner[last]
    if isinstance(inner, dict) and draw(st.booleans()):
        del inner[last]
        inner[_MARK] = value
    else:
        inner[last] = _MARK
    return json.dumps(message).encode().replace(b'"@@ODD@@"', draw(st.sampled_from(VALUES)))


@st.composite
def broken_lines(draw: t.Any, messages: st.SearchStrategy[dict[str, t.Any]]) -> bytes:
    """Draw a line with a valid message from which bytes are removed, or to which some are added."""
    line = json.dumps(draw(messages)).encode()
    start = draw(st.integers(0, len(line)))
    end = draw(st.integers(start, min(len(line), start + 30)))
    return (
        line[:start]
        + draw(st.just(b"") | st.sampled_from(_PIECES) | st.binary(max_size=8))
        + line[end:]
    )
