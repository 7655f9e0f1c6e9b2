"""`moengage-cohort confirm`, killed at each of its steps by SIGKILL."""

import itertools
import json
import os
import shutil
import subprocess
import sys
import typing as t

import pytest

from target_moengage_cohort.core.membership import Member
from target_moengage_cohort.emulator import Emulator
from target_moengage_cohort.ledger.records import PlanKind
from target_moengage_cohort.moengage.answers import Outcome
from target_moengage_cohort.moengage.transport import Transport
from target_moengage_cohort.settings import load
from tests.cli.conftest import people, person
from tests.support.look import Held, held
from tests.support.mortal import Death, Mortals
from tests.support.singer import (
    UNLIMITED,
    environment,
    finish,
    lines,
    record,
    run,
    schema,
    start,
)

KILLS = int(os.environ.get("KILLS", "20"))
STRIDE = 4 if KILLS <= 20 else 1
"""The long form, such as `KILLS=100`, kills at every step, the short at some."""

STAYING, OLD, NEW = people(*range(40)), people(*range(40, 64)), people(*range(64, 84))
DEVICE = person(0, "anonymous_id")
USER, LINKED = person(99), Member(person(99).uid, DEVICE.anonymous_id)
EVERYONE = [*STAYING, *OLD, USER]
MIRROR = {"max_payload_bytes": 1_000, "max_removal_percent": 10}
SENDING = {"mark", "doubt", "sent", "accepted", "fold", "folded", "drop plans", "drop plan members"}
"""The steps of a confirmation that sends, in control and in the file of members."""

Wanted = dict[str, list[Member]]


@pytest.fixture
def emulator():
    """An emulator that takes a uid and an anonymous id that came together for one user.

    So the removal of an alias removes its uid, which must be sent again.
    """
    with Emulator(requests_per_minute=UNLIMITED, merges=True) as running:
        yield running


@pytest.fixture(scope="module")
def mortals():
    with Mortals() as running:
        yield running


