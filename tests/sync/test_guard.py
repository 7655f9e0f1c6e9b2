from __future__ import annotations

import json
from decimal import Decimal
from fractions import Fraction

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import example, given

from target_moengage_cohort.core.errors import InputError
from target_moengage_cohort.core.membership import Action, Cohort, Member
from target_moengage_cohort.ledger import DiffCounts, Ledgers, MemberSet
from target_moengage_cohort.settings import load
from target_moengage_cohort.sync.mirror.guard import (
    Completeness,
    Disposition,
    Proof,
    Rules,
    bookmarked_stream,
    decide,
    guard,
    most_leaving,
)

RECORD, ACTIVATE = "record", "activate"
PROOFS = [proof for proof in Proof if proof.is_proof]
percents = st.integers(0, 100)
sizes = st.integers(0, 60) | st.integers(0, 100_000)


def heard(*messages, rejected=0):
    """What is known after messages, each its kind and its version."""
    completeness = Completeness("s", None)
    for kind, version in messages:
        if kind == RECORD:
            completeness.read(version)
        else:
            completeness.activate(version)
    completeness.rejected = rejected
    return completeness


def proof(completeness, *, tap_succeeded=False, version_is_fresh=True):
    return completeness.proof(tap_succeeded=tap_succeeded, version_is_fresh=version_is_fresh)


def counted(*values, records):
    completeness = Completeness("s", "n")
    for value in values:
        completeness.expect(value)
    for _ in range(records):
        completeness.read(None)
    completeness.check()
    return completeness


def test_only_more_than_an_end_of_input_is_proof():
    """An input that just ended proves nothing, as one that did not end well."""
    assert {"count", "activate_version", "tap_exit"} == {known.value for known in PROOFS}
    assert {"end_of_input", "no"} == {known.value for known in Proof if not known.is_proof}


versions = st.sampled_from([None, 1, 2, "1", 2**70, [1], {"a": 1}])
kinds = st.sampled_from([RECORD, RECORD, ACTIVATE])


def messages_of(versions):
    return st.lists(st.tuples(kinds, versions), max_size=8)


@given(messages_of(versions) | messages_of(st.just(1)), st.booleans())
@example(messages=[(RECORD, 5), (ACTIVATE, 5)], fresh=True)
@example(messages=[(RECORD, 5), (ACTIVATE, 5)], fresh=False)
def test_an_activated_version_is_proof(messages, fresh):
    """An ACTIVATE_VERSION is proof if records came before it and none after, all of its version,
    which is a number that no unfinished run has used."""
    of_records = [version for kind, version in messages if kind == RECORD]
    kind, version = messages[-1] if messages else (None, None)
    activated = kind == ACTIVATE and bool(of_records) and isinstance(version, int)
    is_proof = fresh and activated and all(version == other for other in of_records)
    expected = Proof.ACTIVATE_VERSION if is_proof else Proof.END_OF_INPUT
    assert expected is proof(heard(*messages), version_is_fresh=fresh)


@pytest.mark.parametrize(
    ("expected", "messages"),
    [
        (True, [(RECORD, 5), (ACTIVATE, 5)]),
        (True, [(ACTIVATE, 5), (RECORD, 5), (RECORD, 5), (ACTIVATE, 5)]),
        (True, [(RECORD, 5), (ACTIVATE, 5), (RECORD, 5), (ACTIVATE, 5), (ACTIVATE, 5)]),
        (False, []),
        (False, [(ACTIVATE, 5)]),
        (False, [(RECORD, 5)]),
        (False, [(ACTIVATE, 5), (RECORD, 5)]),
        (False, [(RECORD, 5), (ACTIVATE, 5), (RECORD, 5)]),
        (False, [(RECORD, 5), (ACTIVATE, 6)]),
        (False, [(RECORD, 5), (RECORD, 6), (ACTIVATE, 6)]),
        (False, [(RECORD, 5), (RECORD, 6), (RECORD, 5), (ACTIVATE, 5)]),
        (False, [(RECORD, 5), (RECORD, None), (ACTIVATE, 5)]),
        (False, [(RECORD, None), (RECORD, 5), (ACTIVATE, 5)]),
        (False, [(RECORD, None), (ACTIVATE, None)]),
        (False, [(RECORD, 5), (ACTIVATE, None)]),
    ],
    ids=[
        "after the records",
        "before and after",
        "again after more records",
        "nothing at all",
        "without records",
        "none",
        "before the records",
        "record after it",
        "another version",
        "two versions",
        "two versions in turns",
        "record without a version",
        "first record without a version",
        "no version anywhere",
        "no version in it",
    ],
)
def test_where_an_activated_version_stands(expected, messages):
    """Only an ACTIVATE_VERSION that closes all records of one version is proof."""
    assert (Proof.ACTIVATE_VERSION if expected else Proof.END_OF_INPUT) is proof(heard(*messages))


