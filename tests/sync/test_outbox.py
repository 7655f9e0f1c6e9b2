from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given

from target_moengage_cohort.core.membership import Action, Member
from target_moengage_cohort.ledger.records import Expected
from target_moengage_cohort.sync.changes.sifting import anonymous_twin, sift
from tests.support.strategies import histories

NUMBER = 7  # of the cohort
ADD, REMOVE = Action.ADD, Action.REMOVE

identifiers = st.sampled_from([None, "x", "y", "z"])  # the same texts in both name spaces
members = st.builds(Member, identifiers, identifiers).filter(lambda member: member != Member())
actions = st.sampled_from(Action)
steps = histories(st.tuples(actions, members), 20)


@st.composite
def beginnings(draw):
    """Draw the initial content of a ledger, and the members that the cohort may have."""
    known, there = {}, {}
    for member in draw(st.lists(members, unique_by=lambda member: member.key)):
        state = draw(st.sampled_from(["unseen", "accepted", "removed", "forgotten", "in doubt"]))
        # An anonymous member that the ledger has not seen cannot be known to have got a uid.
        is_open = state == "in doubt" or (state == "unseen" and member.uid is not None)
        is_there = state == "accepted" or (is_open and draw(st.booleans()))
        if state == "forgotten":  # a ledger keeps no identifiers of removed members
            known[member.key] = Expected(REMOVE, None)
        elif state != "unseen":
            action = {"accepted": ADD, "removed": REMOVE, "in doubt": None}[state]
            known[member.key] = Expected(action, member)
        if is_there:
            there[member.key] = member
    return known, there


def news(asked, known):
    """Return the needed changes of one cohort."""
    numbered = {(NUMBER, key): expected for key, expected in known.items()}
    sifted = sift([(NUMBER, *each) for each in asked], numbered)
    known |= {key: expected for (_, key), expected in numbered.items()}
    return [needed[1:] for needed in sifted.changes if needed is not None]


def replayed(there, history):
    """Return the members of the cohort after the changes, with their identifiers.

    An anonymous member is one of its own until a uid is added with its id.
    """
    there = {**there}
    for action, member in history:
        if action is ADD:
            there[member.key] = member
            if member.uid is not None:
                there.pop((member.anonymous_id,), None)
        else:
            there.pop(member.key, None)
    return there


@given(beginnings(), steps)
def test_what_is_left_out_makes_no_difference(beginning, history):
    """Promise 2: the needed changes have the same result as all of them, whatever happened to
    members that were unconfirmed or unknown."""
    known, there = beginning
    assert replayed(there, history) == replayed(there, news(history, known))


@given(beginnings(), steps, st.data())
def test_the_way_changes_are_cut_does_not_matter(beginning, history, data):
    """The expected state is updated, so a later call knows the changes of an earlier one."""
    known, _ = beginning
    whole, parts = {**known}, {**known}
    cut = data.draw(st.integers(0, len(history)))
    needed = news(history[:cut], parts) + news(history[cut:], parts)
    assert news(history, whole) == needed
    assert whole == parts


@given(beginnings(), steps)
def test_a_history_that_was_taken_needs_nothing_more(beginning, history):
    """The last change of each member is not needed a second time, unless it is an addition whose
    anonymous id belongs to both an anonymous member and a member with a uid."""
    known, _ = beginning
    news(history, known)
    last = {member.key: (action, member) for action, member in history}
    whom = {member for _, member in history} | {each.member for each in known.values()} - {None}
    alone = {each.anonymous_id for each in whom if each.uid is None}
    shared = alone & {each.anonymous_id for each in whom if each.uid is not None}
    again = news(last.values(), known)
    assert {(ADD, True)} >= {(action, each.anonymous_id in shared) for action, each in again}


