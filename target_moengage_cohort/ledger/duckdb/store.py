"""The ledgers of one destination, each opened by one run at a time."""

from __future__ import annotations

import itertools
import os
import socket
import typing as t
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial

from target_moengage_cohort.core.errors import BusyError, LedgerError, SettingsError
from target_moengage_cohort.core.files import Holder
from target_moengage_cohort.ledger.duckdb.catalog import Catalog, ProgressFile
from target_moengage_cohort.ledger.duckdb.cohort_ledger import DuckDBLedger
from target_moengage_cohort.ledger.duckdb.connection import LedgerParts
from target_moengage_cohort.ledger.duckdb.database import make_database, make_nothing, read_entry
from target_moengage_cohort.ledger.duckdb.instance import DatabaseFile, Engine, translated
from target_moengage_cohort.ledger.records import CohortEntry, PlanKind
from target_moengage_cohort.settings.convert import nearest_name

if t.TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from target_moengage_cohort.core.files import Lock, Step
    from target_moengage_cohort.core.membership import Cohort
    from target_moengage_cohort.core.scratch import Scratch
    from target_moengage_cohort.ledger.duckdb.staging import DuckDBStaging
    from target_moengage_cohort.ledger.records import Plan, RunProgress
    from target_moengage_cohort.settings import Settings

_POLL_SECONDS = 0.2