class Stage:
    """A stream, its ledger and its cohorts, all of which can be put back as they were."""

    def __init__(self, desk, mortals):
        self.desk = desk
        self._mortals = mortals
        self._bodies: list[bytes] = []  # of the requests that made the cohorts
        self._folders = [desk.folder / name for name in ("ledger", "state")]
        desk.raw |= MIRROR

    def sync(self, wanted: Wanted, **settings: t.Any):
        """Run a mirror whose cohorts are to have some members; return its report."""
        seen = run(self.desk.emulator, _rows(wanted), **self._options(settings))
        assert seen.error is None
        self._bodies += [attempt.data for attempt in seen.accepted]
        return seen.report

    def _options(self, settings: dict[str, t.Any]) -> dict[str, t.Any]:
        columns = {"cohort_id_column": "cohort", "anonymous_id_column": "anonymous_id"}
        ledger_uri = self.desk.raw["ledger_uri"]
        options = {"sync_mode": "mirror", "ledger_uri": ledger_uri, "cohorts": {"fan": columns}}
        return {**options, **MIRROR, **settings}

    def confirm(self, *arguments: str):
        return self.desk.run("confirm", *arguments)

    def killed(self, first: int, *arguments: str) -> t.Iterator[Death]:
        """Kill `confirm` at its steps from the first one; the last time it comes to its end."""
        emulator, raw = self.desk.emulator, self.desk.raw
        return self._killed(
            first,
            lambda at: self._mortals.command(emulator, "confirm", *arguments, dies_at=at, **raw),
        )

    def killed_run(self, first: int, wanted: Wanted) -> t.Iterator[Death]:
        """Kill a run likewise."""
        emulator, options = self.desk.emulator, self._options({})
        return self._killed(
            first, lambda at: self._mortals.run(emulator, _rows(wanted), dies_at=at, **options)
        )

    def _killed(self, first: int, die: t.Callable[[int], Death]) -> t.Iterator[Death]:
        bodies = list(self._bodies)
        for folder in self._folders:
            shutil.copytree(folder, self._copy(folder))
        for number in itertools.count(first, STRIDE):
            self._put_back(bodies)
            death = die(number)
            assert not death.failure
            self._look()
            yield death
            if not death.killed:
                return

    def _copy(self, folder):
        return folder.with_name(f"{folder.name}-kept")

    def _put_back(self, bodies: list[bytes]) -> None:
        for folder in self._folders:
            shutil.rmtree(folder)
            shutil.copytree(self._copy(folder), folder)
        self.desk.emulator.reset()
        transport = Transport(load(self.desk.raw).settings)
        assert {Outcome.ACCEPTED} == {transport.send(body).outcome for body in bodies}

    def there(self, cohort: str = "vip") -> set[t.Any]:
        """Return the members of a cohort."""
        return keys(self.desk.there(cohort))

    def plans(self, kind: PlanKind) -> dict[str, str]:
        """Return the plans of a kind, by cohort."""
        found = held(self.desk.emulator, self.desk.raw["ledger_uri"])
        plans = [(cohort, plan) for cohort, one in found.items() for plan in one.plans]
        return {cohort: plan.plan_id for cohort, plan in plans if plan.kind is kind}

    def _look(self) -> dict[str, Held]:
        """Check that the ledger has every member, and the cohort every one that is certain."""
        found = held(self.desk.emulator, self.desk.raw["ledger_uri"])
        for cohort, one in found.items():
            assert self.there(cohort) <= one.base | {key for key, _ in one.aliases}
            assert one.accepted - one.doubts.keys() <= self.there(cohort)
        return found

    def check_end(self, cohorts: t.Collection[str] = ("vip",)) -> None:
        """Check that nothing is left that allows removals or is in doubt."""
        for cohort, one in self._look().items():
            assert cohort in cohorts
            assert ({}, None) == (one.doubts, one.approved)
            assert {PlanKind.REPLACED} >= {plan.kind for plan in one.plans}
        with self.desk.ledgers(read_only=True) as ledgers:
            assert [] == ledgers.inspect("fan")


@pytest.fixture
def stage(desk, mortals):
    return Stage(desk, mortals)


def keys(members: t.Iterable[Member]) -> set[t.Any]:
    return {member.key for member in members}


def steps(death: Death) -> set[str]:
    return {name.partition(":")[0] for name in death.steps}


def _rows(wanted: Wanted) -> bytes:
    rows = [
        record("fan", uid=member.uid, anonymous_id=member.anonymous_id, cohort=cohort)
        for cohort, members in wanted.items()
        for member in members
    ]
    return lines(schema("fan", ("uid", "anonymous_id", "cohort")), *rows)


def test_a_killed_confirmation_of_a_stream_wrongs_nobody(stage):
    """Of three cohorts one has a uid to send again, one withheld additions, and one removals that
    the guard withholds: after a kill only confirmed members are gone, and the next confirmation, or
    one after the next run, removes exactly these."""
    some = [*STAYING, *OLD[:6]]
    others = {"grows": some, "shrinks": some}
    stage.sync({"linked": [*some, DEVICE], **others})
    stage.sync({"linked": [*some, LINKED], **others})
    wanted = {
        "linked": [*STAYING, *NEW[:5], USER],
        "grows": [*STAYING, *NEW],
        "shrinks": STAYING[:5],
    }
    deferred = {"removals": "deferred", "max_addition_percent": 20}
    stage.sync(wanted, **deferred)
    before = {cohort: stage.there(cohort) for cohort in wanted}
    confirmed = {**before, "linked": keys(wanted["linked"]), "grows": keys(STAYING)}
    for death in stage.killed(1, "fan"):
        for cohort in wanted:
            left = before[cohort] - stage.there(cohort)
            assert stage.there(cohort) <= before[cohort]
            assert left <= (before[cohort] - confirmed[cohort]) | {USER.uid}
        again = stage.confirm("fan")
        if death.killed and again.exit_code == 1:
            stage.sync(wanted, **deferred)
            again = stage.confirm("fan")
        # It is 0 if the killed one has withheld the plan.
        assert again.exit_code in ({0, 3} if death.killed else {1})
        assert confirmed == {cohort: stage.there(cohort) for cohort in wanted}
        withheld = stage.plans(PlanKind.WITHHELD)
        assert {"grows", "shrinks"} == withheld.keys()
        for plan_id in withheld.values():
            assert 0 == stage.confirm("--withheld", plan_id).exit_code
        assert {cohort: keys(wanted[cohort]) for cohort in wanted} == {
            cohort: stage.there(cohort) for cohort in wanted
        }
        stage.check_end(wanted)
    assert death.code == 3
    assert SENDING | {"keep plans"} <= steps(death)


