"""The one place that names the engines which keep ledgers."""

from __future__ import annotations

import time
import typing as t

from target_moengage_cohort.ledger.control.sqlite import Patience
from target_moengage_cohort.ledger.duckdb.store import LocalStore

if t.TYPE_CHECKING:
    from collections.abc import Callable

    from target_moengage_cohort.core.files import Step
    from target_moengage_cohort.ledger.interface import LedgerStore
    from target_moengage_cohort.settings import Settings


def open_store(
    settings: Settings,
    *,
    run_id: str,
    wait: Callable[[float], bool],
    read_only: bool = False,
    step: Step = lambda _name: None,
    clock: Callable[[], float] = time.time,
    busy_seconds: float = 30.0,
) -> LedgerStore:
    """Return the ledgers of a destination, kept by the engine that `ledger_uri` names.

    A directory, which is all that `ledger_uri` can name so far, has control in SQLite and members
    in DuckDB. A read-only store creates and changes nothing but locks. `wait` waits for some
    seconds and returns whether the run should end instead. Other runs see `run_id` while they wait
    `busy_seconds` for a stream's lease. `clock` returns seconds since 1970.
    """
    return LocalStore(
        settings,
        run_id=run_id,
        read_only=read_only,
        step=step,
        clock=clock,
        patience=Patience(wait, busy_seconds),
    )
