"""The parts of a run that use the Segments and the Analytics API."""

from __future__ import annotations

import contextlib
import typing as t

import msgspec

from target_moengage_cohort.delivery.delivery import live_calls
from target_moengage_cohort.moengage.analytics import Analytics
from target_moengage_cohort.moengage.filters import all_of, attribute_in
from target_moengage_cohort.sync.context import ApiEndpoints
from target_moengage_cohort.sync.segments.match_guard import MatchGuard
from target_moengage_cohort.sync.segments.segment_directory import SegmentDirectory
from target_moengage_cohort.sync.segments.unarchiver import Unarchiver

if t.TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from target_moengage_cohort.delivery.ports import Timing
    from target_moengage_cohort.ledger.interface import LedgerStore
    from target_moengage_cohort.moengage.calls import Send
    from target_moengage_cohort.settings import Settings
    from target_moengage_cohort.sync.context import RunContext
    from target_moengage_cohort.sync.segments.segment_directory import Sending

_LONGEST_ANSWER_SECONDS = 15
_LONGEST_RETRY_SECONDS = 120


def api_endpoints(context: RunContext, store: LedgerStore) -> ApiEndpoints:
    """Return the endpoints that the settings ask for; a dry run only lists the segments."""
    settings, interrupt, timing = context.settings, context.interrupt, context.timing
    shared = None if settings.dry_run else store
    at_once = opener(settings, interrupt.wait, shared, timing, waits=False)
    directory = SegmentDirectory(None if settings.segments_api_key is None else at_once)
    if settings.dry_run:
        return ApiEndpoints(directory=directory)
    patiently = opener(settings, interrupt.wait, shared, timing)

    def known(samples: Sequence[Sequence[str]]) -> tuple[int, ...]:
        attribute = settings.id_attribute or ""
        groups = [all_of(attribute_in(attribute, uids)) for uids in samples]
        with patiently() as send:
            return Analytics(send, attribute).users(groups, interrupt.wait)

    return ApiEndpoints(
        directory=directory,
        match_guard=MatchGuard(known),
        unarchive=Unarchiver(context, store, at_once).unarchive,
    )


def opener(
    settings: Settings,
    wait: Callable[[float], bool],
    store: LedgerStore | None = None,
    timing: Timing | None = None,
    *,
    waits: bool = True,
) -> Sending:
    """Return what opens a sender of calls that a command or a run waits for.

    The sender waits for permits and retries for a short time, or does neither. ``wait`` waits for
    so many seconds, and returns whether to end instead.
    """
    settings = msgspec.structs.replace(
        settings,
        request_timeout_seconds=min(settings.request_timeout_seconds, _LONGEST_ANSWER_SECONDS),
        max_retry_seconds=min(settings.max_retry_seconds, _LONGEST_RETRY_SECONDS),
    )

    @contextlib.contextmanager
    def sending() -> Iterator[Send]:
        opened = live_calls(settings, wait, store, timing)
        with contextlib.closing(opened) as calls:
            yield calls.send if waits else calls.send_at_once

    return sending
