"""The ledgers of one destination: which there are, and opening them one run at a time."""

from __future__ import annotations

import itertools
import os
import socket
import time
import typing as t
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial

from target_moengage_cohort.core.errors import BusyError, LedgerError, SettingsError
from target_moengage_cohort.core.files import Holder
from target_moengage_cohort.ledger.duckdb.catalog import Folder
from target_moengage_cohort.ledger.duckdb.connection import LedgerParts
from target_moengage_cohort.ledger.duckdb.database import make_database, make_nothing, read_entry
from target_moengage_cohort.ledger.duckdb.engine import DatabaseFile, Engine, translated
from target_moengage_cohort.ledger.duckdb.ledger import Ledger
from target_moengage_cohort.ledger.records import CohortEntry, PlanKind
from target_moengage_cohort.settings.load import nearest

if t.TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import TracebackType
    from typing import Self

    from target_moengage_cohort.core.files import Lock, Step
    from target_moengage_cohort.core.membership import Cohort
    from target_moengage_cohort.core.scratch import Scratch
    from target_moengage_cohort.ledger.duckdb.engine import Cursor
    from target_moengage_cohort.ledger.duckdb.staging import Staging
    from target_moengage_cohort.ledger.records import Plan
    from target_moengage_cohort.settings import Settings

_POLL_SECONDS = 0.2


