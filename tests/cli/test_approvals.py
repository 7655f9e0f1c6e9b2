"""Withheld plans that newer rows replace before a person can confirm them."""

import json
import re
import subprocess
import sys
import time

import pytest

from target_moengage_cohort.delivery.ports import Timing
from tests.cli.conftest import person
from tests.support.singer import environment, finish, lines, record, run, schema, start

DAY = 86_400
MAIN = "from target_moengage_cohort.cli import main; main()"


class Schedule:
    """Runs of a mirror whose members come as numbers, and a person who confirms its plans."""

    def __init__(self, desk):
        self.desk = desk
        desk.raw |= {"sync_mode": "mirror", "report_path": str(desk.folder / "report.json")}

    def messages(self, numbers, *more, fed=("vip",)):
        rows = [
            record("vip", uid=person(number).uid, cohort=cohort)
            for cohort in fed
            for number in numbers
        ]
        return lines(schema("vip", ("uid", "cohort")), *rows, *more)

    def process(self, numbers):
        """Run the target as a process; return its exit code and the plan that it withheld."""
        home = self.desk.folder / "home"
        ended = finish(start(home, self.desk.raw), self.messages(numbers))
        self.desk.output += ended.stderr
        report = json.loads((self.desk.folder / "report.json").read_bytes())
        return ended.code, report["cohorts"][0]["plan_id"]

    def confirm(self, *arguments):
        """Confirm by a process of its own; return its exit code and output."""
        path = self.desk.folder / "home" / "config.json"
        command = [sys.executable, "-c", MAIN, "confirm", *arguments, "--config", str(path)]
        ended = subprocess.run(
            command, env=environment(path.parent), capture_output=True, text=True, check=False
        )
        self.desk.output += ended.stdout + ended.stderr
        return ended.returncode, ended.stdout

    def run(self, numbers, *more, seconds=0, fed=("vip",), **settings):
        """Run in this process, some seconds from now; return its report."""
        options = {key: self.desk.raw[key] for key in ("ledger_uri", "sync_mode")} | settings
        data = self.messages(numbers, *more, fed=fed)
        clock = Timing(jitter=lambda _seconds: 0.0, wall_clock=lambda: time.time() + seconds)
        return run(self.desk.emulator, data, clock, **options).report

    def withheld(self, numbers, **options):
        """Run likewise; return the plan that was withheld."""
        return self.run(numbers, **options).cohorts[0].plan_id

    def there(self, cohort="vip"):
        """Return the numbers of the members."""
        return {int(member.uid[-4:]) for member in self.desk.there(cohort)}

    def release(self, plan_id, *, seconds=0):
        """Confirm a withheld plan in this process, some seconds from now."""
        return self.desk.run("confirm", "--withheld", plan_id, clock=lambda: time.time() + seconds)


@pytest.fixture
def schedule(desk):
    return Schedule(desk)


def test_a_schedule_cannot_outrun_a_person(schedule):
    """If three runs withhold before a person confirms the plan of the first one, the fourth removes
    exactly its members, and withholds the rest."""
    assert 0 == schedule.process(range(100))[0]
    plans = [schedule.process(range(gone, 100)) for gone in (30, 40, 50)]
    assert [3, 3, 3] == [code for code, _ in plans]
    code, output = schedule.confirm("--withheld", plans[0][1])
    assert 0 == code
    pattern = r"cohort 'vip': 30 removals approved for the next run.* \d\d:\d\d UTC tomorrow\n"
    assert re.fullmatch(pattern, output)
    assert set(range(100)) == schedule.there()
    code, rest = schedule.process(range(50, 100))
    assert 3 == code
    assert set(range(30, 100)) == schedule.there()
    assert 3 == schedule.process(range(49, 100))[0]  # the approval was used
    assert set(range(30, 100)) == schedule.there()
    assert 0 == schedule.confirm("--withheld", rest)[0]
    assert 0 == schedule.process(range(50, 100))[0]
    assert set(range(50, 100)) == schedule.there()


