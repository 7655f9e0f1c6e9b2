"""Runs of the real programs, and the ways to terminate them."""

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

from target_moengage_cohort.delivery.ports import Timing
from target_moengage_cohort.emulator import Emulator
from tests.support.ledger_places import ServerPlace
from tests.support.project import program
from tests.support.singer import config, environment, run
from tools.soak.disk import Disk
from tools.soak.wire import Wire

LONGEST_SECONDS = 180.0
BLOCK_BYTES = 512  # of the shell's `ulimit -f`, as POSIX has it
Form = t.Literal["target", "run", "in process", "confirm"]
"""A process of the target, of `moengage-cohort run` with a tap, or of `moengage-cohort confirm`;
or a run in this process, with a controllable clock."""


@dataclass(frozen=True)
class Termination:
    """The termination of a process.

    Attributes:
        number: The signal; ``None`` for a full disk, by one of the last two attributes.
        seconds: The time after its start; ``None`` waits for `requests`.
        requests: The request of the run at which it is terminated.
        hangs: Whether its input stays open until then.
        largest_file: The limit of each file that it writes, in bytes.
        room: The free space for the ledgers, in bytes.
    """

    number: int | None = None
    seconds: float | None = None
    requests: int = 0
    hangs: bool = False
    largest_file: int | None = None
    room: int | None = None


@dataclass(frozen=True)
class Ended:
    """The end of a run.

    Attributes:
        code: The exit code; that of a signal is negative.
        states: The STATE messages that it wrote.
        stderr: Its log.
    """

    code: int
    states: list[dict[str, int]]
    stderr: str


@dataclass
class Runner:
    """Runner of one run after the other.

    Attributes:
        emulator: The emulated MoEngage.
        wire: The connection to it.
        disk: The disk of the ledgers on files.
        home: A folder for the programs' state.
        place: The ledgers on a server; ``None`` if they are on the disk.
    """

    emulator: Emulator
    wire: Wire
    disk: Disk
    home: Path
    place: ServerPlace | None = None

    @property
    def ledger_uri(self) -> str:
        """The address of the ledgers."""
        return str(self.disk.folder) if self.place is None else self.place.uri

    def run(
        self,
        form: Form,
        data: bytes,
        settings: dict[str, t.Any],
        *,
        termination: Termination | None = None,
        tap_exit: int = 0,
        clock_step: float = 0.0,
        streams: t.Sequence[str] = (),
    ) -> Ended:
        """Run to the end, or until it is terminated.

        Args:
            form: The kind of process.
            data: The input.
            settings: Settings in addition to those of `singer.config`.
            termination: How it is terminated.
            tap_exit: The exit code of the tap, in the form `run`.
            clock_step: The error of the wall clock in seconds, in the form `in process`.
            streams: The streams to confirm.
        """
        if form == "in process":
            return self._in_process(data, settings, clock_step)
        folder = self.home / "run"
        folder.mkdir(parents=True, exist_ok=True)
        path, source = folder / "config.json", folder / "input.singer"
        path.write_text(json.dumps(config(t.cast("Emulator", self.wire), **settings)))
        source.write_bytes(data)
        hangs = termination is not None and termination.hangs
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
        if termination is not None and (limit := self._largest_file(termination)) is not None:
            limited = 'ulimit -f "$0" && exec "$@"'
            command = ["sh", "-c", limited, str(limit // BLOCK_BYTES), *command]
        room = termination.room if termination is not None and self.disk.is_small else None
        with contextlib.nullcontext() if room is None else self.disk.filled(room):
            return self._process(command, data if form == "target" else b"", termination)

    def _largest_file(self, termination: Termination) -> int | None:
        """Return the limit of a file, which replaces a disk that cannot be filled."""
        return (
            termination.largest_file
            if self.disk.is_small
            else termination.largest_file or termination.room
        )

    def _process(self, command: list[str], data: bytes, termination: Termination | None) -> Ended:
        requests = self.emulator.totals().requests
        read_fd, write_fd = os.pipe()
        process = subprocess.Popen(
            command,
            stdin=read_fd,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(self.home),
            start_new_session=True,  # Ctrl-C is for this process
        )
        os.close(read_fd)
        done = threading.Event()
        waits = done if termination is not None and termination.hangs else None
        feeder = threading.Thread(target=_feed, args=(write_fd, data, waits))
        feeder.start()
        try:
            if termination is not None and termination.number is not None:
                self._await(process, termination, requests)
                process.send_signal(termination.number)
            output, errors = process.communicate(timeout=LONGEST_SECONDS)
        except BaseException:
            process.kill()
            process.communicate()
            raise
        finally:
            done.set()
            feeder.join()
        states = [json.loads(line) for line in output.splitlines() if line.startswith(b"{")]
        return Ended(process.returncode, states, errors.decode(errors="replace"))

    def _await(self, process: subprocess.Popen, termination: Termination, requests: int) -> None:
        """Wait until the signal is due or the process ends."""
        started = time.monotonic()
        deadline = started + (
            LONGEST_SECONDS if termination.seconds is None else termination.seconds
        )
        while process.poll() is None and time.monotonic() < deadline:
            if termination.seconds is None:
                if self.emulator.totals().requests - requests >= termination.requests:
                    return
                if termination.hangs and time.monotonic() > started + 3:
                    return
            time.sleep(0.002)

    def _in_process(self, data: bytes, settings: dict[str, t.Any], clock_step: float) -> Ended:
        timing = Timing(wall_clock=lambda: time.time() + clock_step)
        seen = run(t.cast("Emulator", self.wire), data, timing, **settings)
        code = seen.report.exit_code if seen.error is None else seen.error.exit_code
        return Ended(code, seen.states, str(seen.error or ""))


def _feed(descriptor: int, data: bytes, until: threading.Event | None) -> None:
    """Write an input to a process, even if it ends before reading it; then close it, or wait."""
    with contextlib.suppress(BrokenPipeError), os.fdopen(descriptor, "wb", buffering=0) as pipe:
        for start in itertools.count(0, 65_536):
            if not (piece := data[start : start + 65_536]):
                break
            pipe.write(piece)
        if until is not None:
            until.wait()


def signaled(chance: random.Random, *, kills: bool) -> Termination:
    """Return a kill, or another signal, at a random moment."""
    number = signal.SIGKILL if kills else chance.choice([signal.SIGTERM, signal.SIGINT])
    hangs = chance.random() < 0.2
    if chance.random() < 0.5:
        return Termination(number, seconds=chance.uniform(0.0, 1.5), hangs=hangs)
    return Termination(number, requests=chance.randint(1, 12), hangs=hangs)


def signal_codes(termination: Termination | None) -> set[int]:
    """Return the possible exit codes of a signal, whether or not the process handled it."""
    number = None if termination is None else termination.number
    return set() if number is None else {128 + number, -number}
