"""`moengage-cohort status --max-age`: checks whether each cohort was synced recently."""

from __future__ import annotations

import typing as t

import click
import msgspec

from target_moengage_cohort.cli.moments import UNITS, span
from target_moengage_cohort.cli.session import DONE, Session, show
from target_moengage_cohort.core.text import format_age, format_count, iso_utc, shorten

if t.TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from target_moengage_cohort.ledger.records import CohortEntry

STALE = 6
_MOST_SHOWN, _ID_WIDTH = 5, 40


class Span(click.ParamType[int]):
    """A span of time, in seconds."""

    name = "26h|90m|2d"

    def convert(
        self, value: t.Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        """Return the seconds of a number with its unit."""
        if (seconds := span(str(value))) is None:
            msg = f"{value!r} is not a valid duration: a number of s, m, h, d or w, such as 26h"
            self.fail(msg, param, ctx)
        return seconds


class Age(msgspec.Struct, frozen=True):
    """When a cohort was last synced, if it ever was."""

    cohort_id: str
    stream: str
    synced_at: str | None
    age_seconds: int | None
    last_status: str | None  # of its last run
    paused: bool
    fresh: bool

    @property
    def reason(self) -> str:
        """Its age, and the obstacle to its sync, in words."""
        age = "never" if self.age_seconds is None else format_age(self.age_seconds)
        last = self.last_status if self.last_status in {"failed", "withheld"} else None
        return ", ".join(filter(None, (age, "paused" if self.paused else last)))


def check_freshness(session: Session, chosen: Sequence[str], max_age: int, *, as_json: bool) -> int:
    """Print in one line whether cohorts are fresh; return the exit code.

    Finished and retired cohorts do not count. A cohort that a configured stream populates counts
    even before its first sync.
    """
    with session.ledgers(read_only=True, is_patient=False) as ledgers:
        entries = ledgers.entries()
        paused = {each.stream for each in ledgers.pauses()}
    now = session.clock()
    ages = [
        _age(entry, now, max_age, is_paused=not paused.isdisjoint({None, entry.stream}))
        for entry in entries
        if not (entry.is_sealed or entry.is_retired)
    ]
    ages += _never_synced(session, entries)
    known = {entry.cohort_id for entry in entries} | {age.cohort_id for age in ages}
    if unknown := sorted({*chosen} - known):
        msg = f"unknown cohort {unknown[0]!r}: not in the ledger, nor in the setting cohorts"
        raise click.BadParameter(msg)
    if chosen:
        ages = [age for age in ages if age.cohort_id in chosen]
    is_empty = not (ages or entries)  # nothing was synced at all
    is_fresh = not is_empty and all(age.fresh for age in ages)
    result = {"fresh": is_fresh, "max_age_seconds": max_age, "cohorts": ages}
    show(result, [_line(ages, max_age, is_empty=is_empty)], as_json=as_json)
    return DONE if is_fresh else STALE


def _age(entry: CohortEntry, now: float, max_age: int, *, is_paused: bool) -> Age:
    run, at = entry.last_run, entry.synced_at
    return Age(
        cohort_id=entry.cohort_id,
        stream=entry.stream,
        synced_at=None if at is None else iso_utc(at, "seconds"),
        age_seconds=None if at is None else int(now - at),
        last_status=None if run is None else run.status,
        paused=is_paused,
        fresh=at is not None and abs(now - at) <= max_age,  # a time in the future says nothing
    )


def _never_synced(session: Session, entries: Sequence[CohortEntry]) -> Iterator[Age]:
    """Yield the configured cohorts that the ledger does not know, and fan-outs without any."""
    known, streams = {each.cohort_id for each in entries}, {each.stream for each in entries}
    for stream, mapping in session.config.mappings.items():
        cohort_id = mapping.cohort_id
        if stream not in streams if cohort_id is None else cohort_id not in known:
            yield Age(cohort_id or stream, stream, None, None, None, paused=False, fresh=False)


def _line(ages: Sequence[Age], max_age: int, *, is_empty: bool) -> str:
    unit = next(unit for unit in ("h", "m", "s") if max_age >= UNITS[unit] or unit == "s")
    within = f"{max_age / UNITS[unit]:g} {'min' if unit == 'm' else unit}"
    if is_empty:
        return "STALE: nothing has been synced yet"
    if stale := [age for age in ages if not age.fresh]:
        shown = [f"{shorten(age.cohort_id, _ID_WIDTH)} ({age.reason})" for age in stale]
        more = f" and {len(stale) - _MOST_SHOWN:,} more" if len(stale) > _MOST_SHOWN else ""
        of = f"{len(stale):,} of {format_count(len(ages), 'cohort')} not synced within {within}"
        return f"STALE: {of}: {', '.join(shown[:_MOST_SHOWN])}{more}"
    oldest = max(ages, key=lambda age: age.age_seconds or 0, default=None)
    rest = f", the oldest {format_age(oldest.age_seconds or 0)}" if oldest is not None else ""
    return f"OK: {format_count(len(ages), 'cohort')} synced within {within}{rest}"
