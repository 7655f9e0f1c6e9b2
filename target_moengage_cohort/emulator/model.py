"""The values that cross the emulator's inner doors."""

from __future__ import annotations

import time
import typing as t
from dataclasses import dataclass, field
from enum import StrEnum

import msgspec

Action = t.Literal["add_members", "remove_members"]
Outcome = t.Literal["applied", "applied_late", "late", "dropped", "refused"]
DropReason = t.Literal["cohort_name", "name_taken", "segment_limit", "older"]
FaultKind = t.Literal["status", "share", "drop_before", "drop_after", "poison"]


class Order(StrEnum):
    """What decides between two requests of one cohort; the package docstring explains each."""

    ARRIVAL = "arrival"
    LAST_WRITER_WINS = "last-writer-wins"
    DROP_OLDER = "drop-older"
    LATE = "late"


class Clock:
    """Where the emulator takes the time from; a subclass may turn it."""

    def monotonic(self) -> float:
        """Say how many seconds the monotonic clock shows."""
        return time.monotonic()

    def wall(self) -> float:
        """Say how many seconds have passed since the epoch, in UTC."""
        return time.time()


class ManualClock(Clock):
    """A clock that stands still until it is turned.

    Args:
        monotonic: Seconds that the monotonic clock starts with.
        wall: Seconds since the epoch that the wall clock starts with.
    """

    def __init__(self, monotonic: float = 1_000.0, wall: float = 1_800_000_000.0) -> None:
        self._monotonic = monotonic
        self._wall = wall

    def monotonic(self) -> float:
        """Say how many seconds the monotonic clock shows."""
        return self._monotonic

    def wall(self) -> float:
        """Say how many seconds have passed since the epoch, in UTC."""
        return self._wall

    def advance(self, seconds: float) -> None:
        """Turn both clocks on by so many seconds."""
        self._monotonic += seconds
        self._wall += seconds


@dataclass(frozen=True)
class Options:
    """What one emulator is.

    Attributes:
        workspace_id: The user of HTTP Basic, and `MOE-APPKEY`.
        data_api_key: The password of HTTP Basic.
        order: What decides between two requests of one cohort.
        late_after: After how many later requests of its cohort a change that was cut off is
            applied; 0 never holds one back. By default 1 with `Order.LATE`, else 0.
        requests_per_minute: The workspace's limit in any rolling 60 seconds.
        max_payload_bytes: The largest body that is not answered with 413.
        max_cohorts: How many segments the workspace can hold.
        log_size: How many requests are remembered; older ones are forgotten, totals are not.
        clock: Where the time comes from.
    """

    workspace_id: str = "demo-workspace"
    data_api_key: str = "demo-key"
    order: Order = Order.ARRIVAL
    late_after: int | None = None
    requests_per_minute: int = 300
    max_payload_bytes: int = 128_000
    max_cohorts: int = 1_000
    log_size: int = 100_000
    clock: Clock = field(default_factory=Clock)

    def __post_init__(self) -> None:
        """Settle the defaults that depend on others.

        Raises:
            ValueError: If a number is below its least value or the order is unknown.
        """
        object.__setattr__(self, "order", Order(self.order))
        if self.late_after is None:
            object.__setattr__(self, "late_after", int(self.order is Order.LATE))
        for name, least in (
            ("late_after", 0),
            ("requests_per_minute", 1),
            ("max_payload_bytes", 1),
            ("max_cohorts", 1),
            ("log_size", 1),
        ):
            if getattr(self, name) < least:
                msg = f"{name} must be at least {least}"
                raise ValueError(msg)


class Member(t.NamedTuple):
    """A member of a cohort, with the identifiers it was first added with."""

    uid: str | None
    anonymous_id: str | None


class Incoming(msgspec.Struct, frozen=True):
    """A request to MoEngage as it came in.

    Attributes:
        body: The body, cut off somewhere above the byte limit.
        size: The true length of the body in bytes.
        authorization: The header `Authorization`.
        app_key: The header `MOE-APPKEY`.
        content_type: The header `Content-Type`.
    """

    body: bytes
    size: int
    authorization: str | None = None
    app_key: str | None = None
    content_type: str | None = None


