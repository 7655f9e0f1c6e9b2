"""What crosses the ledger's door: frozen values, and nothing of the engine."""

from __future__ import annotations

import enum
import typing as t

import msgspec

from target_moengage_cohort.core.membership import Cohort

if t.TYPE_CHECKING:
    from target_moengage_cohort.core.membership import Action, Member

FORMAT = 1


class MemberSet(msgspec.Struct, frozen=True):
    """How large a set of members is, and which set it is.

    Attributes:
        count: Its members.
        digest: Keyed and independent of their order: equal sets of one cohort have equal digests.
    """

    count: int
    digest: str


class LedgerCounts(msgspec.Struct, frozen=True):
    """What a ledger holds.

    Attributes:
        accepted: Members whose addition was accepted, and no later removal.
        in_doubt: Members of requests that nobody knows the answer to.
        base: Members who are accepted, in doubt, or both.
    """

    accepted: MemberSet
    in_doubt: int
    base: int


class CohortEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A cohort in the ledger's catalogue.

    Attributes:
        partner: Under which partner.
        cohort_id: Its id.
        name: Its name, which never changes in silence.
        description: Its latest description.
        stream: The stream that feeds it.
        is_settled: Whether every request was answered, and the answer is in the ledger's tables.
    """

    partner: str
    cohort_id: str
    name: str
    description: str | None
    stream: str
    is_settled: bool

    @property
    def cohort(self) -> Cohort:
        """The cohort as MoEngage is told of it."""
        return Cohort(self.cohort_id, self.name, self.description)


class PlanKind(enum.StrEnum):
    """Why a plan was not carried out."""

    WAITING = "waiting"
    """For `confirm`, which says that the tap has succeeded."""

    WITHHELD = "withheld"
    """By the guard, until a person overrides it."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """Changes that were worked out but not sent.

    Attributes:
        plan_id: What a person confirms; the same changes have the same id.
        kind: Why it was not carried out.
        run_id: The run that made it.
        stream: The stream that it came from.
        made_at: When, in seconds since 1970.
        revision: The ledger's revision at the end of that run; with another one it is outdated.
        base: How many were accepted, in doubt, or both, before that run sent anything.
        additions: How many members it adds.
        removals: How many members it removes.
        desired: How many members the cohort is to have afterwards.
        max_removal_percent: The guard's setting for the stream.
        seals: Whether carrying it out seals a one_time cohort.
    """

    plan_id: str
    kind: PlanKind
    run_id: str
    stream: str
    made_at: float
    revision: int
    base: int
    additions: int
    removals: int
    desired: int
    max_removal_percent: int
    seals: bool = False


class RunEntry(msgspec.Struct, frozen=True, kw_only=True):
    """What one run did for a cohort."""

    run_id: str
    started_at: str
    finished_at: str
    status: str
    sync_mode: str
    complete: str
    records: int
    added: int
    removed: int


class Expected(msgspec.Struct, frozen=True):
    """What a member's membership is expected to be.

    Attributes:
        action: The last one that was accepted or queued; ``None`` where it is in doubt.
        member: The identifiers that it went with, where they are known.
    """

    action: Action | None
    member: Member | None


class DiffCounts(msgspec.Struct, frozen=True, kw_only=True):
    """A snapshot compared with what a ledger holds, in numbers.

    Attributes:
        desired: Who is in the snapshot.
        accepted: Who is accepted.
        in_doubt: How many members are in doubt.
        base: How many are accepted, in doubt, or both.
        joining: How many of the desired are neither accepted nor in doubt.
        additions: How many must be added.
        removals: How many must be removed.
        unchanged: How many of the desired need no request.
        dropped: Expected by an anonymous id that now stands beside a uid; nothing is sent for them.
    """

    desired: MemberSet
    accepted: MemberSet
    in_doubt: int
    base: int
    joining: int
    additions: int
    removals: int
    unchanged: int
    dropped: int
