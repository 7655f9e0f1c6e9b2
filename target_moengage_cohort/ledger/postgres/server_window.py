"""The rate limits that the hosts of a server share: windows of starts, by the server's clock."""

from __future__ import annotations

import typing as t

from target_moengage_cohort.core.rate_limits import COHORT_SYNC
from target_moengage_cohort.ledger.postgres.connection import Channel
from target_moengage_cohort.ledger.postgres.server_tables import lock_number

if t.TYPE_CHECKING:
    from collections.abc import Sequence

    from target_moengage_cohort.core.rate_limits import RateLimit
    from target_moengage_cohort.ledger.control.database import Rows
    from target_moengage_cohort.ledger.postgres.ledger_server import Server

_LOCK = "SELECT pg_advisory_xact_lock({lock})"
_NOW = "extract(epoch FROM clock_timestamp())::DOUBLE PRECISION"
_SWEEP = (
    f"DELETE FROM pace WHERE until <= {_NOW};"
    f" UPDATE pace SET until = {_NOW} + seconds WHERE until > {_NOW} + seconds"
)
_ADD = f"INSERT INTO pace (kind, seconds, until) VALUES (?, ?, {_NOW} + ?)"
_ACQUIRE = (
    f"WITH now AS MATERIALIZED (SELECT {_NOW} AS at), blocked AS MATERIALIZED ("
    "SELECT max(until) AS until FROM (SELECT until FROM pace WHERE kind = ?{full}) AS each),"
    " added AS (INSERT INTO pace (kind, seconds, until) SELECT ?, ?, at + ?"
    " FROM now, blocked, generate_series(1, ?) WHERE until IS NULL OR until <= at)"
    " SELECT greatest(coalesce(until - at, 0), 0), at + ? FROM now, blocked"
)
_GIVE_BACK = (
    "DELETE FROM pace WHERE ctid IN (SELECT ctid FROM pace WHERE kind = ? AND until = ? LIMIT ?)"
)
_FULL = (
    " UNION ALL (SELECT until - seconds + ? FROM pace WHERE kind = ?"
    " ORDER BY until DESC LIMIT 1 OFFSET ?)"
)


class ServerWindow:
    """A `SharedWindow`, which all processes with this server's store share."""

    def __init__(self, server: Server, limit: RateLimit) -> None:
        self._channel = Channel(server, writes=True)
        self._lock = _LOCK.format(lock=lock_number(f"{server.schema} pace"))
        self._start, self._hold = f"{limit.name} start", f"{limit.name} hold"
        if limit.name == COHORT_SYNC:  # as earlier versions call them, which may share the table
            self._start, self._hold = "start", "hold"
        self._limit = limit
        self._acquire = _ACQUIRE.format(full=_FULL * len(limit.spans))
        self._until = 0.0  # when the latest permits expire

    def acquire(self, count: int = 1) -> float:
        """See `SharedWindow.acquire`."""
        longest, values = self._limit.longest, list[object]([self._hold])
        for span in self._limit.spans:
            values += (span.seconds, self._start, span.requests - count)
        values += (self._start, longest, longest, count, longest)
        ((wait, until),) = self._change(self._acquire, values)
        if not wait:
            self._until = until
        return float(wait)

    def give_back(self, count: int) -> None:
        """See `SharedWindow.give_back`."""
        self._change(_GIVE_BACK, [self._start, self._until, count])

    def hold(self, seconds: float) -> None:
        """See `SharedWindow.hold`."""
        self._change(_ADD, [self._hold, seconds, seconds])

    def _change(self, statement: str, values: Sequence[object]) -> Rows:
        channel = self._channel
        with channel.lock, channel.translated():
            change = f"{self._lock}; {_SWEEP}; {channel.bound(statement, values)}"
            return channel.transact(change)  # executed again, at worst a start counts twice

    def close(self) -> None:
        """See `SharedWindow.close`."""
        self._channel.close()
