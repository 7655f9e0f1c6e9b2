"""`moengage-cohort confirm` against the emulator."""

import json
import time

import pytest

from target_moengage_cohort.ledger.records import PlanKind
from tests.cli.conftest import PLANTED, people, person
from tests.support.receiver import Receiver
from tests.support.singer import lines, record, run, schema

TWENTY = people(*range(100, 120))


def test_pending_removals_are_sent_once(desk):
    """confirm removes exactly the members of the plan, and a second confirm finds no plan."""
    desk.fill("vip", [*TWENTY, *people(1, 2)])
    desk.plan("vip", TWENTY)
    result = desk.run("confirm", "vip")
    assert (0, "cohort 'vip': 2 removals accepted\n") == (result.exit_code, result.stdout)
    assert set(TWENTY) == desk.there("vip") == desk.accepted("vip")
    assert 1 == len(desk.removals())
    again = desk.run("confirm", "vip")
    assert 1 == again.exit_code
    assert f"no removals are pending for stream 'vip' in {desk.folder}" in again.stderr
    assert "must have used this ledger and removals: deferred" in again.stderr
    assert 1 == len(desk.removals())


def test_all_cohorts_of_a_stream_are_confirmed_and_no_others(desk):
    """confirm of a stream sends the pending removals of all its cohorts, and of no others."""
    for cohort, stream in (("a", "fan"), ("b", "fan"), ("c", "other")):
        desk.fill(cohort, [*TWENTY, *people(1)], stream=stream)
        desk.plan(cohort, TWENTY)
    result = desk.run("confirm", "fan")
    assert 0 == result.exit_code
    assert ["a", "b"] == sorted({request.cohort_id for request in desk.removals()})
    assert 21 == len(desk.there("c"))
    assert 0 == desk.run("confirm", "other").exit_code


def test_a_plan_without_removals_is_confirmed_with_no_request(desk):
    """If a plan has no removals, confirm says so, exits with 0 and drops the plan."""
    desk.fill("vip", TWENTY)
    desk.plan("vip", TWENTY)
    result = desk.run("confirm", "vip")
    assert (0, "cohort 'vip': no removals to send\n") == (result.exit_code, result.stdout)
    assert [] == desk.removals()
    with desk.ledger("vip") as ledger:
        assert [] == ledger.plans()


def test_confirming_a_one_time_plan_seals_the_cohort(desk):
    """Once the plan of a one_time stream is confirmed, its cohort is sealed."""
    desk.fill("vip", TWENTY)
    desk.plan("vip", TWENTY, seals=True)
    assert 0 == desk.run("confirm", "vip").exit_code
    with desk.ledger("vip") as ledger:
        assert ledger.is_sealed


@pytest.mark.parametrize(("seconds", "code"), [(3_590, 0), (3_610, 1), (-3_610, 1)])
def test_a_plan_expires_after_an_hour(desk, seconds, code):
    """A plan that is more than an hour old, or made in the future, is refused."""
    desk.fill("vip", [*TWENTY, *people(1)])
    desk.plan("vip", TWENTY)
    result = desk.run("confirm", "vip", clock=lambda: time.time() + seconds)
    assert code == result.exit_code
    assert bool(code) == ("must be confirmed within an hour; run the stream" in result.stderr)
    assert 1 - code == len(desk.removals())


def test_a_cohort_that_has_changed_is_not_confirmed(desk):
    """Anything sent to the cohort after the plan was made invalidates the plan."""
    desk.fill("vip", [*TWENTY, *people(1)])
    desk.plan("vip", TWENTY)
    desk.fill("vip", people(2))
    result = desk.run("confirm", "vip")
    assert 1 == result.exit_code
    assert "cohort 'vip', stream 'vip': the cohort has changed since" in result.stderr
    assert [] == desk.removals()


