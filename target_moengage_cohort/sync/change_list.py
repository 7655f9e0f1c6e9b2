"""Lists who would be added and removed by a dry run."""

from __future__ import annotations

import threading
import typing as t

import msgspec

from target_moengage_cohort.core.membership import Action, Member
from target_moengage_cohort.sync.mirror.recorder import NullRecorder

if t.TYPE_CHECKING:
    from collections.abc import Sequence

    from target_moengage_cohort.delivery.ports import Link
    from target_moengage_cohort.ledger.interface import LedgerStore
    from target_moengage_cohort.ledger.snapshot import Part
    from target_moengage_cohort.moengage.answers import Answer
    from target_moengage_cohort.sync.mirror.recorder import StreamPlan

ListChanges: t.TypeAlias = "t.Callable[[str, Action, Sequence[Member]], object]"
"""Takes changes of members of the cohort with an id; called by one thread at a time."""

_PARTS: tuple[tuple[Part, Action], ...] = (
    ("approved", Action.REMOVE),
    ("removals", Action.REMOVE),
    ("additions", Action.ADD),
)


class _Parameters(msgspec.Struct):
    cohort_id: str
    members: list[Member]


class _Body(msgspec.Struct):
    action: Action
    parameters: _Parameters


_decode = msgspec.json.Decoder(_Body).decode


class ListingRecorder(NullRecorder):
    """Lists the whole plans of mirrors, what is withheld of them, too, and requests of others."""

    def __init__(self, store: LedgerStore, list_changes: ListChanges) -> None:
        super().__init__(store)
        self._list = list_changes
        self._planned: set[str] = set()
        self._lock = threading.Lock()

    def keep(self, plan: StreamPlan) -> None:
        """List a plan, before any request of it would leave."""
        cohorts = {each.ledger.number: each.ledger.entry.cohort_id for each in plan.cohorts}
        with self._lock:
            self._planned.update(cohorts.values())
            for part, action in _PARTS:
                for number, members in plan.difference.changes(part):
                    if number in cohorts:
                        self._list(cohorts[number], action, members)

    def listing(self, link: Link) -> Link:
        """Return a link that lists the members of requests, unless a plan has them."""

        def send(data: bytes) -> Answer:
            body = _decode(data)
            cohort_id = body.parameters.cohort_id
            with self._lock:
                if cohort_id not in self._planned:
                    self._list(cohort_id, body.action, body.parameters.members)
            return link.send(data)

        return msgspec.structs.replace(link, send=send)
