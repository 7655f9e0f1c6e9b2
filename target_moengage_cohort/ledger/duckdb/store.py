"""The ledgers of one destination on one machine: a directory with control and members' files."""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import typing as t
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import msgspec

from target_moengage_cohort.core import files
from target_moengage_cohort.core.commands import suggest
from target_moengage_cohort.core.errors import SettingsError
from target_moengage_cohort.core.text import iso_utc
from target_moengage_cohort.ledger.control.control import stem
from target_moengage_cohort.ledger.control.memberless import MemberlessCohort, MemberlessStream
from target_moengage_cohort.ledger.control.owners import check_owner
from target_moengage_cohort.ledger.duckdb.inspection import inspect
from target_moengage_cohort.ledger.duckdb.instance import DatabaseFile, Engine, translated
from target_moengage_cohort.ledger.duckdb.leases import Holder
from target_moengage_cohort.ledger.duckdb.members import Members
from target_moengage_cohort.ledger.duckdb.members_file import Owner
from target_moengage_cohort.ledger.duckdb.store_directory import StoreDirectory
from target_moengage_cohort.ledger.duckdb.stream_ledger import DuckDBStreamLedger
from target_moengage_cohort.settings.convert import nearest_name

if t.TYPE_CHECKING:
    from collections.abc import Iterable

    from target_moengage_cohort.core.errors import RowError
    from target_moengage_cohort.core.membership import Cohort
    from target_moengage_cohort.ledger.duckdb.cohort_ledger import DuckDBCohortLedger
    from target_moengage_cohort.ledger.duckdb.staging import DuckDBStaging
    from target_moengage_cohort.ledger.duckdb.store_directory import StoreOptions
    from target_moengage_cohort.ledger.records import Fault
    from target_moengage_cohort.settings import Settings


