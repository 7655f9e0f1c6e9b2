"""The ledgers of one destination on one machine: a directory with control and members' files."""

from __future__ import annotations

import contextlib
import itertools
import os
import typing as t
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import msgspec

from target_moengage_cohort.core import files, scratch
from target_moengage_cohort.core.errors import LedgerError, SettingsError
from target_moengage_cohort.ledger.control.control import Control, stem
from target_moengage_cohort.ledger.control.history import RunHistory
from target_moengage_cohort.ledger.control.plans import Plans
from target_moengage_cohort.ledger.control.sqlite import Patience, SQLiteDatabase
from target_moengage_cohort.ledger.control.stream_records import StreamRecords
from target_moengage_cohort.ledger.duckdb.cohort_ledger import of_other_stream
from target_moengage_cohort.ledger.duckdb.instance import DatabaseFile, Engine, translated
from target_moengage_cohort.ledger.duckdb.leases import new_holder, take_lease
from target_moengage_cohort.ledger.duckdb.location import refuse_old_format, store_folder
from target_moengage_cohort.ledger.duckdb.members import Members
from target_moengage_cohort.ledger.duckdb.members_file import Owner
from target_moengage_cohort.ledger.duckdb.stream_ledger import DuckDBStreamLedger
from target_moengage_cohort.ledger.records import PlanKind
from target_moengage_cohort.settings.convert import nearest_name

if t.TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from target_moengage_cohort.core.files import Step
    from target_moengage_cohort.core.membership import Cohort
    from target_moengage_cohort.core.scratch import Scratch
    from target_moengage_cohort.ledger.duckdb.cohort_ledger import DuckDBCohortLedger
    from target_moengage_cohort.ledger.duckdb.staging import DuckDBStaging
    from target_moengage_cohort.ledger.records import CohortEntry, Plan, RunEntry, RunProgress
    from target_moengage_cohort.settings import Settings


