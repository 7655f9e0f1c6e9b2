"""`moengage-cohort status`: shows what the ledgers contain; changes nothing."""

from __future__ import annotations

import typing as t

import click
import msgspec

from target_moengage_cohort.cli.session import DONE, Session, configured
from target_moengage_cohort.cli.terminal import example, release_command
from target_moengage_cohort.core.text import format_count, iso_utc, shorten
from target_moengage_cohort.ledger.records import PlanKind, RunEntry, RunProgress

if t.TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from target_moengage_cohort.ledger.interface import LedgerStore
    from target_moengage_cohort.ledger.records import CohortEntry, Plan
    from target_moengage_cohort.settings import Config

_ID_WIDTH, _STREAM_WIDTH, _NAME_WIDTH, _HOST_WIDTH = 22, 17, 70, 24


class PlanStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A plan that was not delivered.

    Attributes:
        plan_id: The argument of `confirm --withheld`.
        made_at: ISO 8601 in UTC.
        desired: Members of the cohort afterwards.
        outdated: Whether the cohort has changed since, so that it cannot be delivered.
    """

    plan_id: str
    made_at: str
    additions: int
    removals: int
    desired: int
    outdated: bool


class CohortStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A cohort, with its numbers as of the last fold.

    Attributes:
        fed: Whether the configuration has that stream; ``None`` without mappings.
        busy: Whether a run is at work on its stream.
        settled: Whether every request was answered.
        accepted: Members that MoEngage has accepted.
        in_doubt: Members whose last request got no answer.
        unfolded: Requests since, which the numbers do not contain yet.
        digest: Of the accepted members.
        sealed: Whether it is finished, as a one_time cohort.
        retired: Whether it was retired; only --json shows it then.
        last_run: The latest run that touched it.
        waiting: Plans that wait for `confirm`.
        withheld: Plans that the guard withholds.
    """

    cohort_id: str
    cohort_name: str
    stream: str
    fed: bool | None
    busy: bool
    settled: bool
    accepted: int
    in_doubt: int
    unfolded: int
    digest: str
    sealed: bool
    retired: bool
    last_run: RunEntry | None
    waiting: list[PlanStatus]
    withheld: list[PlanStatus]


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """The directory of a destination's ledgers, its partner's cohorts, and the runs in progress."""

    ledger: str
    cohorts: list[CohortStatus]
    runs: list[RunProgress]


@click.command(epilog=example("moengage-cohort status --config config.json"))
@click.option("--json", "as_json", is_flag=True, help="Output full details as JSON.")
@configured
def status(session: Session, *, as_json: bool) -> int:
    """Show accepted members, pending and withheld changes.

    Accepted does not mean matched: MoEngage skips unknown users, and cannot list a cohort.
    """
    with session.ledgers(read_only=True) as ledgers:
        plans, runs = ledgers.plans(), ledgers.runs_under_way()
        cohorts = [
            _cohort(ledgers, entry, plans.get(entry.number, []), session.config)
            for entry in ledgers.entries()
        ]
        busy = {stream for run in runs for stream in run.streams}
        cohorts = [msgspec.structs.replace(each, busy=each.stream in busy) for each in cohorts]
        result = Status(ledger=ledgers.place, cohorts=cohorts, runs=runs)
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(result), indent=2))
    else:
        click.echo("\n".join(_lines(result, session.settings.partner)))
    return DONE


def _cohort(
    ledgers: LedgerStore, entry: CohortEntry, plans: Sequence[Plan], config: Config
) -> CohortStatus:
    def of_kind(kind: PlanKind) -> list[PlanStatus]:
        return [_plan(ledgers, entry, plan) for plan in plans if plan.kind is kind]

    return CohortStatus(
        cohort_id=entry.cohort_id,
        cohort_name=entry.name,
        stream=entry.stream,
        fed=_is_fed(entry, config),
        busy=False,
        settled=entry.is_settled,
        accepted=entry.counts.accepted.count,
        in_doubt=entry.counts.in_doubt,
        unfolded=entry.unfolded,
        digest=entry.counts.accepted.digest,
        sealed=entry.is_sealed,
        retired=entry.is_retired,
        last_run=entry.last_run,
        waiting=of_kind(PlanKind.WAITING),
        withheld=of_kind(PlanKind.WITHHELD),
    )


