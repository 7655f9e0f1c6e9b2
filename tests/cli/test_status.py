"""`moengage-cohort status` against real ledgers."""

import getpass
import json
import time

import msgspec
import pytest

from target_moengage_cohort.core.membership import Action
from target_moengage_cohort.ledger.records import PlanKind, RequestState, RunEntry, RunProgress
from tests.cli.conftest import people
from tests.support.reports import past_run
from tests.support.singer import lines, record, run, schema

RUN = RunEntry(
    run_id="a-run",
    started_at="2026-11-22T04:00:00.000Z",
    finished_at="2026-11-22T04:05:00.000Z",
    status="succeeded",
    sync_mode="mirror",
    complete="count",
    records=3,
    added=3,
    removed=0,
)


def contents(folder):
    """Return the bytes of every file in a directory, except the last holder of a lock."""
    return {
        path: path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
        if path.suffix != ".lock"
    }


def test_the_json_has_everything_about_a_cohort(desk):
    """--json has everything that the ledger contains about a cohort."""
    desk.fill("vip", people(1, 2, 3), stream="users", name="VIP users")
    desk.plan("vip", people(1, 2))
    desk.plan("vip", people(3), kind=PlanKind.WITHHELD, made_at=1_800_000_000.0, revision=0)
    with desk.ledgers() as ledgers:
        ledger = ledgers.open_known("vip")
        ledgers.note_run(past_run(), [], {ledger.number: RUN})
        digest = ledger.numbers().accepted.digest
        ledger.seal()
    result_json = json.loads(desk.run("status", "--json").stdout)
    (cohort,) = result_json["cohorts"]
    (waiting,), (withheld,) = cohort.pop("waiting"), cohort.pop("withheld")
    assert [] == cohort.pop("replaced")
    assert str(desk.folder / "ledger") in result_json["ledger"]
    assert [] == result_json["runs"]
    assert {
        "cohort_id": "vip",
        "cohort_name": "VIP users",
        "stream": "users",
        "fed": None,
        "busy": False,
        "settled": True,
        "accepted": 3,
        "in_doubt": 0,
        "unfolded": 0,
        "digest": digest,
        "retired": False,
        "sealed": True,
        "approval": None,
        "paused": False,
        "attention": [],
        "last_run": json.loads(json.dumps({f: getattr(RUN, f) for f in RUN.__struct_fields__})),
    } == cohort
    assert ("plan-waiting-vip", 0, 1, 2, False) == (
        waiting["plan_id"],
        waiting["additions"],
        waiting["removals"],
        waiting["desired"],
        waiting["outdated"],
    )
    assert (2, True, "2027-01-15T08:00:00Z") == (
        withheld["removals"],
        withheld["outdated"],
        withheld["made_at"],
    )


def test_the_table_fits_a_terminal(desk):
    """Lines have at most 80 columns, however long names and numbers are, except for those that have
    an ID or a stream in full."""
    desk.raw["cohorts"] = {"users": {"cohort_id": "another"}}
    desk.fill("c" * 90, people(1, 2), stream="s" * 90, name="n" * 90)
    desk.plan("c" * 90, people(1), plan_id="0123456789ab")
    with desk.ledgers() as ledgers:
        ledger = ledgers.open_known("c" * 90)
        ledgers.note_run(past_run(), [], {ledger.number: RUN})
        ledger.doubt_all()
    result = desk.run("status")
    full = ["  id: " + "c" * 90, "  stream: " + "s" * 90]
    lines = result.stdout.splitlines()[1:]  # the first has the folder
    assert full == [line for line in lines if line in full]
    lines = [line for line in lines if line not in full]
    assert 0 == result.exit_code
    assert 80 >= max(len(line) for line in lines)
    assert "2           2 2026-11-22 04:05" in result.stdout
    for text in ("last run: succeeded, mirror, 3 added", "no stream populates it", "outdated"):
        assert text in result.stdout


def test_cohorts_without_a_stream_are_marked(desk):
    """A cohort is fed if its stream is configured and does not have another cohort_id."""
    for cohort, stream in (("gone", "gone"), ("moved", "users"), ("here", "fan")):
        desk.fill(cohort, people(1), stream=stream)
    desk.raw["cohorts"] = {"users": {"cohort_id": "new"}, "fan": {"cohort_id_column": "c"}}
    result_json = json.loads(desk.run("status", "--json").stdout)
    assert {"gone": False, "here": True, "moved": False} == {
        cohort["cohort_id"]: cohort["fed"] for cohort in result_json["cohorts"]
    }


