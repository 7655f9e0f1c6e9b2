"""What the directory of a destination's ledgers has beside its members, and the state directory."""

from __future__ import annotations

import contextlib
import logging
import typing as t
from functools import partial

from target_moengage_cohort.core import files, sqlite_files
from target_moengage_cohort.core.errors import LedgerError, SettingsError
from target_moengage_cohort.ledger.control.actions import note_action
from target_moengage_cohort.ledger.control.control import Control, stem
from target_moengage_cohort.ledger.control.history import RunHistory
from target_moengage_cohort.ledger.control.plans import Plans, is_approvable
from target_moengage_cohort.ledger.control.sqlite import SQLiteDatabase
from target_moengage_cohort.ledger.control.stream_records import StreamRecords
from target_moengage_cohort.ledger.duckdb.leases import Leases
from target_moengage_cohort.ledger.duckdb.location import refuse_old_format, store_folder
from target_moengage_cohort.ledger.records import Fault, PlanKind
from target_moengage_cohort.ledger.repairs import inconsistent, restore_store
from target_moengage_cohort.ledger.witness import Witness

if t.TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from target_moengage_cohort.core.files import Step
    from target_moengage_cohort.core.interrupts import Patience
    from target_moengage_cohort.ledger.records import CohortEntry, Plan, RunEntry, RunProgress
    from target_moengage_cohort.settings import Settings

logger = logging.getLogger(__name__)


class StoreOptions(t.TypedDict):
    """The arguments of `open_store`."""

    run_id: str
    read_only: bool
    step: Step
    clock: Callable[[], float]
    patience: Patience