def test_removals_beside_the_approved_ones_have_the_guard_to_themselves(schedule):
    """Of 100 members 10 may leave beside the approved ones, which do not count."""
    schedule.run(range(100))
    plan_id = schedule.withheld(range(30, 100))
    schedule.withheld(range(31, 100))
    assert 0 == schedule.release(plan_id).exit_code
    report = schedule.run(range(40, 100))
    assert ("succeeded", 40) == (report.status, report.cohorts[0].removed)
    assert set(range(40, 100)) == schedule.there()


def test_members_that_are_back_are_not_removed(schedule):
    """An approval removes only members that the next run does not have, once."""
    schedule.run(range(100))
    plan_id = schedule.withheld(range(30, 100))
    schedule.withheld(range(31, 100))
    schedule.release(plan_id)
    assert "succeeded" == schedule.run(range(20, 100)).status
    assert set(range(20, 100)) == schedule.there()
    assert "withheld" == schedule.run(range(31, 100)).status


@pytest.mark.parametrize(("seconds", "left"), [(DAY - 60, 30), (DAY + 60, 0)])
def test_an_approval_ends_after_a_day(schedule, seconds, left):
    """After 24 hours an approval allows nothing any more."""
    schedule.run(range(100))
    plan_id = schedule.withheld(range(30, 100))
    schedule.withheld(range(31, 100))
    assert 0 == schedule.release(plan_id).exit_code
    schedule.run(range(30, 100), seconds=seconds)
    assert set(range(left, 100)) == schedule.there()


@pytest.mark.parametrize(("seconds", "code"), [(DAY - 60, 0), (DAY + 60, 1)])
def test_a_replaced_plan_can_be_approved_for_a_day(schedule, seconds, code):
    """A plan that was replaced over 24 hours ago is refused, with the present plan's command."""
    schedule.run(range(100))
    plan_id = schedule.withheld(range(30, 100))
    present = schedule.withheld(range(31, 100))
    result = schedule.release(plan_id, seconds=seconds)
    assert code == result.exit_code
    assert bool(code) == (f"confirm --withheld {present} --config" in result.stderr)
    assert [] == schedule.desk.removals()


def test_the_members_of_an_approved_plan_are_kept_as_long_as_the_approval(schedule):
    """An approval of a plan that was replaced almost a day ago lasts a day, too."""
    schedule.run(range(100))
    plan_id = schedule.withheld(range(30, 100))
    schedule.withheld(range(31, 100))
    assert 0 == schedule.release(plan_id, seconds=DAY - 60).exit_code
    incomplete = b"{broken"
    schedule.run(range(31, 100), incomplete, seconds=DAY + 60)
    schedule.run(range(30, 100), seconds=DAY + 120)
    assert set(range(30, 100)) == schedule.there()


def test_a_later_confirmation_ends_an_approval(schedule):
    """Only the plan that a person confirmed last counts, approved or delivered."""
    schedule.run(range(100))
    first = schedule.withheld(range(30, 100))
    second = schedule.withheld([*range(40), *range(60, 100)])
    third = schedule.withheld(range(60))
    schedule.release(first)
    schedule.release(second)
    schedule.run(range(30, 100))
    assert set(range(100)) == schedule.there()
    schedule.release(second)
    present = schedule.withheld(range(60), seconds=1)
    assert third == present
    assert "accepted" in schedule.release(present).stdout
    schedule.run([*range(40)])
    assert set(range(60)) == schedule.there()


def test_an_approval_takes_the_place_of_an_earlier_one(schedule):
    """Once the latest approval was used, an earlier one allows nothing."""
    schedule.run(range(100))
    first = schedule.withheld(range(30, 100))
    second = schedule.withheld([*range(40), *range(60, 100)])
    schedule.withheld(range(60))
    schedule.release(first)
    schedule.release(second)
    assert "succeeded" == schedule.run([*range(40), *range(60, 100)]).status
    assert "withheld" == schedule.run([*range(30, 40), *range(60, 100)]).status
    assert {*range(40), *range(60, 100)} == schedule.there()


