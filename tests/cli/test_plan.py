"""`moengage-cohort plan`: the changes and requests that a run would make."""

import json

import pytest

from tests.cli.conftest import people
from tests.support.singer import UNLIMITED, lines, record, run, schema, state

STAYING = people(*range(100, 120))
COUNTED = {"cohorts": {"vip": {"expected_count_column": "n"}}}


def tap(members, stream="vip", **row):
    """Return the output of a tap for some members, with a STATE at the end."""
    rows = [record(stream, uid=member.uid, **row) for member in members]
    return lines(schema(stream, ("uid", *row)), *rows, state({"at": "the end"}))


def planned(desk, data, *arguments):
    """Return the plans for an input, by cohort."""
    result = desk.run("plan", "--json", *arguments, text=data)
    assert 0 == result.exit_code
    return {each["cohort_id"]: each for each in json.loads(result.stdout)}


@pytest.fixture
def mirror(desk):
    """A desk whose streams are mirrors, at MoEngage's rate limit."""
    desk.raw |= {"sync_mode": "mirror", "requests_per_minute": 300}
    return desk


def test_every_number_of_a_plan_is_in_the_json(mirror):
    """--json has the changes, unconfirmed members, requests and the guard's decision per cohort."""
    mirror.fill("vip", [*STAYING, *people(1, 2)], name="Very important")
    mirror.raw |= {"cohorts": {"vip": {"cohort_name": "Very important"}}}
    mirror.emulator.fail_next(503, 1_000, applied=True)
    broken = mirror.raw | {"max_retry_seconds": 0}
    assert run(mirror.emulator, tap([*STAYING, *people(1, 2, 3, 4)]), **broken).error is not None
    mirror.emulator.clear_faults()
    found = planned(mirror, tap([*STAYING, *people(2, 3, 5)]))["vip"]
    size = found.pop("bytes")
    assert 300 < size < 800
    assert {
        "cohort_id": "vip",
        "cohort_name": "Very important",
        "stream": "vip",
        "sync_mode": "mirror",
        "desired": 23,
        "accepted": 22,
        "to_add": 2,
        "to_remove": 2,
        "unchanged": 21,
        "in_doubt": 2,
        "requests": 2,
        "minutes": 0.01,
        "complete": "end_of_input",
        "verdict": "within the guard",
    } == found


def test_a_run_takes_the_requests_of_its_plan(mirror):
    """A run sends as many requests, bytes, additions and removals as its plan says."""
    mirror.raw |= {"max_payload_bytes": 1_000, "max_removal_percent": 50}
    mirror.fill("vip", [*STAYING, *people(*range(20))])
    data = tap([*STAYING, *people(*range(15, 60))])
    plan = planned(mirror, data)["vip"]
    mirror.raw["requests_per_minute"] = UNLIMITED
    (done,) = run(mirror.emulator, data, **mirror.raw).report.cohorts
    assert (40, 15, 25) == (plan["to_add"], plan["to_remove"], plan["unchanged"])
    for name in ("requests", "bytes", "unchanged"):
        assert getattr(done, name) == plan[name]
    assert (done.added, done.removed) == (plan["to_add"], plan["to_remove"])
    assert done.desired.count == plan["desired"]
    assert plan["requests"] > 2
    assert round(plan["requests"] / 300, 2) == plan["minutes"]


def test_the_table_has_every_number_and_fits_a_terminal(mirror):
    """The table has a row per cohort with all its numbers, within 80 columns."""
    name = "A cohort whose name is longer than a column of a table may be, and\na line break"
    names = {"one": "one", "two": name, "three": "three"}
    for cohort in names.values():
        mirror.fill(cohort, [*STAYING, *people(1)], stream="fan")
    mirror.raw["cohorts"] = {"fan": {"cohort_id_column": "c"}}
    rows = [record("fan", uid=m.uid, c=name) for m in [*STAYING, *people(2, 3)]]
    rows += [record("fan", uid=m.uid, c="three") for m in people(*range(300, 340))]
    result = mirror.run("plan", text=lines(schema("fan", ("uid", "c")), *rows))
    assert 0 == result.exit_code
    lines_shown = result.stdout.splitlines()
    assert all(len(line) <= 80 for line in lines_shown)
    head, *table, total = [line for line in lines_shown if not line.startswith("  ")]
    for title in ("cohort", "desired", "accepted", "add", "remove", "unchanged", "unconfirmed"):
        assert title in head
    cells = {line.split()[0]: line.split()[1:] for line in table}
    assert {"A", "one", "three"} == cells.keys()
    assert "A cohort whose na… 22 21 2 1 20 0" == " ".join(table[0].split())
    assert ["0", "21", "0", "21", "0", "0"] == cells["one"]
    assert ["40", "21", "40", "21", "0", "0"] == cells["three"]
    assert total.startswith("total: 3 requests, ")
    shown = " ".join(result.stdout.split())
    assert 2 == shown.count("; withheld: ")


