"""Compares a cohort with an observed membership, and writes the differences."""

from __future__ import annotations

import contextlib
import typing as t

from target_moengage_cohort.cli.cohort_members import known_members
from target_moengage_cohort.cli.new_files import new_file
from target_moengage_cohort.cli.verify.observed_members import read_observed
from target_moengage_cohort.cli.verify.verification import (
    Finding,
    Result,
    blank,
    decided,
    removed_still_in,
    without_sample,
)
from target_moengage_cohort.core.commands import suggest
from target_moengage_cohort.core.errors import TryAgainError
from target_moengage_cohort.core.text import format_count

if t.TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from target_moengage_cohort.cli.new_files import NewFile
    from target_moengage_cohort.cli.session import Session
    from target_moengage_cohort.cli.verify.observed_members import Row
    from target_moengage_cohort.ledger.samples import ObservedCounts
    from target_moengage_cohort.ledger.snapshot import DifferenceKind, Observation

_KINDS: tuple[DifferenceKind, ...] = ("missing", "removed", "stranger")


def compare(session: Session, cohort_id: str, path: str, differences: str | None) -> Result:
    """Compare a cohort with the membership in a file; write the differences, if asked."""
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
        ledgers.note_action(
            "verify", ledger.entry, status=result.status, error=result.code, **result.counts
        )
        return result


def _until_stopped(session: Session, chunks: Iterator[Sequence[Row]]) -> Iterator[Sequence[Row]]:
    for chunk in chunks:
        if session.interrupt.is_set():
            msg = "stopped before the whole file was read; run the command again"
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
            f"none of {counts.population:,} accepted members is in the file. The file is probably "
            "that of another segment, or its column contains another identifier. Otherwise "
            "MoEngage knows none of the members, or has not processed any yet. To find out, run"
        )
        yield Finding("none_observed", msg, suggest("verify", cohort_id))
    yield removed_still_in(cohort_id, counts.removed, counts.kept)
    if not counts.strangers:
        return
    verb = "is" if counts.strangers == 1 else "are"
    msg = f"{format_count(counts.strangers, 'user')} in the file {verb} not in the ledger"
    if dropped:
        msg += f" (up to {dropped:,} may be removed members that the ledger no longer keeps)"
    if differences is None:
        msg += ". To write them to a file and see the next step, run"
        options = ("--observed", path, "--differences", "differences.csv")
        yield Finding("strangers", msg, suggest("verify", *options, cohort_id))
    else:
        msg += (
            ". If you import them, the next run of a mirror removes those that do not belong; in "
            "any other mode, only a row that removes a member does. To import them, run"
        )
        command = suggest("adopt", cohort_id, "--csv", differences)
        yield Finding("strangers", msg, command)
