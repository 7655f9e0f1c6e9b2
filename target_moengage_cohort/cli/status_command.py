"""`moengage-cohort status`: what the ledger knows; changes nothing."""

from __future__ import annotations

import typing as t
from datetime import UTC, datetime

import click
import msgspec

from target_moengage_cohort.cli.session import DONE, FAILED, Session, configured, example
from target_moengage_cohort.core.errors import BusyError, TargetError
from target_moengage_cohort.core.text import format_count, printable
from target_moengage_cohort.ledger import PlanKind, RunEntry, RunProgress, runs_under_way

if t.TYPE_CHECKING:
    from target_moengage_cohort.ledger import CohortEntry, Ledger, Ledgers, Plan
    from target_moengage_cohort.settings import Config

_ID_WIDTH, _STREAM_WIDTH = 22, 17


class PlanStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A plan that was not carried out.

    Attributes:
        plan_id: What a person confirms.
        made_at: ISO 8601 in UTC.
        additions: How many members it adds.
        removals: How many it removes.
        desired: How many the cohort is to have afterwards.
        outdated: Whether the cohort has changed since, so that it cannot be carried out.
    """

    plan_id: str
    made_at: str
    additions: int
    removals: int
    desired: int
    outdated: bool


class CohortStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a cohort; of one that is busy or broken, what stands in the catalogue.

    Attributes:
        cohort_id: Its id.
        cohort_name: Its name.
        stream: The stream that feeds it.
        fed: Whether the configuration has that stream; ``None`` where every stream is a cohort.
        busy: Whether another process has its ledger.
        fault: Why its ledger cannot be read, if it cannot.
        settled: Whether every request was answered.
        accepted: How many members MoEngage has accepted.
        in_doubt: How many members nobody knows the answer for.
        digest: Of the accepted members.
        sealed: Whether it is finished, as a one_time cohort.
        last_run: The latest run that touched it.
        waiting: What waits for `confirm`.
        withheld: What the guard holds back.
    """

    cohort_id: str
    cohort_name: str
    stream: str
    fed: bool | None
    busy: bool = False
    fault: str | None = None
    settled: bool
    accepted: int | None = None
    in_doubt: int | None = None
    digest: str | None = None
    sealed: bool | None = None
    last_run: RunEntry | None = None
    waiting: list[PlanStatus] | None = None
    withheld: list[PlanStatus] | None = None


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """What the ledgers of one destination know.

    Attributes:
        ledger: The folder.
        cohorts: The cohorts of the configured partner.
        runs: The runs under way.
    """

    ledger: str
    cohorts: list[CohortStatus]
    runs: list[RunProgress]


@click.command(
    short_help="Tell what was accepted, what waits and what is withheld.",
    epilog=example("moengage-cohort status --config config.json"),
)
@click.option("--json", "as_json", is_flag=True, help="Everything, for programs.")
@configured
def status(session: Session, *, as_json: bool) -> int:
    """Tell what MoEngage has accepted, what waits and what is withheld.

    Accepted is not matched: MoEngage skips users whom it does not know, and cannot be asked.
    """
    with session.ledgers(read_only=True, is_patient=False) as ledgers:
        found = Status(
            ledger=str(ledgers.folder),
            cohorts=[_cohort(ledgers, entry, session.loaded) for entry in ledgers.entries()],
            runs=runs_under_way(ledgers.folder),
        )
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(found), indent=2))
    else:
        click.echo("\n".join(_lines(found)))
    return FAILED if any(cohort.fault is not None for cohort in found.cohorts) else DONE


def _cohort(ledgers: Ledgers, entry: CohortEntry, loaded: Config) -> CohortStatus:
    known = CohortStatus(
        cohort_id=entry.cohort_id,
        cohort_name=entry.name,
        stream=entry.stream,
        fed=_is_fed(entry, loaded),
        settled=entry.is_settled,
    )
    try:
        return _opened(ledgers, ledgers.open_known(entry.cohort_id), known)
    except BusyError:
        return msgspec.structs.replace(known, busy=True)
    except TargetError as error:  # it must not hide the others
        return msgspec.structs.replace(known, fault=str(error))


