"""`moengage-cohort history`: shows past runs and commands; changes nothing."""

from __future__ import annotations

import sys
import typing as t
from pathlib import Path

import click
import msgspec

from target_moengage_cohort.cli.history.history_figures import figures
from target_moengage_cohort.cli.history.history_messages import (
    Bookmarks,
    HistoryMessages,
    read_state,
)
from target_moengage_cohort.cli.history.history_page import document, plotting_script
from target_moengage_cohort.cli.moments import MOMENT, moment
from target_moengage_cohort.cli.new_files import new_file
from target_moengage_cohort.cli.session import Session, configured, show
from target_moengage_cohort.cli.terminal import example, require_utf8, wrap
from target_moengage_cohort.core.errors import SettingsError
from target_moengage_cohort.core.text import format_count, iso_utc, shorten
from target_moengage_cohort.sync.mirror.completeness import Proof

if t.TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from target_moengage_cohort.ledger.interface import LedgerStore
    from target_moengage_cohort.ledger.records import HistoryEntry

_NAME_WIDTH = 22
_HOST_WIDTH = 24
_PROOFS = {proof.value for proof in Proof if proof.is_proof}


@click.command(
    epilog=example(
        "moengage-cohort history --since 7d --config config.json",
        "moengage-cohort history --cohort vip --json --config config.json",
    )
)
@click.option(
    "--cohort", metavar="ID", callback=require_utf8, help="Show only entries of this cohort."
)
@click.option("--since", metavar="WHEN", help=f"Show only later entries: {MOMENT}.")
@click.option("--json", "as_json", is_flag=True, help="Output full details as JSON.")
@click.option(
    "--html",
    "html_path",
    type=click.Path(),
    metavar="FILE",
    help="Write an HTML page to a new file.",
)
@click.option("--singer", is_flag=True, help="Output Singer messages, to load with any target.")
@click.option(
    "--state",
    "state_path",
    type=click.Path(exists=True, dir_okay=False),
    help="With --singer: file with the last STATE of the previous output, or an empty file.",
)
@click.option(
    "--changes",
    is_flag=True,
    help="With --singer: also output the members added and removed (needs keep_changes_days).",
)
@configured
def history(
    session: Session,
    *,
    cohort: str | None,
    since: str | None,
    as_json: bool,
    html_path: str | None,
    singer: bool,
    state_path: str | None,
    changes: bool,
) -> None:
    """Show past runs and commands, newest first.

    The ledger keeps them for 400 days. Times are in UTC.
    """
    start = _start(since, session.clock())
    if singer and (as_json or html_path is not None or cohort is not None):
        msg = "--singer cannot be combined with --cohort, --json or --html"
        raise click.UsageError(msg)
    if html_path is not None and (as_json or cohort is not None):
        msg = "--html cannot be combined with --cohort or --json"
        raise click.UsageError(msg)
    if (state_path is not None or changes) and not singer:
        msg = "--state and --changes require --singer"
        raise click.UsageError(msg)
    if changes and session.settings.keep_changes_days is None:
        msg = "--changes requires keep_changes_days: set it, so that runs record changed members"
        raise SettingsError("changes_not_kept", msg)
    with session.ledgers(read_only=True, is_patient=False) as ledgers:
        ledgers.require()
        if singer:
            after = ledgers.changes_after if changes else None
            reader, written = ledgers.history_reader(), _written(state_path)
            messages = HistoryMessages(reader, session.settings, start, written, after)
            _write_messages(session, messages)
            return
        if html_path is not None:
            _write_page(session, ledgers, start, html_path)
            return
        entries = ledgers.history(start, cohort)
        is_known = cohort in {None, *(entry.cohort_id for entry in entries)}
        if cohort is not None and not (is_known or ledgers.has(cohort)):
            raise ledgers.unknown(cohort)
    show([*map(details, entries)], _lines(entries), as_json=as_json)


def _start(since: str | None, now: float) -> str:
    if since is None:
        return ""
    try:
        return iso_utc(moment(since, now))
    except (ValueError, OverflowError, OSError):
        msg = f"must be {MOMENT}"
        raise click.BadParameter(msg, param_hint="--since") from None


