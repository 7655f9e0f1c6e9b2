"""One world after the other, each with a MoEngage of its kind."""

import math
import random
import shutil
import time
import typing as t
from pathlib import Path

from target_moengage_cohort.emulator import Emulator, Order
from tests.support.singer import UNLIMITED
from tools.soak import faults
from tools.soak.disk import Disk
from tools.soak.runs import Runner
from tools.soak.town import Town
from tools.soak.wire import Wire
from tools.soak.world import Figures, World

WORLDS: tuple[dict[str, t.Any], ...] = (
    {"order": Order.LAST_WRITER_WINS, "late_after": 2},
    {"order": Order.ARRIVAL},
    {"order": Order.DROP_OLDER},
    {"order": Order.LATE},
    {"order": Order.LAST_WRITER_WINS},
    {"order": Order.DROP_OLDER, "late_after": 1},
)
"""Each has a MoEngage of its own kind, and begins without any ledger."""


class Soak:
    """One world after the other, each of a number of rounds.

    Args:
        seed: Of all decisions.
        scale: Of the sizes of cohorts.
        folder: For everything; it is left as it is if there is a difference.
    """

    def __init__(self, seed: int, scale: float, folder: Path) -> None:
        self.figures = Figures()
        self.history: list[str] = []
        self._seed, self._scale, self._folder = seed, scale, folder

    def world(self, number: int, *, rounds: int, until: float = math.inf) -> None:
        """Go through some rounds in a world of their own, and end right.

        Args:
            number: Of the world; the seed and it decide all.
            rounds: How many.
            until: When to stop earlier, by the monotonic clock.

        Raises:
            AssertionError: Somebody is where they must not be, or the like.
        """
        options = WORLDS[number % len(WORLDS)]
        folder = self._folder / f"world-{number}"
        with (
            Emulator(requests_per_minute=UNLIMITED, **options) as emulator,
            Wire(emulator) as wire,
            Disk(folder / "ledger") as disk,
        ):
            town = Town(self._scale)
            runner = Runner(emulator, wire, disk, folder)
            is_late = "late_after" in options
            world = World(town, runner, self.figures, options["order"], is_late=is_late)
            self.history = world.history
            self.history.append(f"again: --seed {self._seed} --world {number}")
            try:
                for at in range(rounds):
                    self.history.append(f"round {at}")
                    world.round(random.Random(f"{self._seed} {number} {at}"))
                    if time.monotonic() > until:
                        break
                self.history.append("the end")
                world.end(random.Random(f"{self._seed} {number} end"))
            finally:
                self.figures.requests += emulator.totals().requests
                self.figures.faults += faults.tally(emulator, wire)
                self.figures.worlds += 1
        shutil.rmtree(folder)
