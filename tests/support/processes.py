"""Processes that end with this process; see guard.py."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

GUARD = Path(__file__).with_name("guard.py")


def guarded(
    command: Sequence[str], *, remove: Path | None = None, user: str | None = None, **options: Any
) -> subprocess.Popen:
    """Start a command that stops when its `stdin` is closed, or when this process ends.

    It does not receive our Ctrl-C. In the end the directory `remove` is removed.
    """
    guard = [sys.executable, str(GUARD), str(remove or ""), user or ""]
    return subprocess.Popen(
        [*guard, *command], stdin=subprocess.PIPE, start_new_session=True, **options
    )


def run_guarded(
    command: Sequence[str], *, cwd: Path, env: Mapping[str, str], timeout: float
) -> subprocess.CompletedProcess:
    """Run a command to its end, and always stop all of its children.

    Raises:
        subprocess.TimeoutExpired: It took longer than that.
    """
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        process = guarded(command, cwd=cwd, env=env, stdout=output, stderr=errors)
        try:
            process.wait(timeout)
        finally:
            process.stdin.close()
            process.wait()
        texts = [os.pread(file.fileno(), file.seek(0, os.SEEK_END), 0) for file in (output, errors)]
    stdout, stderr = (text.decode(errors="replace") for text in texts)
    return subprocess.CompletedProcess(command, process.returncode, stdout, stderr)
