"""The values that the emulator's modules exchange."""

from __future__ import annotations

import typing as t

import msgspec

Action = t.Literal["add_members", "remove_members"]
Outcome = t.Literal["applied", "applied_late", "late", "dropped", "refused"]
DropReason = t.Literal["cohort_name", "name_taken", "segment_limit", "older", "archived"]
FaultKind = t.Literal["status", "share", "drop_before", "drop_after", "poison"]


class Member(t.NamedTuple):
    """A member of a cohort, with the identifiers of the request that first added it."""

    uid: str | None
    anonymous_id: str | None


class Incoming(msgspec.Struct, frozen=True):
    """A request to MoEngage as received.

    Attributes:
        body: The body, truncated somewhere above the byte limit.
        size: The full length of the body in bytes.
        authorization: The header `Authorization`.
        app_key: The header `MOE-APPKEY`.
        content_type: The header `Content-Type`.
        db_name: The header `MOE-DBNAME`.
    """

    body: bytes
    size: int
    authorization: str | None = None
    app_key: str | None = None
    content_type: str | None = None
    db_name: str | None = None


class CohortSync(msgspec.Struct, frozen=True):
    """A valid request to change a cohort.

    Attributes:
        action: Whether the members are added or removed.
        partner: The partner that syncs the cohort.
        cohort_id: The partner's identifier of the cohort.
        cohort_name: The name of the segment.
        cohort_description: The description of the segment.
        timestamp: The timestamp as sent.
        moment: The timestamp in microseconds since the epoch.
        by_uid: The anonymous id of each member with a uid, by uid.
        by_anonymous_id: The other members, by anonymous id; each value is None.
        members: The number of members in the request.
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
    """A fault that is injected into a request.

    Attributes:
        kind: The kind of fault.
        status: The status of the answer; None closes the connection without an answer.
        applied: Whether the change is applied (or held back as late) in spite of the fault.
        headers: Headers of the answer; they replace those of the same name.
        error_type: The error's type; by default the documented one of the status.
        message: The error's message.
        body: The whole body, instead of a documented error.
        cohort_id: The only cohort that the fault affects.
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
    """The log entry of a request to the Cohort Sync API.

    Attributes:
        number: 1 for the first since the last reset.
        arrived_at: When its body was complete, in seconds since the epoch.
        arrived: The same on the monotonic clock.
        answered: When the answer left (or the connection was closed), on the monotonic clock.
        status: The answer's status; None if there was no answer or the client left before it.
        error_type: The documented type of the error.
        reason: The error's message. A fault's message is left out: it may quote an identifier.
        outcome: The result of the change.
        dropped: Why an accepted change was not applied.
        fault: The injected fault.
        overlapped: Whether another request of its cohort was unanswered when it arrived.
        bytes: The length of its body.
        digest: The hash of the body, in hexadecimal: the same for the same bytes.
        action: `add_members` or `remove_members`; this and the rest are None unless it is valid.
        partner: As sent.
        cohort_id: As sent.
        cohort_name: As sent.
        timestamp: As sent.
        members: The number of members in it.
        changed: The number of members that it added to or removed from the cohort.
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
    def has_succeeded(self) -> bool:
        """Whether it was answered with 200 and its change is applied or held back."""
        return self.status == 200 and self.outcome not in {"dropped", "refused"}  # noqa: PLR2004


class CohortSummary(msgspec.Struct, frozen=True):
    """A cohort of the emulator.

    Attributes:
        partner: As sent.
        cohort_id: As sent.
        name: The segment's name: that of the first request.
        sent_name: The name in the newest request.
        description: That of the first request.
        members: The number of members now.
        late: The number of changes that are still held back.
    """

    partner: str
    cohort_id: str
    name: str
    sent_name: str
    description: str | None
    members: int
    late: int


class Totals(msgspec.Struct, frozen=True):
    """The sums since the last reset.

    Attributes:
        requests: The number of requests to the Cohort Sync API, refused ones included.
        answers: The number of requests by status; `none` counts those without an answer.
        bytes: The length of all bodies.
        members_sent: The number of members in valid requests.
        members_held: The number of members that all cohorts have now.
        cohorts: The number of cohorts now.
        late: The number of changes that are held back now.
        overlapped: Requests that arrived while another of their cohort was unanswered.
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
    """The answer to a request.

    Attributes:
        record: The request's entry in the log; None if it is not logged.
        status: The status; None closes the connection without an answer.
        headers: The answer's headers.
        body: The answer's body.
        delay: Seconds to wait before the answer.
    """

    record: RequestRecord | None
    status: int | None
    headers: dict[str, str]
    body: bytes
    delay: float = 0.0
