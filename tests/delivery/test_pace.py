"""The pace: the number of requests that may start, in all processes together."""

import collections
import contextlib
import io
import json
import logging
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
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
from tests.support.permits import workspace
from tests.support.singer import config, environment, lines, open_run, record, schema
from tests.support.strategies import histories

ROOT = Path(__file__).parents[2]
SPEED = float(os.environ.get("SPEED", "8"))
"""How much faster than the real ones the minutes are that processes share."""
ROUNDING = 1e-9


class Clock:
    """A clock that waiting advances."""

    def __init__(self, now: float = 1_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def wait(self, seconds: float) -> bool:
        self.now += seconds
        return False


def shifted(clock: Clock, seconds: float) -> Callable[[], float]:
    return lambda: clock.now + seconds


def no_wait(_seconds: float) -> bool:
    """End the run where it would wait."""
    return True


def other_user(folder: Path) -> sqlite3.Connection:
    """Open the only window in a folder as another process does."""
    (path,) = folder.glob("pace-*.sqlite3")
    return sqlite3.connect(path, timeout=0, isolation_level=None)


@contextlib.contextmanager
def permits(folder: Path, what: str) -> Iterator[subprocess.Popen]:
    """Run a process that takes permits; see tests.support.permits."""
    command = [sys.executable, "-m", "tests.support.permits", str(folder), what]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


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
    """Promise 3: however two processes share the window, no 62 seconds have more starts than the
    limit. No request starts while a 429 asks to wait."""
    clock, starts, held_until = Clock(), [], 0.0
    folder = tmp_path_factory.mktemp("pace")
    paces = [Pace(workspace(limit), clock.wait, folder, clock) for _ in range(2)]
    for name, value in steps:
        if name == "start":
            assert paces[value].acquire()
            assert clock.now >= held_until - ROUNDING
            starts.append(clock.now)
        elif name == "pause":
            clock.now += value
        else:
            paces[0].hold(value)
            held_until = max(held_until, clock.now + value)
    for pace in paces:
        pace.close()
    for first, beyond in zip(starts, starts[limit:], strict=False):
        assert beyond - first >= 62 - ROUNDING


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
    assert all(b - a >= 62 - ROUNDING for a, b in zip(starts, starts[2:], strict=False))


def test_a_wait_for_a_permit_ends_at_once(tmp_path):
    """A run that is to end does not wait for its permit."""
    pace = Pace(workspace(1), no_wait, tmp_path)
    assert pace.acquire()
    began = time.monotonic()
    assert not pace.acquire()
    assert time.monotonic() - began < 5
    pace.close()


def test_the_files_are_their_owners_alone(monkeypatch, tmp_path):
    """Promise 7: the files are 0600 from their first byte and their directory is 0700, whatever the
    umask."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    modes = collections.defaultdict(set)

    def look() -> float:
        for path in tmp_path.rglob("pace-*"):
            modes[path.suffix].add(stat.S_IMODE(path.stat().st_mode))
            modes["directory"].add(stat.S_IMODE(path.parent.stat().st_mode))
        return time.monotonic()

    previous = os.umask(0)
    try:
        with closing(Pace(workspace(), no_wait, clock=look)) as pace:
            pace.acquire()  # looks inside of the first transaction
            look()
    finally:
        os.umask(previous)
    files = {suffix: {0o600} for suffix in (".sqlite3", ".sqlite3-wal", ".sqlite3-shm")}
    assert {"directory": {0o700}, **files} == modes


def test_workspaces_do_not_share_a_window(tmp_path):
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
        Pace(workspace(), no_wait, tmp_path / "file")
    assert "rate_limit_file" == error.value.code
    assert str(tmp_path / "file") in str(error.value)


def test_a_wait_for_the_lock_ends_when_the_run_is_to_end(tmp_path):
    """While another process holds the file, a run that is to end does not wait for it."""
    asked = []

    def wait(seconds: float) -> bool:
        asked.append(seconds)
        return len(asked) > 2

    pace = Pace(workspace(), wait, tmp_path)
    with closing(other_user(tmp_path)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert not pace.acquire()
    assert len(asked) == 3
    assert max(asked) <= 1
    asked.clear()
    assert pace.acquire()
    pace.close()


def test_a_run_that_is_to_end_does_not_wait_to_open_the_file(tmp_path):
    """While another process creates the file, a run that is to end gets no permit, and no error."""
    with closing(Pace(workspace(), no_wait, tmp_path)), closing(other_user(tmp_path)) as other:
        other.execute("DROP TABLE entries")
        other.execute("BEGIN IMMEDIATE")
        pace = Pace(workspace(), no_wait, tmp_path)
    assert not pace.acquire()
    pace.hold(1)
    pace.close()


def test_a_stopped_process_delays_but_does_not_hang_the_others(tmp_path):
    """While a process is stopped in the middle of a permit, others wait, an interrupt ends that
    wait, and its permit counts when it continues."""
    with permits(tmp_path, "stop") as process:
        assert os.WIFSTOPPED(os.waitpid(process.pid, os.WUNTRACED)[1])
        asked = []

        def wait(seconds: float) -> bool:
            asked.append(seconds)
            if len(asked) == 5:
                process.send_signal(signal.SIGCONT)
                assert "1\n" == process.communicate(timeout=30)[0]
            return len(asked) == 3 or seconds == 1

        with closing(Pace(workspace(2), wait, tmp_path)) as pace:
            assert not pace.acquire()
            assert 3 == len(asked)
            assert pace.acquire()
            assert 5 == len(asked)
            assert not pace.acquire()


def test_a_killed_process_leaves_the_file_usable(tmp_path):
    """A process that is killed in the middle of a permit takes neither the permit nor the lock."""
    with permits(tmp_path, "stop") as process:
        assert os.WIFSTOPPED(os.waitpid(process.pid, os.WUNTRACED)[1])
        process.kill()
    with closing(Pace(workspace(1), no_wait, tmp_path)) as pace:
        assert pace.acquire()


def test_processes_that_start_together_share_the_permits(tmp_path):
    """Four processes that create and use the file at the same time get exactly the permits that
    there are."""
    with contextlib.ExitStack() as stack:
        processes = [stack.enter_context(permits(tmp_path, "100")) for _ in range(4)]
        granted = [int(process.communicate(timeout=60)[0]) for process in processes]
    assert 100 == sum(granted)


passing = st.one_of(st.floats(0, 31), st.sampled_from([61.75, 31, 30.75]))
trying = st.tuples(st.just("try"), st.integers(0, 3))
attempts = histories(st.one_of(trying, trying, st.tuples(st.just("pass"), passing)), 60)


@given(attempts=attempts, limit=st.integers(1, 4), boots=st.sampled_from(["aaaa", "aabb", "abcd"]))
@settings(max_examples=100)
def test_the_window_is_full_exactly_when_it_has_as_many_starts(
    tmp_path_factory, attempts, limit, boots
):
    """Promise 3: with any interleaving of four users, an attempt is granted if the 62 seconds
    before it have fewer starts than allowed, and refused otherwise. Users whose boots' ids and
    clocks differ grant no more than that."""
    clock, starts = Clock(), []
    folder = tmp_path_factory.mktemp("pace")
    paces = [
        Pace(workspace(limit), no_wait, folder, shifted(clock, ord(boot) * 7_919), boot)
        for boot in boots
    ]
    for name, value in attempts:
        if name == "pass":
            clock.now += value
            continue
        ages = [clock.now - start for start in starts]
        if paces[value].acquire():
            starts.append(clock.now)
            assert len([age for age in ages if age < 62 - ROUNDING]) < limit
        elif len(set(boots)) == 1:
            assert len([age for age in ages if age < 62 + ROUNDING]) >= limit
    for pace in paces:
        pace.close()


def test_a_full_window_is_waited_for_exactly(tmp_path):
    """A permit comes when the oldest start that must leave is 62 s old, and no later."""
    clock = Clock()
    with closing(Pace(workspace(2), clock.wait, tmp_path, clock)) as pace:
        assert pace.acquire()
        clock.now += 10.25
        assert pace.acquire()
        assert pace.acquire()
        assert 1_062 == clock.now
        assert pace.acquire()
        assert 1_072.25 == clock.now


def test_a_lower_limit_counts_all_starts(tmp_path):
    """A process with a lower limit waits for as many starts to leave as its limit requires."""
    clock = Clock()
    high = Pace(workspace(3), clock.wait, tmp_path, clock)
    low = Pace(workspace(1), clock.wait, tmp_path, clock)
    for _ in range(3):
        assert high.acquire()
        clock.now += 1
    assert low.acquire()
    assert 1_064 == clock.now
    high.close()
    low.close()


def test_the_hold_of_another_run_is_explained_once(tmp_path, caplog):
    """A run that waits for another run's 429 says so once; its own 429 is no news to it."""
    caplog.set_level(logging.INFO)
    clock = Clock()
    with closing(Pace(workspace(2), clock.wait, tmp_path, clock)) as pace:
        pace.hold(30)
        assert pace.acquire()
        assert [] == caplog.records
        clock.now += 62
        pace.hold(30)
    with closing(Pace(workspace(2), clock.wait, tmp_path, clock)) as pace:
        assert pace.acquire()
        assert ["waiting_for_rate_limit"] == [each.code for each in caplog.records]


def test_the_wait_for_a_permit_is_known(tmp_path):
    """While a request waits, the seconds to its permit are known; otherwise they are 0."""
    clock, waits = Clock(), []

    def wait(seconds):
        waits.append(pace.seconds_to_permit)
        return clock.wait(seconds)

    with closing(Pace(workspace(1), wait, tmp_path, clock)) as pace:
        assert pace.acquire()
        assert 0 == pace.seconds_to_permit
        assert pace.acquire()
        assert (62, 61, 0) == (*waits[:2], pace.seconds_to_permit)


@pytest.mark.parametrize("now", [5.0, 900_000.0])
def test_starts_of_another_boot_hold_for_a_window_from_when_they_are_first_seen(tmp_path, now):
    """After a reboot, whatever the clock shows, the starts before it count for 62 s from the first
    look at them, not from later ones."""
    before = Clock()
    with closing(Pace(workspace(2), before.wait, tmp_path, before, "before")) as pace:
        assert pace.acquire()
        assert pace.acquire()
    clock = Clock(now)
    for passed in (0, 30, 31.5):
        clock.now = now + passed
        with closing(Pace(workspace(2), no_wait, tmp_path, clock, "after")) as pace:
            assert not pace.acquire()
    clock.now = now + 62
    with closing(Pace(workspace(2), no_wait, tmp_path, clock, "after")) as pace:
        assert pace.acquire()
        assert pace.acquire()
        assert not pace.acquire()


def test_users_whose_boots_differ_do_not_block_each_other_for_ever(tmp_path):
    """Two users that take each other's starts for another boot's look at them in turn, and still
    get their permits 62 s later."""
    clock = Clock()
    one = Pace(workspace(1), no_wait, tmp_path, clock, "one")
    two = Pace(workspace(1), no_wait, tmp_path, clock, "two")
    assert one.acquire()
    for _ in range(61):
        clock.now += 1
        assert not two.acquire()
        assert not one.acquire()
    clock.now += 1
    assert one.acquire()
    one.close()
    two.close()


def test_a_hold_of_another_boot_ends_after_a_window(tmp_path):
    """After a reboot, a long 429 holds for 62 s, because nobody knows how much of it has passed."""
    clock = Clock()
    with closing(Pace(workspace(), clock.wait, tmp_path, clock, "before")) as pace:
        pace.hold(3_600)
    with closing(Pace(workspace(), clock.wait, tmp_path, clock, "after")) as pace:
        assert pace.acquire()
    assert 1_062 == clock.now


def test_rows_of_the_future_are_clamped_to_now(tmp_path):
    """If the clock of the same boot has gone back, starts and holds count from now on and no
    longer."""
    clock = Clock(5_000.0)
    with closing(Pace(workspace(1), clock.wait, tmp_path, clock)) as pace:
        assert pace.acquire()
        clock.now = 1_000.0
        assert pace.acquire()
        assert 1_062 == clock.now
        clock.now = 5_000.0
        pace.hold(100)
        clock.now = 1_062.0
        assert pace.acquire()
        assert 1_162 == clock.now


def test_the_file_stays_small(tmp_path):
    """Rows that no longer count are deleted, those of another boot included."""
    clock = Clock()
    for boot in ("before", "after"):
        with closing(Pace(workspace(5), clock.wait, tmp_path, clock, boot)) as pace:
            for _ in range(50):
                assert pace.acquire()
                pace.hold(1)
    clock.now += 62
    with closing(Pace(workspace(5), clock.wait, tmp_path, clock, "after")) as pace:
        assert pace.acquire()
        with closing(other_user(tmp_path)) as other:
            assert [(1,)] == other.execute("SELECT count(*) FROM entries").fetchall()


def test_a_permit_that_could_not_be_written_leaves_nothing_behind(tmp_path):
    """An error in the middle of a transaction is the file's error, and takes the lock back."""
    with closing(Pace(workspace(), no_wait, tmp_path)) as pace:
        with closing(other_user(tmp_path)) as other:
            other.execute("ALTER TABLE entries RENAME TO away")
            with pytest.raises(SettingsError) as error:
                pace.acquire()
            assert "rate_limit_file" == error.value.code
            other.execute("ALTER TABLE away RENAME TO entries")
        assert pace.acquire()


def test_a_damaged_file_is_a_settings_error(tmp_path):
    """A file that is no database is an error that names the file and what to do with it."""
    Pace(workspace(), no_wait, tmp_path).close()
    (path,) = tmp_path.iterdir()
    path.write_bytes(b"no database " * 1_000)
    with pytest.raises(SettingsError) as error:
        Pace(workspace(), no_wait, tmp_path)
    assert "rate_limit_file" == error.value.code
    assert str(path) in str(error.value)
    assert "delete it" in str(error.value)


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