ODD_VERSIONS = [True, 1.0, Decimal(1), "1", "", [1], {"a": 1}, [], 1.5, Decimal("1.5"), None]


@pytest.mark.parametrize("odd", ODD_VERSIONS, ids=repr)
@pytest.mark.parametrize(
    "kinds",
    [
        (RECORD, ACTIVATE),
        ((RECORD, 1), RECORD, ACTIVATE),
        ((RECORD, 1), RECORD, (ACTIVATE, 1)),
        (RECORD, (RECORD, 1), (ACTIVATE, 1)),
        (RECORD, (ACTIVATE, 1)),
        ((RECORD, 1), ACTIVATE),
    ],
    ids=[
        "everywhere",
        "from the second record on",
        "second record",
        "first record",
        "all records",
        "activated",
    ],
)
def test_a_version_of_another_type_is_no_proof(odd, kinds):
    """A version that is no integer proves nothing and stops no run, though it equals one."""
    messages = [(kind, odd) if isinstance(kind, str) else kind for kind in kinds]
    assert Proof.END_OF_INPUT is proof(heard(*messages))


@given(st.lists(versions, max_size=8))
def test_a_version_is_told_when_it_is_met(read):
    """Reading a record says whether its version is new, so that its use can be noted once."""
    completeness = Completeness("s", None)
    seen = []
    for version in read:
        known = version if type(version) is int else None
        assert (known not in seen) == completeness.read(version)
        seen.append(known)
    assert len(read) == completeness.records
    is_one = bool(seen) and isinstance(seen[0], int) and all(seen[0] == other for other in seen)
    assert (seen[0] if is_one else None) == completeness.version


@pytest.mark.parametrize("tap_succeeded", [True, False])
@pytest.mark.parametrize("fresh", [True, False])
def test_a_rejected_row_leaves_no_proof(tap_succeeded, fresh):
    """Promise 4: somebody may be missing, whatever else shows that all rows have come."""
    completeness = heard((RECORD, 5), (ACTIVATE, 5), rejected=1)
    completeness.expect(1)
    completeness.check()
    assert Proof.NO is proof(completeness, tap_succeeded=tap_succeeded, version_is_fresh=fresh)


@pytest.mark.parametrize(
    ("expected", "completeness", "tap_succeeded"),
    [
        (Proof.COUNT, counted(2, 2, records=2), False),
        (Proof.COUNT, counted(2, 2, records=2), True),
        (Proof.ACTIVATE_VERSION, heard((RECORD, 5), (ACTIVATE, 5)), True),
        (Proof.TAP_EXIT, heard((RECORD, 5)), True),
        (Proof.TAP_EXIT, heard(), True),
        (Proof.END_OF_INPUT, heard(), False),
        (Proof.END_OF_INPUT, counted(records=0), False),
        (Proof.END_OF_INPUT, counted(records=3), False),
    ],
    ids=[
        "count",
        "count and exit",
        "version and exit",
        "exit",
        "exit and no row",
        "no row",
        "no row to count",
        "no count read",
    ],
)
def test_what_is_proof(expected, completeness, tap_succeeded):
    """A right row count, an activated version or the tap's exit code is proof, and nothing else."""
    assert expected is proof(completeness, tap_succeeded=tap_succeeded)


