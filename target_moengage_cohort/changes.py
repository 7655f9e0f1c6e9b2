"""Changes on their way to the dispatcher; with a ledger, those that would change nothing stay.

What is expected of a member is the last change that was queued in this run, or else what the
ledger holds; so it is right also for what is queued or in flight.
"""

from __future__ import annotations

import typing as t
from collections import defaultdict

from target_moengage_cohort.ledger.records import Known
from target_moengage_cohort.membership import Action, Member

if t.TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from target_moengage_cohort.delivery.dispatcher import Dispatcher
    from target_moengage_cohort.ledger import Ledger, Ledgers
    from target_moengage_cohort.membership import Change, Key
    from target_moengage_cohort.settings import Mapping
    from target_moengage_cohort.sinks import Destination, Destinations

_AT_ONCE = 2_000
_AT_ONCE_WITH_LEDGER = 20_000  # a look into a ledger costs the same for one member as for many


class Changes:
    """What the sinks of one run ask for, in stream order.

    Args:
        destinations: The cohorts of the run.
        dispatcher: Takes what is needed.
    """

    def __init__(self, destinations: Destinations, dispatcher: Dispatcher) -> None:
        self._destinations = destinations
        self._dispatcher = dispatcher
        self._waiting: list[Change] = []

    def put(self, change: Change) -> None:
        """Take a change.

        Raises:
            TargetError: A request has failed for good, or a ledger.
        """
        self._waiting.append(change)
        most = _AT_ONCE_WITH_LEDGER if self._destinations.ledgers else _AT_ONCE
        if len(self._waiting) >= most:
            self.submit()

    def submit(self) -> None:
        """Hand over what was taken.

        Raises:
            TargetError: A request has failed for good, or a ledger.
        """
        if not self._waiting:
            return
        changes, self._waiting = self._waiting, []
        if self._destinations.ledgers:
            changes = self._needed(changes)
        self._dispatcher.submit(changes)

    def repeat_doubts(self, ledgers: Ledgers, mappings: Iterable[Mapping]) -> None:
        """Send again what an earlier run left in doubt, and no newer change has replaced.

        Args:
            ledgers: The ledgers of the destination.
            mappings: The streams of the run that are no snapshots.

        Raises:
            TargetError: A request has failed for good, or a ledger.
        """
        streams = {mapping.stream: mapping for mapping in mappings}
        for entry in ledgers.entries() if streams else []:
            mapping = streams.get(entry.stream)
            if mapping is not None and mapping.cohort is None and not entry.is_settled:
                self._destinations.of_entry(entry, mapping)
        for destination in list(self._destinations.by_id.values()):
            if destination.mapping.stream in streams and destination.ledger is not None:
                for doubts in destination.ledger.doubts():
                    changes = [destination.change(action, member) for action, member in doubts]
                    self._dispatcher.submit(changes)

    def _needed(self, changes: Sequence[Change]) -> list[Change]:
        """Leave out what the cohorts' ledgers show to be done already."""
        found: list[Change] = []
        by_cohort: defaultdict[str, list[Change]] = defaultdict(list)
        for change in changes:
            by_cohort[change.cohort.cohort_id].append(change)
        for cohort_id, asked in by_cohort.items():
            destination = self._destinations.by_id[cohort_id]
            if destination.ledger is None:
                found += asked
            else:
                needed = self._news(destination, destination.ledger, asked)
                destination.skipped += len(asked) - len(needed)
                found += needed
        return found

    def _news(
        self, destination: Destination, ledger: Ledger, changes: Sequence[Change]
    ) -> list[Change]:
        known = ledger.known([_member(change) for change in changes])
        news = sift(changes, known)
        ledger.queued(news)
        return [destination.change(action, member) for action, member in news]


def sift(changes: Iterable[Change], known: dict[Key, Known]) -> list[tuple[Action, Member]]:
    """Take the changes that change anything.

    Args:
        changes: In stream order.
        known: What is expected of their members; brought up to date. Who is not in it was never
            seen, so even a removal is sent.

    Returns:
        Action and member of each that is needed, in order. A removal has the identifiers that
        were accepted.
    """
    needed = []
    for change in changes:
        action, member = change.action, _member(change)
        expected = known.get(change.key)
        if expected is not None:
            same = action is Action.REMOVE or expected.member == member
            if expected.action is action and same:
                continue
            if action is Action.REMOVE and expected.member is not None:
                member = expected.member
        known[change.key] = Known(action, member)
        needed.append((action, member))
    return needed


def _member(change: Change) -> Member:
    uid = change.key if isinstance(change.key, str) else None
    return Member(uid, change.anonymous_id)
