from __future__ import annotations

import os
import tempfile
import threading

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


def test_a_new_cohort_is_sent_while_its_rows_are_still_read(emulator):
    """The first members of a new mirror reach MoEngage before the tap has sent its last row."""
    begun = threading.Event()
    read_end, write_end = os.pipe()
    found = []
    with os.fdopen(read_end, "rb") as source:
        running = threading.Thread(
            target=lambda: found.append(
                run(emulator, source, before=lambda *_: begun.set(), **SMALL)
            )
        )
        running.start()
        os.write(write_end, lines(schema(), *rows(*people(40))))
        assert begun.wait(30)
        os.write(write_end, lines(*rows("last"), state({"at": 1})))
        os.close(write_end)
        running.join()
    assert {*people(40), "last"} == members(emulator)
    assert [{"at": 1}] == found[0].states


def test_a_head_start_costs_no_request(emulator):
    """All bodies except the last are full, and no member with several rows is sent twice."""
    whom = people(41)
    seen = run(emulator, lines(schema(), *rows(*whom), *rows(*whom[:9])), **SMALL)
    assert [4] * 10 + [1] == [len(one.body["parameters"]["members"]) for one in seen.attempts]
    (cohort,) = seen.report.cohorts
    assert (41, 0, 0, 50) == (cohort.added, cohort.removed, cohort.unchanged, cohort.records)
    assert cohort.desired == cohort.accepted


@pytest.mark.parametrize("mode", ["mirror", "one_time"])
def test_growth_of_a_new_cohort_is_not_guarded_in_its_midst(emulator, mode):
    """A cohort that was new when the run began may have any size, whatever has left by then."""
    options = SMALL | {"sync_mode": mode, "max_addition_percent": 1}
    seen = run(emulator, lines(schema(), *rows(*people(30))), **options)
    assert "succeeded" == seen.report.status
    assert {*people(30)} == members(emulator)


def test_who_is_known_gets_no_head_start(emulator):
    """A cohort with members waits for the end of its input, and only the difference is sent."""
    run(emulator, lines(schema(), *rows(*people(20))), **SMALL)
    seen = run(emulator, lines(schema(), *rows(*people(21))), **SMALL)
    assert [1] == [len(one.body["parameters"]["members"]) for one in seen.attempts]


def test_a_cut_input_after_a_head_start_removes_nobody(emulator):
    """If the rest of the input is broken, members that were sent early stay, without a STATE."""
    seen = run(emulator, lines(schema(), *rows(*people(20)), b"{", state({"at": 1})), **SMALL)
    assert "failed" == seen.report.status
    assert [] == seen.states
    assert {*people(20)} == members(emulator)


@pytest.mark.parametrize("mode", ["mirror", "one_time"])
def test_a_stream_that_may_say_no_gets_no_head_start(emulator, mode):
    """If a later row may delete a member, no member is sent before all rows have arrived."""
    whom = people(40)
    deleted = [record(uid=uid, _sdc_deleted_at="2026-11-22") for uid in whom[:30]]
    data = lines(schema(columns=COLUMNS), *rows(*whom), *deleted)
    seen = run(emulator, data, **SMALL | {"sync_mode": mode})
    assert "succeeded" == seen.report.status
    assert {*whom[30:]} == members(emulator)


def test_a_stream_with_two_ids_gets_no_head_start(emulator):
    """If a later row may change a member's anonymous ID, each member is sent once, as it ends."""
    options = SMALL | {"anonymous_id_column": "anonymous_id"}
    early = [record(uid=uid, anonymous_id="a1") for uid in people(9)]
    late = [record(uid=uid, anonymous_id=None) for uid in people(1)]
    seen = run(emulator, lines(schema(columns=COLUMNS[:2]), *early, *late), **options)
    (cohort,) = seen.report.cohorts
    assert (9, 10) == (cohort.added, cohort.records)
    assert {None} == {one.anonymous_id for one in emulator.members("users") if one.uid in people(1)}


def test_a_deletion_that_no_schema_told_of_makes_no_number_negative(emulator):
    """If a row deletes a member that was sent early, no number in the report is below zero."""
    whom = people(40)
    deleted = [record(uid=uid, _sdc_deleted_at="2026-11-22") for uid in whom[:30]]
    seen = run(emulator, lines(schema(), *rows(*whom), *deleted), **SMALL)
    (cohort,) = seen.report.cohorts
    assert (40, 0, 0, 30) == (
        cohort.added,
        cohort.removed,
        cohort.unchanged,
        cohort.removals_withheld,
    )


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
def test_a_head_start_changes_nothing_in_the_end(drawn_rows, ids, proof, mode):
    """With any rows, the cohort equals that of a run which reads all rows before it sends
    anything."""
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
