"""Changes without those that would have no effect; pure."""

from __future__ import annotations

import typing as t

import msgspec

from target_moengage_cohort.core.membership import Action, Member
from target_moengage_cohort.ledger.records import Expected

if t.TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from target_moengage_cohort.ledger.stream_ledger import NumberedChange, NumberedKey


class Sifted(msgspec.Struct):
    """The changes that are needed.

    Attributes:
        changes: Each change, in stream order, or ``None`` if it is without an effect.
        linking: The positions of the additions that turn an anonymous member into an alias.
        aliases: These aliases as removals, except those that were added again later.
    """

    changes: list[NumberedChange | None]
    linking: list[int]
    aliases: dict[NumberedKey, NumberedChange]


def sift(
    changes: Sequence[NumberedChange],
    expected: dict[NumberedKey, Expected],
    *,
    links: bool = True,
) -> Sifted:
    """Return the changes that are needed, and update what is expected of the members.

    A member that is not in `expected` was never seen, so even its removal is needed. A removal has
    the identifiers that were accepted. An addition with both identifiers is needed as long as the
    anonymous id may be in the cohort as a member of its own, which it no longer is afterwards.

    Without `links`, no anonymous id becomes an alias.
    """
    sifted, taken_over = Sifted([], [], {}), _taken_over(changes, expected) if links else set()
    for index, (cohort, action, given) in enumerate(changes):
        if index in taken_over:
            sifted.changes.append(None)
            continue
        member, key = given, (cohort, given.key)
        twin = None if action is Action.REMOVE else anonymous_twin(given)
        former = None if twin is None else expected.get((cohort, twin.key))
        is_linking = former is not None and former.action is not Action.REMOVE
        before = expected.get(key)
        if before is not None:
            is_same = action is Action.REMOVE or before.member == member
            if before.action is action and is_same and not is_linking:
                sifted.changes.append(None)
                continue
            if action is Action.REMOVE and before.member is not None:
                member = before.member
        if twin is not None and is_linking:
            sifted.linking.append(index)
            sifted.aliases[cohort, twin.key] = (cohort, Action.REMOVE, twin)
            expected[cohort, twin.key] = Expected(Action.REMOVE, twin)
        sifted.aliases.pop(key, None)
        expected[key] = Expected(action, member)
        sifted.changes.append((cohort, action, member))
    return sifted


def _taken_over(
    changes: Sequence[NumberedChange], expected: Mapping[NumberedKey, Expected]
) -> set[int]:
    """Return the positions of anonymous members before a uid that is there with their id.

    They would only become aliases of it, in each run that reads both again.
    """
    pairs = [
        (index, (cohort, member.key), (cohort, twin.key))
        for index, (cohort, action, member) in enumerate(changes)
        if (twin := anonymous_twin(member)) is not None and action is Action.ADD
    ]
    if not pairs:
        return set()
    changed = {
        (cohort, member.key)
        for cohort, action, member in changes
        if expected.get((cohort, member.key)) != Expected(action, member)
    }
    last = {twin: index for index, key, twin in pairs if key not in changed}
    return {
        index
        for index, (cohort, action, member) in enumerate(changes)
        if action is Action.ADD and last.get((cohort, member.key), -1) > index
    }


def anonymous_twin(member: Member) -> Member | None:
    """Return the anonymous member with the id of a member that has a uid, if it has both."""
    if member.uid is None or member.anonymous_id is None:
        return None
    return Member(None, member.anonymous_id)
