"""Added and removed members: those of accepted requests, kept if the settings ask for it."""

from __future__ import annotations

import typing as t

import msgspec

from target_moengage_cohort.core.text import iso_utc
from target_moengage_cohort.ledger.records import MemberChange

if t.TYPE_CHECKING:
    from collections.abc import Container, Iterator, Sequence

    from target_moengage_cohort.core.membership import Action, Member
    from target_moengage_cohort.ledger.control.database import Transaction
    from target_moengage_cohort.ledger.control.owner import Owner

_DAY = 86_400
_PAGE = 64  # requests of up to 128 KB
_NEXT = "UPDATE store SET last_request = last_request + 1 RETURNING last_request"
_COLUMNS = "INSERT INTO changes (number, cohort, run_id, action, accepted_at, members)"
_OF_REQUEST = f"{_COLUMNS} SELECT ?, cohort, ?, action, ?, members FROM requests WHERE number = ?"
_AFTER = (
    "SELECT h.number, h.run_id, h.action, h.accepted_at, c.cohort_id, c.stream, h.members"
    " FROM changes h JOIN cohorts c ON c.number = h.cohort WHERE c.partner = ? AND h.number > ?"
    f" ORDER BY h.number LIMIT {_PAGE}"
)
_OF_STREAM = (
    "SELECT h.number, h.members FROM changes h JOIN cohorts c ON c.number = h.cohort"
    f" WHERE c.partner = ? AND c.stream = ? AND h.number > ? ORDER BY h.number LIMIT {_PAGE}"
)
_OLD = (
    "DELETE FROM changes WHERE accepted_at < ?"
    " AND cohort IN (SELECT number FROM cohorts WHERE partner = ?)"
)


class _Identifiers(msgspec.Struct, omit_defaults=True):
    uid: str | None = None
    anonymous_id: str | None = None


_decode = msgspec.json.Decoder(list[_Identifiers | None]).decode


class Changes:
    """The accepted changes of the partner's cohorts."""

    def __init__(self, control: Owner, days: int | None) -> None:
        self._control = control
        self._database = control.database
        self._days = days

    @property
    def are_kept(self) -> bool:
        """Whether changes are kept from now on."""
        return self._days is not None

    def add_request(self, transaction: Transaction, request: int) -> None:
        """Keep the members of a request, which is accepted within the same change."""
        if self.are_kept:
            values = [self._control.run_id, self._control.clock(), request]
            transaction.run(_OF_REQUEST, [self._next(transaction), *values])

    def add(self, cohort: int, action: Action, members: bytes) -> None:
        """Keep the members of an accepted request that control does not have."""
        with self._database.change("changes") as transaction:
            self._control.write_new(transaction)
            number, run_id = self._next(transaction), self._control.run_id
            values = [number, cohort, run_id, action.value, self._control.clock()]
            transaction.run(f"{_COLUMNS} VALUES (?, ?, ?, ?, ?, ?)", [*values, members.decode()])

    def _next(self, transaction: Transaction) -> int:
        """Return a number that rises with every change that is committed, of all hosts."""
        ((number,),) = transaction.run(_NEXT)
        return int(number)

    def after(self, last: int) -> Iterator[MemberChange]:
        """Yield the changes of members after that of a number, in their order."""
        while rows := self._database.rows(_AFTER, [self._control.partner, last]):
            for row in rows:
                yield from _members_of(*row)
            last = rows[-1][0]

    def erase(self, stream: str, members: Sequence[Member]) -> None:
        """Erase members from the changes of a stream's cohorts, by each of their identifiers."""
        erased = {each.uid for each in members}, {each.anonymous_id for each in members}
        last = 0
        while rows := self._database.rows(_OF_STREAM, [self._control.partner, stream, last]):
            left = [(_without(text, *erased), number) for number, text in rows]
            if changed := [(text, number) for text, number in left if text is not None]:
                with self._database.change("erase changes") as transaction:
                    transaction.run_many("UPDATE changes SET members = ? WHERE number = ?", changed)
            last = rows[-1][0]

    def drop_old(self, transaction: Transaction) -> None:
        """Delete expired changes, or all changes if they are not to be kept."""
        until = self._control.clock() - (self._days or 0) * _DAY
        transaction.run(_OLD, [until, self._control.partner])


def _members_of(
    number: int, run_id: str, action: str, accepted_at: float, *rest: str
) -> Iterator[MemberChange]:
    cohort_id, stream, members = rest
    for position, each in enumerate(_decode(members)):
        if each is not None:
            yield MemberChange(
                run_id=run_id,
                number=number,
                position=position,
                stream=stream,
                cohort_id=cohort_id,
                action=action.removesuffix("_members"),
                uid=each.uid,
                anonymous_id=each.anonymous_id,
                accepted_at=iso_utc(accepted_at),
            )


def _without(
    text: str, uids: Container[str | None], anonymous_ids: Container[str | None]
) -> str | None:
    """Return members without some of them, which leave a gap; ``None`` if none of them is there."""

    def is_erased(each: _Identifiers) -> bool:
        by_uid = each.uid is not None and each.uid in uids
        return by_uid or (each.anonymous_id is not None and each.anonymous_id in anonymous_ids)

    members = _decode(text)
    left = [None if each is None or is_erased(each) else each for each in members]
    return None if left == members else msgspec.json.encode(left).decode()
