"""A connection to PostgreSQL whose waits for the server end.

A server that is stopped keeps its connections: the network still answers for it. The COMMIT of one
that waits for a standby has no timeout on the server, either.
"""

from __future__ import annotations

import time
import typing as t

import psycopg

if t.TYPE_CHECKING:
    from collections.abc import Callable, Generator

STATEMENT_SECONDS = 60
"""The longest statement, unless one says more."""

_MARGIN_SECONDS = 15.0
"""The server ends a statement itself before that."""
_LAST_SECONDS = 3.0
"""The longest silence in a run that was stopped."""
_LAST_CONNECT_SECONDS = 1.0
"""Likewise, of a server that was asked for a connection: nothing depends on its answer yet."""


class BoundedConnection(psycopg.Connection):
    """A connection that is closed when the server is silent for too long.

    Attributes:
        seconds: How long the statement under way may take.
        is_ending: Returns whether the run was stopped.
    """

    seconds: float = STATEMENT_SECONDS
    is_ending: Callable[[], bool] = staticmethod(lambda: False)

    @classmethod
    def ended_by(cls, is_ending: Callable[[], bool]) -> type[BoundedConnection]:
        """Return the class of connections of a run; `is_ending` returns whether it was stopped."""
        return type(cls.__name__, (cls,), {"is_ending": staticmethod(is_ending)})

    @classmethod
    def _connect_gen(cls, *args: t.Any, **options: t.Any) -> t.Any:
        """Connect likewise, but wait no longer in a run that was stopped.

        psycopg itself bounds each attempt at a host (`connect_timeout`).
        """
        attempt, since = super()._connect_gen(*args, **options), time.monotonic()
        try:
            wanted = next(attempt)
            while True:
                if ready := (yield wanted):
                    since = time.monotonic()
                elif time.monotonic() - since > _LAST_CONNECT_SECONDS and cls.is_ending():
                    raise psycopg.OperationalError
                wanted = attempt.send(ready)
        except StopIteration as end:
            return end.value

    def wait(self, gen: t.Any, *args: t.Any, **options: t.Any) -> t.Any:
        """Wait likewise, but not for longer."""
        return super().wait(self._bounded(gen), *args, **options)

    def _bounded(self, gen: t.Any) -> Generator[t.Any, t.Any, t.Any]:
        silence = Silence(self)
        try:
            wanted = next(gen)
            while True:
                if ready := (yield wanted):
                    silence = Silence(self)
                else:
                    silence.check()
                wanted = gen.send(ready)
        except StopIteration as end:
            return end.value


class Silence:
    """The time from now on in which the server does not answer."""

    def __init__(self, connection: BoundedConnection) -> None:
        self._connection = connection
        self._since = time.monotonic()

    def check(self) -> None:
        """Close the connection and raise an error if it has taken too long."""
        connection, silent = self._connection, time.monotonic() - self._since
        longest = connection.seconds + _MARGIN_SECONDS
        if silent > _LAST_SECONDS and connection.is_ending():
            longest = _LAST_SECONDS
        if silent > longest:
            connection.pgconn.finish()
            raise psycopg.OperationalError
