"""Describes the effect of the runs of a stream; pure."""

from __future__ import annotations

import typing as t

from target_moengage_cohort.core.commands import EXAMPLE_CSV, suggest
from target_moengage_cohort.core.membership import SyncMode
from target_moengage_cohort.core.text import format_count, shorten
from target_moengage_cohort.settings import Removals, Settings, StreamMapping
from target_moengage_cohort.singer.messages import DELETED_AT
from target_moengage_cohort.sync.mirror.guard import most_removals

if t.TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from target_moengage_cohort.ledger.records import CohortEntry

_MOST_COHORTS = 10
_ID_WIDTH = 40
_ALL = 100

_MODES = {
    SyncMode.INCREMENTAL: f"each row adds its member; a row with {DELETED_AT} removes it",
    SyncMode.ADD: f"each row adds its member; a row with {DELETED_AT} is skipped, and no members "
    "are removed",
    SyncMode.REMOVE: "each row removes its member; no members are added",
    SyncMode.MIRROR: "the stream is the whole cohort; new members are added, and members without "
    "a row are removed",
    SyncMode.ONE_TIME: "the stream is the whole cohort; its members are added, and no members are "
    "removed. After the first run with proven-complete input, nothing more is sent",
}


def outlook(
    mapping: StreamMapping, entries: Sequence[CohortEntry] | None, settings: Settings
) -> Iterator[tuple[str, str]]:
    """Describe the effect of the runs of one stream: yield labels and their texts.

    A mapping without a cohort and its column is that of all streams. The entries are the cohorts
    that have a ledger; ``None`` if it cannot be used.
    """
    yield "", _heading(mapping)
    yield "mode", f"{mapping.sync_mode.value}: {_mode(mapping)}."
    device = mapping.anonymous_id_column
    anonymous = "" if device is None else f", {device!r} the anonymous ID"
    yield "members", f"{mapping.uid_column!r} has the user ID{anonymous}."
    if mapping.expected_count_column is not None:
        column = repr(mapping.expected_count_column)
        text = f"the number of rows must equal column {column}; otherwise no members are removed"
        yield "proof", f"{text} and the run fails."
    elif mapping.is_snapshot:
        text = "an ACTIVATE_VERSION from the tap, or the tap's exit code under moengage-cohort run."
        yield "proof", f"{text} An expected_count_column would prove completeness in any pipe."
    if mapping.sync_mode is SyncMode.MIRROR:
        yield "guard", _guard(mapping)
    for number, line in enumerate(_ledger(mapping, entries, settings)):
        yield " " if number else "ledger", line
    yield "sent", _sent(mapping, settings)


def _heading(mapping: StreamMapping) -> str:
    stream = f"Stream {mapping.stream!r} populates"
    if (cohort := mapping.cohort) is not None:
        heading = f"{stream} cohort {cohort.name!r}"
        return heading if cohort.name == cohort.cohort_id else f"{heading}, ID {cohort.cohort_id!r}"
    if mapping.cohort_id_column is None:
        return "Each stream populates a cohort of the same name, because cohorts is not set"
    name = f"column {mapping.cohort_name_column!r} has the name"
    if mapping.cohort_name_column is None:
        name = "the ID is also the name"
    return f"{stream} several cohorts: column {mapping.cohort_id_column!r} has the ID, {name}"


def _mode(mapping: StreamMapping) -> str:
    text, column = _MODES[mapping.sync_mode], mapping.membership_column
    if column is not None and mapping.is_snapshot:
        text = f"{text}. A row that {column!r} marks as a non-member counts as absent"
    elif column is not None:
        text = f"{column!r} defines whether a row adds or removes; a row with {DELETED_AT} removes"
    if (own := mapping.deleted_at_column) is None:
        return text
    if mapping.is_snapshot:
        return f"{text}. A row with a time in {own!r} counts as absent"
    return text.replace(DELETED_AT, f"{DELETED_AT} or {own!r}")


def _guard(mapping: StreamMapping) -> str:
    percent, growth = mapping.max_removal_percent, mapping.max_addition_percent
    text = f"one run removes at most {percent} percent of a cohort (max_removal_percent)"
    if percent < _ALL:
        text += ", or 20 members with proof; emptying a cohort needs 100 and proof"
    else:
        text += "; emptying a cohort needs proof"
    if mapping.removals is Removals.PROVEN:
        text += f"; without proof, none (removals: {mapping.removals.value})"
    if growth is not None:
        text += f"; it grows an existing cohort by at most {growth} percent"
    return f"{text}. Anything more is withheld until you confirm it."


def _ledger(
    mapping: StreamMapping, entries: Sequence[CohortEntry] | None, settings: Settings
) -> Iterator[str]:
    if entries is None:
        yield "cannot be used, so the accepted members are unknown."
    elif not entries and mapping.is_snapshot:
        one = mapping.cohort
        command = f": {suggest('adopt', one.cohort_id, '--csv', EXAMPLE_CSV)}" if one else ""
        yield (
            "none yet: the first run adds all members and removes none. If MoEngage already has "
            f"members, import them first{command}."
        )
    elif not entries and settings.ledger_uri is None:
        yield "none, so repeated rows are sent again (see ledger_uri)."
    elif not entries:
        yield "none yet; the first run creates it."
    elif mapping.cohort is not None:
        yield f"{_size(mapping, entries[0])}."
    else:
        yield f"{format_count(len(entries), 'cohort')} so far."
        by_size = sorted(entries, key=lambda each: each.counts.base, reverse=True)
        for each in by_size[:_MOST_COHORTS]:
            yield f"{shorten(each.cohort_id, _ID_WIDTH)}: {_size(mapping, each)}."
        if (more := len(entries) - _MOST_COHORTS) > 0:
            yield f"and {more:,} more; to see them all: {suggest('status')}"


def _size(mapping: StreamMapping, entry: CohortEntry) -> str:
    """Return how many members a cohort has, and how many of them one run may remove."""
    base, percent = entry.counts.base, mapping.max_removal_percent
    text = f"{format_count(base, 'member')} now"
    if entry.is_sealed:
        return f"{text}; it is finished, so nothing more is sent"
    if mapping.sync_mode is not SyncMode.MIRROR:
        return text
    proven, unproven = (
        most_removals(base=base, max_removal_percent=percent, proven=proven)
        for proven in (True, False)
    )
    if mapping.removals is Removals.DEFERRED:
        return f"{text}; one confirm may remove {proven:,}"
    if mapping.removals is Removals.PROVEN:
        unproven = 0
    text += f"; one run may remove {unproven:,}"
    return text if proven == unproven else f"{text}, or {proven:,} with proof"


def _sent(mapping: StreamMapping, settings: Settings) -> str:
    if not mapping.is_snapshot:
        return (
            "while the rows are read, whenever a request is full or its oldest change is "
            f"{settings.flush_seconds:,} s old (flush_seconds)."
        )
    text = "once the stream has ended; the members of a new cohort, while the rows are read."
    if mapping.sync_mode is SyncMode.MIRROR and mapping.removals is Removals.DEFERRED:
        command = suggest("confirm", mapping.stream)
        text += f" Removals stay pending for an hour; to send them, run: {command}"
    return text
