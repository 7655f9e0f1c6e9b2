"""The pace: the number of requests that may start, in all processes together."""

import fcntl
import io
import json
import os
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from target_moengage_cohort.core.errors import SettingsError
from target_moengage_cohort.core.interrupts import Interrupt
from target_moengage_cohort.delivery.pace import Pace
from target_moengage_cohort.delivery.ports import Link
from target_moengage_cohort.emulator import Emulator
from target_moengage_cohort.ledger.engines import open_store
from target_moengage_cohort.moengage.answers import Answer
from target_moengage_cohort.moengage.transport import Transport
from target_moengage_cohort.settings import load
from tests.support.hurried import FastClock
from tests.support.singer import config, environment, lines, open_run, record, schema
from tests.support.strategies import histories

ROOT = Path(__file__).parents[2]
SPEED = float(os.environ.get("SPEED", "8"))
"""How much faster than the real ones the minutes are that processes share."""


def workspace(requests_per_minute: int = 3, workspace_id: str = "w"):
    raw = {"workspace_id": workspace_id, "data_api_key": "k", "data_center": 1, "partner": "p"}
    return load({**raw, "requests_per_minute": requests_per_minute}).settings


class Clock:
    """A clock that waiting advances."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now

    def wait(self, seconds: float) -> bool:
        self.now += seconds
        return False


steps = histories(
    st.one_of(
        st.tuples(st.just("start"), st.integers(0, 1)),
        st.tuples(st.just("pause"), st.floats(0, 70)),
        st.tuples(st.just("hold"), st.floats(0, 120)),
    ),
    40,
)


@given(steps=steps, limit=st.integers(1, 5))
@settings(max_examples=60)
def test_never_more_starts_in_a_window_than_allowed(tmp_path_factory, steps, limit):
    """Promise 3: however two processes share the bucket, no 62 seconds have more starts than the
    limit. No request starts while a 429 asks to wait."""
    clock, starts, held_until = Clock(), [], 0.0
    folder = tmp_path_factory.mktemp("pace")
    paces = [Pace(workspace(limit), clock.wait, folder, clock) for _ in range(2)]
    for name, value in steps:
        if name == "start":
            assert paces[value].acquire()
            assert clock.now >= held_until - 0.002  # the bucket counts milliseconds
            starts.append(clock.now)
        elif name == "pause":
            clock.now += value
        else:
            paces[0].hold(value)
            held_until = max(held_until, clock.now + value)
    for pace in paces:
        pace.close()
    for first, beyond in zip(starts, starts[limit:], strict=False):
        assert beyond - first >= 62 - 0.002


def test_retries_count(emulator, tmp_path):
    """Promise 3: each attempt of a request needs a permit of its own."""
    clock, starts, interrupt = Clock(), [], Interrupt()
    loaded = load(config(emulator, requests_per_minute=2))
    client = Transport(loaded.settings)

    def send(body: bytes) -> Answer:
        starts.append(clock.now)
        return client.send(body)

    store = open_store(loaded.settings, run_id="r", wait=interrupt.wait)
    pace = Pace(loaded.settings, clock.wait, tmp_path, clock)
    running = open_run(loaded, interrupt, store, Link(send, pace))
    emulator.fail_next(500, 5)
    running.read(io.BytesIO(lines(schema(), record(uid="u"))))
    running.finish()
    assert 6 == len(starts)
    assert all(b - a >= 62 - 0.002 for a, b in zip(starts, starts[2:], strict=False))


def test_a_wait_for_a_permit_ends_at_once(tmp_path):
    """A run that is to end does not wait for its permit."""
    pace = Pace(workspace(1), lambda _seconds: True, tmp_path)
    assert pace.acquire()
    began = time.monotonic()
    assert not pace.acquire()
    assert time.monotonic() - began < 5
    pace.close()


def test_the_bucket_is_its_owners_alone(tmp_path):
    """Promise 7: the bucket's files are 0600, whatever the umask."""
    previous = os.umask(0)
    try:
        pace = Pace(workspace(), lambda _seconds: True, tmp_path)
        pace.acquire()
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    finally:
        os.umask(previous)
    pace.close()
    assert {0o600} == set(modes.values())


def test_workspaces_do_not_share_a_bucket(tmp_path):
    """Each workspace has its own limit."""
    clock = Clock()
    one = Pace(workspace(1, "one"), clock.wait, tmp_path, clock)
    two = Pace(workspace(1, "two"), clock.wait, tmp_path, clock)
    assert one.acquire()
    assert two.acquire()
    assert 1_000.0 == clock.now
    one.close()
    two.close()


def test_a_state_directory_that_cannot_be_used_is_a_settings_error(tmp_path):
    """A file in place of the directory is an error that says what to do."""
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError) as error:
        Pace(workspace(), lambda _seconds: True, tmp_path / "file")
    assert "rate_limit_file" == error.value.code
    assert "must be writable" in str(error.value)


def test_a_wait_for_the_lock_ends_when_the_run_is_to_end(tmp_path):
    """While another process holds the bucket, a run that is to end does not wait for it."""
    asked = []

    def wait(_seconds: float) -> bool:
        asked.append(1)
        return len(asked) > 2

    pace = Pace(workspace(), wait, tmp_path)
    (path,) = tmp_path.glob("*.lock")
    with path.open("r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert not pace.acquire()
    assert len(asked) >= 3
    asked.clear()
    assert pace.acquire()
    pace.close()


def test_threads_that_wait_do_not_get_in_each_others_way(tmp_path):
    """Four threads get exactly the available permits, and then wait."""
    ended = threading.Event()
    pace = Pace(workspace(50), ended.wait, tmp_path)
    granted = []

    def take() -> None:
        while pace.acquire():
            granted.append(time.monotonic())
            if len(granted) == 50:
                ended.set()

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    pace.close()
    assert 50 == len(granted)


def test_two_processes_keep_to_300_a_minute_together(tmp_path):
    """With 300 per minute and two concurrent processes, 330 requests get no 429, at most 300 start
    within 60 s, and they take no longer than that requires."""
    with Emulator(clock=FastClock(SPEED)) as emulator:
        settings = config(emulator, requests_per_minute=300, max_payload_bytes=1_000)
        path = tmp_path / "config.json"
        path.write_text(json.dumps(settings))
        uid = "x" * 300
        processes = []
        for name in ("one", "two"):
            rows = [record(name, uid=f"{uid}-{number}") for number in range(330)]
            source = tmp_path / f"{name}.singer"
            source.write_bytes(lines(schema(name), *rows))
            module = "tests.support.hurried"
            processes.append(
                subprocess.Popen(
                    [sys.executable, "-m", module, str(SPEED), str(path), str(source)],
                    env=environment(tmp_path),
                    cwd=ROOT,
                    stderr=subprocess.PIPE,
                )
            )
        errors = [process.communicate(timeout=110)[1] for process in processes]
        totals = emulator.totals()
        assert [0, 0] == [process.returncode for process in processes], errors
        assert {"200": 330} == totals.answers
        assert 200 < totals.largest_window <= 300
        first, *_, last = emulator.requests()
        assert last.arrived - first.arrived < 2 * 62
