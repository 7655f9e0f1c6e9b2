"""The interface between an engine and the rest of the program.

A store belongs to a destination. A stream's ledger belongs to the run or command that holds the
stream's lease, with all cohorts that the stream populates. What is in control is implemented here
and in the modules of its streams and cohorts; methods without a body are the engine's.

All methods raise `LedgerError` if the ledger cannot be read or written; afterwards it is unknown
whether the change was recorded, so nothing more must be sent. They raise `SettingsError` if the
ledger is another destination's, has another format, or is not whole.
"""

from __future__ import annotations

import typing as t
from contextlib import AbstractContextManager

from target_moengage_cohort.core.commands import suggest
from target_moengage_cohort.core.errors import SettingsError
from target_moengage_cohort.ledger.control.memberless import MemberlessCohort, MemberlessStream
from target_moengage_cohort.ledger.control.new_cohorts import check_owner
from target_moengage_cohort.ledger.movable import MovableStore
from target_moengage_cohort.ledger.recorded import RecordedStore
from target_moengage_cohort.ledger.records import PlanKind
from target_moengage_cohort.ledger.watched import WatchedStore
from target_moengage_cohort.settings.convert import nearest_name

if t.TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from target_moengage_cohort.core.errors import RowError
    from target_moengage_cohort.core.membership import Cohort
    from target_moengage_cohort.core.rate_limits import RateLimit, SharedWindow
    from target_moengage_cohort.ledger.cohort_ledger import CohortLedger
    from target_moengage_cohort.ledger.control.control import Control
    from target_moengage_cohort.ledger.control.unarchivals import Unarchivals
    from target_moengage_cohort.ledger.records import (
        Approval,
        CohortEntry,
        Fault,
        Plan,
    )
    from target_moengage_cohort.ledger.snapshot import Staging
    from target_moengage_cohort.ledger.stream_ledger import StreamLedger