class LocalStore(StoreDirectory, contextlib.AbstractContextManager["LocalStore"]):
    """A `LedgerStore` in a directory.

    Nothing is created or started before it is needed. For the arguments see `open_store`.
    """

    def __init__(self, settings: Settings, **options: t.Unpack[StoreOptions]) -> None:
        super().__init__(settings, **options)
        self._spill: files.Scratch | None = None
        self._started: Engine | None = None
        self._worker: ThreadPoolExecutor | None = None
        self._streams: dict[str, DuckDBStreamLedger] = {}
        self._taken: set[str] = set()  # the streams whose lease this store has
        self._memberless: dict[str, MemberlessStream] = {}
        self._numbers = itertools.count(1)

    def __exit__(self, *_: object) -> None:
        self.close()

    def end_requests(self) -> None:
        """Count the requests in flight as unanswered: their answers no longer matter."""
        for stream in self._streams.values():
            stream.end_requests()

    def take(self, stream: str) -> None:
        """Take a stream's lease without opening its members."""
        self._ready()
        # Without a store that may be written there is nothing to lock.
        if stream not in self._taken and (self.exists or not self._read_only):
            pid, host, since = os.getpid(), socket.gethostname(), iso_utc(self._clock(), "seconds")
            me = Holder(pid=pid, host=host, run_id=self.run_id, since=since)
            self._leases.take(stream, self._base(stream), me, self._patience)
        self._taken.add(stream)

    def _base(self, stream: str) -> str:
        return stem(self._settings.partner, stream)

    def open_without_members(
        self, cohort: Cohort, stream: str, *, held: bool = False
    ) -> MemberlessCohort:
        """See `LedgerStore.open_without_members`."""
        self.take(stream)
        if stream not in self._memberless:
            self._memberless[stream] = MemberlessStream(self._control, stream)
        return self._memberless[stream].open(cohort, held=held)

    def admit(self, cohort_ids: Iterable[str]) -> dict[str, RowError]:
        """See `LedgerStore.admit`."""
        return self._ready().new.admit(cohort_ids)

    def open(self, cohort: Cohort, stream: str, *, held: bool = False) -> DuckDBCohortLedger:
        """Open a cohort's ledger, or create it; record a new description."""
        of_stream = self.stream(stream)
        if (ledger := of_stream.cohorts.get(cohort.cohort_id)) is None:
            control = self._ready()
            if (entry := control.entry(cohort.cohort_id)) is not None:  # another stream's
                check_owner(entry, cohort, stream)
            entry = control.new.add(cohort, stream, held=held)
            ledger = of_stream.add(entry, created=not self._read_only)
        ledger.check(cohort, stream)
        return ledger

    def open_known(self, cohort_id: str) -> DuckDBCohortLedger:
        """Open a ledger that exists."""
        for of_stream in self._streams.values():
            if cohort_id in of_stream.cohorts:
                return of_stream.cohorts[cohort_id]
        entry = self._ready().entry(cohort_id) if self.exists else None
        if entry is None:
            like = nearest_name(cohort_id, [entry.cohort_id for entry in self.entries()])
            shown = f"those that have one are shown by: {suggest('status')}"
            hint = f"did you mean {like!r}?" if like else shown
            msg = (
                f"cohort {cohort_id!r} of partner {self._settings.partner!r} has no ledger in "
                f"{self.place}; {hint}"
            )
            raise SettingsError("no_ledger", msg)
        of_stream = self.stream(entry.stream)
        # The previous holder of the lease may have given the cohort to another stream.
        return of_stream.cohorts.get(cohort_id) or self.open_known(cohort_id)

    def stream(self, name: str, *, trusts: bool = False) -> DuckDBStreamLedger:
        """Take a stream's lease, and open its ledger; see `DuckDBStreamLedger.load`."""
        if (opened := self._streams.get(name)) is not None:
            return opened
        self._streams[name] = opened = self._take(name)
        try:
            opened.load(trusts=trusts)
        except BaseException:
            opened.abandon()
            raise
        return opened

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

    def _take(self, name: str) -> DuckDBStreamLedger:
        engine, control = self._engine(), self._control
        self.take(name)
        try:
            path = self.folder / f"members-{self._base(name)}.duckdb"
            file = DatabaseFile(path, next(self._numbers))
            owner = Owner(control.store_id, self._settings.partner, name)
            members = Members(engine, file, owner, self._step)
            return DuckDBStreamLedger(name, control, members, partial(self._release, name))
        except BaseException:
            self._release(name)
            raise

    def _release(self, name: str) -> None:
        self._leases.release(self._base(name))
        self._taken.discard(name)
        self._streams.pop(name, None)

    def reassign(self, cohort_id: str, stream: str) -> None:
        """Let another stream populate a cohort: copy its members, then change the owner."""
        ledger = self.open_known(cohort_id)
        former, other = self._streams[ledger.entry.stream], self.stream(stream)
        former.fold()
        other.take_over(ledger)
        ledger.reassign(stream)
        former.table.drop_cohorts([ledger.number])
        del former.cohorts[cohort_id]
        entry = msgspec.structs.replace(ledger.entry, last_timestamp=ledger.last_timestamp)
        other.add(entry, created=False)

    def staging(self) -> DuckDBStaging:
        """Return an empty staging for a snapshot."""
        from target_moengage_cohort.ledger.duckdb.staging import DuckDBStaging  # noqa: PLC0415

        if self._worker is None:  # one for all: there may be thousands of snapshots
            self._worker = ThreadPoolExecutor(1, thread_name_prefix="staging")
        return DuckDBStaging(self._engine(), self.folder, self._worker)

    def close(self) -> None:
        """Close all ledgers, even if one of them fails."""
        with contextlib.ExitStack() as stack:
            stack.callback(self._close_control)
            stack.callback(self._leases.close)
            stack.callback(self._stop)
            for name in self._taken - self._streams.keys():
                stack.callback(self._release, name)
            for memberless in self._memberless.values():
                stack.callback(memberless.close)
            for stream in list(self._streams.values()):
                stack.callback(stream.close)
            if self._worker is not None:
                self._worker.shutdown()

    def _stop(self) -> None:
        try:
            if self._started is not None:
                with translated(self.folder):
                    self._started.close()
        finally:
            if self._spill is not None:
                self._spill.close()
            self._started = self._spill = None

    def _engine(self) -> Engine:
        """Return the DuckDB instance; the first call starts DuckDB."""
        if self._started is None:
            self._ready()
            spill = None if self._read_only else self.folder / f"spill-{self.run_id}"
            self._spill = files.Scratch(spill)
            key = self._control.hash_key
            self._started = Engine(key, self._spill.path, read_only=self._read_only)
        return self._started
