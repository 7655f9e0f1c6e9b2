"""Ledger files are written in full under another name, then moved into place."""

from __future__ import annotations

import itertools
import os
import typing as t

from target_moengage_cohort.core.errors import LedgerError
from target_moengage_cohort.core.files import sync
from target_moengage_cohort.ledger.duckdb import schema
from target_moengage_cohort.ledger.duckdb.instance import EMPTY_SCHEMA, quoted
from target_moengage_cohort.ledger.records import FORMAT, CohortEntry

if t.TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from target_moengage_cohort.core.files import Step
    from target_moengage_cohort.ledger.duckdb.instance import Cursor, DatabaseFile, Engine

_BLOCK_SIZE = 32_768
"""Keeps small cohorts' files small; DuckDB's default block size makes them half a megabyte."""

_FACTS = ("partner", "cohort_id", "name", "description", "stream")
_numbers = itertools.count(1)


def make_nothing(engine: Engine) -> None:
    """Create the tables of a cohort without a ledger, in memory."""
    cursor = engine.cursor()
    cursor.execute(f"CREATE SCHEMA {EMPTY_SCHEMA}")
    _create_tables(cursor, EMPTY_SCHEMA)


def _create_tables(cursor: Cursor, name: str) -> None:
    for statement in schema.TABLES:
        cursor.execute(statement.format(s=name))


def make_database(engine: Engine, path: Path, whose: tuple[str, CohortEntry], step: Step) -> None:
    """Create the file of a new ledger, of a destination's identity and a cohort."""
    identity, entry = whose
    facts = [getattr(entry, field) for field in _FACTS]

    def fill(cursor: Cursor, name: str) -> None:
        _create_tables(cursor, name)
        cursor.execute(
            f"INSERT INTO {name}.meta VALUES (?, ?, ?, ?, ?, ?, ?, 0, 0, FALSE, TRUE)",
            [FORMAT, identity, *facts],
        )

    new = _make(engine, path, fill, step)
    os.replace(new, path)  # noqa: PTH105
    step("replace new ledger")
    sync(path.parent)


def rewrite_database(engine: Engine, file: DatabaseFile, step: Step) -> None:
    """Copy a ledger into a new file, so that nothing of deleted rows is left.

    The caller holds the file's lock; afterwards the file is not attached.
    """

    def fill(cursor: Cursor, name: str) -> None:
        cursor.execute(f"COPY FROM DATABASE {file.name} TO {name}")
        cursor.execute(f"UPDATE {name}.meta SET is_rewritten = TRUE")

    engine.attach(file)
    new = _make(engine, file.path, fill, step)
    engine.detach(file)
    step("rewrite: detached")
    if _wal(file.path).exists():  # it would be replayed into the new file
        msg = f"the ledger {file.path} could not be closed; run again when nothing else uses it"
        raise LedgerError("ledger_unusable", msg)
    os.replace(new, file.path)  # noqa: PTH105
    step("rewrite: replaced")
    sync(file.path.parent)


def read_entry(engine: Engine, path: Path) -> tuple[str, CohortEntry]:
    """Return the identity of a ledger's destination, and its entry for the catalog."""
    name = f"unlisted{next(_numbers)}"
    cursor = engine.cursor()
    cursor.execute(f"ATTACH {quoted(str(path))} AS {name} (READ_ONLY)")
    try:
        query = f"SELECT destination, {', '.join(_FACTS)} FROM {name}.meta"
        ((destination, *facts),) = cursor.execute(query).fetchall()
    finally:
        cursor.execute(f"DETACH {name}")
    values = dict(zip(_FACTS, facts, strict=True))
    return destination, CohortEntry(**values, is_settled=False)  # the safe assumption


def remove_leftovers(path: Path) -> None:
    """Remove the unfinished files of a killed process."""
    new = path.with_suffix(".new")
    for leftover in (new, _wal(new)):
        leftover.unlink(missing_ok=True)


def _make(engine: Engine, path: Path, fill: Callable[[Cursor, str], None], step: Step) -> Path:
    remove_leftovers(path)
    new = path.with_suffix(".new")
    name = f"new{next(_numbers)}"
    cursor = engine.cursor()
    cursor.execute(f"ATTACH {quoted(str(new))} AS {name} (BLOCK_SIZE {_BLOCK_SIZE})")
    step("make: attached")
    try:
        fill(cursor, name)
        step("make: filled")
    finally:
        cursor.execute(f"DETACH {name}")  # writes everything into the file itself
    step("make: detached")
    if _wal(new).exists():
        msg = f"the ledger {path} could not be written; check that its disk has free space"
        raise LedgerError("ledger_unusable", msg)
    sync(new)
    return new


def _wal(path: Path) -> Path:
    return path.with_name(f"{path.name}.wal")
