"""What may follow from a snapshot: is the input complete, and does the guard let its plan go; pure.

A tap that died looks like a small audience: standard input ends the same way. So removals need
an input without any fault, and without proof that it is complete they stay within the guard
(promise 4 of the design).
"""

from __future__ import annotations

import enum
import json
import typing as t
from decimal import Decimal

import msgspec
from msgspec import UNSET

from target_moengage_cohort.core.errors import InputError

if t.TYPE_CHECKING:
    from collections.abc import Collection

    from target_moengage_cohort.ledger.records import DiffCounts

ALWAYS_ALLOWED_REMOVALS = 20
"""With proof, so many may always leave: a percentage of a small cohort is next to nothing."""

_ALL = 100
_MOST_VERSIONS = 100  # more of them in one run prove nothing anyway
_LONGEST_COUNT = 18  # digits


class Proof(enum.StrEnum):
    """What shows that an input was complete; the values are those of the report."""

    COUNT = "count"
    ACTIVATE_VERSION = "activate_version"
    TAP_EXIT = "tap_exit"
    END_OF_INPUT = "end_of_input"
    NO = "no"

    @property
    def is_proof(self) -> bool:
        """Whether it is more than an input that ended like any other."""
        return self not in {Proof.END_OF_INPUT, Proof.NO}


class Completeness:
    """What a stream's messages say of whether all of it has come.

    Args:
        stream: The stream's name.
        count_column: The column with the number of rows that the warehouse saw, if there is one.

    Attributes:
        records: Records read.
        rejected: Records among them that cannot be used, so that somebody may be missing.
    """

    def __init__(self, stream: str, count_column: str | None) -> None:
        self._stream = stream
        self._count_column = count_column
        self._counted: object = UNSET  # as the rows have it
        self._expected: int | None = None
        self._versions: set[int | None] = set()
        self._latest_version: t.Any = UNSET
        self._activated: t.Any = None
        self.records = 0
        self.rejected = 0

    @property
    def version(self) -> int | None:
        """The table version that all records belong to, if it is one."""
        if len(self._versions) != 1:
            return None
        (version,) = self._versions
        return version

    def read(self, version: t.Any, count: int = 1) -> bool:
        """Note records of one version; return whether that is new."""
        if not count:
            return False
        self.records += count
        self._activated = None
        if version == self._latest_version and type(version) is type(self._latest_version):
            return False
        self._latest_version = version
        known = len(self._versions)
        if known < _MOST_VERSIONS:
            self._versions.add(version if type(version) is int else None)
        return len(self._versions) > known

    def activate(self, version: t.Any) -> None:
        """Note an ACTIVATE_VERSION; one that comes before the records proves nothing."""
        self._activated = version if type(version) is int else None

    def expect(self, value: object) -> None:
        """Note how many rows a row says there are.

        Raises:
            InputError: It says nothing, or something else than the rows before it.
        """
        same = value == self._counted and type(value) is type(self._counted)
        if same and self._expected is not None:
            return
        expected = _whole_number(value)
        where = f"expected_count_column {self._count_column!r} of the stream {self._stream!r}"
        if expected is None:
            msg = f"{where}: a row has no row count there; make it count(*) over ()"
            raise InputError(msg)
        if self._expected not in {None, expected}:
            msg = (
                f"{where}: one row says {self._expected}, another {expected}, so the tap did not "
                "read one snapshot; nobody is removed. Let it read with one statement"
            )
            raise InputError(msg)
        self._counted, self._expected = value, expected

    def check(self) -> None:
        """Compare what the rows said with what was read.

        Raises:
            InputError: Rows are missing, or there are too many.
        """
        if self._expected is not None and self._expected != self.records:
            msg = (
                f"expected_count_column {self._count_column!r}: the stream {self._stream!r} should "
                f"have {self._expected} rows, and {self.records} were read, so its input is not "
                "complete; nobody is removed. Look for what stopped the tap, and run it again"
            )
            raise InputError(msg)

    def proof(self, *, tap_succeeded: bool, version_is_fresh: bool) -> Proof:
        """What shows that an input is complete that has ended without a fault.

        Args:
            tap_succeeded: Whether we started the tap ourselves, and it exited with 0.
            version_is_fresh: Whether no unfinished run has used the `version`: a tap that goes
                on where it was stopped gives the same one to the rest of the rows.
        """
        if self.rejected:
            return Proof.NO
        if self._expected is not None:
            return Proof.COUNT
        if self.version is not None and self._activated == self.version and version_is_fresh:
            return Proof.ACTIVATE_VERSION
        return Proof.TAP_EXIT if tap_succeeded else Proof.END_OF_INPUT


def bookmarked_stream(state: bytes, streams: Collection[str]) -> str | None:
    """Find a stream that the tap does not read as a whole.

    Args:
        state: A STATE's value.
        streams: Those to look for.

    Returns:
        One of them that has a ``replication_key_value``, for itself or for a partition.
    """
    try:
        value = json.loads(state)  # more lenient than msgspec: what any tap writes can be read
    except (ValueError, RecursionError):
        return None
    bookmarks = value.get("bookmarks") if isinstance(value, dict) else None
    if not isinstance(bookmarks, dict):
        return None
    for stream in streams:
        bookmark = bookmarks.get(stream)
        if not isinstance(bookmark, dict):
            continue
        partitions = bookmark.get("partitions")
        parts = [bookmark, *(partitions if isinstance(partitions, list) else ())]
        parts += [part.get("progress_markers") for part in parts if isinstance(part, dict)]
        for part in parts:
            if isinstance(part, dict) and part.get("replication_key_value") is not None:
                return stream
    return None


