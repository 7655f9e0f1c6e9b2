"""Configured streams of which a complete input has nothing."""

import json
import logging

import pytest

from tests.support.logs import Warned, codes, warnings
from tests.support.singer import lines, record, run, schema, state

CODE = "stream_without_input"
COHORTS = {"users": {}, "vip": {"cohort_id": "v", "cohort_name": "VIP"}, "other": {}}


@pytest.fixture(params=["mirror", "incremental"])
def read(emulator, tmp_path, request):
    """Runs on an input that has some of the configured streams."""

    def go(*streams, after=(), **settings):
        options = {"ledger_uri": str(tmp_path / "ledger"), "sync_mode": request.param}
        messages = [
            each for name in streams for each in (schema(name), record(name, uid=f"{name}-1"))
        ]
        return run(
            emulator,
            lines(*messages, state({"streams": streams}), *after),
            **options | {"cohorts": COHORTS} | settings,
        )

    return go


def missing(caplog):
    return {each.stream for each in warnings(caplog) if each.code == CODE}


def test_a_missing_stream_is_a_row_and_a_warning(read, caplog):
    """Summary and report have a row "no input" with the cohort's names; the run succeeds."""
    caplog.set_level(logging.INFO)
    seen = read("users", "other")
    assert Warned(CODE, "vip", None) in warnings(caplog)
    (row,) = (each for each in seen.report.cohorts if each.status == "no_input")
    assert ("v", "VIP", "vip", 0) == (row.cohort_id, row.cohort_name, row.stream, row.records)
    assert ("succeeded", 0) == (seen.report.status, seen.report.exit_code)
    summary = caplog.records[-1].getMessage()
    assert "no input" in next(each for each in summary.splitlines() if each.startswith("v "))
    assert CODE in summary


def test_with_fail_a_missing_stream_is_the_only_thing_that_fails(emulator, read, caplog):
    """Everything else is delivered and STATE passes; the run ends with 1 and names the stream."""
    seen = read("users", on_missing_stream="fail")
    assert (CODE, 1) == (seen.error.code, seen.report.exit_code)
    assert "'vip'" in str(seen.error)
    assert "'other'" in str(seen.error)
    assert [{"streams": ["users"]}] == seen.states
    assert {"users-1"} == {member.uid for member in emulator.members("users")}
    statuses = {each.stream: each.status for each in seen.report.cohorts}
    assert {"users": "succeeded", "vip": "no_input", "other": "no_input"} == statuses
    assert CODE not in codes(caplog)  # it is the error


def test_two_taps_may_share_one_configuration(read, caplog):
    """A stream whose last input came without this run's streams is another tap's."""
    read("users", "other")
    read("vip")
    caplog.clear()
    for streams in (("users", "other"), ("vip",), ("other", "users")):
        assert read(*streams, on_missing_stream="fail").error is None
    assert set() == missing(caplog)


def test_a_stream_is_missed_by_the_tap_that_had_it(read, caplog):
    """It is missed in every later run of that tap, not only in the first one."""
    read("users", "vip", "other")
    for _ in range(3):
        caplog.clear()
        read("users", "other")
        assert {"vip"} == missing(caplog)


def test_a_stream_that_moved_to_another_tap_is_missed_there(read, caplog):
    """The run that read a stream last decides which tap misses it."""
    read("users", "vip")
    read("vip", "other")
    caplog.clear()
    read("users")
    assert set() == missing(caplog)
    read("other")
    assert {"vip"} == missing(caplog)


def test_an_input_without_any_stream_misses_all(read):
    """A tap that has sent nothing at all is another tap's run to nobody."""
    read("users", "vip", "other")
    seen = read(on_missing_stream="fail")
    assert CODE == seen.error.code
    assert {"no_input"} == {each.status for each in seen.report.cohorts}
    assert 3 == len(seen.report.cohorts)


def test_a_cut_input_misses_nothing(read, caplog):
    """Only a complete input says that a stream is missing."""
    seen = read("users", after=[b"{broken"], on_missing_stream="fail")
    assert "invalid_json" == seen.error.code
    assert "no_input" not in {each.status for each in seen.report.cohorts}
    assert set() == missing(caplog)


def test_a_stream_without_rows_has_input(read, caplog):
    """A SCHEMA without rows is an input: the view is empty."""
    seen = read("users", "other", after=[schema("vip")], on_missing_stream="fail")
    assert seen.error is None
    assert set() == missing(caplog)


def test_a_dry_run_misses_it_likewise(read, caplog):
    """A dry run has the row and the warning, too."""
    read("users", "other", "vip")
    caplog.clear()
    seen = read("users", "other", dry_run=True)
    assert {"vip"} == missing(caplog)
    assert {"dry_run", "no_input"} == {each.status for each in seen.report.cohorts}


@pytest.mark.parametrize("is_under_meltano", [True, False])
def test_the_message_names_meltano_s_remedy(read, monkeypatch, is_under_meltano):
    """Under Meltano the message names --refresh-catalog; elsewhere there is no such option."""
    if is_under_meltano:
        monkeypatch.setenv("MELTANO_PROJECT_ROOT", "/project")
    seen = read("users", "other")
    (warned,) = (each for each in seen.report.warnings if each.code == CODE)
    assert ("--refresh-catalog" in warned.message) is is_under_meltano


def test_a_fan_out_without_input_has_a_row_with_its_stream(read, caplog):
    """Its cohorts are not known; the row has the stream's name."""
    caplog.set_level(logging.INFO)
    seen = read("users", cohorts={"users": {}, "segments": {"cohort_id_column": "sid"}})
    (row,) = (each for each in seen.report.cohorts if each.status == "no_input")
    assert (None, "segments") == (row.cohort_id, row.stream)
    assert "\nsegments " in "\n" + caplog.records[-1].getMessage()
    json.dumps(row.cohort_id)