class LedgerStore(
    MovableStore, RecordedStore, WatchedStore, AbstractContextManager[t.Any], t.Protocol
):
    """The ledgers of one destination, for one run or command; closed as a context manager."""

    place: str  # where the ledgers are, for messages
    run_id: str  # the run or command that uses the ledgers
    _control: Control
    _read_only: bool
    _streams: Mapping[str, StreamLedger]
    _memberless: dict[str, MemberlessStream]

    def __init__(self, control: Control, place: str, run_id: str) -> None:
        self.place, self.run_id = place, run_id
        self._control, self._read_only = control, control.database.read_only
        control.run_id = run_id
        self._streams, self._memberless = {}, {}

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ready(self) -> Control:
        """Return control, open; the first call creates the store unless it is read-only."""

    @property
    def exists(self) -> bool:
        """Whether any cohort of the destination may have a ledger."""

    def check(self) -> None:
        """Check that ledgers can be used or created, without creating any."""

    def accept_older(self) -> bool:
        """Trust the store as it is, or its absence, whatever the state directory knows of it.

        Return whether there is one. Otherwise an older store, or another one, is refused.
        """

    def accept_members(self, stream: str) -> None:
        """Trust the members that a stream's file has, or none if it is missing."""

    def inspect(self, stream: str) -> list[Fault]:
        """Compare a stream's members with what is recorded of them; take its lease.

        The store must be read-only, because others delete some of what they find when they open a
        stream. Raise a `BusyError` if another run has the lease.
        """

    def unknown_files(self) -> list[Fault]:
        """Return the files of members that no stream of any partner has; never waits."""

    # Streams

    def streams(self) -> list[str]:
        """Return the partner's streams that have a ledger, sorted; never waits."""
        return self._ready().streams() if self.exists else []

    def has_members(self, stream: str) -> bool:
        """Return whether any cohort of a stream may have members in the store; cheap."""
        return self.exists and self._ready().has_members(stream)

    def stream(self, name: str) -> StreamLedger:
        """Take a stream's lease, and open its ledger.

        Wait while another run has the lease, and log that, but raise a `BusyError` in the end.
        """

    def take(self, stream: str) -> None:
        """Take a stream's lease as `stream` does, without opening its members."""

    def begin(self, stream: str) -> None:
        """Note, unless read-only, that this run reads a stream; earlier pending plans expire."""
        control = self._ready()
        if not self._read_only:
            control.begin(stream, self.run_id)

    def companions(self, stream: str) -> set[str]:
        """Return the streams of the run that has read a stream last; empty if none has."""
        return self._ready().companions(stream) if self.exists else set()

    def use_version(self, stream: str, version: int) -> bool:
        """Record that this run has seen a stream's version; return whether no other run has."""
        return self._ready().use_version(stream, version, self.run_id)

    def was_read_whole(self, stream: str) -> bool | None:
        """Return whether the tap reads all of a stream after the last STATE written, if any was."""
        is_whole = self._ready().fact(stream, "is_whole")
        return None if is_whole is None else bool(is_whole)

    def note_read_whole(self, stream: str, *, whole: bool) -> None:
        """Record that, before the STATE is written; from any thread, unless read-only."""
        if not self._read_only:
            self._ready().note_stream(stream, is_whole=int(whole))

    def staging(self) -> Staging:
        """Return an empty staging for a snapshot."""

    def shared_window(self, limit: RateLimit) -> SharedWindow | None:
        """Return the window of starts that the store's hosts share; ``None`` if it has only one."""
        del limit
        return None

    # Cohorts

    def has(self, cohort_id: str) -> bool:
        """Return whether the cohort has a ledger; cheap."""
        return self.entry(cohort_id) is not None

    def entry(self, cohort_id: str) -> CohortEntry | None:
        """Return the cohort with an id, if it has a ledger; cheap."""
        if (ledger := self._opened(cohort_id)) is not None:
            return ledger.entry
        return self._ready().entry(cohort_id) if self.exists else None

    def entries(self, stream: str | None = None) -> list[CohortEntry]:
        """Return the partner's cohorts, or those of a stream, sorted by id; never waits."""
        return self._ready().entries(stream) if self.exists else []

    def recent_cohorts(self) -> int:
        """Return how many cohorts were created in the last 7 days, by all partners."""
        return self._ready().new.count_recent() if self.exists else 0

    def count_cohorts(self) -> int:
        """Return how many cohorts the store has, of all partners, retired ones among them."""
        return self._ready().new.count_all() if self.exists else 0

    @property
    def unarchivals(self) -> Unarchivals:
        """When cohorts were unarchived."""
        return self._ready().unarchivals

    def admit(self, cohort_ids: Iterable[str]) -> dict[str, RowError]:
        """Create cohorts that were held; return why some of them, by id, cannot be."""
        return self._ready().new.admit(cohort_ids)

    def check_new(self, cohort: Cohort) -> None:
        """Raise the error with which `open` would refuse a cohort without a ledger."""
        if self.exists:
            self._ready().new.check(cohort)

    def open_without_members(
        self, cohort: Cohort, stream: str, *, held: bool = False
    ) -> MemberlessCohort:
        """Open the record of a cohort whose members are not kept; otherwise see `open`."""
        self.take(stream)
        if stream not in self._memberless:
            self._memberless[stream] = MemberlessStream(self._control, stream)
        return self._memberless[stream].open(cohort, held=held)

    def open(self, cohort: Cohort, stream: str, *, held: bool = False) -> CohortLedger:
        """Open a cohort's ledger, or create it; record a new description. See `stream`, too.

        A new cohort that is held is not recorded before `admit`, and has no request until then.
        Raise a `SettingsError` if the ledger is another stream's or the cohort has another name,
        and a `RowError` if another cohort had the name or the cohort was retired.
        """
        of_stream = self.stream(stream)
        if (ledger := of_stream.cohorts.get(cohort.cohort_id)) is None:
            control = self._ready()
            if (entry := control.entry(cohort.cohort_id)) is not None:  # another stream's
                check_owner(entry, cohort, stream)
            entry = control.new.add(cohort, stream, held=held)
            ledger = of_stream.add(entry, created=not self._read_only)
        ledger.check(cohort, stream)
        return ledger

    def open_known(self, cohort_id: str) -> CohortLedger:
        """Open a ledger that exists; raise likewise a `SettingsError` if there is none."""
        if (ledger := self._opened(cohort_id)) is not None:
            return ledger
        entry = self._ready().entry(cohort_id) if self.exists else None
        if entry is None:
            raise self.unknown(cohort_id)
        of_stream = self.stream(entry.stream)
        # The previous holder of the lease may have given the cohort to another stream.
        return of_stream.cohorts.get(cohort_id) or self.open_known(cohort_id)

    def unknown(self, cohort_id: str) -> SettingsError:
        """Return the error for a cohort that has no ledger."""
        like = nearest_name(cohort_id, [entry.cohort_id for entry in self.entries()])
        shown = f"to list the cohorts with a ledger, run: {suggest('status')}"
        hint = f"did you mean {like!r}?" if like else shown
        msg = (
            f"cohort {cohort_id!r} of partner {self._control.partner!r} has no ledger in "
            f"{self.place}; {hint}"
        )
        return SettingsError("no_ledger", msg)

    def _opened(self, cohort_id: str) -> CohortLedger | None:
        """Return a cohort's ledger if its stream is open."""
        streams = self._streams.values()
        found = (of.cohorts[cohort_id] for of in streams if cohort_id in of.cohorts)
        return next(found, None)

    def reassign(self, cohort_id: str, stream: str) -> None:
        """Let another stream populate a cohort: copy its members, then change the owner."""

    def reassign_all(self, former: str, stream: str) -> list[CohortEntry]:
        """Let another stream populate all cohorts of a stream; return them as they were.

        What is known of the stream becomes the other one's: plans, versions, pauses and the like.
        """

    # Plans

    def plans(self) -> dict[int, list[Plan]]:
        """Return the plans of all cohorts that have any, by the cohort's number; never waits."""
        numbers = [entry.number for entry in self.entries()]
        return self._ready().plans.of_cohorts(numbers) if numbers else {}

    def approvals(self) -> dict[int, Approval]:
        """Return the approvals that are valid now, by the cohort's number; never waits."""
        numbers = [entry.number for entry in self.entries()]
        return self._ready().plans.approvals(numbers) if numbers else {}

    def is_void(self, plan: Plan) -> bool:
        """Return whether a pending plan has expired, because a later run of its stream began."""
        latest = self._ready().fact(plan.stream, "latest_run")
        return plan.kind is PlanKind.WAITING and latest not in {None, plan.run_id}

    def approve(self, entry: CohortEntry, plan: Plan) -> float | None:
        """Let the cohort's next run remove what a plan removes, whatever the guard says.

        Take no lease. Return until when, in seconds since 1970; `None` if it cannot be approved.
        """
        return self._ready().plans.approve(entry.number, plan)

    # The end

    def check_lease(self) -> None:
        """Raise a `LedgerError` unless the streams that were taken are still this store's.

        To be called from any thread, right before a STATE is written.
        """
        self._control.database.check_lease()

    def end_requests(self) -> None:
        """Count the requests in flight as unanswered, and let no other leave."""
        for stream in self._streams.values():
            stream.requests.end()

    def close(self) -> None:
        """Close all ledgers, even if one of them fails."""
