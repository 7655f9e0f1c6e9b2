"""Rows in columns as a frozen value, and what DuckDB sees of them, wherever it runs."""

from __future__ import annotations

import re
import typing as t

import msgspec

from target_moengage_cohort.core.deletions import UNDECLARED_OWN, in_any_case, is_deletion_role
from target_moengage_cohort.core.errors import InputError

if t.TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

INCOMPLETE = "so the input is incomplete; run the tap again"
"""Ends the message about a file that does not exist or cannot be read to its end."""

TEXT = re.compile(r"VARCHAR|UUID|ENUM\(.*")
WHOLE = re.compile(r"U?(TINY|SMALL|BIG|HUGE)?INT(EGER)?|DECIMAL\(\d+,0\)")
_TEXT_OR_WHOLE = f"{TEXT.pattern}|{WHOLE.pattern}"
_PLAIN_TYPES = {
    **dict.fromkeys(("uid", "anonymous_id", "cohort_id", "cohort_name"), _TEXT_OR_WHOLE),
    "membership": "BOOLEAN",
    "expected_count": WHOLE.pattern,
}
_TIMES = re.compile("(?:DATE|TIMESTAMP).*")


class ColumnarRows(msgspec.Struct, frozen=True):
    """Rows of one stream in columns."""

    rows: t.Any  # the paths of Parquet files, or a valid record batch of pyarrow
    columns: Mapping[str, str]  # role → column of what the rows mean; a column may be missing
    keys: Sequence[str]  # columns that must be there
    name: str  # names the rows in messages
    stays: bool = False  # whether the files can be read again until the end of the run
    optional: frozenset[str] = frozenset()  # roles whose columns may be missing in plain rows

    def open(self, cursor: t.Any) -> tuple[str, dict[str, str]]:
        """Return the SQL after FROM for a cursor of DuckDB, and the type of each column there."""
        table = self.table(cursor)
        described = cursor.execute(f"DESCRIBE FROM {table}").fetchall()
        return table, {row[0]: row[1] for row in described}

    def table(self, cursor: t.Any) -> str:
        """Return the SQL after FROM for a cursor of DuckDB.

        The rows of files are numbered: `file_index` and `file_row_number` count from 0.
        """
        if not isinstance(self.rows, tuple):
            cursor.register("rows", self.rows)
            return "rows"
        paths = ", ".join("'" + str(path).replace("'", "''") + "'" for path in self.rows)
        return f"read_parquet([{paths}], hive_partitioning = false)"

    def version(self) -> list[tuple[int, int]]:
        """Return what a change of the files changes: when each was written, and its size."""
        paths = self.rows if isinstance(self.rows, tuple) else ()
        return [(facts.st_mtime_ns, facts.st_size) for facts in (path.stat() for path in paths)]

    def is_plain(self, types: Mapping[str, str]) -> bool:
        """Return whether no column has a type that no plain row has, or is missing."""
        own = self.columns.get(UNDECLARED_OWN)
        if own is not None and in_any_case(own, UNDECLARED_OWN, types) is None:
            return False
        return all(key in types for key in self.keys) and all(
            re.fullmatch(_PLAIN_TYPES[role], types.get(column, ""))
            for role, column in self.columns.items()
            if not is_deletion_role(role)  # which may be of any type, and missing
            and (column in types or role not in self.optional)
        )

    def marks(self, types: Mapping[str, str]) -> dict[str, str]:
        """Return role → SQL of the text by which `is_deletion` knows a deletion, if there is any.

        The columns may be written in any case. Text of a value that has no meaning has none either.
        """
        return {
            role: _mark(name, types[name])
            for role, column in self.columns.items()
            if is_deletion_role(role) and (name := in_any_case(column, role, types)) is not None
        }

    def column(self, role: str, types: Mapping[str, str], absent: str = "NULL") -> str:
        """Return the SQL of a role's column, or of its value if there is none."""
        name = self.columns.get(role)
        return absent if name not in types else _quoted(str(name))

    def unreadable(self, fault: str) -> InputError:
        """Return the error of rows that cannot be read; the fault has none of their values."""
        return InputError(
            "batch_file_unreadable", f"{self.name} cannot be read ({fault}), {INCOMPLETE}"
        )


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _mark(name: str, kind: str) -> str:
    column = _quoted(name)
    if TEXT.fullmatch(kind) or _TIMES.fullmatch(kind):
        return f"{column}::VARCHAR"
    is_set = column if kind == "BOOLEAN" else f"{column} IS NOT NULL"
    return f"CASE WHEN {is_set} THEN 'meaningless' END"
