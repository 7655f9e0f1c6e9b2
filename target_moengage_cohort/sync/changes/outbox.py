"""Changes on their way to delivery, without those that would have no effect.

What is expected of a member is the last change that was queued in this run, or else what the
ledger says. So it is right even while earlier changes are still queued or in flight.
"""

from __future__ import annotations

import itertools
import typing as t
from collections import defaultdict

from target_moengage_cohort.core.membership import Action, Change, SyncMode
from target_moengage_cohort.sync.changes.moves import Moves
from target_moengage_cohort.sync.changes.rounds import in_rounds, repeated
from target_moengage_cohort.sync.changes.sifting import Sifted, anonymous_twin, omit_linked, sift
from target_moengage_cohort.sync.segments.match_guard import MOST_COUNTED, spread

if t.TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from target_moengage_cohort.core.membership import Key, Member
    from target_moengage_cohort.delivery.delivery import Delivery
    from target_moengage_cohort.ledger.records import Expected
    from target_moengage_cohort.ledger.stream_ledger import NumberedKey, StreamLedger
    from target_moengage_cohort.settings import StreamMapping
    from target_moengage_cohort.sync.cohorts import Cohorts
    from target_moengage_cohort.sync.synced_cohort import SyncedCohort

_STATE_BYTES_LIMIT = 1 << 20
_BATCH = 2_000
_MOST_HELD = 100_000  # changes of new cohorts in memory
_BATCH_WITH_LEDGER = 50_000  # a look-up in a ledger takes as long for one member as for many


