from __future__ import annotations

from fractions import Fraction

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import example, given

from target_moengage_cohort.core.membership import Action, Cohort, Member
from target_moengage_cohort.ledger.engines import open_store
from target_moengage_cohort.ledger.records import DiffCounts, MemberSet, RequestState
from target_moengage_cohort.settings import load
from target_moengage_cohort.sync.mirror.completeness import Proof
from target_moengage_cohort.sync.mirror.guard import (
    Disposition,
    Rules,
    decide,
    guard,
    most_removals,
)

percents = st.integers(0, 100)
sizes = st.integers(0, 60) | st.integers(0, 100_000)


@st.composite
def removals_of(draw):
    """Draw a base, and a number of removals from it."""
    base = draw(sizes)
    return base, draw(st.integers(0, base) | st.integers(0, min(base, 25)))


@given(removals_of(), sizes, percents, st.booleans())
def test_the_guard(counts, desired, percent, proven):
    """Without proof at most max_removal_percent of the base are removed, with proof also up to 20.
    Emptying a cohort needs 100 % and proof."""
    base, removals = counts
    if not removals:
        allowed = True
    elif not desired:
        allowed = proven and percent == 100
    else:
        allowed = Fraction(removals, base) <= Fraction(percent, 100) or (proven and removals <= 20)
    against = guard(
        base=base, removals=removals, desired=desired, max_removal_percent=percent, proven=proven
    )
    assert allowed == (against is None)


@pytest.mark.parametrize("proven", [True, False])
@pytest.mark.parametrize("percent", [0, 1, 10, 33, 99, 100])
def test_the_most_that_may_leave_is_what_the_guard_lets_go(percent, proven):
    """most_removals is the largest number of removals that the guard allows without additions."""
    for base in (1, 2, 9, 10, 19, 20, 21, 199, 201, 1000):
        allowed = [
            removals
            for removals in range(base + 1)
            if guard(
                base=base,
                removals=removals,
                desired=base - removals,
                max_removal_percent=percent,
                proven=proven,
            )
            is None
        ]
        most = most_removals(base=base, max_removal_percent=percent, proven=proven)
        assert max(allowed) == most


@pytest.mark.parametrize(
    ("allowed", "base", "removals", "desired", "percent", "proven"),
    [
        (True, 100, 10, 90, 10, False),
        (False, 100, 11, 89, 10, False),
        (False, 109, 11, 98, 10, False),
        (True, 110, 11, 99, 10, False),
        (False, 9, 1, 8, 10, False),
        (True, 9, 1, 8, 10, True),
        (True, 21, 20, 1, 10, True),
        (False, 21, 21, 1, 10, True),
        (False, 100, 21, 79, 10, True),
        (True, 100, 20, 80, 0, True),
        (False, 100, 1, 99, 0, False),
        (True, 100, 100, 1, 100, False),
        (True, 100, 0, 100, 0, False),
        (True, 0, 0, 0, 0, False),
        (False, 1, 1, 0, 10, True),
        (False, 1, 1, 0, 99, True),
        (False, 1, 1, 0, 100, False),
        (True, 1, 1, 0, 100, True),
        (True, 10**9, 10**9, 0, 100, True),
        (False, 10**9, 10**8 + 1, 1, 10, False),
    ],
)
def test_the_guard_by_numbers(allowed, base, removals, desired, percent, proven):
    """The bounds are exact: removals at a bound are allowed, one more is not."""
    against = guard(
        base=base, removals=removals, desired=desired, max_removal_percent=percent, proven=proven
    )
    assert allowed == (against is None)
    if against is not None:
        assert f"max_removal_percent {100 if not desired else percent}" in against
        look = "Check the tap's log first"
        assert (not proven) == (look in against)  # a tap that died looks the same


def counts(*, kept=0, gone=0, linked=0, new=0, resent=0, in_doubt=0, strays=0):
    """Return the counts of a plan with a number of members of each kind."""
    base, desired = kept + gone + linked, kept + new
    return DiffCounts(
        desired=MemberSet(desired, ""),
        accepted=MemberSet(base - strays, ""),
        in_doubt=in_doubt,
        base=base,
        joining=new,
        additions=new + resent,
        removals=gone,
        leaving=gone,
        unchanged=kept - resent,
        linked=linked,
    )


