"""Run a command until standard input closes, then stop it and all its children.

python guard.py REMOVE USER COMMAND…

The process that starts a guard has the other end of its standard input. When that process ends in
any way, the system closes the pipe, and nothing is left behind. REMOVE is a directory to remove in
the end and USER an account to run as; both may be empty.
"""

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import sys
import threading
import time

PATIENCE_SECONDS = 20


def main() -> int:
    """Run the command and clean up after it."""
    folder, user, *command = sys.argv[1:]
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)  # a handler, since the command inherits SIG_IGN
    identity = {}
    if user:
        identity = {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": []}
    try:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, start_new_session=True, **identity
        )
        closed = threading.Thread(target=_wait_for_close, daemon=True)
        closed.start()
        while process.poll() is None and closed.is_alive():
            closed.join(0.05)
        _stop(process)
        return process.returncode if process.returncode >= 0 else 128 - process.returncode
    finally:
        if folder:
            shutil.rmtree(folder, ignore_errors=True)


def _wait_for_close() -> None:
    with contextlib.suppress(OSError):
        while os.read(0, 1024):
            pass


def _stop(process: subprocess.Popen) -> None:
    """Interrupt the command and its children (PostgreSQL shuts down fast), then insist."""
    with contextlib.suppress(ProcessLookupError):
        deadline = time.monotonic() + PATIENCE_SECONDS
        os.killpg(process.pid, signal.SIGINT)
        while time.monotonic() < deadline:
            time.sleep(0.02)
            process.poll()
            os.killpg(process.pid, 0)  # until no process is left
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


if __name__ == "__main__":
    sys.exit(main())
