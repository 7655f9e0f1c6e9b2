"""Delivers the changes that an operator orders, outside a run."""

from __future__ import annotations

import typing as t
from collections import defaultdict

from target_moengage_cohort.core.errors import InputError
from target_moengage_cohort.core.interrupts import Interrupt
from target_moengage_cohort.core.membership import Change, Cohort
from target_moengage_cohort.delivery.delivery import Delivery, live_link
from target_moengage_cohort.delivery.ports import Callbacks, History, Timing

if t.TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from target_moengage_cohort.cli.session import Session
    from target_moengage_cohort.core.membership import Action, Member
    from target_moengage_cohort.ledger.interface import CohortLedger

Batches: t.TypeAlias = "Iterable[tuple[Action, Sequence[Member]]]"


class OperatorDelivery:
    """Sends requests inside a `with` block, and records each in the ledger of its cohort.

    After the block, even if an error ended it, no request is under way and `is_accepted` is final.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._interrupt = Interrupt()  # its own: the end of this delivery is not the command's
        session.interrupt.call_when_set(self._interrupt.set)
        if session.interrupt.is_set():
            self._interrupt.set()
        self._histories: dict[str, History] = {}
        self._submitted: dict[str, int] = {}
        self._rejected: defaultdict[str, list[str]] = defaultdict(list)
        self._delivery = Delivery(
            session.settings,
            live_link(session.settings, self._interrupt),
            Callbacks(lambda _state: None, self._note_rejection),
            interrupt=self._interrupt,
            timing=Timing(wall_clock=session.clock),
            histories=self._histories,
        )

    def __enter__(self) -> t.Self:
        """Start to send."""
        self._delivery.start()
        return self

    def __exit__(self, *_error: object) -> None:
        """Start no more requests, and wait some seconds for those under way."""
        if self._delivery.stop():
            self._interrupt.close()
        else:
            self._session.is_abandoned = True

    def send(self, ledger: CohortLedger, batches: Batches) -> None:
        """Submit changes of a cohort that has a ledger; raise the error of an earlier request."""
        history = History(ledger, ledger.last_timestamp, ledger.created)
        self._histories[ledger.entry.cohort_id] = history
        self.send_unrecorded(ledger.entry.cohort, batches)

    def send_unrecorded(self, cohort: Cohort, batches: Batches) -> None:
        """Submit changes of a cohort that has no ledger; otherwise like `send`."""
        count, latest = 0, None
        for action, members in batches:
            if self._interrupt.is_set():
                return
            if action is not latest:  # a removal must not follow an addition that was put later
                self._delivery.close(cohort.cohort_id)
            latest = action
            self._delivery.submit([Change(cohort, action, member) for member in members])
            count += len(members)
        self._submitted[cohort.cohort_id] = count  # only now: until here it is a part of them

    def drain(self) -> None:
        """Wait until all changes are accepted, or the command is interrupted.

        Raises:
            InputError: MoEngage rejected some members; all others were sent.
        """
        self._delivery.drain()
        if self._rejected:
            counts = "; ".join(
                f"{len(reasons)} of cohort {cohort_id!r} ({reasons[0]})"
                for cohort_id, reasons in self._rejected.items()
            )
            msg = f"MoEngage rejected {counts}; all others were sent"
            raise InputError("member_rejected", msg)

    def _note_rejection(
        self, cohort: Cohort, _action: Action, _member: Member, reason: str
    ) -> None:
        """Record why a member was rejected; return no error, so that the others are still sent."""
        self._rejected[cohort.cohort_id].append(reason)

    def is_accepted(self, cohort_id: str) -> bool:
        """Return whether all changes of a cohort were submitted and accepted."""
        counts = self._delivery.counts(cohort_id)
        return self._submitted.get(cohort_id) == counts.added + counts.removed + counts.merged
