"""Members of exclusive streams: an addition to one cohort removes them from the others.

The removals are put before their addition and belong to the same row. So STATE covers the row once
all of them are accepted. They are found in the ledger even if the addition was accepted before: a
run that was killed between the two is completed when the row is read again. The requests of
different cohorts overlap, so a member may be in both cohorts for a moment, or in neither.
"""

from __future__ import annotations

import typing as t
from collections import defaultdict

from target_moengage_cohort.core.membership import Action, Change, Member

if t.TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from target_moengage_cohort.core.membership import Key
    from target_moengage_cohort.delivery.delivery import Delivery
    from target_moengage_cohort.ledger.stream_ledger import StreamLedger
    from target_moengage_cohort.settings import StreamMapping
    from target_moengage_cohort.sync.cohorts import Cohorts
    from target_moengage_cohort.sync.synced_cohort import SyncedCohort


class Moves:
    """Adds the removals that the additions of exclusive streams imply.

    Attributes:
        held: Changes that must wait until new cohorts are created. Once one waits, all later ones
            of its stream do: a member's changes must stay in order across cohorts.
    """

    def __init__(self, cohorts: Cohorts, delivery: Delivery) -> None:
        self._cohorts = cohorts
        self._delivery = delivery
        self._waiting: set[str] = set()  # the streams of which changes are held
        self.held: list[Change] = []

    def take_held(self) -> list[Change]:
        """Return the changes that were held, and hold them no more."""
        held, self.held = self.held, []
        self._waiting.clear()
        return held

    def complete(self, changes: Sequence[Change]) -> list[list[Change]]:
        """Return for each change those to send in its place, in order."""
        completed = [[change] for change in changes]
        by_stream: defaultdict[str, list[int]] = defaultdict(list)
        for index, change in enumerate(changes):
            cohort = self._cohorts.by_id[change.cohort.cohort_id]
            stream = cohort.mapping.stream
            if not cohort.mapping.exclusive:
                continue
            if cohort.error is not None:
                completed[index] = []
            elif cohort.is_held or stream in self._waiting:
                completed[index] = []
                self._waiting.add(stream)
                self.held.append(change)
            else:
                by_stream[stream].append(index)
        for indexes in by_stream.values():
            moved = self._move([changes[index] for index in indexes])
            for index, each in zip(indexes, moved, strict=True):
                completed[index] = each
        return completed

    def _move(self, changes: Sequence[Change]) -> list[list[Change]]:
        """Put before each addition the removals from the stream's other cohorts."""
        first = self._cohorts.by_id[changes[0].cohort.cohort_id]
        ledger = t.cast("StreamLedger", first.ledger.stream if first.ledger else None)
        # The numbers of the cohorts that may have each member, with its identifiers there.
        places: defaultdict[Key, dict[int, Member | None]] = defaultdict(dict)
        asked = [each for change in changes for each in _same_person(change.member)]
        for number, key, expected in ledger.known_anywhere(asked):
            if expected.action is Action.REMOVE:
                places[key].pop(number, None)
            else:
                places[key][number] = expected.member
        cohorts = self._reach(first.mapping, {each for there in places.values() for each in there})
        completed: list[list[Change]] = []
        for change in changes:
            number = self._cohorts.by_id[change.cohort.cohort_id].number
            removals: list[Change] = []
            if change.action is Action.ADD:
                for member in _same_person(change.member):
                    there = places[member.key]
                    for other in there.keys() & cohorts.keys() - {number}:
                        gone = there.pop(other) or member
                        removals.append(cohorts[other].change(Action.REMOVE, gone))
                places[change.member.key][number] = change.member
            else:
                places[change.member.key].pop(number, None)
            completed.append([*removals, change])
        return completed

    def _reach(self, mapping: StreamMapping, numbers: set[int]) -> dict[int, SyncedCohort]:
        """Return those of a stream's cohorts that something can be sent for, by number.

        If that excludes any, no STATE is written before the stream is settled.
        """
        met = {each.number for each in self._cohorts.of_stream(mapping.stream)}
        if missing := numbers - met:
            self._cohorts.meet_known(mapping, lambda entry: entry.number in missing)
        reached = {
            each.number: each
            for each in self._cohorts.of_stream(mapping.stream)
            if each.error is None
        }
        if numbers - reached.keys():
            self._delivery.hold(mapping.stream)
        return reached


def _same_person(member: Member) -> Iterable[Member]:
    """Return a member, and the anonymous member that it was before it had a uid."""
    if member.uid is not None and member.anonymous_id is not None:
        return member, Member(None, member.anonymous_id)
    return (member,)
