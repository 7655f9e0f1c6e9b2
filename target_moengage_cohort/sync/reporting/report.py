"""The run's report: its numbers for programs, as JSON."""

from __future__ import annotations

import contextlib
import os
import typing as t
from pathlib import Path

import msgspec

from target_moengage_cohort import package_version
from target_moengage_cohort.core.errors import LedgerError, SettingsError, WithheldError
from target_moengage_cohort.core.files import replace
from target_moengage_cohort.core.text import utc_now
from target_moengage_cohort.core.warning_log import LoggedWarning  # noqa: TC001 - msgspec resolves it
from target_moengage_cohort.ledger.records import MemberSet  # noqa: TC001 - msgspec resolves it
from target_moengage_cohort.sync.mirror.completeness import Proof

if t.TYPE_CHECKING:
    from collections.abc import Sequence

    from target_moengage_cohort.core.errors import TargetError
    from target_moengage_cohort.core.warning_log import WarningLog
    from target_moengage_cohort.delivery.ports import CohortCounts
    from target_moengage_cohort.ledger.records import LedgerCounts
    from target_moengage_cohort.settings import Settings, StreamMapping
    from target_moengage_cohort.sync.synced_cohort import SyncedCohort

Status: t.TypeAlias = t.Literal["succeeded", "failed", "withheld", "dry_run"]
CohortStatus: t.TypeAlias = Status | t.Literal["no_input", "sealed"]


class CohortReport(msgspec.Struct, frozen=True, kw_only=True):
    """The results of a run for one cohort."""

    cohort_id: str | None  # `None` counts rows that name no cohort
    cohort_name: str | None
    stream: str
    sync_mode: str | None  # `None` for a command's cohort that no stream populates
    status: CohortStatus
    records: int = 0  # records read
    added: int = 0  # members whose addition was accepted
    removed: int = 0  # members whose removal was accepted
    # In a mirror, desired members that need no request. Elsewhere records that asked for no change
    # of their own: repeats of a member, changes that the ledger shows to be done already, and
    # deleted records in sync mode add.
    unchanged: int = 0
    rejected: int = 0  # records that could not be delivered
    excluded: int = 0  # records of members who belong to no cohort (exclude_path)
    removals_waiting: int = 0  # until `confirm`
    removals_withheld: int = 0  # by the guard, or because the input is not complete
    plan_id: str | None = None  # names the plan that a person can confirm
    in_doubt: int = 0  # members of requests that were sent without an answer
    requests: int = 0  # requests started, retries included
    bytes: int = 0  # of their bodies
    complete: Proof = Proof.NO  # the proof that the input was complete
    ledger: t.Literal["created", "opened", "none"] = "none"  # by this run
    desired: MemberSet | None = None  # the members that the cohort should have, if known
    accepted: MemberSet | None = None  # those that MoEngage has accepted, if known


class AlertReport(msgspec.Struct, frozen=True):
    """An event for `notify_url`; one that was not sent waits for the next run."""

    event: str
    event_id: str
    streams: list[str]
    sent: bool


class ReportedError(msgspec.Struct, frozen=True):
    """The error that a run ended with."""

    code: str
    message: str


