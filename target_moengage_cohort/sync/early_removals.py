"""Removes the excluded members that a ledger has, before anything else of their stream is sent.

These removals are explicit, so the mirror's guard does not count them. But a wrong file,
such as a list of all customers, would empty every cohort: as many as look like that need a person.
"""

from __future__ import annotations

import typing as t
from collections import Counter

from target_moengage_cohort.core.commands import EXAMPLE_CSV, suggest
from target_moengage_cohort.core.errors import WithheldError
from target_moengage_cohort.core.membership import Action
from target_moengage_cohort.sync.mirror.guard import ALWAYS_ALLOWED_REMOVALS

if t.TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from target_moengage_cohort.core.membership import Member
    from target_moengage_cohort.delivery.delivery import Delivery
    from target_moengage_cohort.ledger.records import CohortEntry
    from target_moengage_cohort.ledger.stream_ledger import StreamLedger
    from target_moengage_cohort.settings import StreamMapping
    from target_moengage_cohort.sync.changes.outbox import Outbox
    from target_moengage_cohort.sync.cohorts import Cohorts
    from target_moengage_cohort.sync.synced_cohort import SyncedCohort

_ALL = 100


class EarlyRemovals:
    """The removals of excluded members, stream by stream.

    Args:
        cohorts: The run's cohorts.
        delivery: Sends the removals of mirrors, which must be accepted before rows are compared.
        outbox: Sends those of other streams, in front of their changes.
        are_sent: Whether mirrors' are sent; a dry run has them in its plan.
    """

    def __init__(
        self, cohorts: Cohorts, delivery: Delivery, outbox: Outbox, *, are_sent: bool
    ) -> None:
        self._cohorts, self._delivery, self._outbox = cohorts, delivery, outbox
        self._are_sent = are_sent

    def send(self, mapping: StreamMapping) -> None:
        """Remove the excluded members of a stream's cohorts.

        Raise a `WithheldError` if they are so many of a cohort that the file may be wrong.
        """
        exclusions = self._cohorts.exclusions
        exclusions.load()
        ledger = self._cohorts.ledger_of(mapping.stream) if exclusions.is_active else None
        if ledger is None:
            return
        counts = Counter(
            number
            for page in self._known(ledger)
            for number, _ in page
            if _is_populated(mapping, ledger.by_number[number].entry)
        )
        if not counts:
            return
        for number, count in counts.items():
            _check(mapping, ledger.by_number[number].entry, count)
        cohorts = self._reach(mapping, counts)
        for page in self._known(ledger):
            self._submit(mapping, [each for each in page if each[0] in cohorts], cohorts)
        if mapping.is_snapshot:
            for cohort in cohorts.values():
                self._delivery.close(cohort.cohort.cohort_id)
            if all(self._delivery.finish(each.cohort.cohort_id) for each in cohorts.values()):
                ledger.fold()

    def _known(self, ledger: StreamLedger) -> Iterator[list[tuple[int, Member]]]:
        """Yield the excluded members that a ledger has, each with its cohort's number."""
        for members in self._cohorts.exclusions.pages():
            given = {member.key: member for member in members}
            found: dict[tuple[int, t.Any], Member | None] = {}
            for number, key, expected in ledger.known_anywhere(members):
                is_gone = expected.action is Action.REMOVE
                found[number, key] = None if is_gone else (expected.member or given[key])
            known = [
                (number, member) for (number, _), member in found.items() if member is not None
            ]
            yield known + self._owners(ledger, members)

    def _owners(self, ledger: StreamLedger, members: Sequence[Member]) -> list[tuple[int, Member]]:
        """Return the members with a uid that are excluded by their anonymous id alone."""
        found = {(number, each.key): each for number, each in ledger.with_anonymous_ids(members)}
        named = {*self._cohorts.exclusions.find([each.uid for each in found.values()], ())}
        return [
            (number, member)
            for index, ((number, _), member) in enumerate(found.items())
            if index not in named
        ]

    def _reach(self, mapping: StreamMapping, counts: Counter[int]) -> dict[int, SyncedCohort]:
        """Return the cohorts of a stream that something can be sent for, by number."""
        if mapping.cohort is None:
            self._cohorts.meet_known(mapping, lambda entry: entry.number in counts)
        else:
            self._cohorts.meet(mapping.cohort, mapping)
        return {
            each.number: each
            for each in self._cohorts.of_stream(mapping.stream)
            if each.number in counts and each.error is None and not each.is_closed
        }

    def _submit(
        self,
        mapping: StreamMapping,
        members: list[tuple[int, Member]],
        cohorts: dict[int, SyncedCohort],
    ) -> None:
        changes = [cohorts[number].change(Action.REMOVE, member) for number, member in members]
        if not mapping.is_snapshot:
            self._outbox.put(*changes)
            self._outbox.submit()
        elif self._are_sent and changes:
            self._delivery.submit(changes)


def _is_populated(mapping: StreamMapping, entry: CohortEntry) -> bool:
    """Return whether the stream may still send anything for a cohort."""
    is_own = mapping.cohort is None or mapping.cohort.cohort_id == entry.cohort_id
    return is_own and not (entry.is_sealed or entry.is_retired)


def _check(mapping: StreamMapping, entry: CohortEntry, count: int) -> None:
    """Raise a `WithheldError` if so many of a cohort are excluded that the file may be wrong."""
    percent, base = mapping.max_removal_percent, entry.counts.base
    if count > max(base * percent // _ALL, ALWAYS_ALLOWED_REMOVALS):
        msg = (
            f"stream {mapping.stream!r}: exclude_path lists {count:,} of the {base:,} members of "
            f"cohort {entry.cohort_id!r}, more than max_removal_percent {percent}, so nothing is "
            "sent for the stream. Check the file. If it is right, remove them from all cohorts "
            f"with: {suggest('forget', EXAMPLE_CSV)}"
        )
        raise WithheldError("too_many_excluded", msg)
