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


class Plan(t.NamedTuple):
    """The permitted and required changes of one cohort.

    Attributes:
        joining: The members that may join.
        leaving: The members that may leave.
        expected: Its members if nothing fails.
    """

    joining: set[Key]
    leaving: set[Key]
    expected: set[Key]

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
        percent: int | None,
    ) -> "Plan":
        """Compute it.

        Args:
            cohort: The cohort.
            stream: The stream that populates it.
            given: The input of the run.
            before: Its members in the emulator.
            known: The content of its ledger.
            mode: The sync mode of its stream.
            percent: The limit for the removals of a mirror; ``None`` if they are deferred.
        """
        if not given.met(stream):
            return cls(set(), set(), before)
        rows = [row for _, row in given.rows(cohort) if row.present or mode != "add"]
        if mode == "mirror":
            proven = given.proven[stream]
            percent = None if given.fault else percent
            return cls._of_mirror(rows, before, known, percent, proven=proven)
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
        cls, rows: list[Row], before: set[Key], known: Held, percent: int | None, *, proven: bool
    ) -> "Plan":
        last = {row.member.key: row for row in rows}
        wanted = {key for key, row in last.items() if row.present}
        linked = {(last[key].member.anonymous_id,) for key in wanted if isinstance(key, str)}
        leaving = known.base - wanted - linked
        allowed = percent is not None and guard_allows(
            base=len(known.base),
            removals=len(leaving),
            desired=len(wanted),
            percent=percent,
            proven=proven,
        )
        leaving = leaving if allowed else set()
        return cls(wanted, leaving, (before | wanted) - leaving)


def guard_allows(*, base: int, removals: int, desired: int, percent: int, proven: bool) -> bool:
    """Return whether the guard permits so many removals in one run."""
    if not desired and removals:
        return proven and percent == 100
    few = proven and removals <= ALWAYS_ALLOWED
    return few or removals * 100 <= base * percent
