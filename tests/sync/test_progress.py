"""Progress: a line on a terminal, log lines elsewhere, a summary at the end."""

import json
import logging
import os
import pty
import subprocess
import sys
import threading

import pytest

from target_moengage_cohort.ledger.records import RunProgress
from target_moengage_cohort.sync import progress as progress_module
from target_moengage_cohort.sync.progress import Progress
from tests.support.singer import config, environment, lines, record, schema, state


def progress(*, minutes_left=0.1, **numbers) -> Progress:
    """Return the progress of a run with these numbers."""
    run = {"run_id": "r", "pid": 1, "host": "h", "started_at": "t", "streams": []}
    zero = {"records": 0, "accepted": 0, "requests": 0}
    return Progress(lambda: RunProgress(**run, **zero | numbers), lambda: minutes_left)


@pytest.mark.parametrize(
    ("left", "minutes_left"), [("6 s", 0.1), ("1.0 min", 1.0), ("12.5 min", 12.5)]
)
def test_the_line_has_rows_members_requests_and_the_time_left(left, minutes_left):
    """One line has the rows read, the members sent, the requests, and the time left."""
    shown = progress(records=20_000, accepted=12_345, requests=6, minutes_left=minutes_left)
    assert f"20,000 lines read · 12,345 sent · 6 requests · about {left} left" == shown.line()


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
