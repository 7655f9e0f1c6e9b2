"""The file of a stream's members; it is written in full under another name, then put in place."""

from __future__ import annotations

import os
import typing as t

from target_moengage_cohort.core.errors import LedgerError
from target_moengage_cohort.core.files import sync, unusable
from target_moengage_cohort.ledger.duckdb import schema
from target_moengage_cohort.ledger.duckdb.instance import DatabaseFile, quoted, translated
from target_moengage_cohort.ledger.records import FORMAT
from target_moengage_cohort.ledger.repairs import (
    damaged,
    inconsistent,
    move_store_away,
    other_format,
    restore_members,
)

if t.TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from pathlib import Path

    from target_moengage_cohort.core.errors import SettingsError
    from target_moengage_cohort.core.files import Step
    from target_moengage_cohort.ledger.duckdb.instance import Cursor, Engine

_BLOCK_SIZE = 32_768
"""Keeps small streams' files small; DuckDB's default block size makes them half a megabyte."""


class Owner(t.NamedTuple):
    """The store and the stream that a file belongs to."""

    store_id: str
    partner: str
    stream: str


def make_tables(cursor: Cursor, name: str) -> None:
    """Create empty tables."""
    for statement in schema.FILE_TABLES:
        cursor.execute(statement.format(s=name))


class MembersFile(DatabaseFile):
    """The file of one stream."""

    def __init__(self, engine: Engine, path: Path, owner: Owner, step: Step) -> None:
        super().__init__(path, str(path))
        self.engine = engine
        self._owner = owner
        self._step = step
        self._new = path.with_suffix(".new")

    def mismatch(self, fault: str, *, trusts: bool = False) -> SettingsError:
        """Return the error for members that are not those that control has recorded.

        If its remedy `trusts` the file, there is one to keep.
        """
        repair = restore_members(self.path, self._owner.stream, trusts=trusts)
        return inconsistent(self.path, fault, repair)

    def _translated(self) -> AbstractContextManager[None]:
        return translated(self.path, self._owner.stream)

    def _create(self) -> None:
        """Create the file of a stream without members."""

        def fill(cursor: Cursor, name: str) -> None:
            make_tables(cursor, name)
            values = [FORMAT, *self._owner]
            cursor.execute(f"INSERT INTO {name}.meta VALUES (?, ?, ?, ?, TRUE)", values)

        self._make(fill)
        os.replace(self._new, self.path)  # noqa: PTH105
        self._step("replace new file")
        sync(self.path.parent)

    def _replace(self) -> None:
        """Copy it into a new file, so that nothing of deleted rows is left; attach the new one."""

        def fill(cursor: Cursor, name: str) -> None:
            cursor.execute(f"COPY FROM DATABASE {self.name} TO {name}")
            cursor.execute(f"UPDATE {name}.meta SET is_rewritten = TRUE")

        self.engine.attach(self)
        self._make(fill)
        self.engine.detach(self)
        self._step("rewrite: detached")
        if _wal(self.path).exists():  # it would be replayed into the new file
            msg = f"the ledger {self.path} could not be closed; run again when nothing else uses it"
            raise LedgerError("ledger_unusable", msg)
        os.replace(self._new, self.path)  # noqa: PTH105
        self._step("rewrite: replaced")
        sync(self.path.parent)
        self.engine.attach(self)

    def _check(self, cursor: Cursor) -> bool:
        """Check the format and the owner of the attached file; return whether it is rewritten."""
        rows = cursor.execute(f"FROM {self.name}.meta").fetchall()
        if len(rows) != 1:
            raise damaged(self.path, restore_members(self.path, self._owner.stream))
        number, *found, is_rewritten = rows[0]
        move = move_store_away(self.path.parent)
        if (error := other_format(number, self.path, move)) is not None:
            raise error
        if tuple(found) != self._owner:
            fault = "belongs to a different store or stream than control.sqlite in its directory"
            raise self.mismatch(fault)
        return bool(is_rewritten)

    def _remove_leftovers(self) -> None:
        """Remove the unfinished files of a killed process."""
        for leftover in (self._new, _wal(self._new)):
            leftover.unlink(missing_ok=True)

    def _make(self, fill: Callable[[Cursor, str], None]) -> None:
        self._remove_leftovers()
        name = f"new_{self.name}"
        cursor = self.engine.cursor()
        place = quoted(str(self._new))
        cursor.execute(f"ATTACH {place} AS {name} (BLOCK_SIZE {_BLOCK_SIZE})")
        self._step("make: attached")
        try:
            fill(cursor, name)
            self._step("make: filled")
        finally:
            cursor.execute(f"DETACH {name}")  # writes everything into the file itself
        self._step("make: detached")
        if _wal(self._new).exists():
            raise unusable(self.path, "written", "its log is still there")
        sync(self._new)


def _wal(path: Path) -> Path:
    return path.with_name(f"{path.name}.wal")
