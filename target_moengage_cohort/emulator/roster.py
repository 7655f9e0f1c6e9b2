"""One cohort: its members, and the order in which changes count."""

from __future__ import annotations

import typing as t
from collections import deque

import msgspec

from .model import Action, CohortSummary, CohortSync, Member, RequestRecord
from .options import Order

if t.TYPE_CHECKING:
    from .people import Space, User
    from .registry import Head


class _Roster:
    """The members of a cohort in one name space: identifier → the other identifier."""

    def __init__(self) -> None:
        self.members: dict[str, str | None] = {}
        self._written: dict[str, int] = {}

    def change(self, action: Action, incoming: dict[str, str | None]) -> t.Collection[str]:
        """Apply a change and return the members that were added or removed."""
        if action == "add_members":
            new = {key: incoming[key] for key in incoming if key not in self.members}
            self.members.update(new)
            return new.keys()
        leaving = incoming.keys() & self.members.keys()
        for key in leaving:
            del self.members[key]
        return leaving

    def change_if_newer(
        self,
        action: Action,
        incoming: dict[str, str | None],
        moment: int,
        *,
        newest: bool,
    ) -> t.Collection[str]:
        """Apply a change to those members that no newer change has written."""
        if not newest:
            written = self._written
            incoming = {k: incoming[k] for k in incoming if written.get(k, moment) <= moment}
        self._written.update(dict.fromkeys(incoming, moment))
        return self.change(action, incoming)


class Late(msgspec.Struct):
    """A change that is held back for a number of further requests of its cohort."""

    sync: CohortSync
    moment: int
    record: RequestRecord
    wait: int


class _Recent(t.NamedTuple):
    """The members that a change has added or removed."""

    arrived_at: float
    action: Action
    users: set[User]


class Cohort:
    """A segment that one partner syncs under one identifier.

    Args:
        first: The request that created it; later names and descriptions don't change it.
        head: Its id, and whether it is archived.
        lag: Seconds until its changes are processed and counted.
    """

    def __init__(self, first: CohortSync, head: Head, lag: float) -> None:
        self.head = head
        self._lag = lag
        self._recent: deque[_Recent] = deque()
        self.partner = first.partner
        self.cohort_id = first.cohort_id
        self.name = self.sent_name = first.cohort_name
        self.description = first.cohort_description
        self.late: list[Late] = []
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
            sent_name=self.sent_name,
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
        rosters: tuple[tuple[_Roster, Space, dict[str, str | None]], ...] = (
            (self._uids, "uid", sync.by_uid),
            (self._anonymous_ids, "anonymous_id", sync.by_anonymous_id),
        )
        for roster, space, incoming in rosters:
            if order is Order.LAST_WRITER_WINS:
                changed = roster.change_if_newer(sync.action, incoming, moment, newest=newest)
            else:
                changed = roster.change(sync.action, incoming)
            record.changed += len(changed)
            if self._lag:
                users: set[User] = {(space, each) for each in changed}
                self._recent.append(_Recent(record.arrived_at, sync.action, users))

    def counted(self, now: float) -> set[User]:
        """Return the members as far as their changes are processed."""
        users = self._members()
        while self._recent and now - self._recent[0].arrived_at >= self._lag:
            self._recent.popleft()
        for recent in reversed(self._recent):
            if recent.action == "add_members":
                users -= recent.users
            else:
                users |= recent.users
        return users

    def mentioned(self) -> set[User]:
        """Return the members, and all whose changes are not processed yet."""
        return self._members().union(*(recent.users for recent in self._recent))

    def _members(self) -> set[User]:
        users: set[User] = {("uid", each) for each in self._uids.members}
        users.update(("anonymous_id", each) for each in self._anonymous_ids.members)
        return users

    def put(self, action: Action, uids: t.Iterable[str]) -> None:
        """Change members without a request, as if one had been lost or sent by another client."""
        self._uids.change(action, dict.fromkeys(uids))

    def merge(self, users: dict[str, str]) -> None:
        """Assign members that are known by an anonymous ID to the uid of its user."""
        for anonymous_id in users.keys() & self._anonymous_ids.members.keys():
            del self._anonymous_ids.members[anonymous_id]
            self._uids.members.setdefault(users[anonymous_id], anonymous_id)

    def apply_late(self, order: Order, is_due: t.Callable[[Late], bool]) -> int:
        """Apply those held-back changes that are due, in order of arrival.

        Returns:
            The number of these changes.
        """
        waiting, self.late = self.late, []
        ready: list[Late] = []
        for late in waiting:
            (ready if is_due(late) else self.late).append(late)
        for late in ready:
            self.take(late.sync, late.moment, order, late.record)
        return len(ready)