class Destination(msgspec.Struct, frozen=True):
    """Where requests go."""

    api_url: str
    workspace_id: str


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The results of a run or command; times are ISO 8601 in UTC."""

    run_id: str  # also in the rejects file
    version: str  # of this target
    started_at: str
    finished_at: str
    status: Status
    exit_code: int  # of the process
    error: ReportedError | None = None  # why it failed; none if it was interrupted
    warnings: tuple[LoggedWarning, ...] = ()  # in order
    destination: Destination | None = None  # none if the settings were refused
    partner: str | None = None  # likewise
    requests: int = 0  # requests started, retries included
    retries: int = 0
    throttled_seconds: float = 0.0  # how long the rate limit delayed requests
    alerts: Sequence[AlertReport] = ()  # events that waited for the webhook at the end
    cohorts: Sequence[CohortReport] = ()  # each cohort that was touched


class ReportHead(msgspec.Struct, frozen=True):
    """The part of a report that is known when a run or command begins."""

    run_id: str
    warnings: WarningLog
    settings: Settings | None = None  # none if they were refused
    started_at: str = msgspec.field(default_factory=utc_now)

    def report(
        self, status: Status, exit_code: int, error: TargetError | None, **results: t.Any
    ) -> Report:
        """Return the report of its end, which is now, with the results as `Report` has them."""
        settings = self.settings
        return Report(
            run_id=self.run_id,
            version=package_version(),
            started_at=self.started_at,
            finished_at=utc_now(),
            status=status,
            exit_code=exit_code,
            error=None if error is None else ReportedError(error.code, str(error)),
            warnings=self.warnings.collected,
            destination=Destination(settings.base_url, settings.workspace_id) if settings else None,
            partner=settings.partner if settings else None,
            **results,
        )


def cohort_status(cohort: SyncedCohort, status: Status) -> CohortStatus:
    """Return a cohort's status, given the run's status if nothing was withheld."""
    if isinstance(cohort.error, WithheldError) and status != "failed":
        return "withheld"
    if cohort.error is not None or cohort.result.is_incomplete or status == "failed":
        return "failed"
    if cohort.result.is_sealed:
        return "sealed"
    return "withheld" if cohort.result.is_withheld and status != "dry_run" else status


def report_cohort(
    cohort: SyncedCohort, counts: CohortCounts, proof: Proof, status: CohortStatus
) -> CohortReport:
    """Report the results of a run for one cohort, given the proof that its stream was complete."""
    result, differs = cohort.result, cohort.result.differs
    ledger_counts = _ledger_counts(cohort)
    unchanged = cohort.skipped + counts.merged
    if differs is not None:
        unchanged = differs.unchanged
    return CohortReport(
        cohort_id=cohort.cohort.cohort_id,
        cohort_name=cohort.cohort.name,
        stream=cohort.mapping.stream,
        sync_mode=cohort.mapping.sync_mode.value,
        status=status,
        records=cohort.records,
        added=counts.added,
        removed=counts.removed,
        unchanged=unchanged,
        rejected=cohort.rejected + counts.rejected,
        excluded=cohort.excluded,
        removals_waiting=result.removals_waiting,
        removals_withheld=result.removals_withheld,
        plan_id=result.plan_id,
        in_doubt=counts.in_doubt if ledger_counts is None else ledger_counts.in_doubt,
        requests=counts.requests,
        bytes=counts.bytes,
        complete=proof,
        ledger=_ledger_use(cohort),
        desired=None if differs is None else differs.desired,
        accepted=None if ledger_counts is None else ledger_counts.accepted,
    )


def report_unplaced(
    mapping: StreamMapping, count: int, proof: Proof, status: CohortStatus
) -> CohortReport:
    """Report the rejected rows of a stream that named no cohort."""
    return CohortReport(
        cohort_id=None,
        cohort_name=None,
        stream=mapping.stream,
        sync_mode=mapping.sync_mode.value,
        status=status,
        records=count,
        rejected=count,
        complete=proof,
    )


def report_missing(mapping: StreamMapping) -> CohortReport:
    """Report a configured stream of which the input had nothing."""
    cohort = mapping.cohort
    return CohortReport(
        cohort_id=None if cohort is None else cohort.cohort_id,
        cohort_name=None if cohort is None else cohort.name,
        stream=mapping.stream,
        sync_mode=mapping.sync_mode.value,
        status="no_input",
    )


def _ledger_counts(cohort: SyncedCohort) -> LedgerCounts | None:
    if cohort.ledger is not None:
        with contextlib.suppress(LedgerError):  # the run has failed with it already
            return cohort.ledger.numbers()
    return None


def _ledger_use(cohort: SyncedCohort) -> t.Literal["created", "opened", "none"]:
    ledger = cohort.ledger
    if ledger is None or not ledger.exists:
        return "none"
    return "created" if ledger.created else "opened"


def check(path: str, setting: str = "report_path") -> None:
    """Raise a `SettingsError` unless a report can be written, before there is any to report."""
    place = Path(path).resolve()
    fault = None
    if place.exists() and not place.is_file():
        fault = "is not a regular file; choose another file"
    elif not (place.parent.is_dir() and os.access(place.parent, os.W_OK | os.X_OK)):
        fault = "cannot be written; its directory must exist and be writable"
    if fault is not None:
        raise SettingsError("report_unwritable", f"{setting}: {path} {fault}")


def write(report: Report, path: str) -> None:
    """Write a report as JSON, all of it or nothing; to the target of a link, not in its place."""
    place = Path(path).resolve()
    unfinished = place.with_name(f"{place.name}.{os.getpid()}.tmp")
    data = msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n"
    try:
        replace(place, data, unfinished)
    except OSError as error:
        msg = (
            f"report_path: {path} cannot be written ({error.strerror}). Check that its directory "
            "is writable and its disk has free space. The changes were sent; the next run "
            "resumes after them"
        )
        raise SettingsError("report_unwritable", msg) from None