def _written(path: str | None) -> Bookmarks:
    if path is None:
        return Bookmarks()
    try:
        return read_state(Path(path).read_bytes()).bookmarks
    except ValueError:
        msg = f"{path!r} does not end with a STATE that this command wrote"
        raise click.BadParameter(msg, param_hint="--state") from None


def _write_page(session: Session, ledgers: LedgerStore, since: str, path: str) -> None:
    script, now, settings = plotting_script(), iso_utc(session.clock()), session.settings
    history, cohorts = ledgers.history_reader(), ledgers.entries()
    numbers = figures(history, cohorts, since, now, settings.requests_per_minute)
    with new_file("html", path) as file:
        file.write(document(script, numbers | {"title": settings.partner}))
    runs = format_count(sum(numbers["statuses"].values()), "run")
    click.echo(f"Wrote {path}: {runs}, {format_count(numbers['cohort_count'], 'cohort')}")


def _write_messages(session: Session, messages: Iterable[dict[str, t.Any]]) -> None:
    output = sys.stdout.buffer  # JSON is UTF-8, whatever the locale is
    for message in messages:
        output.write(msgspec.json.encode(message) + b"\n")
        if session.interrupt.is_set():
            break  # the records written so far stay; the next command writes the next STATE
    output.flush()


def details(entry: HistoryEntry) -> dict[str, t.Any]:
    """Return all that is known of a run or command."""
    return msgspec.structs.asdict(entry) | {"duration_seconds": entry.duration_seconds}


def _lines(entries: Sequence[HistoryEntry]) -> Iterator[str]:
    """Return a table within 80 columns."""
    if not entries:
        yield "No runs or commands."
        return
    yield _row("time (UTC)", "what", "cohort or stream", "status", "added", "removed")
    for entry in entries:
        numbers = ["-" if each is None else f"{each:,}" for each in (entry.added, entry.removed)]
        at = entry.at[:16].replace("T", " ")
        yield _row(at, entry.kind, _name(entry), entry.status, *numbers)
        if facts := [*_facts(entry)]:
            yield wrap("; ".join(facts), first="  ", indent="  ", break_words=False)


def _row(at: str, kind: str, name: str, status: str, added: str, removed: str) -> str:
    name = f"{shorten(name, _NAME_WIDTH):<{_NAME_WIDTH}}"
    return f"{at:<16} {kind:<8} {name} {status:<10} {added:>9} {removed:>9}"


def _name(entry: HistoryEntry) -> str:
    if (name := entry.cohort_id or entry.stream) is not None:
        return name
    if entry.cohorts:
        return format_count(entry.cohorts, "cohort")
    return format_count(len(entry.streams), "stream") if entry.streams else "-"


def _facts(entry: HistoryEntry) -> Iterator[str]:
    """Yield the facts that the row does not show; none for a run that sent nothing."""
    if entry.error is not None:
        yield f"{'error' if entry.kind == 'run' else 'reason'}: {entry.error}"
    if entry.kind != "run":
        yield from (f"{name.replace('_', ' ')} {count:,}" for name, count in entry.counts.items())
        yield f"by {shorten(entry.user, _HOST_WIDTH)} on {shorten(entry.host, _HOST_WIDTH)}"
        return
    if entry.complete in _PROOFS:
        yield f"proof: {entry.complete}"
    for count, noun, what in (
        (entry.removals_withheld, "removal", " withheld"),
        (entry.removals_waiting, "removal", " pending"),
        (entry.rejected, "row", " rejected"),
        (entry.in_doubt, "member", " unconfirmed"),
        (entry.requests or 0, "request", ""),
    ):
        if count:
            yield f"{format_count(count, noun)}{what}"
    if entry.requests and (seconds := entry.duration_seconds) is not None:
        yield f"{seconds:,.0f} s"
    if entry.throttled_seconds >= 1:
        yield f"throttled for {entry.throttled_seconds:,.0f} s"
    if entry.turnover_percent:
        yield f"turnover {entry.turnover_percent:,.1f}%"
    if entry.warnings:
        yield f"warnings: {', '.join(entry.warnings)}"
