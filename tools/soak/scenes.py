"""How runs go: what is drawn for each."""

import random
import typing as t
from dataclasses import dataclass

from tools.soak import faults
from tools.soak.given import Broken
from tools.soak.runs import Doom, Form, signalled

TROUBLES = ("killed", "signalled", "faulty", "cut", "full disk")
CLOCK_STEPS = (0.0, -1.0, 60.0, -60.0, 3_600.0, -86_400.0)
SMALLEST_FILE, LARGEST_FILE = 1_000, 8_000_000  # bytes, between which a ledger's grows
SMALLEST_ROOM, LARGEST_ROOM = 4_096, 8_000_000


@dataclass(frozen=True)
class Scene:
    """How a run goes.

    Attributes:
        kind: What it counts as.
        form: How it is started.
        percent: The guard's.
        deferred: Whether removals wait for a confirmation, which follows.
        counts: Whether rows carry their number.
        tap_exit: The tap's exit code, which only the form `run` gets to know.
        cut: How much of the input is lost, from 0 to 1.
        broken: What is broken at its end.
        doom: What ends it.
        gives_up: Whether the first answer that is an error ends it.
        faults: What happens on the way.
        clock_step: How far the clock is wrong, in seconds; of the form `in process` only.
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
    doom: Doom | None = None
    gives_up: bool = False
    faults: tuple[str, ...] = ()
    clock_step: float = 0.0
    payload: int = 128_000

    @property
    def is_calm(self) -> bool:
        """Whether nothing goes wrong."""
        return self.kind == "complete"

    @property
    def may_fail(self) -> bool:
        """Whether it may end before all is delivered, though its input is complete."""
        return self.doom is not None or self.gives_up


def calm(chance: random.Random, *, again: bool) -> Scene:
    """A run without trouble; not one that leaves something waiting if it comes again."""
    deferred = not again and chance.random() < 0.3
    form: Form = "target" if deferred else chance.choice(["target", "target", "run", "in process"])
    return Scene(
        "complete",
        form,
        deferred=deferred,
        clock_step=_clock_step(form, chance),
        payload=chance.choice([16_000, 128_000]),
    )


def troubled(chance: random.Random, *, is_gentle: bool) -> Scene:
    """A run with trouble.

    Args:
        chance: The dice.
        is_gentle: Whether it must not end while a change of its own may still be applied late.
    """
    kind = chance.choice(["faulty", "cut"] if is_gentle else TROUBLES)
    form: Form = chance.choice(["target", "target", "run"])
    doom = None
    if kind in {"killed", "signalled"}:
        doom = signalled(chance, kills=kind == "killed")
    elif kind == "full disk":
        doom = _full_disk(chance)
    elif chance.random() < 0.3:
        form = "in process"
    losses = _losses(chance) if kind == "cut" or chance.random() < 0.2 else {}
    form = "run" if "tap_exit" in losses and form == "target" else form
    some = chance.sample(faults.KINDS, chance.randint(1, 4))
    return Scene(
        kind,
        form,
        percent=chance.choice([10, 50, 100]),
        deferred=form != "in process" and chance.random() < 0.25,
        counts=chance.random() < 0.8,
        doom=doom,
        gives_up=kind == "faulty" and not is_gentle and chance.random() < 0.4,
        faults=tuple(some if kind == "faulty" or chance.random() < 0.3 else ()),
        clock_step=_clock_step(form, chance),
        payload=chance.choice([4_000, 16_000, 128_000]),
        **losses,
    )


def _losses(chance: random.Random) -> dict[str, t.Any]:
    """How an input is not all of what the tap had to say: it is cut, with or without a sign."""
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


def _full_disk(chance: random.Random) -> Doom:
    """A limit below, at or above what the ledgers need: of each file, or of all of them."""
    if chance.random() < 0.5:
        return Doom(largest_file=int(_between(chance, SMALLEST_FILE, LARGEST_FILE)))
    return Doom(room=int(_between(chance, SMALLEST_ROOM, LARGEST_ROOM)))


def _between(chance: random.Random, least: float, most: float) -> float:
    """A number whose size is as likely to be small as large."""
    return least * (most / least) ** chance.random()
