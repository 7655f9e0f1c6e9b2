"""The interface between an engine and the rest of the program.

All methods raise `LedgerError` if the ledger cannot be read or written; afterwards it is unknown
whether the change was recorded, so nothing more must be sent. They raise `SettingsError` if the
ledger is another destination's or has a newer format.
"""

from __future__ import annotations

import typing as t
from contextlib import AbstractContextManager

if t.TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from target_moengage_cohort.core.membership import Action, Cohort, Key, Member
    from target_moengage_cohort.ledger.records import (
        CohortEntry,
        DiffCounts,
        Expected,
        LedgerCounts,
        Plan,
        PlanKind,
        RunEntry,
        RunProgress,
    )


class Difference(t.Protocol):
    """The changes that turn a ledger into a snapshot; valid while its staging is open."""

    differs: DiffCounts

    def additions(self) -> Iterator[list[Member]]:
        """Yield the members to add, in stream order and in chunks."""

    def removals(self) -> Iterator[list[Member]]:
        """Yield the members to remove, with the identifiers that were accepted, in chunks."""

    def dropped(self) -> Iterator[list[Member]]:
        """Yield the members to delete from the ledger without a request, in chunks."""

    def digest(self, *, additions: bool, removals: bool) -> str:
        """Return a digest of the changes; the same changes of one cohort have the same digest."""

    def close(self) -> None:
        """Free the memory that the difference takes."""


class Staging(t.Protocol):
    """The rows of a snapshot, in stream order; for use by one thread."""

    rows: int
    has_absent: bool  # whether any row marks its member as a non-member

    def append(
        self,
        cohorts: Sequence[int] | None,
        uids: Sequence[str | None],
        anonymous_ids: Sequence[str | None] | None,
        present: Sequence[bool] | None,
    ) -> None:
        """Append rows, column by column; chunks of some 100,000 rows are fastest.

        Every row has a uid or an anonymous id. Without `cohorts` all rows are of cohort 0, without
        `anonymous_ids` no row has one, and without `present` all are members' rows. The caller must
        not change the lists afterwards. A later call may raise this one's error.
        """

    def cursor(self) -> t.Any:
        """Return a new cursor for `append_from`."""

    def append_from(
        self, cursor: t.Any, select: str, *, rows: int, has_absent: bool, has_pairs: bool
    ) -> None:
        """Append rows of cohort 0 that the engine reads itself, by a cursor of `cursor`.

        `select` selects uid, anonymous_id and present, in order. `has_absent` and `has_pairs` mean
        that some row is a non-member's, or has both identifiers.
        """

    def new_members(self, first: int, end: int) -> list[Member]:
        """Return the members of the rows from `first` up to `end` that have no row before `first`.

        Of a member's rows in the range the last one counts.
        """

    def difference(self, ledger: CohortLedger, cohort: int, *, keeps: bool = False) -> Difference:
        """Compare a cohort's rows, by its number in `append`, with its ledger.

        `keeps` means to remove no members, as for a one_time cohort.
        """

    def close(self) -> None:
        """Free the memory that the rows take; differences of this staging end with it."""


class RequestLedger(t.Protocol):
    """The record for delivery of every request, before it leaves and when it is answered."""

    created: bool  # by this store
    last_timestamp: int  # the latest request's, in milliseconds; 0 if there was none

    def sent(self, action: Action, members: Sequence[Member], timestamp: int) -> int:
        """Record a request that is about to leave; return its number for `accepted` or `refused`.

        Its members are unconfirmed from then on. After an error the request must not leave.
        """

    def accepted(self, number: int) -> None:
        """Record that MoEngage accepted a request; durable on return."""

    def refused(self, number: int) -> None:
        """Record that MoEngage refused a request, so that none of it was applied; durable."""