def test_a_busy_cohort_is_shown_immediately(desk):
    """status does not wait for a run, and shows its progress and the numbers of the last fold."""
    desk.fill("vip", people(1))
    desk.fill("free", people(1))
    with desk.ledgers() as ledgers:
        ledgers.open_known("vip")
        ledgers.write_progress(
            RunProgress(
                run_id=ledgers.run_id,
                pid=77,
                host="h",
                started_at="2026-11-22T04:00:00Z",
                streams=["vip"],
                records=5_000,
                accepted=4_000,
                requests=2,
            )
        )
        result_json = json.loads(desk.run("status", "--json", busy_seconds=1_000_000.0).stdout)
        shown = desk.run("status").stdout
    assert [(True, 1), (False, 1)] == [
        (cohort["busy"], cohort["accepted"]) for cohort in reversed(result_json["cohorts"])
    ]
    assert [ledgers.run_id] == [run["run_id"] for run in result_json["runs"]]
    assert f"In progress: run {ledgers.run_id}\n" in shown
    assert "5,000 records read, 4,000 members accepted, 2 requests" in shown
    assert "In progress" not in desk.run("status").stdout


@pytest.mark.server
def test_a_server_that_is_down_is_not_waited_for(desk):
    """Without its server, status fails immediately: it never waits."""
    desk.raw["ledger_uri"] = "postgresql://postgres@127.0.0.1:1/x"
    began = time.monotonic()
    assert 1 == desk.run("status").exit_code
    assert time.monotonic() - began < 30.0  # a run tries for a minute


def test_status_changes_nothing(desk):
    """status changes no file, and creates none without a ledger."""
    result = desk.run("status")
    assert 0 == result.exit_code
    assert not (desk.folder / "ledger").exists()
    desk.fill("vip", people(1))
    before = contents(desk.folder / "ledger")
    desk.run("status")
    assert before == contents(desk.folder / "ledger")


def test_control_characters_of_a_name_stay_out_of_the_terminal(desk):
    """Control characters in a cohort's ID are not printed."""
    desk.fill("a\x1b[2Jb\n", people(1), stream="users", name="plain")
    shown = desk.run("status").stdout
    assert "a [2Jb" in shown
    assert "\x1b" not in shown


def test_a_broken_control_is_an_error(desk):
    """A control file that cannot be read is named, and the exit code is 1."""
    desk.fill("vip", people(1))
    (database,) = (desk.folder / "ledger").rglob("control.sqlite")
    database.write_bytes(b"broken" * 5_000)
    result = desk.run("status")
    assert (1, "") == (result.exit_code, result.stdout)
    assert str(database) in result.stderr


def test_requests_that_are_not_folded_yet_are_counted(desk):
    """status shows how many requests the numbers do not contain, and changes none of them."""
    desk.fill("vip", people(1))
    with desk.ledgers() as ledgers:
        ledger = ledgers.open_known("vip")
        ledger.answered(
            ledger.sent(Action.ADD, msgspec.json.encode(people(2)), 1, 1), RequestState.ACCEPTED
        )
        for _ in range(2):
            (cohort,) = json.loads(desk.run("status", "--json").stdout)["cohorts"]
            assert (1, 1, False) == (cohort["accepted"], cohort["unfolded"], cohort["settled"])
    (cohort,) = json.loads(desk.run("status", "--json").stdout)["cohorts"]
    assert (2, 0, True) == (cohort["accepted"], cohort["unfolded"], cohort["settled"])


