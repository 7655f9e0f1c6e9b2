"""Configured streams that a complete input does not contain."""

from __future__ import annotations

import logging
import typing as t

from target_moengage_cohort.core.commands import is_under_meltano
from target_moengage_cohort.core.errors import InputError
from target_moengage_cohort.settings.declared import OnMissingStream

if t.TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from target_moengage_cohort.ledger.interface import LedgerStore

logger = logging.getLogger(__name__)

CODE = "stream_without_input"


def find_missing(absent: Sequence[str], met: Collection[str], store: LedgerStore) -> list[str]:
    """Return the absent streams that the input should have had.

    Two taps may share one configuration: a stream whose last input came in a run without any of
    the streams `met` is another tap's. An input without any stream has all of them missing.
    """
    if not met:
        return list(absent)
    missing = []
    for stream in absent:
        companions = store.companions(stream)
        if not companions or not companions.isdisjoint(met):
            missing.append(stream)
    return missing


def report_missing(stream: str, on_missing: OnMissingStream) -> InputError | None:
    """Warn of a missing stream, or return the error for it."""
    advice = ". If the view is new, run Meltano with --refresh-catalog" * is_under_meltano()
    message = (
        f"stream {stream!r} is configured in cohorts, but the tap sent nothing for it, so its "
        "cohort is unchanged. Check that the stream is selected in the tap, and that the "
        f"database user can read it{advice}"
    )
    if on_missing is OnMissingStream.FAIL:
        return InputError(CODE, message)
    logger.warning("%s", message, extra={"code": CODE, "stream": stream})
    return None