def test_every_stream_is_checked_before_anything_is_sent(desk):
    """If a stream has no pending plan, nothing is sent for the others; each fault has a line."""
    desk.fill("vip", [*TWENTY, *people(1)])
    desk.plan("vip", TWENTY)
    result = desk.run("confirm", "vip", "mistyped", "unknown")
    assert 1 == result.exit_code
    first, second = result.stderr.splitlines()
    assert "'mistyped'" in first
    assert "'unknown'" in second
    assert [] == desk.removals()


def test_the_id_of_a_cohort_leads_to_its_stream(desk):
    """If the argument is the ID of a cohort, the error suggests its stream."""
    desk.fill("vip", people(1), stream="users")
    result = desk.run("confirm", "vip")
    assert 1 == result.exit_code
    assert "Did you mean: moengage-cohort confirm users --config" in result.stderr
    desk.fill("another", people(1), stream="vip")
    assert "Did you mean" not in desk.run("confirm", "vip").stderr


def test_after_a_run_that_withheld_the_plan_is_named(desk):
    """Nothing is pending after such a run, and the error has the command that releases its plan."""
    desk.raw["sync_mode"] = "mirror"
    everybody = [record("vip", uid=member.uid) for member in TWENTY]
    run(desk.emulator, lines(schema("vip"), *everybody), **desk.raw)
    withheld = run(desk.emulator, lines(schema("vip"), *everybody[:5]), **desk.raw).report
    result = desk.run("confirm", "vip")
    assert 1 == result.exit_code
    plan_id = withheld.cohorts[0].plan_id
    command = f"moengage-cohort confirm --withheld {plan_id} --config {desk.folder}/config.json"
    assert command in result.stderr


def test_another_destination_has_nothing_waiting(desk):
    """A plan of one workspace cannot be confirmed with the settings of another."""
    desk.fill("vip", [*TWENTY, *people(1)])
    desk.plan("vip", TWENTY)
    desk.raw["workspace_id"] = "another"
    result = desk.run("confirm", "vip")
    assert 1 == result.exit_code
    assert [] == desk.removals()


def test_the_guard_holds_and_a_person_overrides_it(desk):
    """Too many removals are withheld with exit code 3, other cohorts are delivered, and --withheld
    sends the plan, once."""
    gone = people(*range(30))
    desk.fill("big", [*TWENTY, *gone], stream="fan")
    desk.fill("small", [*TWENTY, *people(1)], stream="fan")
    plan_id = desk.plan("big", TWENTY)
    desk.plan("small", TWENTY)
    result = desk.run("confirm", "fan")
    assert 3 == result.exit_code
    assert "cohort 'small': 1 removal accepted" in result.stdout
    assert "30 of 50 members" in result.stderr
    command = f"moengage-cohort confirm --withheld {plan_id} --config {desk.folder}/config.json"
    assert f"run: {command}\n" in result.stderr
    assert 50 == len(desk.there("big"))
    assert set(TWENTY) == desk.there("small")

    again = desk.run("confirm", "fan")
    assert 1 == again.exit_code
    assert f"Plan {plan_id} is withheld by the guard; " in again.stderr
    assert command in again.stderr

    unknown = desk.run("confirm", "--withheld", "mistyped")
    assert 1 == unknown.exit_code
    assert "no plan 'mistyped' is withheld in " in unknown.stderr
    assert f"run: {command}\n" in unknown.stderr

    later = desk.run("confirm", "--withheld", plan_id, clock=lambda: time.time() + 100_000)
    assert (0, "cohort 'big': 30 removals accepted\n") == (later.exit_code, later.stdout)
    assert set(TWENTY) == desk.there("big") == desk.accepted("big")
    sent = desk.run("confirm", "--withheld", plan_id)
    assert 1 == sent.exit_code
    assert "; see moengage-cohort status --config" in sent.stderr


