"""Marks of deleted rows: the columns that taps use for them, and what their values mean."""

from __future__ import annotations

import re
import typing as t
from datetime import date

import msgspec

from target_moengage_cohort.core.errors import RowError

if t.TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

MARKS = ("_sdc_deleted_at", "_sdc_lsn_deleted_at")
"""Columns that mark a deleted row in any stream, in any case; the latter is tap-mssql's."""

_OWN = "own_deleted_at"  # the mapping's own column, which the schema has
UNDECLARED_OWN = f"{_OWN}_in_any_case"
"""The role of the mapping's own column if the schema does not have it: rows decide."""

WHOLE_ROWS = (
    "Make the log contain whole rows (in PostgreSQL: REPLICA IDENTITY FULL), or set the "
    "stream's sync_mode to mirror"
)
"""The remedy if a log has only the keys of deleted rows."""

# These run in Python and in DuckDB, so they use only what both know.
_YEAR = "(?:19(?:7[1-9]|[89][0-9])|[2-8][0-9]{3})"  # outside of it are placeholders
_DAY = "-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12][0-9]|3[01])"
_TIME = "[Tt ](?:[01][0-9]|2[0-4]):[0-5][0-9](?::[0-6][0-9](?:[.,][0-9]+)?)?"
_ZONE = " ?(?:[Zz]|UTC|[+-][0-9]{2}(?::?[0-9]{2}){0,2})"
_CLOCK = f"(?:{_TIME}(?:{_ZONE})?)?"
BLANK = "[ \t\r\n]*"
TIMESTAMP = f"{BLANK}{_YEAR}{_DAY}{_CLOCK}{BLANK}"
"""Matches the text of a date or time, as ISO 8601, SQL and their mixtures write it."""

_is_timestamp = re.compile(TIMESTAMP).fullmatch
_is_placeholder = re.compile(f"{BLANK}[0-9]{{4}}(?:{_DAY}|-00-00){_CLOCK}{BLANK}").fullmatch


def is_deletion(value: object) -> bool:
    """Return whether a mark's value is a timestamp; null, absent, empty and false are none.

    Raise a `RowError` for any other value. It is never guessed what that means: a member would be
    added or removed by mistake.
    """
    if value is None or value is msgspec.UNSET or value is False:
        return False
    reason = "must be a timestamp, null, empty or false"
    if isinstance(value, date):  # or a datetime: a stream map's
        value = value.isoformat()
    if isinstance(value, str):
        if _is_timestamp(value):
            return True
        if not value.strip():
            return False
        if _is_placeholder(value):
            reason = "is a placeholder, not the time of a deletion; make it null"
    raise RowError("invalid_deletion", reason)


def is_deletion_role(role: str) -> bool:
    """Return whether the column with a role marks deletions."""
    return role.startswith(("deleted_at", _OWN))


def in_any_case(name: str, role: str, names: Iterable[str]) -> str | None:
    """Return the name, among those of a row, that a column with a role has; ``None``: none.

    A mark is found in any case (of ASCII letters, as in JSON that is not decoded yet), but a column
    of the mapping that the schema has is not.
    """
    if name in names or role == _OWN:
        return name if name in names else None
    folded = name.encode().lower()
    return next((each for each in names if each.encode().lower() == folded), None)


def deletion_columns(own: str | None, declared: Iterable[str]) -> dict[str, str]:
    """Return role → column for all columns that can mark a deletion in a stream's rows.

    Args:
        own: The mapping's own column, if it has one. Its exact name counts if the schema has that,
            or else its name in any case.
        declared: The columns in the stream's schema.
    """
    columns = {}
    declared = list(declared)
    if own is not None and own.lower() not in MARKS:
        found = in_any_case(own, "", declared)
        columns[UNDECLARED_OWN if found is None else _OWN] = found or own
    marks = dict.fromkeys((*MARKS, *(name for name in declared if name.lower() in MARKS)))
    return columns | {
        f"deleted_at_{n}" if n else "deleted_at": name for n, name in enumerate(marks)
    }


class Spellings:
    """Gives columns that mark deletions the expected name in JSON, whatever their case there.

    A schema need not declare them, and decoders know exact names only.
    """

    def __init__(self, columns: Mapping[str, str]) -> None:
        roles = {role: column for role, column in columns.items() if is_deletion_role(role)}
        self._expected = {
            column.encode().lower(): column.encode()
            for role, column in reversed(roles.items())
            if role != _OWN
        }
        # A text to begin with is what makes the search fast.
        self._start = b"_" if all(name.startswith(b"_") for name in self._expected) else b""
        known = self._alternatives(name.encode() for name in roles.values())
        names = self._alternatives(self._expected)
        pattern = rb'"%b(?!(?:%b)")((?i:%b))"(?=[ \t\r\n]*:)' % (self._start, known, names)
        self._unexpected = re.compile(pattern)

    def _alternatives(self, names: Iterable[bytes]) -> bytes:
        start = self._start
        return b"|".join(re.escape(each[len(start) :]) for each in names if each.startswith(start))

    def corrected(self, data: bytes) -> bytes:
        """Return rows in JSON with the expected names; fast if they have them already."""
        return self._unexpected.sub(self._name, data)

    def _name(self, match: re.Match[bytes]) -> bytes:
        return b'"%b"' % self._expected[(self._start + match[1]).lower()]
