from __future__ import annotations

import tempfile

import hypothesis.strategies as st
import pytest
from hypothesis import example, given, settings

from target_moengage_cohort.emulator import Emulator
from tests.support.singer import UNLIMITED, lines, record, run, schema, state

SMALL = {"sync_mode": "mirror", "max_payload_bytes": 1_000, "piecemeal": True}
COLUMNS = ("uid", "anonymous_id", "_sdc_deleted_at")
LONG = "x" * 190  # a body has room for four members with such ids


def people(count):
    return [f"u{number:04}-{LONG}" for number in range(count)]


def rows(*uids):
    return [record(uid=uid) for uid in uids]


def members(emulator, cohort="users"):
    return {member.uid for member in emulator.members(cohort)}


def test_all_bodies_of_a_new_mirror_are_full(emulator):
    """All bodies except the last are full, and no member with several rows is sent twice."""
    whom = people(41)
    seen = run(emulator, lines(schema(), *rows(*whom), *rows(*whom[:9])), **SMALL)
    assert [4] * 10 + [1] == [len(one.body["parameters"]["members"]) for one in seen.attempts]
    (cohort,) = seen.report.cohorts
    assert (41, 0, 0, 50) == (cohort.added, cohort.removed, cohort.unchanged, cohort.records)
    assert cohort.desired == cohort.accepted


@pytest.mark.parametrize("mode", ["mirror", "one_time"])
def test_growth_of_a_new_cohort_is_not_guarded(emulator, mode):
    """A cohort that was new when the run began may have any size."""
    options = SMALL | {"sync_mode": mode, "max_addition_percent": 1}
    seen = run(emulator, lines(schema(), *rows(*people(30))), **options)
    assert "succeeded" == seen.report.status
    assert {*people(30)} == members(emulator)


def test_only_the_difference_of_a_known_cohort_is_sent(emulator):
    """A cohort with members gets the members that are new."""
    run(emulator, lines(schema(), *rows(*people(20))), **SMALL)
    seen = run(emulator, lines(schema(), *rows(*people(21))), **SMALL)
    assert [1] == [len(one.body["parameters"]["members"]) for one in seen.attempts]


def test_a_cut_input_of_a_new_mirror_adds_members_without_a_state(emulator):
    """If the rest of the input is broken, the members before that are added, without a STATE."""
    seen = run(emulator, lines(schema(), *rows(*people(20)), b"{", state({"at": 1})), **SMALL)
    assert "failed" == seen.report.status
    assert [] == seen.states
    assert {*people(20)} == members(emulator)


@pytest.mark.parametrize("mode", ["mirror", "one_time"])
@pytest.mark.parametrize("is_declared", [True, False], ids=["declared", "undeclared"])
def test_a_member_whom_a_later_row_deletes_is_never_added(emulator, mode, is_declared):
    """No member is sent before all rows have arrived, because the last one may be a deletion,
    whatever the SCHEMA says."""
    whom = people(40)
    deleted = [record(uid=uid, _sdc_deleted_at="2026-11-22") for uid in whom[:30]]
    head = schema(columns=COLUMNS if is_declared else ("uid",))
    seen = run(emulator, lines(head, *rows(*whom), *deleted), **SMALL | {"sync_mode": mode})
    assert "succeeded" == seen.report.status
    assert {*whom[30:]} == members(emulator)
    (cohort,) = seen.report.cohorts
    assert (10, 0, 0) == (cohort.added, cohort.removed, cohort.removals_withheld)


def test_a_member_of_a_new_mirror_is_sent_once_as_it_ends(emulator):
    """If a later row changes a member's anonymous ID, the member is sent with the latter."""
    options = SMALL | {"anonymous_id_column": "anonymous_id"}
    early = [record(uid=uid, anonymous_id="a1") for uid in people(9)]
    late = [record(uid=uid, anonymous_id=None) for uid in people(1)]
    seen = run(emulator, lines(schema(columns=COLUMNS[:2]), *early, *late), **options)
    (cohort,) = seen.report.cohorts
    assert (9, 10) == (cohort.added, cohort.records)
    assert {None} == {one.anonymous_id for one in emulator.members("users") if one.uid in people(1)}


MODES = st.sampled_from(["mirror", "one_time"])
BOTH = ["uid", "anonymous_id"]
IDS = st.sampled_from([BOTH, ["uid"], ["anonymous_id"]])
ROW = st.tuples(
    st.sampled_from([*people(8), None]),
    st.sampled_from(["a1", "a2", None]),
    st.sampled_from([None, None, None, "2026-11-22"]),
).filter(lambda row: row[0] or row[1])


TWO_ANONYMOUS_IDS = [(uid, "a1", None) for uid in people(5)] * 2 + [("u0000-" + LONG, None, None)]


@settings(max_examples=30)
@given(st.lists(ROW, max_size=40), IDS, st.sampled_from(["proven", "no"]), MODES)
@example([("u", "a1", None)] * 9 + [("u", None, None)] * 9, BOTH, "proven", "mirror")
@example(
    [(None, "a1", None)] * 4 + [(uid, None, None) for uid in people(8)], BOTH, "no", "one_time"
)
@example(TWO_ANONYMOUS_IDS, BOTH, "proven", "mirror")
@example([(uid, None, None) for uid in people(8)] * 2, ["uid"], "proven", "mirror")
def test_a_new_mirror_in_pieces_equals_one_that_is_whole(drawn_rows, ids, proof, mode):
    """With any rows, the cohort equals that of a run which stages all rows together."""
    has_deletions = any(deleted for _, _, deleted in drawn_rows)
    columns = [*ids, *(["_sdc_deleted_at"] if has_deletions else [])]
    given_rows = [
        {column: row[COLUMNS.index(column)] for column in columns}
        for row in drawn_rows
        if any(row[COLUMNS.index(name)] for name in ids)
    ]
    exits = {"tap_exit": lambda: 0} if proof == "proven" else {}
    messages = [
        schema(columns=columns),
        *(record(**row) for row in given_rows),
    ]
    results = []
    for piecemeal in (True, False):
        options = SMALL | {"sync_mode": mode, "piecemeal": piecemeal}
        if "anonymous_id" in ids:
            options["anonymous_id_column"] = "anonymous_id"
        with (
            Emulator(requests_per_minute=UNLIMITED) as emulator,
            tempfile.TemporaryDirectory() as folder,
        ):
            seen = run(emulator, lines(*messages), ledger_uri=folder, **exits, **options)
            (cohort,) = seen.report.cohorts
            numbers = (seen.report.status, cohort.added, cohort.removed, cohort.unchanged)
            results.append((emulator.members("users"), numbers))
    assert results[0] == results[1]