def test_a_plan_of_a_busy_stream_is_approved(schedule):
    """While another process has the stream, a withheld plan is approved; nothing is sent."""
    schedule.run(range(100))
    plan_id = schedule.withheld(range(30, 100))
    with schedule.desk.ledger("vip"):
        result = schedule.release(plan_id)
    assert (0, True) == (result.exit_code, "approved for the next run" in result.stdout)
    assert set(range(100)) == schedule.there()
    schedule.run(range(30, 100))
    assert set(range(30, 100)) == schedule.there()


def test_approved_removals_that_wait_for_the_tap_pass_the_guard(schedule):
    """With removals: deferred, confirm of the next run's plan does not count approved removals."""
    schedule.run(range(100))
    schedule.run(range(30, 100), removals="deferred")
    assert 3 == schedule.desk.run("confirm", "vip").exit_code
    with schedule.desk.ledgers(read_only=True) as ledgers:
        ((plan,),) = ledgers.plans().values()
    schedule.run(range(31, 100), removals="deferred")
    assert 0 == schedule.release(plan.plan_id).exit_code
    schedule.run(range(32, 100), removals="deferred")
    assert set(range(100)) == schedule.there()
    assert 0 == schedule.desk.run("confirm", "vip").exit_code
    assert set(range(32, 100)) == schedule.there()
    schedule.run(range(62, 100), removals="deferred")
    assert 3 == schedule.desk.run("confirm", "vip").exit_code


@pytest.mark.parametrize("mode", ["incremental", "mirror"])
def test_rows_that_send_nothing_outdate_a_plan(schedule, mode):
    """After rows of its members a withheld plan is not sent: an incremental run with nothing to
    send, or a mirror with everybody and one row that is rejected."""
    schedule.run(range(100))
    plan_id = schedule.withheld(range(30, 100))
    more = [record("vip", uid=None, cohort="vip")] if mode == "mirror" else []
    skip = {"on_reject": "skip", "rejects_path": str(schedule.desk.folder / "rejects.singer")}
    report = schedule.run(range(100), *more, sync_mode=mode, **skip)
    assert 0 == report.requests
    schedule.release(plan_id)
    assert set(range(100)) == schedule.there()
    assert [] == schedule.desk.removals()


@pytest.mark.parametrize("mode", ["incremental", "mirror"])
def test_rows_of_one_cohort_leave_the_plans_of_others(schedule, mode):
    """Rows outdate the plans of their own cohorts; with an input that is not complete, others
    stay."""
    fan = {"cohorts": {"vip": {"cohort_id_column": "cohort"}}}
    schedule.run(range(100), fed=("a", "b"), **fan)
    report = schedule.run(range(30, 100), fed=("a", "b"), **fan)
    plans = {cohort.cohort_id: cohort.plan_id for cohort in report.cohorts}
    more = [b"{broken"] if mode == "mirror" else []
    schedule.run(range(100), *more, fed=("a",), sync_mode=mode, **fan)
    for plan_id in plans.values():
        assert 0 == schedule.release(plan_id).exit_code
    assert set(range(100)) == schedule.there("a")
    assert set(range(30, 100)) == schedule.there("b")


def test_rows_that_state_has_passed_outdate_a_plan_though_the_run_is_killed(schedule):
    """A change that needs no request outdates a plan before a STATE that covers its row."""
    schedule.process(range(100))
    _, plan_id = schedule.process(range(30, 100))
    home, raw = schedule.desk.folder / "home", schedule.desk.raw | {"sync_mode": "incremental"}
    process = start(home, raw)
    state = b'{"type":"STATE","value":{"a":1}}\n'
    process.stdin.write(schedule.messages(range(100)) + state)
    process.stdin.flush()
    assert b'{"a":1}\n' == process.stdout.readline()
    process.kill()
    process.communicate()
    assert "approved" in schedule.release(plan_id).stdout
    assert set(range(100)) == schedule.there()
