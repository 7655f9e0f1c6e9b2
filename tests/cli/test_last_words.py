"""The end of a run that fails: the tap may end first, and the reason is the last line."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from target_moengage_cohort.singer.lines import discard
from tests.support.singer import config, environment, lines, record, schema, start, state

TAP = """
import sys
sys.stdout.write(sys.argv[1])
for number in range(40):
    sys.stdout.write('{"type": "RECORD", "stream": "users", "record": {"uid": "u"}}\\n' * 2_000)
    sys.stdout.flush()
print("the tap has ended", file=sys.stderr)
"""
GOOD = lines(schema(), record(uid="u1"), state({"a": 1})).decode()
MISFITS = {
    "bad line": ({}, GOOD + "not JSON\n"),
    "bad settings": ({"partner": ""}, GOOD),
    "refused": ({"data_api_key": "wrong"}, GOOD),
}


def piped(tmp_path, settings, first):
    """Run a tap that writes 5 MB after some lines into the target; return both exit codes and the
    lines on their shared standard error."""
    path = tmp_path / "config.json"
    path.write_text(json.dumps(settings))
    with (tmp_path / "stderr").open("wb") as stderr:
        tap = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(TAP), first],
            stdout=subprocess.PIPE,
            stderr=stderr,
        )
        target = subprocess.run(
            [sys.executable, "-m", "target_moengage_cohort", "--config", str(path)],
            stdin=tap.stdout,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            env=environment(tmp_path),
            check=False,
            timeout=60,
        )
        tap.stdout.close()
        code = tap.wait(timeout=60)
    return code, target.returncode, (tmp_path / "stderr").read_text().splitlines()


@pytest.mark.parametrize(("extra", "first"), MISFITS.values(), ids=MISFITS)
def test_the_reason_is_the_last_line(tmp_path, emulator, extra, first):
    """The tap ends without a broken pipe, and the last line is the one error of the run."""
    settings = config(emulator, max_retry_seconds=0) | extra
    tap, target, shown = piped(tmp_path, settings, first)
    assert (0, 1) == (tap, target)
    assert [shown[-1]] == [line for line in shown if "| ERROR " in line]
    assert "the tap has ended" in shown
    assert not any("Traceback" in line or "BrokenPipe" in line for line in shown)


def test_a_file_that_is_not_a_configuration_is_the_last_line(tmp_path):
    """A configuration file that cannot be read ends with its error, after the tap."""
    (tmp_path / "config.json").write_text("{}")
    tap = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(TAP), ""],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    target = subprocess.run(
        [sys.executable, "-m", "target_moengage_cohort", "--config", str(tmp_path / "none.json")],
        stdin=tap.stdout,
        capture_output=True,
        text=True,
        env=environment(tmp_path),
        check=False,
        timeout=60,
    )
    tap.stdout.close()
    _, said = tap.communicate(timeout=60)
    assert (2, 0, b"the tap has ended\n") == (target.returncode, tap.returncode, said)
    assert target.stderr.splitlines()[-1].startswith("Error: ")


@pytest.mark.parametrize("extra", [{}, {"partner": ""}], ids=["run", "settings"])
def test_a_signal_ends_the_wait_for_the_tap(tmp_path, emulator, extra):
    """While a failed run waits for its tap, SIGTERM ends it at once, with the reason."""
    process = start(tmp_path, config(emulator) | extra)
    process.stdin.write(b"not JSON\n")
    process.stdin.flush()
    time.sleep(3)
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    process.wait(timeout=30)
    assert time.monotonic() - began < 3
    assert 143 == process.returncode
    assert b"| ERROR " in process.stderr.read()
    process.stdin.close()


def pipe():
    """Return both ends of a pipe, as files of bytes."""
    reading, writing = os.pipe()
    return os.fdopen(reading, "rb"), os.fdopen(writing, "wb", buffering=0)


def test_a_pipe_without_end_is_read_for_ten_seconds():
    """A tap that never ends is waited for until the clock says that 10 s have passed."""
    times = [0.0]

    def clock():
        times.append(times[-1] + 0.5)
        return times[-1]

    source, writer = pipe()
    with source, writer:
        writer.write(b"x" * 1_000)
        discard(source, lambda: False, clock)
    assert 10 <= times[-1] - times[1] < 11


def test_the_end_of_a_pipe_ends_the_wait():
    """What was written is read to its end, and not longer."""
    source, writer = pipe()
    writer.write(b"x" * 1_000)
    writer.close()
    with source:
        discard(source, lambda: False, lambda: 0.0)
        assert b"" == source.read()


def test_a_file_is_left_alone(tmp_path):
    """Nothing waits for a file, so it is not read."""
    path = tmp_path / "input"
    path.write_bytes(b"x" * 1_000)
    with path.open("rb") as source:
        discard(source, lambda: False)
        assert 1_000 == len(source.read())
    discard(None, lambda: False)
