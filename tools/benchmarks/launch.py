"""Run a command and print its time, memory and open files as JSON.

    python launch.py INPUT ERRORS COMMAND…

INPUT is the file for its standard input, ERRORS the file for its standard error. On Linux a
process's peak includes its parent's resident memory at the start, so this parent imports as little
as possible. The open files are the highest number seen, or 0 without /proc.
"""

import _thread
import os
import sys
import time

SAMPLE_SECONDS = 0.02


def watch(pid: int, largest: list[int]) -> None:
    """Keep the largest number of files that a process has open, until it ends."""
    while True:
        try:
            largest[0] = max(largest[0], len(os.listdir(f"/proc/{pid}/fd")))  # noqa: PTH208 - see above
        except OSError:
            return
        time.sleep(SAMPLE_SECONDS)


source, errors, *command = sys.argv[1:]
files = [
    (os.POSIX_SPAWN_OPEN, 0, source, os.O_RDONLY, 0),
    (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
    (os.POSIX_SPAWN_OPEN, 2, errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600),
]
begin = time.monotonic()
process = os.posix_spawn(command[0], command, os.environ, file_actions=files)
open_files = [0]
_thread.start_new_thread(watch, (process, open_files))
_, status, usage = os.wait4(process, 0)
seconds = time.monotonic() - begin
peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
code = os.waitstatus_to_exitcode(status)
print(
    f'{{"code": {code}, "seconds": {seconds}, "peak_bytes": {peak}, "open_files": {open_files[0]}}}'
)
