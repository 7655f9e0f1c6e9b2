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

    def latest_run(self, stream: str) -> str | None:
        """Return the latest run that has begun to read a stream, if there is one."""
        rows = self._stream(stream, "latest_run")
        return rows[0][0] if rows else None

    def has_members(self, stream: str) -> bool:
        """Return whether the stream has a file of members."""
        rows = self._stream(stream, "has_members")
        return bool(rows and rows[0][0])

    def last_timestamp(self, stream: str) -> int:
        """Return the latest timestamp that was reserved for a stream, in milliseconds, or 0."""
        rows = self._stream(stream, "last_timestamp")
        return (rows[0][0] or 0) if rows else 0

    def _stream(self, stream: str, column: str) -> list[tuple[t.Any, ...]]:
        query = f"SELECT {column} FROM streams WHERE partner = ? AND stream = ?"
        return self._database.rows(query, [self._partner, stream])

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
