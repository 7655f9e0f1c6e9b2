"""`moengage-cohort check`: validates the configuration and describes each sync; changes nothing."""

from __future__ import annotations

import typing as t
from functools import partial

import click
import msgspec

from target_moengage_cohort.cli.check import assumptions
from target_moengage_cohort.cli.check.cohort_findings import CohortFindings, find
from target_moengage_cohort.cli.check.column_trial import read_samples, try_columns
from target_moengage_cohort.cli.check.outlook import outlook
from target_moengage_cohort.cli.check.probe import probe
from target_moengage_cohort.cli.check.setting_checks import Checks, marked, setting_checks
from target_moengage_cohort.cli.session import DONE, FAILED, Session, configured, show
from target_moengage_cohort.cli.terminal import complain, example, wrap
from target_moengage_cohort.core.errors import SettingsError, TargetError
from target_moengage_cohort.core.text import format_count
from target_moengage_cohort.delivery.ports import Timing
from target_moengage_cohort.sync.process import record_mapper_of
from target_moengage_cohort.sync.segments.api_endpoints import opener
from target_moengage_cohort.sync.segments.segment_directory import SegmentDirectory
from target_moengage_cohort.sync.segments.segment_limit import warn_of_segments

if t.TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from target_moengage_cohort.cli.check.assumptions import Assumption
    from target_moengage_cohort.ledger.interface import LedgerStore
    from target_moengage_cohort.ledger.records import CohortEntry
    from target_moengage_cohort.settings import Settings, StreamMapping


@click.command(epilog=example("moengage-cohort check --config config.json"))
@click.option("--json", "as_json", is_flag=True, help="Output the results as JSON.")
@click.option(
    "--columns",
    "sample",
    type=click.Path(readable=False, allow_dash=True),
    metavar="FILE|-",
    help="Check the mapped columns against the tap's catalog, its output, or a row as a JSON "
    "object.",
)
@click.option(
    "--probe",
    "probes",
    is_flag=True,
    help="Test this project's assumptions about MoEngage's Segments and Analytics APIs.",
)
@configured
def check(session: Session, *, as_json: bool, sample: str | None, probes: bool) -> int:
    """Validate the configuration and describe each sync.

    Sends no members and changes nothing. Makes one request to MoEngage to check the credentials,
    and checks the ledger's directory and the configured files. With segments_api_key, a second
    request lists the segments. Then each stream's sync is described. All problems are reported in
    one pass; the exit code is 1 if there are any.

    With --probe, a few more requests test which assumptions about MoEngage hold. They change
    nothing, but two of them are queries that count toward the monthly quota.
    """
    checks = Checks()
    for name, work, text in setting_checks(session.settings):
        checks.run(name, work, text)
    # Without mappings, one description covers all streams.
    mappings = list(session.config.mappings.values()) or [
        msgspec.structs.replace(session.config.mapping("STREAM"), cohort_id=None)
    ]
    ledger, cohorts, found = _ledger_and_cohorts(session, mappings, checks, probes=probes)
    trials = None if sample is None else _try_columns(session, sample, checks)
    faults = [*checks.faults, *cohorts.faults]
    result = {
        "ok": not faults,
        "checks": checks.done,
        "ledger": ledger,
        "streams": [_stream(each, cohorts.entries[each.stream]) for each in mappings],
        "cohorts": cohorts.findings,
        "columns": trials,
        "probe": found and {"assumptions": found, "paste": assumptions.to_paste(found)},
    }
    lines = [*_lines(session.settings, result, mappings, cohorts), *assumptions.lines(found or ())]
    show(result, lines, as_json=as_json)
    for message in dict.fromkeys(map(str, faults)):
        complain(message)
    return FAILED if faults else DONE


def _lines(
    settings: Settings,
    result: dict[str, t.Any],
    mappings: Sequence[StreamMapping],
    cohorts: CohortFindings,
) -> Iterator[str]:
    """Yield the results as text, within 80 columns unless a word is longer."""
    for each in result["checks"]:
        yield marked("ok" if each.ok else "FAIL", f"{each.name}: {each.message}")
    if cohorts.findings:
        yield "\nCohorts that need attention:"
    for finding in cohorts.findings:
        text = finding.message.partition("; ")[0] if finding.is_error else finding.message
        yield marked("FAIL" if finding.is_error else "note", text)
    for mapping in mappings:
        yield from _section(outlook(mapping, cohorts.entries[mapping.stream], settings))
    yield from _section(_limits(settings))


