"""The one place that names the engines which keep ledgers."""

from __future__ import annotations

import re
import time
import typing as t

from target_moengage_cohort.core.errors import SettingsError
from target_moengage_cohort.core.interrupts import Patience
from target_moengage_cohort.ledger.duckdb.store import LocalStore

if t.TYPE_CHECKING:
    from collections.abc import Callable

    from target_moengage_cohort.core.files import Step
    from target_moengage_cohort.ledger.interface import LedgerStore
    from target_moengage_cohort.settings import Settings


def _postgres_store(settings: Settings, **options: t.Any) -> LedgerStore:
    """Return a store on a server; its library is imported for it, because few have installed it."""
    try:
        from target_moengage_cohort.ledger.postgres.postgres_store import (  # noqa: PLC0415
            PostgresStore,
        )
    except ImportError as error:
        if (error.name or "psycopg").partition(".")[0] != "psycopg":  # none if it lacks libpq
            raise
        msg = (
            "ledger_uri: PostgreSQL needs a library that is not installed; run: "
            "pip install 'target-moengage-cohort[postgres]'"
        )
        raise SettingsError("missing_extra", msg) from None
    return PostgresStore(settings, **options)


ENGINES: dict[str, Callable[..., LedgerStore]] = {  # by the URI's scheme; a path has none
    "": LocalStore,
    "file": LocalStore,
    "postgresql": _postgres_store,
    "postgres": _postgres_store,
}


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

    Raise a `SettingsError` if it names none. A read-only store creates and changes nothing but
    locks. `wait` waits for some seconds and returns whether the run should end instead. Other runs
    see `run_id` while they wait `busy_seconds` for a stream's lease. `clock` returns seconds since
    1970.
    """
    return _engine_of(settings.ledger_uri)(
        settings,
        run_id=run_id,
        read_only=read_only,
        step=step,
        clock=clock,
        patience=Patience(wait, busy_seconds),
    )


def _engine_of(uri: str | None) -> Callable[..., LedgerStore]:
    """Return the engine for a URI; no error quotes it, because it may contain a password."""
    match = re.match(r"([a-z][a-z0-9+.-]+):", uri or "", re.IGNORECASE)
    scheme = match[1].lower() if match else ""
    if scheme in ENGINES:
        return ENGINES[scheme]
    known = ", ".join(f"{each}://" for each in ENGINES if each)
    msg = f"ledger_uri: has an unknown scheme; use a path, or a URL with one of the schemes {known}"
    raise SettingsError("invalid_value", msg)
