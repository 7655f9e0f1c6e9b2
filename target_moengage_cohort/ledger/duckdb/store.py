"""The ledgers of one destination on one machine: a directory with control and members' files."""

from __future__ import annotations

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
from target_moengage_cohort.core.errors import LedgerError, SettingsError
from target_moengage_cohort.core.text import iso_utc
from target_moengage_cohort.ledger.control.control import Control, stem
from target_moengage_cohort.ledger.control.sqlite import SQLiteDatabase
from target_moengage_cohort.ledger.duckdb import location
from target_moengage_cohort.ledger.duckdb.inspection import inspect
from target_moengage_cohort.ledger.duckdb.instance import Engine
from target_moengage_cohort.ledger.duckdb.leases import Holder, Leases
from target_moengage_cohort.ledger.duckdb.local_stream import DuckDBStreamLedger
from target_moengage_cohort.ledger.duckdb.members import Members
from target_moengage_cohort.ledger.duckdb.members_file import Owner
from target_moengage_cohort.ledger.interface import LedgerStore
from target_moengage_cohort.ledger.records import Fault
from target_moengage_cohort.ledger.witness import Witness

if t.TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from target_moengage_cohort.core.files import Step
    from target_moengage_cohort.core.interrupts import Patience
    from target_moengage_cohort.ledger.duckdb.staging import DuckDBStaging
    from target_moengage_cohort.ledger.movable import Part
    from target_moengage_cohort.ledger.records import RunProgress
    from target_moengage_cohort.settings import Settings

logger = logging.getLogger(__name__)