def _is_fed(entry: CohortEntry, config: Config) -> bool | None:
    if not config.mappings:
        return None
    if (mapping := config.mappings.get(entry.stream)) is None:
        return False
    return mapping.cohort is None or mapping.cohort.cohort_id == entry.cohort_id


def _plan(ledgers: LedgerStore, entry: CohortEntry, plan: Plan) -> PlanStatus:
    return PlanStatus(
        plan_id=plan.plan_id,
        made_at=iso_utc(plan.made_at, "seconds"),
        additions=plan.additions,
        removals=plan.removals,
        desired=plan.desired,
        outdated=plan.revision != entry.revision or ledgers.is_void(plan),
    )


def _lines(result: Status, partner: str) -> Iterator[str]:
    """Return the status as text, within 80 columns unless a path or an error is longer."""
    yield f"Ledger: {result.ledger}"
    cohorts = [cohort for cohort in result.cohorts if not cohort.retired]
    if not result.cohorts:
        yield f"No ledgers for partner {partner!r}."
    elif cohorts:
        yield f"\n{_row('cohort', 'stream', 'accepted', 'in doubt', 'last run')}"
    for cohort in cohorts:
        yield from _cohort_lines(cohort)
    if retired := len(result.cohorts) - len(cohorts):
        yield f"{format_count(retired, 'retired cohort')}: see --json"
    for run in result.runs:
        yield (
            f"In progress: run {run.run_id}\n"
            f"  process {run.pid} on {shorten(run.host, _HOST_WIDTH)}, since {run.started_at}\n"
            f"  {run.records:,} records read, {run.accepted:,} members accepted, "
            f"{format_count(run.requests, 'request')}"
        )


def _row(cohort_id: str, stream: str, accepted: str, in_doubt: str, last_run: str) -> str:
    names = f"{shorten(cohort_id, _ID_WIDTH):<{_ID_WIDTH}} "
    names += f"{shorten(stream, _STREAM_WIDTH):<{_STREAM_WIDTH}}"
    return f"{names} {accepted:>12} {in_doubt:>9} {last_run:<16}".rstrip()


def _cohort_lines(cohort: CohortStatus) -> Iterator[str]:
    run = cohort.last_run
    accepted, in_doubt = f"{cohort.accepted:,}", f"{cohort.in_doubt:,}"
    finished_at = "-" if run is None else run.finished_at[:16].replace("T", " ")
    yield _row(cohort.cohort_id, cohort.stream, accepted, in_doubt, finished_at)
    if cohort.cohort_name != cohort.cohort_id:
        yield f"  name: {shorten(cohort.cohort_name, _NAME_WIDTH)}"
    if run is not None:
        changes = f"{run.added:,} added, {run.removed:,} removed"
        yield f"  last run: {run.status}, {run.sync_mode}, {changes}"
    if cohort.unfolded:
        requests = format_count(cohort.unfolded, "later request")
        yield f"  as of the last fold; {requests} not counted yet"
    yield f"  digest: {cohort.digest}"
    if cohort.fed is False:
        yield "  no stream populates it (see `cohorts` in the configuration)"
    if cohort.sealed:
        yield "  sealed: no run sends anything more"
    for plan in cohort.waiting:
        yield f"  pending: {_plan_text(plan)}"
    for plan in cohort.withheld:
        yield f"  withheld: {_plan_text(plan)}"
        release = f"to send it: {release_command(plan.plan_id)}"
        yield f"    {'run its stream again' if plan.outdated else release}"


def _plan_text(plan: PlanStatus) -> str:
    additions = format_count(plan.additions, "addition")
    removals = format_count(plan.removals, "removal")
    return f"{plan.plan_id}, {additions}, {removals}{', outdated' if plan.outdated else ''}"
