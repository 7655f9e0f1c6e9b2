"""Ledger files are made whole under another name, then put in their place."""

# ruff: noqa: S608 - the names in statements are our own; values are parameters
from __future__ import annotations

import itertools
import os
import typing as t

from target_moengage_cohort.core.errors import LedgerError
from target_moengage_cohort.core.files import sync
from target_moengage_cohort.ledger.duckdb import schema
from target_moengage_cohort.ledger.duckdb.engine import EMPTY_SCHEMA, quoted
from target_moengage_cohort.ledger.records import FORMAT, CohortEntry

if t.TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from target_moengage_cohort.core.files import Step
    from target_moengage_cohort.ledger.duckdb.engine import Cursor, DatabaseFile, Engine

_BLOCK_SIZE = 32_768
"""A small cohort's file is small with it; DuckDB's own block size makes half a megabyte of it."""

_numbers = itertools.count(1)


def make_nothing(engine: Engine) -> None:
    """Make the tables of a cohort that has no ledger, in memory.

    Raises:
        duckdb.Error: DuckDB refuses it.
    """
    cursor = engine.cursor()
    cursor.execute(f"CREATE SCHEMA {EMPTY_SCHEMA}")
    for statement in schema.TABLES:
        cursor.execute(statement.format(s=EMPTY_SCHEMA))


def make_database(engine: Engine, path: Path, whose: tuple[str, CohortEntry], step: Step) -> None:
    """Make the file of a new ledger.

    Args:
        engine: Where to make it.
        path: The file.
        whose: The destination's identity, and the cohort.
        step: See `Step`.

    Raises:
        duckdb.Error: DuckDB refuses it.
        OSError: The disk refuses it.
    """
    identity, entry = whose

    def fill(cursor: Cursor, name: str) -> None:
        for statement in schema.TABLES:
            cursor.execute(statement.format(s=name))
        cursor.execute(
            f"INSERT INTO {name}.meta VALUES (?, ?, ?, ?, ?, ?, ?, 0, 0, FALSE, TRUE)",
            [
                FORMAT,
                identity,
                entry.partner,
                entry.cohort_id,
                entry.name,
                entry.description,
                entry.stream,
            ],
        )

    new = _make(engine, path, fill, step)
    os.replace(new, path)  # noqa: PTH105
    step("replace new ledger")
    sync(path.parent)


def rewrite_database(engine: Engine, file: DatabaseFile, step: Step) -> None:
    """Copy a ledger into a new file, so that nothing of deleted rows is left.

    The caller holds the file's lock; afterwards the file is not attached.

    Raises:
        duckdb.Error: DuckDB refuses it.
        OSError: The disk refuses it.
        LedgerError: What was to be copied is not all in the file.
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
        raise LedgerError(msg)
    os.replace(new, file.path)  # noqa: PTH105
    step("rewrite: replaced")
    sync(file.path.parent)


def read_entry(engine: Engine, path: Path) -> tuple[str, CohortEntry]:
    """What the catalogue should say of a ledger.

    Returns:
        The destination's identity, and the entry.

    Raises:
        duckdb.Error: DuckDB cannot read it, or another process has it.
    """
    name = f"unlisted{next(_numbers)}"
    cursor = engine.cursor()
    cursor.execute(f"ATTACH {quoted(str(path))} AS {name} (READ_ONLY)")
    try:
        columns = "partner, cohort_id, name, description, stream"
        query = f"SELECT destination, {columns} FROM {name}.meta"
        ((destination, *facts),) = cursor.execute(query).fetchall()
    finally:
        cursor.execute(f"DETACH {name}")
    values = dict(zip(columns.split(", "), facts, strict=True))
    return destination, CohortEntry(**values, is_settled=False)  # to be on the safe side


def remove_leftovers(path: Path) -> None:
    """Remove what a killed process was about to put in a ledger's place.

    Raises:
        OSError: The disk refuses it.
    """
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
        msg = f"the ledger {path} could not be written whole; see that its disk has room"
        raise LedgerError(msg)
    sync(new)
    return new


def _wal(path: Path) -> Path:
    return path.with_name(f"{path.name}.wal")