class CohortSync(msgspec.Struct, frozen=True):
    """A valid request to change a cohort.

    Attributes:
        action: Whether the members join or leave.
        partner: Who syncs the cohort.
        cohort_id: The partner's identifier of the cohort.
        cohort_name: The name of the segment.
        cohort_description: The description of the segment.
        timestamp: The timestamp as it was sent.
        moment: The timestamp in microseconds since the epoch.
        by_uid: Members that have a uid: it, and the anonymous id beside it.
        by_anonymous_id: The other members; each value is None.
        members: How many members the request lists.
    """

    action: Action
    partner: str
    cohort_id: str
    cohort_name: str
    cohort_description: str | None
    timestamp: str | None
    moment: int | None
    by_uid: dict[str, str | None]
    by_anonymous_id: dict[str, str | None]
    members: int


class Refusal(msgspec.Struct, frozen=True):
    """An error that MoEngage documents: its status, and the fields of its body."""

    status: int
    type: str
    message: str
    attribute: str | None = None


class Fault(msgspec.Struct, frozen=True):
    """What happens to a request on demand.

    Attributes:
        kind: Where the fault comes from.
        status: The status of the answer; None closes the connection without one.
        applied: Whether the change is applied (or held back as late) all the same.
        headers: Headers of the answer; they replace those of the same name.
        error_type: The error's type; by default the one documented for the status.
        message: The error's message.
        body: The whole body, instead of a documented error.
        cohort_id: The only cohort that it happens to.
    """

    kind: FaultKind
    status: int | None = None
    applied: bool = False
    headers: dict[str, str] = {}
    error_type: str | None = None
    message: str | None = None
    body: str | None = None
    cohort_id: str | None = None


class RequestRecord(msgspec.Struct):
    """A request to the Cohort Sync API, as the emulator's log remembers it.

    Attributes:
        number: 1 for the first since the last reset.
        arrived_at: When its body was complete, in seconds since the epoch.
        arrived: The same on the monotonic clock.
        answered: When the answer left (or the connection was closed), on the monotonic clock.
        status: The answer's status; None if there was no answer or nobody waited for it.
        error_type: The documented type of the error.
        reason: The error's message, unless a fault made it: those words may hold an identifier.
        outcome: What became of the change.
        dropped: Why an accepted change was not applied.
        fault: The fault that happened to it.
        overlapped: Whether another request of its cohort was unanswered when it arrived.
        bytes: The length of its body.
        digest: Of the body, in hexadecimal: the same for the same bytes.
        action: `add_members` or `remove_members`; this and the rest are None unless it is valid.
        partner: As sent.
        cohort_id: As sent.
        cohort_name: As sent.
        timestamp: As sent.
        members: How many members it lists.
        changed: How many joined or left the cohort by it.
    """

    number: int
    arrived_at: float
    arrived: float
    bytes: int
    digest: str
    answered: float | None = None
    status: int | None = None
    error_type: str | None = None
    reason: str | None = None
    outcome: Outcome = "refused"
    dropped: DropReason | None = None
    fault: FaultKind | None = None
    overlapped: bool = False
    action: Action | None = None
    partner: str | None = None
    cohort_id: str | None = None
    cohort_name: str | None = None
    timestamp: str | None = None
    members: int | None = None
    changed: int = 0

    @property
    def is_well(self) -> bool:
        """Whether it was answered with 200 and is not lost (it may be held back)."""
        return self.status == 200 and self.outcome not in {"dropped", "refused"}  # noqa: PLR2004


class CohortSummary(msgspec.Struct, frozen=True):
    """A cohort that the emulator holds; `late` counts the changes it still holds back."""

    partner: str
    cohort_id: str
    name: str
    description: str | None
    members: int
    late: int


class Totals(msgspec.Struct, frozen=True):
    """What happened since the last reset.

    Attributes:
        requests: How many requests came to the Cohort Sync API, refused ones included.
        answers: How many of them had each status; `none` counts those without an answer.
        bytes: The length of all bodies.
        members_sent: The members that valid requests listed.
        members_held: The members of all cohorts now.
        cohorts: How many cohorts there are now.
        late: How many changes are held back now.
        overlapped: Requests that came while another of their cohort was unanswered.
        most_unanswered: The largest number of requests that were unanswered at one time.
        largest_window: The largest number of requests in any rolling 60 seconds.
    """

    requests: int
    answers: dict[str, int]
    bytes: int
    members_sent: int
    members_held: int
    cohorts: int
    late: int
    overlapped: int
    most_unanswered: int
    largest_window: int


class Reply(msgspec.Struct, frozen=True):
    """What to answer to a request.

    Attributes:
        record: The request's entry in the log; None if it is not logged.
        status: None closes the connection without an answer.
        headers: The answer's headers.
        body: The answer's body.
        delay: Seconds to wait before the answer.
    """

    record: RequestRecord | None
    status: int | None
    headers: dict[str, str]
    body: bytes
    delay: float = 0.0
