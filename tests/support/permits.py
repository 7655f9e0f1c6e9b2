"""A process that takes permits to start a request: python -m tests.support.permits FOLDER WHAT.

WHAT is a limit, of which it takes as many as it can get; or `stop`: it stops in the middle of its
only permit, with the file locked. It prints how many it got.
"""

import os
import signal
import sys
import time
from pathlib import Path

from target_moengage_cohort.delivery.pace import Pace
from target_moengage_cohort.settings import load


def workspace(requests_per_minute: int = 3, workspace_id: str = "w"):
    raw = {"workspace_id": workspace_id, "data_api_key": "k", "data_center": 1, "partner": "p"}
    return load({**raw, "requests_per_minute": requests_per_minute}).settings


def wait(seconds: float) -> bool:
    """Wait for a lock, which is polled often, but not for a window to have room again."""
    if seconds < 1:
        time.sleep(seconds)
    return seconds >= 1


def stopping() -> float:
    os.kill(os.getpid(), signal.SIGSTOP)
    return time.monotonic()


def main(folder: Path, what: str) -> None:
    """Take the permits."""
    if what == "stop":
        granted = int(Pace(workspace(2), wait, folder, stopping).acquire())
    else:
        pace, granted = Pace(workspace(int(what)), wait, folder), 0
        while pace.acquire():
            granted += 1
    print(granted)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
