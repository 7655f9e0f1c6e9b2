"""Faults of a run, and changes between two runs, as hypothesis strategies."""

from dataclasses import dataclass

from hypothesis import strategies as st

from tests.support.plans import Limits
from tests.support.warehouse import (
    COHORTS,
    CROWD,
    FAN,
    FEW_UIDS,
    MODES,
    ONCE,
    PAIRS,
    STREAMS,
    UIDS,
)


@dataclass(frozen=True)
class Trouble:
    """The faults of a run.

    Attributes:
        cut: The share of the input that is lost, from 0 to 1.
        broken: Whether it ends in the middle of a line.
        tap_exit: The exit code of the tap that we started.
        faults: The faults of the first requests.
        doom: The cause that ends the run, and its request or step.
    """

    cut: float = 0.0
    broken: bool = False
    tap_exit: int | None = None
    faults: tuple[str, ...] = ()
    doom: tuple[str, int] | None = None


NO_TROUBLE = Trouble(tap_exit=0)  # a stream without rows has no row count to prove it complete
FAULTS = (
    "500",
    "503 applied",
    "429",
    "413",
    "400",
    "drop before",
    "drop after",
    "slow",
)
many = st.integers(0, 2 ** len(UIDS) - 1)
few = st.sets(st.integers(0, len(UIDS) - 1), max_size=4).map(lambda bits: sum(1 << b for b in bits))
handful = st.integers(0, 2**FEW_UIDS - 1)
some = st.one_of(few, few, many)
doubt = st.tuples(st.sampled_from(["interrupt", "fail", "fail", "fail applied"]), st.integers(1, 8))
death = st.tuples(st.just("kill"), st.integers(1, 140))
troubles = st.builds(
    Trouble,
    cut=st.one_of(st.just(0.0), st.floats(0, 1)),
    broken=st.sampled_from([False, False, False, True]),
    tap_exit=st.sampled_from([None, None, 0, 0, 1]),
    faults=st.lists(st.sampled_from(FAULTS), max_size=4).map(tuple),
    doom=st.one_of(st.none(), doubt, death),
)
doubts = st.builds(Trouble, tap_exit=st.sampled_from([None, 0]), doom=doubt)
cuts = st.builds(
    Trouble,
    cut=st.floats(0.05, 0.95),
    broken=st.sampled_from([False, False, False, True]),
    tap_exit=st.sampled_from([None, None, None, 1]),
)
wells = st.builds(Trouble, tap_exit=st.sampled_from([None, 0]))
deaths = st.builds(Trouble, tap_exit=st.sampled_from([None, 0]), doom=death)


@dataclass(frozen=True)
class Change:
    """The changes between two runs: to cohorts, modes, the clock, and the ledgers."""

    churn: dict[str, int]
    pairs: int
    emptied: frozenset[str]
    modes: dict[str, str]
    seconds: int
    doubted: frozenset[str]


churns = st.builds(
    dict.__or__,
    st.fixed_dictionaries(dict.fromkeys(["plain", "events", *FAN], some)),
    st.dictionaries(st.sampled_from([*CROWD, *ONCE]), handful, max_size=8),
)
changes = st.builds(
    Change,
    churn=churns,
    pairs=st.integers(0, 2 ** len(PAIRS) - 1),
    emptied=st.frozensets(st.sampled_from(["plain", *FAN, *CROWD]), max_size=3),
    modes=st.dictionaries(st.sampled_from(["plain", "fan"]), st.sampled_from(MODES), max_size=1),
    seconds=st.sampled_from([0, 0, 1, 3600, -1, -60, -86_400]),
    doubted=st.one_of(
        st.just(frozenset()), st.frozensets(st.sampled_from(sorted(COHORTS)), max_size=6)
    ),
)


limits = st.builds(
    Limits,
    percent=st.sampled_from([10, 50, 100]),
    growth=st.sampled_from([None, None, None, 0, 40]),
    deferred=st.sampled_from([False, False, True]),
)


@dataclass(frozen=True)
class Word:
    """The word of a scheduler or a person: a call of `moengage-cohort confirm`.

    Attributes:
        streams: The streams to confirm; none means one withheld plan.
        fault: The fault of its first request, which ends it.
        dice: Chooses the plan.
    """

    streams: tuple[str, ...]
    fault: str | None
    dice: int


words = st.builds(
    Word,
    streams=st.one_of(
        st.just(()),
        st.lists(
            st.sampled_from([name for name in STREAMS if name != "events"]),
            min_size=1,
            max_size=5,
            unique=True,
        ).map(tuple),
    ),
    fault=st.sampled_from([None, None, None, "500", "503 applied", "drop after"]),
    dice=st.integers(0, 2**16),
)
