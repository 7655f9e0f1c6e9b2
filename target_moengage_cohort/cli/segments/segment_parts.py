"""Files for a file segment: checked against MoEngage's rules, and split by its limits."""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
import typing as t
from pathlib import Path

import click
import msgspec

from target_moengage_cohort.core.errors import InputError
from target_moengage_cohort.core.input_files import reading
from target_moengage_cohort.core.member_lists import is_column_name
from target_moengage_cohort.moengage.calls import MOST_USERS
from target_moengage_cohort.moengage.segment_files import (
    FAULTS,
    MOST_BYTES,
    SeenValues,
    value_fault,
)

if t.TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Iterable, Iterator

    from target_moengage_cohort.core.membership import Member
    from target_moengage_cohort.moengage.segment_files import AttributeType

_LONGEST = 65_536  # characters of a line
_AT_A_TIME = 10_000
_REMEDY = (
    "MoEngage accepts one column of values without quotes, commas and blank lines. Fix or delete "
    "the line"
)
_REMEDIES: dict[str | None, str] = {
    "nul_byte": "UTF-16 files have such bytes. Save the file as UTF-8, or delete the line",
    "not_a_number": "with --type double, all values must be numbers such as -1.5. Fix or delete "
    "the line",
}
_BLOCK_BYTES = 1 << 20  # more than the longest line has


class Part(msgspec.Struct, frozen=True):
    """A file of values, one on each line, that MoEngage takes."""

    path: Path
    users: int
    size: int  # in bytes


@contextlib.contextmanager
def opened_csv(path: str) -> Iterator[t.IO[bytes]]:
    """Open a CSV; - is standard input.

    Anything but a regular file, such as standard input, is read as a whole: inside
    `Session.opener`, no signal would end the wait for it.
    """
    with contextlib.ExitStack() as stack:
        with reading(_shown(path)):
            file: t.IO[bytes] = stack.enter_context(click.open_file(path, "rb"))
            if path == "-" or not Path(path).is_file():
                # Without a name, so that nothing of it stays if the process is killed.
                copy = stack.enter_context(tempfile.TemporaryFile())
                _copy(t.cast("io.BufferedReader", file), copy)
                file = copy
        yield file


def _copy(source: io.BufferedReader, target: t.IO[bytes]) -> None:
    """Copy as much of a CSV as MoEngage may take, or enough to refuse it."""
    lines = unbroken = 0
    # One system call each: `read` may miss a signal between two of its own.
    while block := source.read1(_BLOCK_BYTES):
        target.write(block)
        lines += (found := block.count(b"\n"))
        unbroken = 0 if found else unbroken + len(block)
        if lines > MOST_USERS or unbroken > _BLOCK_BYTES:
            break
    target.seek(0)


def csv_values(binary: t.IO[bytes], path: str, kind: AttributeType) -> Iterator[list[str]]:
    """Yield the values of a CSV of one column without a header.

    Raise an `InputError` for a file, or a line of it, that MoEngage would refuse.
    """
    name = _shown(path)
    with reading(name):
        file = io.TextIOWrapper(binary, encoding="utf-8-sig", newline="\n")
        yield from _batches(file, name, kind)
        file.detach()  # `opened_csv` closes it


def _batches(file: t.TextIO, name: str, kind: AttributeType) -> Iterator[list[str]]:
    values: list[str] = []
    number = 0
    while line := file.readline(_LONGEST):
        number += 1
        value = line.removesuffix("\n").removesuffix("\r")
        code = value_fault(value, kind)
        if code is not None or len(line) == _LONGEST:
            fault = f"has more than {_LONGEST:,} characters" if code is None else FAULTS[code]
            remedy = _REMEDIES.get(code, _REMEDY)
            msg = f"{name}: line {number:,} {fault}; {remedy}"
            raise InputError("invalid_segment_file", msg)
        if number == 1 and is_column_name(value):
            msg = f"{name}: the first line looks like a column name; delete it"
            raise InputError("invalid_segment_file", msg)
        values.append(value)
        if len(values) == _AT_A_TIME:
            yield values
            values = []
    yield values


def member_values(
    chunks: Iterable[list[Member]], kind: AttributeType, left_out: Counter[str]
) -> Iterator[list[str]]:
    """Yield the uids of members; count the members that no file can have, by the reason's code."""
    for members in chunks:
        values = []
        for member in members:
            fault = "no_uid" if member.uid is None else value_fault(member.uid, kind)
            if fault is None:
                values.append(t.cast("str", member.uid))
            else:
                left_out[fault] += 1
        yield values


def write_parts(directory: Path, batches: Iterable[list[str]], name: str) -> tuple[Part, ...]:
    """Write values to as few files as MoEngage takes, which are their owner's alone.

    Raise an `InputError` if a value is there twice, or if there are none, or too many for a day.
    """
    seen, total = SeenValues(), 0
    parts: list[Part] = []
    with _Writer(directory, parts) as writer:
        for values in batches:
            for value in values:
                total += 1
                line = value.encode()
                seen.add(line, total)
                writer.write(line + b"\n")
            if total > MOST_USERS:
                msg = (
                    f"{name}: more than {MOST_USERS:,} users, the most that MoEngage accepts per "
                    "day. Split it into several files, and send each one on a different day"
                )
                raise InputError("too_many_users", msg)
    if not total:
        raise InputError("no_identifiers", f"{name}: contains no values; nothing was sent")
    if (pair := seen.first_repeated()) is not None:
        number, before = pair
        msg = f"{name}: lines {before:,} and {number:,} are identical; delete one of them"
        raise InputError("invalid_segment_file", msg)
    return tuple(parts)


def quoted_values(path: Path, text: str) -> list[str]:
    """Return the values of a file that a text quotes, whatever their case."""
    lowered = text.lower()
    with path.open(encoding="utf-8", newline="\n") as file:
        return [value for line in file if (value := line[:-1]).lower() in lowered]


class _Writer:
    """Writes lines to files of at most `MOST_BYTES` each, and notes each file that is complete."""

    def __init__(self, directory: Path, parts: list[Part]) -> None:
        self._directory, self._parts = directory, parts
        self._begin()

    def _begin(self) -> None:
        self._path = self._directory / f"part-{len(self._parts) + 1}.csv"
        descriptor = os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        self._file = open(descriptor, "wb")  # noqa: PTH123, SIM115 - made with its mode
        self._users = self._size = 0

    def _end(self) -> None:
        self._file.close()
        self._parts.append(Part(self._path, self._users, self._size))

    def write(self, line: bytes) -> None:
        """Write a line."""
        if self._size + len(line) > MOST_BYTES:
            self._end()
            self._begin()
        self._file.write(line)
        self._users += 1
        self._size += len(line)

    def __enter__(self) -> t.Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()


def _shown(path: str) -> str:
    return "standard input" if path == "-" else path
