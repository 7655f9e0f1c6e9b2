"""Changes without those that would have no effect; pure."""

from __future__ import annotations

import typing as t

import msgspec

from target_moengage_cohort.core.membership import Action, Member
from target_moengage_cohort.ledger.records import Expected

if t.TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

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


def sift(changes: Iterable[NumberedChange | None], expected: dict[NumberedKey, Expected]) -> Sifted:
    """Return the changes that are needed, and update what is expected of the members.

    A member that is not in `expected` was never seen, so even its removal is needed. A removal has
    the identifiers that were accepted. An addition with both identifiers is needed as long as the
    anonymous id may be in the cohort as a member of its own, which it no longer is afterwards.
    """
    sifted = Sifted([], [], {})
    for index, change in enumerate(changes):
        if change is None:
            sifted.changes.append(None)
            continue
        cohort, action, given = change
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


def omit_linked(
    changes: Sequence[NumberedChange], expected: Mapping[NumberedKey, Expected]
) -> Sequence[NumberedChange | None]:
    """Put ``None`` in place of each anonymous member before a uid that is there with its id.

    It would only become an alias of the uid, in each run that reads both again.
    """
    alone = [
        (index, (cohort, member.key))
        for index, (cohort, action, member) in enumerate(changes)
        if member.uid is None and action is Action.ADD
    ]
    if not alone:  # as in most streams
        return changes
    changed = {
        (cohort, member.key)
        for cohort, action, member in changes
        if expected.get((cohort, member.key)) != Expected(action, member)
    }
    last = {
        (cohort, twin.key): index
        for index, (cohort, action, member) in enumerate(changes)
        if action is Action.ADD and (cohort, member.key) not in changed
        if (twin := anonymous_twin(member)) is not None
    }
    taken_over = {index for index, key in alone if last.get(key, -1) > index}
    return [None if index in taken_over else change for index, change in enumerate(changes)]


def anonymous_twin(member: Member) -> Member | None:
    """Return the anonymous member with the id of a member that has a uid, if it has both."""
    if member.uid is None or member.anonymous_id is None:
        return None
    return Member(None, member.anonymous_id)
