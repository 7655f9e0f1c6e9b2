"""Rounds: changes that must not share a request."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from target_moengage_cohort.core.membership import Action, Change, Cohort, Member
from target_moengage_cohort.sync.changes.rounds import in_rounds, repeated
from target_moengage_cohort.sync.changes.sifting import anonymous_twin, sift
from tests.support.strategies import histories

ADD, REMOVE = Action.ADD, Action.REMOVE
COHORTS = [Cohort("0", "Zero"), Cohort("1", "One")]
A, B, U, UA, UB, V = (
    Member(None, "a"),
    Member(None, "b"),
    Member("u"),
    Member("u", "a"),
    Member("u", "b"),
    Member("v"),
)
members = st.sampled_from([A, B, U, UA, UB, V, Member("v", "a")])
lists = histories(st.tuples(st.sampled_from([0, 1]), st.sampled_from(Action), members), 20)


def needed(steps):
    """Return the needed ones of some changes, and the positions of those that link."""
    sifted = sift(steps, {})
    changes = [each and Change(COHORTS[each[0]], *each[1:]) for each in sifted.changes]
    return changes, sifted.linking


def identifiers(change):
    twin = anonymous_twin(change.member)
    return {change.member.key} | ({twin.key} if twin else set())


@given(lists)
def test_rounds_have_each_change_once_and_keep_the_order_of_a_member(steps):
    """Of two changes with an identifier in common, the later one is in the same round, after it, or
    in a later round."""
    changes, linking = needed(steps)
    rounds = in_rounds(changes, linking)
    order = [id(change) for some in rounds for change in some]
    assert sorted(order) == sorted(id(change) for change in changes if change is not None)
    for index, change in enumerate(changes):
        for later in changes[index + 1 :]:
            if None not in {change, later} and change.cohort == later.cohort:
                in_order = order.index(id(change)) < order.index(id(later))
                assert in_order or not identifiers(change) & identifiers(later)


@given(lists)
def test_a_member_and_the_uid_that_takes_over_its_id_are_in_different_rounds(steps):
    """A uid comes in a later round than the anonymous member whose id it takes over, and in an
    earlier one than its own next change."""
    changes, linking = needed(steps)
    number = {
        id(change): place
        for place, some in enumerate(in_rounds(changes, linking))
        for change in some
    }
    for index in linking:
        link = changes[index]
        for position, other in enumerate(changes):
            if other is None or other.cohort != link.cohort:
                continue
            is_alone = other.member.key == anonymous_twin(link.member).key
            if position < index and is_alone and other.action is ADD:
                assert number[id(other)] < number[id(link)]
            if position > index and other.member.key == link.member.key:
                assert number[id(link)] < number[id(other)]


@pytest.mark.parametrize(
    ("steps", "positions"),
    [
        ([(ADD, A), (ADD, UA), (ADD, A), (ADD, UA)], [1, 0]),
        ([(ADD, A), (ADD, UA), (REMOVE, UA), (ADD, UA)], []),
        ([(ADD, A), (REMOVE, A), (ADD, A), (ADD, A)], [2]),
        ([(ADD, UA), (REMOVE, V), (ADD, UA)], [0]),
        ([(ADD, UA), (ADD, UB), (ADD, U)], []),
    ],
    ids=["alternating", "removed between", "removed earlier", "another removed", "other ids"],
)
def test_an_addition_that_comes_again_is_left_out(steps, positions):
    """Of equal additions without a removal of an identifier between them the last one is enough."""
    assert positions == repeated([Change(COHORTS[0], *step) for step in steps])