def _stream(mapping: StreamMapping, entries: Sequence[CohortEntry] | None) -> dict[str, t.Any]:
    """Return a mapping for programs, with the members of its cohorts that are known."""
    cohort = mapping.cohort
    return {
        "stream": mapping.stream,
        "sync_mode": mapping.sync_mode,
        "cohort_id": cohort and cohort.cohort_id,
        "cohort_name": cohort and cohort.name,
        "columns": mapping.columns,
        "members": None
        if entries is None
        else {entry.cohort_id: entry.counts.base for entry in entries},
    }


def _try_columns(session: Session, path: str, checks: Checks) -> list[dict[str, t.Any]] | None:
    """Try the mapped columns on a sample, as a check for each stream."""
    try:
        mapper = record_mapper_of(session.settings)
        trials = try_columns(session.config, read_samples(path, session.config), mapper)
    except TargetError as error:
        checks.fail("columns", error)
        return None
    for trial in trials:
        name = f"columns of {trial.stream!r}"
        if trial.error is not None:
            checks.fail(name, trial.error)
            continue
        found = ", ".join(f"{role} {column!r}" for role, column in trial.columns.items())
        checks.run(name, lambda: None, f"{found}{'; one row was tested' if trial.had_row else ''}")
    return [trial.result() for trial in trials]


def _ledger_and_cohorts(
    session: Session, mappings: Sequence[StreamMapping], checks: Checks, *, probes: bool
) -> tuple[dict[str, str], CohortFindings, list[Assumption] | None]:
    """Return the ledger's place and state, what is known of the cohorts, and what was probed."""
    settings = session.settings
    has_key = settings.segments_api_key is not None
    with session.ledgers(read_only=True, is_patient=False) as ledgers:
        place = {"place": ledgers.place, "state": "unusable"}
        if not checks.run("ledger", partial(_ledger, ledgers)):
            return place, CohortFindings({each.stream: None for each in mappings}, [], []), None
        store = ledgers if ledgers.exists else None
        sending = opener(settings, session.wait, store, waits=False)
        directory = SegmentDirectory(sending if has_key else None)
        names = directory.names()
        if isinstance(directory.failure, SettingsError):  # others may pass
            checks.fail("segments", directory.failure)
        if names:
            checks.run("segments", lambda: f"MoEngage lists {format_count(len(names), 'segment')}")
        warn_of_segments(ledgers.count_cohorts(), len(names))
        place["state"] = "found" if ledgers.exists else "will_be_created"
        found = _probed(session, ledgers, checks) if probes else None
        return place, find(session.config, mappings, ledgers, names), found


def _probed(session: Session, ledgers: LedgerStore, checks: Checks) -> list[Assumption]:
    """Return what was probed; a key that MoEngage refuses fails a check."""
    probed = probe(session.settings, session.wait, ledgers, Timing(wall_clock=session.clock))
    known = {str(each) for each in checks.faults}
    for api, error in probed.refused:
        if str(error) not in known:
            checks.fail(api, error)
    return probed.assumptions


def _ledger(ledgers: LedgerStore) -> str:
    ledgers.check()
    return f"{ledgers.place} ({'found' if ledgers.exists else 'will be created by the first run'})"


def _limits(settings: Settings) -> Iterator[tuple[str, str]]:
    rate, size = settings.requests_per_minute, settings.max_payload_bytes
    count = settings.max_concurrency
    yield "", f"Requests: at most {rate:,} per minute, {size:,} bytes each, {count} concurrently"
    if settings.dry_run:
        yield "", "dry_run is set: a run sends nothing and writes no STATE"


def _section(lines: Iterator[tuple[str, str]]) -> Iterator[str]:
    """Yield an empty line, then labeled lines within 80 columns."""
    yield ""
    for label, text in lines:
        first = f"  {label:<10}" if label else ""
        yield wrap(text, first=first, indent=" " * max(len(first), 2))
