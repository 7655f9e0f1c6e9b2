"""`moengage-cohort status`: shows what the ledgers contain; changes nothing."""

from __future__ import annotations

import typing as t

import click

from target_moengage_cohort.cli.freshness_check import Span, check_freshness
from target_moengage_cohort.cli.new_files import member_file
from target_moengage_cohort.cli.session import Session, configured, show
from target_moengage_cohort.cli.terminal import example, release_command, require_utf8
from target_moengage_cohort.cli.withheld_plans import find_withheld
from target_moengage_cohort.core.commands import suggest
from target_moengage_cohort.core.membership import Action
from target_moengage_cohort.core.text import (
    format_age,
    format_count,
    iso_utc,
    printable,
    shorten,
)
from target_moengage_cohort.ledger.records import Approval, CohortEntry, Pause, Plan, PlanKind

if t.TYPE_CHECKING:
    from collections.abc import Iterator

    from target_moengage_cohort.ledger.interface import LedgerStore
    from target_moengage_cohort.settings import Config

_REASONS = ("withheld", "paused", "failed", "waiting", "in_doubt", "orphan")
"""Why a cohort needs attention, the most urgent reason first."""
_ID_WIDTH, _STREAM_WIDTH, _NAME_WIDTH, _HOST_WIDTH = 22, 17, 70, 24


@click.command(epilog=example("moengage-cohort status --config config.json"))
@click.argument("cohorts", callback=require_utf8, nargs=-1, metavar="[COHORT]...")
@click.option("--json", "as_json", is_flag=True, help="Output full details as JSON.")
@click.option(
    "--max-age",
    type=Span(),
    help="Print one line, and exit with 6 unless each COHORT (default: all) was synced within this "
    "time.",
)
@click.option(
    "--withheld",
    callback=require_utf8,
    metavar="PLAN_ID",
    help="With --members: the withheld plan.",
)
@click.option(
    "--members",
    "members_path",
    type=click.Path(),
    metavar="FILE",
    help="With --withheld: write the members that the plan adds and removes to a new CSV file.",
)
@configured
def status(
    session: Session,
    cohorts: tuple[str, ...],
    *,
    as_json: bool,
    max_age: int | None,
    withheld: str | None,
    members_path: str | None,
) -> int | None:
    """Show accepted members, pending and withheld changes.

    Accepted does not mean matched: MoEngage silently skips users it does not know, and its API
    cannot list a cohort's members.
    """
    if withheld is not None or members_path is not None:
        if withheld is None or members_path is None or as_json or max_age is not None or cohorts:
            msg = "--withheld and --members require each other, and allow no COHORT or other option"
            raise click.UsageError(msg)
        _write_members(session, withheld, members_path)
        return None
    if max_age is not None:
        return check_freshness(session, cohorts, max_age, as_json=as_json)
    if cohorts:
        msg = "COHORT requires --max-age"
        raise click.UsageError(msg)
    _show_all(session, as_json=as_json)
    return None


def _show_all(session: Session, *, as_json: bool) -> None:
    with session.ledgers(read_only=True, is_patient=False) as ledgers:
        plans, approvals = ledgers.plans(), ledgers.approvals()
        runs = ledgers.runs_under_way()
        busy = {stream for run in runs for stream in run.streams}
        pauses = ledgers.pauses()
        paused = {each.stream for each in pauses}
        cohorts = [
            _cohort(entry, session.config, is_busy=entry.stream in busy)
            | _plans(ledgers, entry, plans.get(entry.number, []), session.clock())
            | {"approval": _approval(approvals.get(entry.number))}
            | {"paused": not paused.isdisjoint({None, entry.stream})}
            for entry in ledgers.entries()
        ]
        for cohort in cohorts:
            cohort["attention"] = _attention(cohort)
        result = {"ledger": ledgers.place, "cohorts": cohorts, "runs": runs}
        result["paused"] = [_pause(each) for each in pauses]
    show(result, _lines(result, session.settings.partner), as_json=as_json)


