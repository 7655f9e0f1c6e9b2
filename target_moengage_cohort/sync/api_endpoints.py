"""The parts of a run that use the Segments and the Analytics API."""

from __future__ import annotations

import contextlib
import typing as t

import msgspec

from target_moengage_cohort.delivery.delivery import live_calls
from target_moengage_cohort.sync.context import ApiEndpoints
from target_moengage_cohort.sync.match_guard import MatchGuard
from target_moengage_cohort.sync.segment_directory import SegmentDirectory
from target_moengage_cohort.sync.unarchiver import Unarchiver
from target_moengage_cohort.sync.user_counts import UserCounts

if t.TYPE_CHECKING:
    from collections.abc import Iterator

    from target_moengage_cohort.ledger.interface import LedgerStore
    from target_moengage_cohort.moengage.calls import Send
    from target_moengage_cohort.settings import Settings
    from target_moengage_cohort.sync.context import RunContext
    from target_moengage_cohort.sync.segment_directory import Sending

_LONGEST_ANSWER_SECONDS = 15  # the rows of a run wait meanwhile
_LONGEST_RETRY_SECONDS = 120


def api_endpoints(context: RunContext, store: LedgerStore) -> ApiEndpoints:
    """Return the endpoints that the settings ask for; a dry run only lists the segments."""
    settings = context.settings
    shared = None if settings.dry_run else store
    at_once = _sending(context, shared, waits=False)
    directory = SegmentDirectory(None if settings.segments_api_key is None else at_once)
    if settings.dry_run:
        return ApiEndpoints(directory=directory)
    return ApiEndpoints(
        directory=directory,
        match_guard=MatchGuard(UserCounts(context, _sending(context, shared, waits=True))),
        unarchive=Unarchiver(context, store, at_once).unarchive,
    )


def brief(settings: Settings) -> Settings:
    """Return the settings of calls that a person or a run waits for."""
    return msgspec.structs.replace(
        settings,
        request_timeout_seconds=min(settings.request_timeout_seconds, _LONGEST_ANSWER_SECONDS),
        max_retry_seconds=min(settings.max_retry_seconds, _LONGEST_RETRY_SECONDS),
    )


def _sending(context: RunContext, store: LedgerStore | None, *, waits: bool) -> Sending:
    """Return what sends calls, which waits for permits and retries, or does neither."""

    @contextlib.contextmanager
    def sending() -> Iterator[Send]:
        opened = live_calls(brief(context.settings), context.interrupt.wait, store, context.timing)
        with contextlib.closing(opened) as calls:
            yield calls.send if waits else calls.send_at_once

    return sending
