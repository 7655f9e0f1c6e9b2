"""The workspace: its cohorts, their members, and the order in which changes count."""

from __future__ import annotations

import typing as t

import msgspec

from .model import Action, CohortSummary, CohortSync, DropReason, Member, RequestRecord
from .options import Order
from .rules import is_good_name

Key = tuple[str, str]


class _Roster:
    """The members of a cohort in one name space: identifier → the other identifier."""

    def __init__(self) -> None:
        self.members: dict[str, str | None] = {}
        self._written: dict[str, int] = {}

    def change(self, action: Action, incoming: dict[str, str | None]) -> int:
        """Apply a change and return how many members were added or removed."""
        if action == "add_members":
            new = {key: incoming[key] for key in incoming if key not in self.members}
            self.members.update(new)
            return len(new)
        leaving = incoming.keys() & self.members.keys()
        for key in leaving:
            del self.members[key]
        return len(leaving)

    def change_if_newer(
        self,
        action: Action,
        incoming: dict[str, str | None],
        moment: int,
        *,
        newest: bool,
    ) -> int:
        """Apply a change to those members that no newer change has written."""
        if not newest:
            written = self._written
            incoming = {k: incoming[k] for k in incoming if written.get(k, moment) <= moment}
        self._written.update(dict.fromkeys(incoming, moment))
        return self.change(action, incoming)


class _Late(msgspec.Struct):
    """A change that is held back for a number of further requests of its cohort."""

    sync: CohortSync
    moment: int
    record: RequestRecord
    wait: int


class Cohort:
    """A segment that one partner syncs under one identifier.

    Args:
        first: The request that created it; later names and descriptions don't change it.
    """

    def __init__(self, first: CohortSync) -> None:
        self.partner = first.partner
        self.cohort_id = first.cohort_id
        self.name = first.cohort_name
        self.description = first.cohort_description
        self.late: list[_Late] = []
        self._uids = _Roster()
        self._anonymous_ids = _Roster()
        self._newest: int | None = None

    def __len__(self) -> int:
        return len(self._uids.members) + len(self._anonymous_ids.members)

    def summary(self) -> CohortSummary:
        """Return the cohort's summary."""
        return CohortSummary(
            partner=self.partner,
            cohort_id=self.cohort_id,
            name=self.name,
            description=self.description,
            members=len(self),
            late=len(self.late),
        )

    def snapshot(self) -> t.Iterator[Member]:
        """Iterate over the members of this moment, unaffected by later changes.

        Returns:
            Those with a uid first, each kind in the order in which they were added.
        """
        uids = list(self._uids.members.items())
        anonymous_ids = list(self._anonymous_ids.members)

        def members() -> t.Iterator[Member]:
            for uid, anonymous_id in uids:
                yield Member(uid, anonymous_id)
            for anonymous_id in anonymous_ids:
                yield Member(None, anonymous_id)

        return members()

    def take(self, sync: CohortSync, moment: int, order: Order, record: RequestRecord) -> None:
        """Apply or drop a change, depending on the order, and note it in the record."""
        newest = self._newest is None or moment >= self._newest
        if order is Order.DROP_OLDER and not newest:
            record.outcome, record.dropped = "dropped", "older"
            return
        self._newest = moment if newest else self._newest
        record.outcome = "applied_late" if record.outcome == "late" else "applied"
        rosters = (self._uids, sync.by_uid), (self._anonymous_ids, sync.by_anonymous_id)
        for roster, incoming in rosters:
            if order is Order.LAST_WRITER_WINS:
                changed = roster.change_if_newer(sync.action, incoming, moment, newest=newest)
            else:
                changed = roster.change(sync.action, incoming)
            record.changed += changed

    def merge(self, users: dict[str, str]) -> None:
        """Let members that are known by an anonymous id be those of its user, a uid."""
        for anonymous_id in users.keys() & self._anonymous_ids.members.keys():
            del self._anonymous_ids.members[anonymous_id]
            self._uids.members.setdefault(users[anonymous_id], anonymous_id)

    def apply_late(self, order: Order, is_due: t.Callable[[_Late], bool]) -> int:
        """Apply those held-back changes that are due, in order of arrival.

        Returns:
            The number of these changes.
        """
        waiting, self.late = self.late, []
        ready: list[_Late] = []
        for late in waiting:
            (ready if is_due(late) else self.late).append(late)
        for late in ready:
            self.take(late.sync, late.moment, order, late.record)
        return len(ready)


class Workspace:
    """All cohorts of one workspace.

    Args:
        order: The rule that decides between two requests of one cohort.
        late_after: The number of further requests for which a late change is held back.
        max_cohorts: The largest number of segments.
        merges: Whether a uid and an anonymous id that come together are one user from then on.
    """

    def __init__(
        self, order: Order, late_after: int, max_cohorts: int, *, merges: bool = False
    ) -> None:
        self._order = order
        self._late_after = late_after
        self._max_cohorts = max_cohorts
        self._cohorts: dict[Key, Cohort] = {}
        self._names: dict[str, Key] = {}
        self._merges = merges
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
        cohort = self._open(sync)
        if not isinstance(cohort, Cohort):
            record.outcome, record.dropped = "dropped", cohort
            return
        if self._merges:
            sync = self._merged(sync)
        for late in cohort.late:
            late.wait -= 1
        moment = arrived if sync.moment is None else sync.moment
        if cut_off and self._late_after:
            record.outcome = "late"
            cohort.apply_late(self._order, lambda late: late.wait <= 0)
            cohort.late.append(_Late(sync, moment, record, self._late_after))
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

    def _open(self, sync: CohortSync) -> Cohort | DropReason:
        """Find or create a request's cohort, or return why MoEngage would drop the request."""
        if not is_good_name(sync.cohort_name):
            return "cohort_name"
        key = (sync.partner, sync.cohort_id)
        if self._names.get(sync.cohort_name, key) != key:
            return "name_taken"
        cohort = self._cohorts.get(key)
        if cohort is None:
            if len(self._cohorts) >= self._max_cohorts:
                return "segment_limit"
            cohort = self._cohorts[key] = Cohort(sync)
            self._names[sync.cohort_name] = key
        return cohort
