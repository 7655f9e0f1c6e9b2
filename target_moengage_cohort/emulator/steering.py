"""The control endpoints of the Segments and the Analytics API, under `/_emulator`."""

from __future__ import annotations

import typing as t

import msgspec
from starlette.routing import Route

from .endpoints import FaultHandlers, answer, body_of
from .model import Action  # noqa: TC001 - msgspec resolves it

if t.TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from .apis import Apis
    from .faults import Faults


class Users(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of `users`."""

    uids: list[str] = []
    anonymous_ids: list[str] = []


class PutMembers(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of `members`."""

    cohort_id: str
    action: Action
    uids: list[str]
    partner: str | None = None


class Named(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of `segments/run`."""

    name: str


class FailQueries(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of `queries/fail`."""

    count: t.Annotated[int, msgspec.Meta(ge=1)] = 1
    reason: str = "Injected by the emulator"


class _Steering(FaultHandlers):
    """The handlers."""

    def __init__(self, apis: Apis) -> None:
        self._apis = apis

    async def segments(self, _request: Request) -> Response:
        return answer({"segments": self._apis.segments()})

    async def calls(self, _request: Request) -> Response:
        return answer({"calls": self._apis.calls()})

    async def users(self, request: Request) -> Response:
        body = await body_of(Users, request)
        self._apis.know(body.uids, body.anonymous_ids)
        return answer({"count": len(body.uids) + len(body.anonymous_ids)})

    async def members(self, request: Request) -> Response:
        body = await body_of(PutMembers, request)
        self._apis.put_members(body.cohort_id, body.action, body.uids, body.partner)
        return answer({"count": len(body.uids)})

    async def run(self, request: Request) -> Response:
        self._apis.run((await body_of(Named, request)).name)
        return answer({"count": 1})

    async def fail(self, request: Request) -> Response:
        body = await body_of(FailQueries, request)
        self._apis.fail_queries(body.count, body.reason)
        return answer({"count": body.count})

    def _change(self, change: t.Callable[[Faults], None]) -> Response:
        self._apis.change_faults(change)
        return answer({})


def steering_routes(apis: Apis) -> list[Route]:
    """Return the control endpoints of both APIs, relative to `/_emulator`."""
    steering = _Steering(apis)
    return [
        Route("/segments", steering.segments),
        Route("/calls", steering.calls),
        Route("/users", steering.users, methods=["POST"]),
        Route("/members", steering.members, methods=["POST"]),
        Route("/segments/run", steering.run, methods=["POST"]),
        Route("/queries/fail", steering.fail, methods=["POST"]),
        Route("/calls/status", steering.status, methods=["POST"]),
        Route("/calls/drop", steering.drop, methods=["POST"]),
        Route("/calls/latency", steering.latency, methods=["POST"]),
    ]
