"""The routes of the Segments and the Analytics API."""

from __future__ import annotations

import asyncio
import typing as t

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from .apis import ENDPOINTS
from .wire import abort, read

if t.TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from .apis import Apis, Endpoint

_MAX_BYTES = 1_048_576  # a body above is not kept; each endpoint has a limit below


def api_routes(apis: Apis) -> list[Route]:
    """Return the routes of both APIs."""
    return [Route(each.path, _Call(apis, each), methods=[each.method]) for each in ENDPOINTS]


class _Call:
    """One endpoint."""

    def __init__(self, apis: Apis, endpoint: Endpoint) -> None:
        self._apis = apis
        self._endpoint = endpoint

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        incoming = await read(scope, receive, _MAX_BYTES)
        if incoming is None:
            return
        request = Request(scope)
        argument = request.path_params.get("id", request.query_params.get("name"))
        reply = self._apis.receive(self._endpoint, incoming, argument)
        await asyncio.sleep(reply.delay)
        if reply.status is None:
            await abort(scope, receive)
            return
        response = Response(reply.body, reply.status, reply.headers)
        await response(scope, receive, send)
