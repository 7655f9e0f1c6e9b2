"""The rate limit that the hosts of a server share: a window of starts, by the server's clock."""

from __future__ import annotations

import typing as t

from target_moengage_cohort.ledger.postgres.connection import Channel
from target_moengage_cohort.ledger.postgres.server_tables import lock_number

if t.TYPE_CHECKING:
    from collections.abc import Sequence

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
    "SELECT max(until) AS until FROM (SELECT until FROM pace WHERE kind = 'hold' UNION ALL"
    " (SELECT until FROM pace WHERE kind = 'start' ORDER BY until DESC LIMIT 1 OFFSET ?)) AS each),"
    " added AS (INSERT INTO pace (kind, seconds, until) SELECT 'start', ?, at + ?"
    " FROM now, blocked WHERE until IS NULL OR until <= at)"
    " SELECT greatest(coalesce(until - at, 0), 0) FROM now, blocked"
)


class ServerWindow:
    """A `SharedWindow`, which all processes with this server's store share."""

    def __init__(self, server: Server, limit: int, seconds: float) -> None:
        self._channel = Channel(server, writes=True)
        self._lock = _LOCK.format(lock=lock_number(f"{server.schema} pace"))
        self._limit = limit
        self._seconds = seconds

    def acquire(self) -> float:
        """See `SharedWindow.acquire`."""
        values = [self._limit - 1, self._seconds, self._seconds]
        ((wait,),) = self._change(_ACQUIRE, values)
        return float(wait)

    def hold(self, seconds: float) -> None:
        """See `SharedWindow.hold`."""
        self._change(_ADD, ["hold", seconds, seconds])

    def _change(self, statement: str, values: Sequence[object]) -> Rows:
        channel = self._channel
        with channel.lock, channel.translated():
            change = f"{self._lock}; {_SWEEP}; {channel.bound(statement, values)}"
            return channel.transact(change)  # executed again, at worst a start counts twice

    def close(self) -> None:
        """See `SharedWindow.close`."""
        self._channel.close()
