"""The workspace: its cohorts, and what becomes of each change."""

from __future__ import annotations

import typing as t

import msgspec

from .roster import Cohort, Late
from .rules import is_good_name

if t.TYPE_CHECKING:
    from .model import CohortSummary, CohortSync, DropReason, RequestRecord
    from .options import Options
    from .registry import Registry

Key = tuple[str, str]


class Workspace:
    """All cohorts of one workspace.

    Args:
        options: The emulator's options.
        registry: The names of all segments.
    """

    def __init__(self, options: Options, registry: Registry) -> None:
        self._order = options.order
        self._late_after = options.late_after or 0
        self._options = options
        self._registry = registry
        self._cohorts: dict[Key, Cohort] = {}
        self._by_id: dict[str, Cohort] = {}
        self._merges = options.merges
        self.users: dict[str, str] = {}  # of merged anonymous ids

    def receive(
        self, sync: CohortSync, arrived: int, record: RequestRecord, *, cut_off: bool
    ) -> None:
        """Pass a valid request to its cohort, and note the outcome in the record.

        Args:
            sync: The request.
            arrived: Its arrival in microseconds since the epoch; used if it has no timestamp.
            record: Its entry in the log.
            cut_off: Whether its sender gets no answer, or a 5xx.
        """
        cohort = self._open(sync, record.arrived_at)
        if not isinstance(cohort, Cohort):
            record.outcome, record.dropped = "dropped", cohort
            return
        cohort.sent_name = sync.cohort_name
        if self._merges:
            sync = self._merged(sync)
        for late in cohort.late:
            late.wait -= 1
        moment = arrived if sync.moment is None else sync.moment
        if cut_off and self._late_after:
            record.outcome = "late"
            cohort.apply_late(self._order, lambda late: late.wait <= 0)
            cohort.late.append(Late(sync, moment, record, self._late_after))
            return
        cohort.take(sync, moment, self._order, record)
        cohort.apply_late(self._order, lambda late: late.wait <= 0)

    def _merged(self, sync: CohortSync) -> CohortSync:
        """Merge the users of a request, in all cohorts; return it with uids for what is merged."""
        for uid, anonymous_id in sync.by_uid.items():
            if anonymous_id is not None:
                self.users.setdefault(anonymous_id, uid)
        for cohort in self._cohorts.values():
            cohort.merge(self.users)
        known = sync.by_anonymous_id.keys() & self.users.keys()
        users = {self.users[each]: each for each in known}
        others = {each: None for each in sync.by_anonymous_id if each not in known}
        return msgspec.structs.replace(sync, by_uid=users | sync.by_uid, by_anonymous_id=others)

    def apply_late(self, cohort_id: str | None = None, partner: str | None = None) -> int:
        """Apply all changes that are held back.

        Args:
            cohort_id: Only in this cohort.
            partner: Only in this partner's cohorts.

        Returns:
            The number of changes.
        """
        return sum(
            cohort.apply_late(self._order, lambda _: True)
            for cohort in self._cohorts.values()
            if cohort_id in {None, cohort.cohort_id} and partner in {None, cohort.partner}
        )

    def cohorts(self) -> list[CohortSummary]:
        """Return all cohorts, in the order of their creation."""
        return [cohort.summary() for cohort in self._cohorts.values()]

    def find(self, cohort_id: str, partner: str | None = None) -> Cohort | None:
        """Return a cohort, or None if it does not exist.

        Args:
            cohort_id: Its identifier.
            partner: Its partner; may be left out if only one partner uses the identifier.

        Raises:
            LookupError: If several partners have a cohort with this identifier.
        """
        matches = [
            cohort
            for cohort in self._cohorts.values()
            if cohort.cohort_id == cohort_id and partner in {None, cohort.partner}
        ]
        if len(matches) > 1:
            msg = f"{len(matches)} partners have a cohort {cohort_id!r}: specify the partner"
            raise LookupError(msg)
        return matches[0] if matches else None

    def by_segment_id(self) -> dict[str, Cohort]:
        """Return the cohorts by their ids as segments."""
        return self._by_id

    def _open(self, sync: CohortSync, now: float) -> Cohort | DropReason:
        """Find or create a request's cohort, or return why MoEngage would drop the request."""
        if not is_good_name(sync.cohort_name):
            return "cohort_name"
        key = (sync.partner, sync.cohort_id)
        cohort, taken = self._cohorts.get(key), self._registry.named(sync.cohort_name)
        if taken is not None and (cohort is None or cohort.head is not taken):
            return "name_taken"
        if cohort is None:
            if (head := self._registry.add(sync.cohort_name, "cohort", now)) is None:
                return "segment_limit"
            lag = self._options.processing_seconds
            cohort = self._cohorts[key] = self._by_id[head.id] = Cohort(sync, head, lag)
        elif not self._options.applies_to_archived:
            self._registry.active(now)  # archives old ones
            if cohort.head.is_archived:
                return "archived"
        return cohort
