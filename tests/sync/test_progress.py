"""Progress: a line on a terminal, log lines elsewhere, a summary at the end."""

import json
import logging
import os
import pty
import re
import subprocess
import sys
import threading

from target_moengage_cohort.delivery.attempts import Totals
from target_moengage_cohort.sync import progress as progress_module
from target_moengage_cohort.sync.progress import Progress
from tests.support.singer import config, environment, lines, record, schema, state


def test_the_line_tells_members_requests_pace_and_time_left():
    """One line has what was read and accepted, the requests, their pace, and the time left."""
    totals = Totals(accepted=12_345, requests=6)
    line = Progress(totals, lambda: 20_000, lambda: 30, (), 300).line()
    assert "20,000 lines read, 12,345 members accepted in 6 requests" in line
    assert "about 0.1 min left for what was read" in line
    assert re.search(r"\(\d+/min\)", line)


def test_elsewhere_a_log_line_comes_now_and_then(monkeypatch, caplog):
    """Where no terminal is, the line is logged each time the interval has passed."""
    monkeypatch.setattr(progress_module, "_LOG_SECONDS", 0.001)
    seen = threading.Event()

    class Watcher(logging.Handler):
        def emit(self, log_record: logging.LogRecord) -> None:
            if "lines read" in log_record.getMessage():
                seen.set()

    watcher = Watcher()
    logging.getLogger(progress_module.__name__).addHandler(watcher)
    caplog.set_level(logging.INFO)
    progress = Progress(Totals(), lambda: 1, lambda: 0, (), 300)
    progress.start()
    assert seen.wait(10)
    progress.stop()
    logging.getLogger(progress_module.__name__).removeHandler(watcher)


def test_on_a_terminal_there_is_a_progress_line(tmp_path, emulator):
    """A person who watches sees the line while requests are under way, and STATE stays clean."""
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