def as_tap(count):
    """The ways to write a row count."""
    return st.sampled_from([count, str(count), f"0{count}", Decimal(count), Decimal(f"{count}.00")])


@given(st.data(), st.integers(1, 9), st.integers(1, 9))
def test_a_row_count_is_compared_with_the_rows_read(data, expected, records):
    """A count is proof if it is that of the rows, and an error if not; numbers, digits and
    integral decimals mean the same."""
    values = data.draw(st.lists(as_tap(expected), min_size=1, max_size=4))
    if expected == records:
        assert Proof.COUNT is proof(counted(*values, records=records))
        return
    with pytest.raises(InputError) as raised:
        counted(*values, records=records)
    assert f"should have {expected} rows, and {records} were read" in str(raised.value)
    assert "expected_count_column 'n': the stream 's'" in str(raised.value)


@given(st.data(), st.integers(1, 9), st.integers(1, 9))
def test_row_counts_must_agree(data, first, second):
    """Two rows that say different counts are an error at once, even beside rows that agree."""
    values = data.draw(st.lists(as_tap(first), min_size=1, max_size=3))
    other = data.draw(as_tap(second))
    if first == second:
        counted(*values, other, records=first)
        return
    with pytest.raises(InputError, match=f"one row says {first}, another {second}, so"):
        counted(*values, other, records=first)


@pytest.mark.parametrize("before", [[], [1], [1, "1"]], ids=["first row", "second row", "third"])
@pytest.mark.parametrize(
    "value",
    [
        None,
        msgspec.UNSET,
        "",
        "1.0",
        " 1",
        "-1",
        "\u0661",
        "\u00b2",
        "one",
        "9" * 5_000,
        True,
        False,
        1.0,
        1.5,
        Decimal("1.5"),
        Decimal("NaN"),
        Decimal("Infinity"),
        [1],
        {"n": 1},
    ],
    ids=lambda value: repr(value)[:20],
)
def test_a_row_without_a_count_is_an_error(before, value):
    """What is no whole number is no row count, whatever the rows before said."""
    with pytest.raises(InputError, match="a row has no row count there") as raised:
        counted(*before, value, records=1)
    assert "expected_count_column 'n' of the stream 's'" in str(raised.value)


@pytest.mark.parametrize(
    "values",
    [[-1], [0], [2**200], [Decimal("1E+5000")], [1, Decimal("1E+5000")], ["9" * 99]],
    ids=["negative", "zero", "large", "exponent", "exponent later", "digits"],
)
def test_a_count_that_cannot_be_is_an_input_error(values):
    """A count that no stream has is told like any wrong one, with no other kind of error."""
    with pytest.raises(InputError):
        counted(*values, records=1)


def bookmark(**bookmarks):
    return json.dumps({"bookmarks": bookmarks}).encode()


KEY = {"replication_key": "updated_at", "replication_key_value": "2026-01-01"}