def _whole_number(value: object) -> int | None:
    """A row count as a tap may write it: a number, or its digits."""
    if isinstance(value, Decimal) and value.is_finite() and value.adjusted() < _LONGEST_COUNT:
        value = int(value) if value == value.to_integral_value() else None
    elif isinstance(value, str):
        is_number = value.isascii() and value.isdigit() and len(value) <= _LONGEST_COUNT
        value = int(value) if is_number else None
    return value if type(value) is int and abs(value) < 10**_LONGEST_COUNT else None


def most_leaving(*, base: int, max_removal_percent: int, proven: bool) -> int:
    """How many members may leave a cohort in one run that nobody joins in, as `guard` has it.

    Args:
        base: Members who are accepted or in doubt.
        max_removal_percent: The setting.
        proven: Whether the input is known to be complete.
    """
    most = _most_removals(base=base, max_removal_percent=max_removal_percent, proven=proven)
    may_be_emptied = proven and max_removal_percent == _ALL
    return most if may_be_emptied else min(most, max(base - 1, 0))


def _most_removals(*, base: int, max_removal_percent: int, proven: bool) -> int:
    """How many members may leave a cohort in one run that does not empty it."""
    most = base * max_removal_percent // _ALL
    return max(most, min(base, ALWAYS_ALLOWED_REMOVALS)) if proven else most


def guard(
    *, base: int, removals: int, desired: int, max_removal_percent: int, proven: bool
) -> str | None:
    """Judge the removals of a whole plan.

    Args:
        base: Members who are accepted or in doubt.
        removals: How many of them the plan removes.
        desired: How many the cohort is to have afterwards.
        max_removal_percent: The setting.
        proven: Whether the input is known to be complete.

    Returns:
        ``None`` if they may go, or why not.
    """
    if not removals:
        return None
    if not desired:
        if proven and max_removal_percent == _ALL:
            return None
        look = "; nothing shows that the tap succeeded, so look at its messages first"
        return (
            f"it would empty the cohort of {base} members, which needs max_removal_percent 100 "
            f"and proof that the input is complete{'' if proven else look}"
        )
    most = _most_removals(base=base, max_removal_percent=max_removal_percent, proven=proven)
    if removals <= most:
        return None
    return (
        f"{removals} of {base} members would leave, {removals / base:.2%}, more than "
        f"max_removal_percent {max_removal_percent}"
    )


class Disposition(enum.Enum):
    """What becomes of one half of a plan."""

    DELIVERED = "delivered"
    WAITING = "waiting"
    WITHHELD = "withheld"
    LEFT = "left"
    """The input is not complete, so it is no plan at all."""


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """What becomes of a plan.

    Attributes:
        additions: What becomes of its additions.
        removals: What becomes of its removals.
        remaining: How many the cohort has once its removals are made.
        seals: Whether the cohort is finished with this: a one_time cohort after a proven input.
        reason: For people, where not all of it is delivered.
        objection: What the guard will say against removals that wait, once they are confirmed.
    """

    additions: Disposition
    removals: Disposition
    remaining: int
    seals: bool
    reason: str | None = None
    objection: str | None = None


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """What a stream's settings say of its plans.

    Attributes:
        max_removal_percent: The setting.
        max_addition_percent: The setting; ``None`` is no limit.
        deferred: Whether removals wait for `confirm`.
        seals: Whether the stream is a one_time.
    """

    max_removal_percent: int
    max_addition_percent: int | None
    deferred: bool
    seals: bool


def decide(differs: DiffCounts, rules: Rules, proof: Proof) -> Decision:
    """Decide what becomes of a plan, before any of it is sent."""
    reasons = []
    additions = Disposition.DELIVERED
    remaining, limit = differs.desired.count, rules.max_addition_percent
    if limit is not None and differs.base and differs.joining * _ALL > differs.base * limit:
        additions = Disposition.WITHHELD
        remaining -= differs.joining
        share = differs.joining / differs.base
        reasons.append(
            f"{differs.joining} members would join {differs.base}, {share:.2%} more, and "
            f"max_addition_percent is {limit}"
        )
    removals, objection = Disposition.DELIVERED, None
    if proof is Proof.NO:
        removals = Disposition.LEFT
        if differs.removals:
            reasons.append(
                f"{differs.removals} members are not in the input, which is not known to be "
                "complete, so nobody is removed"
            )
    else:
        against = guard(
            base=differs.base,
            removals=differs.removals,
            desired=remaining,
            max_removal_percent=rules.max_removal_percent,
            proven=rules.deferred or proof.is_proof,  # a confirmation is proof
        )
        if rules.deferred:
            removals, objection = Disposition.WAITING, against
        elif against is not None:
            removals = Disposition.WITHHELD
            reasons.append(against)
    seals = rules.seals and additions is Disposition.DELIVERED and proof.is_proof
    return Decision(
        additions=additions,
        removals=removals,
        remaining=remaining,
        seals=seals,
        reason="; ".join(reasons) or None,
        objection=objection,
    )
