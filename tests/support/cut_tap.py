"""Run a tap, and kill it by SIGKILL once it has written so many records.

python cut_tap.py RECORDS FOLDER COMMAND…

What it writes goes to standard output and to FOLDER/messages, and nothing after the last of these
records; with 0 it runs to its end. FOLDER/tap-exit gets its exit code, negative after a signal.
"""

import fcntl
import json
import subprocess
import sys
from pathlib import Path

KILLED = 137
PIPE_BYTES = 4_096  # so that the tap is never more than some rows ahead


def main() -> int:
    """Return the tap's exit code, as a shell would."""
    records, folder, *command = sys.argv[1:]
    left, place = int(records), Path(folder)
    tap = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    if hasattr(fcntl, "F_SETPIPE_SZ"):
        fcntl.fcntl(tap.stdout, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    try:
        with (place / "messages").open("wb") as copy:
            for line in tap.stdout:
                copy.write(line)
                sys.stdout.buffer.write(line)
                left -= json.loads(line)["type"] == "RECORD"
                if records != "0" and not left:
                    tap.kill()
                    break
        sys.stdout.buffer.flush()
    except BrokenPipeError:  # the target has ended
        tap.kill()
        sys.stdout = None
    finally:
        tap.stdout.close()
        (place / "tap-exit").write_text(str(tap.wait()))
    return tap.returncode if tap.returncode >= 0 else KILLED


if __name__ == "__main__":
    sys.exit(main())