@pytest.mark.parametrize(
    ("expected", "state"),
    [
        ("s", bookmark(s=KEY)),
        ("s", bookmark(other=KEY, s=KEY)),
        ("s", bookmark(s={"replication_key_value": 0})),
        ("s", bookmark(s={"partitions": [{"context": {}}, {"context": {}, **KEY}]})),
        ("s", bookmark(s={"partitions": [None, KEY]})),
        ("s", b'{"bookmarks":{"s":{"replication_key_value":1e999}}}'),
        ("s", b'{"bookmarks":{"s":{"replication_key_value":5},"o":{"x":1e999}}}'),
        ("s", b'{"bookmarks":{"s":{"replication_key_value":5},"o":{"x":"\\ud800"}}}'),
        ("s", b'{"bookmarks":{"s":{"replication_key_value":5}},"x":"\\ud800"}'),
        ("t", bookmark(s={}, t=KEY)),
        (None, bookmark()),
        (None, bookmark(other=KEY)),
        (None, bookmark(s={})),
        (None, bookmark(s={"replication_key_value": None, "replication_key": "id"})),
        (None, bookmark(s={"partitions": []})),
        (None, bookmark(s={"partitions": [{"replication_key_value": None}, 5, "x"]})),
        (None, bookmark(s={"partitions": KEY})),
        (None, bookmark(s="replication_key_value")),
        (None, bookmark(s=[KEY])),
        (None, json.dumps({"s": KEY}).encode()),
        (None, json.dumps({"bookmarks": [["s", KEY]]}).encode()),
        (None, b'{"bookmarks":null}'),
        (None, b'{"bookmarks":"s"}'),
        (None, b"{}"),
        (None, b"null"),
        (None, b"5"),
        (None, b'["bookmarks"]'),
    ],
    ids=[
        "bookmark",
        "beside another stream",
        "zero",
        "partition",
        "odd partition beside it",
        "number beyond all bounds",
        "such a number elsewhere",
        "half a surrogate pair in another bookmark",
        "half a surrogate pair elsewhere",
        "second stream",
        "no bookmarks",
        "another stream",
        "empty",
        "null",
        "no partitions",
        "partitions without",
        "partitions are an object",
        "text",
        "list",
        "not among bookmarks",
        "bookmarks are a list",
        "bookmarks are null",
        "bookmarks are text",
        "empty state",
        "null state",
        "number",
        "list for a state",
    ],
)
def test_a_bookmark_with_a_key_value_is_found(expected, state):
    """A snapshot's stream that a tap reads on from a replication key is named, whatever else the
    STATE holds."""
    assert expected == bookmarked_stream(state, ["s", "t"])


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text("a\u00e9"),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["bookmarks", "s", "partitions", "replication_key_value", "x"]), inner
        )
    ),
)


@given(json_values)
@example({"bookmarks": {"s": {"partitions": [{"partitions": [KEY]}]}}})
def test_any_state_can_be_looked_into(value):
    """A STATE of any shape is searched without an error, and only for the given streams."""
    assert bookmarked_stream(json.dumps(value).encode(), {"s"}) in {"s", None}
    assert None is bookmarked_stream(json.dumps(value).encode(), set())


@st.composite
def removals_of(draw):
    """A base, and how many of it are to leave."""
    base = draw(sizes)
    return base, draw(st.integers(0, base) | st.integers(0, min(base, 25)))


@given(removals_of(), sizes, percents, st.booleans())
def test_the_guard(counts, desired, percent, proven):
    """Without proof at most max_removal_percent of the base leave; with proof that, or 20; and a
    cohort is emptied with 100 % and proof only."""
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
    """most_leaving is the largest number that the guard lets leave a cohort that nobody joins."""
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
        most = most_leaving(base=base, max_removal_percent=percent, proven=proven)
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
    """The bounds are exact: what is at a bound goes, what is one member above it does not."""
    against = guard(
        base=base, removals=removals, desired=desired, max_removal_percent=percent, proven=proven
    )
    assert allowed == (against is None)
    if against is not None:
        assert f"max_removal_percent {100 if not desired else percent}" in against
        look = "nothing shows that the tap succeeded, so look at its messages first"
        assert (not desired and not proven) == (look in against)


def counts(*, kept=0, gone=0, linked=0, new=0, resent=0, in_doubt=0, strays=0):
    """The numbers of a plan, from who stays, leaves, is linked, joins, and is sent again."""
    base, desired = kept + gone + linked, kept + new
    return DiffCounts(
        desired=MemberSet(desired, ""),
        accepted=MemberSet(base - strays, ""),
        in_doubt=in_doubt,
        base=base,
        joining=new,
        additions=new + resent,
        removals=gone,
        unchanged=kept - resent,
        dropped=linked,
    )


@st.composite
def plans(draw):
    """The numbers of any plan of a mirror, and what it does."""
    small = st.integers(0, 30) | st.integers(0, 3)
    kept, gone, new = draw(small), draw(small), draw(small)
    linked = draw(st.integers(0, min(3, kept + new)))  # each stands beside someone desired
    parts = {"kept": kept, "gone": gone, "new": new, "linked": linked}
    in_doubt = draw(st.integers(0, kept + gone + linked))
    return parts, counts(
        **parts,
        resent=draw(st.integers(0, kept)),
        in_doubt=in_doubt,
        strays=draw(st.integers(0, in_doubt)),
    )