def _write_members(session: Session, plan_id: str, path: str) -> None:
    with session.ledgers(read_only=True) as ledgers:
        ledgers.require()
        entry, _ = find_withheld(ledgers, plan_id)
        cohort_id = entry.cohort_id
        ledger = ledgers.open_known(cohort_id)
        with member_file(path) as file:
            for action in (Action.REMOVE, Action.ADD):
                for members in ledger.plan_members(plan_id, action):
                    session.check_interrupt()
                    file.write_members(cohort_id, action, members)
    click.echo(f"Wrote {format_count(file.rows, 'member')} of cohort {cohort_id!r} to {path}")


def _cohort(entry: CohortEntry, config: Config, *, is_busy: bool) -> dict[str, t.Any]:
    """Return a cohort with its numbers as of the last fold."""
    mapping = config.mappings.get(entry.stream)
    is_fed = mapping is not None and (
        mapping.cohort is None or mapping.cohort.cohort_id == entry.cohort_id
    )
    return {
        "cohort_id": entry.cohort_id,
        "cohort_name": entry.name,
        "stream": entry.stream,
        "fed": is_fed if config.mappings else None,  # whether the configuration has its stream
        "busy": is_busy,  # a run is using its stream
        "settled": entry.is_settled,  # every request was answered
        # None if the members are not kept
        "accepted": entry.counts.accepted.count if entry.has_members else None,
        "in_doubt": entry.counts.in_doubt,
        "unfolded": entry.unfolded,  # requests that the numbers do not include yet
        "digest": entry.counts.accepted.digest if entry.has_members else None,
        "sealed": entry.is_sealed,
        "retired": entry.is_retired,  # shown here only
        "last_run": entry.last_run,
    }


def _attention(cohort: dict[str, t.Any]) -> list[str]:
    """Return why a cohort needs attention, the most urgent reason first."""
    if cohort["retired"] or cohort["sealed"]:
        return []
    run = cohort["last_run"]
    reasons = {
        "paused": cohort["paused"],
        "withheld": any(not plan["outdated"] for plan in cohort["withheld"]),
        "failed": run is not None and run.status == "failed",
        "waiting": any(not plan["outdated"] for plan in cohort["waiting"]),
        "in_doubt": cohort["in_doubt"] > 0 and not cohort["busy"],
        "orphan": cohort["fed"] is False,
    }
    return [reason for reason in _REASONS if reasons[reason]]


def _pause(pause: Pause) -> dict[str, t.Any]:
    return {
        "stream": pause.stream,  # None for all streams
        "paused_at": iso_utc(pause.paused_at, "seconds"),
        "paused_by": pause.paused_by,
        "host": pause.host,
    }


def _approval(approval: Approval | None) -> dict[str, t.Any] | None:
    if approval is None:
        return None
    return {
        "plan_id": approval.plan_id,
        "approved_by": approval.approved_by,
        "expires_at": iso_utc(approval.expires_at, "seconds"),
    }


def _plans(
    ledgers: LedgerStore, entry: CohortEntry, plans: list[Plan], now: float
) -> dict[str, t.Any]:
    """Return the plans of a cohort that were not delivered, by their kind."""
    result: dict[str, t.Any] = {kind.value: [] for kind in PlanKind}
    for plan in plans:
        result[plan.kind.value].append(
            {
                "plan_id": plan.plan_id,
                "made_at": iso_utc(plan.made_at, "seconds"),
                "age_seconds": max(0, int(now - plan.made_at)),
                "additions": plan.additions,
                "removals": plan.removals,
                "desired": plan.desired,  # members afterwards
                "outdated": plan.revision != entry.revision or ledgers.is_void(plan),
            }
        )
    return result


