"""All rows of control as a file of JSON lines, and back; what a store is in numbers."""

from __future__ import annotations

import re
import typing as t

import msgspec

from target_moengage_cohort.core.errors import LedgerError
from target_moengage_cohort.ledger.control.tables import TABLES
from target_moengage_cohort.ledger.store_facts import CohortFacts, StoreFacts, StreamFacts

if t.TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from target_moengage_cohort.ledger.control.database import Transaction

    Rows: t.TypeAlias = list[tuple[t.Any, ...]]
    Run: t.TypeAlias = Callable[..., Rows]

_PAGE = 256
"""Rows to read or write at a time; one of `requests` has up to 128 KB."""

_STORE = (
    "format",
    "store_id",
    "base_url",
    "workspace_id",
    "last_run",
    "last_request",
    "last_cohort",
)
_STREAMS = (
    "SELECT partner, stream, max(has_members) FROM (SELECT partner, stream, has_members"
    " FROM streams UNION ALL SELECT partner, stream, 0 FROM cohorts) AS known"
    " GROUP BY partner, stream ORDER BY partner, stream"
)
_COHORTS = (
    "SELECT partner, cohort_id, stream, accepted, digest, in_doubt, base FROM cohorts"
    " ORDER BY number"
)
_OF_PLACE = "UPDATE store SET is_open = 0, host = NULL, moved_to = NULL"

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


class _Table(t.NamedTuple):
    columns: list[str]
    key: list[str]  # in whose order rows are read; empty if there is only one row


def _parsed(statement: str) -> tuple[str, _Table]:
    name = statement.split()[2]
    columns = re.findall(r"(\w+) (?:BIGINT|DOUBLE PRECISION|TEXT)\b", statement)
    key = re.search(r"(\w+) \w+ PRIMARY KEY|PRIMARY KEY \(([^)]*)\)", statement)
    return name, _Table(columns, (key[1] or key[2]).split(", ") if key else [])


_TABLES = dict(_parsed(text) for text in TABLES if text.startswith("CREATE TABLE"))


def facts(run: Run) -> StoreFacts:
    """Return what a store is; `run` runs a query."""
    (store,) = run(f"SELECT {', '.join(_STORE)} FROM store")
    streams = [StreamFacts(partner, name, bool(has)) for partner, name, has in run(_STREAMS)]
    cohorts = [CohortFacts(*row) for row in run(_COHORTS)]
    return StoreFacts(**dict(zip(_STORE, store, strict=True)), streams=streams, cohorts=cohorts)


def dump(run: Run, path: Path) -> None:
    """Write all rows to a file; `run` runs the queries of one transaction."""
    with path.open("wb") as file:
        for name, table in _TABLES.items():
            file.write(_encode({"table": name, "columns": table.columns}) + b"\n")
            for rows in _pages(run, name, table):
                file.writelines(_encode(row) + b"\n" for row in rows)


def _pages(run: Run, name: str, table: _Table) -> Iterator[Rows]:
    columns, key = ", ".join(table.columns), ", ".join(table.key)
    query, after = f"SELECT {columns} FROM {name}", ""
    values: list[object] = []
    while True:
        page = f"{query}{after} ORDER BY {key} LIMIT {_PAGE}" if key else query
        rows = run(page, values)
        yield rows
        if not key or len(rows) < _PAGE:
            return
        last = dict(zip(table.columns, rows[-1], strict=True))
        values = [last[column] for column in table.key]
        after = f" WHERE ({key}) > ({', '.join('?' * len(values))})"


def load(transaction: Transaction, path: Path) -> None:
    """Insert the rows of a file into the tables, which are empty, of a store in another place."""
    with path.open("rb") as file:
        statement = ""
        rows: list[list[object]] = []
        for line in file:
            item = _decode(line)
            is_header = isinstance(item, dict)
            if rows and (is_header or len(rows) == _PAGE):
                transaction.run_many(statement, rows)
                rows = []
            if is_header:
                statement = _insert(item)
            else:
                rows.append(item)
        if rows:
            transaction.run_many(statement, rows)
    transaction.run(_OF_PLACE)


def _insert(header: Mapping[str, t.Any]) -> str:
    name: str = header["table"]
    columns: Sequence[str] = header["columns"]
    known = _TABLES.get(name)
    if known is None or not {*columns} <= {*known.columns}:
        msg = (
            "the copy of a ledger has tables or columns that this version does not know; upgrade "
            "this installation"
        )
        raise LedgerError("ledger_newer", msg)
    marks = ", ".join("?" * len(columns))
    return f"INSERT INTO {name} ({', '.join(columns)}) VALUES ({marks})"