@given(beginnings(), steps)
def test_no_needed_change_repeats_what_is_expected(beginning, history):
    """A confirmed member gets neither an addition with the same identifiers nor two removals in a
    row, unless the addition takes over the id of an anonymous member."""
    known, _ = beginning
    latest = {key: (said.action, said.member) for key, said in known.items()}
    for action, member in news(history, known):
        before = latest.get(member.key, (None, None))
        twin = anonymous_twin(member) if action is ADD else None
        takes_over = twin is not None and latest.get(twin.key, (REMOVE,))[0] is not REMOVE
        assert takes_over or before != (action, member)
        assert (REMOVE, REMOVE) != (before[0], action)
        latest[member.key] = (action, member)
        if takes_over:
            latest[twin.key] = (REMOVE, twin)


@given(beginnings(), steps)
def test_a_removal_has_the_identifiers_of_the_latest_addition(beginning, history):
    """A removal has the accepted identifiers, or else those of the record."""
    known, _ = beginning
    latest = {key: said.member for key, said in known.items() if said.member is not None}
    for action, member in history:
        for sent in news([(action, member)], known):
            expected = member if action is ADD else latest.get(member.key, member)
            assert (action, expected) == sent
            latest[member.key] = expected


@pytest.mark.parametrize(
    ("known", "action", "member", "needed"),
    [
        (Expected(ADD, Member("u", "a")), ADD, Member("u", "a"), None),
        (Expected(ADD, Member("u", "a")), ADD, Member("u", "b"), Member("u", "b")),
        (Expected(ADD, Member("u", "a")), ADD, Member("u"), Member("u")),
        (Expected(ADD, Member("u")), ADD, Member("u", "a"), Member("u", "a")),
        (Expected(ADD, Member("u", "a")), REMOVE, Member("u"), Member("u", "a")),
        (Expected(ADD, Member("u", "a")), REMOVE, Member("u", "b"), Member("u", "a")),
        (Expected(ADD, Member("u")), REMOVE, Member("u", "b"), Member("u")),
        (Expected(REMOVE, None), REMOVE, Member("u", "b"), None),
        (Expected(REMOVE, Member("u", "a")), REMOVE, Member("u", "b"), None),
        (Expected(REMOVE, None), ADD, Member("u"), Member("u")),
        (Expected(REMOVE, Member("u")), ADD, Member("u"), Member("u")),
        (Expected(None, Member("u", "a")), ADD, Member("u", "a"), Member("u", "a")),
        (Expected(None, Member("u", "a")), ADD, Member("u", "b"), Member("u", "b")),
        (Expected(None, Member("u", "a")), REMOVE, Member("u"), Member("u", "a")),
        (None, ADD, Member("u"), Member("u")),
        (None, REMOVE, Member("u", "a"), Member("u", "a")),
        (None, REMOVE, Member(None, "a"), Member(None, "a")),
    ],
    ids=[
        "accepted",
        "changed anonymous id",
        "lost anonymous id",
        "new anonymous id",
        "removal without the anonymous id",
        "removal with another anonymous id",
        "removal with a new anonymous id",
        "removed",
        "removed with another anonymous id",
        "removed and joins",
        "queued to leave and joins",
        "addition of a doubt",
        "changed addition of a doubt",
        "removal of a doubt",
        "addition of the unseen",
        "removal of the unseen",
        "removal of the unseen by an anonymous id",
    ],
)
def test_what_is_needed(known, action, member, needed):
    """A member's expected state decides whether a change is needed, and with which identifiers."""
    state = {} if known is None else {member.key: known}
    expected = [] if needed is None else [(action, needed)]
    assert expected == news([(action, member)], state)
    if needed is None:
        assert {member.key: known} == state
    else:
        assert {member.key: Expected(action, needed)} == state


def test_the_two_name_spaces_are_apart():
    """A uid and an anonymous ID with the same text are two members."""
    known = {"x": Expected(ADD, Member("x"))}
    history = [(ADD, Member("x")), (ADD, Member(None, "x")), (REMOVE, Member(None, "x"))]
    assert history[1:] == news(history, known)
    assert {"x": Expected(ADD, Member("x")), ("x",): Expected(REMOVE, Member(None, "x"))} == known
