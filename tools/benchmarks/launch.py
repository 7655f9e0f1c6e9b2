"""Run a command and print its time and memory as JSON.

    python launch.py INPUT ERRORS COMMAND…

INPUT is the file for its standard input, ERRORS the file for its standard error. On Linux a
process's peak includes its parent's resident memory at the start, so this parent imports as little
as possible.
"""

import os
import sys
import time

source, errors, *command = sys.argv[1:]
files = [
    (os.POSIX_SPAWN_OPEN, 0, source, os.O_RDONLY, 0),
    (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
    (os.POSIX_SPAWN_OPEN, 2, errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600),
]
begin = time.monotonic()
process = os.posix_spawn(command[0], command, os.environ, file_actions=files)
_, status, usage = os.wait4(process, 0)
seconds = time.monotonic() - begin
peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
code = os.waitstatus_to_exitcode(status)
print(f'{{"code": {code}, "seconds": {seconds}, "peak_bytes": {peak}}}')
