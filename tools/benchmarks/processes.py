"""Timed processes: each one as a whole, from start to end."""

import statistics
import subprocess
import sys
import typing as t
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

from tests.support.processes import guarded

LAUNCH = Path(__file__).with_name("launch.py")


class Ran(msgspec.Struct, frozen=True):
    """The time of a process, its peak of resident memory, and the most files it had open."""

    code: int
    seconds: float
    peak_bytes: int
    open_files: int = 0


Command: t.TypeAlias = Callable[[], Ran]


class RunFailedError(Exception):
    """A timed process failed, or had a wrong result."""


def run(command: list[str], source: Path, env: dict[str, str], errors: Path) -> Ran:
    """Run a command on an input file, and wait for its end.

    Args:
        command: The path of a program, and its arguments.
        source: The file for its standard input.
        env: Its environment.
        errors: The file for its standard error.

    Raises:
        RunFailedError: If it did not exit with 0.
    """
    launcher = [sys.executable, "-I", "-S", str(LAUNCH), str(source), str(errors)]
    process = guarded([*launcher, *command], env=env, stdout=subprocess.PIPE)
    with process:
        answer = process.stdout.read()
        process.stdin.close()
    ran = msgspec.json.decode(answer, type=Ran) if answer else Ran(process.returncode, 0, 0)
    if ran.code:
        last = errors.read_text().strip().rpartition("\n")[2] if errors.exists() else ""
        message = f"{Path(command[0]).name} exited with {ran.code}: {last.rpartition(' | ')[2]}"
        raise RunFailedError(message)
    return ran


def in_turn(rounds: int, commands: Iterable[Command]) -> list[Ran]:
    """Run commands in turn, several times (A B C A B C …).

    Returns:
        For each command the median of its seconds, and its highest peaks.
    """
    commands = list(commands)
    all_rounds = [[command() for command in commands] for _ in range(rounds)]
    return [
        Ran(
            0,
            statistics.median(ran.seconds for ran in each),
            max(ran.peak_bytes for ran in each),
            max(ran.open_files for ran in each),
        )
        for each in zip(*all_rounds, strict=True)
    ]
