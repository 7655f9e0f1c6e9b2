"""The part of a store that does not depend on where it keeps members: DuckDB compares them."""

from __future__ import annotations

import abc
import contextlib
import logging
import os
import socket
import typing as t
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import msgspec

from target_moengage_cohort.core import files
from target_moengage_cohort.core.commands import suggest
from target_moengage_cohort.core.errors import BusyError, LedgerError, SettingsError
from target_moengage_cohort.core.text import iso_utc
from target_moengage_cohort.ledger.control.renaming import hand_over
from target_moengage_cohort.ledger.duckdb.inspection import inspect
from target_moengage_cohort.ledger.duckdb.instance import Engine
from target_moengage_cohort.ledger.duckdb.local_stream import DuckDBStreamLedger
from target_moengage_cohort.ledger.duckdb.members_file import Owner
from target_moengage_cohort.ledger.interface import LedgerStore
from target_moengage_cohort.ledger.records import Holder
from target_moengage_cohort.ledger.witness import Witness

if t.TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from target_moengage_cohort.core.files import Step
    from target_moengage_cohort.core.interrupts import Patience
    from target_moengage_cohort.ledger.control.control import Control
    from target_moengage_cohort.ledger.duckdb.members import Members
    from target_moengage_cohort.ledger.duckdb.staging import DuckDBStaging
    from target_moengage_cohort.ledger.records import CohortEntry, Fault, RunProgress
    from target_moengage_cohort.settings import Settings

logger = logging.getLogger(__name__)


