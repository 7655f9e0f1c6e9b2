"""The permitted and required changes of a run, computed independently of the target."""

import typing as t

from target_moengage_cohort.core.membership import Key
from tests.support.look import Held
from tests.support.warehouse import Row

ADD = "add_members"
ALWAYS_ALLOWED = 20


class Reads(t.Protocol):
    """The input of a run, and its proofs."""

    fault: bool
    proven: dict[str, bool]

    def rows(self, cohort: str) -> list[tuple[int, Row]]:
        """Return the rows of a cohort that are read, with their places."""

    def met(self, stream: str) -> bool:
        """Return whether a stream has begun."""


class Offer(t.NamedTuple):
    """The part of a plan that a run keeps instead of delivering it.

    Attributes:
        joining: The members to add.
        leaving: The members to remove.
        is_allowed: Whether the guard permits it once the input is proven.
        seals: Whether it finishes the cohort.
    """

    joining: frozenset[Key] = frozenset()
    leaving: frozenset[Key] = frozenset()
    is_allowed: bool = True
    seals: bool = False


class Limits(t.NamedTuple):
    """The settings that limit a mirror's plan.

    Attributes:
        percent: The limit of its removals; ``None`` permits none, and keeps none for later.
        growth: The limit of its additions, in percent.
        deferred: Whether its removals wait for a confirmation.
    """

    percent: int | None
    growth: int | None = None
    deferred: bool = False


class Plan(t.NamedTuple):
    """The permitted and required changes of one cohort.

    Attributes:
        joining: The members that may join.
        leaving: The members that may leave.
        expected: Its members if nothing fails.
        withheld: The part that the guard withholds.
        waiting: The part that waits for a confirmation.
        seals: Whether it finishes a one_time cohort.
        is_snapshot: Whether the input is the whole cohort, and the ledger is open for it.
    """

    joining: set[Key]
    leaving: set[Key]
    expected: set[Key]
    withheld: Offer | None = None
    waiting: Offer | None = None
    seals: bool = False
    is_snapshot: bool = False

    @classmethod
    def of(
        cls,
        cohort: str,
        stream: str,
        given: Reads,
        before: set[Key],
        *,
        known: Held,
        mode: str,
        limits: Limits,
        approved: frozenset[Key] = frozenset(),
    ) -> "Plan":
        """Compute it.

        Args:
            cohort: The cohort.
            stream: The stream that populates it.
            given: The input of the run.
            before: Its members in the emulator.
            known: The content of its ledger.
            mode: The sync mode of its stream.
            limits: The settings that limit it.
            approved: The members whose removal a person has approved.
        """
        if not given.met(stream) or (mode == "one_time" and known.is_sealed):
            return cls(set(), set(), before)
        rows = [row for _, row in given.rows(cohort) if row.present or mode != "add"]
        if mode in {"mirror", "one_time"}:
            proof = None if given.fault else given.proven[stream]
            return cls._of_mirror(
                rows, before, known, limits, approved, proof=proof, keeps=mode == "one_time"
            )
        doubts = {} if given.fault else known.doubts
        asked = [(key, action == ADD) for key, action in doubts.items()]
        asked += [(row.member.key, row.present) for row in rows]
        last = dict(asked)
        return cls(
            {key for key, present in asked if present},
            {key for key, present in asked if not present},
            (before - last.keys()) | {key for key, present in last.items() if present},
        )

    @classmethod
    def _of_mirror(
        cls,
        rows: list[Row],
        before: set[Key],
        known: Held,
        limits: Limits,
        approved: frozenset[Key],
        *,
        proof: bool | None,
        keeps: bool,
    ) -> "Plan":
        """Compute a mirror's; `proof` is ``None`` if the input is known to be incomplete."""
        last = {row.member.key: row for row in rows}
        wanted = {key for key, row in last.items() if row.present}
        linked = {(last[key].member.anonymous_id,) for key in wanted if isinstance(key, str)}
        missing = set() if keeps else known.base - wanted - linked
        stale = set() if keeps else {key for key, _ in known.aliases} - wanted - linked
        cut_off = {uid for key, uid in known.aliases if key in (stale | missing) - approved}
        cut_off &= wanted & known.accepted
        growth = len(wanted - known.base)
        grows = limits.growth is not None and growth * 100 > len(known.base) * limits.growth
        grows = grows and bool(known.base)  # a new cohort may have any size
        allowed = limits.percent is not None and guard_allows(
            base=len(known.base),
            removals=len(missing - approved) + len(cut_off),
            desired=len(wanted) - (growth if grows else 0),
            percent=limits.percent,
            proven=bool(proof) or limits.deferred,
        )
        missing |= stale
        joining = set() if grows else wanted
        leaving, withheld, waiting = set(), set(), None
        if proof is not None and limits.deferred:
            seals = keeps and bool(wanted) and not grows  # not by an empty audience
            waiting = Offer(frozenset(), frozenset(missing), allowed, seals=seals)
        elif proof is not None and allowed:
            leaving = missing
        elif proof is not None and limits.percent is not None:
            leaving, withheld = missing & approved, missing - approved
        new = wanted - (known.accepted - known.doubts.keys()) if grows else set()
        offer = Offer(frozenset(new), frozenset(withheld)) if grows or withheld else None
        seals = keeps and bool(proof) and bool(wanted) and not grows
        expected = (before | joining) - leaving
        return cls(joining, leaving, expected, offer, waiting, seals, is_snapshot=True)


def guard_allows(*, base: int, removals: int, desired: int, percent: int, proven: bool) -> bool:
    """Return whether the guard permits so many removals in one run."""
    if not desired and removals:
        return proven and percent == 100
    few = proven and removals <= ALWAYS_ALLOWED
    return few or removals * 100 <= base * percent
