"""The checks of settings, credentials and files, and how their results are shown."""

from __future__ import annotations

import typing as t
from functools import partial

import msgspec

from target_moengage_cohort.cli.terminal import colored, wrap
from target_moengage_cohort.core.errors import SettingsError, TargetError
from target_moengage_cohort.core.files import try_out
from target_moengage_cohort.core.text import printable
from target_moengage_cohort.moengage.answers import login_error
from target_moengage_cohort.moengage.transport import Transport
from target_moengage_cohort.settings.addresses import state_path
from target_moengage_cohort.singer.writer import check_rejects_path
from target_moengage_cohort.sync.exclusions import Exclusions
from target_moengage_cohort.sync.process import record_mapper_of
from target_moengage_cohort.sync.reporting import report

if t.TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from target_moengage_cohort.settings import Settings

_TIMEOUT_SECONDS = 15  # a person waits at the prompt


class _Check(msgspec.Struct, frozen=True):
    """The result of one check, with all its errors."""

    name: str
    ok: bool
    message: str
    errors: list[dict[str, str]] = []


class Checks:
    """Runs checks, and collects all faults instead of stopping at the first one."""

    def __init__(self) -> None:
        self.done: list[_Check] = []
        self.faults: list[TargetError] = []

    def run(self, name: str, work: Callable[[], object], text: str | None = None) -> bool:
        """Run one check; note a text, its result or its error; return whether it passed."""
        try:
            result = work()
        except TargetError as error:
            self.fail(name, error)
            return False
        self.done.append(_Check(name, ok=True, message=text or str(result)))
        return True

    def fail(self, name: str, error: TargetError) -> None:
        """Note a check that has failed, by the reason without its remedy."""
        self.faults += error.faults
        reasons = "; ".join(map(_reason, error.faults))
        errors = [{"code": each.code, "message": str(each)} for each in error.faults]
        self.done.append(_Check(name, ok=False, message=reasons, errors=errors))


def _reason(error: TargetError) -> str:
    """Return an error without its remedy, unless that is several statements."""
    message = str(error)
    return message if error.code == "ledger_forbidden" else message.partition("; ")[0]


def setting_checks(settings: Settings) -> Iterator[tuple[str, Callable[[], object], str | None]]:
    """Return all checks but that of the ledger, for `Checks.run`."""
    yield "settings", lambda: None, "valid"
    yield "credentials", partial(_credentials, settings), None
    yield "state directory", _state_directory, None
    if settings.transforms_records:
        text = "valid; the streams below are those after stream maps"
        yield "stream maps", partial(record_mapper_of, settings), text
    if (path := settings.rejects_path) is not None:
        yield "rejects_path", partial(check_rejects_path, path), path
    if settings.exclude_path is not None:
        yield "exclude_path", Exclusions(settings.exclude_path).load, "readable"
    if (path := settings.report_path) is not None:
        yield "report_path", partial(report.check, path), path
    if (path := settings.metrics_path) is not None:
        yield "metrics_path", partial(report.check, path, "metrics_path"), path


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


def marked(mark: str, text: str) -> str:
    """Return a text after a mark in its color."""
    first, indent = f"{mark:<6}", " " * 6
    line = wrap(printable(text), first=first, indent=indent, break_words=False)
    color = {"ok": "green", "FAIL": "red"}.get(mark, "yellow")
    return line.replace(mark, colored(mark, color), 1)