rules = st.builds(
    Rules,
    max_removal_percent=st.sampled_from([0, 10, 50, 99, 100]),
    max_addition_percent=st.none() | percents,
    deferred=st.booleans(),
    seals=st.booleans(),
)
proofs = st.sampled_from(Proof)


def rules_of(*, removal=10, addition=None, deferred=False, seals=False):
    return Rules(
        max_removal_percent=removal, max_addition_percent=addition, deferred=deferred, seals=seals
    )


@given(plans(), rules, proofs)
def test_the_fate_of_removals(plan, rules, proof):
    """Promise 4: nobody is removed after an input with a fault; deferred removals wait; others go
    within the guard, or are withheld."""
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
        assert few or share <= Fraction(rules.max_removal_percent, 100)
    else:
        assert Disposition.WITHHELD is fate


EXCHANGE = ({"gone": 5, "new": 5}, counts(gone=5, new=5))


@given(plans(), rules, proofs)
@example(EXCHANGE, rules_of(removal=100, addition=0), Proof.END_OF_INPUT)
@example(EXCHANGE, rules_of(addition=0), Proof.COUNT)
def test_a_cohort_is_emptied_with_proof_only(plan, rules, proof):
    """Whatever part of a plan is delivered, nobody being left needs 100 % and proof."""
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
    """Additions are withheld where more members join than max_addition_percent of the base, if
    the cohort is not new; members who are sent again do not count."""
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
    """A person is told why something is withheld, or left although it differs, and only then."""
    parts, differs = plan
    decision = decide(differs, rules, proof)
    is_held = Disposition.WITHHELD in {decision.additions, decision.removals}
    is_left = decision.removals is Disposition.LEFT and parts["gone"] > 0
    assert (is_held or is_left) == (decision.reason is not None)


@given(plans(), rules, proofs)
def test_what_seals(plan, rules, proof):
    """A one_time stream is sealed by proof, with all its additions delivered."""
    _, differs = plan
    decision = decide(differs, rules, proof)
    assert decision.seals == (
        rules.seals and proof.is_proof and decision.additions is Disposition.DELIVERED
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
    """One half of a plan that is held back does not hold back the other."""
    decision = decide(differs, rules, proof)
    fates = {"additions": decision.additions, "removals": decision.removals}
    held = [
        f"{half} {fate.value}" for half, fate in fates.items() if fate is not Disposition.DELIVERED
    ]
    assert expected == ("; ".join(held) or "both delivered")


def test_growth_of_a_one_time_cohort_is_guarded(tmp_path):
    """Members who stay only because nobody is removed make no room for others to join."""
    settings = load(
        {
            "workspace_id": "ws",
            "data_api_key": "key",
            "data_center": "02",
            "partner": "acme",
            "ledger_uri": str(tmp_path / "ledger"),
        }
    ).settings
    with Ledgers(settings, run_id="r", wait=lambda _seconds: False) as ledgers:
        ledger = ledgers.open(Cohort("c", "c"), "s")
        ledger.accepted(ledger.sent(Action.ADD, [Member(f"old {n}") for n in range(10)], 1))
        staging = ledgers.staging()
        staging.append(None, [f"new {n}" for n in range(10)], None, None)
        differs = staging.difference(ledger, 0, keeps=True).differs
        decision = decide(differs, rules_of(addition=50, seals=True), Proof.END_OF_INPUT)
        staging.close()
    assert (10, 0) == (differs.additions, differs.removals)
    assert Disposition.WITHHELD is decision.additions


def test_no_record_of_a_version_is_no_proof():
    """An ACTIVATE_VERSION after files without a row proves nothing."""
    completeness = Completeness("s", None)
    assert not completeness.read(7, 0)
    completeness.activate(7)
    assert Proof.END_OF_INPUT is completeness.proof(tap_succeeded=False, version_is_fresh=True)
