"""`moengage-cohort confirm` against the emulator."""

import time

import pytest

from target_moengage_cohort.ledger import PlanKind
from tests.cli.conftest import people
from tests.support.singer import lines, record, run, schema

TWENTY = people(*range(100, 120))


def test_what_waits_is_removed_and_the_plan_is_gone(desk):
    """confirm removes whom the plan removes, and nobody else, and a second one finds nothing."""
    desk.fill("vip", [*TWENTY, *people(1, 2)])
    desk.plan("vip", TWENTY)
    result = desk.run("confirm", "vip")
    assert (0, "cohort 'vip': 2 removals accepted\n") == (result.exit_code, result.stdout)
    assert set(TWENTY) == desk.there("vip") == desk.accepted("vip")
    assert 1 == len(desk.removals())
    again = desk.run("confirm", "vip")
    assert 1 == again.exit_code
    assert "nothing waits for the stream 'vip'" in again.stderr
    assert "removals: deferred" in again.stderr
    assert 1 == len(desk.removals())


def test_all_cohorts_of_a_stream_are_confirmed_and_no_others(desk):
    """A stream that feeds many cohorts is confirmed with all of them."""
    for cohort, stream in (("a", "fan"), ("b", "fan"), ("c", "other")):
        desk.fill(cohort, [*TWENTY, *people(1)], stream=stream)
        desk.plan(cohort, TWENTY)
    result = desk.run("confirm", "fan")
    assert 0 == result.exit_code
    assert ["a", "b"] == sorted({request.cohort_id for request in desk.removals()})
    assert 21 == len(desk.there("c"))
    assert 0 == desk.run("confirm", "other").exit_code


def test_a_plan_without_removals_is_confirmed_with_no_request(desk):
    """Where nobody has left, confirm says so, exits with 0 and drops the plan."""
    desk.fill("vip", TWENTY)
    desk.plan("vip", TWENTY)
    result = desk.run("confirm", "vip")
    assert (0, "cohort 'vip': there is nothing to remove\n") == (result.exit_code, result.stdout)
    assert [] == desk.removals()
    with desk.ledger("vip") as ledger:
        assert [] == ledger.plans()


def test_a_plan_that_seals_seals(desk):
    """The confirmation of a one_time stream's plan seals its cohort."""
    desk.fill("vip", TWENTY)
    desk.plan("vip", TWENTY, seals=True)
    assert 0 == desk.run("confirm", "vip").exit_code
    with desk.ledger("vip") as ledger:
        assert ledger.is_sealed


@pytest.mark.parametrize(("seconds", "code"), [(3_590, 0), (3_610, 1), (-3_610, 1)])
def test_what_waits_is_confirmed_within_an_hour(desk, seconds, code):
    """A plan of another hour is refused, be it older, or newer because a clock was turned."""
    desk.fill("vip", [*TWENTY, *people(1)])
    desk.plan("vip", TWENTY)
    result = desk.run("confirm", "vip", clock=lambda: time.time() + seconds)
    assert code == result.exit_code
    assert bool(code) == ("must be confirmed within an hour; run the stream" in result.stderr)
    assert 1 - code == len(desk.removals())


def test_a_cohort_that_has_changed_is_not_confirmed(desk):
    """Whatever was sent since the plan was made voids it."""
    desk.fill("vip", [*TWENTY, *people(1)])
    desk.plan("vip", TWENTY)
    desk.fill("vip", people(2))
    result = desk.run("confirm", "vip")
    assert 1 == result.exit_code
    assert "cohort 'vip', stream 'vip': the cohort has changed since" in result.stderr
    assert [] == desk.removals()


def test_every_stream_is_checked_before_anything_is_sent(desk):
    """If one of the streams has nothing waiting, no cohort of the others is touched."""
    desk.fill("vip", [*TWENTY, *people(1)])
    desk.plan("vip", TWENTY)
    result = desk.run("confirm", "vip", "nobody", "unknown")
    assert 1 == result.exit_code
    first, second = result.stderr.splitlines()
    assert "'nobody'" in first
    assert "'unknown'" in second
    assert str(desk.folder / "ledger") in first
    assert [] == desk.removals()


