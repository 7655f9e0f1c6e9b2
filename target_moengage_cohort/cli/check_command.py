"""`moengage-cohort check`: validates the configuration and describes each sync; changes nothing."""

from __future__ import annotations

import typing as t
from functools import partial

import click
import msgspec

from target_moengage_cohort.cli.outlook import outlook
from target_moengage_cohort.cli.session import DONE, FAILED, Session, configured
from target_moengage_cohort.cli.terminal import coloured, complain, example, wrap
from target_moengage_cohort.core.errors import BusyError, RowError, SettingsError, TargetError
from target_moengage_cohort.core.files import try_out
from target_moengage_cohort.core.text import printable
from target_moengage_cohort.moengage.answers import login_error
from target_moengage_cohort.moengage.transport import Transport
from target_moengage_cohort.settings.addresses import state_path
from target_moengage_cohort.singer.writer import check_rejects_path
from target_moengage_cohort.sync import report
from target_moengage_cohort.sync.process import record_mapper_of
from target_moengage_cohort.sync.segment_limit import warn_of_segments

if t.TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from target_moengage_cohort.ledger.interface import LedgerStore
    from target_moengage_cohort.ledger.records import CohortEntry
    from target_moengage_cohort.settings import Settings, StreamMapping

_TIMEOUT_SECONDS = 15  # a person waits at the prompt


@click.command(epilog=example("moengage-cohort check --config config.json"))
@configured
def check(session: Session) -> int:
    """Validate the configuration and describe each sync.

    Sends no member and changes nothing. Makes one request to MoEngage to check the credentials,
    and tries the ledger's directory and the files in the settings. Then each stream's sync is
    described. All problems are reported in one pass; the exit code is 1 if there are any.
    """
    checks = _Checks()
    for name, work, text in _steps(session.settings):
        checks.run(name, work, text)
    # Without mappings one describes all streams.
    mappings = list(session.config.mappings.values()) or [
        msgspec.structs.replace(session.config.mapping("STREAM"), cohort_id=None)
    ]
    entries = _entries_by_stream(session, mappings, checks)
    for mapping in mappings:
        _print_section(outlook(mapping, entries[mapping.stream], session.settings))
    _print_section(_limits(session.settings))
    for message in dict.fromkeys(map(str, checks.faults)):
        complain(message)
    return FAILED if checks.faults else DONE


class _Checks:
    """Runs checks, and collects all faults instead of stopping at the first one."""

    def __init__(self) -> None:
        self.faults: list[TargetError] = []

    def run(self, name: str, work: Callable[[], object], text: str | None = None) -> bool:
        """Run one check; print a text, its result or its error; return whether it passed."""
        try:
            result = work()
            mark, colour, result = "ok", "green", text or str(result)
        except TargetError as error:
            self.faults += error.faults
            mark, colour, result = "FAIL", "red", str(error)
        line = f"{name}: {printable(result)}"
        line = wrap(line, first=f"{mark:<6}", indent=" " * 6, break_words=False)
        click.echo(line.replace(mark, coloured(mark, colour), 1))
        return mark == "ok"


def _steps(settings: Settings) -> Iterator[tuple[str, Callable[[], object], str | None]]:
    """Return all checks but that of the ledger, for `_Checks.run`."""
    yield "settings", lambda: None, "valid"
    yield "credentials", partial(_credentials, settings), None
    yield "state directory", _state_directory, None
    if settings.transforms_records:
        text = "valid; the streams below are their output"
        yield "stream maps", partial(record_mapper_of, settings), text
    if (path := settings.rejects_path) is not None:
        yield "rejects_path", partial(check_rejects_path, path), path
    if (path := settings.report_path) is not None:
        yield "report_path", partial(report.check, path), path


def _credentials(settings: Settings) -> str:
    seconds = min(settings.request_timeout_seconds, _TIMEOUT_SECONDS)
    answer = Transport(msgspec.structs.replace(settings, request_timeout_seconds=seconds)).log_in()
    if (error := login_error(answer)) is not None:
        raise error
    workspace = f"workspace {answer.app_name!r}" if answer.app_name else "accepted"
    return f"{workspace} at {settings.base_url}"


def _state_directory() -> str:
    path = state_path()
    try:
        try_out(path)
    except OSError as error:
        msg = (
            f"the state directory {path} cannot be used ({error.strerror}); make it writable, or "
            "set XDG_STATE_HOME to another directory"
        )
        raise SettingsError("state_directory_unusable", msg) from None
    return str(path)


def _entries_by_stream(
    session: Session, mappings: Sequence[StreamMapping], checks: _Checks
) -> dict[str, list[CohortEntry] | None]:
    """Return each stream's cohorts that have a ledger; ``None`` if it cannot be used."""
    with session.ledgers(read_only=True, is_patient=False) as ledgers:
        usable = checks.run("ledger", partial(_ledger, ledgers))
        if usable:
            warn_of_segments(ledgers.count_cohorts())
        return {
            mapping.stream: _entries(mapping, ledgers, checks) if usable else None
            for mapping in mappings
        }


def _ledger(ledgers: LedgerStore) -> str:
    ledgers.check()
    return f"{ledgers.place} ({'found' if ledgers.exists else 'will be created by the first run'})"


def _entries(
    mapping: StreamMapping, ledgers: LedgerStore, checks: _Checks
) -> list[CohortEntry] | None:
    try:
        entries = ledgers.entries()
        if (cohort := mapping.cohort) is not None:
            entries = [each for each in entries if each.cohort_id == cohort.cohort_id]
            if entries:  # refused if the ledger is another stream's, or has a new name
                has_members = entries[0].has_members
                opened = ledgers.open if has_members else ledgers.open_without_members
                opened(cohort, mapping.stream)
        elif mapping.cohort_id_column is not None:
            entries = [each for each in entries if each.stream == mapping.stream]
    except BusyError:  # another run, which will have ended before the next one starts
        pass
    except RowError as error:
        checks.faults.append(SettingsError(error.code, f"cohorts.{mapping.stream}: {error.reason}"))
        return None
    except TargetError as error:
        checks.faults += error.faults
        return None
    return [entry for entry in entries if entry.has_members and not entry.is_retired]


def _limits(settings: Settings) -> Iterator[tuple[str, str]]:
    rate, size = settings.requests_per_minute, settings.max_payload_bytes
    count = settings.max_concurrency
    yield "", f"Requests: at most {rate:,} per minute, {size:,} bytes each, {count} concurrently"
    if settings.dry_run:
        yield "", "dry_run is set: a run sends nothing and writes no STATE"


def _print_section(lines: Iterator[tuple[str, str]]) -> None:
    """Print an empty line, then labelled lines within 80 columns."""
    click.echo()
    for label, text in lines:
        first = f"  {label:<10}" if label else ""
        click.echo(wrap(text, first=first, indent=" " * max(len(first), 2)))
