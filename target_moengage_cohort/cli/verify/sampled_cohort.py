"""A cohort with samples of its members, and the conclusions from the counts of a query."""

from __future__ import annotations

import typing as t

import msgspec

from target_moengage_cohort.cli.verify.verification import (
    Finding,
    Result,
    SampleCounts,
    Unknown,
    blank,
    decided,
    removed_still_in,
    undecided,
    without_sample,
)
from target_moengage_cohort.core.commands import suggest
from target_moengage_cohort.core.proportions import Z_SURE, Drawn, Estimate, share
from target_moengage_cohort.core.text import format_count

if t.TYPE_CHECKING:
    from collections.abc import Iterator

    from target_moengage_cohort.ledger.cohort_ledger import CohortLedger
    from target_moengage_cohort.ledger.records import CohortEntry
    from target_moengage_cohort.ledger.samples import Sample

MOST_CHARACTERS = 60_000
"""Of a sample. A query may have 262,144 in its filters, and each of two samples is in it twice."""

_EXPORT = (
    "Export the segment's users in the dashboard (Export Users, as export.csv). To compare them "
    "and see the next step, run"
)
_encode = msgspec.json.Encoder().encode


class Drawing(t.NamedTuple):
    """As much of a sample as fits into a query, and the population that it was drawn from."""

    uids: tuple[str, ...]
    drawn: Drawn


class SampledCohort(msgspec.Struct, frozen=True, kw_only=True):
    """A cohort as of the moment when its samples were drawn.

    Attributes:
        revision: Rises with every change of the cohort.
        others: The number of other users that may be in the segment: members and kept removals
            that are not in a sample.
        dropped: The number of members, possibly in the segment, whose removal is no longer kept.
    """

    entry: CohortEntry
    revision: int
    others: int
    dropped: int
    members: Drawing
    removed: Drawing

    def result(self, counts: Iterator[int]) -> Result:
        """Return the result of a query.

        Args:
            counts: The size of the segment; then, for each sample that has members, how many of
                them are known, and how many are in the segment.
        """
        size = next(counts)
        members, removed = _counts(self.members, counts), _counts(self.removed, counts)
        facts: dict[str, t.Any] = {"size": size, "members": members, "removed": removed}
        facts["unsampled"] = self.entry.counts.base - self.members.drawn.population
        if reason := _contradiction(size, members, removed):
            return undecided(blank(self.entry), reason, **facts)
        findings: list[Finding | None] = []
        if members is not None:
            drawn = self.members.drawn
            lost = share(members.known - members.in_segment, drawn)
            facts["match_percent"] = _percent(share(members.known, drawn))
            facts["missing"] = lost.of(drawn.population)
            findings += [_none_known(members), _missing(self.entry.cohort_id, members)]
        extra = size - self._most(members, removed)
        if removed is not None and removed.in_segment:
            # The size proves nothing: removals that are no longer kept may also be unprocessed.
            still_in = removed.in_segment, removed.sampled
            findings.append(removed_still_in(self.entry.cohort_id, *still_in))
        elif extra > self.dropped:
            findings.append(_strangers(self.entry.cohort_id, extra - self.dropped))
        result = decided(blank(self.entry), *findings, **facts)
        if extra > 0 and not result.findings:
            return undecided(result, _unexplained(self.entry.cohort_id, extra, self.dropped))
        return result if members is not None else without_sample(self.entry, result)

    def _most(self, members: SampleCounts | None, removed: SampleCounts | None) -> int:
        """Return how many users the segment may certainly have without strangers."""
        most = self.others
        for (_, drawn), counts in ((self.members, members), (self.removed, removed)):
            if counts is not None:
                most += int(share(counts.in_segment, drawn, Z_SURE).of(drawn.population).high)
        return most


def draw(ledger: CohortLedger, size: int, seed: str) -> SampledCohort:
    """Draw samples of at most `size` members each."""
    samples = ledger.samples(size, seed)
    counts, population = ledger.entry.counts, samples.accepted.population
    aliases = sum(map(len, ledger.aliases()))
    removed = sum(map(len, ledger.kept_removals()))
    return SampledCohort(
        entry=ledger.entry,
        revision=ledger.revision,
        others=counts.base - population + aliases + removed - samples.removed.population,
        dropped=samples.dropped,
        members=_fitting(samples.accepted),
        removed=_fitting(samples.removed),
    )


def _fitting(sample: Sample) -> Drawing:
    """Return as much of a sample as fits into a query; this part is also random."""
    uids: list[str] = []
    room = MOST_CHARACTERS
    for uid in sample.uids:
        room -= len(_encode(uid).decode()) + 1
        if room < 0:
            break
        uids.append(uid)
    return Drawing(tuple(uids), Drawn(len(uids), sample.population))


def _counts(drawing: Drawing, counts: Iterator[int]) -> SampleCounts | None:
    if not drawing.uids:
        return None
    return SampleCounts(len(drawing.uids), next(counts), next(counts))


def _percent(estimate: Estimate) -> Estimate:
    value, low, high = (round(100 * each, 2) for each in msgspec.structs.astuple(estimate))
    return Estimate(value, low, high)


def _contradiction(size: int, *samples: SampleCounts | None) -> Unknown | None:
    """Return why some counts cannot be those of the samples."""
    there = [each for each in samples if each is not None]
    if any(not each.in_segment <= each.known <= each.sampled for each in there):
        msg = (
            "MoEngage counts more users than a sample has identifiers, so the attribute does not "
            "identify users; check id_attribute"
        )
        return Unknown("counts_contradict", msg)
    if size and there and not any(each.known for each in there):
        msg = (
            "the segment has users, but MoEngage knows none of the sampled identifiers, so "
            "id_attribute probably names the wrong attribute. In MoEngage's dashboard, Test & "
            "Debug > Segment Payload shows the right name"
        )
        return Unknown("id_attribute_unmatched", msg)
    return None


def _none_known(members: SampleCounts) -> Finding | None:
    msg = (
        f"MoEngage knows none of {members.sampled:,} sampled members. Compare a uid of your query "
        "with the ID in a user's profile, character by character, and check workspace_id and "
        "id_attribute. To see the workspace, run"
    )
    return None if members.known else Finding("none_known", msg, suggest("check"))


def _missing(cohort_id: str, members: SampleCounts) -> Finding | None:
    count = members.known - members.in_segment
    wait = suggest("verify", "--wait", "30", cohort_id)
    msg = (
        f"the segment lacks {count:,} of {members.known:,} known members of the sample: not "
        f"processed yet, or lost. Wait for them first ({wait}). To have the next run re-send all "
        "members, run"
    )
    return Finding("missing", msg, suggest("resync", cohort_id)) if count else None


def _strangers(cohort_id: str, count: int) -> Finding:
    msg = f"the ledger lacks at least {format_count(count, 'user')} of the segment. {_EXPORT}"
    return Finding("strangers", msg, _comparison(cohort_id))


def _unexplained(cohort_id: str, count: int, dropped: int) -> Unknown:
    msg = (
        f"the ledger lacks at least {format_count(count, 'user')} of the segment: strangers, or "
        f"some of {dropped:,} removed members that it no longer keeps. {_EXPORT}: "
        f"{_comparison(cohort_id)}"
    )
    return Unknown("removals_not_kept", msg, is_passing=True)


def _comparison(cohort_id: str) -> str:
    return suggest(
        "verify", "--observed", "export.csv", "--differences", "differences.csv", cohort_id
    )