class LocalStore(contextlib.AbstractContextManager["LocalStore"]):
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
        self._settings = settings
        self.run_id = run_id
        self._read_only = read_only
        self._step = step
        self._clock = clock
        self._patience = patience
        self.folder = store_folder(settings)
        self.place = str(self.folder)
        database = SQLiteDatabase(self.folder, read_only=read_only, step=step, patience=patience)
        self._control = Control(settings, database)
        self._is_ready = self._has_progress = False
        self._spill: Scratch | None = None
        self._started: Engine | None = None
        self._worker: ThreadPoolExecutor | None = None
        self._streams: dict[str, DuckDBStreamLedger] = {}
        self._numbers = itertools.count(1)

    def __exit__(self, *_: object) -> None:
        self.close()

    # What needs no lease

    @property
    def exists(self) -> bool:
        """Whether the destination's directory exists, so that a cohort may have a ledger."""
        return os.path.isdir(self.folder)  # noqa: PTH112 - an unreadable parent is no error yet

    def check(self) -> None:
        """Check that ledgers can be used or created, without creating any."""
        with files.as_ledger_error(self.folder, "used"):
            files.try_out(self.folder)
        self._ready()

    def has(self, cohort_id: str) -> bool:
        """Return whether the cohort has a ledger; cheap."""
        return self.exists and self._ready().entry(cohort_id) is not None

    def entries(self) -> list[CohortEntry]:
        """Return the partner's cohorts that have a ledger, sorted by id; never waits."""
        return self._ready().entries() if self.exists else []

    def plans(self) -> dict[int, list[Plan]]:
        """Return the plans of all cohorts that have any, by number; never waits."""
        numbers = [entry.number for entry in self.entries()]
        return Plans(self._ready().database).of_cohorts(numbers) if numbers else {}

    def begin(self, stream: str) -> None:
        """Record that this run reads a stream: pending plans of earlier runs expire."""
        control = self._ready()
        if not self._read_only and StreamRecords(control).latest_run(stream) != self.run_id:
            StreamRecords(control).note_stream(stream, latest_run=self.run_id)

    def has_members(self, stream: str) -> bool:
        """Return whether any cohort of a stream may have members in the store; cheap."""
        return self.exists and StreamRecords(self._ready()).has_members(stream)

    def has_begun(self, stream: str) -> bool:
        """Return whether any run has begun to read a stream; cheap."""
        return self.exists and StreamRecords(self._ready()).latest_run(stream) is not None

    def is_void(self, plan: Plan) -> bool:
        """Return whether a pending plan has expired, because a later run of its stream began."""
        latest = StreamRecords(self._ready()).latest_run(plan.stream)
        return plan.kind is PlanKind.WAITING and latest not in {None, plan.run_id}

    def use_version(self, stream: str, version: int) -> bool:
        """Record that this run reads a stream's version; return whether no unfinished run has."""
        return StreamRecords(self._ready()).use_version(stream, version, self.run_id)

    def finish_version(self, stream: str, version: int) -> None:
        """Delete the record of a version, because the run that read it succeeded."""
        StreamRecords(self._ready()).finish_version(stream, version)

    def write_progress(self, progress: RunProgress) -> None:
        """Record how far the run is, unless the store is read-only."""
        if not self._read_only:
            RunHistory(self._ready()).write_progress(progress)
            self._has_progress = True

    def runs_under_way(self) -> list[RunProgress]:
        """Return the progress of the runs that hold a lease, the oldest first."""
        if not self.exists:
            return []
        holding = set()
        for path in self.folder.glob("stream-*.lock"):
            with contextlib.suppress(LedgerError):
                lock = files.Lock(path)
                if lock.acquire():
                    lock.release()
                elif (holder := lock.holder()) is not None:
                    holding.add(holder.run_id)
        return [each for each in RunHistory(self._ready()).under_way() if each.run_id in holding]

    def note_run(self, entries: Mapping[int, RunEntry]) -> None:
        """Record the outcome of this run for its cohorts."""
        if entries and not self._read_only:
            RunHistory(self._ready()).finish(entries)

    def end_requests(self) -> None:
        """Count the requests in flight as unanswered: their answers no longer matter."""
        for stream in self._streams.values():
            stream.end_requests()

    # What takes a stream's lease

    def open(self, cohort: Cohort, stream: str) -> DuckDBCohortLedger:
        """Open a cohort's ledger, or create it; record a new description."""
        of_stream = self.stream(stream)
        if (ledger := of_stream.cohorts.get(cohort.cohort_id)) is None:
            control = self._ready()
            if (entry := control.entry(cohort.cohort_id)) is not None:
                raise of_other_stream(entry, stream)
            entry = control.add(cohort, stream)
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
            hint = "moengage-cohort status lists the cohorts that have one"
            if like:
                hint = f"did you mean {like!r}?"
            msg = (
                f"cohort {cohort_id!r} of partner {self._settings.partner!r} has no ledger in "
                f"{self.place}; {hint}"
            )
            raise SettingsError("no_ledger", msg)
        return self.stream(entry.stream).cohorts[cohort_id]

    def stream(self, name: str) -> DuckDBStreamLedger:
        """Take a stream's lease, and open its ledger."""
        if (opened := self._streams.get(name)) is not None:
            return opened
        engine, control = self._engine(), self._control
        base = stem(self._settings.partner, name)
        lease = self._lease(name, self.folder / f"stream-{base}.lock")
        try:
            file = DatabaseFile(self.folder / f"members-{base}.duckdb", next(self._numbers))
            owner = Owner(control.store_id, self._settings.partner, name)
            members = Members(engine, file, owner, self._step)
            closed = partial(self._streams.pop, name, None)
            opened = DuckDBStreamLedger(name, control, members, lease, closed)
        except BaseException:
            if lease is not None:
                lease.release()
            raise
        self._streams[name] = opened
        try:
            opened.load()
        except BaseException:
            opened.abandon()
            raise
        return opened

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
            stack.callback(self._control.database.close)
            if self._has_progress:
                stack.callback(self._end_run)
            stack.callback(self._stop)
            for stream in list(self._streams.values()):
                stack.callback(stream.close)
            if self._worker is not None:
                self._worker.shutdown()

    def _end_run(self) -> None:
        with contextlib.suppress(LedgerError):  # the run is over, whatever the record says
            RunHistory(self._control).end(self.run_id)

    def _stop(self) -> None:
        try:
            if self._started is not None:
                with translated(self.folder):
                    self._started.close()
        finally:
            if self._spill is not None:
                self._spill.close()
            self._started = self._spill = None

    def _ready(self) -> Control:
        """Open control; the first call creates the directory."""
        if not self._is_ready:
            refuse_old_format(self.folder)
            if not self._read_only:
                files.make_directory(self.folder)
                self._step("create directory")
                scratch.remove_dead(self.folder.glob("spill-*"))
            self._control.open()
            self._is_ready = True
        return self._control

    def _engine(self) -> Engine:
        """Return the DuckDB instance; the first call starts DuckDB."""
        if self._started is None:
            self._ready()
            scratch.remove_dead_temporary()
            self._spill = (
                scratch.temporary_scratch()
                if self._read_only
                else scratch.Scratch(self.folder / f"spill-{self.run_id}")
            )
            key = self._control.hash_key
            self._started = Engine(key, self._spill.path, read_only=self._read_only)
        return self._started

    def _lease(self, stream: str, path: Path) -> files.Lock | None:
        """Wait for a stream's lease; ``None`` if there is nothing to lock."""
        if self._read_only and not self.exists:
            return None
        lock = files.Lock(path, is_optional=self._read_only)
        take_lease(stream, lock, new_holder(self.run_id, self._clock()), self._patience)
        return lock
