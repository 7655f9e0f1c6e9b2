"""Puts a run together from its parts: the real MoEngage, the shared rate limit, standard output."""

from __future__ import annotations

import functools
import logging
import sys
import typing as t

from target_moengage_cohort.core.errors import TryAgainError
from target_moengage_cohort.delivery.pace import Pace
from target_moengage_cohort.sync.run import Run

if t.TYPE_CHECKING:
    from target_moengage_cohort.core.interrupts import Interrupt
    from target_moengage_cohort.ledger import Ledgers
    from target_moengage_cohort.moengage.answers import Answer
    from target_moengage_cohort.moengage.transport import Client
    from target_moengage_cohort.settings import Config, Settings

logger = logging.getLogger(__name__)


def wired(loaded: Config, interrupt: Interrupt, ledgers: Ledgers) -> Run:
    """A run that sends to MoEngage and writes STATE to standard output.

    Args:
        loaded: The configuration.
        interrupt: Ends the run early.
        ledgers: The ledgers of the destination; read-only for a dry run.

    Raises:
        SettingsError: A file or a stream map that the settings name cannot be used.
    """
    settings = loaded.settings
    transform = None
    if settings.transforms_records:
        from target_moengage_cohort.singer.stream_maps import SdkTransform  # noqa: PLC0415 - slow to import

        transform = SdkTransform(settings, logger)
    return Run(
        loaded,
        attempt=_attempt(settings),
        pace=None if settings.dry_run else Pace(settings, interrupt.wait),
        write_state=_write_state,
        interrupt=interrupt,
        ledgers=ledgers,
        transform=transform,
    )


def _attempt(settings: Settings) -> t.Callable[[bytes], Answer]:
    """Send with a `Client`, which is made for the first request: many runs have none to send."""

    @functools.cache  # two threads may each make one, which does no harm
    def client() -> Client:
        from target_moengage_cohort.moengage.transport import Client  # noqa: PLC0415 - slow to import

        return Client(settings)

    return lambda body: client().attempt(body)


def _write_state(value: bytes) -> None:
    """Write one STATE to standard output, whole and at once.

    Raises:
        TryAgainError: Nobody reads it any more.
    """
    try:
        sys.stdout.buffer.write(value + b"\n")
        sys.stdout.buffer.flush()
    except OSError as error:
        why = "was closed" if isinstance(error, BrokenPipeError) else f"fails ({error.strerror})"
        msg = f"standard output {why}, so STATE cannot be kept; run it again"
        raise TryAgainError(msg) from None
