"""The members on a server: changes of them, each in one transaction, and the reading of all."""

from __future__ import annotations

import contextlib
import itertools
import typing as t
from functools import partial

import psycopg
from psycopg import errors

from target_moengage_cohort.ledger.postgres import copying, server_tables
from target_moengage_cohort.ledger.postgres.connection import Channel

if t.TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from target_moengage_cohort.core.files import Step
    from target_moengage_cohort.ledger.postgres.lease_rows import LeaseRows
    from target_moengage_cohort.ledger.postgres.ledger_server import Server

_SECONDS = 3600
"""The longest statement that needs nothing of this process: it may read a hundred million rows."""
_IDLE_SECONDS = 60
"""After that the server ends the transaction of a process that was stopped."""
_BEAT_SECONDS = 15.0
"""The time after which the server sees that DuckDB is at work between two statements."""
_LIMIT = "SET LOCAL statement_timeout TO '{:.0f}s'"


class Bulk:
    """The tables of members, through a connection of their own; for one thread at a time."""

    def __init__(self, server: Server, leases: LeaseRows, step: Step, *, read_only: bool) -> None:
        self.place = server.place
        self.channel = Channel(server, writes=not read_only, seconds=leases.seconds)
        self.channel.reconnected = leases.compare
        settings = partial(server.settings, idle_seconds=_IDLE_SECONDS)
        # So a process that is stopped while it copies delays a takeover by no more than a lease.
        self._settings = settings(statement_seconds=int(leases.seconds))
        self._reading_settings = settings(
            statement_seconds=_SECONDS, isolation="REPEATABLE READ READ ONLY"
        )
        self._leases = leases
        self._step = step

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """Read in one transaction, as of one moment."""
        with self.channel.lock, self.channel.translated():
            try:
                self.channel.begin(f"BEGIN; {self._reading_settings}")
                yield
                self.channel.commit()
            except BaseException:
                self.channel.roll_back()
                raise

    @contextlib.contextmanager
    def change(self, name: str) -> Iterator[None]:
        """Change members in one transaction, which fails if a lease is lost."""
        channel = self.channel
        with channel.lock, channel.translated(), self._leases.proven() as proof:
            try:
                rows = channel.begin(f"BEGIN; {self._settings} {proof.lock_statement}")
                proof.check(rows, channel)
                with channel.kept_alive(_BEAT_SECONDS):
                    yield
                if proof.statement:
                    proof.check(channel.run(proof.statement), channel)
                self._step(f"{name}: before commit on the server")
                channel.commit()
            except BaseException:
                channel.roll_back()
                raise
        self._step(f"{name}: committed on the server")

    def repeat(
        self, table: str, columns: Sequence[str], chunks: Iterator[list[str]], *, deletes: bool
    ) -> tuple[int, int]:
        """Insert rows, or delete those with some keys, within a change.

        Return the number of lines, and that of the rows that were changed.
        """
        count = 0

        def lines() -> Iterator[str]:
            nonlocal count
            for chunk in chunks:
                count += len(chunk)
                yield "\n".join([*chunk, ""])

        rest = lines()
        if (first := next(rest, None)) is None:
            return 0, 0
        if deletes:
            self.channel.run(server_tables.GONE)
        all_lines = itertools.chain([first], rest)
        target = "gone" if deletes else table
        changed = copying.copy_in(self.channel, target, columns, all_lines)
        if deletes:
            self.channel.run(_LIMIT.format(_SECONDS))
            ((changed,),) = self.channel.run(server_tables.delete_gone(table), _SECONDS)
            self.channel.run(_LIMIT.format(self._leases.seconds))
        return count, changed

    def vacuum(self) -> None:
        """Let the server use the space of deleted rows for others, if the role may do that."""
        with self.channel.lock, self.channel.translated():
            schema = self.channel.server.quoted_schema
            for table in (*server_tables.MEMBERS, "changes"):
                # A time-out of the role may end it, or its session, as it is in no transaction. The
                # change is committed by then, so its end fails nothing.
                with contextlib.suppress(psycopg.OperationalError, errors.TransactionTimeout):
                    self.channel.run(f"VACUUM {schema}.{table}", _SECONDS)

    def close(self) -> None:
        """Close the connection."""
        self.channel.close()
