"""What the parts of control use of the whole."""

from __future__ import annotations

import typing as t

if t.TYPE_CHECKING:
    from collections.abc import Callable

    from target_moengage_cohort.ledger.control.database import Database, Transaction


class Owner(t.Protocol):
    """Control, as its parts see it."""

    clock: Callable[[], float]  # returns seconds since 1970
    partner: str
    database: Database
    run_id: str  # of the run or command that uses the store

    def note_committed(self, *, run: int = 0, request: int = 0) -> None:
        """Keep the numbers of what this process has committed, in case the store loses it."""

    def write_new(self, transaction: Transaction) -> None:
        """Record the cohorts that are new, within a change."""
