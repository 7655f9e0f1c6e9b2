"""What is the same in a store and in its copy; frozen values."""

from __future__ import annotations

import msgspec


class StreamFacts(msgspec.Struct, frozen=True):
    """A stream of a store."""

    partner: str
    stream: str
    has_members: bool  # whether the members of its cohorts are kept


class CohortFacts(msgspec.Struct, frozen=True):
    """A cohort of a store in numbers of members; see `LedgerCounts`."""

    partner: str
    cohort_id: str
    stream: str
    accepted: int
    digest: str
    in_doubt: int
    base: int


class StoreFacts(msgspec.Struct, frozen=True):
    """What is the same in a store and in its copy."""

    format: int
    store_id: str
    base_url: str
    workspace_id: str
    last_run: int
    last_request: int
    last_cohort: int
    streams: list[StreamFacts]
    cohorts: list[CohortFacts]
