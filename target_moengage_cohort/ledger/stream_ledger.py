"""The ledgers of a stream's cohorts: what each engine does in its way, and what is in control."""

from __future__ import annotations

import typing as t

from target_moengage_cohort.core.membership import Action, Key, Member
from target_moengage_cohort.ledger.control.requests import Requests

if t.TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from target_moengage_cohort.ledger.cohort_ledger import CohortLedger
    from target_moengage_cohort.ledger.control.control import Control
    from target_moengage_cohort.ledger.control.plans import Plans
    from target_moengage_cohort.ledger.control.requests import JournaledRequest
    from target_moengage_cohort.ledger.records import CohortEntry, Expected, Plan, RefusedDoubt
    from target_moengage_cohort.ledger.snapshot import CohortMembers, Difference, Staging

NumberedChange: t.TypeAlias = tuple[int, Action, Member]
"""A change of the cohort with a number."""
NumberedKey: t.TypeAlias = tuple[int, Key]
"""A member's key in the cohort with a number."""

_MOST_UNFOLDED = 4_000_000
"""Members of requests in control beyond which `fold_if_large` folds."""


class StreamLedger(t.Protocol):
    """The ledgers of all cohorts that a stream populates, while the stream's lease is held."""

    name: str
    control: Control
    requests: Requests
    plans: Plans  # of the store, without their members
    cohorts: dict[str, CohortLedger]  # by their ids
    by_number: dict[int, CohortLedger]
    read_only: bool

    def __init__(self, name: str, control: Control) -> None:
        self.name, self.control = name, control
        self.requests, self.plans = Requests(control, name), control.plans
        self.cohorts, self.by_number = {}, {}
        self.read_only = control.database.read_only

    def add(self, entry: CohortEntry, *, created: bool) -> CohortLedger:
        """Return the ledger of one of the stream's cohorts."""

    @property
    def has_requests_in_flight(self) -> bool:
        """Whether any request of this run may still reach MoEngage."""
        return self.requests.are_in_flight

    # Folding

    def fold(self) -> None:
        """Apply the answered requests to the members."""
        if not self.read_only and self.requests.are_to_fold:
            journal = self.requests.journal_to_fold()
            try:
                self._fold(journal)
            except BaseException:
                self.requests.are_to_fold = True
                raise

    def fold_if_large(self) -> None:
        """Apply them if they are many, so that control stays small."""
        if self.requests.answered_members >= _MOST_UNFOLDED:
            self.fold()

    def _fold(self, journal: Sequence[JournaledRequest]) -> None:
        """Apply requests to the members, then delete them from control."""

    # Members

    def known(
        self, cohorts: Sequence[int], members: Sequence[Member]
    ) -> dict[NumberedKey, Expected]:
        """Return what is expected after all that this run has queued, of members met before.

        `cohorts` has the number of each member's cohort.
        """

    def known_anywhere(self, members: Sequence[Member]) -> Iterator[tuple[int, Key, Expected]]:
        """Yield likewise the cohort, the key and what is expected, in whatever cohorts they are.

        Of two items with the same cohort and key, the later one counts.
        """

    def with_anonymous_ids(self, members: Sequence[Member]) -> Iterator[tuple[int, Member]]:
        """Yield the members with a uid that have the anonymous ids of these, each with its cohort.

        They are accepted or unconfirmed, and may come twice.
        """

    def elsewhere(self) -> list[int]:
        """Return which of the members that `known` was asked for last are new in their cohort.

        Only those that are accepted in another one; by their positions.
        """

    def queued(self, changes: Sequence[NumberedChange]) -> None:
        """Note changes on their way to a request; a member's last one counts."""

    def queue_known(self, actions: Sequence[Action]) -> None:
        """Note likewise a change of each member that `known` was asked for last."""

    def has_aliases(self) -> bool:
        """Return whether any cohort has aliases; cheap."""

    def stale_aliases(self) -> tuple[list[int], Iterator[CohortMembers]]:
        """Return the cohorts with aliases that no member has, and these; doubt their uids."""

    def doubt(self, cohorts: Sequence[int]) -> None:
        """Mark the accepted members of cohorts as unconfirmed, unless they are already."""

    def refuse_doubt(self, cohort: int, member: Member, *latest: int) -> RefusedDoubt | None:
        """See `CohortLedger.refuse_doubt`; `latest` are its timestamp and revision from now on."""

    def cohorts_with(self, members: Sequence[Member]) -> set[int]:
        """Return the cohorts that have a row of a member who shares an identifier with these."""

    def forget(self, members: Sequence[Member]) -> set[int]:
        """Erase them, to the last byte, and return those cohorts; the next open finishes it."""

    # Comparing

    def difference(
        self,
        staging: Staging,
        cohorts: Sequence[CohortLedger],
        *,
        keeps: bool = False,
        defers: bool = False,
        exclusive: bool = False,
        on_difference: Callable[[], object] = lambda: None,
    ) -> Difference:
        """Compare the rows of a snapshot with the ledgers of the cohorts that it is.

        `keeps` means to remove no members, as for one_time cohorts; `defers`, that approved
        removals are sent with the others; `exclusive`, that each member belongs to the
        cohort of its last row. `on_difference` is called as soon as it is known that any member
        differs.
        """

    def doubt_resent(self, difference: Difference, cohorts: Sequence[CohortLedger]) -> None:
        """Doubt the members that a difference sends again, before removals leave."""

    def settle(self, difference: Difference, *, complete: Sequence[CohortLedger]) -> None:
        """Apply the answers to a difference.

        For the `complete` cohorts forget the removals, and end the approvals that it has used.
        """

    # Plans

    def keep(self, plans: Sequence[tuple[CohortLedger, Plan]], difference: Difference) -> None:
        """Record plans with the changes that they have, in place of those with their ids."""

    def replace_plans(self, cohorts: Sequence[int]) -> None:
        """Note that newer rows of cohorts were read, so that their plans are outdated.

        Delete those that can no longer be approved. A read-only store does nothing.
        """
        if not self.read_only:
            for cohort, plan_id in self.plans.replace(cohorts):
                self.drop_plan_members([cohort], plan_id)

    def drop_plan(self, cohort: int, plan_id: str | None, *, ends_approvals: bool = False) -> None:
        """Delete a cohort's plans, or the one with an id; then its members. See `Plans.drop`."""
        self.plans.drop([(cohort, plan_id)], ends_approvals=ends_approvals)
        self.drop_plan_members([cohort], plan_id)

    def drop_plan_members(self, cohorts: Sequence[int], plan_id: str | None) -> None:
        """Delete the members of plans that control does not have."""

    # Moving

    def dump(self, directory: Path) -> Iterator[Path]:
        """Write the members to files in a directory, each of which exists until the next one."""

    def close(self) -> None:
        """Apply all recorded requests, write everything to disk and release the lease."""
