"""A process that runs the target by a faster clock: python -m tests.support.hurried SPEED FILES.

The files are a configuration and an input. All else is as in the target: the bucket that processes
share, its locks, senders and requests.
"""

import json
import sys
import time
import uuid
from pathlib import Path

from target_moengage_cohort.core.interrupts import Interrupt
from target_moengage_cohort.delivery.pace import Pace
from target_moengage_cohort.emulator import Clock
from target_moengage_cohort.ledger import Ledgers
from target_moengage_cohort.moengage.transport import Client
from target_moengage_cohort.settings import load
from target_moengage_cohort.sync.run import Run


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
    running = Run(
        loaded,
        attempt=Client(settings).attempt,
        pace=Pace(
            settings,
            lambda seconds: interrupt.wait(seconds / speed),
            clock=FastClock(speed).monotonic,
        ),
        write_state=lambda _value: None,
        interrupt=interrupt,
        ledgers=Ledgers(settings, run_id=str(uuid.uuid4()), wait=interrupt.wait),
    )
    with source.open("rb") as file:
        running.read(file)
    running.finish()


if __name__ == "__main__":
    main(float(sys.argv[1]), *map(Path, sys.argv[2:]))