def test_an_override_adds_and_removes_what_the_plan_says(desk):
    """If a plan has additions and removals, both are sent, the additions last."""
    desk.fill("vip", [*TWENTY, *people(1)])
    plan_id = desk.plan("vip", [*TWENTY, *people(2, 3)], kind=PlanKind.WITHHELD, additions=True)
    result = desk.run("confirm", "--withheld", plan_id)
    assert "cohort 'vip': 2 additions accepted, 1 removal accepted\n" == result.stdout
    assert {*TWENTY, *people(2, 3)} == desk.there("vip") == desk.accepted("vip")
    last, before = desk.emulator.requests(cohort_id="vip")[:-3:-1]
    assert ("add_members", "remove_members") == (last.action, before.action)


def test_an_override_is_an_approval_once_the_cohort_has_changed(desk):
    """If the cohort has changed since the plan was withheld, the plan is not sent, but approved."""
    desk.fill("vip", [*TWENTY, *people(1)])
    plan_id = desk.plan("vip", TWENTY, kind=PlanKind.WITHHELD)
    desk.fill("vip", people(2))
    result = desk.run("confirm", "--withheld", plan_id)
    assert 0 == result.exit_code
    assert "cohort 'vip': 1 removal approved for the next run" in result.stdout
    assert [] == desk.removals()


def test_outdated_additions_are_refused(desk):
    """Only removals can be approved: if the cohort has changed, withheld additions are refused."""
    desk.fill("vip", TWENTY)
    plan_id = desk.plan("vip", [*TWENTY, *people(1)], kind=PlanKind.WITHHELD, additions=True)
    desk.fill("vip", people(2))
    result = desk.run("confirm", "--withheld", plan_id)
    assert 1 == result.exit_code
    assert f"the cohort has changed since plan {plan_id} was withheld" in result.stderr
    assert {*TWENTY, *people(2)} == desk.there("vip")


def test_confirmed_removals_keep_withheld_additions_valid(desk):
    """After the removals of a run are confirmed, its withheld additions can still be sent."""
    desk.fill("vip", [*TWENTY, *people(1)])
    desk.plan("vip", TWENTY)
    other = desk.plan(
        "vip", [*TWENTY, *people(1, 2)], kind=PlanKind.WITHHELD, additions=True, removals=0
    )
    assert 0 == desk.run("confirm", "vip").exit_code
    assert 0 == desk.run("confirm", "--withheld", other).exit_code
    assert {*TWENTY, *people(2)} == desk.there("vip")


def test_a_busy_ledger_is_exit_code_4(desk):
    """While another run has the ledger open, confirm exits with 4 and sends nothing, unless it can
    approve removals."""
    desk.fill("vip", [*TWENTY, *people(1)])
    desk.plan("vip", TWENTY)
    plan_id = desk.plan(
        "vip", [*TWENTY, *people(1, 2)], kind=PlanKind.WITHHELD, additions=True, removals=0
    )
    with desk.ledger("vip"):
        for arguments in (("vip",), ("--withheld", plan_id)):
            result = desk.run("confirm", *arguments)
            assert 4 == result.exit_code
            assert "Error: " in result.stderr
    assert [] == desk.removals()


def test_a_failed_request_leaves_the_plan_outdated(desk):
    """If MoEngage rejects a removal, confirm fails, and a second one asks for a new run."""
    desk.fill("bad", [*TWENTY, *people(1)], stream="fan")
    desk.fill("good", [*TWENTY, *people(2)], stream="fan")
    desk.plan("bad", TWENTY)
    desk.plan("good", TWENTY)
    desk.emulator.fail_next(400, cohort_id="bad")
    desk.raw["max_concurrency"] = 1
    result = desk.run("confirm", "fan")
    assert 1 == result.exit_code
    assert "Error: cohort 'bad': not all changes were accepted" in result.stderr
    assert 21 == len(desk.there("bad"))
    assert 1 == desk.run("confirm", "fan").exit_code


@pytest.mark.parametrize("arguments", [(), ("vip", "--withheld", "x")])
def test_streams_and_an_override_exclude_each_other(desk, arguments):
    """confirm takes either streams or one withheld plan; anything else is wrong usage."""
    result = desk.run("confirm", *arguments)
    assert 2 == result.exit_code
    assert "--withheld" in result.stderr


