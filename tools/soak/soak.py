"""A sequence of worlds, each with its own kind of MoEngage."""

import contextlib
import math
import random
import shutil
import time
import typing as t
from pathlib import Path

from target_moengage_cohort.emulator import Emulator, Order
from tests.support.ledger_places import ServerPlace
from tests.support.postgres import Postgres
from tests.support.singer import UNLIMITED
from tools.soak import faults
from tools.soak.disk import Disk
from tools.soak.model import Model
from tools.soak.runs import Runner
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
"""The kinds of MoEngage; each world begins without ledgers."""


class Soak:
    """A sequence of worlds, each with a number of rounds.

    Args:
        seed: The seed of all decisions.
        scale: The scale of the cohorts' sizes.
        folder: The folder of all files; it is kept if there is a difference.
        server: The server of the ledgers; ``None`` keeps them on files.
    """

    def __init__(
        self, seed: int, scale: float, folder: Path, server: Postgres | None = None
    ) -> None:
        self.figures = Figures()
        self.history: list[str] = []
        self._seed, self._scale, self._folder = seed, scale, folder
        self._server = server

    def world(self, number: int, *, rounds: int, until: float = math.inf) -> None:
        """Run some rounds in a new world, and end with complete runs.

        Args:
            number: The number of the world; together with the seed it determines everything.
            rounds: The number of rounds.
            until: A time of the monotonic clock at which to stop early.

        Raises:
            AssertionError: If something differs from the model.
        """
        options = WORLDS[number % len(WORLDS)]
        folder = self._folder / f"world-{number}"
        with (
            Emulator(requests_per_minute=UNLIMITED, **options) as emulator,
            Wire(emulator) as wire,
            Disk(folder / "ledger") as disk,
            self._place() as place,
        ):
            model = Model(self._scale)
            runner = Runner(emulator, wire, disk, folder, place)
            is_late = "late_after" in options
            world = World(model, runner, self.figures, options["order"], is_late=is_late)
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

    def _place(self) -> contextlib.AbstractContextManager[ServerPlace | None]:
        if self._server is None:
            return contextlib.nullcontext()
        return contextlib.closing(ServerPlace(self._server))