def _lines(result: dict[str, t.Any], partner: str) -> Iterator[str]:
    """Return the status as text, within 80 columns unless a path or a name to copy is longer."""
    yield f"Ledger: {result['ledger']}"
    for pause in result["paused"]:
        since = pause["paused_at"][:16].replace("T", " ")
        what = "all streams" if pause["stream"] is None else f"stream {pause['stream']!r}"
        yield f"Paused: {what}"
        yield f"  since {since} UTC by {shorten(pause['paused_by'], _HOST_WIDTH)} on " + shorten(
            pause["host"], _HOST_WIDTH
        )
        yield f"  to end the pause: {suggest('resume', pause['stream'] or '')}"
    cohorts = [cohort for cohort in result["cohorts"] if not cohort["retired"]]
    if not result["cohorts"]:
        yield f"No ledgers for partner {partner!r}."
    elif cohorts:
        urgent = sum(bool(cohort["attention"]) for cohort in cohorts)
        if urgent:
            verb = "needs" if urgent == 1 else "need"
            yield f"{urgent:,} of {format_count(len(cohorts), 'cohort')} {verb} attention:"
        yield f"\n{_row('cohort', 'stream', 'accepted', 'unconfirmed', 'last run (UTC)')}"
    for cohort in sorted(cohorts, key=_urgency):
        yield from _cohort_lines(cohort)
    if retired := len(result["cohorts"]) - len(cohorts):
        yield f"{format_count(retired, 'retired cohort')}: see --json"
    for run in result["runs"]:
        yield (
            f"In progress: run {run.run_id}\n"
            f"  process {run.pid} on {shorten(run.host, _HOST_WIDTH)}, since {run.started_at}\n"
            f"  {run.records:,} records read, {run.accepted:,} members accepted, "
            f"{format_count(run.requests, 'request')}"
        )


def _urgency(cohort: dict[str, t.Any]) -> int:
    """Return a number by which cohorts that need attention come first."""
    return min(map(_REASONS.index, cohort["attention"]), default=len(_REASONS))


def _row(cohort_id: str, stream: str, accepted: str, in_doubt: str, last_run: str) -> str:
    names = f"{shorten(cohort_id, _ID_WIDTH):<{_ID_WIDTH}} "
    names += f"{shorten(stream, _STREAM_WIDTH):<{_STREAM_WIDTH}}"
    return f"{names} {accepted:>10} {in_doubt:>11} {last_run:<16}".rstrip()


def _cohort_lines(cohort: dict[str, t.Any]) -> Iterator[str]:
    run = cohort["last_run"]
    accepted, in_doubt = "-", "-"
    if has_members := cohort["accepted"] is not None:
        accepted, in_doubt = f"{cohort['accepted']:,}", f"{cohort['in_doubt']:,}"
    finished_at = "-" if run is None else run.finished_at[:16].replace("T", " ")
    yield _row(cohort["cohort_id"], cohort["stream"], accepted, in_doubt, finished_at)
    yield from _names(cohort)
    if run is not None:
        changes = f"{run.added:,} added, {run.removed:,} removed"
        yield f"  last run: {run.status}, {run.sync_mode}, {changes}"
    if cohort["unfolded"]:
        requests = format_count(cohort["unfolded"], "later request")
        yield f"  {requests} not counted yet"
    no_digest = "  members are not kept (see ledger_uri)"
    yield f"  digest: {cohort['digest']}" if has_members else no_digest
    if cohort["fed"] is False:
        yield "  no stream populates it (see `cohorts` in the configuration)"
    if cohort["sealed"]:
        yield "  finished: no run sends anything more"
    yield from _plan_lines(cohort)


def _names(cohort: dict[str, t.Any]) -> Iterator[str]:
    """Return the names that the table does not show, or not in full."""
    for key, label, width in (("cohort_id", "id", _ID_WIDTH), ("stream", "stream", _STREAM_WIDTH)):
        if len(name := printable(cohort[key])) > width:  # in full, to copy
            yield f"  {label}: {name}"
    if cohort["cohort_name"] != cohort["cohort_id"]:
        yield f"  name: {shorten(cohort['cohort_name'], _NAME_WIDTH)}"


def _plan_lines(cohort: dict[str, t.Any]) -> Iterator[str]:
    for kind, label in ((PlanKind.WAITING, "pending"), (PlanKind.WITHHELD, "withheld")):
        for plan in cohort[kind]:
            additions = format_count(plan["additions"], "addition")
            removals = format_count(plan["removals"], "removal")
            age = format_age(plan["age_seconds"])
            outdated = ", outdated" if plan["outdated"] else ""
            yield f"  {label}: {plan['plan_id']}, {additions}, {removals}, {age}{outdated}"
            if kind is PlanKind.WITHHELD:
                action = "approve its removals for the next run" if outdated else "send it"
                yield f"    to {action}: {release_command(plan['plan_id'])}"
    if (approval := cohort["approval"]) is not None:
        until = approval["expires_at"][:16].replace("T", " ")
        yield f"  approved: the removals of plan {approval['plan_id']}, for the next run"
        yield f"    by {shorten(approval['approved_by'], _HOST_WIDTH)}, until {until} UTC"