def test_the_table_has_the_requests_of_each_cohort(mirror):
    """Below a cohort's numbers are its requests, bytes and time."""
    mirror.fill("vip", STAYING)
    plan = planned(mirror, tap([*STAYING, *people(1)]))["vip"]
    shown = mirror.run("plan", text=tap([*STAYING, *people(1)])).stdout
    assert f"  1 request, {plan['bytes']} bytes, less than a minute at the rate limit" in shown


@pytest.mark.parametrize(
    ("settings", "desired", "verdict"),
    [
        ({}, [*STAYING, *people(1, 2)], "within the guard"),
        ({}, [*STAYING, *people(1)], "within the guard"),
        ({}, people(1), "withheld: the plan would remove 21 of 22 members "),
        ({"max_removal_percent": 100}, people(1), "within the guard"),
        ({}, [], "withheld: "),
        ({"removals": "deferred"}, people(1), "21 removals would stay pending until confirm; "),
        ({"removals": "deferred"}, [*STAYING, *people(1, 2)], "within the guard"),
        (
            {"max_addition_percent": 10},
            [*STAYING, *people(1, 2, 3, 4, 5)],
            "withheld: the plan would add 3 members to 22 ",
        ),
        ({"sync_mode": "one_time"}, people(3), "within the guard"),
        ({"sync_mode": "incremental"}, people(3), "no guard: the records define the removals"),
    ],
)
def test_the_verdict_is_that_of_the_run(mirror, settings, desired, verdict):
    """The plan has the guard's decision, and the run after it acts on that."""
    mirror.fill("vip", [*STAYING, *people(1, 2)])
    mirror.raw |= settings
    planned_verdict = planned(mirror, tap(desired))["vip"]["verdict"]
    assert planned_verdict.startswith(verdict)
    is_pending = "stay pending" in verdict
    assert is_pending == (
        "; the guard would then withhold them: the plan would remove 21 of " in planned_verdict
    )
    table = mirror.run("plan", text=tap(desired)).stdout
    assert planned_verdict in " ".join(table.split())
    mirror.raw["requests_per_minute"] = UNLIMITED
    report = run(mirror.emulator, tap(desired), **mirror.raw).report
    assert ("withheld" if verdict.startswith("withheld") else "succeeded") == report.status
    assert (report.cohorts[0].removals_waiting > 0) == is_pending


def test_proof_allows_a_few_removals(mirror):
    """With a row count the guard allows 20 removals, and the plan names the proof."""
    mirror.fill("vip", STAYING)
    mirror.raw |= COUNTED
    found = planned(mirror, tap(STAYING[:1], n=1))["vip"]
    assert ("count", "within the guard", 19) == tuple(
        found[name] for name in ("complete", "verdict", "to_remove")
    )


def test_a_sealed_cohort_has_no_changes(mirror):
    """A finished one_time cohort has no changes, and the plan says why."""
    mirror.raw |= {"sync_mode": "one_time", **COUNTED, "requests_per_minute": UNLIMITED}
    assert run(mirror.emulator, tap(people(1), n=1), **mirror.raw).error is None
    result = mirror.run("plan", "--json", "--detailed-exitcode", text=tap(people(2), n=1))
    (found,) = json.loads(result.stdout)
    assert (0, 0, 0, 0) == (
        result.exit_code,
        found["to_add"],
        found["to_remove"],
        found["requests"],
    )
    assert found["verdict"].startswith("finished: ")


def test_each_cohort_of_a_fan_out_has_a_plan(mirror):
    """New, known and vanished cohorts of a fan-out have plans, ordered by ID."""
    for cohort in ("gone", "known"):
        mirror.fill(cohort, STAYING, stream="fan")
    mirror.raw["cohorts"] = {"fan": {"cohort_id_column": "c"}}
    rows = [record("fan", uid=m.uid, c="known") for m in STAYING]
    rows += [record("fan", uid=m.uid, c="new") for m in people(1, 2)]
    plans = planned(mirror, lines(schema("fan", ("uid", "c")), *rows))
    assert ["gone", "known", "new"] == [*plans]
    numbers = ("desired", "accepted", "to_add", "to_remove")
    assert [(0, 20, 0, 20), (20, 20, 0, 0), (2, 0, 2, 0)] == [
        tuple(plan[name] for name in numbers) for plan in plans.values()
    ]
    assert plans["gone"]["verdict"].startswith("withheld: ")


