"""Delivers the changes that an operator requests outside a run."""

from __future__ import annotations

import typing as t
from collections import defaultdict

from target_moengage_cohort.core.errors import CohortError, InputError, WithheldError
from target_moengage_cohort.core.interrupts import Interrupt
from target_moengage_cohort.core.membership import Action, Change, Cohort, Member
from target_moengage_cohort.core.text import format_count
from target_moengage_cohort.delivery.delivery import Delivery, live_link
from target_moengage_cohort.delivery.ports import Callbacks, Timing

if t.TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from target_moengage_cohort.cli.session import Session
    from target_moengage_cohort.delivery.ports import Refusal
    from target_moengage_cohort.ledger.cohort_ledger import CohortRecord
    from target_moengage_cohort.ledger.records import CohortEntry

Batches: t.TypeAlias = "Iterable[tuple[Action, Sequence[Member]]]"


class OperatorDelivery:
    """Delivers changes once, and records each request in the ledger of its cohort, if it has one.

    After `deliver`, even if an error ended it, no request is under way and `is_accepted` is final.
    Nothing more is sent for a cohort once there is a `refusal`.
    """

    def __init__(self, session: Session, refusal: Refusal = lambda _cohort: None) -> None:
        self._session = session
        self._interrupt = Interrupt()  # its own: the end of this delivery is not the command's
        session.interrupt.call_when_set(self._interrupt.set)
        if session.interrupt.is_set():
            self._interrupt.set()
        self._ledgers: dict[str, CohortRecord] = {}
        self._submitted: dict[str, int | None] = {}
        self._owners: dict[str, Cohort | CohortEntry] = {}
        rejected: defaultdict[str, list[str]] = defaultdict(list)
        self._rejected = rejected
        self._refused: list[CohortError] = []
        self._delivery = Delivery(
            session.settings,
            live_link(session.settings, self._interrupt, session.store),
            Callbacks(
                lambda _state: None,
                # It returns no error, so that the others are still sent.
                lambda cohort, _action, _member, reason: rejected[cohort.cohort_id].append(reason),
                self._fail,
                refusal,
            ),
            interrupt=self._interrupt,
            timing=Timing(wall_clock=session.clock),
            ledgers=self._ledgers,
        )

    def deliver(self, orders: Iterable[tuple[Cohort | CohortRecord, Batches]]) -> bool:
        """Send changes of cohorts; return whether all are accepted, or else it was interrupted.

        Raises:
            InputError: MoEngage rejected some members, or all of a cohort; all others were sent.
            WithheldError: There was a refusal.
        """
        self._delivery.start()
        try:
            for owner, batches in orders:
                self._submit(owner, batches)
            self._delivery.drain()
        finally:  # start no more requests, and wait some seconds for those under way
            if self._delivery.stop():
                self._interrupt.close()
            else:
                self._session.is_abandoned = True
            self._report()
        if self._refused:
            error = self._refused[0]
            if isinstance(error, WithheldError):
                raise error
            raise InputError(error.code, "; ".join(map(str, self._refused)))
        if self._rejected:
            counts = "; ".join(
                f"{format_count(len(reasons), 'member')} of cohort {cohort_id!r} ({reasons[0]})"
                for cohort_id, reasons in self._rejected.items()
            )
            msg = f"MoEngage rejected {counts}; all others were sent"
            raise InputError("member_rejected", msg)
        return all(map(self.is_accepted, self._submitted))

    def _fail(self, _cohort: Cohort, error: CohortError) -> None:
        self._refused.append(error)

    def _report(self) -> None:
        """Add the results to the command's report."""
        report = self._session.report
        report.add(self._delivery.totals)
        for cohort_id, owner in self._owners.items():
            counts, is_accepted = self._delivery.counts(cohort_id), self.is_accepted(cohort_id)
            report.note_delivery(owner, counts, is_accepted=is_accepted)

    def _submit(self, owner: Cohort | CohortRecord, batches: Batches) -> None:
        cohort = owner if isinstance(owner, Cohort) else owner.entry.cohort
        self._owners[cohort.cohort_id] = owner if isinstance(owner, Cohort) else owner.entry
        if not isinstance(owner, Cohort):
            self._ledgers[cohort.cohort_id] = owner
        self._submitted[cohort.cohort_id], count, latest = None, 0, None
        for action, members in batches:
            if self._interrupt.is_set():
                return
            if action is not latest:  # no addition may overtake a removal
                self._delivery.close(cohort.cohort_id)
            latest = action
            self._delivery.submit([Change(cohort, action, member) for member in members])
            count += len(members)
        self._submitted[cohort.cohort_id] = count  # only now: until here it was incomplete

    def is_accepted(self, cohort_id: str) -> bool:
        """Return whether all changes of a cohort were submitted and accepted."""
        counts = self._delivery.counts(cohort_id)
        return self._submitted.get(cohort_id) == counts.added + counts.removed + counts.merged
