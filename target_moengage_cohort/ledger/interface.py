"""The interface between an engine and the rest of the program.

A store belongs to a destination. A stream's ledger belongs to the run or command that holds the
stream's lease, with all cohorts that the stream populates. All methods raise `LedgerError` if the
ledger cannot be read or written; afterwards it is unknown whether the change was recorded, so
nothing more must be sent. They raise `SettingsError` if the ledger is another destination's, has
another format, or is not whole.
"""

from __future__ import annotations

import typing as t
from contextlib import AbstractContextManager

from target_moengage_cohort.core.membership import Action, Key, Member
from target_moengage_cohort.ledger.cohort_record import CohortRecord

if t.TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from target_moengage_cohort.core.errors import RowError
    from target_moengage_cohort.core.membership import Cohort
    from target_moengage_cohort.ledger.records import (
        CohortEntry,
        Expected,
        Fault,
        LedgerCounts,
        Plan,
        RefusedDoubt,
        RunEntry,
        RunProgress,
    )
    from target_moengage_cohort.ledger.snapshot import CohortMembers, Difference, Staging

NumberedChange: t.TypeAlias = tuple[int, Action, Member]
"""A change of the cohort with a number."""
NumberedKey: t.TypeAlias = tuple[int, Key]
"""A member's key in the cohort with a number."""


class CohortLedger(CohortRecord, t.Protocol):
    """The ledger of one cohort."""

    number: int  # in the store
    exists: bool  # a read-only store does not create it
    revision: int  # rises with every request and every other change that makes plans outdated

    @property
    def stream(self) -> StreamLedger:
        """The ledger of its stream."""

    @property
    def is_sealed(self) -> bool:
        """Whether this one_time cohort is finished."""

    def numbers(self) -> LedgerCounts:
        """Return how many members the ledger has, after all requests that were answered."""

    def doubts(self) -> Iterator[list[tuple[Action, Member]]]:
        """Yield the changes that earlier runs left unconfirmed and this run has not queued."""

    def refuse_doubt(self, member: Member) -> RefusedDoubt | None:
        """Note, from any thread, that a member was refused alone; `None` if it was no doubt."""

    def members(self) -> Iterator[list[Member]]:
        """Yield the members that are accepted or unconfirmed, in chunks."""

    def aliases(self) -> Iterator[list[Member]]:
        """Yield the anonymous members that stood beside a uid, and are in no number of members."""

    def find(self, members: Sequence[Member]) -> list[Member]:
        """Return the members, aliases included, that share an identifier with these."""

    def seal(self) -> None:
        """Record that a one_time cohort is finished."""

    def doubt_all(self) -> int:
        """Mark every accepted member as unconfirmed, to be sent again; return their number."""

    def adopt(self, chunks: Iterable[Sequence[Member]]) -> int:
        """Record members as accepted without sending them; return how many were not before."""

    def retire(self) -> None:
        """Mark the cohort as retired, so that no run populates it; its name stays reserved."""

    def rename(self, name: str) -> None:
        """Give the cohort another name."""

    def runs(self) -> list[RunEntry]:
        """Return the runs that changed the cohort, the newest first."""

    def plans(self) -> list[Plan]:
        """Return the plans, the oldest first."""

    def plan_members(self, plan_id: str, action: Action) -> Iterator[list[Member]]:
        """Yield the members that a plan adds, or those that it removes, in chunks."""

    def doubt_resent(self, plan_id: str) -> None:
        """Mark the accepted members that a plan adds as unconfirmed, before its removals leave."""

    def renew_plan(self, plan_id: str) -> None:
        """Mark a plan as up to date with the ledger as it is now."""

    def withhold_plan(self, plan_id: str) -> None:
        """Turn a pending plan into a withheld one."""

    def drop_plans(self, plan_id: str | None = None) -> None:
        """Delete plans with their members: all, or only the one with an id; end approvals."""


class StreamLedger(t.Protocol):
    """The ledgers of all cohorts that a stream populates, while the stream's lease is held."""

    def fold(self) -> None:
        """Apply the answered requests to the members."""

    def fold_if_large(self) -> None:
        """Apply them if they are many, so that control stays small."""

    def known(
        self, cohorts: Sequence[int], members: Sequence[Member]
    ) -> dict[NumberedKey, Expected]:
        """Return what is expected after all that this run has queued, of members met before.

        `cohorts` has the number of each member's cohort.
        """

    def queued(self, changes: Sequence[NumberedChange]) -> None:
        """Note changes on their way to a request; a member's last one counts."""

    def queue_known(self, actions: Sequence[Action]) -> None:
        """Note likewise a change of each member that `known` was asked for last."""

    def has_aliases(self) -> bool:
        """Return whether any cohort has aliases; cheap."""

    def stale_aliases(self) -> tuple[list[int], Iterator[CohortMembers]]:
        """Return the cohorts with aliases that no member has, and these; doubt their uids."""

    def difference(
        self,
        staging: Staging,
        cohorts: Sequence[CohortLedger],
        *,
        keeps: bool = False,
        defers: bool = False,
    ) -> Difference:
        """Compare the rows of a snapshot with the ledgers of the cohorts that it is.

        `keeps` means to remove no members, as for one_time cohorts; `defers`, that removals which
        a person approved are sent with the others.
        """

    def keep(self, plans: Sequence[tuple[CohortLedger, Plan]], difference: Difference) -> None:
        """Record plans with the changes that they have, in place of those with their ids."""

    def replace_plans(self, cohorts: Sequence[int]) -> None:
        """Note that newer rows of cohorts were read, so that their plans are outdated.

        Delete those that a person cannot approve any more. A read-only store does nothing.
        """

    def doubt_resent(self, difference: Difference, cohorts: Sequence[CohortLedger]) -> None:
        """Doubt the members that a difference sends again, before removals leave."""

    def settle(self, difference: Difference, *, complete: Sequence[CohortLedger]) -> None:
        """Apply the answers; for the `complete` cohorts, end the removals and used approvals."""

    def cohorts_with(self, members: Sequence[Member]) -> set[int]:
        """Return the cohorts that have a row of a member who shares an identifier with these."""

    def forget(self, members: Sequence[Member]) -> set[int]:
        """Erase them, to the last byte, and return those cohorts; the next open finishes it."""

    def close(self) -> None:
        """Apply all recorded requests, write everything to disk and release the lease."""


