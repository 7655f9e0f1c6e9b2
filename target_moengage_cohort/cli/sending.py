"""Has members added to and removed from cohorts on a person's word."""

from __future__ import annotations

import typing as t
from collections import defaultdict

from target_moengage_cohort.core.errors import InputError
from target_moengage_cohort.core.interrupts import Interrupt
from target_moengage_cohort.core.membership import Change, Cohort
from target_moengage_cohort.delivery.attempts import Callbacks, Timing
from target_moengage_cohort.delivery.checkpoints import Checkpoints
from target_moengage_cohort.delivery.dispatcher import Dispatcher
from target_moengage_cohort.delivery.pace import Pace
from target_moengage_cohort.moengage.transport import Client

if t.TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from types import TracebackType
    from typing import Self

    from target_moengage_cohort.cli.session import Session
    from target_moengage_cohort.core.errors import TargetError
    from target_moengage_cohort.core.membership import Action, Member
    from target_moengage_cohort.ledger import Ledger

Batches: t.TypeAlias = "Iterable[tuple[Action, Sequence[Member]]]"


class Sending:
    """Requests to MoEngage for the time of a `with` block, each of them in its cohort's ledger.

    After the block nothing is under way any more, and `is_accepted` tells what came of it; so it
    does if the block was left by an error.

    Args:
        session: The command.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._interrupt = Interrupt()  # its own: the end of this sending is not the command's
        session.interrupt.call_when_set(self._interrupt.set)
        if session.interrupt.is_set():
            self._interrupt.set()
        self._ledgers: dict[str, Ledger] = {}
        self._submitted: dict[str, int] = {}
        self._refused: defaultdict[str, list[str]] = defaultdict(list)
        self._pace = Pace(session.settings, self._interrupt.wait)
        self._dispatcher = Dispatcher(
            session.settings,
            callbacks=Callbacks(
                Client(session.settings).attempt, lambda _state: None, self._note_refusal
            ),
            pace=self._pace,
            checkpoints=Checkpoints(),
            interrupt=self._interrupt,
            timing=Timing(wall_clock=session.clock),
            ledgers=self._ledgers,
        )

    def __enter__(self) -> Self:
        """Start to send."""
        self._dispatcher.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Start no more requests, and wait for those under way, but not for long."""
        if self._dispatcher.stop():
            self._pace.close()
            self._interrupt.close()
        else:
            self._session.is_abandoned = True

    def send(self, ledger: Ledger, batches: Batches) -> None:
        """Send members of one cohort, as soon as the rate limit permits.

        Args:
            ledger: The cohort's.
            batches: What happens to whom.

        Raises:
            TargetError: A request has failed for good.
        """
        self._ledgers[ledger.entry.cohort_id] = ledger
        self.send_unrecorded(ledger.entry.cohort, batches)

    def send_unrecorded(self, cohort: Cohort, batches: Batches) -> None:
        """Send members of one cohort that has no ledger.

        Args:
            cohort: The cohort.
            batches: What happens to whom.

        Raises:
            TargetError: A request has failed for good.
        """
        count = 0
        for action, members in batches:
            if self._interrupt.is_set():
                return
            self._dispatcher.submit([Change(cohort, action, member) for member in members])
            count += len(members)
        self._submitted[cohort.cohort_id] = count  # only now: before, it was not all of them

    def drain(self) -> None:
        """Wait until all of it was answered, or until the command is interrupted.

        Raises:
            TargetError: A request has failed for good, or MoEngage has refused somebody.
        """
        self._dispatcher.drain()
        if self._refused:
            told = "; ".join(
                f"{len(reasons)} of the cohort {cohort_id!r} ({reasons[0]})"
                for cohort_id, reasons in self._refused.items()
            )
            msg = f"MoEngage refused {told}; all others were sent"
            raise InputError(msg)

    def _note_refusal(
        self, cohort: Cohort, _action: Action, _member: Member, reason: str
    ) -> TargetError | None:
        """Let the others be sent all the same."""
        self._refused[cohort.cohort_id].append(reason)
        return None

    def is_accepted(self, cohort_id: str) -> bool:
        """Whether all that there was to send for a cohort was sent, and accepted."""
        lane = self._dispatcher.lanes.get(cohort_id)
        accepted = 0 if lane is None else lane.added + lane.removed + lane.merged
        return self._submitted.get(cohort_id) == accepted