def test_a_killed_confirmation_of_a_withheld_plan_wrongs_nobody(stage):
    """A plan with additions, removals and a uid to send again, confirmed after another one was
    approved: the next confirmation approves what is left to remove, the next run removes that, and
    no approval outlives it."""
    stage.sync({"vip": [*STAYING, *OLD, DEVICE]})
    stage.sync({"vip": [*STAYING, *OLD, LINKED]})
    stage.sync({"vip": [*STAYING[24:], *OLD, LINKED]})
    (other,) = stage.plans(PlanKind.WITHHELD).values()
    wanted = {"vip": [*STAYING, *NEW, USER]}
    growth = {"max_addition_percent": 10}
    stage.sync(wanted, **growth)
    (plan_id,) = stage.plans(PlanKind.WITHHELD).values()
    assert 0 == stage.confirm("--withheld", other).exit_code
    before, after = stage.there(), keys(wanted["vip"])
    assert keys(EVERYONE) == before
    for death in stage.killed(3, "--withheld", plan_id):
        assert death.code in {0, None}
        assert stage.there() - before <= keys(NEW)
        assert before - stage.there() <= keys(OLD) | {USER.uid}
        again = stage.confirm("--withheld", plan_id)
        if again.exit_code:
            assert after == stage.there()  # so the plan is no more
        report = stage.sync(wanted, **growth)
        assert 0 == report.cohorts[0].removals_withheld
        for rest in stage.plans(PlanKind.WITHHELD).values():
            assert 0 == stage.confirm("--withheld", rest).exit_code
        assert after == stage.there()
        stage.check_end()
    assert SENDING <= steps(death)


def test_a_killed_approval_is_given_again_and_used_once(stage):
    """A replaced plan: a kill sends nothing, the next confirmation approves it, and of the next two
    runs that lack its members one removes them."""
    wanted = {"vip": [*STAYING, USER]}
    stage.sync({"vip": EVERYONE})
    stage.sync(wanted)
    (plan_id,) = stage.plans(PlanKind.WITHHELD).values()
    stage.sync({"vip": [*STAYING, *OLD[:1], USER]})
    for death in stage.killed(2, "--withheld", plan_id):
        assert death.code in {0, None}
        assert keys(EVERYONE) == stage.there()
        assert 0 == stage.confirm("--withheld", plan_id).exit_code
        check_used_once(stage, wanted)
    assert {"approve", "note action"} <= steps(death)


def test_a_killed_run_uses_an_approval_once(stage):
    """A run that is killed while it removes what a person approved: the next run removes the rest,
    and a later one that lacks these members withholds them."""
    wanted = {"vip": [*STAYING, USER]}
    stage.sync({"vip": EVERYONE})
    stage.sync(wanted)
    (plan_id,) = stage.plans(PlanKind.WITHHELD).values()
    stage.sync({"vip": [*STAYING, *OLD[:1], USER]})
    assert 0 == stage.confirm("--withheld", plan_id).exit_code
    for death in stage.killed_run(1, wanted):
        assert [] == death.states
        assert keys(wanted["vip"]) <= stage.there() <= keys(EVERYONE)
        check_used_once(stage, wanted)
    assert SENDING - {"mark", "doubt"} <= steps(death)