def test_a_dry_run_confirms_nothing(desk):
    """With dry_run, confirm exits with 0, so that it can be a step of a job, and sends nothing."""
    desk.fill("vip", [*TWENTY, *people(1)])
    desk.plan("vip", TWENTY)
    desk.raw["dry_run"] = True
    result = desk.run("confirm", "vip")
    assert 0 == result.exit_code
    assert result.stdout.startswith("dry_run is set")
    assert [] == desk.removals()


def test_a_run_and_its_confirmation_make_a_mirror(desk):
    """With deferred removals, runs add immediately, and confirm sends the latest run's removals."""
    settings = {"sync_mode": "mirror", "removals": "deferred", "ledger_uri": desk.raw["ledger_uri"]}

    def sync(members):
        rows = [record("vip", uid=member.uid) for member in members]
        assert run(desk.emulator, lines(schema("vip"), *rows), **settings).error is None

    sync([*TWENTY, *people(1, 2)])
    assert 0 == desk.run("confirm", "vip").exit_code
    assert {*TWENTY, *people(1, 2)} == desk.there("vip")
    sync([*TWENTY, *people(2, 3)])
    assert {*TWENTY, *people(1, 2, 3)} == desk.there("vip")
    assert "cohort 'vip': 1 removal accepted\n" == desk.run("confirm", "vip").stdout
    assert {*TWENTY, *people(2, 3)} == desk.there("vip") == desk.accepted("vip")
    sync(TWENTY)
    sync([*TWENTY, *people(2)])  # discards the plan of the run before it
    desk.run("confirm", "vip")
    assert {*TWENTY, *people(2)} == desk.there("vip") == desk.accepted("vip")


def test_no_confirmation_adds_an_excluded_member(desk):
    """A plan that was withheld before a member was excluded is delivered without that addition; if
    the file cannot be read, nothing is sent."""
    desk.fill("vip", people(1), stream="users")
    plan_id = desk.plan("vip", people(1, 2, 3), kind=PlanKind.WITHHELD, additions=True)
    path = desk.folder / "excluded.csv"
    desk.raw["exclude_path"] = str(path)
    before = len(desk.emulator.requests())
    assert 1 == desk.run("confirm", "--withheld", plan_id).exit_code
    assert before == len(desk.emulator.requests())
    path.write_text(f"uid\n{person(3).uid}\n")
    assert 0 == desk.run("confirm", "--withheld", plan_id).exit_code
    assert {person(1), person(2)} == desk.there("vip")


def test_a_confirmation_tells_of_what_it_changed(desk):
    """A released plan recovers its stream, so that the next one is told again; a confirmation that
    the guard withholds is told by confirm, and the runs between are no news."""
    rows = [record(uid=person(number).uid) for number in range(100)]
    with Receiver().running() as receiver:
        options = {"notify_url": receiver.url, "ledger_uri": desk.raw["ledger_uri"]}
        desk.raw |= options
        mirror = options | {"sync_mode": "mirror", "removals": "proven"}
        run(desk.emulator, lines(schema(), *rows), **mirror)
        for last in (99, 98):
            plan_id = run(desk.emulator, lines(schema(), *rows[:last]), **mirror).report.cohorts[0]
            assert 0 == desk.run("confirm", "--withheld", plan_id.plan_id).exit_code
        released = ["withheld", "recovered"] * 2
        assert released == [name for name, _ in receiver.events]
        deferred = mirror | {"removals": "deferred"}
        for _ in range(2):
            run(desk.emulator, lines(schema(), *rows[:50]), **deferred)
            assert 3 == desk.run("confirm", "users").exit_code
        run(desk.emulator, lines(schema(), *rows[:98]), **deferred)
        assert [*released, "withheld", "recovered"] == [name for name, _ in receiver.events]
        assert PLANTED not in json.dumps(receiver.bodies)
        assert receiver.secret not in desk.output