def test_the_id_of_a_cohort_is_no_stream(desk):
    """Whoever gives a cohort's id is told of the stream that feeds it."""
    desk.fill("vip", people(1), stream="users")
    result = desk.run("confirm", "vip")
    assert 1 == result.exit_code
    assert "did you mean moengage-cohort confirm users?" in result.stderr
    desk.fill("another", people(1), stream="vip")
    assert "did you mean" not in desk.run("confirm", "vip").stderr


def test_another_destination_has_nothing_waiting(desk):
    """A plan of one workspace is not found from another."""
    desk.fill("vip", [*TWENTY, *people(1)])
    desk.plan("vip", TWENTY)
    desk.raw["workspace_id"] = "another"
    result = desk.run("confirm", "vip")
    assert 1 == result.exit_code
    assert "nothing waits for the stream 'vip'" in result.stderr
    assert [] == desk.removals()


def test_the_guard_holds_and_a_person_overrides_it(desk):
    """Too many removals are withheld with exit 3 while other cohorts go on; --withheld sends
    them, once."""
    gone = people(*range(30))
    desk.fill("big", [*TWENTY, *gone], stream="fan")
    desk.fill("small", [*TWENTY, *people(1)], stream="fan")
    plan_id = desk.plan("big", TWENTY)
    desk.plan("small", TWENTY)
    result = desk.run("confirm", "fan")
    assert 3 == result.exit_code
    assert "cohort 'small': 1 removals accepted" in result.stdout
    assert "cohort 'big': 30 of 50 members would leave, 60.00%" in result.stderr
    assert f"--withheld {plan_id}" in result.stderr
    assert 50 == len(desk.there("big"))
    assert set(TWENTY) == desk.there("small")

    unknown = desk.run("confirm", "--withheld", "mistyped")
    assert 1 == unknown.exit_code
    assert f"withheld are {plan_id}" in unknown.stderr

    later = desk.run("confirm", "--withheld", plan_id, clock=lambda: time.time() + 100_000)
    assert (0, "cohort 'big': 30 removals accepted\n") == (later.exit_code, later.stdout)
    assert set(TWENTY) == desk.there("big") == desk.accepted("big")
    assert "nothing is; see" in desk.run("confirm", "--withheld", plan_id).stderr


def test_an_override_adds_and_removes_what_the_plan_says(desk):
    """A plan withheld whole is sent whole: the additions first."""
    desk.fill("vip", [*TWENTY, *people(1)])
    plan_id = desk.plan("vip", [*TWENTY, *people(2, 3)], kind=PlanKind.WITHHELD, additions=True)
    result = desk.run("confirm", "--withheld", plan_id)
    assert "cohort 'vip': 2 additions accepted, 1 removals accepted\n" == result.stdout
    assert {*TWENTY, *people(2, 3)} == desk.there("vip") == desk.accepted("vip")
    last, before = desk.emulator.requests(cohort_id="vip")[:-3:-1]
    assert ("add_members", "remove_members") == (last.action, before.action)


def test_an_override_is_refused_once_the_cohort_has_changed(desk):
    """A person judged the cohort as it was, so nothing goes after it has changed."""
    desk.fill("vip", [*TWENTY, *people(1)])
    plan_id = desk.plan("vip", TWENTY, kind=PlanKind.WITHHELD)
    desk.fill("vip", people(2))
    result = desk.run("confirm", "--withheld", plan_id)
    assert 1 == result.exit_code
    assert "the cohort has changed since" in result.stderr
    assert [] == desk.removals()


