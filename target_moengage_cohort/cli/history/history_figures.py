"""The numbers that the page of the history shows: of runs, and of cohorts over time; pure."""

from __future__ import annotations

import typing as t
from collections import defaultdict, deque

import msgspec

from target_moengage_cohort.core.text import format_count

if t.TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from target_moengage_cohort.ledger.control.history_reader import HistoryReader
    from target_moengage_cohort.ledger.records import CohortEntry, HistoryEntry

DRAWN = 10  # cohorts: more lines cannot be told apart
LISTED = 1_000  # cohorts
EVENTS = 100
POINTS = 1_000  # more runs are drawn by the day
_CALM = {"succeeded", "running"}


class Point(msgspec.Struct):
    """A run; or a day, with the sums of its runs, or the highest number where sums mean nothing."""

    at: str
    label: str
    runs: int = 0
    added: int = 0
    removed: int = 0
    requests: int = 0
    rejected: int = 0
    throttled: float = 0.0
    withheld: int = 0  # the highest: what is withheld is so again in each run
    used: float = 0.0  # the highest: the requests in percent of those that the limit permits
    duration: float | None = None  # the highest


class CohortLine(msgspec.Struct):
    """A cohort, and its changes."""

    cohort_id: str
    stream: str | None
    members: int | None = None  # now
    added: int = 0
    removed: int = 0
    changed_at: str | None = None
    points: list[tuple[str, int]] | None = None  # its sizes, if it is drawn

    @property
    def rank(self) -> tuple[int, int]:
        """Its rank by the number of its changes, then by its size."""
        return self.added + self.removed, self.members or 0


def figures(
    history: HistoryReader, cohorts: Sequence[CohortEntry], since: str, now: str, limit: int
) -> dict[str, t.Any]:
    """Return the numbers of the page; `limit` is that of requests per minute.

    Memory does not grow with the number of runs.
    """
    by_day = history.count_runs(since) > POINTS
    events: deque[HistoryEntry] = deque(maxlen=EVENTS)
    statuses: defaultdict[str, int] = defaultdict(int)
    points = _points(_noting(history.runs_after(0, since), statuses, events), limit, by_day=by_day)
    actions: deque[HistoryEntry] = deque(history.actions_after(0, since), maxlen=EVENTS)
    lines = _lines(_of_cohorts(history, since), cohorts)
    drawn = {each.cohort_id: each for each in lines[:DRAWN] if each.members is not None}
    _draw(drawn, _of_cohorts(history, since), now, by_day=by_day)
    return {
        "by_day": by_day,
        "now": now,
        "limit": limit,
        "statuses": statuses,
        "points": points,
        "cohorts": lines[:LISTED],
        "cohort_count": len(lines),
        "events": _events([*events, *actions]),
    }


def _noting(
    runs: Iterable[HistoryEntry], statuses: dict[str, int], events: deque[HistoryEntry]
) -> Iterator[HistoryEntry]:
    """Yield runs; count their statuses, and keep those with an error or a warning."""
    for run in runs:
        statuses[run.status] += 1
        if run.status not in _CALM or run.warnings:
            events.append(run)
        yield run


def _points(runs: Iterable[HistoryEntry], limit: int, *, by_day: bool) -> list[Point]:
    points: dict[str, Point] = {}
    for run in runs:
        key = run.at[:10] if by_day else run.run_id
        if (point := points.get(key)) is None:
            label = "" if by_day else f"{_streams(run)}: {run.status}"
            point = points[key] = Point(at=key if by_day else run.at, label=label)
        seconds, requests = run.duration_seconds, run.requests or 0
        point.runs += 1
        point.added += run.added or 0
        point.removed += run.removed or 0
        point.requests += requests
        point.rejected += run.rejected
        point.throttled += run.throttled_seconds
        point.withheld = max(point.withheld, run.removals_withheld)
        permitted = limit * max(1.0, (seconds or 0.0) / 60)
        point.used = max(point.used, round(100 * requests / permitted, 1))
        if seconds is not None:
            point.duration = max(point.duration or 0.0, seconds)
    if by_day:
        for point in points.values():
            point.label = format_count(point.runs, "run")
    return sorted(points.values(), key=lambda point: point.at)


def _streams(run: HistoryEntry) -> str:
    streams = run.streams
    return run.stream or (format_count(len(streams), "stream") if streams else "")


def _of_cohorts(history: HistoryReader, since: str) -> Iterator[HistoryEntry]:
    """Yield the changes of each cohort, by runs and then by commands."""
    yield from history.cohorts_since(since)
    for action in history.actions_after(0, since):
        if action.cohort_id is not None and action.status != "approved":
            yield action


def _lines(changes: Iterable[HistoryEntry], cohorts: Iterable[CohortEntry]) -> list[CohortLine]:
    """Return all cohorts, the most changed ones first."""
    lines = {
        each.cohort_id: CohortLine(
            each.cohort_id,
            each.stream,
            members=each.counts.accepted.count if each.has_members else None,
        )
        for each in cohorts
        if not each.is_retired
    }
    for change in changes:
        name = t.cast("str", change.cohort_id)
        line = lines.setdefault(name, CohortLine(name, change.stream))
        added, removed = change.added or 0, change.removed or 0
        line.added += added
        line.removed += removed
        if added or removed:
            line.changed_at = max(line.changed_at or "", change.at)
    return sorted(lines.values(), key=lambda line: (*(-each for each in line.rank), line.cohort_id))


def _draw(
    lines: Mapping[str, CohortLine], changes: Iterable[HistoryEntry], now: str, *, by_day: bool
) -> None:
    """Give cohorts their sizes over time; with days, the last one of each.

    A run has the size; a command has only its changes, which are added up.
    """
    own = defaultdict[str | None, list[tuple[str, int | None, int]]](list)
    for change in changes:
        if change.cohort_id in lines:
            difference = (change.added or 0) - (change.removed or 0)
            own[change.cohort_id].append((change.at, change.accepted, difference))
    for name, line in lines.items():
        sizes: dict[str, tuple[str, int]] = {}
        size = 0
        for at, accepted, difference in sorted(own[name], key=lambda each: each[0]):
            size = max(0, size + difference) if accepted is None else accepted
            sizes[at[:10] if by_day else at] = at, size
        line.points = [*sizes.values(), (now, line.members or 0)]


def _events(entries: list[HistoryEntry]) -> list[dict[str, t.Any]]:
    """Return the latest runs with an error or warning, and commands, newest first."""
    latest = sorted(entries, key=lambda entry: entry.at, reverse=True)[:EVENTS]
    return [
        {
            "at": each.at,
            "what": each.kind,
            "name": each.cohort_id or _streams(each),
            "status": each.status,
            "added": each.added,
            "removed": each.removed,
            "note": _note(each),
        }
        for each in latest
    ]


def _note(entry: HistoryEntry) -> str:
    if entry.kind != "run":
        return f"by {entry.user} on {entry.host}"
    withheld = entry.removals_withheld
    parts = [entry.error or ""]
    parts += [f"{format_count(withheld, 'removal')} withheld" if withheld else "", *entry.warnings]
    return ", ".join(filter(None, parts))