class DuckDBStore:
    """A `LedgerStore` that is a directory of DuckDB files.

    Nothing is created or started before it is needed, because most runs need no ledger. For the
    arguments see `open_store`.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        run_id: str,
        wait: Callable[[float], bool],
        read_only: bool,
        step: Step,
        clock: Callable[[], float],
        busy_seconds: float,
    ) -> None:
        self._settings = settings
        self.run_id = run_id
        self._wait = wait
        self._read_only = read_only
        self._clock = clock
        self._busy_seconds = busy_seconds
        self._catalog = Catalog(settings, read_only=read_only, step=step)
        self.folder: Path = self._catalog.path
        self._spill: Scratch | None = None
        self._started: Engine | None = None
        self._worker: ThreadPoolExecutor | None = None
        self._open: dict[str, DuckDBLedger] = {}
        self._progress: ProgressFile | None = None
        self._numbers = itertools.count(1)

    def __enter__(self) -> t.Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def exists(self) -> bool:
        """Whether the destination's directory exists, so that a cohort may have a ledger."""
        return self._catalog.exists

    def check(self) -> None:
        """Check that ledgers can be used or created, without creating any."""
        self._catalog.check()

    def has(self, cohort_id: str) -> bool:
        """Return whether the cohort has a ledger; cheap."""
        return self._catalog.has(cohort_id)

    def entries(self) -> list[CohortEntry]:
        """Return the partner's cohorts that have a ledger; normally no database is opened."""
        entries, unlisted = self._catalog.entries()
        for path in unlisted:
            with translated(path):
                destination, entry = read_entry(self._engine(), path)
            mine = (self._catalog.identity, self._settings.partner)
            if (destination, entry.partner) == mine:  # else its own runs will list it
                entries.append(entry)
                if not self._read_only:
                    self._catalog.write_entry(entry)
        ours = (entry for entry in entries if entry.partner == self._settings.partner)
        return sorted(ours, key=lambda entry: entry.cohort_id)

    def open(self, cohort: Cohort, stream: str) -> DuckDBLedger:
        """Lock and open the ledger of a cohort, or create it."""
        entry = CohortEntry(
            partner=self._settings.partner,
            cohort_id=cohort.cohort_id,
            name=cohort.name,
            description=cohort.description,
            stream=stream,
            is_settled=True,
        )
        if (ledger := self._open.get(cohort.cohort_id)) is None:
            ledger = self._opened(entry)
            try:
                ledger.check(cohort, stream)
            except BaseException:
                ledger.abandon()
                raise
        return ledger

    def open_known(self, cohort_id: str) -> DuckDBLedger:
        """Lock and open a ledger that exists."""
        if cohort_id in self._open:
            return self._open[cohort_id]
        entry = self._catalog.entry(cohort_id)
        if entry is None:
            like = nearest_name(cohort_id, [entry.cohort_id for entry in self.entries()])
            hint = "moengage-cohort status lists the cohorts that have one"
            if like:
                hint = f"did you mean {like!r}?"
            msg = (
                f"cohort {cohort_id!r} of partner {self._settings.partner!r} has no ledger in "
                f"{self.folder}; {hint}"
            )
            raise SettingsError("no_ledger", msg)
        return self._opened(entry)

    def staging(self) -> DuckDBStaging:
        """Return an empty staging for a snapshot."""
        from target_moengage_cohort.ledger.duckdb.staging import DuckDBStaging  # noqa: PLC0415

        if self._worker is None:  # one for all: there may be thousands of snapshots
            self._worker = ThreadPoolExecutor(1, thread_name_prefix="staging")
        return DuckDBStaging(self._engine(), self.folder, self._worker)

    def begin(self, stream: str) -> None:
        """Record that this run reads a stream: pending plans of earlier runs expire."""
        self._engine()
        self._catalog.begin(stream, self.run_id)

    def has_begun(self, stream: str) -> bool:
        """Return whether any run has begun to read a stream; cheap."""
        return self._catalog.latest_run(stream) is not None

    def is_void(self, plan: Plan) -> bool:
        """Return whether a pending plan has expired, because a later run of its stream began."""
        latest = self._catalog.latest_run(plan.stream)
        return plan.kind is PlanKind.WAITING and latest not in {None, plan.run_id}

    def use_version(self, stream: str, version: int) -> bool:
        """Record that this run reads a stream's version; return whether no unfinished run has."""
        self._engine()
        return self._catalog.use_version(stream, version)

    def finish_version(self, stream: str, version: int) -> None:
        """Delete the record of a version, because the run that read it succeeded."""
        self._catalog.finish_version(stream, version)

    def write_progress(self, progress: RunProgress) -> None:
        """Write the run's progress file, unless the store is read-only."""
        if self._read_only:
            return
        if self._progress is None:
            self._progress = ProgressFile(self.folder, self.run_id)
        self._progress.write(progress)

    def runs_under_way(self) -> list[RunProgress]:
        """Read the progress files of the runs whose process is alive."""
        return self._catalog.runs_under_way()

    def close(self) -> None:
        """Close all ledgers, even if one of them fails."""
        failed: LedgerError | None = None
        if self._progress is not None:
            self._progress.close()
            self._progress = None
        if self._worker is not None:
            self._worker.shutdown()
        for ledger in list(self._open.values()):
            try:
                ledger.close()
            except LedgerError as error:
                failed = failed or error
        try:
            if self._started is not None:
                with translated(self.folder):
                    self._started.close()
        finally:
            if self._spill is not None:
                self._spill.close()
            self._started = self._spill = None
        if failed is not None:
            raise failed

    def _engine(self) -> Engine:
        """Return the DuckDB instance; the first call creates the directory and starts DuckDB."""
        if self._started is None:
            self._catalog.prepare()
            self._spill = self._catalog.spill(self.run_id)
            key, spill = self._catalog.hash_key, self._spill.path
            self._started = Engine(key, spill, read_only=self._read_only)
            with translated(self.folder):
                make_nothing(self._started)
        return self._started

    def _opened(self, entry: CohortEntry) -> DuckDBLedger:
        engine = self._engine()
        lock = self._locked(entry.cohort_id)
        try:
            path = self._catalog.database(entry.cohort_id)
            created = not (self._read_only or path.exists())
            known = self._catalog.entry(entry.cohort_id)
            if known is None and not self._read_only:
                self._catalog.write_entry(entry)
            if created:
                with translated(path):
                    make_database(engine, path, (self._catalog.identity, entry), self._catalog.step)
            parts = LedgerParts(
                engine=engine,
                catalog=self._catalog,
                file=DatabaseFile(path, next(self._numbers)),
                lock=lock,
                entry=known or entry,
                created=created,
                closed=partial(self._open.pop, entry.cohort_id, None),
            )
        except BaseException:
            if lock is not None:
                lock.release()
            raise
        ledger = self._open[entry.cohort_id] = DuckDBLedger(parts)
        try:
            ledger.load()
        except BaseException:
            ledger.abandon()
            raise
        return ledger

    def _locked(self, cohort_id: str) -> Lock | None:
        lock = self._catalog.lock(cohort_id)
        if lock is None:
            return None
        since = datetime.fromtimestamp(self._clock(), UTC).isoformat(timespec="seconds")
        me = Holder(pid=os.getpid(), host=socket.gethostname(), run_id=self.run_id, since=since)
        waited = 0.0
        while not lock.acquire(me):
            if waited >= self._busy_seconds or self._wait(_POLL_SECONDS):
                holder = lock.holder()
                who = "another run"
                if holder is not None:
                    who = f"run {holder.run_id} (process {holder.pid} on {holder.host}, "
                    who += f"since {holder.since})"
                msg = f"the ledger of cohort {cohort_id!r} is held by {who}; run again when it ends"
                raise BusyError("ledger_busy", msg)
            waited += _POLL_SECONDS
        return lock
