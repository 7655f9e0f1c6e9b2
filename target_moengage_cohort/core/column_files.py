"""Rows in columns as a frozen value, and what DuckDB sees of them, wherever it runs."""

from __future__ import annotations

import re
import typing as t
from pathlib import Path

import msgspec

if t.TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

TEXT = re.compile(r"VARCHAR|UUID|ENUM\(.*")
WHOLE = re.compile(r"U?(TINY|SMALL|BIG|HUGE)?INT(EGER)?|DECIMAL\(\d+,0\)")
_TEXT_OR_WHOLE = f"{TEXT.pattern}|{WHOLE.pattern}"
_PLAIN_TYPES = {
    **dict.fromkeys(("uid", "anonymous_id", "cohort_id", "cohort_name"), _TEXT_OR_WHOLE),
    "membership": "BOOLEAN",
    "expected_count": WHOLE.pattern,
    "deleted_at": "(?s:.*)",  # of any type, or missing
}


class UnreadableRowsError(Exception):
    """Rows in columns cannot be read; the text is the kind of the fault, without any value."""


class ColumnarRows(msgspec.Struct, frozen=True):
    """Rows of one stream in columns."""

    rows: t.Any  # the path of a Parquet file, or a valid record batch of pyarrow
    columns: Mapping[str, str]  # role → column of what the rows mean; a column may be missing
    keys: Sequence[str]  # columns that must be there

    def open(self, cursor: t.Any) -> tuple[str, dict[str, str]]:
        """Return the SQL after FROM for a cursor of DuckDB, and the type of each column there."""
        table = "rows"
        if isinstance(self.rows, Path):
            path = str(self.rows).replace("'", "''")
            table = f"read_parquet('{path}', hive_partitioning = false)"
        else:
            cursor.register(table, self.rows)
        described = cursor.execute(f"DESCRIBE FROM {table}").fetchall()
        return table, {row[0]: row[1] for row in described}

    def is_plain(self, types: Mapping[str, str]) -> bool:
        """Return whether no column has a type that no plain row has, or is missing."""
        return all(key in types for key in self.keys) and all(
            re.fullmatch(_PLAIN_TYPES[role], types.get(column, ""))
            for role, column in self.columns.items()
        )

    def column(self, role: str, types: Mapping[str, str], absent: str = "NULL") -> str:
        """Return the SQL of a role's column, or of its value if there is none."""
        name = self.columns.get(role)
        return absent if name not in types else '"' + str(name).replace('"', '""') + '"'