def check_used_once(stage: Stage, wanted: Wanted) -> None:
    """Check that one run removes the approved members, and one that lacks them later does not."""
    assert "succeeded" == stage.sync(wanted).status
    assert keys(wanted["vip"]) == stage.there()
    stage.check_end()
    assert "succeeded" == stage.sync({"vip": EVERYONE}).status
    assert "withheld" == stage.sync(wanted).status
    assert keys(EVERYONE) == stage.there()


def test_a_killed_confirmation_finishes_a_one_time_cohort(stage):
    """Whenever the confirmation of a one_time cohort is killed, the next one finishes it."""
    stage.sync({"vip": EVERYONE})
    stage.sync({"vip": [*EVERYONE, *NEW]}, sync_mode="one_time", removals="deferred")
    for death in stage.killed(1, "fan"):
        assert 0 == stage.confirm("fan").exit_code
        assert held(stage.desk.emulator, stage.desk.raw["ledger_uri"])["vip"].is_sealed
        assert keys([*EVERYONE, *NEW]) == stage.there()
        stage.check_end()
        assert death.code in {0, None}
    assert {"describe", "drop plans"} <= steps(death)


@pytest.fixture
def processes():
    """A list of processes, none of which outlives the test."""
    started = []
    yield started
    for process in started:
        process.kill()
        process.wait()


def test_a_run_that_waits_for_a_killed_confirmation_goes_on(desk, processes):
    """Three processes: while a confirmation waits for its answer, a run waits for the lease of the
    stream and names the holder, and `status` shows the request; after a kill the run counts that as
    unconfirmed and does its work, and the next confirmation makes the cohort right."""
    home = desk.folder / "home"
    desk.raw |= {**MIRROR, "sync_mode": "mirror", "removals": "deferred"}
    for members in (EVERYONE, [*STAYING, *OLD[6:], USER]):
        assert 0 == finish(start(home, desk.raw), _rows({"fan": members})).code
    desk.emulator.hold()
    sent = desk.emulator.totals().requests
    confirmation = _command(home, "confirm", "fan")
    processes.append(confirmation)
    desk.emulator.wait_until(lambda totals: totals.requests > sent)
    follower = start(home, desk.raw)
    processes.append(follower)
    follower.stdin.write(_rows({"fan": [*STAYING, *OLD[9:], USER, NEW[0]]}))
    follower.stdin.flush()
    names = f"process {confirmation.pid} on ".encode()
    assert any(names in line for line in iter(follower.stderr.readline, b""))
    assert [(65, 1, False)] == _status(home)
    confirmation.kill()
    confirmation.communicate()
    ((*_, is_settled),) = _status(home)
    assert not is_settled  # whether or not the run has taken over by now
    desk.emulator.release()
    assert 0 == finish(follower).code
    assert keys([*STAYING, *OLD[6:], USER, NEW[0]]) == keys(desk.there("fan"))
    assert 6 == desk.counts("fan")[1]
    output, _ = _command(home, "confirm", "fan").communicate()
    assert "9 removals accepted" in output
    assert keys([*STAYING, *OLD[9:], USER, NEW[0]]) == keys(desk.there("fan"))
    assert [(57, 0, True)] == _status(home)


def _command(home, *arguments: str) -> subprocess.Popen:
    code = "from target_moengage_cohort.cli import main; main()"
    command = [sys.executable, "-c", code, *arguments, "--config", str(home / "config.json")]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env=environment(home), **pipes)


def _status(home) -> list[tuple[int, int, bool]]:
    """Return the accepted members of each cohort, its unfolded requests, and whether it settled."""
    process = _command(home, "status", "--json")
    output, _ = process.communicate()
    assert 0 == process.returncode
    found = json.loads(output)["cohorts"]
    return [(each["accepted"], each["unfolded"], each["settled"]) for each in found]
