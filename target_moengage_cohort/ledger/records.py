"""The frozen values that a ledger takes and returns, independent of its engine."""

from __future__ import annotations

import enum
import typing as t
from datetime import datetime

import msgspec

from target_moengage_cohort.core.membership import Cohort

if t.TYPE_CHECKING:
    from collections.abc import Container

    from target_moengage_cohort.core.membership import Action, Member

FORMAT = 6


class RequestState(enum.StrEnum):
    """The state of a request; one letter, so that an answer does not move the row in control."""

    SENT = "s"
    ACCEPTED = "a"
    REFUSED = "r"  # so that none of it was applied
    UNANSWERED = "u"  # it may have been applied, but gets no answer


class MemberSet(msgspec.Struct, frozen=True):
    """The size and the digest of a set of members."""

    count: int
    digest: str  # keyed, of members in any order: equal sets of one store have equal digests


EMPTY_SET = MemberSet(0, "0" * 32)


class LedgerCounts(msgspec.Struct, frozen=True):
    """A cohort's ledger in numbers of members."""

    accepted: MemberSet  # their addition was accepted, and no later removal
    in_doubt: int  # unconfirmed: their last request got no answer
    base: int  # accepted, unconfirmed or both


NO_MEMBERS = LedgerCounts(EMPTY_SET, 0, 0)


class FoldedCohort(msgspec.Struct, frozen=True):
    """A cohort whose requests up to one, the mark, are folded into its members."""

    number: int
    mark: int
    counts: LedgerCounts

    @property
    def row(self) -> tuple[int, int, str, int, int]:
        """The mark and the numbers, as they are in tables."""
        accepted = self.counts.accepted
        return self.mark, accepted.count, accepted.digest, self.counts.in_doubt, self.counts.base

    def is_ahead(self, mark: int, requests: Container[int]) -> bool:
        """Return whether these members are ahead of control's mark as after a crash in a fold.

        Then control still has the request of this mark among its requests.
        """
        return self.mark > mark and self.mark in requests


