"""The interface between control and the database that keeps it."""

from __future__ import annotations

import typing as t

if t.TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

Rows: t.TypeAlias = list[tuple[t.Any, ...]]


class Transaction(t.Protocol):
    """One transaction; its changes become durable together."""

    def run(self, statement: str, values: Sequence[object] = ()) -> Rows:
        """Execute a statement, whose values are marked by ``?``, and return its rows."""

    def run_many(self, statement: str, rows: Sequence[Sequence[object]]) -> None:
        """Execute a statement once for each row of values."""


class Database(t.Protocol):
    """A database for all threads of one process, which other processes use at the same time.

    Changes are made one after the other, by all processes. After a `LedgerError` it is unknown what
    was recorded, so nothing more is read or changed.
    """

    place: str  # for messages
    read_only: bool
    first_change: Callable[[], None]  # called before it, once
    guard: Callable[[Transaction], None]  # called in each change; refuses it by an error

    @property
    def exists(self) -> bool:
        """Whether there is such a database."""

    @property
    def has_changed(self) -> bool:
        """Whether this process has changed it, and it is open and without an error."""

    def open(self, create: Callable[[Transaction], None]) -> None:
        """Open it, unless a part of it is missing; `create` makes the tables of a new one."""

    def rows(self, query: str, values: Sequence[object] = ()) -> Rows:
        """Return the rows of a query, as of the latest change; none if it does not exist."""

    def change(self, name: str) -> AbstractContextManager[Transaction]:
        """Make changes in one transaction; they are durable when this ends."""

    def check_lease(self) -> None:
        """Raise a `LedgerError` unless the leases outlive an attempt at a request.

        To be called from any thread, right before the attempt.
        """

    def close(self) -> None:
        """Close it in whatever state it is."""