class StoreDirectory:
    """The part of a `LedgerStore` that needs no lease."""

    def __init__(self, settings: Settings, **options: t.Unpack[StoreOptions]) -> None:
        self._settings = settings
        self.run_id = options["run_id"]
        self._read_only, self._step = options["read_only"], options["step"]
        self._clock, self._patience = options["clock"], options["patience"]
        self.folder = store_folder(settings)
        self.place = str(self.folder)
        database = SQLiteDatabase(
            self.folder, read_only=self._read_only, step=self._step, patience=self._patience
        )
        self._control = Control(settings, database, self._clock)
        self._leases = Leases(self.folder, is_optional=self._read_only)
        self._witness = Witness(self.place, self._step)
        database.first_change = partial(self._witness.write, self._control)
        self._is_ready = self._has_progress = False

    @property
    def exists(self) -> bool:
        """Whether a cohort may have a ledger: there is a directory, or should be one."""
        return files.exists(self.folder) or self._witness.exists

    def accept_older(self) -> bool:
        """See `LedgerStore.accept_older`."""
        self._refuse_remains()
        self._witness.delete()
        self._control.database.trusts_host = True
        if is_there := self._control.database.exists:
            self._witness.write(self._ready())
        return is_there

    def check(self) -> None:
        """Check that ledgers can be used or created, without creating any."""
        self._check_place()
        with files.as_ledger_error(self.folder, "used"):
            files.try_out(self.folder)
        self._ready()

    def has(self, cohort_id: str) -> bool:
        """Return whether the cohort has a ledger; cheap."""
        return self.exists and self._ready().entry(cohort_id) is not None

    def entries(self, stream: str | None = None) -> list[CohortEntry]:
        """See `LedgerStore.entries`."""
        return self._ready().entries(stream) if self.exists else []

    def recent_cohorts(self) -> int:
        """See `LedgerStore.recent_cohorts`."""
        return self._ready().new.count_recent() if self.exists else 0

    def count_cohorts(self) -> int:
        """See `LedgerStore.count_cohorts`."""
        return self._ready().new.count_all() if self.exists else 0

    def plans(self) -> dict[int, list[Plan]]:
        """Return the plans of all cohorts that have any, by number; never waits."""
        numbers = [entry.number for entry in self.entries()]
        return Plans(self._ready()).of_cohorts(numbers) if numbers else {}

    def approve(self, entry: CohortEntry, plan: Plan) -> float | None:
        """See `LedgerStore.approve`."""
        plans = Plans(self._ready())
        if not is_approvable(plan, self._clock()):
            return None
        return plans.approve(entry.number, plan.plan_id)

    def streams(self) -> list[str]:
        """Return the partner's streams that have a ledger; never waits."""
        return StreamRecords(self._ready()).names() if self.exists else []

    def begin(self, stream: str) -> None:
        """Record that this run reads a stream: pending plans of earlier runs expire."""
        if not self._read_only:
            StreamRecords(self._ready()).begin(stream, self.run_id)

    def companions(self, stream: str) -> set[str]:
        """See `LedgerStore.companions`."""
        return StreamRecords(self._ready()).companions(stream) if self.exists else set()

    def has_members(self, stream: str) -> bool:
        """Return whether any cohort of a stream may have members in the store; cheap."""
        return self.exists and StreamRecords(self._ready()).has_members(stream)

    def is_void(self, plan: Plan) -> bool:
        """Return whether a pending plan has expired, because a later run of its stream began."""
        latest = StreamRecords(self._ready()).fact(plan.stream, "latest_run")
        return plan.kind is PlanKind.WAITING and latest not in {None, plan.run_id}

    def use_version(self, stream: str, version: int) -> bool:
        """Record that this run has seen a stream's version; return whether no other run has."""
        return StreamRecords(self._ready()).use_version(stream, version, self.run_id)

    def was_read_whole(self, stream: str) -> bool | None:
        """See `LedgerStore.was_read_whole`."""
        is_whole = StreamRecords(self._ready()).fact(stream, "is_whole")
        return None if is_whole is None else bool(is_whole)

    def note_read_whole(self, stream: str, *, whole: bool) -> None:
        """See `LedgerStore.note_read_whole`."""
        if not self._read_only:
            StreamRecords(self._ready()).note_stream(stream, is_whole=int(whole))

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
        with contextlib.closing(Leases(self.folder, is_optional=True)) as leases:
            for path in self.folder.glob("stream-*.lock"):
                base = path.stem.removeprefix("stream-")
                if (holder := leases.holder(base)) is not None and not leases.is_free(base):
                    holding.add(holder.run_id)
        return [each for each in RunHistory(self._ready()).under_way() if each.run_id in holding]

    def note_run(self, entries: Mapping[int, RunEntry]) -> None:
        """Record the outcome of this run for its cohorts."""
        if entries and not self._read_only:
            RunHistory(self._ready()).finish(entries)
            self._has_progress = False

    def note_action(self, kind: str, entry: CohortEntry | None = None, **counts: int) -> None:
        """See `LedgerStore.note_action`."""
        note_action(self._ready(), kind, entry, counts)

    def unknown_files(self) -> list[Fault]:
        """See `LedgerStore.unknown_files`."""
        known = StreamRecords(self._ready()).all_names() if self.exists else []
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

    def _ready(self) -> Control:
        """Open control; the first call creates the directory."""
        if not self._is_ready:
            refuse_old_format(self.folder)
            self._refuse_remains()
            known = self._witness.read()
            if not self._control.database.exists:
                self._witness.check(known, self._control)
            if not self._read_only:
                self._check_place()
                files.make_directory(self.folder)
                self._step("create directory")
                files.remove_dead(self.folder.glob("spill-*"))
            try:
                self._control.open()
                self._witness.check(known, self._control)
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

    def _check_place(self) -> None:
        """Raise a `SettingsError` unless the store exists, or may be created in its place."""
        if self._control.database.exists:
            return
        if not self._settings.ledger_create:
            msg = (
                f"ledger_create: is false, and there is no ledger in {self.place}. Check that "
                "ledger_uri is right and its disk is mounted, or set ledger_create to true"
            )
            raise SettingsError("ledger_missing", msg)
        parent = self.folder.parent.parent  # of the directory that ledger_uri names
        if self._settings.ledger_uri is not None and not parent.exists():
            msg = (
                f"ledger_uri: the directory {parent} does not exist. Check that the path is right "
                "and that its disk is mounted; or create the directory"
            )
            raise SettingsError("ledger_parent_missing", msg)

    def _refuse_remains(self) -> None:
        """Raise a `SettingsError` if there are files of members without control."""
        path = self._control.database.path
        with files.as_ledger_error(path, "read"):
            is_empty = sqlite_files.size(path) <= 0
        if is_empty and any(self.folder.glob("members-*.duckdb")):
            fault = "is missing or empty, although files of members are there"
            raise inconsistent(path, fault, restore_store(self.folder))

    def _close_control(self) -> None:
        with contextlib.ExitStack() as stack:
            stack.callback(self._control.database.close)
            if self._has_progress:
                with contextlib.suppress(LedgerError):  # the run is over, whatever the record says
                    RunHistory(self._control).end(self.run_id)
            if self._control.database.has_changed:
                self._witness.write(self._control)
