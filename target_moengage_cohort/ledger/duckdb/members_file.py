"""The file of a stream's members; it is written in full under another name, then put in place."""

from __future__ import annotations

import itertools
import os
import typing as t

from target_moengage_cohort.core.errors import LedgerError
from target_moengage_cohort.core.files import sync, unusable
from target_moengage_cohort.ledger.duckdb import schema
from target_moengage_cohort.ledger.duckdb.instance import quoted
from target_moengage_cohort.ledger.records import FORMAT
from target_moengage_cohort.ledger.repairs import (
    damaged,
    inconsistent,
    other_format,
    restore_members,
)

if t.TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from target_moengage_cohort.core.files import Step
    from target_moengage_cohort.ledger.duckdb.instance import Cursor, DatabaseFile, Engine

_BLOCK_SIZE = 32_768
"""Keeps small streams' files small; DuckDB's default block size makes them half a megabyte."""

_numbers = itertools.count(1)


class Owner(t.NamedTuple):
    """The store and the stream that a file belongs to."""

    store_id: str
    partner: str
    stream: str


def make_tables(cursor: Cursor, name: str) -> None:
    """Create empty tables."""
    for statement in schema.FILE_TABLES:
        cursor.execute(statement.format(s=name))


def make_file(engine: Engine, path: Path, owner: Owner, step: Step) -> None:
    """Create the file of a stream without members."""

    def fill(cursor: Cursor, name: str) -> None:
        make_tables(cursor, name)
        cursor.execute(f"INSERT INTO {name}.meta VALUES (?, ?, ?, ?, TRUE)", [FORMAT, *owner])

    new = _make(engine, path, fill, step)
    os.replace(new, path)  # noqa: PTH105
    step("replace new file")
    sync(path.parent)


def rewrite_file(engine: Engine, file: DatabaseFile, step: Step) -> None:
    """Copy a file into a new one, so that nothing of deleted rows is left; attach the new one."""

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
    engine.attach(file)


def check_file(cursor: Cursor, file: DatabaseFile, owner: Owner) -> bool:
    """Check the format and the owner of an attached file; return whether it is rewritten."""
    rows = cursor.execute(f"FROM {file.name}.meta").fetchall()
    if len(rows) != 1:
        raise damaged(file.path, restore_members(file.path, owner.stream))
    number, *found, is_rewritten = rows[0]
    if (error := other_format(number, file.path, file.path.parent)) is not None:
        raise error
    if tuple(found) != owner:
        fault = "belongs to a different store or stream than control.sqlite in its directory"
        raise inconsistent(file.path, fault, restore_members(file.path, owner.stream))
    return bool(is_rewritten)


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
        raise unusable(path, "written", "its log is still there")
    sync(new)
    return new


def _wal(path: Path) -> Path:
    return path.with_name(f"{path.name}.wal")
