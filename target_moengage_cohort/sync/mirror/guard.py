"""The guard: decides which part of a mirror's plan may be delivered; pure."""

from __future__ import annotations

import enum
import typing as t

import msgspec

from target_moengage_cohort.core.text import format_count
from target_moengage_cohort.sync.mirror.completeness import Proof

if t.TYPE_CHECKING:
    from target_moengage_cohort.ledger.records import DiffCounts

ALWAYS_ALLOWED_REMOVALS = 20
"""With proof, so many members may always be removed: a percentage of a small cohort is nothing."""

_ALL = 100

_CHECK_TAP = ". Check the tap's log first"
_UNPROVEN = f", and nothing proves that the input is complete{_CHECK_TAP}"

WAYS_TO_PROOF = (
    "To prove that an input is complete, use expected_count_column, moengage-cohort run, an "
    "ACTIVATE_VERSION message after the rows, or removals: deferred with moengage-cohort confirm"
)
"""How to prove that an input is complete."""


def most_removals(*, base: int, max_removal_percent: int, proven: bool) -> int:
    """Return how many members a run may remove from a cohort to which it adds none.

    Args:
        base: Members that are accepted or unconfirmed.
        max_removal_percent: The setting.
        proven: Whether the input is known to be complete.
    """
    most = _most_without_emptying(base, max_removal_percent, proven=proven)
    may_be_emptied = proven and max_removal_percent == _ALL
    return most if may_be_emptied else min(most, max(base - 1, 0))


def _most_without_emptying(base: int, max_removal_percent: int, *, proven: bool) -> int:
    most = base * max_removal_percent // _ALL
    return max(most, min(base, ALWAYS_ALLOWED_REMOVALS)) if proven else most


def guard(
    *, base: int, removals: int, desired: int, max_removal_percent: int, proven: bool
) -> str | None:
    """Check the removals of a whole plan.

    Args:
        base: Members that are accepted or unconfirmed.
        removals: How many of them the plan removes.
        desired: How many members the cohort is to have afterwards.
        max_removal_percent: The setting.
        proven: Whether the input is known to be complete.

    Returns:
        ``None`` if they may be delivered, or why not.
    """
    if not removals:
        return None
    if not desired:
        if proven and max_removal_percent == _ALL:
            return None
        everything = f"the plan would remove every member ({base:,})"
        if proven:
            return f"{everything}, which requires max_removal_percent 100"
        return (
            f"the plan would remove every member ({base:,}), which requires max_removal_percent "
            f"100 and proof that the input is complete{_CHECK_TAP}"
        )
    if removals <= _most_without_emptying(base, max_removal_percent, proven=proven):
        return None
    return (
        f"the plan would remove {removals:,} of {format_count(base, 'member')} "
        f"({removals / base:.2%}), more than "
        f"max_removal_percent {max_removal_percent}{'' if proven else _UNPROVEN}"
    )


class Disposition(enum.Enum):
    """The treatment of one half of a plan."""

    DELIVERED = "delivered"
    WAITING = "waiting"
    WITHHELD = "withheld"
    LEFT = "left"
    """The input is not complete, so nothing is planned."""


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """The decision on a plan.

    Attributes:
        additions: The treatment of its additions.
        removals: The treatment of its removals.
        remaining: How many members the cohort has once its removals are made.
        seals: Whether this finishes a one_time cohort: its input is proven, and has members.
        reason: Why not all of it is delivered, in words.
        objection: Why the guard will withhold waiting removals once they are confirmed.
    """

    additions: Disposition
    removals: Disposition
    remaining: int
    seals: bool
    reason: str | None = None
    objection: str | None = None

    @property
    def is_withheld(self) -> bool:
        """Whether a half of the plan is withheld."""
        return Disposition.WITHHELD in {self.additions, self.removals}


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """The rules for a stream's plans, from its settings.

    Attributes:
        max_removal_percent: The setting.
        max_addition_percent: The setting; ``None`` means no limit.
        deferred: Whether removals wait for `confirm`.
        seals: Whether the stream's sync mode is one_time.
        needs_proof: Whether removals are withheld without proof that the input is complete; not
            together with `deferred`.
    """

    max_removal_percent: int
    max_addition_percent: int | None
    deferred: bool
    seals: bool
    needs_proof: bool = False


def decide(differs: DiffCounts, rules: Rules, proof: Proof) -> Decision:
    """Decide on a plan before any of it is sent."""
    growth = _excess_growth(differs, rules.max_addition_percent)
    additions = Disposition.DELIVERED if growth is None else Disposition.WITHHELD
    delivers_some = additions is Disposition.DELIVERED and differs.desired.count > 0
    remaining = differs.desired.count - (0 if growth is None else differs.joining)
    removals, objection, against = Disposition.DELIVERED, None, None
    if proof is Proof.NO:
        removals = Disposition.LEFT
        against = _incomplete(differs)
    else:
        against = _unproven(differs, rules, proof) or guard(
            base=differs.base,
            removals=differs.leaving,
            desired=remaining,
            max_removal_percent=rules.max_removal_percent,
            proven=rules.deferred or proof.is_proof,  # a confirmation is proof
        )
        if rules.deferred:
            removals, objection, against = Disposition.WAITING, against, None
        elif against is not None:
            removals = Disposition.WITHHELD
    return Decision(
        additions=additions,
        removals=removals,
        remaining=remaining,
        seals=rules.seals and delivers_some and proof.is_proof,
        reason="; ".join(reason for reason in (growth, against) if reason is not None) or None,
        objection=objection,
    )


def _excess_growth(differs: DiffCounts, limit: int | None) -> str | None:
    """Return why the additions of a plan are too many, if they are; a new cohort has no limit."""
    if limit is None or not differs.base or differs.joining * _ALL <= differs.base * limit:
        return None
    share = differs.joining / differs.base
    return (
        f"the plan would add {format_count(differs.joining, 'member')} to {differs.base:,} "
        f"({share:.2%}), more than max_addition_percent {limit}"
    )


def _unproven(differs: DiffCounts, rules: Rules, proof: Proof) -> str | None:
    """Return why removals that no person approved need proof, if they do and there is none."""
    removals = differs.removals - differs.approved
    if not (rules.needs_proof and removals) or proof.is_proof:
        return None
    return (
        f"the plan would remove {removals:,} of {format_count(differs.base, 'member')} without "
        f"proof that the input is complete, and removals is set to proven. {WAYS_TO_PROOF}"
    )


def _incomplete(differs: DiffCounts) -> str | None:
    if not differs.removals:
        return None
    removals = format_count(differs.removals, "removal")
    return f"the input is not known to be complete, so no members were removed ({removals} skipped)"
