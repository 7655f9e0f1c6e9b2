"""Changes on their way to the dispatcher; with a ledger, those that would change nothing stay.

What is expected of a member is the last change that was queued in this run, or else what the
ledger holds; so it is right also for what is queued or in flight.
"""

from __future__ import annotations

import typing as t
from collections import defaultdict

from target_moengage_cohort.core.membership import Action, Member
from target_moengage_cohort.ledger.records import Expected

if t.TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from target_moengage_cohort.core.membership import Change, Key
    from target_moengage_cohort.delivery.dispatcher import Dispatcher
    from target_moengage_cohort.ledger import Ledger, Ledgers
    from target_moengage_cohort.settings import Mapping
    from target_moengage_cohort.sync.cohorts import Cohorts

_HELD_BYTES_LIMIT = 1 << 20
_AT_ONCE = 2_000
_AT_ONCE_WITH_LEDGER = 20_000  # a look into a ledger costs the same for one member as for many


class Changes:
    """What the sinks of one run ask for, in stream order.

    Args:
        destinations: The cohorts of the run.
        dispatcher: Takes what is needed.
    """

    def __init__(self, destinations: Cohorts, dispatcher: Dispatcher) -> None:
        self._destinations = destinations
        self._dispatcher = dispatcher
        self._waiting: list[Change] = []
        self._states: list[tuple[int, bytes]] = []  # after how many of the changes each one came
        self._held_bytes = 0

    def put(self, *changes: Change) -> None:
        """Take changes.

        Raises:
            TargetError: A request has failed for good, or a ledger.
        """
        self._waiting += changes
        most = _AT_ONCE_WITH_LEDGER if self._destinations.ledgers else _AT_ONCE
        if len(self._waiting) >= most:
            self.submit()

    def state(self, value: bytes) -> None:
        """Take a STATE, which covers what was put before it.

        Raises:
            TargetError: A request has failed for good, or a ledger.
        """
        place = len(self._waiting)
        if self._states and self._states[-1][0] == place:
            self._held_bytes -= len(self._states.pop()[1])  # the newer one serves for both
        self._states.append((place, value))
        self._held_bytes += len(value)
        is_slow = bool(self._destinations.ledgers)  # one look for many STATEs, not one for each
        if not (place and is_slow) or self._held_bytes > _HELD_BYTES_LIMIT:
            self.submit()

    def submit(self) -> None:
        """Hand over what was taken.

        Raises:
            TargetError: A request has failed for good, or a ledger.
        """
        waiting, self._waiting = self._waiting, []
        states, self._states, self._held_bytes = self._states, [], 0
        changes = self._needed(waiting)
        begin = 0
        for end, value in states:
            self._hand_over(changes[begin:end])
            self._dispatcher.state(value)
            begin = end
        self._hand_over(changes[begin:])

    def _hand_over(self, changes: Sequence[Change | None]) -> None:
        if needed := [change for change in changes if change is not None]:
            self._dispatcher.submit(needed)

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
                    if not self._dispatcher.submit(changes):
                        return

    def _needed(self, changes: Sequence[Change]) -> Sequence[Change | None]:
        """Put ``None`` in place of what the cohorts' ledgers show to be done already."""
        if not self._destinations.ledgers:
            return changes
        found: list[Change | None] = [*changes]
        by_cohort: defaultdict[str, list[tuple[int, Change]]] = defaultdict(list)
        for place, change in enumerate(changes):
            by_cohort[change.cohort.cohort_id].append((place, change))
        for cohort_id, asked in by_cohort.items():
            destination = self._destinations.by_id[cohort_id]
            if destination.ledger is None:
                continue
            news = self._news(destination.ledger, [change for _, change in asked])
            for (place, _), new in zip(asked, news, strict=True):
                found[place] = None if new is None else destination.change(*new)
            destination.skipped += news.count(None)
        return found

    def _news(
        self, ledger: Ledger, changes: Sequence[Change]
    ) -> list[tuple[Action, Member] | None]:
        news = sift(changes, ledger.known([change.member for change in changes]))
        ledger.queued([new for new in news if new is not None])
        return news


def sift(
    changes: Iterable[Change], known: dict[Key, Expected]
) -> list[tuple[Action, Member] | None]:
    """Tell the changes that change anything from those that do not.

    Args:
        changes: In stream order.
        known: What is expected of their members; brought up to date. Who is not in it was never
            seen, so even a removal is needed.

    Returns:
        For each change, action and member, or ``None`` if it is not needed. A removal has the
        identifiers that were accepted.
    """
    found: list[tuple[Action, Member] | None] = []
    for change in changes:
        action, member, key = change.action, change.member, change.member.key
        expected = known.get(key)
        if expected is not None:
            same = action is Action.REMOVE or expected.member == member
            if expected.action is action and same:
                found.append(None)
                continue
            if action is Action.REMOVE and expected.member is not None:
                member = expected.member
        known[key] = Expected(action, member)
        found.append((action, member))
    return found
