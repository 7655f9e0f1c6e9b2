"""What all commands have in common: the configuration, the ledgers, errors and exit codes."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import signal
import sys
import time
import typing as t
import uuid

import click
import msgspec

from target_moengage_cohort import settings
from target_moengage_cohort.core.errors import (
    BusyError,
    SettingsError,
    TargetError,
    anonymous_traceback,
)
from target_moengage_cohort.core.interrupts import Interrupt, TerminationSignals, raising_at_sigint
from target_moengage_cohort.ledger import Ledgers
from target_moengage_cohort.settings import sources as configuration

if t.TYPE_CHECKING:
    from collections.abc import Callable, Iterator

logger = logging.getLogger(__name__)

DONE, FAILED, WITHHELD = 0, 1, 3
_SIGNAL = 128  # and its number


class SessionTiming(msgspec.Struct, frozen=True):
    """What a command takes as it is; tests bring their own, as click's `Context.obj`.

    Attributes:
        clock: Seconds since 1970.
        busy_seconds: How long to wait for a ledger that another process has.
    """

    clock: Callable[[], float] = time.time
    busy_seconds: float = 30.0


def text(_context: click.Context, _parameter: click.Parameter, value: t.Any) -> t.Any:
    """Check names from the command line: bytes that are no UTF-8 arrive as half of a surrogate.

    Raises:
        click.BadParameter: One is no text.
    """
    try:
        "".join(value or ()).encode()  # one name, or several
    except UnicodeEncodeError:
        msg = "holds characters that are no text"
        raise click.BadParameter(msg) from None
    return value


def example(*lines: str) -> str:
    """The end of a command's help: something to type, kept as it stands."""
    return "\n".join(("\b", "Example:", *(f"  {line}" for line in lines)))


def coloured(text: str, colour: str) -> str:
    """Text in a colour, for `click.echo`, which leaves it out where there is no terminal."""
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return text if plain else click.style(text, fg=colour)


class Session:
    """One command at work.

    Args:
        loaded: The configuration.
        surroundings: Clock and patience.

    Attributes:
        loaded: The configuration.
        settings: The settings in it.
        clock: Seconds since 1970.
        interrupt: Set by a signal; ends every wait.
        stopped_by: The signal that ended the work, if one did.
        is_abandoned: Whether a thread still waits for an answer, in vain.
    """

    def __init__(self, loaded: settings.Config, surroundings: SessionTiming) -> None:
        self.loaded = loaded
        self.settings = loaded.settings
        self.clock = surroundings.clock
        self.interrupt = Interrupt()
        self.stopped_by: int | None = None
        self.is_abandoned = False
        self._busy_seconds = surroundings.busy_seconds

    @contextlib.contextmanager
    def ledgers(self, *, read_only: bool = False, is_patient: bool = True) -> Iterator[Ledgers]:
        """The destination's ledgers; while they are there, a signal ends waits and nothing else.

        Ask people before or after, not meanwhile: Ctrl-C would not end a prompt.

        Args:
            read_only: Change nothing.
            is_patient: Whether to wait for a ledger that another process has.

        Raises:
            TargetError: The ledgers cannot be used.
        """
        with TerminationSignals(self.interrupt) as signals:
            try:
                ledgers = Ledgers(
                    self.settings,
                    run_id=str(uuid.uuid4()),
                    wait=self.interrupt.wait,
                    read_only=read_only,
                    clock=self.clock,
                    busy_seconds=self._busy_seconds if is_patient else 0.0,
                )
                try:
                    yield ledgers
                finally:
                    ledgers.close()
            finally:
                self.stopped_by = self.stopped_by or signals.received

    def refuse_dry_run(self) -> None:
        """Refuse to change anything while the configuration says that nothing may change.

        Raises:
            SettingsError: `dry_run` is set.
        """
        if self.settings.dry_run:
            msg = "dry_run: is set, and this command is there to change something; unset it for it"
            raise SettingsError(msg)