def _opened(ledgers: Ledgers, ledger: Ledger, known: CohortStatus) -> CohortStatus:
    try:
        numbers = ledger.numbers()
        return msgspec.structs.replace(
            known,
            accepted=numbers.accepted.count,
            in_doubt=numbers.in_doubt,
            digest=numbers.accepted.digest,
            sealed=ledger.is_sealed,
            last_run=next(iter(ledger.runs()), None),
            waiting=_plans(ledgers, ledger, PlanKind.WAITING),
            withheld=_plans(ledgers, ledger, PlanKind.WITHHELD),
        )
    finally:
        ledger.close()


def _is_fed(entry: CohortEntry, loaded: Config) -> bool | None:
    if not loaded.mappings:
        return None
    mapping = loaded.mappings.get(entry.stream)
    if mapping is None:
        return False
    return mapping.cohort is None or mapping.cohort.cohort_id == entry.cohort_id


def _plans(ledgers: Ledgers, ledger: Ledger, kind: PlanKind) -> list[PlanStatus]:
    return [
        PlanStatus(
            plan_id=plan.plan_id,
            made_at=_moment(plan),
            additions=plan.additions,
            removals=plan.removals,
            desired=plan.desired,
            outdated=plan.revision != ledger.revision or ledgers.is_void(plan),
        )
        for plan in ledger.plans()
        if plan.kind is kind
    ]


def _moment(plan: Plan) -> str:
    moment = datetime.fromtimestamp(plan.made_at, UTC)
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")


def _lines(found: Status) -> t.Iterator[str]:
    """The same for people, within 80 columns except for names that are longer."""
    yield f"Ledger: {found.ledger}"
    if not found.cohorts:
        yield "No cohort of this partner has one."
    else:
        yield ""
        yield (
            f"{'cohort':<{_ID_WIDTH}} {'stream':<{_STREAM_WIDTH}} {'accepted':>12} "
            f"{'in doubt':>9} {'last run':<16}"
        ).rstrip()
    for cohort in found.cohorts:
        yield from _cohort_lines(cohort)
    for run in found.runs:
        yield (
            f"Under way: run {run.run_id}\n"
            f"  process {run.pid} on {_shown(run.host, 24)}, since {run.started_at}\n"
            f"  {run.records:,} records read, {run.accepted:,} members accepted, "
            f"{run.requests:,} requests"
        )


def _cohort_lines(cohort: CohortStatus) -> t.Iterator[str]:
    run = cohort.last_run
    numbers = [
        "busy" if cohort.busy else "?" if number is None else f"{number:,}"
        for number in (cohort.accepted, cohort.in_doubt)
    ]
    yield (
        f"{_shown(cohort.cohort_id, _ID_WIDTH):<{_ID_WIDTH}} "
        f"{_shown(cohort.stream, _STREAM_WIDTH):<{_STREAM_WIDTH}} {numbers[0]:>12} "
        f"{numbers[1]:>9} {'-' if run is None else run.finished_at[:16].replace('T', ' '):<16}"
    ).rstrip()
    if cohort.cohort_name != cohort.cohort_id:
        yield f"  name: {_shown(cohort.cohort_name, 70)}"
    if run is not None:
        changed = f"{run.added:,} added, {run.removed:,} removed"
        yield f"  last run: {run.status}, {run.sync_mode}, {changed}"
    if cohort.fault is not None:
        yield f"  cannot be read: {cohort.fault}"
    if cohort.digest is not None:
        yield f"  digest: {cohort.digest}"
    if cohort.fed is False:
        yield "  no stream feeds it (see `cohorts` in the configuration)"
    if cohort.sealed:
        yield "  sealed: no run sends anything more"
    for plan in cohort.waiting or ():
        yield f"  waiting: {_told(plan)}"
    for plan in cohort.withheld or ():
        yield f"  withheld: {_told(plan)}"
        if plan.outdated:
            yield "    run its stream again"
        else:
            command = f"moengage-cohort confirm --withheld {plan.plan_id} --config …"
            yield f"    if it is right: {command}"


def _told(plan: PlanStatus) -> str:
    changes = (
        f"{format_count(plan.additions, 'addition')}, {format_count(plan.removals, 'removal')}"
    )
    return f"{plan.plan_id}, {changes}{', outdated' if plan.outdated else ''}"


def _shown(text: str, width: int) -> str:
    text = printable(text)
    return text if len(text) <= width else text[: width - 3] + "..."