class LocalStore(LedgerStore):
    """A `LedgerStore` in a directory.

    Nothing is created or started before it is needed. For the arguments see `open_store`.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        run_id: str,
        read_only: bool,
        step: Step,
        clock: Callable[[], float],
        patience: Patience,
    ) -> None:
        self.folder = location.store_folder(settings)
        database = SQLiteDatabase(self.folder, read_only=read_only, step=step, patience=patience)
        super().__init__(Control(settings, database, clock), str(self.folder), run_id)
        self._settings, self._step, self._patience = settings, step, patience
        self._leases = Leases(self.folder, is_optional=read_only)
        self._witness = Witness(self._control, self.place, step)
        database.first_change = self._witness.write
        self._is_ready = False
        self._engine_stack = contextlib.ExitStack()
        self._started: Engine | None = None
        self._worker: ThreadPoolExecutor | None = None
        self._streams: dict[str, DuckDBStreamLedger] = {}
        self._taken: set[str] = set()  # the streams whose lease this store has

    @property
    def exists(self) -> bool:
        """Whether a cohort may have a ledger: there is a directory, or should be one."""
        return files.exists(self.folder) or self._witness.exists

    def check(self) -> None:
        """See `LedgerStore.check`."""
        location.check_place(self.folder, self._settings)
        with files.as_ledger_error(self.folder, "used"):
            files.try_out(self.folder)
        self._ready()

    def accept_older(self) -> bool:
        """See `LedgerStore.accept_older`."""
        location.refuse_remains(self.folder)
        self._witness.delete()
        self._control.database.trusts_host = True
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

    def unknown_files(self) -> list[Fault]:
        """See `LedgerStore.unknown_files`."""
        known = self._ready().all_streams() if self.exists else []
        stems = {stem(*names) for names in known}
        paths = {
            path: path.stem.removeprefix("members-")
            for path in self.folder.glob("members-*.duckdb")
        }
        message = "no stream has this file of members"
        with contextlib.closing(Leases(self.folder, is_optional=True)) as leases:
            return [
                Fault(code="unknown_file", message=message, path=str(path))
                for path, base in sorted(paths.items())
                if base not in stems and leases.is_free(base)
            ]

    def runs_under_way(self) -> list[RunProgress]:
        """Return the progress of the runs that hold a lease, the oldest first."""
        if not self.exists:
            return []
        holding = set()
        with contextlib.closing(Leases(self.folder, is_optional=True)) as leases:
            for path in self.folder.glob("stream-*.lock"):
                base = path.stem.removeprefix("stream-")
                if (holder := leases.holder(base)) is not None and not leases.is_free(base):
                    holding.add(holder.run_id)
        return [each for each in self._ready().history.under_way() if each.run_id in holding]

    # Streams

    def take(self, stream: str) -> None:
        """See `LedgerStore.take`."""
        self._ready()
        # Without a store that may be written there is nothing to lock.
        if stream not in self._taken and (self.exists or not self._read_only):
            since = iso_utc(self._control.clock(), "seconds")
            me = Holder(pid=os.getpid(), host=socket.gethostname(), run_id=self.run_id, since=since)
            self._leases.take(stream, self._base(stream), me, self._patience)
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

    def _base(self, stream: str) -> str:
        return stem(self._settings.partner, stream)

    def _take(self, name: str) -> DuckDBStreamLedger:
        engine, control = self._engine(), self._control
        self.take(name)
        try:
            path = self.folder / f"members-{self._base(name)}.duckdb"
            owner = Owner(control.store_id, self._settings.partner, name)
            members = Members(engine, path, owner, self._step)
            return DuckDBStreamLedger(name, control, members, partial(self._release, name))
        except BaseException:
            self._release(name)
            raise

    def _release(self, name: str) -> None:
        self._leases.release(self._base(name))
        self._taken.discard(name)
        self._streams.pop(name, None)

    def reassign(self, cohort_id: str, stream: str) -> None:
        """See `LedgerStore.reassign`."""
        ledger = self.open_known(cohort_id)
        former, other = self._streams[ledger.entry.stream], self.stream(stream)
        former.fold()
        other.take_over(ledger.number, former.table)
        ledger.reassign(stream)
        former.table.drop_cohorts([ledger.number])
        del former.cohorts[cohort_id]
        entry = msgspec.structs.replace(ledger.entry, last_timestamp=ledger.last_timestamp)
        other.add(entry, created=False)

    def staging(self) -> DuckDBStaging:
        """See `LedgerStore.staging`."""
        from target_moengage_cohort.ledger.duckdb.staging import DuckDBStaging  # noqa: PLC0415

        if self._worker is None:  # one for all: there may be thousands of snapshots
            self._worker = ThreadPoolExecutor(1, thread_name_prefix="staging")
        return DuckDBStaging(self._engine(), self.folder, self._worker)

    # Moving

    @property
    def uri(self) -> str:
        """See `MovableStore.uri`."""
        return str(self.folder.parent)

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Path]:
        """See `MovableStore.scratch`."""
        scratch = files.Scratch(self.folder / f"spill-{self.run_id}-pieces")
        with contextlib.closing(scratch):
            yield scratch.path

    def part(self) -> AbstractContextManager[Part]:
        """See `MovableStore.part`."""
        return location.part(self.folder, self._settings, self.run_id, self._step)

    def restore(self, stream: str, paths: Iterable[Path]) -> None:
        """See `MovableStore.restore`."""
        taken = self._take(stream)
        try:
            taken.restore(paths)
        finally:
            taken.abandon()

    # The start and the end

    def _ready(self) -> Control:
        if not self._is_ready:
            location.refuse_old_format(self.folder)
            location.refuse_remains(self.folder)
            known = self._witness.read()
            if not self._control.database.exists:
                self._witness.check(known)
            if not self._read_only:
                location.check_place(self.folder, self._settings)
                files.make_directory(self.folder)
                self._step("create directory")
                files.remove_dead(self.folder.glob("spill-*"))
                location.remove_dead_parts(self.folder)
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
                    "previous ledger was lost: every member is sent again, and members that have "
                    "left will not be removed. In a container, keep this directory on a volume "
                    "(ledger_uri)",
                    self.place,
                    extra={"code": "ledger_created"},
                )
        return self._control

    def _engine(self) -> Engine:
        """Return the DuckDB instance; the first call starts DuckDB."""
        if self._started is None:
            self._ready()
            spill = None if self._read_only else self.folder / f"spill-{self.run_id}"
            scratch = files.Scratch(spill)
            self._engine_stack.callback(scratch.close)
            key = self._control.hash_key
            self._started = Engine(key, scratch.path, read_only=self._read_only)
            self._engine_stack.callback(self._started.close)
        return self._started

    def close(self) -> None:
        """See `LedgerStore.close`."""
        with contextlib.ExitStack() as stack:
            stack.callback(self._close_control)
            stack.callback(self._leases.close)
            stack.callback(self._engine_stack.close)
            for name in self._taken - self._streams.keys():
                stack.callback(self._release, name)
            for memberless in self._memberless.values():
                stack.callback(memberless.close)
            for stream in list(self._streams.values()):
                stack.callback(stream.close)
            if self._worker is not None:
                self._worker.shutdown()

    def _close_control(self) -> None:
        with contextlib.ExitStack() as stack:
            stack.callback(self._control.database.close)
            with contextlib.suppress(LedgerError):  # the run is over, whatever the record says
                self._control.history.end(self.run_id)
            if self._control.database.has_changed:
                self._witness.write()