class CohortLedger(RequestLedger, t.Protocol):
    """The ledger of one cohort."""

    entry: CohortEntry  # in the catalog
    exists: bool  # a read-only store does not create it
    is_sealed: bool  # whether this one_time cohort is finished
    revision: int  # rises with every request and every other change that makes plans outdated

    def fold(self) -> None:
        """Apply the recorded requests, up to the first one that is still unanswered."""

    def numbers(self) -> LedgerCounts:
        """Return how many members the ledger has."""

    def known(self, members: Sequence[Member]) -> dict[Key, Expected]:
        """Return what is expected after all that this run has queued, of members met before."""

    def queued(self, changes: Sequence[tuple[Action, Member]]) -> None:
        """Note changes on their way to a request; a member's last one counts."""

    def doubts(self) -> Iterator[list[tuple[Action, Member]]]:
        """Yield the changes that earlier runs left unconfirmed and this run has not queued."""

    def members(self) -> Iterator[list[Member]]:
        """Yield the members that are accepted or unconfirmed, in chunks."""

    def find(self, members: Sequence[Member]) -> list[Member]:
        """Return the accepted or unconfirmed members that share an identifier with these."""

    def drop_linked(self, difference: Difference) -> None:
        """Delete the members that a difference drops: their anonymous id now goes with a uid."""

    def clear_removed(self) -> None:
        """Delete the record of accepted removals, which a mirror does not need."""

    def seal(self) -> None:
        """Record that a one_time cohort is finished."""

    def doubt_all(self) -> int:
        """Mark every accepted member as unconfirmed, to be sent again; return their number."""

    def adopt(self, chunks: Iterable[Sequence[Member]]) -> int:
        """Record members as accepted without sending them; return how many were not before."""

    def forget(self, members: Sequence[Member]) -> bool:
        """Erase members that share an identifier with these; return whether there were any.

        No byte of them is left. After an error the next open finishes the work.
        """

    def rename(self, name: str) -> None:
        """Give the cohort another name."""

    def reassign(self, stream: str) -> None:
        """Let another stream populate the cohort."""

    def note_run(self, run: RunEntry) -> None:
        """Record the outcome of a run; the newest runs are kept."""

    def runs(self) -> list[RunEntry]:
        """Return the recorded runs, the newest first."""

    def plans(self) -> list[Plan]:
        """Return the plans, the oldest first."""

    def keep(self, plan: Plan, difference: Difference, *, additions: bool, removals: bool) -> None:
        """Record a plan with the chosen changes, in place of one with its id; durable on return."""

    def plan_members(self, plan_id: str, action: Action) -> Iterator[list[Member]]:
        """Yield the members that a plan adds, or those that it removes, in chunks."""

    def renew_plan(self, plan_id: str) -> None:
        """Mark a plan as up to date with the ledger as it is now."""

    def withhold_plan(self, plan_id: str) -> None:
        """Turn a pending plan into a withheld one."""

    def drop_plans(self, kind: PlanKind | None = None, plan_id: str | None = None) -> None:
        """Delete plans with their members: all, or only those of a kind or of an id."""

    def close(self) -> None:
        """Apply all recorded requests, write everything to disk and release the ledger."""


class LedgerStore(AbstractContextManager["LedgerStore"], t.Protocol):
    """The ledgers of one destination, for one run or command; closed as a context manager."""

    folder: Path  # the place of the destination's ledgers, for messages
    run_id: str  # the run or command that uses the ledgers

    @property
    def exists(self) -> bool:
        """Whether any cohort of the destination may have a ledger."""

    def check(self) -> None:
        """Check that ledgers can be used or created, without creating any."""

    def has(self, cohort_id: str) -> bool:
        """Return whether the cohort has a ledger; cheap."""

    def entries(self) -> list[CohortEntry]:
        """Return the cohorts of the partner that have a ledger, sorted by id."""

    def open(self, cohort: Cohort, stream: str) -> CohortLedger:
        """Lock and open the ledger of a cohort, or create it; record a new description.

        Raise a `BusyError` if another run has it, and a `SettingsError` if it is another stream's
        or the cohort has another name.
        """

    def open_known(self, cohort_id: str) -> CohortLedger:
        """Lock and open a ledger that exists; raise likewise a `SettingsError` if there is none."""

    def staging(self) -> Staging:
        """Return an empty staging for a snapshot."""

    def has_begun(self, stream: str) -> bool:
        """Return whether any run has begun to read a stream; cheap."""

    def begin(self, stream: str) -> None:
        """Record that this run reads a stream: earlier runs' pending plans expire.

        A read-only store records nothing.
        """

    def is_void(self, plan: Plan) -> bool:
        """Return whether a pending plan has expired, because a later run of its stream began."""

    def use_version(self, stream: str, version: int) -> bool:
        """Record that this run reads a stream's version; return whether no unfinished run has."""

    def finish_version(self, stream: str, version: int) -> None:
        """Delete the record of a version, because the run that read it succeeded."""

    def write_progress(self, progress: RunProgress) -> None:
        """Show other processes how far this run is, until the store is closed; not if read-only."""

    def runs_under_way(self) -> list[RunProgress]:
        """Return the progress of the runs whose process is alive, the oldest first."""

    def close(self) -> None:
        """Close all ledgers, even if one of them fails."""