class DuckDBStore(LedgerStore):
    """A `LedgerStore`, without the methods that depend on where control and members are.

    Nothing is created or started before it is needed.
    """

    _directory: Path  # where staged rows may spill, for messages
    _advice = ""  # what keeps a new ledger from being lost

    def __init__(
        self,
        settings: Settings,
        control: Control,
        place: str,
        *,
        run_id: str,
        step: Step,
        patience: Patience,
    ) -> None:
        super().__init__(control, place, run_id)
        self._settings, self._step, self._patience = settings, step, patience
        self._witness = Witness(control, place, step)
        control.database.first_change = self._witness.write
        self._is_ready = False
        self._engine_stack = contextlib.ExitStack()
        self._started: Engine | None = None
        self._worker: ThreadPoolExecutor | None = None
        self._streams: dict[str, DuckDBStreamLedger] = {}
        self._taken: set[str] = set()  # the streams whose lease this store has

    # Where control and members are

    def _refuse_remains(self) -> None:
        """Raise a `SettingsError` if there is something else in the place of the store."""

    def _prepare(self) -> None:
        """Make the place of a store that may be written; refuse one that must not be created."""

    def _lock_stream(self, stream: str, me: Holder) -> None:
        """Take a stream's lease."""

    def _unlock_stream(self, stream: str, *, expires: bool) -> None:
        """Release a stream's lease, or let it expire: a request may still reach MoEngage."""

    @abc.abstractmethod
    def _members(self, engine: Engine, owner: Owner) -> Members:
        """Return the members of a stream, to be opened."""

    def _spill(self) -> Path | None:
        """Return the directory for data that does not fit into memory; by default a new one."""
        return None

    @abc.abstractmethod
    def _holding(self) -> Iterable[str]:
        """Return the runs that hold a lease."""

    def _close_place(self) -> None:
        """Close what the engine itself has opened."""

    # Streams

    def accept_older(self) -> bool:
        """See `LedgerStore.accept_older`."""
        self._refuse_remains()
        self._witness.delete()
        if is_there := self._control.database.exists:
            self._ready()
            self._witness.write()
        return is_there

    def accept_members(self, stream: str) -> None:
        """See `LedgerStore.accept_members`."""
        if stream not in self.streams():
            msg = f"stream {stream!r} has no ledger in {self.place}; see {suggest('status')}"
            raise SettingsError("no_ledger", msg)
        self.stream(stream, trusts=True)

    def inspect(self, stream: str) -> list[Fault]:
        """See `LedgerStore.inspect`."""
        taken = self._take(stream)
        try:
            return inspect(taken)
        finally:
            taken.abandon()

    def runs_under_way(self) -> list[RunProgress]:
        """Return the progress of the runs that hold a lease, the oldest first."""
        if not self.exists:
            return []
        holding = {*self._holding()}
        return [each for each in self._ready().history.under_way() if each.run_id in holding]

    def take(self, stream: str) -> None:
        """See `LedgerStore.take`."""
        self._ready()
        # Without a store that may be written there is nothing to lock.
        if stream not in self._taken and (self.exists or not self._read_only):
            since = iso_utc(self._control.clock(), "seconds")
            me = Holder(pid=os.getpid(), host=socket.gethostname(), run_id=self.run_id, since=since)
            self._lock_stream(stream, me)
        self._taken.add(stream)

    def stream(self, name: str, *, trusts: bool = False) -> DuckDBStreamLedger:
        """See `LedgerStore.stream` and `DuckDBStreamLedger.load`."""
        if (opened := self._streams.get(name)) is not None:
            return opened
        self._streams[name] = opened = self._take(name)
        try:
            opened.load(trusts=trusts)
        except BaseException:
            opened.abandon()
            raise
        return opened

    def _take(self, name: str) -> DuckDBStreamLedger:
        engine, control = self._engine(), self._control
        self.take(name)
        try:
            members = self._members(engine, Owner(control.store_id, self._settings.partner, name))
            return DuckDBStreamLedger(name, control, members, partial(self._release, name))
        except BaseException:
            self._release(name)
            raise

    def _release(self, name: str) -> None:
        records = (self._streams.pop(name, None), self._memberless.get(name))
        expires = any(each is not None and each.has_requests_in_flight for each in records)
        self._unlock_stream(name, expires=expires)
        self._taken.discard(name)

    def reassign(self, cohort_id: str, stream: str) -> None:
        """See `LedgerStore.reassign`."""
        ledger = self.open_known(cohort_id)
        former, other = self._streams[ledger.entry.stream], self.stream(stream)
        former.fold()
        other.take_over([ledger.number], former.table)
        ledger.reassign(stream)
        former.table.drop_cohorts([ledger.number])
        del former.cohorts[cohort_id]
        entry = msgspec.structs.replace(ledger.entry, last_timestamp=ledger.last_timestamp)
        other.add(entry, created=False)

    def reassign_all(self, former: str, stream: str) -> list[CohortEntry]:
        """See `LedgerStore.reassign_all`."""
        names = sorted({former, stream})
        for name in names:
            self.take(name)
        has_members = self.has_members(former)
        for name in names if has_members else ():
            self.stream(name)  # where a killed command has left rows, they are deleted
        if not (entries := self.entries(former)):
            return []
        if has_members:
            old, new = self._streams[former], self._streams[stream]
            old.fold()
            new.take_over([entry.number for entry in entries], old.table)
            entries = self.entries(former)
        hand_over(self._control, former, stream, entries)
        if has_members:
            old.table.drop_cohorts([entry.number for entry in entries])
            old.cohorts.clear()
            for entry in self.entries(stream):
                if entry.cohort_id not in new.cohorts:
                    new.add(entry, created=False)
        return entries

    def restore(self, stream: str, paths: Iterable[Path]) -> None:
        """See `MovableStore.restore`."""
        taken = self._take(stream)
        try:
            taken.restore(paths)
        finally:
            taken.abandon()

    def staging(self) -> DuckDBStaging:
        """See `LedgerStore.staging`."""
        from target_moengage_cohort.ledger.duckdb.staging import DuckDBStaging  # noqa: PLC0415

        if self._worker is None:  # one for all: there may be thousands of snapshots
            self._worker = ThreadPoolExecutor(1, thread_name_prefix="staging")
        return DuckDBStaging(self._engine(), self._directory, self._worker)

    # The start and the end

    def _ready(self) -> Control:
        if not self._is_ready:
            self._refuse_remains()
            known = self._witness.read()
            if not self._control.database.exists:
                self._witness.check(known)
            if not self._read_only:
                self._prepare()
            try:
                self._control.open()
                self._witness.check(known)
            except BaseException:
                self._control.database.close()
                raise
            self._is_ready = True
            if self._control.was_created:
                logger.warning(
                    "created a new ledger in %s. This is expected on a first run. Otherwise the "
                    "previous ledger was lost: mirrors send every member again, members that have "
                    "left will not be removed, and an incremental stream needs one run with "
                    "--full-refresh%s",
                    self.place,
                    self._advice,
                    extra={"code": "ledger_created"},
                )
        return self._control

    def _engine(self) -> Engine:
        """Return the DuckDB instance; the first call starts DuckDB."""
        if self._started is None:
            self._ready()
            scratch = files.Scratch(self._spill())
            self._engine_stack.callback(scratch.close)
            self._started = self._start(scratch.path)
            self._engine_stack.callback(self._started.close)
        return self._started

    def _start(self, spill: Path) -> Engine:
        return Engine(self._control.hash_key, spill, read_only=self._read_only)

    def close(self) -> None:
        """See `LedgerStore.close`."""
        self.end_requests()
        if self._worker is not None:
            self._worker.shutdown()
        with contextlib.ExitStack() as stack:  # the last one is called first
            stack.push(self._close_control)
            stack.callback(self._close_place)
            stack.callback(self._engine_stack.close)
            for name in self._taken - self._streams.keys():
                stack.callback(self._release, name)
            for memberless in self._memberless.values():
                stack.callback(memberless.close)
            for stream in self._streams.values():
                stack.callback(stream.close)

    def _close_control(
        self, _type: type[BaseException] | None, error: BaseException | None, _traceback: object
    ) -> None:
        code = getattr(error, "code", "internal_error") if error is not None else None
        with contextlib.ExitStack() as stack:
            stack.callback(self._control.database.close)
            # The run is over, whatever the record says.
            with contextlib.suppress(LedgerError, BusyError):
                self._control.history.end(code)
            with contextlib.suppress(BusyError):
                if self._control.database.has_changed:
                    self._witness.write()
                    return
            self._witness.write_committed()