def test_each_cohort_has_its_own_last_run(desk):
    """Each cohort has its own last status, and a withheld plan the command that releases it."""
    everybody = people(*range(30))
    for cohort in ("held", "fine"):
        desk.fill(cohort, everybody)
    desk.raw |= {"sync_mode": "mirror", "cohorts": {"held": {}, "fine": {}}}
    rows = [record("fine", uid=member.uid) for member in everybody]
    rows += [record("held", uid=member.uid) for member in everybody[:5]]
    done = run(desk.emulator, lines(schema("fine"), schema("held"), *rows), **desk.raw)
    assert "withheld" == done.report.status
    cohorts = json.loads(desk.run("status", "--json").stdout)["cohorts"]
    result_json = {each["cohort_id"]: each["last_run"]["status"] for each in cohorts}
    assert {"held": "withheld", "fine": "succeeded"} == result_json
    (plan,) = (plan for each in cohorts for plan in each["withheld"])
    options = f"--withheld {plan['plan_id']} --config {desk.folder}/config.json"
    shown = desk.run("status").stdout
    assert (
        f"0 additions, 25 removals, just now\n    to send it: moengage-cohort confirm {options}\n"
        in shown
    )


def test_cohorts_that_need_attention_come_first(desk):
    """A person sees first what is withheld, failed, waiting, unconfirmed or without a stream."""
    failed = msgspec.structs.replace(RUN, status="failed")
    cohorts = ["1-fine", "2-orphan", "3-doubt", "4-waiting", "5-failed", "6-withheld", "7-sealed"]
    desk.raw["cohorts"] = {each: {} for each in cohorts if each != "2-orphan"}
    for cohort in cohorts:
        desk.fill(cohort, people(1, 2))
    with desk.ledgers() as ledgers:
        opened = {cohort: ledgers.open_known(cohort) for cohort in cohorts}
        opened["3-doubt"].doubt_all()
        opened["7-sealed"].seal()
        ledgers.note_run(past_run(), [], {opened["5-failed"].number: failed})
    for cohort, kind in (("4-waiting", PlanKind.WAITING), ("6-withheld", PlanKind.WITHHELD)):
        desk.plan(cohort, people(1), kind=kind)
    desk.plan("1-fine", people(1), kind=PlanKind.WITHHELD, revision=-1)  # outdated
    shown = desk.run("status").stdout
    assert "5 of 7 cohorts need attention" in shown
    order = sorted(cohorts, key=lambda cohort: shown.index(f"\n{cohort}"))
    assert [*reversed(cohorts[1:6]), "1-fine", "7-sealed"] == order
    found = json.loads(desk.run("status", "--json").stdout)["cohorts"]
    assert {
        "1-fine": [],
        "2-orphan": ["orphan"],
        "3-doubt": ["in_doubt"],
        "4-waiting": ["waiting"],
        "5-failed": ["failed"],
        "6-withheld": ["withheld"],
        "7-sealed": [],
    } == {each["cohort_id"]: each["attention"] for each in found}


@pytest.mark.parametrize(
    ("age", "shown"),
    [
        (0, "just now"),
        (59, "just now"),
        (60, "1 minute ago"),
        (7_300, "2 hours ago"),
        (86_400 * 3, "3 days ago"),
        (-5, "just now"),
    ],
)
def test_a_plan_has_its_age(desk, age, shown):
    """The age of a withheld plan is there, also if this machine's clock is behind."""
    desk.fill("vip", people(1, 2))
    desk.plan("vip", people(1), kind=PlanKind.WITHHELD, made_at=1_800_000_000.0)
    timing = {"clock": lambda: 1_800_000_000.0 + age}
    assert f"1 removal, {shown}\n" in desk.run("status", **timing).stdout
    (cohort,) = json.loads(desk.run("status", "--json", **timing).stdout)["cohorts"]
    assert [max(0, age)] == [plan["age_seconds"] for plan in cohort["withheld"]]


def test_an_approval_is_shown_until_it_ends(desk):
    """Who has approved a plan's removals, and until when."""
    desk.fill("vip", people(1, 2))
    plan_id = desk.plan("vip", people(1), kind=PlanKind.WITHHELD, revision=-1)
    assert 0 == desk.run("confirm", "--withheld", plan_id).exit_code
    (cohort,) = json.loads(desk.run("status", "--json").stdout)["cohorts"]
    approval = cohort["approval"]
    assert (plan_id, getpass.getuser()) == (approval["plan_id"], approval["approved_by"])
    shown = desk.run("status").stdout
    assert f"approved: the removals of plan {plan_id}" in shown
    assert approval["expires_at"][:16].replace("T", " ") + " UTC" in shown
    late = {"clock": lambda: time.time() + 90_000}
    (cohort,) = json.loads(desk.run("status", "--json", **late).stdout)["cohorts"]
    assert cohort["approval"] is None
