"""Reads the history: runs, what they did to cohorts, and the operators' commands."""

from __future__ import annotations

import typing as t

import msgspec
from msgspec.structs import replace

from target_moengage_cohort.ledger.records import HistoryEntry, RunProgress

if t.TYPE_CHECKING:
    from collections.abc import Container, Iterator

    from target_moengage_cohort.ledger.control.database import Database

_RUNS = (
    "SELECT r.number, r.run_id, r.started_at, r.started_by, r.host, r.finished_at, r.progress,"
    " r.entry, c.entry FROM runs r LEFT JOIN run_cohorts c"
    " ON c.run_id = r.run_id AND c.cohort_id = ?"
    " WHERE r.partner = ? AND r.started_at >= ?"
)
_ENDED_OR_NOT = (
    "SELECT number, run_id, started_at, started_by, host, finished_at, progress, entry FROM runs"
    " WHERE partner = ?"
)
_ACTIONS = (
    "SELECT number, kind, done_at, done_by, host, cohort_id, stream, details, run_id, status"
    " FROM operator_actions WHERE partner = ? AND done_at >= ?"
)
_COHORTS = (
    "SELECT r.number, r.started_by, r.host, c.entry FROM run_cohorts c"
    " JOIN runs r ON r.run_id = c.run_id WHERE r.number = ? ORDER BY c.cohort_id"
)
_RANGE = (
    "SELECT count(*), coalesce(min(number), 0), coalesce(max(number), 0) FROM runs"
    " WHERE partner = ? AND started_at >= ?"
)
_COHORTS_OF_ALL = (
    "SELECT c.entry FROM run_cohorts c JOIN runs r ON r.run_id = c.run_id"
    " WHERE r.partner = ? AND r.started_at >= ? AND r.number BETWEEN ? AND ? ORDER BY r.number"
)
_PAGE = 1_000
_RUNS_AT_A_TIME = 50  # with all their cohorts, of which there may be thousands
_POSITION = (
    "SELECT store_id, last_run, (SELECT coalesce(max(number), 0) FROM operator_actions),"
    " last_request FROM store"
)
_NAMES = {"approve": "confirm", "resync_removals": "resync"}
"""The commands that do what is recorded under a name of its own."""

ERROR = "error"
"""The name of a command's error code among its details, which are numbers otherwise."""

_decode = msgspec.json.Decoder(HistoryEntry).decode
_decode_progress = msgspec.json.Decoder(RunProgress).decode
_decode_details = msgspec.json.Decoder(dict[str, t.Any]).decode


