"""Runs of the real programs, and what ends some of them."""

import contextlib
import itertools
import json
import os
import random
import shlex
import signal
import subprocess
import threading
import time
import typing as t
from dataclasses import dataclass
from pathlib import Path

from target_moengage_cohort.delivery.attempts import Timing
from target_moengage_cohort.emulator import Emulator
from tests.support.project import program
from tests.support.singer import config, environment, run
from tools.soak.disk import Disk
from tools.soak.wire import Wire

LONGEST_SECONDS = 180.0
BLOCK_BYTES = 512  # of the shell's `ulimit -f`, as POSIX has it
Form = t.Literal["target", "run", "in process", "confirm"]
"""A process of the target, or of `moengage-cohort run` with a tap, or of `moengage-cohort
confirm`; or a run in this process, whose clock can be turned."""


@dataclass(frozen=True)
class Doom:
    """What ends a process.

    Attributes:
        number: The signal; ``None`` for a disk that is full, by one of the two at the end.
        seconds: When, after its start; ``None`` goes by requests.
        requests: At which request of the run.
        hangs: Whether its input does not end before.
        largest_file: In bytes, for all that it writes.
        room: How many bytes are left for the ledgers.
    """

    number: int | None = None
    seconds: float | None = None
    requests: int = 0
    hangs: bool = False
    largest_file: int | None = None
    room: int | None = None


@dataclass(frozen=True)
class Ended:
    """How a run ended.

    Attributes:
        code: The exit code; that of a signal is negative.
        states: The STATE that it wrote.
        stderr: What it said.
    """

    code: int
    states: list[dict[str, int]]
    stderr: str


@dataclass
class Runner:
    """Starts runs, one after the other.

    Attributes:
        emulator: MoEngage.
        wire: The way to it.
        disk: Where the ledgers are.
        home: A folder for the programs' state.
    """

    emulator: Emulator
    wire: Wire
    disk: Disk
    home: Path

    def run(
        self,
        form: Form,
        data: bytes,
        settings: dict[str, t.Any],
        *,
        doom: Doom | None = None,
        tap_exit: int = 0,
        clock_step: float = 0.0,
        streams: t.Sequence[str] = (),
    ) -> Ended:
        """Run to an end, or to its doom.

        Args:
            form: How.
            data: The input.
            settings: Beside those of `singer.config`.
            doom: What ends it.
            tap_exit: The exit code of the tap, in the form `run`.
            clock_step: What is added to the wall clock, in the form `in process`.
            streams: Those to confirm.
        """
        if form == "in process":
            return self._in_process(data, settings, clock_step)
        folder = self.home / "run"
        folder.mkdir(parents=True, exist_ok=True)
        path, source = folder / "config.json", folder / "input.singer"
        path.write_text(json.dumps(config(t.cast("Emulator", self.wire), **settings)))
        source.write_bytes(data)
        hangs = doom is not None and doom.hangs
        ending = "exec sleep 20" if hangs else f"exit {tap_exit}"
        tap = f"cat {shlex.quote(str(source))}; {ending}"
        command = {
            "target": [program("target-moengage-cohort"), "--config", str(path)],
            "run": [
                program("moengage-cohort"),
                "run",
                "--config",
                str(path),
                "--",
                "sh",
                "-c",
                tap,
            ],
            "confirm": [program("moengage-cohort"), "confirm", "--config", str(path), *streams],
        }[form]
        if doom is not None and (limit := self._largest_file(doom)) is not None:
            limited = 'ulimit -f "$0" && exec "$@"'
            command = ["sh", "-c", limited, str(limit // BLOCK_BYTES), *command]
        room = doom.room if doom is not None and self.disk.is_small else None
        with contextlib.nullcontext() if room is None else self.disk.filled(room):
            return self._process(command, data if form == "target" else b"", doom)

    def _largest_file(self, doom: Doom) -> int | None:
        """The limit of a file, which also stands for a disk that cannot be filled."""
        return doom.largest_file if self.disk.is_small else doom.largest_file or doom.room

    def _process(self, command: list[str], data: bytes, doom: Doom | None) -> Ended:
        requests = self.emulator.totals().requests
        read_fd, write_fd = os.pipe()
        process = subprocess.Popen(
            command,
            stdin=read_fd,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(self.home),
            start_new_session=True,  # Ctrl-C is for us
        )
        os.close(read_fd)
        done = threading.Event()
        waits = done if doom is not None and doom.hangs else None
        feeder = threading.Thread(target=_feed, args=(write_fd, data, waits))
        feeder.start()
        try:
            if doom is not None and doom.number is not None:
                self._await(process, doom, requests)
                process.send_signal(doom.number)
            said, complained = process.communicate(timeout=LONGEST_SECONDS)
        except BaseException:
            process.kill()
            process.communicate()
            raise
        finally:
            done.set()
            feeder.join()
        states = [json.loads(line) for line in said.splitlines() if line.startswith(b"{")]
        return Ended(process.returncode, states, complained.decode(errors="replace"))

    def _await(self, process: subprocess.Popen, doom: Doom, requests: int) -> None:
        """Wait for the moment of a signal, or for the process's end."""
        started = time.monotonic()
        due = started + (LONGEST_SECONDS if doom.seconds is None else doom.seconds)
        while process.poll() is None and time.monotonic() < due:
            if doom.seconds is None:
                if self.emulator.totals().requests - requests >= doom.requests:
                    return
                if doom.hangs and time.monotonic() > started + 3:
                    return
            time.sleep(0.002)

    def _in_process(self, data: bytes, settings: dict[str, t.Any], clock_step: float) -> Ended:
        timing = Timing(wall_clock=lambda: time.time() + clock_step)
        seen = run(t.cast("Emulator", self.wire), data, timing, **settings)
        code = seen.report.exit_code if seen.error is None else seen.error.exit_code
        return Ended(code, seen.states, str(seen.error or ""))


def _feed(descriptor: int, data: bytes, until: threading.Event | None) -> None:
    """Write an input to a process, whether or not it lives to read it; then close it, or wait."""
    with contextlib.suppress(BrokenPipeError), os.fdopen(descriptor, "wb", buffering=0) as pipe:
        for start in itertools.count(0, 65_536):
            if not (piece := data[start : start + 65_536]):
                break
            pipe.write(piece)
        if until is not None:
            until.wait()


def signalled(chance: random.Random, *, kills: bool) -> Doom:
    """A kill, or another signal, at a random moment."""
    number = signal.SIGKILL if kills else chance.choice([signal.SIGTERM, signal.SIGINT])
    hangs = chance.random() < 0.2
    if chance.random() < 0.5:
        return Doom(number, seconds=chance.uniform(0.0, 1.5), hangs=hangs)
    return Doom(number, requests=chance.randint(1, 12), hangs=hangs)


def signal_codes(doom: Doom | None) -> set[int]:
    """The exit codes that are due to a signal, whether or not the process had taken it over."""
    number = None if doom is None else doom.number
    return set() if number is None else {128 + number, -number}
