"""Progress: a line on a terminal, log lines elsewhere, a summary at the end."""

import json
import logging
import os
import pty
import subprocess
import sys
import threading
import time

import hypothesis.strategies as st
import pytest
from hypothesis import given

from target_moengage_cohort.core.errors import BusyError
from target_moengage_cohort.delivery.pace import seconds_left
from target_moengage_cohort.delivery.ports import Outlook
from target_moengage_cohort.ledger.records import RunProgress
from target_moengage_cohort.sync.reporting import progress as progress_module
from target_moengage_cohort.sync.reporting.progress import Progress
from tests.support.singer import config, environment, lines, record, schema, state


def progress(
    *, left=6, more=False, wait=0.0, seconds=6.0, is_reading=False, clock=time.monotonic, **numbers
) -> Progress:
    """Return the progress of a run with these numbers."""
    run = {"run_id": "r", "pid": 1, "host": "h", "started_at": "t", "streams": []}
    zero = {"records": 0, "accepted": 0, "requests": 0}
    return Progress(
        lambda: RunProgress(**run, **zero | numbers),
        lambda: Outlook(left, more, wait, seconds),
        lambda: is_reading,
        clock,
    )


NUMBERS = {"records": 20_000, "accepted": 12_345, "requests": 6}
START = "20,000 lines read · 12,345 sent · 6 requests"


@pytest.mark.parametrize(
    ("shown", "seconds"), [("6 s", 6.0), ("1 s", 0.2), ("1.0 min", 60.0), ("12.5 min", 750.0)]
)
def test_the_line_has_rows_members_requests_and_the_time_left(shown, seconds):
    """One line has the rows read, the members sent, the requests, their share and the time left."""
    line = progress(**NUMBERS, seconds=seconds).line()
    assert f"{START} · 50 % · about {shown} left" == line


def test_the_line_claims_nothing_that_is_not_known():
    """While input arrives there is a rate, and while more waits, a lower bound; no share."""
    times = iter([0.0, 4.0])
    reading = progress(**NUMBERS, is_reading=True, clock=lambda: next(times)).line()
    assert f"{START} · 5,000 lines/s" == reading
    assert f"{START} · at least 6 s left" == progress(**NUMBERS, more=True).line()
    assert START == progress(**NUMBERS, left=0).line()


def test_the_line_says_what_it_waits_for():
    """A wait for the rate limit is shown with its seconds, rounded up."""
    line = progress(records=100, requests=1, wait=33.2).line()
    assert "waiting for the rate limit, 34 s" in line.split(" · ")


COUNTS = st.integers(0, 999_999_999)


@given(
    **dict.fromkeys(("records", "accepted", "requests", "left"), COUNTS),
    wait=st.floats(0, 9_999),
    seconds=st.floats(0, 999_999),
    more=st.booleans(),
    is_reading=st.booleans(),
)
def test_the_line_fits_80_columns(**values):
    """Whatever the numbers are, the line has less than 80 columns and begins with the rows."""
    line = progress(**values, clock=iter([0.0, 1.0]).__next__).line()
    assert len(line) < 80
    assert line.startswith(f"{values['records']:,} line")


@pytest.mark.parametrize(
    ("seconds", "numbers"),
    [
        (20, {"requests": 100, "started": 0, "wait": 0.0}),
        (62, {"requests": 600, "started": 0, "wait": 0.0}),
        (62, {"requests": 100, "started": 250, "wait": 0.0}),
        (34, {"requests": 100, "started": 300, "wait": 34.0}),
        (96, {"requests": 301, "started": 300, "wait": 34.0}),
        (0, {"requests": 0, "started": 7, "wait": 0.0}),
    ],
)
def test_the_time_left_counts_the_limit_from_the_start(seconds, numbers):
    """With 300 requests a window, those that fit into it wait for no other one."""
    assert seconds == seconds_left(**numbers, limit=300)


def test_elsewhere_a_log_line_comes_now_and_then(monkeypatch, caplog):
    """Without a terminal, the line is logged each time the interval has passed."""
    monkeypatch.setattr(progress_module, "_LOG_SECONDS", 0.001)
    monkeypatch.setattr(progress_module, "_PUBLISH_SECONDS", 0.001)
    seen = threading.Event()

    class Watcher(logging.Handler):
        def emit(self, log_record: logging.LogRecord) -> None:
            if "lines read" in log_record.getMessage():
                seen.set()

    watcher = Watcher()
    logging.getLogger(progress_module.__name__).addHandler(watcher)
    caplog.set_level(logging.INFO)
    shown = progress()
    shown.start()
    assert seen.wait(10)
    shown.stop()
    logging.getLogger(progress_module.__name__).removeHandler(watcher)


def test_one_thread_at_a_time_writes_the_entry(monkeypatch):
    """The entry is made by `publish` while the progress thread waits, however often it wakes."""
    monkeypatch.setattr(progress_module, "_PUBLISH_SECONDS", 0.001)

    class Store:
        writers = 0
        overlap = threading.Event()

        def write_progress(self, _progress: RunProgress) -> None:
            self.writers += 1
            if self.writers > 1:
                self.overlap.set()
            self.overlap.wait(0.2)
            self.writers -= 1

    shown, store = progress(), Store()
    shown.start()
    shown.publish(store)
    shown.stop()
    assert not store.overlap.is_set()


def test_a_ledger_that_is_busy_does_not_end_the_progress(monkeypatch):
    """The entry is written again after an attempt for which control was locked for too long."""
    monkeypatch.setattr(progress_module, "_PUBLISH_SECONDS", 0.001)

    class Store:
        written = 0
        is_again = threading.Event()

        def write_progress(self, _progress: RunProgress) -> None:
            self.written += 1
            if self.written == 2:
                raise BusyError("ledger_busy", "locked")
            if self.written > 2:
                self.is_again.set()

    shown, store = progress(), Store()
    shown.start()
    shown.publish(store)
    assert store.is_again.wait(10)
    shown.stop()


def test_on_a_terminal_there_is_a_progress_line(tmp_path, emulator):
    """On a terminal the line is shown while requests are under way, and STATE stays clean."""
    master, slave = pty.openpty()
    emulator.hold()
    config_path = tmp_path / "config.json"
    config_path.write_text(json.dumps(config(emulator)))
    process = subprocess.Popen(
        [sys.executable, "-m", "target_moengage_cohort", "--config", str(config_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=slave,
        env=environment(tmp_path, TERM="xterm", COLUMNS="120"),
    )
    os.close(slave)
    process.stdin.write(lines(schema(), record(uid="u"), state({"a": 1})))
    process.stdin.close()
    shown = b""
    while b"lines read" not in shown:
        shown += os.read(master, 4096)
    emulator.release()
    assert b'{"a": 1}\n' == process.stdout.read()
    assert 0 == process.wait(timeout=30)
    os.close(master)
