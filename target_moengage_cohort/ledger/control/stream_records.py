"""The streams of the store: their runs, versions and files."""

from __future__ import annotations

import typing as t

if t.TYPE_CHECKING:
    from target_moengage_cohort.ledger.control.control import Control


class StreamRecords:
    """What the store knows of its partner's streams."""

    def __init__(self, control: Control) -> None:
        self._database = control.database
        self._partner = control.partner

    def names(self) -> list[str]:
        """Return the partner's streams, sorted."""
        return sorted(stream for partner, stream in self.all_names() if partner == self._partner)

    def all_names(self) -> list[tuple[t.Any, ...]]:
        """Return all partners and streams."""
        query = "SELECT partner, stream FROM streams UNION SELECT partner, stream FROM cohorts"
        return self._database.rows(query)

    def fact(self, stream: str, column: str) -> t.Any:
        """Return a fact of a stream, or ``None``."""
        query = f"SELECT {column} FROM streams WHERE partner = ? AND stream = ?"
        rows = self._database.rows(query, [self._partner, stream])
        return rows[0][0] if rows else None

    def has_members(self, stream: str) -> bool:
        """Return whether the stream has a file of members."""
        return bool(self.fact(stream, "has_members"))

    def note_stream(self, stream: str, **facts: object) -> None:
        """Record facts of a stream."""
        with self._database.change("note stream") as transaction:
            transaction.run(
                "INSERT INTO streams (partner, stream, has_members) VALUES (?, ?, 0)"
                " ON CONFLICT DO NOTHING",
                [self._partner, stream],
            )
            columns = ", ".join(f"{name} = ?" for name in facts)
            query = f"UPDATE streams SET {columns} WHERE partner = ? AND stream = ?"
            transaction.run(query, [*facts.values(), self._partner, stream])

    def begin(self, stream: str, run_id: str) -> None:
        """Record that a run reads the stream, if it has not been recorded."""
        former, key = self.fact(stream, "latest_run"), [self._partner, stream]
        if former == run_id:
            return
        with self._database.change("note stream") as transaction:
            transaction.run(
                "INSERT INTO streams (partner, stream, has_members, latest_run)"
                " VALUES (?, ?, 0, ?) ON CONFLICT (partner, stream)"
                " DO UPDATE SET latest_run = excluded.latest_run",
                [*key, run_id],
            )
            transaction.run(
                "INSERT INTO run_streams (run_id, partner, stream) VALUES (?, ?, ?)",
                [run_id, *key],
            )
            transaction.run(
                "DELETE FROM run_streams WHERE run_id = ?"
                " AND NOT EXISTS (SELECT 1 FROM streams WHERE latest_run = ?)",
                [former, former],
            )

    def companions(self, stream: str) -> set[str]:
        """Return the streams of the run that has read the stream last; none if there was none."""
        query = "SELECT stream FROM run_streams WHERE partner = ? AND run_id = ?"
        rows = self._database.rows(query, [self._partner, self.fact(stream, "latest_run")])
        return {name for (name,) in rows}

    def use_version(self, stream: str, version: int, run_id: str) -> bool:
        """Record that a run has seen a version; return whether no other run has before."""
        key = [self._partner, stream, str(version)]  # text: it may have more than 64 bits
        query = "SELECT run_id FROM versions WHERE partner = ? AND stream = ? AND version = ?"
        if self._database.read_only:
            return not self._database.rows(query, key)
        with self._database.change("use version") as transaction:
            transaction.run(
                "INSERT INTO versions (partner, stream, version, run_id) VALUES (?, ?, ?, ?)"
                " ON CONFLICT DO NOTHING",
                [*key, run_id],
            )
            ((first,),) = transaction.run(query, key)
        return bool(first == run_id)