class Outbox:
    """The changes of all streams of a run, in stream order, with the STATEs between them.

    Attributes:
        staged: Returns at most so many staged members of the cohort with a number; for each mirror.
    """

    def __init__(self, cohorts: Cohorts, delivery: Delivery) -> None:
        self._cohorts = cohorts
        self._delivery = delivery
        self._changes: list[Change] = []
        self._states: list[tuple[int, bytes]] = []  # each with the number of changes before it
        self._state_bytes = 0
        self._held: list[Change] = []  # of cohorts that may not be created yet
        self._moves = Moves(cohorts, delivery)
        self._streams_held: set[str] = set()
        self._read: set[int] = set()  # the numbers of the cohorts of which changes were read
        self._has_pairs: set[str] = set()  # streams in which a member has both identifiers
        self.staged: dict[str, Callable[[int, int], list[Member]]] = {}

    def put(self, *changes: Change) -> None:
        """Take changes."""
        self._changes += changes
        batch = _BATCH_WITH_LEDGER if self._cohorts.ledgers else _BATCH
        if len(self._changes) >= batch:
            self.submit()
            if len(self._held) + len(self._moves.held) >= _MOST_HELD:
                # A mirror's changes are elsewhere.
                held = self._cohorts.admission.held.values()
                self.admit([each for each in held if not each.mapping.is_snapshot])

    def admit(self, cohorts: Sequence[SyncedCohort] | None = None) -> None:
        """Have new cohorts created, by default all of them, and pass on their changes."""
        self.submit()
        admission = self._cohorts.admission
        admission.admit([*admission.held.values()] if cohorts is None else cohorts, self._sample)
        changes, self._held = self._held, []
        self._pass_on_linking(*self._needed(changes))
        if moves := self._moves.take_held():
            completed = itertools.chain(*self._moves.complete(moves))
            self._pass_on_linking(*self._needed([*completed]))

    def _sample(self, cohorts: Sequence[SyncedCohort]) -> dict[SyncedCohort, list[Member]]:
        """Return some of the members that are to be added to cohorts that are held."""
        held: dict[str, dict[Key, Member]] = {each.cohort.cohort_id: {} for each in cohorts}
        for change in itertools.chain(self._held, self._moves.held):
            members = held.get(change.cohort.cohort_id, {})
            members.pop(change.member.key, None)
            if change.action is Action.ADD:
                members[change.member.key] = change.member
        return {
            each: self.staged[each.mapping.stream](each.number, MOST_COUNTED)
            if each.mapping.is_snapshot
            else spread(held[each.cohort.cohort_id].values(), MOST_COUNTED)
            for each in cohorts
        }

    def state(self, value: bytes) -> None:
        """Take a STATE, which covers the changes before it."""
        if streams := self._cohorts.unsent_streams - self._streams_held:
            self.submit()  # earlier STATEs are not held back
            for stream in streams:
                self._delivery.hold(stream)
            self._streams_held |= streams
        position = len(self._changes)
        if self._states and self._states[-1][0] == position:
            self._state_bytes -= len(self._states.pop()[1])  # the newer one covers both
        self._states.append((position, value))
        self._state_bytes += len(value)
        is_slow = bool(self._cohorts.ledgers)  # one look-up for many STATEs, not one for each
        if not (position and is_slow) or self._state_bytes > _STATE_BYTES_LIMIT:
            self.submit()

    def submit(self) -> None:
        """Pass on everything that was taken."""
        taken, self._changes = self._changes, []
        self._exclude(taken)
        states, self._states, self._state_bytes = self._states, [], 0
        if self._cohorts.exclusive_streams:
            completed = self._moves.complete(taken)
            ends = [0, *itertools.accumulate(map(len, completed))]
            taken = [*itertools.chain(*completed)]
            states = [(ends[position], value) for position, value in states]
        needed, linking = self._needed(taken)
        if linking:
            self._pass_on_linking(needed, linking)
            for _, value in states[-1:]:  # one for all rounds
                self._delivery.state(value)
            return
        start = 0
        for end, value in states:
            self._pass_on(needed[start:end])
            self._delivery.state(value)
            start = end
        self._pass_on(needed[start:])

    def _exclude(self, changes: list[Change]) -> None:
        """Put a removal in place of each addition of a member who belongs to no cohort."""
        uids = [change.member.uid for change in changes]
        anonymous_ids = [change.member.anonymous_id for change in changes]
        for index in self._cohorts.exclusions.find(uids, anonymous_ids):
            change = changes[index]
            if change.action is Action.ADD:
                changes[index] = Change(change.cohort, Action.REMOVE, change.member)
                self._cohorts.by_id[change.cohort.cohort_id].excluded += 1

    def _pass_on(self, changes: Sequence[Change | None]) -> None:
        if needed := [change for change in changes if change is not None]:
            self._delivery.submit(needed)

    def _pass_on_linking(self, changes: Sequence[Change | None], linking: Sequence[int]) -> None:
        """Pass on changes of which some turn anonymous members into aliases; see `rounds`."""
        linked = {t.cast("Change", changes[index]).cohort.cohort_id for index in linking}
        for some in in_rounds(changes, linking) if linking else [changes]:
            self._close(linked)  # earlier changes, too, may be of the same members
            self._pass_on(some)
        self._close(linked)

    def _close(self, cohort_ids: Iterable[str]) -> None:
        for cohort_id in cohort_ids:
            self._delivery.close(cohort_id)

    def settle(self, mapping: StreamMapping) -> None:
        """Remove a stream's aliases that no member has, and send its unconfirmed changes again.

        Changes that this run has replaced are not sent.
        """
        if mapping.sync_mode is not SyncMode.ADD and not self._remove_aliases(mapping):
            return
        if mapping.cohort is None:
            self._cohorts.meet_known(mapping, lambda entry: not entry.is_settled)
        for cohort in self._cohorts.of_stream(mapping.stream):
            if cohort.error is None and cohort.ledger and cohort.ledger.entry.counts.in_doubt:
                # In `add` the removals that were asked for before are finished, and no others made.
                refused = mapping.sync_mode is not SyncMode.ADD
                for doubts in cohort.ledger.doubts(refused=refused):
                    for action, some in itertools.groupby(doubts, lambda each: each[0]):
                        changes = [cohort.change(action, member) for _, member in some]
                        if not self._delivery.submit(changes):
                            return
                        if action is Action.REMOVE:  # it comes before the additions
                            self._delivery.close(cohort.cohort.cohort_id)

    def _remove_aliases(self, mapping: StreamMapping) -> bool:
        """Remove the aliases of a stream that no member has; return ``False`` if interrupted."""
        ledger = self._cohorts.ledger_of(mapping.stream)
        if ledger is None or not (mapping.stream in self._has_pairs or ledger.has_aliases()):
            return True
        self._close(each.cohort.cohort_id for each in self._cohorts.of_stream(mapping.stream))
        for cohort in self._cohorts.of_stream(mapping.stream):
            if not self._delivery.finish(cohort.cohort.cohort_id):
                return False
        numbers, aliases = ledger.stale_aliases()
        if numbers:
            self._cohorts.meet_known(mapping, lambda entry: entry.number in numbers)
        cohorts = {each.number: each for each in self._cohorts.of_stream(mapping.stream)}
        for number, members in aliases:
            if number not in cohorts or cohorts[number].error is not None:  # it is withheld
                continue
            change = cohorts[number].change
            if not self._delivery.submit([change(Action.REMOVE, member) for member in members]):
                return False
        for number in cohorts.keys() & numbers:  # the members that are sent again must come last
            self._delivery.close(cohorts[number].cohort.cohort_id)
        return True

    def _needed(self, changes: Sequence[Change]) -> tuple[Sequence[Change | None], list[int]]:
        """Put ``None`` in place of each change that is not to be sent now.

        The cohort's ledger shows it to be done, or the cohort is held or has an error. Return also
        the positions of those that turn an anonymous member into an alias.
        """
        if not (self._cohorts.ledgers or self._cohorts.unsent_streams):
            return changes, []
        needed: list[Change | None] = [*changes]
        linking: list[int] = []
        by_stream: defaultdict[StreamLedger, list[int]] = defaultdict(list)
        for index, change in enumerate(changes):
            cohort = self._cohorts.by_id[change.cohort.cohort_id]
            if self._keeps_back(cohort, change):
                needed[index] = None
            elif cohort.ledger is not None:
                by_stream[cohort.ledger.stream].append(index)
        for stream, indexes in by_stream.items():
            some = [changes[index] for index in indexes]
            sifted = self._sift_by_ledger(stream, some)
            if sifted is not None:
                for index, kept in zip(indexes, self._kept(some, sifted), strict=True):
                    needed[index] = kept
                linking += [i for i in map(indexes.__getitem__, sifted.linking) if needed[i]]
            stream.fold_if_large()
        return needed, linking

    def _kept(self, changes: Sequence[Change], sifted: Sifted) -> list[Change | None]:
        """Return the changes of a stream that are sent, and count the others."""
        kept: list[Change | None] = []
        for change, needed in zip(changes, sifted.changes, strict=True):
            if needed is None or needed[2] is change.member:
                kept.append(needed and change)
            else:
                cohort = self._cohorts.by_id[change.cohort.cohort_id]
                kept.append(cohort.change(*needed[1:]))
        for position in repeated(kept) if sifted.linking else ():
            kept[position] = None
        for change, one in zip(changes, kept, strict=True):
            self._cohorts.by_id[change.cohort.cohort_id].skipped += one is None
        return kept

    def _keeps_back(self, cohort: SyncedCohort, change: Change) -> bool:
        """Return whether a change is not to be sent now; keep it if its cohort is held."""
        if cohort.is_held:
            self._held.append(change)
        return cohort.is_held or cohort.error is not None

    def _sift_by_ledger(self, stream: StreamLedger, changes: Sequence[Change]) -> Sifted | None:
        """Return the changes that are needed; ``None`` if all are needed as they are."""
        ledgers = self._cohorts.ledgers
        numbers = [ledgers[change.cohort.cohort_id].number for change in changes]
        members = [change.member for change in changes]
        if fresh := {*numbers} - self._read:
            stream.replace_plans(sorted(fresh))  # now, because STATE may pass rows without requests
            self._read |= fresh
        actions = [change.action for change in changes]
        twins = self._anonymous_twins(stream, changes, numbers)
        expected = stream.known(numbers, members)
        self._warn_of_others(stream, changes)
        keys = {(number, member.key) for number, member in zip(numbers, members, strict=True)}
        is_new = len(keys) == len(changes) and keys.isdisjoint(twins)
        if not expected and is_new and not any(twins.values()):  # new members, each one once
            stream.queue_known(actions)
            return None
        expected |= {key: each for key, each in twins.items() if each is not None}
        asked = [*zip(numbers, actions, members, strict=True)]
        sifted = sift(omit_linked(asked, expected) if twins else asked, expected)
        if needed := [change for change in sifted.changes if change is not None]:
            stream.queued([*needed, *sifted.aliases.values()])
        return sifted

    def _anonymous_twins(
        self, stream: StreamLedger, changes: Sequence[Change], numbers: Sequence[int]
    ) -> dict[NumberedKey, Expected | None]:
        """Return what is expected of the anonymous ids that go with uids, by their own keys.

        In `add`, which removes no aliases, nothing is.
        """
        twins = {
            (number, twin.key): twin
            for number, change in zip(numbers, changes, strict=True)
            if (twin := anonymous_twin(change.member)) is not None
        }
        if not twins:
            return {}
        mapping = self._cohorts.by_id[changes[0].cohort.cohort_id].mapping
        self._has_pairs.add(mapping.stream)
        if mapping.sync_mode is SyncMode.ADD:
            return {}
        expected = stream.known([number for number, _ in twins], [*twins.values()])
        return {key: expected.get(key) for key in twins}

    def _warn_of_others(self, stream: StreamLedger, changes: Sequence[Change]) -> None:
        """Count new members that another cohort has, unless the mapping states what that means."""
        mapping = self._cohorts.by_id[changes[0].cohort.cohort_id].mapping
        if mapping.cohort is None and mapping.exclusive is None:
            adding = [changes[index].action is Action.ADD for index in stream.elsewhere()]
            self._cohorts.row_warnings.count("also_in_others", mapping.stream, sum(adding))