@st.composite
def plans(draw):
    """Draw the numbers of any plan of a mirror, and its effects."""
    small = st.integers(0, 30) | st.integers(0, 3)
    kept, gone, new = draw(small), draw(small), draw(small)
    linked = draw(st.integers(0, min(3, kept + new)))  # with a desired member's ID
    parts = {"kept": kept, "gone": gone, "new": new, "linked": linked}
    in_doubt = draw(st.integers(0, kept + gone + linked))
    return parts, counts(
        **parts,
        resent=draw(st.integers(0, kept)),
        in_doubt=in_doubt,
        strays=draw(st.integers(0, in_doubt)),
    )


rules = st.one_of(
    st.builds(
        Rules,
        max_removal_percent=st.sampled_from([0, 10, 50, 99, 100]),
        max_addition_percent=st.none() | percents,
        seals=st.booleans(),
        **when,
    )
    for when in (
        {"deferred": st.booleans()},
        {"deferred": st.sampled_from([False]), "needs_proof": st.sampled_from([True])},
    )
)
proofs = st.sampled_from(Proof)


def rules_of(*, removal=10, addition=None, deferred=False, seals=False):
    return Rules(
        max_removal_percent=removal, max_addition_percent=addition, deferred=deferred, seals=seals
    )


@given(plans(), rules, proofs)
def test_the_fate_of_removals(plan, rules, proof):
    """Promise 4: no member is removed after an input with a fault. Deferred removals wait; others
    are delivered within the guard, or withheld."""
    parts, differs = plan
    fate = decide(differs, rules, proof).removals
    if proof is Proof.NO:
        assert Disposition.LEFT is fate
    elif rules.deferred:
        assert Disposition.WAITING is fate
    elif not parts["gone"]:
        assert Disposition.DELIVERED is fate
    elif fate is Disposition.DELIVERED:
        share = Fraction(parts["gone"], differs.base)
        few = proof.is_proof and parts["gone"] <= 20
        assert proof.is_proof or not rules.needs_proof
        assert few or share <= Fraction(rules.max_removal_percent, 100)
    else:
        assert Disposition.WITHHELD is fate


EXCHANGE = ({"gone": 5, "new": 5}, counts(gone=5, new=5))


@given(plans(), rules, proofs)
@example(EXCHANGE, rules_of(removal=100, addition=0), Proof.END_OF_INPUT)
@example(EXCHANGE, rules_of(addition=0), Proof.COUNT)
def test_a_cohort_is_emptied_with_proof_only(plan, rules, proof):
    """Whatever part of a plan is delivered, emptying a cohort needs 100 % and proof."""
    parts, differs = plan
    decision = decide(differs, rules, proof)
    left = differs.base
    if decision.additions is Disposition.DELIVERED:
        left += parts["new"]
    if decision.removals is Disposition.DELIVERED:
        left -= parts["gone"]
    if differs.base and not left:
        assert proof.is_proof
        assert 100 == rules.max_removal_percent


@given(plans(), rules, proofs)
def test_the_fate_of_additions(plan, rules, proof):
    """Additions above max_addition_percent of the base are withheld, unless the cohort is new.
    Members that are sent again do not count."""
    parts, differs = plan
    limit = rules.max_addition_percent
    is_over = (
        limit is not None
        and differs.base > 0
        and Fraction(parts["new"], differs.base) > Fraction(limit, 100)
    )
    fate = decide(differs, rules, proof).additions
    assert (Disposition.WITHHELD if is_over else Disposition.DELIVERED) is fate


@given(plans(), rules, proofs)
def test_what_is_not_delivered_has_a_reason(plan, rules, proof):
    """A decision has a reason exactly if some of the plan is withheld, or differs and is not
    delivered."""
    parts, differs = plan
    decision = decide(differs, rules, proof)
    is_held = Disposition.WITHHELD in {decision.additions, decision.removals}
    is_left = decision.removals is Disposition.LEFT and parts["gone"] > 0
    assert (is_held or is_left) == (decision.reason is not None)