def ask(question: str, *, yes: bool) -> None:
    """Ask whether to go on, unless that was answered on the command line.

    Raises:
        click.Abort: The answer is no.
        click.UsageError: There is nobody to answer.
    """
    if yes:
        return
    try:
        click.confirm(question, abort=True, err=True)
    except click.Abort as error:
        if isinstance(error.__context__, EOFError):
            msg = "nobody is there to answer; give --yes to go on without a question"
            raise click.UsageError(msg) from None
        raise


def configured(work: Callable[..., int]) -> Callable[..., t.Any]:
    """Give a command ``--config``, a `Session` as its first argument, and exit codes.

    Args:
        work: The command; what it returns is the exit code.
    """

    @click.option(
        "--config",
        "given",
        multiple=True,
        required=True,
        type=click.Path(readable=False),  # for completion; reading it says more of what is wrong
        metavar="FILE|ENV",
        help="Configuration file, or ENV for the environment, as the target takes it; may be "
        "given several times.",
        callback=lambda _context, _parameter, value: configuration.read(value) if value else {},
    )
    @functools.wraps(work)
    def run(*, given: dict[str, t.Any], **parameters: t.Any) -> None:
        context = click.get_current_context()
        with _surrounded():
            code = _run(context, given, lambda session: work(session, **parameters))
        if code:
            context.exit(code)

    return run


def _run(context: click.Context, given: dict[str, t.Any], work: Callable[[Session], int]) -> int:
    """Do a command's work; say what went wrong, if anything did, and return the exit code."""
    session: Session | None = None
    with raising_at_sigint():
        try:
            loaded = settings.load(given)
            loaded.warn(logger)
            session = Session(loaded, context.find_object(SessionTiming) or SessionTiming())
            code = work(session)
        except (click.ClickException, click.exceptions.Exit, BrokenPipeError):
            raise  # click's own
        except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - see `_explained`
            is_stopped = session is not None and session.stopped_by is not None
            code = _explained(error, is_stopped=is_stopped)
    if session is None:
        return code
    session.interrupt.set()  # else a late signal would want to, when it is closed
    session.interrupt.close()
    if session.stopped_by is not None:
        code = _SIGNAL + session.stopped_by
        complain(f"stopped by {signal.Signals(session.stopped_by).name}")
    if session.is_abandoned:
        _leave(code)
    return code


def _explained(error: BaseException, *, is_stopped: bool) -> int:
    """Say what went wrong, and nothing that may quote an identifier; return the exit code."""
    cause = error.__context__ if isinstance(error, click.Abort) else error
    if isinstance(cause, KeyboardInterrupt):
        return _SIGNAL + signal.SIGINT
    if isinstance(error, click.Abort):
        complain("nothing was done")
    elif isinstance(error, BusyError):
        if not is_stopped:  # else it waited no longer, and that is all
            complain(str(error))
    elif isinstance(error, SettingsError):
        for fault in error.faults:
            complain(str(fault))
    elif isinstance(error, TargetError):
        complain(str(error))
    else:
        complain(anonymous_traceback(error))
    return error.exit_code if isinstance(error, TargetError) else FAILED


def complain(text: str) -> None:
    """Say on standard error what went wrong."""
    click.echo(f"{coloured('Error:', 'red')} {text}", err=True)


@contextlib.contextmanager
def _surrounded() -> Iterator[None]:
    """Keep what we make to its owner, and show our log lines on standard error."""
    previous = os.umask(0o077)
    ours = logging.getLogger("target_moengage_cohort")
    level, handler = ours.level, logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    ours.addHandler(handler)
    ours.setLevel(logging.INFO)
    try:
        yield
    finally:
        ours.removeHandler(handler)
        ours.setLevel(level)
        os.umask(previous)


def _leave(code: int) -> t.NoReturn:
    """End though a thread still waits; Python's own way to exit would wait, too."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
