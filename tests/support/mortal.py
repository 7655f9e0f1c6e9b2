"""Runs of the target, and commands, that kill themselves by SIGKILL at a step of the ledger.

Python and its imports take longer than such a run, so one process has it all imported and forks
for each run; it never has a thread or a database of its own that a fork would break.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import typing as t
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

from click.testing import CliRunner

from target_moengage_cohort.cli import (  # noqa: F401 - once for all forks
    cli,
    confirm_command,
    resync_command,
)
from target_moengage_cohort.cli.session import SessionTiming
from target_moengage_cohort.delivery.ports import Timing
from target_moengage_cohort.emulator import Emulator
from tests.support.singer import config, run


@dataclass
class Death:
    """The end of a run or a command that was to be killed.

    Attributes:
        killed: Whether it was killed; if not, it ended before that step.
        states: The STATE messages that it wrote.
        failure: Its error, if it neither succeeded nor was killed.
        steps: The names of the steps that it reached.
        code: The exit code of a command that was not killed.
    """

    killed: bool
    states: list[t.Any]
    failure: str
    steps: list[str]
    code: int | None


class Mortals:
    """A process that forks runs; use it as a context manager."""

    def __enter__(self):
        self._process = subprocess.Popen(
            [sys.executable, "-m", __spec__.name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[2],
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def run(
        self,
        emulator: Emulator,
        data: bytes,
        *,
        dies_at: int,
        tap_exit: int | None = None,
        clock: float | None = None,
        **settings: t.Any,
    ) -> Death:
        """Run on an input, and kill the run at a step.

        Args:
            emulator: The emulated MoEngage.
            data: The input.
            dies_at: The number of the step, from 1.
            tap_exit: The exit code of the tap that it started.
            clock: The constant time of the wall clock.
            **settings: Settings in addition to those of `singer.config`.
        """
        facts = {"dies_at": dies_at, "tap_exit": tap_exit, "clock": clock, "settings": settings}
        return self._order(emulator, facts, data)

    def command(
        self, emulator: Emulator, *arguments: str, dies_at: int, **settings: t.Any
    ) -> Death:
        """Call a command of `moengage-cohort`, and kill it at a step; likewise."""
        return self._order(
            emulator, {"dies_at": dies_at, "arguments": arguments, "settings": settings}
        )

    def _order(self, emulator: Emulator, facts: dict[str, t.Any], data: bytes = b"") -> Death:
        where = {name: getattr(emulator, name) for name in ("workspace_id", "data_api_key", "url")}
        with tempfile.TemporaryDirectory() as folder:
            state_home = os.environ["XDG_STATE_HOME"]  # the test's, not that of the first one
            order = {"folder": folder, "where": where, "state_home": state_home, **facts}
            Path(folder, "input").write_bytes(data)
            self._process.stdin.write(json.dumps(order).encode() + b"\n")
            self._process.stdin.flush()
            status = json.loads(self._process.stdout.readline())
            texts = {path.name: path.read_text() for path in Path(folder).iterdir()}
        killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        failure = texts.get("failure", "") if killed or status == 0 else f"wait status {status}"
        return Death(
            killed,
            [json.loads(line) for line in texts.get("states", "").splitlines()],
            failure,
            texts.get("steps", "").splitlines(),
            int(texts["code"]) if "code" in texts else None,
        )


def _die(order: dict[str, t.Any]) -> None:
    """Run as ordered, until the kill."""
    folder = Path(order["folder"])
    os.environ["XDG_STATE_HOME"] = order["state_home"]
    flags = os.O_CREAT | os.O_WRONLY | os.O_APPEND
    states, steps = (os.open(folder / name, flags) for name in ("states", "steps"))
    left = [None] * order["dies_at"]

    def step(name: str) -> None:
        os.write(steps, name.encode() + b"\n")
        left.pop()  # atomic, whatever thread comes here
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)

    emulator = SimpleNamespace(**order["where"])
    if "arguments" in order:
        path = folder / "config.json"
        path.write_text(json.dumps(config(emulator, **order["settings"])))
        result = CliRunner().invoke(
            cli, [*order["arguments"], "--config", str(path)], obj=SessionTiming(step=step)
        )
        (folder / "code").write_text(str(result.exit_code))
        if "Traceback" in result.output:
            (folder / "failure").write_text(result.output)
        return
    timing = Timing(jitter=lambda _seconds: 0.0)
    if (clock := order["clock"]) is not None:
        timing = Timing(jitter=lambda _seconds: 0.0, wall_clock=lambda: clock)
    seen = run(
        emulator,
        (folder / "input").read_bytes(),
        timing,
        write_state=lambda value: os.write(states, value + b"\n"),
        tap_exit=None if order["tap_exit"] is None else lambda: order["tap_exit"],
        step=step,
        **order["settings"],
    )
    if seen.error is not None:
        (folder / "failure").write_text(f"{type(seen.error).__name__}: {seen.error}")


def main() -> None:
    """Fork a run for each line of standard input, and print how it ended."""
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    for line in iter(sys.stdin.buffer.readline, b""):
        process = os.fork()
        if process == 0:
            code = 1
            try:
                _die(json.loads(line))
                code = 0
            except BaseException:  # noqa: BLE001 - a child must not continue as its parent
                sys.excepthook(*sys.exc_info())
            finally:
                os._exit(code)
        _, status = os.waitpid(process, 0)
        answers.write(json.dumps(status).encode() + b"\n")


if __name__ == "__main__":
    main()