def test_one_half_of_a_plan_does_not_void_the_other(desk):
    """After the removals of a run were confirmed, its withheld additions can be overridden."""
    desk.fill("vip", [*TWENTY, *people(1)])
    desk.plan("vip", TWENTY)
    other = desk.plan(
        "vip", [*TWENTY, *people(1, 2)], kind=PlanKind.WITHHELD, additions=True, removals=0
    )
    assert 0 == desk.run("confirm", "vip").exit_code
    assert 0 == desk.run("confirm", "--withheld", other).exit_code
    assert {*TWENTY, *people(2)} == desk.there("vip")


def test_a_busy_cohort_is_told_with_its_holder(desk):
    """While another run has the ledger, confirm exits with 4 and sends nothing."""
    desk.fill("vip", [*TWENTY, *people(1)])
    plan_id = desk.plan("vip", TWENTY)
    with desk.ledger("vip"):
        for arguments in (("vip",), ("--withheld", plan_id)):
            result = desk.run("confirm", *arguments)
            assert 4 == result.exit_code
            assert "the ledger of cohort 'vip' is held by run" in result.stderr
    assert [] == desk.removals()


def test_a_failed_request_leaves_the_plan_outdated(desk):
    """If MoEngage refuses the removals, confirm fails, and a second one asks for a new run."""
    desk.fill("bad", [*TWENTY, *people(1)], stream="fan")
    desk.fill("good", [*TWENTY, *people(2)], stream="fan")
    desk.plan("bad", TWENTY)
    desk.plan("good", TWENTY)
    desk.emulator.fail_next(400, cohort_id="bad")
    desk.raw["max_concurrency"] = 1
    result = desk.run("confirm", "fan")
    assert 1 == result.exit_code
    assert "cohort 'bad': not all was accepted; run its stream again" in result.stderr
    assert "MoEngage refused 1 of the cohort 'bad'" in result.stderr
    assert 21 == len(desk.there("bad"))
    again = desk.run("confirm", "fan")
    assert "cohort 'bad', stream 'fan': the cohort has changed since" in again.stderr


@pytest.mark.parametrize("arguments", [(), ("vip", "--withheld", "x")])
def test_streams_and_an_override_exclude_each_other(desk, arguments):
    """confirm takes streams, or one withheld plan; anything else is wrong usage."""
    result = desk.run("confirm", *arguments)
    assert 2 == result.exit_code
    assert "give the streams that have succeeded, or --withheld" in result.stderr


def test_a_dry_run_confirms_nothing(desk):
    """With dry_run a confirmation, a step of a job, does no harm and no fault."""
    desk.fill("vip", [*TWENTY, *people(1)])
    desk.plan("vip", TWENTY)
    desk.raw["dry_run"] = True
    result = desk.run("confirm", "vip")
    assert (0, "dry_run is set: nothing is confirmed.\n") == (result.exit_code, result.stdout)
    assert [] == desk.removals()


def test_a_run_and_its_confirmation_make_a_mirror(desk):
    """With removals deferred, runs add at once, and confirm removes who the latest one missed."""
    settings = {"sync_mode": "mirror", "removals": "deferred", "ledger_uri": desk.raw["ledger_uri"]}

    def sync(members):
        rows = [record("vip", uid=member.uid) for member in members]
        assert run(desk.emulator, lines(schema("vip"), *rows), **settings).error is None

    sync([*TWENTY, *people(1, 2)])
    assert "there is nothing to remove" in desk.run("confirm", "vip").stdout
    sync([*TWENTY, *people(2, 3)])
    assert {*TWENTY, *people(1, 2, 3)} == desk.there("vip")
    assert "cohort 'vip': 1 removals accepted\n" == desk.run("confirm", "vip").stdout
    assert {*TWENTY, *people(2, 3)} == desk.there("vip") == desk.accepted("vip")
    sync(TWENTY)
    sync([*TWENTY, *people(2)])  # voids what the one before it left waiting
    desk.run("confirm", "vip")
    assert {*TWENTY, *people(2)} == desk.there("vip") == desk.accepted("vip")
