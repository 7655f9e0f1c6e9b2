"""`moengage-cohort ledger retire`, and runs that meet a retired cohort."""

import json

import pytest

from target_moengage_cohort.core.membership import Cohort
from tests.cli.conftest import people
from tests.support.singer import lines, record, run, schema, state


@pytest.fixture
def retired(desk):
    """A desk with a cohort `old` that was retired, and a cohort `vip`, of one stream."""
    for cohort in ("old", "vip"):
        desk.fill(cohort, people(1, 2), stream="users")
    result = desk.run("ledger", "retire", "old", "--yes")
    assert 0 == result.exit_code, result.output
    return desk


def test_retire_asks_and_empties(desk):
    """ledger retire asks, removes all members, and does so once."""
    desk.fill("old", people(1, 2))
    assert 1 == desk.run("ledger", "retire", "old", text="n\n").exit_code
    assert 2 == len(desk.there("old"))
    assert 0 == desk.run("ledger", "retire", "old", text="y\n").exit_code
    assert set() == desk.there("old") == desk.accepted("old")
    assert "already retired" in desk.run("ledger", "retire", "old").stdout


def test_a_cohort_that_was_not_emptied_is_not_retired(desk):
    """If MoEngage rejects a removal, the cohort stays as it is for everybody."""
    whom = people(1, 2)
    desk.fill("old", whom)
    desk.emulator.poison([whom[0].uid])
    assert 1 == desk.run("ledger", "retire", "old", "--yes").exit_code
    with desk.ledger("old") as ledger:
        assert not ledger.entry.is_retired


def test_status_shows_it_in_json_only(retired):
    """status hides a retired cohort, resync leaves it alone, and --json has it."""
    text = retired.run("status").stdout
    assert ("old" in text.split(), "vip" in text.split()) == (False, True)
    cohorts = json.loads(retired.run("status", "--json").stdout)["cohorts"]
    assert {"old": True, "vip": False} == {each["cohort_id"]: each["retired"] for each in cohorts}
    assert "'old'" not in retired.run("resync", "--yes").stdout


def test_its_name_stays_reserved(retired):
    """No other cohort can take the name of a retired one."""
    assert 1 == retired.run("ledger", "rename", "vip", "old").exit_code
    retired.raw["cohorts"] = {"new": {"cohort_name": "old"}}
    seen = run(
        retired.emulator,
        lines(schema("new"), record("new", uid="1")),
        ledger_uri=retired.raw["ledger_uri"],
        cohorts=retired.raw["cohorts"],
    )
    assert "name_taken" == seen.error.code


@pytest.mark.parametrize("mode", ["incremental", "mirror"])
@pytest.mark.parametrize("stream", ["old", "users"])
def test_a_mapping_to_it_is_refused(retired, mode, stream):
    """A run whose mapping names a retired cohort fails with its code and sends nothing for it,
    whatever the stream; check says so, too."""
    cohorts = {stream: {"cohort_id": "old", "sync_mode": mode}}
    seen = run(
        retired.emulator,
        lines(schema(stream), record(stream, uid="1"), state({"a": 1})),
        ledger_uri=retired.raw["ledger_uri"],
        cohorts=cohorts,
    )
    assert ("cohort_retired", [], []) == (seen.error.code, seen.attempts, seen.states)
    retired.raw["cohorts"] = cohorts
    result = retired.run("check")
    assert (1, True) == (result.exit_code, "was retired" in result.stderr)


def test_rows_of_it_are_rejected_alone(retired):
    """Rows of a retired cohort are rejected; the other cohorts of their stream are synced, and it
    does not count as vanished."""
    rows = [record(uid="planted-0003", cohort=cohort) for cohort in ("old", "vip")]
    seen = run(
        retired.emulator,
        lines(schema(columns=("uid", "cohort")), *rows),
        ledger_uri=retired.raw["ledger_uri"],
        cohorts={"users": {"cohort_id_column": "cohort", "sync_mode": "incremental"}},
        on_reject="skip",
        rejects_path=str(retired.folder / "rejects"),
    )
    assert seen.error is None
    assert ["old"] == [
        json.loads(line)["record"]["cohort"]
        for line in (retired.folder / "rejects").read_text().splitlines()
        if "RECORD" in line
    ]
    assert set() == retired.there("old")
    assert 3 == len(retired.there("vip"))


def test_a_fan_out_without_rows_of_it_is_whole(retired):
    """A fan-out mirror whose stream has had a retired cohort runs without an error."""
    rows = [record(uid=f"planted-{number:04d}", cohort="vip") for number in (1, 2)]
    seen = run(
        retired.emulator,
        lines(schema(columns=("uid", "cohort")), *rows, state({"a": 1})),
        ledger_uri=retired.raw["ledger_uri"],
        cohorts={"users": {"cohort_id_column": "cohort", "sync_mode": "mirror"}},
    )
    assert (None, [{"a": 1}], []) == (seen.error, seen.states, seen.attempts)


def test_adopt_refuses_it(retired):
    """adopt does not fill a retired cohort."""
    path = retired.folder / "members.csv"
    path.write_text("uid\nplanted-0001\n")
    result = retired.run("adopt", "old", "--csv", str(path))
    assert (1, True) == (result.exit_code, "was retired" in result.stderr)
    with retired.ledgers() as ledgers:
        assert 0 == ledgers.open_known("old").numbers().base
        assert ledgers.open(Cohort("vip", "vip"), "users").exists
