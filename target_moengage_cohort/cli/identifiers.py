"""Members named in a file: CSV with a header, or one uid a line. No message shows one of them."""

from __future__ import annotations

import contextlib
import csv
import io
import itertools
import re
import sys
import typing as t
from pathlib import Path

from target_moengage_cohort.core.errors import InputError
from target_moengage_cohort.core.membership import Member

if t.TYPE_CHECKING:
    from collections.abc import Iterator

STANDARD_INPUT = "-"
_COLUMNS = ("uid", "anonymous_id")
_AT_ONCE = 10_000
_LIKE_A_HEADER = re.compile(
    r"(?:(?:[a-z0-9]+[ _.-])*|user|customer|client|contact|member|account|anonymous|device"
    r"|external)"
    r"(?:[u_]?id|uuid|guid|e-?mail(?:[ _-]?address)?|phone|msisdn|identifier)s?",
    re.IGNORECASE,
)


def read_members(path: str, *, needs_header: bool) -> Iterator[list[Member]]:
    """Read members, identifiers exactly as they stand, in lists of some thousands.

    Args:
        path: The file, in UTF-8, or `STANDARD_INPUT`.
        needs_header: Whether it must be CSV with a header; if not, each line may be a uid.

    Raises:
        InputError: It cannot be read, or a line cannot be used; the message says which line.
    """
    name = "standard input" if path == STANDARD_INPUT else path
    is_empty = True
    try:
        with _opened(path) as file:
            found = _members(file, needs_header=needs_header)
            while members := list(itertools.islice(found, _AT_ONCE)):
                is_empty = False
                yield members
    except (OSError, UnicodeError, csv.Error, InputError) as error:
        msg = f"{name}: {_said(error)}"
        raise InputError(msg) from None
    if is_empty:
        msg = f"{name}: holds no identifier; put one on each line"
        raise InputError(msg)


def _said(error: Exception) -> str:
    """What is wrong with a file, without any of what it holds."""
    if isinstance(error, InputError):
        return str(error)
    if isinstance(error, OSError):
        return f"cannot be read ({error.strerror}); name a file that can"
    if isinstance(error, UnicodeError):
        return "is not text in UTF-8; save it as that"
    return "is not valid CSV; see that every quote is closed"


@contextlib.contextmanager
def _opened(path: str) -> Iterator[t.TextIO]:
    with contextlib.ExitStack() as stack:
        if path == STANDARD_INPUT:  # which is not ours to close
            source: t.BinaryIO = sys.stdin.buffer
        else:
            source = stack.enter_context(Path(path).open("rb"))
        file = io.TextIOWrapper(source, encoding="utf-8-sig", newline="")
        try:
            yield file
        finally:
            file.detach()


def _members(file: t.TextIO, *, needs_header: bool) -> Iterator[Member]:
    first = file.readline()
    header = [name.strip() for name in next(csv.reader([first]), [])]
    places = {column: header.index(column) for column in _COLUMNS if column in header}
    if places:
        yield from _rows(csv.reader(file, strict=True), places)
        return
    if needs_header or any(mark in first for mark in ',;\t"'):
        msg = "the first line must name the columns, with commas: uid, anonymous_id, or both"
        raise InputError(msg)
    if _LIKE_A_HEADER.fullmatch(first.strip()):
        msg = (
            "the first line looks like a column's name; name the column uid or anonymous_id, "
            "whichever it holds (if the line is a uid itself, put a line uid above it)"
        )
        raise InputError(msg)
    for line in itertools.chain((first,), file):
        if uid := line.rstrip("\r\n"):
            yield Member(uid)


def _rows(rows: t.Any, places: dict[str, int]) -> Iterator[Member]:
    for row in rows:
        if not row:
            continue
        found = {
            column: row[place]
            for column, place in places.items()
            if len(row) > place and row[place]
        }
        if not found:
            line = rows.line_num + 1  # the header was read before
            msg = f"line {line} names nobody; delete it, or fill it in"
            raise InputError(msg)
        yield Member(**found)