class RunEntry(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of one run for a cohort."""

    run_id: str
    started_at: str
    finished_at: str
    status: str
    sync_mode: str
    complete: str
    records: int
    added: int
    removed: int


class CohortEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A cohort that has a ledger, with its numbers as of the last fold."""

    number: int  # unique in the store
    cohort_id: str
    name: str  # changes only by `CohortLedger.rename`
    description: str | None  # the latest one
    stream: str  # the one that populates the cohort
    counts: LedgerCounts
    last_timestamp: int = 0  # the latest request's or later, in milliseconds; 0 without any
    revision: int = 0  # rises with every request and every other change that makes plans outdated
    mark: int = 0  # the last request that was folded
    is_sealed: bool = False  # whether this one_time cohort is finished
    is_retired: bool = False
    is_partial: bool = False  # whether it may have members from before any were kept
    last_run: RunEntry | None = None
    synced_at: float | None = None  # the last successful sync, in seconds since 1970
    unfolded: int = 0  # requests that are not folded yet
    has_members: bool = False  # whether the members of its stream are kept

    @property
    def cohort(self) -> Cohort:
        """The cohort with the values that MoEngage gets."""
        return Cohort(self.cohort_id, self.name, self.description)

    @property
    def is_settled(self) -> bool:
        """Whether no member is known to be unconfirmed."""
        return not (self.counts.in_doubt or self.unfolded)


class Holder(msgspec.Struct, frozen=True, kw_only=True):
    """The process and run that hold a stream's lease, and since when in UTC."""

    pid: int
    host: str
    run_id: str
    since: str

    def __str__(self) -> str:
        return f"run {self.run_id} (process {self.pid} on {self.host}, since {self.since})"


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """What is wrong with a file of members."""

    code: str
    message: str  # a clause without an identifier
    path: str
    stream: str | None = None  # none if no stream has the file
    cohort_id: str | None = None


class PlanKind(enum.StrEnum):
    """The reason why a plan was not carried out."""

    WAITING = "waiting"  # pending until `confirm`, which proves that the tap has succeeded
    WITHHELD = "withheld"  # held back until someone confirms it
    REPLACED = "replaced"  # was withheld; newer rows were read, but its removals can be approved


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """Changes that a run computed but did not send, with their numbers of members."""

    plan_id: str  # names the plan for `confirm`; the same changes have the same id
    kind: PlanKind
    run_id: str
    stream: str
    made_at: float  # in seconds since 1970
    revision: int  # the ledger's at the end of that run; with another one the plan is outdated
    base: int  # accepted or unconfirmed before that run sent anything
    additions: int
    removals: int  # aliases included
    leaving: int  # as in `DiffCounts`
    desired: int  # in the cohort afterwards
    max_removal_percent: int  # the guard's setting for the stream
    seals: bool = False  # whether a one_time cohort is finished when this was carried out
    replaced_at: float = 0.0  # when newer rows were read, in seconds since 1970; 0 if none were


class Approval(msgspec.Struct, frozen=True):
    """An approval of a plan's removals: the guard lets them pass."""

    plan_id: str
    approved_by: str  # the user of the process
    expires_at: float  # in seconds since 1970


class Pause(msgspec.Struct, frozen=True):
    """A pause: nothing is sent for the stream."""

    stream: str | None  # none if it holds for all streams
    paused_at: float  # in seconds since 1970
    paused_by: str  # the user of the process
    host: str


class RunProgress(msgspec.Struct, frozen=True, kw_only=True):
    """How far a run is."""

    run_id: str
    pid: int
    host: str
    started_at: str  # in UTC
    streams: list[str]  # those met so far
    records: int  # lines of the input that were read
    accepted: int  # changes that MoEngage accepted
    requests: int  # requests started


class HistoryEntry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A run, what it did to one cohort, or a command; ``None`` is unknown or not there."""

    kind: str  # "run", or the command's name
    at: str  # when it began, or when the command was recorded, as ISO 8601 in UTC
    run_id: str  # of the run or command, as in its report
    stream: str | None = None  # the only one
    cohort_id: str | None = None  # the only one
    status: str  # that of the report; "running", or "unfinished" if the process has died
    added: int | None = None
    removed: int | None = None
    user: str = ""  # the user of the process
    host: str = ""
    warnings: tuple[str, ...] = ()  # their codes, each once
    error: str | None = None  # its code
    finished_at: str | None = None
    exit_code: int | None = None
    streams: tuple[str, ...] = ()  # all of the run's
    cohorts: int | None = None  # how many the run has touched
    sync_mode: str | None = None  # that of all its cohorts
    complete: str | None = None  # the proof of all its cohorts that their input is complete
    records: int | None = None
    rejected: int = 0
    removals_waiting: int = 0
    removals_withheld: int = 0
    in_doubt: int = 0
    accepted: int | None = None  # members afterwards; of a run, those of the cohorts it touched
    turnover_percent: float | None = None  # members added and removed, of those there before
    requests: int | None = None
    retries: int = 0
    throttled_seconds: float = 0.0
    counts: dict[str, int] = {}  # the numbers of a command
    number: int = 0  # rises with runs, and with commands

    @property
    def duration_seconds(self) -> float | None:
        """How long the run took."""
        if self.finished_at is None:
            return None
        began, ended = map(datetime.fromisoformat, (self.at, self.finished_at))
        return round((ended - began).total_seconds(), 3)


class MemberChange(msgspec.Struct, frozen=True, kw_only=True):
    """An accepted change of one member; a number and a position in it are never used again."""

    run_id: str  # of the run or command
    number: int
    position: int
    stream: str
    cohort_id: str
    action: str  # add or remove
    uid: str | None
    anonymous_id: str | None
    accepted_at: str  # as ISO 8601 in UTC


class RefusedDoubt(enum.Enum):
    """An unconfirmed member that MoEngage refused alone; it is to be removed from then on."""

    NEW = "new"  # refused for the first time since it was in doubt
    KNOWN = "known"  # refused before, in another run


class Expected(msgspec.Struct, frozen=True):
    """The expected membership of a member."""

    action: Action | None  # the last one accepted or queued; ``None`` if it is unconfirmed
    member: Member | None  # the identifiers of that action, if they are known


class DiffCounts(msgspec.Struct, frozen=True, kw_only=True):
    """A snapshot compared with a ledger, in numbers of members."""

    desired: MemberSet = EMPTY_SET  # in the snapshot
    accepted: MemberSet = EMPTY_SET
    in_doubt: int = 0  # unconfirmed
    base: int = 0  # accepted, unconfirmed or both
    joining: int = 0  # in the snapshot, but neither accepted nor unconfirmed
    additions: int = 0  # to add
    removals: int = 0  # to remove, aliases included
    approved: int = 0  # of them those that are approved; the guard does not count them
    leaving: int = 0  # others of the base that are removed, or stay but lose an alias
    unchanged: int = 0  # in the snapshot, but need no request
    linked: int = 0  # known by an anonymous id that now goes with a uid; nothing is sent for them
