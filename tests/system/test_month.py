"""A month of hourly runs with a turned clock: alerts and freshness against a model."""

import json
import random
import tempfile
import uuid
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from click.testing import CliRunner

from target_moengage_cohort.cli import cli
from target_moengage_cohort.cli.session import SessionTiming
from target_moengage_cohort.delivery.ports import Timing
from target_moengage_cohort.ledger.engines import open_store
from target_moengage_cohort.settings import load
from tests.support.receiver import Receiver
from tests.support.singer import config, lines, record, run, schema

HOURS = 720
HOUR = 3_600
MIRROR_HOURS = 6  # the mirror is read so often, and the other stream in the hours between
STEPS = ("alerts: before commit", "alerts: committed", "alert sent: before commit")
STREAMS = {"users": {"sync_mode": "mirror"}, "events": {}}


class Crash(BaseException):
    """The death of a run at a step."""


@dataclass
class Model:
    """What must be true.

    Attributes:
        states: What was reported of each stream.
        events: The events that must arrive, each once but for repeats, in order.
        synced_at: When each stream was last synced.
        paused: The stream that is paused.
    """

    states: dict[str, str] = field(default_factory=lambda: dict.fromkeys(STREAMS, "ok"))
    events: list[tuple[str, str]] = field(default_factory=list)
    synced_at: dict[str, float | None] = field(default_factory=lambda: dict.fromkeys(STREAMS))
    paused: str | None = None

    def change(self, stream: str, state: str) -> None:
        if state != self.states[stream]:
            self.states[stream] = state
            self.events.append(("recovered" if state == "ok" else state, stream))


class Month:
    """The runs, confirmations and pauses of a month, and their model."""

    def __init__(self, emulator, receiver, folder, seed):
        self.emulator, self.receiver, self.folder = emulator, receiver, folder
        self.chance, self.model, self.now = random.Random(seed), Model(), 1_800_000_000.0
        self.options = {"cohorts": STREAMS, "notify_url": receiver.url}
        self.raw = config(emulator, **self.options)
        (folder / "config.json").write_text(json.dumps(self.raw))

    def store(self, **options):
        settings = load(self.raw).settings
        clock, wait = (lambda: self.now), (lambda _seconds: True)
        run_id = str(uuid.uuid4())
        return open_store(settings, run_id=run_id, wait=wait, clock=clock, **options)

    def command(self, *arguments):
        files = ["--config", str(self.folder / "config.json")]
        timing = SessionTiming(clock=lambda: self.now)
        return CliRunner().invoke(cli, [*arguments, *files], obj=timing)

    def hour(self, number):
        self.now += HOUR
        chance = self.chance.random
        stream = "events" if number % MIRROR_HOURS else "users"
        self.receiver.status = 500 if chance() < 0.1 else 200
        if chance() < 0.02:
            self.turn_pause()
        fault = self.chance.choices(
            ("none", "refused", "withheld", "crash"), (0.7, 0.15, 0.1, 0.05)
        )[0]
        step = self.chance.choice(STEPS) if fault == "crash" or chance() < 0.1 else None
        plan = self.run(stream, number, fault, step)
        if plan is not None and chance() < 0.5:
            self.confirm(stream, plan)
        self.check_freshness()

    def rows(self, stream, number, fault):
        if stream == "events":
            return [record(stream, uid=f"e{number}")]
        few = fault == "withheld"
        base = [record(stream, uid=f"u{each}") for each in range(15 if few else 30)]
        return [*base, record(stream, uid=f"m{number}")]

    def run(self, stream, number, fault, step):
        """Run the tap of one stream; return the plan that is withheld, with its time."""

        def die(name):
            if name == step:
                raise Crash

        if fault == "refused":
            self.emulator.fail_next(401, 50)
        state = {"refused": "failed", "withheld": "withheld"}.get(fault, "ok")
        state = "ok" if stream == "events" and state == "withheld" else state
        report, is_paused = None, stream == self.model.paused
        timing = Timing(wall_clock=lambda: self.now, jitter=lambda _seconds: 0.0)
        data = lines(schema(stream), *self.rows(stream, number, fault))
        died_at = None
        try:
            report = run(self.emulator, data, timing, step=die, **self.options).report
        except Crash:
            died_at = step
        self.emulator.clear_faults()
        if is_paused:
            assert report is None or report.exit_code == 3
            return None
        if state == "ok":
            self.model.synced_at[stream] = self.now
        if died_at != STEPS[0]:
            self.model.change(stream, state)
        if state != "withheld" or report is None:
            return None
        (cohort,) = [each for each in report.cohorts if each.stream == stream and each.cohort_id]
        return cohort.plan_id, self.now

    def confirm(self, stream, plan):
        plan_id, made_at = plan
        self.now += 60
        done = self.command("confirm", "--withheld", plan_id)
        assert 0 == done.exit_code, done.output
        if self.model.states[stream] == "withheld":
            self.model.change(stream, "ok")
        self.model.synced_at[stream] = made_at

    def turn_pause(self):
        if self.model.paused is None:
            self.model.paused = self.chance.choice([*STREAMS])
            with self.store() as store:
                store.streams()
                assert store.pause(self.model.paused)
        else:
            assert 0 == self.command("resume", self.model.paused).exit_code
            self.model.paused = None

    def check_freshness(self):
        with self.store(read_only=True) as store:
            found = {entry.cohort_id: entry.synced_at for entry in store.entries()}
        assert {name: found.get(name) for name in STREAMS} == self.model.synced_at
        if self.chance.random() < 0.05:
            ages = [self.now - (at or 0) for at in self.model.synced_at.values()]
            done = self.command("status", "--max-age", "7h")
            assert (6 if max(ages) > 7 * HOUR else 0) == done.exit_code, done.output


@pytest.fixture
def in_memory(tmp_path, monkeypatch):
    """A ledger in memory, where nothing waits for a disk; otherwise it is the real one."""
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else tmp_path) as folder:
        monkeypatch.setenv("XDG_STATE_HOME", folder)
        yield


@pytest.mark.usefixtures("in_memory")
def test_alerts_and_freshness_of_a_month(emulator, tmp_path):
    """In 720 hourly runs with refusals, withheld plans, confirmations, pauses, crashes and a
    receiver that is down at times, each change of state is one event, none is lost, repeats have
    the same event_id and body, and each cohort is as fresh as its last success."""
    with Receiver().running() as receiver:
        month = Month(emulator, receiver, tmp_path, seed=17)
        for number in range(HOURS):
            month.hour(number)
        receiver.status = 200
        month.run("events", HOURS, "none", None)
        by_id = {body["event_id"]: body for body in receiver.taken}
        assert all(body == by_id[body["event_id"]] for body in receiver.bodies)
        found = [(body["event"], body["stream"]) for body in by_id.values()]
        assert month.model.events == found
        assert {"failed", "withheld", "recovered"} == {name for name, _ in found}
        assert len(receiver.taken) > len(found) > HOURS / 8
