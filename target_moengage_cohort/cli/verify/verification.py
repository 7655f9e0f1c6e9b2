"""The results of `verify` about a cohort; pure."""

from __future__ import annotations

import typing as t

import msgspec

from target_moengage_cohort.core.commands import suggest
from target_moengage_cohort.core.text import format_count

if t.TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from target_moengage_cohort.core.proportions import Estimate
    from target_moengage_cohort.ledger.records import CohortEntry
    from target_moengage_cohort.ledger.samples import ObservedCounts

WRONG = 6

Status: t.TypeAlias = t.Literal["fine", "wrong", "unknown"]


class Finding(msgspec.Struct, frozen=True):
    """A problem, and the command that repairs it."""

    code: str
    message: str
    command: str


class Unknown(msgspec.Struct, frozen=True):
    """Why the result is unknown."""

    code: str
    message: str
    is_passing: bool = False  # whether a later query may get an answer
    exit_code: int = 1


class SampleCounts(msgspec.Struct, frozen=True):
    """The number of members of a sample that MoEngage knows, and that are in the segment."""

    sampled: int
    known: int
    in_segment: int


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a cohort; ``None`` for a number that was not asked for, or not answered.

    Attributes:
        size: The users in the segment.
        unsampled: The members that no sample can contain: unconfirmed, or without a uid.
        match_percent: The share of the accepted members that MoEngage knows.
        missing: The accepted members that it knows but that are not in the segment.
        settled_seconds: The time from the cohort's last request until nothing was missing, if the
            command waited for that.
    """

    cohort_id: str
    status: Status = "fine"
    accepted: int | None = None
    in_doubt: int | None = None
    size: int | None = None
    unsampled: int | None = None
    members: SampleCounts | None = None
    match_percent: Estimate | None = None
    missing: Estimate | None = None
    removed: SampleCounts | None = None
    observed: ObservedCounts | None = None
    findings: tuple[Finding, ...] = ()
    unknown: Unknown | None = None
    settled_seconds: float | None = None

    @property
    def may_settle(self) -> bool:
        """Whether the result may change later without anyone's action."""
        if self.unknown is not None:
            return self.unknown.is_passing
        return any(each.code in {"missing", "removed_still_in"} for each in self.findings)

    @property
    def code(self) -> str | None:
        """Why it is unknown, if it is."""
        return None if self.unknown is None else self.unknown.code

    @property
    def counts(self) -> dict[str, int]:
        """The numbers for the history."""
        numbers: dict[str, int | None] = {"accepted": self.accepted, "size": self.size}
        for name, part in (("", self.members), ("removed_", self.removed)):
            if part is not None:
                facts = msgspec.structs.asdict(part)
                numbers |= {f"{name}{field}": value for field, value in facts.items()}
        if self.observed is not None:
            numbers |= msgspec.structs.asdict(self.observed)
        known = {name: value for name, value in numbers.items() if value is not None}
        return known | {self.status: 1}


def exit_code(results: Sequence[Result]) -> int:
    """Return `WRONG` if anything is wrong, else the code of an unknown result, else 0."""
    if any(each.status == "wrong" for each in results):
        return WRONG
    codes = {each.unknown.exit_code for each in results if each.unknown is not None}
    return min(codes, default=0)


def blank(entry: CohortEntry) -> Result:
    """Return the result of a cohort before anything else is known."""
    counts = entry.counts
    accepted, in_doubt = counts.accepted.count, counts.in_doubt
    return Result(cohort_id=entry.cohort_id, accepted=accepted, in_doubt=in_doubt)


def decided(result: Result, *findings: Finding | None, **facts: t.Any) -> Result:
    """Return a result with its findings, which make it wrong."""
    found = tuple(each for each in findings if each is not None)
    status: Status = "wrong" if found else "fine"
    return msgspec.structs.replace(result, status=status, findings=found, **facts)


def undecided(result: Result, reason: Unknown, **facts: t.Any) -> Result:
    """Return a result that is unknown."""
    return msgspec.structs.replace(result, status="unknown", unknown=reason, **facts)


def without_sample(entry: CohortEntry, result: Result) -> Result:
    """Return the result of a cohort none of whose accepted members could be sampled."""
    if result.findings or not entry.counts.base:
        return result
    msg = (
        "no members can be sampled: they are unconfirmed, or have no uid. Run the stream, which "
        "re-sends unconfirmed members, then run this command again; members without a uid cannot "
        "be verified"
    )
    return undecided(result, Unknown("nothing_sampled", msg))


def removed_still_in(cohort_id: str, count: int, of: int) -> Finding | None:
    """Return the finding of removals that MoEngage has not applied."""
    message = (
        f"the segment still has {count:,} of {of:,} members whose removal was accepted: not "
        "processed yet, or lost. To re-send the latest removals, run"
    )
    command = suggest("resync", "--removals", cohort_id)
    return Finding("removed_still_in", message, command) if count else None


def lines(result: Result) -> Iterator[str]:
    """Return a result as text."""
    yield f"cohort {result.cohort_id!r}: {result.status}"
    if result.accepted is not None:
        doubts = f", {result.in_doubt:,} unconfirmed" if result.in_doubt else ""
        yield f"  accepted: {result.accepted:,}{doubts}"
    if result.size is not None:
        yield f"  segment: {format_count(result.size, 'user')}"
    if result.unsampled:
        yield f"  not in the sample: {format_count(result.unsampled, 'member')}"
    yield from _sample_lines(result)
    if (part := result.removed) is not None:
        yield f"  removed, still in the segment: {part.in_segment:,} of {part.sampled:,}"
    yield from _observed_lines(result)
    if result.settled_seconds is not None:
        yield f"  settled {result.settled_seconds:,.0f} s after the last request, or earlier"
    if (reason := result.unknown) is not None:
        yield f"  {reason.message}"
        if reason.is_passing:
            command = suggest("verify", "--wait", "30", result.cohort_id)
            yield f"  To retry for up to 30 minutes, run: {command}"
        elif reason.code == "quota_exceeded":
            command = suggest("verify", "--observed", "export.csv", result.cohort_id)
            yield f"  To compare with an export of the segment instead, run: {command}"
    for finding in result.findings:
        yield f"  {finding.message}: {finding.command}"


def _sample_lines(result: Result) -> Iterator[str]:
    part, match, missing = result.members, result.match_percent, result.missing
    if part is None or match is None or missing is None:
        return
    yield (
        f"  known: {part.known:,} of a sample of {part.sampled:,} "
        f"({match.value:.1f}%{_interval(match, '.1f', '%')})"
    )
    about = "exactly" if missing.low == missing.high else "about"
    yield (
        f"  known, not in the segment: {part.known - part.in_segment:,} of the sample, "
        f"{about} {missing.value:,.0f} in total{_interval(missing, ',.0f')}"
    )


def _interval(estimate: Estimate, form: str, unit: str = "") -> str:
    """Return the interval of an estimate as text; empty if all members were counted."""
    if estimate.low == estimate.high:
        return ""
    return f"; 95% interval {estimate.low:{form}} to {estimate.high:{form}}{unit}"


def _observed_lines(result: Result) -> Iterator[str]:
    if (seen := result.observed) is None:
        return
    yield (
        f"  in the file: {seen.observed:,}; missing there: {seen.missing:,} of "
        f"{seen.population:,}; removed: {seen.removed:,}; not in the ledger: {seen.strangers:,}"
    )
    if seen.missing:
        command = suggest("verify", result.cohort_id)
        yield f"  MoEngage may not know the missing members; to see how many it knows: {command}"
