"""The part of the ledger's interface that every cohort has, whether its members are kept or not."""

from __future__ import annotations

import enum
import typing as t

if t.TYPE_CHECKING:
    from target_moengage_cohort.core.membership import Action
    from target_moengage_cohort.ledger.records import CohortEntry


class RequestState(enum.StrEnum):
    """The state of a request; one letter, so that an answer does not move the row in control."""

    SENT = "s"
    ACCEPTED = "a"
    REFUSED = "r"  # so that none of it was applied
    UNANSWERED = "u"  # it may have been applied, but gets no answer


class CohortRecord(t.Protocol):
    """The record of one cohort in control.

    Delivery records a request before it leaves, and its answer. The requests of a cohort never
    overlap.
    """

    @property
    def last_timestamp(self) -> int:
        """The latest request's timestamp or a later one, in milliseconds; 0 without any."""

    @property
    def entry(self) -> CohortEntry:
        """The cohort, with its numbers as of the last fold."""

    @property
    def created(self) -> bool:
        """Whether this store has created it."""

    def sent(self, action: Action, members: bytes, count: int, timestamp: int) -> int:
        """Record a request that is about to leave; return its number.

        `members` is the JSON array of its members, of which no two have the same key; `timestamp`
        is in milliseconds since 1970. They are unconfirmed from then on. After an error the request
        must not leave.
        """

    def answered(self, number: int, state: RequestState) -> None:
        """Record what became of a request; durable on return."""
