"""What MoEngage has accepted, kept by us: the accepted and in-doubt members of each cohort."""

from target_moengage_cohort.ledger.duckdb.ledger import Ledger
from target_moengage_cohort.ledger.duckdb.run_files import RunProgress, SideFile, runs_under_way
from target_moengage_cohort.ledger.duckdb.store import Ledgers
from target_moengage_cohort.ledger.records import (
    FORMAT,
    CohortEntry,
    DiffCounts,
    Expected,
    LedgerCounts,
    MemberSet,
    Plan,
    PlanKind,
    RunEntry,
)

__all__ = [
    "FORMAT",
    "CohortEntry",
    "DiffCounts",
    "Difference",
    "Expected",
    "Ledger",
    "LedgerCounts",
    "Ledgers",
    "MemberSet",
    "Plan",
    "PlanKind",
    "RunEntry",
    "RunProgress",
    "SideFile",
    "Staging",
    "runs_under_way",
]


def __getattr__(name: str) -> object:
    """Import what only mirrors need when it is asked for."""
    if name in {"Difference", "Staging"}:
        from target_moengage_cohort.ledger.duckdb import staging  # noqa: PLC0415

        return getattr(staging, name)
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)
