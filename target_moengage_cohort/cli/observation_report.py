"""Compares a cohort with a membership that a person has, and writes who differs."""

from __future__ import annotations

import contextlib
import typing as t

from target_moengage_cohort.cli.empty_command import known_members
from target_moengage_cohort.cli.new_files import new_file
from target_moengage_cohort.cli.observed_members import read_observed
from target_moengage_cohort.cli.verification import (
    Finding,
    Result,
    blank,
    decided,
    removed_still_in,
    without_sample,
)
from target_moengage_cohort.core.commands import suggest
from target_moengage_cohort.core.errors import TryAgainError

if t.TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from target_moengage_cohort.cli.new_files import NewFile
    from target_moengage_cohort.cli.observed_members import Row
    from target_moengage_cohort.cli.session import Session
    from target_moengage_cohort.ledger.samples import ObservedCounts
    from target_moengage_cohort.ledger.snapshot import DifferenceKind, Observation

_KINDS: tuple[DifferenceKind, ...] = ("missing", "removed", "stranger")


def compare(session: Session, cohort_id: str, path: str, differences: str | None) -> Result:
    """Compare a cohort with the membership in a file; write who differs, if asked."""
    with contextlib.ExitStack() as stack:
        output = (
            None
            if differences is None
            else stack.enter_context(new_file("differences", differences))
        )
        ledgers = stack.enter_context(session.ledgers())
        ledger = known_members(ledgers, cohort_id)
        rows = read_observed(path, session.settings.id_attribute)
        observation = ledger.observe(_until_stopped(session, rows))
        if output is not None:
            _write(output, observation)
        dropped = ledger.samples(0, "").dropped
        result = decided(
            blank(ledger.entry),
            *_findings(cohort_id, path, differences, observation.counts, dropped),
            observed=observation.counts,
        )
        if not observation.counts.population:
            result = without_sample(ledger.entry, result)
        ledgers.note_action("verify", ledger.entry, status=result.status, **result.counts)
        return result


def _until_stopped(session: Session, chunks: Iterator[Sequence[Row]]) -> Iterator[Sequence[Row]]:
    for chunk in chunks:
        if session.interrupt.is_set():
            msg = "stopped before the whole file was read, so nothing was compared; run it again"
            raise TryAgainError("interrupted", msg)
        yield chunk


def _write(output: NewFile, observation: Observation) -> None:
    output.write_rows([("uid", "difference")])
    for kind in _KINDS:
        for uids in observation.uids(kind):
            output.write_rows((uid, kind) for uid in uids)


def _findings(
    cohort_id: str, path: str, differences: str | None, counts: ObservedCounts, dropped: int
) -> Iterator[Finding | None]:
    if counts.missing and counts.missing == counts.population:
        msg = (
            f"none of {counts.population:,} accepted members is in the file: probably it is "
            "another segment's, or its column has another identifier. Otherwise MoEngage knows "
            "none of them, or has processed none yet. To find out"
        )
        yield Finding("none_observed", msg, suggest("verify", cohort_id))
    yield removed_still_in(cohort_id, counts.removed, counts.kept)
    if not counts.strangers:
        return
    msg = f"{counts.strangers:,} users in the file are not in the ledger"
    if dropped:
        msg += f" (up to {dropped:,} of them were removed before the removals that it keeps)"
    if differences is None:
        msg += ". Write them to a file, which this command then names the next step for"
        options = ("--observed", path, "--differences", "differences.csv")
        yield Finding("strangers", msg, suggest("verify", *options, cohort_id))
    else:
        msg += (
            ". Import them. If the stream is a mirror, its next run then removes those who do not "
            "belong; of any other stream, only a row that marks them as removed does"
        )
        command = suggest("adopt", cohort_id, "--csv", differences)
        yield Finding("strangers", msg, command)
