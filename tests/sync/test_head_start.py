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
LONG = "x" * 190  # four members of such ids have room in a body


def people(count):
    return [f"u{number:04}-{LONG}" for number in range(count)]


def rows(*uids):
    return [record(uid=uid) for uid in uids]


def members(emulator, cohort="users"):
    return {member.uid for member in emulator.members(cohort)}


def test_a_new_cohort_is_sent_while_its_rows_are_still_read(emulator):
    """The first members of a new mirror are with MoEngage before the tap has sent its last row."""
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
    """All bodies but the last one are full, and nobody is sent twice who has several rows."""
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
    """A cohort with members waits for the end of its input: only the difference is sent."""
    run(emulator, lines(schema(), *rows(*people(20))), **SMALL)
    seen = run(emulator, lines(schema(), *rows(*people(21))), **SMALL)
    assert [1] == [len(one.body["parameters"]["members"]) for one in seen.attempts]


def test_a_cut_input_after_a_head_start_removes_nobody(emulator):
    """Who has left early stays, and STATE is not written, if the rest of the input is broken."""
    seen = run(emulator, lines(schema(), *rows(*people(20)), b"{", state({"at": 1})), **SMALL)
    assert "failed" == seen.report.status
    assert [] == seen.states
    assert {*people(20)} == members(emulator)


@pytest.mark.parametrize("mode", ["mirror", "one_time"])
def test_a_stream_that_may_say_no_gets_no_head_start(emulator, mode):
    """Where a later row may delete somebody, nobody is sent before all rows are there."""
    whom = people(40)
    deleted = [record(uid=uid, _sdc_deleted_at="2026-11-22") for uid in whom[:30]]
    data = lines(schema(columns=COLUMNS), *rows(*whom), *deleted)
    seen = run(emulator, data, **SMALL | {"sync_mode": mode})
    assert "succeeded" == seen.report.status
    assert {*whom[30:]} == members(emulator)


def test_a_deletion_that_no_schema_told_of_makes_no_number_negative(emulator):
    """Where a row deletes somebody who has left early, the report has no number below zero."""
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
ROW = st.tuples(
    st.sampled_from([*people(8), None]),
    st.sampled_from(["a1", "a2", None]),
    st.sampled_from([None, None, None, "2026-11-22"]),
).filter(lambda row: row[0] or row[1])


@settings(max_examples=30)
@given(st.lists(ROW, max_size=40), st.sampled_from(["proven", "no"]), MODES)
@example([("u", "a1", None)] * 9 + [("u", None, None)] * 9, "proven", "mirror")
@example([(None, "a1", None)] * 4 + [(uid, None, None) for uid in people(8)], "no", "one_time")
def test_a_head_start_changes_nothing_in_the_end(given_rows, proof, mode):
    """Whatever rows come, the cohort is that of a run which reads all before it sends anything."""
    columns = COLUMNS[: 2 + any(deleted for _, _, deleted in given_rows)]
    exits = {"tap_exit": lambda: 0} if proof == "proven" else {}
    messages = [
        schema(columns=columns),
        *(record(**dict(zip(columns, row, strict=False))) for row in given_rows),
    ]
    found = []
    for piecemeal in (True, False):
        options = SMALL | {"anonymous_id_column": "anonymous_id", "piecemeal": piecemeal}
        options |= {"sync_mode": mode}
        with (
            Emulator(requests_per_minute=UNLIMITED) as emulator,
            tempfile.TemporaryDirectory() as folder,
        ):
            seen = run(emulator, lines(*messages), ledger_uri=folder, **exits, **options)
            (cohort,) = seen.report.cohorts
            told = (seen.report.status, cohort.added, cohort.removed, cohort.unchanged)
            found.append((emulator.members("users"), told))
    assert found[0] == found[1]
