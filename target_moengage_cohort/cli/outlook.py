"""What a stream's runs would do, in words; pure."""

from __future__ import annotations

import typing as t

import msgspec

from target_moengage_cohort.core.membership import SyncMode
from target_moengage_cohort.core.text import format_count, printable, shorten
from target_moengage_cohort.settings import Removals
from target_moengage_cohort.singer.messages import DELETED_AT
from target_moengage_cohort.sync.mirror.guard import most_leaving

if t.TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from target_moengage_cohort.settings import Mapping, Settings

_MOST_COHORTS = 10
_ID_WIDTH = 40
_ALL = 100

_MODES = {
    SyncMode.INCREMENTAL: f"each row adds its member; one with {DELETED_AT} removes it",
    SyncMode.ADD: f"each row adds its member, and nobody is removed; one with {DELETED_AT} is "
    "skipped",
    SyncMode.REMOVE: "each row removes its member, and nobody is added",
    SyncMode.MIRROR: "the stream is the whole cohort; who is new is added, and who is gone is "
    "removed",
    SyncMode.ONE_TIME: "the stream is the whole cohort; its members are added and nobody is "
    "removed. After the first run whose input is proven complete nothing more is sent",
}


class CohortSize(msgspec.Struct, frozen=True, kw_only=True):
    """What the ledger has of a cohort.

    Attributes:
        cohort_id: The cohort.
        members: Who is accepted or in doubt; ``None`` while another run is at work on it.
        is_sealed: Whether it is finished, as a one_time cohort.
    """

    cohort_id: str
    members: int | None = None
    is_sealed: bool = False


def outlook(
    mapping: Mapping, held: Sequence[CohortSize] | None, settings: Settings
) -> Iterator[tuple[str, str]]:
    """Tell what the runs of one stream would do.

    Args:
        mapping: The stream's; or that of every stream, with no cohort and no column of its id.
        held: What the ledger has of the cohorts that it feeds; ``None`` if it cannot be used.
        settings: Where the limits of requests are.

    Yields:
        What is told of, and what is said of it; first, without a word, what the stream feeds.
    """
    yield "", _fed(mapping)
    yield "mode", f"{mapping.sync_mode.value}: {_mode(mapping)}."
    yield "members", _identified(mapping)
    if mapping.is_snapshot:
        yield "proof", _proof(mapping)
    if mapping.sync_mode is SyncMode.MIRROR:
        yield "guard", _guard(mapping)
    for number, line in enumerate(_known(mapping, held, settings)):
        yield " " if number else "ledger", line
    yield "sent", _sent(mapping, settings)


def _fed(mapping: Mapping) -> str:
    stream = f"Stream {mapping.stream!r} feeds"
    if mapping.cohort is not None:
        name, cohort_id = mapping.cohort.name, mapping.cohort.cohort_id
        said = f"{stream} the cohort {name!r}"
        return said if name == cohort_id else f"{said}, id {cohort_id!r}"
    if mapping.cohort_id_column is None:
        return "Every stream feeds the cohort of its own name, since no cohorts are set"
    named = f"{mapping.cohort_name_column!r} the name"
    if mapping.cohort_name_column is None:
        named = "the id is the name, too"
    return f"{stream} many cohorts: the column {mapping.cohort_id_column!r} has the id, {named}"


def _mode(mapping: Mapping) -> str:
    said, column = _MODES[mapping.sync_mode], mapping.membership_column
    if column is None:
        return said
    if mapping.is_snapshot:
        return f"{said}. A row that says no in {column!r} counts as absent"
    return f"each row adds or removes its member, as {column!r} says; one with {DELETED_AT} removes"


def _identified(mapping: Mapping) -> str:
    said = f"{mapping.uid_column!r} has the user ID"
    if mapping.anonymous_id_column is not None:
        said += f", {mapping.anonymous_id_column!r} the anonymous ID"
    return f"{said}."


def _proof(mapping: Mapping) -> str:
    if mapping.expected_count_column is not None:
        return (
            f"as many rows as the column {mapping.expected_count_column!r} says; with more or "
            "fewer, nobody is removed and the run fails."
        )
    return (
        "an ACTIVATE_VERSION from the tap, or the tap's exit code under moengage-cohort run; there "
        "is no expected_count_column, which would prove it in any pipe."
    )


def _guard(mapping: Mapping) -> str:
    percent = mapping.max_removal_percent
    said = f"at most {percent} percent of a cohort may leave in one run (max_removal_percent)"
    if percent < _ALL:
        said += ", or 20 members with proof; emptying one needs 100 and proof"
    else:
        said += "; emptying one needs proof"
    if mapping.max_addition_percent is not None:
        said += f"; at most {mapping.max_addition_percent} percent may join one that is not new"
    return f"{said}. More is withheld, until you confirm it."


def _known(
    mapping: Mapping, held: Sequence[CohortSize] | None, settings: Settings
) -> Iterator[str]:
    if held is None:
        yield "it cannot be used, so who is in the cohort is not known."
    elif not held:
        yield _new(mapping, settings)
    elif mapping.cohort is not None:
        yield f"{_numbers(mapping, held[0])}."
    else:
        yield f"{format_count(len(held), 'cohort')} so far."
        by_size = sorted(held, key=lambda each: each.members or 0, reverse=True)
        for each in by_size[:_MOST_COHORTS]:
            yield f"{shorten(each.cohort_id, _ID_WIDTH)}: {_numbers(mapping, each)}."
        if (more := len(held) - _MOST_COHORTS) > 0:
            yield f"and {more:,} more; moengage-cohort status has them all."


def _new(mapping: Mapping, settings: Settings) -> str:
    if not mapping.is_snapshot and settings.ledger_folder is None:
        return "none, so that rows that come again are sent again (see ledger_uri)."
    if not mapping.is_snapshot:
        return "none yet; the first run makes it."
    return (
        "none yet: the first run adds everybody, and removes nobody. If MoEngage has members "
        "already, name them before: moengage-cohort adopt."
    )


def _numbers(mapping: Mapping, held: CohortSize) -> str:
    """How many members a cohort has, and how many of them may leave."""
    if held.members is None:
        return "another run is at work on it; its numbers are there when that has ended"
    said = f"{format_count(held.members, 'member')} now"
    if held.is_sealed:
        return f"{said}; it is sealed, so nothing more is sent"
    if mapping.sync_mode is not SyncMode.MIRROR:
        return said
    percent = mapping.max_removal_percent
    proven, unproven = (
        most_leaving(base=held.members, max_removal_percent=percent, proven=proven)
        for proven in (True, False)
    )
    if mapping.removals is Removals.DEFERRED:
        return f"{said}, of whom {proven:,} may leave by one confirm"
    said += f", of whom {unproven:,} may leave in one run"
    return said if proven == unproven else f"{said}, or {proven:,} with proof"


def _sent(mapping: Mapping, settings: Settings) -> str:
    if not mapping.is_snapshot:
        return (
            "while the rows are read, whenever a request is full or its oldest change has waited "
            f"for {settings.flush_seconds:,} s (flush_seconds)."
        )
    said = "once the stream has ended; who joins a new cohort, while the rows are read."
    if mapping.sync_mode is SyncMode.MIRROR and mapping.removals is Removals.DEFERRED:
        stream = printable(mapping.stream)
        said += f" Removals wait, for an hour, for: moengage-cohort confirm {stream}"
    return said