@given(plans(), rules, proofs)
def test_what_seals(plan, rules, proof):
    """A one_time stream is sealed by proof, with members, and all its additions delivered."""
    _, differs = plan
    decision = decide(differs, rules, proof)
    is_delivered = decision.additions is Disposition.DELIVERED
    assert decision.seals == (
        rules.seals and proof.is_proof and is_delivered and differs.desired.count > 0
    )


@pytest.mark.parametrize(
    ("expected", "differs", "rules", "proof"),
    [
        ("both delivered", counts(kept=90, gone=10, new=5), rules_of(), Proof.END_OF_INPUT),
        ("removals withheld", counts(kept=89, gone=11), rules_of(), Proof.END_OF_INPUT),
        ("both delivered", counts(kept=80, gone=20), rules_of(), Proof.COUNT),
        ("removals withheld", counts(kept=79, gone=21), rules_of(), Proof.COUNT),
        ("removals withheld", counts(gone=1), rules_of(), Proof.TAP_EXIT),
        ("both delivered", counts(gone=1), rules_of(removal=100), Proof.TAP_EXIT),
        ("removals withheld", counts(gone=1), rules_of(removal=100), Proof.END_OF_INPUT),
        ("removals left", counts(kept=99, gone=1), rules_of(removal=100), Proof.NO),
        ("removals left", counts(kept=99, gone=1), rules_of(deferred=True), Proof.NO),
        ("removals waiting", counts(kept=9, gone=91), rules_of(deferred=True), Proof.END_OF_INPUT),
        ("removals waiting", counts(kept=99, gone=1), rules_of(deferred=True), Proof.COUNT),
        ("both delivered", counts(new=9), rules_of(addition=0), Proof.END_OF_INPUT),
        ("both delivered", counts(kept=10, new=5), rules_of(addition=50), Proof.COUNT),
        ("additions withheld", counts(kept=10, new=6), rules_of(addition=50), Proof.COUNT),
        ("both delivered", counts(kept=10, resent=10), rules_of(addition=0), Proof.COUNT),
        ("both delivered", counts(kept=9, gone=1), rules_of(addition=0), Proof.COUNT),
    ],
    ids=[
        "within the guard",
        "over the guard",
        "few with proof",
        "many with proof",
        "emptied",
        "emptied at 100 with proof",
        "emptied at 100 without",
        "fault",
        "fault and deferred",
        "deferred",
        "deferred with proof",
        "new cohort",
        "growth",
        "growth over the guard",
        "sent again",
        "shrinks",
    ],
)
def test_decisions(expected, differs, rules, proof):
    """A withheld half of a plan does not withhold the other."""
    decision = decide(differs, rules, proof)
    fates = {"additions": decision.additions, "removals": decision.removals}
    held = [
        f"{half} {fate.value}" for half, fate in fates.items() if fate is not Disposition.DELIVERED
    ]
    assert expected == ("; ".join(held) or "both delivered")


def test_growth_of_a_one_time_cohort_is_guarded(tmp_path):
    """Members that stay only because one_time removes none leave no room for additions."""
    settings = load(
        {
            "workspace_id": "ws",
            "data_api_key": "key",
            "data_center": "02",
            "partner": "acme",
            "ledger_uri": str(tmp_path / "ledger"),
        }
    ).settings
    with open_store(settings, run_id="r", wait=lambda _seconds: False) as ledgers:
        ledger = ledgers.open(Cohort("c", "c"), "s")
        old = msgspec.json.encode([Member(f"old {n}") for n in range(10)])
        ledger.answered(ledger.sent(Action.ADD, old, 10, 1), RequestState.ACCEPTED)
        staging = ledgers.staging()
        staging.append(ledger.number, [f"new {n}" for n in range(10)], None, None)
        difference = ledger.stream.difference(staging, [ledger], keeps=True)
        differs = difference.counts[ledger.number]
        decision = decide(differs, rules_of(addition=50, seals=True), Proof.END_OF_INPUT)
        staging.close()
    assert (10, 0) == (differs.additions, differs.removals)
    assert Disposition.WITHHELD is decision.additions
