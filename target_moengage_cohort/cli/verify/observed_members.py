"""Reads an observed membership: a CSV of users, or payloads of an outbound segment sync.

No error message quotes the file's content.
"""

from __future__ import annotations

import csv
import itertools
import typing as t
from pathlib import Path

import msgspec

from target_moengage_cohort.core.errors import InputError
from target_moengage_cohort.core.member_lists import BATCH_SIZE, naming_file
from target_moengage_cohort.core.membership import Action, Member

if t.TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_NAMES = ("uid", "ID")  # the latter is what MoEngage's dashboard calls it
_LONGEST_LINE = 1 << 24
"""A payload of 10,000 users takes a tenth of it."""

Row: t.TypeAlias = tuple[Action, Member]


class _Lists(msgspec.Struct, frozen=True):
    add_users: list[t.Any] = []
    remove_users: list[t.Any] = []


class _Payload(msgspec.Struct, frozen=True):
    type: t.Literal["segment_sync"]
    data: _Lists


_decode = msgspec.json.Decoder(_Payload).decode


def read_observed(path: str, id_attribute: str | None) -> Iterator[Sequence[Row]]:
    """Read the members of a segment, in batches of rows; a member's last row counts.

    Raises:
        InputError: It cannot be read, or a line cannot be used; the message has its number.
    """
    names = [*_NAMES, *([id_attribute] if id_attribute else [])]
    with naming_file(path), Path(path).open(encoding="utf-8-sig", newline="") as file:
        is_json = file.read(1) == "{"
        file.seek(0)
        rows = (_payloads if is_json else _csv)(_lines(file), names)
        while batch := list(itertools.islice(rows, BATCH_SIZE)):
            yield batch


def _lines(file: t.TextIO) -> Iterator[str]:
    for number in itertools.count(1):
        if not (line := file.readline(_LONGEST_LINE)):
            return
        if len(line) == _LONGEST_LINE:
            msg = f"line {number} is longer than {_LONGEST_LINE >> 20} MiB; choose another file"
            raise InputError("line_too_long", msg)
        yield line


def _csv(lines: Iterator[str], names: Sequence[str]) -> Iterator[Row]:
    rows = csv.reader(lines, strict=True)
    header = [name.strip() for name in next(rows, [])]
    found = [header.index(name) for name in names if name in header]
    if not found:
        msg = (
            f"the first line must be a header with a column {' or '.join(names)} that contains the "
            "user IDs. Rename that column"
        )
        raise InputError("no_header", msg)
    at = found[0]
    for row in rows:
        if row:
            yield Action.ADD, _member(row[at] if at < len(row) else None, rows.line_num)


def _payloads(lines: Iterator[str], names: Sequence[str]) -> Iterator[Row]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            data = _decode(line).data
        except (msgspec.DecodeError, UnicodeEncodeError):
            msg = f"line {number} is not a payload of Outbound Segment Sync; write one per line"
            raise InputError("not_a_payload", msg) from None
        for action, users in ((Action.ADD, data.add_users), (Action.REMOVE, data.remove_users)):
            for user in users:
                if isinstance(user, dict):
                    values = (user[name] for name in names if name in user)
                    yield action, _member(next(values, None), number)
                else:
                    yield action, _member(user, number)


def _member(value: object, number: int) -> Member:
    if isinstance(value, str) and value:
        return Member(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return Member(str(value))
    msg = f"line {number} has no user ID; remove that line, or export the file again"
    raise InputError("no_identifier", msg)
