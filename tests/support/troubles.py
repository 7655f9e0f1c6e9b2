"""What can go wrong in a run, and what can happen between two of them, for hypothesis to draw."""

from dataclasses import dataclass

from hypothesis import strategies as st

from tests.support.warehouse import COHORTS, FAN, MODES, PAIRS, UIDS


@dataclass(frozen=True)
class Trouble:
    """What goes wrong in a run.

    Attributes:
        cut: How much of the input is lost, from 0 to 1.
        broken: Whether it ends in the middle of a line.
        tap_exit: How the tap that we started has ended.
        faults: What happens to the first requests.
        doom: What ends the run, and at which request or step.
    """

    cut: float = 0.0
    broken: bool = False
    tap_exit: int | None = None
    faults: tuple[str, ...] = ()
    doom: tuple[str, int] | None = None


NO_TROUBLE = Trouble(tap_exit=0)  # a stream without rows has no row count, which is no proof
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
    """What happens between two runs: to cohorts, to modes, to the clock, and to the ledgers."""

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
