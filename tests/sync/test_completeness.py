from __future__ import annotations

from decimal import Decimal

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import example, given

from target_moengage_cohort.core.errors import InputError
from target_moengage_cohort.sync.mirror.completeness import (
    Completeness,
    Proof,
    check_tap_exit,
)

RECORD, ACTIVATE = "record", "activate"
PROOFS = [proof for proof in Proof if proof.is_proof]


def heard(*messages, rejected=0):
    """Return the completeness after messages, each given as its kind and version."""
    completeness = Completeness("s", None)
    for kind, version in messages:
        if kind == RECORD:
            completeness.count(version, 1)
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
        completeness.count(None, 1)
    completeness.check()
    return completeness


def test_only_more_than_an_end_of_input_is_proof():
    """Neither an input that merely ended nor one that failed proves anything."""
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
    """A version that is not an integer proves nothing and stops no run, even if it equals one."""
    messages = [(kind, odd) if isinstance(kind, str) else kind for kind in kinds]
    assert Proof.END_OF_INPUT is proof(heard(*messages))


@given(st.lists(versions, max_size=8))
def test_records_of_one_version_have_it(read):
    """The version is that of all records, and none if they have several or another type."""
    completeness = Completeness("s", None)
    seen = []
    for version in read:
        completeness.count(version, 1)
        seen.append(version if type(version) is int else None)
    assert len(read) == completeness.records
    is_one = bool(seen) and isinstance(seen[0], int) and all(seen[0] == other for other in seen)
    assert (seen[0] if is_one else None) == completeness.version


@pytest.mark.parametrize("tap_succeeded", [True, False])
@pytest.mark.parametrize("fresh", [True, False])
def test_a_rejected_row_leaves_no_proof(tap_succeeded, fresh):
    """Promise 4: a member may be missing, whatever else proves that all rows have arrived."""
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
    """Only a right row count, an activated version or the tap's exit code is proof."""
    assert expected is proof(completeness, tap_succeeded=tap_succeeded)


def as_tap(count):
    """Return a strategy for the ways to write a row count."""
    return st.sampled_from([count, str(count), f"0{count}", Decimal(count), Decimal(f"{count}.00")])


@given(st.data(), st.integers(1, 9), st.integers(1, 9))
def test_a_row_count_is_compared_with_the_rows_read(data, expected, records):
    """A row count is proof if it equals the number of rows, and otherwise an error. Numbers, digits
    and integral decimals are equivalent."""
    values = data.draw(st.lists(as_tap(expected), min_size=1, max_size=4))
    if expected == records:
        assert Proof.COUNT is proof(counted(*values, records=records))
        return
    with pytest.raises(InputError) as raised:
        counted(*values, records=records)
    assert "count_mismatch" == raised.value.code


@given(st.data(), st.integers(1, 9), st.integers(1, 9))
def test_row_counts_must_agree(data, first, second):
    """Two rows with different counts are an error immediately, even among rows that agree."""
    values = data.draw(st.lists(as_tap(first), min_size=1, max_size=3))
    other = data.draw(as_tap(second))
    if first == second:
        counted(*values, other, records=first)
        return
    with pytest.raises(InputError) as raised:
        counted(*values, other, records=first)
    assert "count_mismatch" == raised.value.code


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
    """A value that is not a whole number is not a valid row count, whatever earlier rows had."""
    with pytest.raises(InputError) as raised:
        counted(*before, value, records=1)
    assert "no_row_count" == raised.value.code


@pytest.mark.parametrize(
    "values",
    [[-1], [0], [2**200], [Decimal("1E+5000")], [1, Decimal("1E+5000")], ["9" * 99]],
    ids=["negative", "zero", "large", "exponent", "exponent later", "digits"],
)
def test_a_count_that_cannot_be_is_an_input_error(values):
    """A count that no stream can have is reported like any wrong one."""
    with pytest.raises(InputError):
        counted(*values, records=1)


def test_no_record_of_a_version_is_no_proof():
    """An ACTIVATE_VERSION after files without a row proves nothing."""
    completeness = Completeness("s", None)
    completeness.count(7, 0)
    completeness.activate(7)
    assert Proof.END_OF_INPUT is completeness.proof(tap_succeeded=False, version_is_fresh=True)


@pytest.mark.parametrize(
    ("message", "counts", "records"),
    [
        ("the stream 's' should have 3 rows, but 2 were read", [3], 2),
        ("rows contain both 3 and 4, so the tap did not read a single snapshot", [3, 4], 2),
        ("a row contains no row count; select count(*) over () as that column", [None], 1),
    ],
    ids=["rows are missing", "two counts", "no count"],
)
def test_what_a_wrong_row_count_says(message, counts, records):
    """The message names the setting, its column, the numbers, and the remedy."""
    with pytest.raises(InputError) as raised:
        counted(*counts, records=records)
    assert str(raised.value).startswith("expected_count_column 'n'")
    assert message in str(raised.value)


@pytest.mark.parametrize(("how", "code"), [("with exit code 2", 2), ("by signal 9", -9)])
def test_a_tap_that_failed_is_an_error(how, code):
    """An exit code other than 0 is an error that says how the tap ended; 0 is none."""
    check_tap_exit(0)
    with pytest.raises(InputError) as raised:
        check_tap_exit(code)
    assert "tap_failed" == raised.value.code
    assert how in str(raised.value)
