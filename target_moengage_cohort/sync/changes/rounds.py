"""Rounds of changes: no request has both an anonymous member and the uid that takes over its id.

The ledger knows the order of changes only by the numbers of their requests. It turns an anonymous
member into an alias of the uid that was accepted with its id in a later request. So changes that
would share a request with such a uid wait for the next round, and the bodies of the cohort are
closed between two rounds. All other changes are in the first round, however many wait.
"""

from __future__ import annotations

import typing as t

from target_moengage_cohort.core.membership import Action

if t.TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from target_moengage_cohort.core.membership import Change, Key

    Place: t.TypeAlias = tuple[str, Key]
    """An identifier in the cohort with an id."""


def in_rounds(changes: Sequence[Change | None], linking: Collection[int]) -> list[list[Change]]:
    """Split changes into rounds.

    `linking` has the positions of the uids that are added with the id of an anonymous member. They
    come in a later round than that member, and in an earlier one than the next change of the uid,
    which would replace them. Changes that share an identifier stay in order.
    """
    linking = {*linking}
    earliest: dict[Place, int] = {}  # the round of the next change
    alone: dict[Place, int] = {}  # the round in which an anonymous member was added last
    rounds: list[list[Change]] = []
    for index, change in enumerate(changes):
        if change is None:
            continue
        places = _places(change)
        number = max(earliest.get(place, 0) for place in places)
        if index in linking:
            number = max(number, alone.get(places[-1], -1) + 1)
        elif change.member.uid is None and change.action is Action.ADD:
            alone[places[0]] = number
        earliest |= dict.fromkeys(places, number)
        if index in linking:
            earliest[places[0]] = number + 1
        while len(rounds) <= number:
            rounds.append([])
        rounds[number].append(change)
    return rounds


def repeated(changes: Sequence[Change | None]) -> list[int]:
    """Return the positions of additions that come again, without a removal between the two.

    The later one is enough. So a member whose rows alternate does not take a round for each.
    """
    found: list[int] = []
    later: set[tuple[str, object]] = set()
    removed: set[Place] = set()  # before these
    for index, change in reversed([*enumerate(changes)]):
        if change is None:
            continue
        places = _places(change)
        if change.action is Action.REMOVE:
            removed.update(places)
            continue
        addition = change.cohort.cohort_id, change.member
        if addition in later and removed.isdisjoint(places):
            found.append(index)
        later.add(addition)
        removed.difference_update(places)
    return found


def _places(change: Change) -> list[Place]:
    """Return the identifiers of a change's member, its key first."""
    cohort_id, member = change.cohort.cohort_id, change.member
    places: list[Place] = [(cohort_id, member.key)]
    if member.uid is not None and member.anonymous_id is not None:
        places.append((cohort_id, (member.anonymous_id,)))
    return places
