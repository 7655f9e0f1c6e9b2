"""Random scenarios of runs."""

import random
import typing as t
from dataclasses import dataclass

from tools.soak import faults
from tools.soak.runs import Form, Termination, signaled
from tools.soak.tap_input import Broken

TROUBLES = ("killed", "signaled", "faulty", "cut", "full disk")
CLOCK_STEPS = (0.0, -1.0, 60.0, -60.0, 3_600.0, -86_400.0)
SMALLEST_FILE, LARGEST_FILE = 1_000, 8_000_000  # bytes; a ledger's size is in between
SMALLEST_ROOM, LARGEST_ROOM = 4_096, 8_000_000


@dataclass(frozen=True)
class Scenario:
    """The scenario of a run.

    Attributes:
        kind: The kind that it is counted as.
        form: The kind of process.
        percent: The limit of the removal guard.
        deferred: Whether removals wait for a confirmation, which follows.
        counts: Whether rows carry the number of rows.
        tap_exit: The tap's exit code, which only the form `run` learns.
        cut: The share of the input that is lost, from 0 to 1.
        broken: The part at its end that is broken.
        termination: How it is terminated.
        gives_up: Whether the first error answer ends it.
        faults: The faults between the target and MoEngage.
        clock_step: The error of the clock in seconds; only in the form `in process`.
        payload: The largest body, in bytes.
    """

    kind: str
    form: Form
    percent: int = 100
    deferred: bool = False
    counts: bool = True
    tap_exit: int = 0
    cut: float = 0.0
    broken: Broken | None = None
    termination: Termination | None = None
    gives_up: bool = False
    faults: tuple[str, ...] = ()
    clock_step: float = 0.0
    payload: int = 128_000

    @property
    def is_calm(self) -> bool:
        """Whether it is free of trouble."""
        return self.kind == "complete"

    @property
    def may_fail(self) -> bool:
        """Whether it may end before everything is delivered, even with a complete input."""
        return self.termination is not None or self.gives_up


def calm(chance: random.Random, *, again: bool) -> Scenario:
    """Return a run without trouble; the second of two does not defer removals."""
    deferred = not again and chance.random() < 0.3
    form: Form = "target" if deferred else chance.choice(["target", "target", "run", "in process"])
    return Scenario(
        "complete",
        form,
        deferred=deferred,
        clock_step=_clock_step(form, chance),
        payload=chance.choice([16_000, 128_000]),
    )


def troubled(chance: random.Random, *, is_gentle: bool) -> Scenario:
    """Return a run with trouble.

    Args:
        chance: The source of randomness.
        is_gentle: Whether it must not end while one of its changes may still be applied late.
    """
    kind = chance.choice(["faulty", "cut"] if is_gentle else TROUBLES)
    form: Form = chance.choice(["target", "target", "run"])
    termination = None
    if kind in {"killed", "signaled"}:
        termination = signaled(chance, kills=kind == "killed")
    elif kind == "full disk":
        termination = _full_disk(chance)
    elif chance.random() < 0.3:
        form = "in process"
    losses = _losses(chance) if kind == "cut" or chance.random() < 0.2 else {}
    form = "run" if "tap_exit" in losses and form == "target" else form
    some = chance.sample(faults.KINDS, chance.randint(1, 4))
    return Scenario(
        kind,
        form,
        percent=chance.choice([10, 50, 100]),
        deferred=form != "in process" and chance.random() < 0.25,
        counts=chance.random() < 0.8,
        termination=termination,
        gives_up=kind == "faulty" and not is_gentle and chance.random() < 0.4,
        faults=tuple(some if kind == "faulty" or chance.random() < 0.3 else ()),
        clock_step=_clock_step(form, chance),
        payload=chance.choice([4_000, 16_000, 128_000]),
        **losses,
    )


def _losses(chance: random.Random) -> dict[str, t.Any]:
    """Return how an input is incomplete: cut off, with or without a detectable sign."""
    cut = chance.random()
    how = chance.choice(["cut", "cut", "line", "file", "no file", "tap"])
    if how == "cut":
        return {"cut": cut}
    if how == "tap":
        return {"cut": cut, "tap_exit": 1}
    return {"cut": chance.choice([0.0, cut]), "broken": how}


def _clock_step(form: Form, chance: random.Random) -> float:
    step = chance.choice(CLOCK_STEPS)
    return step if form == "in process" else 0.0


def _full_disk(chance: random.Random) -> Termination:
    """Return a limit below, at or above the size of the ledgers: per file, or in total."""
    if chance.random() < 0.5:
        return Termination(largest_file=int(_between(chance, SMALLEST_FILE, LARGEST_FILE)))
    return Termination(room=int(_between(chance, SMALLEST_ROOM, LARGEST_ROOM)))


def _between(chance: random.Random, least: float, most: float) -> float:
    """Return a random number, uniform in its order of magnitude."""
    return least * (most / least) ** chance.random()
