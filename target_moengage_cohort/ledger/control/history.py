"""The history: runs, their progress while they are under way, and the operators' commands."""

from __future__ import annotations

import os
import pwd
import socket
import typing as t
from datetime import UTC, datetime, timedelta

import msgspec

from target_moengage_cohort.ledger.records import RunProgress

if t.TYPE_CHECKING:
    from collections.abc import Mapping

    from target_moengage_cohort.ledger.control.control import Control
    from target_moengage_cohort.ledger.control.database import Transaction
    from target_moengage_cohort.ledger.records import CohortEntry, RunEntry

RETENTION = timedelta(days=400)
_decode_progress = msgspec.json.Decoder(RunProgress).decode


class History:
    """The runs and commands of the store's partner; one run at a time is under way here."""

    def __init__(self, control: Control) -> None:
        self._control = control
        self._database = control.database
        self._is_under_way = False

    def write_progress(self, progress: RunProgress) -> None:
        """Record how far a run is; the first time, that it has begun."""
        text = msgspec.json.encode(progress).decode()
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
                "INSERT INTO runs (number, run_id, partner, started_at) VALUES (?, ?, ?, ?)",
                [*rows[0], run_id, self._control.partner, started_at],
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

    def finish(self, entries: Mapping[int, RunEntry]) -> None:
        """Record the outcome of a run for some cohorts, by their numbers; delete old runs."""
        run_id, started_at = next((each.run_id, each.started_at) for each in entries.values())
        now = datetime.now(UTC)
        texts = {number: msgspec.json.encode(entry).decode() for number, entry in entries.items()}
        changed = [number for number, entry in entries.items() if entry.added or entry.removed]
        with self._database.change("finish run") as transaction:
            self._control.write_new(transaction)
            number = self._begin(transaction, run_id, started_at)
            transaction.run(
                "UPDATE runs SET finished_at = ?, progress = NULL WHERE run_id = ?",
                [now.isoformat(timespec="seconds"), run_id],
            )
            transaction.run_many(
                "UPDATE cohorts SET last_run = ? WHERE number = ?",
                [(text, number) for number, text in texts.items()],
            )
            transaction.run_many(
                "INSERT INTO run_cohorts (run_id, cohort, entry) VALUES (?, ?, ?)"
                " ON CONFLICT (cohort, run_id) DO UPDATE SET entry = excluded.entry",
                [(run_id, number, texts[number]) for number in changed],
            )
            old = (now - RETENTION).isoformat(timespec="seconds")
            transaction.run(
                "DELETE FROM run_cohorts WHERE run_id IN"
                " (SELECT run_id FROM runs WHERE finished_at < ?)",
                [old],
            )
            transaction.run("DELETE FROM runs WHERE finished_at < ?", [old])
        self._control.note_committed(run=number)
        self._is_under_way = False

    def end(self, run_id: str) -> None:
        """Record that a run is no longer under way, however it ended."""
        if not self._is_under_way:
            return
        with self._database.change("end run") as transaction:
            transaction.run(
                "UPDATE runs SET finished_at = coalesce(finished_at, ?), progress = NULL"
                " WHERE run_id = ?",
                [datetime.now(UTC).isoformat(timespec="seconds"), run_id],
            )

    def note_action(self, kind: str, entry: CohortEntry | None, counts: Mapping[str, int]) -> None:
        """Record a command, of one cohort or of all; delete records that are too old."""
        with self._database.change("note action") as transaction:
            self.add_action(transaction, kind, entry, counts)

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
        counts: Mapping[str, int],
        stream: str | None = None,
    ) -> None:
        """Do so within a change; a command of no single cohort may be of a stream."""
        now = datetime.now(UTC)
        when, old = (each.isoformat(timespec="seconds") for each in (now, now - RETENTION))
        cohort_id, stream = (None, stream) if entry is None else (entry.cohort_id, entry.stream)
        row = [kind, when, user(), socket.gethostname(), self._control.partner, cohort_id, stream]
        transaction.run("DELETE FROM operator_actions WHERE done_at < ?", [old])
        transaction.run(
            "INSERT INTO operator_actions (number, kind, done_at, done_by, host, partner,"
            " cohort_id, stream, details) SELECT coalesce(max(number), 0) + 1,"
            " ?, ?, ?, ?, ?, ?, ?, ? FROM operator_actions",
            [*row, msgspec.json.encode(counts).decode()],
        )


def user() -> str:
    """Return the name of the user who runs this process."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # as in containers
        return str(os.getuid())
