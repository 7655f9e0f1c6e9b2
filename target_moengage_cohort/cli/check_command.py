"""`moengage-cohort check`: can a sync work, and what would it do; changes nothing."""

from __future__ import annotations

import logging
import textwrap
import typing as t
from functools import partial

import click
import msgspec

from target_moengage_cohort.cli.outlook import CohortSize, outlook
from target_moengage_cohort.cli.session import (
    DONE,
    FAILED,
    Session,
    coloured,
    complain,
    configured,
    example,
)
from target_moengage_cohort.core.errors import BusyError, SettingsError, TargetError
from target_moengage_cohort.core.files import try_out
from target_moengage_cohort.core.text import printable
from target_moengage_cohort.moengage.answers import login_verdict
from target_moengage_cohort.moengage.transport import Client
from target_moengage_cohort.settings.addresses import state_path
from target_moengage_cohort.sync import rejections as rejects
from target_moengage_cohort.sync import report

if t.TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from target_moengage_cohort.ledger import CohortEntry, Ledger, Ledgers
    from target_moengage_cohort.settings import Config, Mapping, Settings

_TIMEOUT_SECONDS = 15  # somebody waits at a prompt
_COLUMNS = 80
_LABEL_WIDTH = 10

logger = logging.getLogger(__name__)


@click.command(
    short_help="Say whether a sync can work, and what it would do.",
    epilog=example("moengage-cohort check --config config.json"),
)
@configured
def check(session: Session) -> int:
    """Say whether a sync can work, and what it would do; send no member, and change nothing.

    MoEngage is asked once whether the credentials are good, and the ledger's folder and the files
    that the settings name are tried. Then it is told what a run does, stream by stream. All that
    must be mended is told at once, and the exit code is 1 then.
    """
    checked = _Checked()
    for name, work in _steps(session.settings):
        checked.step(name, work)
    mappings = _mappings(session.loaded)
    held: dict[str, list[CohortSize] | None] = {mapping.stream: [] for mapping in mappings}
    with session.ledgers(read_only=True, is_patient=False) as ledgers:
        if _uses_ledgers(session.settings, mappings, ledgers):
            usable = checked.step("ledger", lambda: _ledger(ledgers))
            for mapping in mappings:
                held[mapping.stream] = _held(mapping, ledgers, checked) if usable else None
    for mapping in mappings:
        _tell(outlook(mapping, held[mapping.stream], session.settings))
    _tell(_limits(session.settings))
    for fault in dict.fromkeys(checked.faults):
        complain(fault)
    return FAILED if checked.faults else DONE


class _Checked:
    """What was checked so far.

    Attributes:
        faults: What must be mended.
    """

    def __init__(self) -> None:
        self.faults: list[str] = []

    def step(self, name: str, work: Callable[[], str]) -> bool:
        """Check one thing; say that it is fine, and what it is, or that it must be mended."""
        try:
            said = work()
        except TargetError as error:
            self.note(error)
            click.echo(f"{coloured('mend', 'red')}  {name}: see below")
            return False
        told = _wrapped(f"{name}: {printable(said)}", first="ok    ", then=" " * 6, keep=True)
        click.echo(told.replace("ok", coloured("ok", "green"), 1))
        return True

    def note(self, error: TargetError) -> None:
        """Keep what must be mended."""
        self.faults += map(str, error.faults if isinstance(error, SettingsError) else (error,))


def _steps(settings: Settings) -> Iterator[tuple[str, Callable[[], str]]]:
    """What is checked beside ledgers: its name, and what says where it is or raises an error."""
    yield "settings", lambda: "all rules are kept"
    yield "credentials", lambda: _credentials(settings)
    yield "state directory", _state_directory
    if settings.transforms_records:
        yield "stream maps", lambda: _stream_maps(settings)
    for name, test in (("rejects_path", rejects.check), ("report_path", report.check)):
        if isinstance(path := getattr(settings, name), str):
            yield name, partial(_file, path, test)


def _credentials(settings: Settings) -> str:
    seconds = min(settings.request_timeout_seconds, _TIMEOUT_SECONDS)
    answer = Client(msgspec.structs.replace(settings, request_timeout_seconds=seconds)).log_in()
    if (error := login_verdict(answer)) is not None:
        raise error
    workspace = f"the workspace {answer.app_name!r}" if answer.app_name else "the workspace"
    return f"{workspace} at {settings.base_url}"