class HistoryReader:
    """The history of a partner; runs whose process is `alive` are under way."""

    def __init__(self, database: Database, partner: str, alive: Container[str]) -> None:
        self._database = database
        self._partner = partner
        self._alive = alive

    def latest_first(self, since: str, cohort_id: str | None) -> list[HistoryEntry]:
        """Return runs and commands since a time; or only those that concern a cohort.

        Of a cohort, a run has what it did to it. A command without a cohort concerns all of
        its stream, or simply all.
        """
        entries = [*self._runs(since, cohort_id), *self._actions(since, cohort_id)]
        return sorted(entries, key=lambda entry: (entry.at, entry.number), reverse=True)

    def cohorts_of(self, run: HistoryEntry) -> list[HistoryEntry]:
        """Return a run's results for the cohorts that it changed or did not finish."""
        return [
            replace(_decode(entry), number=number, user=user, host=host)
            for number, user, host, entry in self._database.rows(_COHORTS, [run.number])
        ]

    def count_runs(self, since: str) -> int:
        """Return how many runs began since a time."""
        ((count, _, _),) = self._database.rows(_RANGE, [self._partner, since])
        return int(count)

    def cohorts_since(self, since: str) -> Iterator[HistoryEntry]:
        """Yield what runs did to cohorts, as `cohorts_of` does, in the order of the runs."""
        ((_, first, last),) = self._database.rows(_RANGE, [self._partner, since])
        for number in range(first, last + 1, _RUNS_AT_A_TIME):
            numbers = number, min(last, number + _RUNS_AT_A_TIME - 1)
            for (entry,) in self._database.rows(_COHORTS_OF_ALL, [self._partner, since, *numbers]):
                yield _decode(entry)

    def position(self) -> tuple[str, int, int, int]:
        """Return the store's id, and the highest numbers of a run, a command and a change."""
        ((store_id, run, action, change),) = self._database.rows(_POSITION)
        return store_id, run, action, change

    def runs_after(self, number: int, since: str) -> Iterator[HistoryEntry]:
        """Yield runs with higher numbers that began since a time, in the order of their numbers."""
        query = f"{_ENDED_OR_NOT} AND started_at >= ? AND number > ? ORDER BY number LIMIT {_PAGE}"
        while rows := self._database.rows(query, [self._partner, since, number]):
            yield from (self._run(*row) for row in rows)
            number = rows[-1][0]

    def run(self, run_id: str) -> HistoryEntry | None:
        """Return the run with an id, if it is in the history."""
        rows = self._database.rows(f"{_ENDED_OR_NOT} AND run_id = ?", [self._partner, run_id])
        return self._run(*rows[0]) if rows else None

    def actions_after(self, number: int, since: str) -> Iterator[HistoryEntry]:
        """Yield commands likewise."""
        query = f"{_ACTIONS} AND number > ? ORDER BY number LIMIT {_PAGE}"
        while rows := self._database.rows(query, [self._partner, since, number]):
            yield from (_action(*row) for row in rows)
            number = rows[-1][0]

    def _runs(self, since: str, cohort_id: str | None) -> Iterator[HistoryEntry]:
        for *row, of_cohort in self._database.rows(_RUNS, [cohort_id, self._partner, since]):
            run = self._run(*row)
            if of_cohort is not None:
                yield replace(_decode(of_cohort), number=run.number, user=run.user, host=run.host)
            elif cohort_id in {None, run.cohort_id}:
                yield run

    def _run(
        self, number: int, run_id: str, started_at: str, user: str, host: str, *rest: str | None
    ) -> HistoryEntry:
        finished_at, progress, entry = rest
        origin: dict[str, t.Any] = {"number": number, "user": user, "host": host}
        if entry is not None:
            return replace(_decode(entry), **origin)
        status = "unfinished"
        if finished_at is None and run_id in self._alive:
            status = "running"
        known = HistoryEntry(kind="run", at=started_at, run_id=run_id, status=status, **origin)
        if progress is None:
            return known
        so_far = _decode_progress(progress)
        return replace(
            known,
            stream=so_far.streams[0] if len(so_far.streams) == 1 else None,
            streams=tuple(so_far.streams),
            records=so_far.records,
            requests=so_far.requests,
        )

    def _actions(self, since: str, cohort_id: str | None) -> Iterator[HistoryEntry]:
        of_cohort = "SELECT stream FROM cohorts WHERE partner = ? AND cohort_id = ?"
        owners = {
            None,
            *(row[0] for row in self._database.rows(of_cohort, [self._partner, cohort_id])),
        }
        for row in self._database.rows(_ACTIONS, [self._partner, since]):
            action = _action(*row)
            of_all = action.cohort_id is None and action.stream in owners
            if cohort_id is None or action.cohort_id == cohort_id or of_all:
                yield action


def _action(number: int, kind: str, at: str, user: str, host: str, *rest: t.Any) -> HistoryEntry:
    cohort_id, stream, details, run_id, status = rest
    counts = _decode_details(details)
    error = counts.pop(ERROR, None)
    is_approval = kind == "approve"
    return HistoryEntry(
        kind=_NAMES.get(kind, kind),
        at=at,
        run_id=run_id,
        stream=stream,
        cohort_id=cohort_id,
        status=status,
        added=counts.get("added", counts.get("additions")),
        removed=None if is_approval else counts.get("removed", counts.get("removals")),
        user=user,
        host=host,
        error=error,
        counts=counts,
        number=number,
    )