class LedgerStore(AbstractContextManager[t.Any], t.Protocol):
    """The ledgers of one destination, for one run or command; closed as a context manager."""

    place: str  # where the ledgers are, for messages
    run_id: str  # the run or command that uses the ledgers

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

    def streams(self) -> list[str]:
        """Return the partner's streams that have a ledger, sorted; never waits."""

    def inspect(self, stream: str) -> list[Fault]:
        """Compare a stream's members with what is recorded of them; take its lease.

        The store must be read-only, because others delete some of what they find when they open a
        stream. Raise a `BusyError` if another run has the lease.
        """

    def unknown_files(self) -> list[Fault]:
        """Return the files of members that no stream of any partner has; never waits."""

    def note_action(self, kind: str, entry: CohortEntry | None = None, **counts: int) -> None:
        """Record that a person's command has changed a cohort, or several; with numbers of it."""

    def has(self, cohort_id: str) -> bool:
        """Return whether the cohort has a ledger; cheap."""

    def entries(self, stream: str | None = None) -> list[CohortEntry]:
        """Return the partner's cohorts, or those of a stream, sorted by id; never waits."""

    def plans(self) -> dict[int, list[Plan]]:
        """Return the plans of all cohorts that have any, by the cohort's number; never waits."""

    def approve(self, entry: CohortEntry, plan: Plan) -> float | None:
        """Let the next run remove what a plan removes; return until when, if that is possible."""

    def has_members(self, stream: str) -> bool:
        """Return whether any cohort of a stream may have members in the store; cheap."""

    def stream(self, name: str) -> StreamLedger:
        """Take a stream's lease, or raise a `BusyError` after a wait; open its ledger."""

    def take(self, stream: str) -> None:
        """Take a stream's lease as `stream` does, without opening its members."""

    def open_without_members(
        self, cohort: Cohort, stream: str, *, held: bool = False
    ) -> CohortRecord:
        """Open the record of a cohort whose members are not kept; otherwise see `open`."""

    def recent_cohorts(self) -> int:
        """Return how many cohorts were created in the last 7 days, by all partners."""

    def count_cohorts(self) -> int:
        """Return how many cohorts the store has, of all partners, retired ones among them."""

    def admit(self, cohort_ids: Iterable[str]) -> dict[str, RowError]:
        """Create cohorts that were held; return why some of them, by id, cannot be."""

    def open(self, cohort: Cohort, stream: str, *, held: bool = False) -> CohortLedger:
        """Open a cohort's ledger, or create it; record a new description. See `stream`, too.

        A new cohort that is held is not recorded before `admit`, and has no request until then.
        Raise a `SettingsError` if the ledger is another stream's or the cohort has another name,
        and a `RowError` if another cohort had the name or the cohort was retired.
        """

    def open_known(self, cohort_id: str) -> CohortLedger:
        """Open a ledger that exists; raise likewise a `SettingsError` if there is none."""

    def reassign(self, cohort_id: str, stream: str) -> None:
        """Let another stream populate a cohort."""

    def staging(self) -> Staging:
        """Return an empty staging for a snapshot."""

    def begin(self, stream: str) -> None:
        """Note, unless read-only, that this run reads a stream; earlier pending plans expire."""

    def companions(self, stream: str) -> set[str]:
        """Return the streams of the run that has read a stream last; empty if none has."""

    def is_void(self, plan: Plan) -> bool:
        """Return whether a pending plan has expired, because a later run of its stream began."""

    def use_version(self, stream: str, version: int) -> bool:
        """Record that this run has seen a stream's version; return whether no other run has."""

    def was_read_whole(self, stream: str) -> bool | None:
        """Return whether the tap reads all of a stream after the last STATE written, if any was."""

    def note_read_whole(self, stream: str, *, whole: bool) -> None:
        """Record that, before the STATE is written; from any thread, unless read-only."""

    def write_progress(self, progress: RunProgress) -> None:
        """Show other processes how far this run is, until the store is closed; not if read-only."""

    def note_run(self, entries: Mapping[int, RunEntry]) -> None:
        """Record the outcome of this run for its cohorts, by their numbers."""

    def end_requests(self) -> None:
        """Count the requests in flight as unanswered: their answers no longer matter."""

    def runs_under_way(self) -> list[RunProgress]:
        """Return the progress of the runs whose process is alive, the oldest first."""

    def close(self) -> None:
        """Close all ledgers, even if one of them fails."""
