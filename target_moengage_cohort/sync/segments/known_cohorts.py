"""Warnings of what the store knows of a stream's cohorts when a run begins to read the stream."""

from __future__ import annotations

import logging
import typing as t

from target_moengage_cohort.core.commands import EXAMPLE_CSV, suggest
from target_moengage_cohort.core.text import format_count, iso_utc

if t.TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from target_moengage_cohort.ledger.records import CohortEntry
    from target_moengage_cohort.settings import StreamMapping

logger = logging.getLogger(__name__)


def warn_of_known(
    entries: Sequence[CohortEntry],
    mapping: StreamMapping,
    mappings: Mapping[str, StreamMapping],
) -> None:
    """Warn of a mirror's cohorts whose members are unknown, and of cohorts left behind.

    `mappings` are those of all configured streams: one of them may be to populate such a cohort.
    """
    known = [entry for entry in entries if not entry.is_retired]
    unrecorded = [entry for entry in known if entry.last_timestamp and not entry.has_members]
    if mapping.is_snapshot and unrecorded:
        logger.warning(
            "%s was populated without a record of its members%s. Members that MoEngage has but "
            "the stream %r does not are not removed. To remove them, import them before the "
            "next run: %s",
            _subject(unrecorded),
            _last_run(unrecorded[0]),
            mapping.stream,
            suggest("adopt", unrecorded[0].cohort_id, "--csv", EXAMPLE_CSV),
            extra=_extra("members_unknown", unrecorded[0]),
        )
    fixed = mapping.cohort
    others = [entry for entry in known if fixed and entry.cohort_id != fixed.cohort_id]
    if others:
        logger.warning(
            "%s is no longer populated by the stream %r; no members are "
            "removed. To empty it for good, run: %s. %s",
            _subject(others),
            mapping.stream,
            suggest("ledger", "retire", others[0].cohort_id),
            _how_to_go_on(others[0], mappings),
            extra=_extra("orphan_cohort", others[0]),
        )


def _how_to_go_on(entry: CohortEntry, mappings: Mapping[str, StreamMapping]) -> str:
    """Return how another stream can populate a cohort: the configuration may have one already."""
    for stream, mapping in mappings.items():
        if mapping.cohort is not None and mapping.cohort.cohort_id == entry.cohort_id:
            command = suggest("ledger", "reassign", entry.cohort_id, stream)
            return f"To let the stream {stream!r} populate it, run: {command}"
    return "To let another stream populate it, set its cohort_id in that stream's mapping"


def _subject(entries: Sequence[CohortEntry]) -> str:
    more = f" (and {format_count(len(entries) - 1, 'other')})" if len(entries) > 1 else ""
    return f"cohort {entries[0].cohort_id!r}{more}"


def _last_run(entry: CohortEntry) -> str:
    if (run := entry.last_run) is None:
        return f": its last request was at {iso_utc(entry.last_timestamp / 1000, 'seconds')}"
    return (
        f": its last run, {run.finished_at}, in sync mode {run.sync_mode}, added {run.added:,} "
        f"and removed {run.removed:,}"
    )


def _extra(code: str, entry: CohortEntry) -> dict[str, str]:
    return {"code": code, "stream": entry.stream, "cohort_id": entry.cohort_id}
