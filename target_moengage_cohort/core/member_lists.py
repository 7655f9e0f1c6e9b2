"""Reads members from a file: CSV with a header, or one uid per line.

No error message quotes the file's content.
"""

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
from target_moengage_cohort.core.input_files import reading
from target_moengage_cohort.core.membership import Member

if t.TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

BATCH_SIZE = 10_000
_COLUMN_NAME = re.compile(
    r"(?:(?:[a-z0-9]+[ _.-])*|user|customer|client|contact|member|account|anonymous|device"
    r"|external)"
    r"(?:[u_]?id|uuid|guid|e-?mail(?:[ _-]?address)?|phone|msisdn|identifier)s?",
    re.IGNORECASE,
)


def read_members(
    path: str, *, needs_header: bool, only: str | None = None
) -> t.Iterator[list[Member]]:
    """Read a file of this machine as `members_in`; - is standard input."""
    if path == "-":
        standard = contextlib.nullcontext(sys.stdin.buffer)
        return members_in(lambda: standard, "standard input", needs_header=needs_header, only=only)
    return members_in(lambda: Path(path).open("rb"), path, needs_header=needs_header, only=only)


def members_in(
    opens: Callable[[], AbstractContextManager[t.IO[bytes]]],
    name: str,
    *,
    needs_header: bool,
    only: str | None = None,
) -> t.Iterator[list[Member]]:
    """Read members in batches, their identifiers verbatim, from a UTF-8 file; `name` is for errors.

    Unless it `needs_header`, each line may be a uid. Of a file of differences (see `verify`) the
    rows of `only` one kind are read.

    Raises:
        InputError: It cannot be read, or a line cannot be used; the message has its number.
    """
    is_empty = True
    with naming_file(name), opens() as binary:
        file = io.TextIOWrapper(binary, encoding="utf-8-sig", newline="")
        members = _members(file, needs_header=needs_header, only=only)
        while batch := list(itertools.islice(members, BATCH_SIZE)):
            is_empty = False
            yield batch
        file.detach()  # standard input is not ours to close
    if is_empty:
        raise InputError("no_identifiers", f"{name}: contains no identifiers; put one on each line")


@contextlib.contextmanager
def naming_file(name: str) -> t.Iterator[None]:
    """Raise what is wrong with a CSV, or with reading it, as an `InputError` that names it."""
    with reading(name):
        try:
            yield
        except InputError as error:
            raise InputError(error.code, f"{name}: {error}") from None
        except csv.Error:
            msg = f"{name}: is not valid CSV; check that every quote is closed"
            raise InputError("not_csv", msg) from None


def is_column_name(line: str) -> bool:
    """Return whether a line looks like the name of a column of identifiers."""
    return _COLUMN_NAME.fullmatch(line.strip()) is not None


def _members(file: t.TextIO, *, needs_header: bool, only: str | None) -> t.Iterator[Member]:
    first = file.readline()
    header = [name.strip() for name in next(csv.reader([first]), [])]
    if "uid" in header or "anonymous_id" in header:
        rows = csv.DictReader(file, header, strict=True)
        for row in rows:
            if only is not None and row.get("difference", only) != only:
                continue
            member = Member(row.get("uid") or None, row.get("anonymous_id") or None)
            if member == Member():
                number = rows.reader.line_num + 1  # the header was read before
                msg = f"line {number} has no identifier; delete it, or fill it in"
                raise InputError("no_identifier", msg)
            yield member
        return
    if needs_header or any(mark in first for mark in ',;\t"'):
        msg = "the first line must name the columns, separated by commas: uid, anonymous_id or both"
        raise InputError("no_header", msg)
    if is_column_name(first):
        msg = (
            "the first line looks like a column name; name the column uid or anonymous_id, "
            "depending on what it contains (if the line itself is a uid, insert a line with uid "
            "above it)"
        )
        raise InputError("no_header", msg)
    for line in itertools.chain((first,), file):
        if uid := line.rstrip("\r\n"):
            yield Member(uid)
