"""A process that runs the target by a faster clock: python -m tests.support.hurried SPEED FILES.

The files are a configuration and an input. The rest is the same as in the target: the shared rate
limit, its locks, senders and requests.
"""

import json
import sys
import time
import uuid
from pathlib import Path

from target_moengage_cohort.core.interrupts import Interrupt
from target_moengage_cohort.delivery.pace import Pace
from target_moengage_cohort.delivery.ports import Link
from target_moengage_cohort.emulator import Clock
from target_moengage_cohort.ledger.engines import open_store
from target_moengage_cohort.moengage.transport import Transport
from target_moengage_cohort.settings import load
from tests.support.singer import open_run


class FastClock(Clock):
    """The emulator's clock, faster."""

    def __init__(self, speed: float) -> None:
        self._speed = speed

    def monotonic(self) -> float:
        return time.monotonic() * self._speed


def main(speed: float, config: Path, source: Path) -> None:
    """Run the target on an input."""
    loaded, interrupt = load(json.loads(config.read_text())), Interrupt()
    settings = loaded.settings
    pace = Pace(
        settings,
        lambda seconds: interrupt.wait(seconds / speed),
        clock=FastClock(speed).monotonic,
    )
    store = open_store(settings, run_id=str(uuid.uuid4()), wait=interrupt.wait)
    running = open_run(loaded, interrupt, store, Link(Transport(settings).send, pace))
    with source.open("rb") as file:
        running.read(file)
    running.finish()


if __name__ == "__main__":
    main(float(sys.argv[1]), *map(Path, sys.argv[2:]))
