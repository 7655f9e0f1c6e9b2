"""Faults of a run, and changes between two runs, as hypothesis strategies."""

from dataclasses import dataclass

from hypothesis import strategies as st

from tests.support.warehouse import COHORTS, FAN, MODES, PAIRS, UIDS


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
some = st.one_of(few, few, many)
doubt = st.tuples(st.sampled_from(["interrupt", "fail", "fail", "fail applied"]), st.integers(1, 8))
death = st.tuples(st.just("kill"), st.integers(1, 80))
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
    emptied: str | None
    modes: dict[str, str]
    seconds: int
    doubted: frozenset[str]


changes = st.builds(
    Change,
    churn=st.fixed_dictionaries(dict.fromkeys(["plain", "events", *FAN], some)),
    pairs=st.integers(0, 2 ** len(PAIRS) - 1),
    emptied=st.sampled_from([None] * 6 + ["plain", *FAN]),
    modes=st.dictionaries(st.sampled_from(["plain", "fan"]), st.sampled_from(MODES), max_size=1),
    seconds=st.sampled_from([0, 0, 1, 3600, -1, -60, -86_400]),
    doubted=st.one_of(st.just(frozenset()), st.frozensets(st.sampled_from(sorted(COHORTS)))),
)
