"""The history: runs, their progress while they are under way, and the operators' commands."""

from __future__ import annotations

import os
import pwd
import socket
import typing as t
from datetime import timedelta

import msgspec
from msgspec.structs import replace

from target_moengage_cohort.core.text import iso_utc
from target_moengage_cohort.ledger.control.history_reader import ERROR
from target_moengage_cohort.ledger.records import HistoryEntry, RunProgress

if t.TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from target_moengage_cohort.ledger.control.changes import Changes
    from target_moengage_cohort.ledger.control.database import Transaction
    from target_moengage_cohort.ledger.control.owner import Owner
    from target_moengage_cohort.ledger.records import CohortEntry, RunEntry

RETENTION = timedelta(days=400)
_decode_progress = msgspec.json.Decoder(RunProgress).decode


class History:
    """The runs and commands of the store's partner; one run at a time is under way here."""

    def __init__(self, control: Owner, changes: Changes) -> None:
        self._control, self._changes = control, changes
        self._database = control.database
        self._is_under_way = False
        self._outcome: tuple[HistoryEntry, list[HistoryEntry], Mapping[int, RunEntry]] | None = None

    def write_progress(self, progress: RunProgress) -> None:
        """Record how far a run is; the first time, that it has begun."""
        text = _encode(progress)
        with self._database.change("progress") as transaction:
            number = self._begin(transaction, progress.run_id, progress.started_at)
            query = "UPDATE runs SET progress = ? WHERE run_id = ?"
            transaction.run(query, [text, progress.run_id])
        self._control.note_committed(run=number)
        self._is_under_way = True

    def _begin(self, transaction: Transaction, run_id: str, started_at: str) -> int:
        """Record that a run has begun, unless it is recorded; return its number."""
        rows = transaction.run("SELECT number FROM runs WHERE run_id = ?", [run_id])
        if not rows:
            query = "UPDATE store SET last_run = last_run + 1 RETURNING last_run"
            rows = transaction.run(query)
            transaction.run(
                "INSERT INTO runs (number, run_id, partner, started_at, started_by, host)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                [*rows[0], run_id, self._control.partner, started_at, *origin()],
            )
        return int(rows[0][0])

    def under_way(self) -> list[RunProgress]:
        """Return the latest progress of the runs that have not ended, of dead processes, too."""
        query = (
            "SELECT progress FROM runs WHERE finished_at IS NULL AND progress IS NOT NULL"
            " AND partner = ? ORDER BY number"
        )
        rows = self._database.rows(query, [self._control.partner])
        return [_decode_progress(text) for (text,) in rows]

    def finish(
        self,
        run: HistoryEntry,
        cohorts: Iterable[HistoryEntry],
        entries: Mapping[int, RunEntry],
    ) -> None:
        """Record the outcome of a run, in its cohorts, too, by their numbers; delete old ones."""
        now, run_id = self._now(), run.run_id
        run, cohorts = replace(run, finished_at=now), [*cohorts]
        self._outcome = run, cohorts, entries
        with self._database.change("finish run") as transaction:
            self._control.write_new(transaction)
            number = self._begin(transaction, run_id, run.at)
            self._end(transaction, run)
            transaction.run_many(
                "UPDATE cohorts SET last_run = ? WHERE number = ?",
                [(_encode(entry), number) for number, entry in entries.items()],
            )
            transaction.run_many(
                "INSERT INTO run_cohorts (run_id, cohort_id, entry) VALUES (?, ?, ?)"
                " ON CONFLICT (run_id, cohort_id) DO UPDATE SET entry = excluded.entry",
                [
                    (run_id, entry.cohort_id, _encode(replace(entry, finished_at=now)))
                    for entry in cohorts
                ],
            )
            old = self._now(-RETENTION)
            is_old = "finished_at < ? OR finished_at IS NULL AND started_at < ?"
            for query in (
                f"DELETE FROM run_cohorts WHERE run_id IN (SELECT run_id FROM runs WHERE {is_old})",
                f"DELETE FROM runs WHERE {is_old}",
            ):
                transaction.run(query, [old, old])
            self._drop_old_actions(transaction)
            self._changes.drop_old(transaction)
        self._control.note_committed(run=number)
        self._is_under_way = False

    def _end(self, transaction: Transaction, run: HistoryEntry) -> None:
        transaction.run(
            "UPDATE runs SET finished_at = ?, progress = NULL, entry = ? WHERE run_id = ?",
            [run.finished_at, _encode(run), run.run_id],
        )

    def end(self, error: str | None) -> None:
        """Record that this run is no longer under way, with the code of a late error."""
        if self._outcome is not None:
            run, cohorts, entries = self._outcome
            if error is not None:
                run = replace(run, status="failed", error=error)
            if error is not None or self._is_under_way:  # else it is recorded
                self.finish(run, cohorts, entries)
        elif self._is_under_way:
            query = "SELECT started_at FROM runs WHERE run_id = ?"
            ((at,),) = self._database.rows(query, [self._control.run_id])
            run = HistoryEntry(kind="run", at=at, run_id=self._control.run_id, status="failed")
            self.finish(replace(run, error=error or "internal_error"), [], {})

    def note_action(
        self,
        kind: str,
        entry: CohortEntry | None,
        counts: Mapping[str, int],
        status: str,
        error: str | None = None,
    ) -> None:
        """Record a command, of one cohort or of all; delete records that are too old."""
        details: dict[str, int | str] = {**counts}
        if error is not None:
            details[ERROR] = error
        with self._database.change("note action") as transaction:
            self.add_action(transaction, kind, entry, details, status=status)

    def last_actions(self, kind: str) -> dict[str, int]:
        """Return the rising number of a command's latest record, by the cohort's id."""
        query = (
            "SELECT cohort_id, max(number) FROM operator_actions WHERE kind = ? AND partner = ?"
            " AND cohort_id IS NOT NULL GROUP BY cohort_id"
        )
        return dict(self._database.rows(query, [kind, self._control.partner]))

    def add_action(
        self,
        transaction: Transaction,
        kind: str,
        entry: CohortEntry | None,
        details: Mapping[str, int | str],
        *,
        status: str = "succeeded",
        stream: str | None = None,
    ) -> None:
        """Do so within a change; a command of no single cohort may be of a stream."""
        cohort_id, stream = (None, stream) if entry is None else (entry.cohort_id, entry.stream)
        transaction.run(
            "INSERT INTO operator_actions (number, kind, done_at, done_by, host, partner,"
            " cohort_id, stream, details, run_id, status) SELECT coalesce(max(number), 0) + 1,"
            " ?, ?, ?, ?, ?, ?, ?, ?, ?, ? FROM operator_actions",
            [
                *(kind, self._now(), *origin(), self._control.partner, cohort_id, stream),
                *(_encode(details), self._control.run_id, status),
            ],
        )
        self._drop_old_actions(transaction)

    def _drop_old_actions(self, transaction: Transaction) -> None:
        # The latest one stays until the next: no number is used twice, for those who load them.
        transaction.run(
            "DELETE FROM operator_actions WHERE done_at < ?"
            " AND number < (SELECT max(number) FROM operator_actions)",
            [self._now(-RETENTION)],
        )

    def _now(self, change: timedelta = timedelta()) -> str:
        return iso_utc(self._control.clock() + change.total_seconds())


def _encode(value: object) -> str:
    return msgspec.json.encode(value).decode()


def origin() -> tuple[str, str]:
    """Return the user of this process, and its host."""
    return user(), socket.gethostname()


def user() -> str:
    """Return the name of the user who runs this process."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # as in containers
        return str(os.getuid())
