"""What a ledger takes of a cohort to compare it with MoEngage."""

from __future__ import annotations

import msgspec


class Sample(msgspec.Struct, frozen=True):
    """A random sample of the uids of some members."""

    uids: tuple[str, ...]
    population: int  # how many members with a uid it was taken from


class Samples(msgspec.Struct, frozen=True):
    """Samples of a cohort's members; unconfirmed members are in none."""

    accepted: Sample
    removed: Sample  # of the removals that the ledger keeps, and that were not added again
    dropped: int  # how many more removals there may be, which the ledger keeps no longer


class ObservedCounts(msgspec.Struct, frozen=True):
    """An observed membership compared with a cohort's ledger, in numbers of uids."""

    observed: int
    population: int  # accepted members with a uid, without unconfirmed ones
    missing: int  # of these those that were not observed
    kept: int  # the removals that the ledger keeps, of members that were not added again
    removed: int  # of these those that were observed
    strangers: int  # observed, and neither accepted, unconfirmed nor such a removal
