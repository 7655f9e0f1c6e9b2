"""Runs of many cohorts, compared with the same runs of one cohort with as many members."""

import typing as t
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tools.benchmarks.cohort import Mirror
from tools.benchmarks.processes import Ran, in_turn

Kind: t.TypeAlias = Callable[[Mirror, list[Path]], Ran]


class Pair(t.NamedTuple):
    """One kind of run: of many cohorts and of one."""

    many: Ran
    one: Ran

    @property
    def ratio(self) -> float:
        """The time of many cohorts over that of one."""
        return self.many.seconds / self.one.seconds


class Side(t.NamedTuple):
    """A mirror, and the messages of its versions."""

    mirror: Mirror
    sources: list[Path]


def pairs(sides: list[Side], kinds: dict[str, Kind], rounds: int) -> dict[str, Pair]:
    """Run each kind for both sides in turn: many cohorts first, then one."""
    commands = [partial(kind, *side) for kind in kinds.values() for side in sides]
    results = in_turn(rounds, commands)
    both = map(Pair, results[::2], results[1::2])
    return dict(zip(kinds, both, strict=True))


def columns(kinds: dict[str, Pair]) -> list[str]:
    """Return the heads of the table."""
    return ["", *(f"{kind}, seconds" for kind in kinds), "peak memory, MB", "open files"]


def rows(titles: tuple[str, str], kinds: dict[str, Pair]) -> list[list[str]]:
    """Return the table's rows for many cohorts, for one, and for the ratios of their times."""
    cells = []
    for title, runs in zip(titles, zip(*kinds.values(), strict=True), strict=True):
        seconds = [f"{run.seconds:.2f}" for run in runs]
        cells.append([title, *seconds, f"{peak_megabytes(runs):,.0f}", str(open_files(runs) or "")])
    return [
        *cells,
        ["ratio of the times", *(f"{pair.ratio:.2f}" for pair in kinds.values()), "", ""],
    ]


def peak_megabytes(runs: t.Iterable[Ran]) -> float:
    """Return the peak of resident memory, in millions of bytes."""
    return max(run.peak_bytes for run in runs) / 1e6


def open_files(runs: t.Iterable[Ran]) -> int | None:
    """Return the highest number of open files; ``None`` if the system has no /proc."""
    return max(run.open_files for run in runs) or None