class Ledgers:
    """The ledgers of one destination, for one run or command.

    Nothing is made or started before it is needed: most runs need no ledger at all.

    Args:
        settings: Which destination, partner and folder.
        run_id: Whose run; a busy ledger names it.
        wait: Waits for so many seconds, and returns whether the run is to end instead.
        read_only: Make and change nothing but locks.
        step: See `Step`.
        clock: Seconds since 1970.
        busy_seconds: How long to wait for another run of a cohort to end.

    Attributes:
        folder: The destination's folder.
        run_id: Whose run.
        read_only: Whether nothing but locks may be made or changed.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        run_id: str,
        wait: Callable[[float], bool],
        read_only: bool = False,
        step: Step = lambda _name: None,
        clock: Callable[[], float] = time.time,
        busy_seconds: float = 30.0,
    ) -> None:
        self._settings = settings
        self.run_id = run_id
        self._wait = wait
        self.read_only = read_only
        self._step = step
        self._clock = clock
        self._busy_seconds = busy_seconds
        self._files = Folder(settings, read_only=read_only, step=step)
        self.folder: Path = self._files.path
        self._spill: Scratch | None = None
        self._started: Engine | None = None
        self._worker: ThreadPoolExecutor | None = None
        self._open: dict[str, Ledger] = {}
        self._numbers = itertools.count(1)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def exists(self) -> bool:
        """Whether the destination's folder is there, so that some cohort may have a ledger."""
        return self._files.exists

    def check(self) -> None:
        """See that ledgers can be used here, or made; nothing is made or changed but locks.

        Raises:
            LedgerError: The disk refuses it.
            SettingsError: The folder is another destination's, or of a newer format.
        """
        self._files.check()

    def has(self, cohort_id: str) -> bool:
        """Whether the cohort has a ledger; cheap."""
        return self._files.has(cohort_id)

    def entries(self) -> list[CohortEntry]:
        """The cohorts that have a ledger, in the order of their ids; no database is opened.

        Raises:
            LedgerError: The catalogue lacks one, and its ledger cannot be read either.
        """
        found, unlisted = self._files.entries()
        for path in unlisted:
            with translated(path):
                destination, entry = read_entry(self._engine(), path)
            mine = (self._files.identity, self._settings.partner)
            if (destination, entry.partner) == mine:  # else it is for others to mend
                found.append(entry)
                if not self.read_only:
                    self._files.write_entry(entry)
        ours = (entry for entry in found if entry.partner == self._settings.partner)
        return sorted(ours, key=lambda entry: entry.cohort_id)

    def open(self, cohort: Cohort, stream: str) -> Ledger:
        """Lock the ledger of a cohort and open it, or make it.

        Args:
            cohort: Which; a new description is noted, a new name refused.
            stream: The stream that feeds it.

        Raises:
            BusyError: Another run has it.
            SettingsError: It is another stream's, has another name, or is not ours to read.
            LedgerError: The disk or DuckDB refuses it.
        """
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

    def open_known(self, cohort_id: str) -> Ledger:
        """Open a ledger that is there already.

        Raises:
            BusyError: A run has it.
            SettingsError: There is none, or it is not ours to read.
            LedgerError: The disk or DuckDB refuses it.
        """
        if cohort_id in self._open:
            return self._open[cohort_id]
        entry = self._files.entry(cohort_id)
        if entry is None:
            like = nearest(cohort_id, [entry.cohort_id for entry in self.entries()])
            hint = (
                f"did you mean {like!r}?" if like else "moengage-cohort status lists those with one"
            )
            msg = (
                f"cohort {cohort_id!r} of partner {self._settings.partner!r} has no ledger in "
                f"{self.folder}; {hint}"
            )
            raise SettingsError(msg)
        return self._opened(entry)

    def staging(self) -> Staging:
        """Room for a snapshot."""
        from target_moengage_cohort.ledger.duckdb.staging import Staging  # noqa: PLC0415

        if self._worker is None:  # one for all: there may be thousands of snapshots
            self._worker = ThreadPoolExecutor(1, thread_name_prefix="staging")
        return Staging(self, self._worker)

    def cursor(self) -> Cursor:
        """A new cursor of the one DuckDB instance."""
        return self._engine().cursor()

    def hash_sql(self, uid: str, anonymous_id: str) -> str:
        """The SQL expression (UHUGEINT) of a member's hash, of those of its identifiers."""
        return self._engine().hash_sql(uid, anonymous_id)

    def begin(self, stream: str) -> None:
        """Note that this run reads a stream: what waits from an earlier one is void.

        Raises:
            LedgerError: The disk refuses it.
            SettingsError: The folder is another destination's, or of a newer format.
        """
        self._engine()
        self._files.begin(stream, self.run_id)

    def has_begun(self, stream: str) -> bool:
        """Whether `begin` has ever been told of a stream, so that something may wait; cheap.

        Raises:
            LedgerError: The disk refuses it.
        """
        return self._files.latest_run(stream) is not None

    def is_void(self, plan: Plan) -> bool:
        """Whether a later run of the plan's stream has begun, so that it waits no more.

        Raises:
            LedgerError: The disk refuses it.
        """
        latest = self._files.latest_run(plan.stream)
        return plan.kind is PlanKind.WAITING and latest not in {None, plan.run_id}

    def use_version(self, stream: str, version: int) -> bool:
        """Note that this run reads a version of a stream.

        Returns:
            Whether no unfinished run has used it before.

        Raises:
            LedgerError: The disk refuses it.
        """
        self._engine()
        return self._files.use_version(stream, version)

    def finish_version(self, stream: str, version: int) -> None:
        """Forget a version: the run that read it was good.

        Raises:
            LedgerError: The disk refuses it.
        """
        self._files.finish_version(stream, version)

    def close(self) -> None:
        """Close all ledgers.

        Raises:
            LedgerError: One of them could not be closed well; the others are closed.
        """
        failed: LedgerError | None = None
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
        """The DuckDB instance; the folder is made and the instance started when first asked for.

        Raises:
            LedgerError: The disk or DuckDB refuses it.
            SettingsError: The folder is another destination's, or of a newer format.
        """
        if self._started is None:
            self._files.prepare()
            self._spill = self._files.spill(self.run_id)
            self._started = Engine(self._files.hash_key, self._spill.path, read_only=self.read_only)
            with translated(self.folder):
                make_nothing(self._started)
        return self._started

    def _opened(self, entry: CohortEntry) -> Ledger:
        engine = self._engine()
        lock = self._locked(entry.cohort_id)
        try:
            path = self._files.database(entry.cohort_id)
            created = not path.exists()
            known = self._files.entry(entry.cohort_id)
            if not self.read_only:
                if known is None:
                    self._files.write_entry(entry)
                if created:
                    with translated(path):
                        make_database(engine, path, (self._files.identity, entry), self._step)
            parts = LedgerParts(
                engine=engine,
                folder=self._files,
                file=DatabaseFile(path, next(self._numbers)),
                lock=lock,
                entry=known or entry,
                created=created and not self.read_only,
                read_only=self.read_only,
                step=self._step,
                closed=partial(self._open.pop, entry.cohort_id, None),
            )
        except BaseException:
            if lock is not None:
                lock.release()
            raise
        ledger = self._open[entry.cohort_id] = Ledger(parts)
        try:
            ledger.load()
        except BaseException:
            ledger.abandon()
            raise
        return ledger

    def _locked(self, cohort_id: str) -> Lock | None:
        lock = self._files.lock(cohort_id)
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
                raise BusyError(msg)
            waited += _POLL_SECONDS
        return lock