@pytest.mark.parametrize(
    ("desired", "code"),
    [(STAYING, 0), ([*STAYING, *people(1)], 5), (STAYING[1:], 5), (STAYING[10:], 5)],
)
def test_the_detailed_exit_code_is_5_if_there_are_changes(mirror, desired, code):
    """With --detailed-exitcode, a plan with changes exits with 5; without it, always with 0."""
    mirror.fill("vip", STAYING)
    for form in ((), ("--json",)):
        result = mirror.run("plan", "--detailed-exitcode", *form, text=tap(desired))
        assert code == result.exit_code
        assert 0 == mirror.run("plan", *form, text=tap(desired)).exit_code


def test_the_plan_of_an_incremental_stream_counts_its_records(desk):
    """The plan of an incremental stream counts the changes in its records."""
    desk.fill("vip", STAYING)
    rows = [record("vip", uid=member.uid) for member in [*STAYING, *people(1, 2)]]
    rows += [record("vip", uid=STAYING[0].uid, _sdc_deleted_at="2026-11-22")]
    found = planned(desk, lines(schema("vip", ("uid", "_sdc_deleted_at")), *rows))["vip"]
    assert (None, 20, 2, 1, 20, 0, 2) == tuple(
        found[name]
        for name in (
            "desired",
            "accepted",
            "to_add",
            "to_remove",
            "unchanged",
            "in_doubt",
            "requests",
        )
    )


def test_a_plan_without_a_ledger_creates_none(desk):
    """Without a ledger all members are to be added, and no file is created."""
    for mode, desired in (("incremental", None), ("mirror", 2)):
        desk.raw["sync_mode"] = mode
        found = planned(desk, tap(people(1, 2), stream="new"))["new"]
        assert (0, 2, 1) == (found["accepted"], found["to_add"], found["requests"])
        assert desired == found["desired"]
    assert not (desk.folder / "ledger").exists()
    desk.raw |= {"sync_mode": "incremental", "ledger_uri": None}
    found = planned(desk, tap(people(1, 2), stream="new"))["new"]
    assert (None, 2, 1) == (found["accepted"], found["to_add"], found["requests"])


def test_a_plan_changes_nothing(mirror):
    """A plan sends nothing, writes no STATE, and leaves the ledger, the report and the rejects file
    as they are."""
    mirror.fill("vip", [*STAYING, *people(1)])
    mirror.plan("vip", STAYING)
    for name in ("report_path", "rejects_path"):
        mirror.raw[name] = str(mirror.folder / name)
        (mirror.folder / name).write_text("of the last run")
    mirror.raw["on_reject"] = "skip"
    assert 0 == mirror.run("status").exit_code  # makes the desk's configuration
    before = {path: path.read_bytes() for path in mirror.folder.rglob("*") if path.is_file()}
    requests = mirror.emulator.totals().requests
    nobody = lines(record("vip", uid=None))
    result = mirror.run("plan", text=tap([*STAYING, *people(2)]) + nobody)
    assert 0 == result.exit_code
    assert "the end" not in result.output
    after = {path: path.read_bytes() for path in mirror.folder.rglob("*") if path.is_file()}
    assert before == after
    assert requests == mirror.emulator.totals().requests


@pytest.mark.parametrize(
    ("end", "error"),
    [
        (b'{"type": "RECORD", "stream": "vip", "record": {"uid": "planted-00', "line 3"),
        (b'{"type": "NOTHING"}\n', "line 3"),
        (lines(record("vip", uid=None)), "no identifier"),
        (lines(record("others", uid="planted-0001")), "before its SCHEMA"),
    ],
)
def test_a_broken_input_has_no_plan(mirror, end, error):
    """If the input cannot be read to its end, there is an error with exit code 1 and no plan."""
    mirror.fill("vip", STAYING)
    begin = lines(schema("vip"), record("vip", uid="planted-0100"))
    for form in ((), ("--json", "--detailed-exitcode")):
        result = mirror.run("plan", *form, text=begin + end)
        assert (1, "") == (result.exit_code, result.stdout)
        assert error in result.stderr


def test_a_wrong_row_count_has_no_plan(mirror):
    """If the number of rows is wrong, no plan is shown."""
    mirror.fill("vip", STAYING)
    mirror.raw |= COUNTED
    result = mirror.run("plan", text=tap(STAYING, n=21))
    assert (1, "") == (result.exit_code, result.stdout)
    assert "Error: " in result.stderr


def test_a_plan_shows_the_streams_that_are_not_busy(mirror):
    """With a stream that another run holds, the plan of the others is shown, with exit code 4."""
    mirror.fill("held", STAYING)
    with mirror.ledger("held"):
        result = mirror.run("plan", "--json", text=tap(STAYING) + tap(STAYING, "held"))
    assert 4 == result.exit_code
    assert ["vip"] == [each["cohort_id"] for each in json.loads(result.stdout)]
    assert "the ledger of stream 'held' is held by" in result.stderr
