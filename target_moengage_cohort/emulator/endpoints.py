"""The control endpoints under `/_emulator`; the package docstring documents them."""

from __future__ import annotations

import abc
import itertools
import typing as t

import msgspec
from starlette.concurrency import iterate_in_threadpool
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from .faults import Latency, Poison, ShareOfErrors
from .model import CohortSummary, Fault, RequestRecord
from .page import overview

if t.TYPE_CHECKING:
    from starlette.requests import Request

    from .faults import Faults
    from .model import Member
    from .state import State

T = t.TypeVar("T")
Handler = t.Callable[["Request"], t.Awaitable[Response]]

_LINES = 10_000
_DEFAULT_LIMIT = 1_000
_JSON = msgspec.json.Encoder()
Count = t.Annotated[int, msgspec.Meta(ge=1)]


class FailNext(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of `faults/status`."""

    status: t.Annotated[int, msgspec.Meta(ge=300, le=599)]
    count: Count = 1
    headers: dict[str, str] = {}
    error_type: str | None = None
    message: str | None = None
    body: str | None = None
    applied: bool = False
    cohort_id: str | None = None

    def fault(self) -> Fault:
        """Return the requested fault."""
        return Fault(
            "status",
            self.status,
            self.applied,
            self.headers,
            self.error_type,
            self.message,
            self.body,
            self.cohort_id,
        )


class DropNext(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of `faults/drop`."""

    when: t.Literal["before", "after"] = "before"
    count: Count = 1
    cohort_id: str | None = None

    def fault(self) -> Fault:
        """Return the requested fault."""
        if self.when == "after":
            return Fault("drop_after", applied=True, cohort_id=self.cohort_id)
        return Fault("drop_before", cohort_id=self.cohort_id)


class Hold(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of `faults/hold`."""

    held: bool


class UseUp(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of `others`."""

    count: Count


class ApplyLate(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of `late`."""

    cohort_id: str | None = None
    partner: str | None = None


class RequestsQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Query of `requests`."""

    cohort_id: str | None = None
    partner: str | None = None
    action: str | None = None
    status: int | None = None
    outcome: str | None = None
    after: int = 0
    limit: Count = _DEFAULT_LIMIT

    def selects(self, record: RequestRecord) -> bool:
        """Return whether the query selects an entry of the log."""
        return (
            record.number > self.after
            and self.cohort_id in {None, record.cohort_id}
            and self.partner in {None, record.partner}
            and self.action in {None, record.action}
            and self.status in {None, record.status}
            and self.outcome in {None, record.outcome}
        )


class MembersQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Query of `members`."""

    cohort_id: str
    partner: str | None = None


class MemberLine(msgspec.Struct, frozen=True, omit_defaults=True):
    """A line of the answer of `members`."""

    uid: str | None = None
    anonymous_id: str | None = None


class CohortsAnswer(msgspec.Struct, frozen=True):
    """Answer of `cohorts`."""

    cohorts: list[CohortSummary]


class RequestsAnswer(msgspec.Struct, frozen=True):
    """Answer of `requests`; `more` means that the limit cut it off."""

    requests: list[RequestRecord]
    more: bool


class Done(msgspec.Struct, frozen=True):
    """Answer of `others` and `late`: the number of requests or changes."""

    count: int


class Problem(msgspec.Struct, frozen=True):
    """Answer to a control request that is invalid or finds nothing."""

    error: str


class FaultHandlers(abc.ABC):
    """The handlers of the faults that all APIs may have."""

    async def status(self, request: Request) -> Response:
        """Answer the next requests with an error."""
        body = await body_of(FailNext, request)
        return self._change(lambda faults: faults.schedule(body.fault(), body.count))

    async def drop(self, request: Request) -> Response:
        """Break the connections of the next requests."""
        body = await body_of(DropNext, request)
        return self._change(lambda faults: faults.schedule(body.fault(), body.count))

    async def latency(self, request: Request) -> Response:
        """Answer later."""
        body = await body_of(Latency, request)
        return self._change(lambda faults: faults.slow_down(body))

    @abc.abstractmethod
    def _change(self, change: t.Callable[[Faults], None]) -> Response:
        """Change the faults, and answer."""


class _Control(FaultHandlers):
    """The handlers of the control endpoints."""

    def __init__(self, state: State) -> None:
        self._state = state

    async def cohorts(self, _request: Request) -> Response:
        return answer(CohortsAnswer(self._state.cohorts()))

    async def members(self, request: Request) -> Response:
        query = _query(MembersQuery, request)
        members = self._state.members(query.cohort_id, query.partner)
        if members is None:
            msg = f"cohort {query.cohort_id!r} does not exist"
            raise LookupError(msg)
        lines = iterate_in_threadpool(_lines(members))
        return StreamingResponse(lines, media_type="application/x-ndjson")

    async def requests(self, request: Request) -> Response:
        query = _query(RequestsQuery, request)
        records = self._state.requests(query.selects)
        return answer(RequestsAnswer(records[: query.limit], more=len(records) > query.limit))

    async def totals(self, _request: Request) -> Response:
        return answer(self._state.totals())

    async def overview(self, request: Request) -> Response:
        return answer(overview(self._state, _query(RequestsQuery, request).selects))

    async def faults(self, _request: Request) -> Response:
        return answer(self._state.faults())

    async def clear(self, _request: Request) -> Response:
        self._state.change_faults(lambda faults: faults.clear())
        return answer(self._state.faults())

    async def share(self, request: Request) -> Response:
        body = await body_of(ShareOfErrors, request)
        return self._change(lambda faults: faults.fail_share(body))

    async def poison(self, request: Request) -> Response:
        body = await body_of(Poison, request)
        return self._change(lambda faults: faults.poison(body))

    async def hold(self, request: Request) -> Response:
        body = await body_of(Hold, request)
        return self._change(lambda faults: faults.hold(held=body.held))

    async def others(self, request: Request) -> Response:
        return answer(Done(self._state.use_up((await body_of(UseUp, request)).count)))

    async def late(self, request: Request) -> Response:
        body = await body_of(ApplyLate, request)
        return answer(Done(self._state.apply_late(body.cohort_id, body.partner)))

    async def reset(self, _request: Request) -> Response:
        self._state.reset()
        return answer(self._state.totals())

    def _change(self, change: t.Callable[[Faults], None]) -> Response:
        self._state.change_faults(change)
        return answer(self._state.faults())


def control_routes(state: State) -> list[Route]:
    """Return the control endpoints of a state, relative to `/_emulator`."""
    control = _Control(state)
    queries: list[Handler] = [control.cohorts, control.members, control.requests, control.totals]
    queries += [control.overview]
    faults: list[Handler] = [control.status, control.drop, control.share, control.latency]
    faults += [control.poison, control.hold]
    actions: list[Handler] = [control.others, control.late, control.reset]
    return [
        *(Route(f"/{handler.__name__}", handler) for handler in queries),
        *(Route(f"/faults/{f.__name__}", f, methods=["POST"]) for f in faults),
        *(Route(f"/{handler.__name__}", handler, methods=["POST"]) for handler in actions),
        Route("/faults", control.faults),
        Route("/faults", control.clear, methods=["DELETE"]),
    ]


def error_handlers() -> dict[t.Any, t.Any]:
    """Return the handlers of errors: 400 or 404, with the reason."""

    async def wrong(_request: Request, error: Exception) -> Response:
        return answer(Problem(str(error)), 400)

    async def missing(_request: Request, error: Exception) -> Response:
        return answer(Problem(str(error)), 404)

    return {msgspec.DecodeError: wrong, LookupError: missing}


def _lines(members: t.Iterator[Member]) -> t.Iterator[bytes]:
    while chunk := [MemberLine(*member) for member in itertools.islice(members, _LINES)]:
        yield _JSON.encode_lines(chunk)


def _query(kind: type[T], request: Request) -> T:
    return msgspec.convert(dict(request.query_params), kind, strict=False)


async def body_of(kind: type[T], request: Request) -> T:
    """Decode the body of a control request; an invalid one is answered with 400."""
    return msgspec.json.decode(await request.body() or b"{}", type=kind)


def answer(value: t.Any, status: int = 200) -> Response:
    """Encode the answer to a control request."""
    return Response(_JSON.encode(value), status, media_type="application/json")
