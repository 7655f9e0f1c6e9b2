"""The run's numbers, for programs (JSON) and for people (a summary that fits a screen)."""

from __future__ import annotations

import os
import typing as t
from pathlib import Path

import msgspec

from target_moengage_cohort.core.errors import SettingsError
from target_moengage_cohort.core.files import replace
from target_moengage_cohort.core.text import format_count, format_minutes, format_size, shorten
from target_moengage_cohort.ledger.records import MemberSet  # noqa: TC001 - msgspec resolves it
from target_moengage_cohort.sync.mirror.guard import Proof

_COHORTS_IN_SUMMARY = 12
_WITHHELD_EXIT = 3


class CohortReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a run did for one cohort.

    Attributes:
        cohort_id: The cohort; ``None`` counts rows that name none.
        cohort_name: Its name.
        stream: The stream that feeds it.
        sync_mode: How its records became changes.
        records: Records read.
        added: Members whose addition was accepted.
        removed: Members whose removal was accepted.
        unchanged: In a snapshot, desired members who need no request. Elsewhere records that
            asked for no change of their own: repeats of a member, what the ledger shows to be
            done already, and deleted records in sync mode add.
        rejected: Records that could not be delivered.
        removals_waiting: Removals that wait for a person.
        removals_withheld: Removals that are held back: by the guard, or because rejected rows
            leave the input incomplete.
        plan_id: What a person confirms.
        in_doubt: Members of requests that were sent and whose answer nobody knows.
        requests: Requests started, retries included.
        bytes: Bytes of their bodies.
        complete: What shows that the input was complete.
        ledger: Whether a ledger was used, and whether it was made by this run.
        desired: Who should be in the cohort, where that is known.
        accepted: Who MoEngage has accepted, where that is known.
    """

    cohort_id: str | None
    cohort_name: str | None
    stream: str
    sync_mode: str
    records: int = 0
    added: int = 0
    removed: int = 0
    unchanged: int = 0
    rejected: int = 0
    removals_waiting: int = 0
    removals_withheld: int = 0
    plan_id: str | None = None
    in_doubt: int = 0
    requests: int = 0
    bytes: int = 0
    complete: Proof = Proof.NO
    ledger: t.Literal["created", "opened", "none"] = "none"
    desired: MemberSet | None = None
    accepted: MemberSet | None = None


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What a run did.

    Attributes:
        run_id: Unique; also in the rejects file.
        started_at: ISO 8601 in UTC.
        finished_at: ISO 8601 in UTC.
        status: How it ended.
        requests: Requests started, retries included.
        retries: How many of them repeated one before.
        throttled_seconds: For how long the rate limit held requests back.
        cohorts: Each cohort that the run touched.
    """

    run_id: str
    started_at: str
    finished_at: str
    status: t.Literal["succeeded", "failed", "withheld", "dry_run"]
    requests: int
    retries: int
    throttled_seconds: float
    cohorts: list[CohortReport]

    @property
    def exit_code(self) -> int:
        """What a process ends with that has no error to tell."""
        return _WITHHELD_EXIT if self.status == "withheld" else 0


def check(path: str) -> None:
    """Check that a report can be written, before a run does anything that it would tell of.

    Raises:
        SettingsError: It cannot.
    """
    place = Path(path).resolve()
    fault = None
    if place.exists() and not place.is_file():
        fault = "is no regular file; name another one"
    elif not (place.parent.is_dir() and os.access(place.parent, os.W_OK | os.X_OK)):
        fault = "cannot be written; its folder must be there and writable"
    if fault is not None:
        msg = f"report_path: {path} {fault}"
        raise SettingsError(msg)


def write(report: Report, path: str) -> None:
    """Write a report as JSON, all of it or nothing; where a link leads, not in its place.

    Raises:
        SettingsError: It cannot be written.
    """
    place = Path(path).resolve()
    unfinished = place.with_name(f"{place.name}.{os.getpid()}.tmp")
    data = msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n"
    try:
        replace(place, data, unfinished)
    except OSError as error:
        msg = (
            f"report_path: {path} cannot be written ({error.strerror}); see that its folder is "
            "writable and its disk has room. What was sent is sent; the next run goes on from there"
        )
        raise SettingsError(msg) from None


def summary(report: Report, requests_per_minute: int) -> str:
    """Say what a run did, on at most some twenty lines of at most 80 columns."""
    dry = report.status == "dry_run"
    verb = "would take" if dry else "took"
    cohorts = report.cohorts
    lines = [
        f"{'cohort':<30} {'records':>9} {'added':>9} {'removed':>9} {'rejected':>8} {'req.':>6}"
    ]
    by_size = sorted(cohorts, key=lambda cohort: cohort.records, reverse=True)
    for cohort in by_size[:_COHORTS_IN_SUMMARY]:
        name = cohort.cohort_id if cohort.cohort_id is not None else f"(no cohort: {cohort.stream})"
        lines.append(
            f"{shorten(name, 30):<30} {cohort.records:>9} {cohort.added:>9} "
            f"{cohort.removed:>9} {cohort.rejected:>8} {cohort.requests:>6}"
        )
    if (more := len(by_size) - _COHORTS_IN_SUMMARY) > 0:
        lines.append(f"… and {more} more cohorts; report_path has them all")
    size = sum(cohort.bytes for cohort in cohorts)
    requests = format_count(report.requests, "request")
    text = f"{report.status}: it {verb} {requests}, {format_size(size)}"
    if dry and report.requests:
        text += f", {format_minutes(report.requests / requests_per_minute)} at the rate limit"
    elif not dry:
        retries = format_count(report.retries, "retry", "retries")
        text += f", {retries}; throttled for {report.throttled_seconds:.0f} s"
    lines.append(text)
    if waiting := sum(cohort.removals_waiting for cohort in cohorts):
        streams = " ".join(sorted({each.stream for each in cohorts if each.removals_waiting}))
        wait = "waits" if waiting == 1 else "wait"
        lines.append(
            f"{format_count(waiting, 'removal')} {wait} for: moengage-cohort confirm {streams} "
            "--config …"
        )
    if report.status == "withheld":
        held = sum(cohort.removals_withheld for cohort in cohorts)
        removals = format_count(held, "removal")
        lines.append(f"withheld, {removals} among it; the warnings above say what and why")
    if doubt := sum(cohort.in_doubt for cohort in cohorts):
        if doubt == 1:
            lines.append("1 member is in doubt: nobody knows whether it is accepted")
        else:
            lines.append(f"{doubt:,} members are in doubt: nobody knows whether they are accepted")
    return "\n".join(lines)