def _state_directory() -> str:
    path = state_path()
    try:
        try_out(path)
    except OSError as error:
        msg = (
            f"the state directory {path} cannot be used ({error.strerror}); make it writable, or "
            "set XDG_STATE_HOME to another one"
        )
        raise SettingsError(msg) from None
    return str(path)


def _stream_maps(settings: Settings) -> str:
    from target_moengage_cohort.singer.stream_maps import SdkTransform  # noqa: PLC0415 - slow to import

    SdkTransform(settings, logger)
    return "the streams below are what they make"


def _file(path: str, test: Callable[[str], None]) -> str:
    test(path)
    return path


def _mappings(loaded: Config) -> list[Mapping]:
    """The streams' mappings; where every stream is a cohort by its own name, one for all."""
    return list(loaded.mappings.values()) or [
        msgspec.structs.replace(loaded.mapping("STREAM"), cohort=None)
    ]


def _uses_ledgers(settings: Settings, mappings: list[Mapping], ledgers: Ledgers) -> bool:
    needed = any(mapping.is_snapshot for mapping in mappings)
    return needed or settings.ledger_folder is not None or ledgers.exists


def _ledger(ledgers: Ledgers) -> str:
    ledgers.check()
    return f"{ledgers.folder}{'' if ledgers.exists else ' (the first run makes it)'}"


def _held(mapping: Mapping, ledgers: Ledgers, checked: _Checked) -> list[CohortSize] | None:
    """What the ledgers have of a stream's cohorts; ``None`` if they cannot be read."""
    found: list[CohortSize] = []
    cohort, faults = mapping.cohort, len(checked.faults)
    try:
        known = [each.cohort_id for each in ledgers.entries() if _is_fed(each, mapping)]
        for cohort_id in known:
            opened = partial(ledgers.open_known, cohort_id)
            if cohort is not None:  # which is refused if it is another stream's, or has a new name
                opened = partial(ledgers.open, cohort, mapping.stream)
            if (numbers := _numbers(cohort_id, opened, checked)) is not None:
                found.append(numbers)
    except TargetError as error:
        checked.note(error)
    return found if found or faults == len(checked.faults) else None


def _is_fed(entry: CohortEntry, mapping: Mapping) -> bool:
    if mapping.cohort is not None:
        return entry.cohort_id == mapping.cohort.cohort_id
    return mapping.cohort_id_column is None or entry.stream == mapping.stream


def _numbers(cohort_id: str, opened: Callable[[], Ledger], checked: _Checked) -> CohortSize | None:
    """What the ledger has of a cohort; ``None``, and a fault, if it cannot be read."""
    try:
        ledger = opened()
    except BusyError:  # by a run that will have ended when the next one starts
        return CohortSize(cohort_id=cohort_id)
    except TargetError as error:  # it must not hide the others'
        checked.note(error)
        return None
    try:
        members, is_sealed = ledger.numbers().base, ledger.is_sealed
        return CohortSize(cohort_id=cohort_id, members=members, is_sealed=is_sealed)
    finally:
        ledger.close()


def _limits(settings: Settings) -> Iterator[tuple[str, str]]:
    rate, size = settings.requests_per_minute, settings.max_payload_bytes
    count = settings.max_concurrency
    yield "", f"Requests: at most {rate:,} a minute, {size:,} bytes each, {count} at once"
    if settings.dry_run:
        yield "", "dry_run is set: a run sends nothing, and writes no STATE"


def _tell(lines: Iterator[tuple[str, str]]) -> None:
    """Show what is said of each thing, within 80 columns; first, and after a gap, of what."""
    click.echo()
    for label, said in lines:
        first = f"  {label:<{_LABEL_WIDTH}}" if label else ""
        click.echo(_wrapped(said, first=first, then=" " * max(len(first), 2)))


def _wrapped(text: str, *, first: str, then: str, keep: bool = False) -> str:
    """A text within 80 columns, unless words that are longer are to be kept, to be copied."""
    return textwrap.fill(
        text,
        _COLUMNS,
        initial_indent=first,
        subsequent_indent=then,
        break_on_hyphens=False,
        break_long_words=not keep,
    )
