"""Commands in a process of their own, whose memory is measured.

python -m tests.support.peak FILE ARGUMENT…
"""

import atexit
import json
import os
import re
import resource
import subprocess
import sys
from pathlib import Path

from target_moengage_cohort.cli import main
from target_moengage_cohort.ledger.duckdb import instance
from tests.support.singer import environment


def measured(desk, *words, **variables):
    """Run a command with a desk's configuration; return its exit code, output and peak in MB."""
    (desk.folder / "config.json").write_text(json.dumps(desk.raw))
    peak = desk.folder / "peak"
    config = ("--json", "--config", str(desk.folder / "config.json"))
    done = subprocess.run(
        [sys.executable, "-m", __name__, str(peak), *words, *config],
        env=environment(desk.folder / "home", **variables),
        cwd=Path(__file__).parents[2],
        capture_output=True,
        check=False,
        text=True,
        timeout=300,
    )
    desk.output += done.stdout + done.stderr
    return done.returncode, done.stdout, int(peak.read_text()) // 1_000


def _kilobytes():
    if sys.platform == "linux":  # where ru_maxrss counts the memory of the process that started it
        text = Path("/proc/self/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+) kB", text)[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1_024


if __name__ == "__main__":
    path = Path(sys.argv.pop(1))
    instance._MEMORY_LIMIT = os.environ.get("LIMIT", "256MB")  # noqa: SLF001 - shows a leak early
    atexit.register(lambda: path.write_text(str(_kilobytes())))
    main()
