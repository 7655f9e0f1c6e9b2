"""The ASGI application: MoEngage's endpoints, the page, and the control endpoints."""

from __future__ import annotations

import asyncio
import typing as t

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import Response
from starlette.routing import Mount, Route

from .api_app import api_routes
from .endpoints import control_routes, error_handlers
from .origins import OwnPagesOnly
from .page import page
from .steering import steering_routes
from .wire import abort, read

if t.TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from .model import Reply
    from .state import State

_HELD_POLL_SECONDS = 0.005


def build_app(state: State) -> Starlette:
    """Return the application of a state."""
    ours = [Middleware(OwnPagesOnly)]
    return Starlette(
        routes=[
            Route("/v1/integrations/cohortsync", _CohortSync(state), methods=["POST"]),
            Route("/v1/integrations/authentication", _Authentication(state), methods=["POST"]),
            *api_routes(state.apis),
            Mount(
                "/_emulator",
                routes=[*control_routes(state), *steering_routes(state.apis)],
                middleware=ours,
            ),
            Route("/", page, middleware=ours),
        ],
        exception_handlers=error_handlers(),
    )


class _CohortSync:
    """`POST /v1/integrations/cohortsync`."""

    def __init__(self, state: State) -> None:
        self._state = state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        incoming = await read(scope, receive, self._state.options.max_payload_bytes)
        if incoming is None:
            return
        reply = self._state.receive(incoming)
        has_left = await self._wait(reply, receive)
        self._state.answered(reply.record, has_left=has_left)
        if has_left:
            return
        if reply.status is None:
            await abort(scope, receive)
            return
        response = Response(reply.body, reply.status, reply.headers)
        await response(scope, receive, send)

    async def _wait(self, reply: Reply, receive: Receive) -> bool:
        """Wait while the answer is delayed or held back.

        Returns:
            Whether the client closed the connection in the meantime.
        """
        clock = asyncio.get_running_loop().time
        due = clock() + reply.delay
        if not (reply.delay or self._state.held):
            return False
        disconnect = asyncio.ensure_future(receive())
        while (left := due - clock()) > 0 or self._state.held:
            timeout = _HELD_POLL_SECONDS if self._state.held else left
            done, _ = await asyncio.wait({disconnect}, timeout=timeout)
            if done:
                return True
        disconnect.cancel()
        return False


class _Authentication:
    """`POST /v1/integrations/authentication`."""

    def __init__(self, state: State) -> None:
        self._state = state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        incoming = await read(scope, receive, self._state.options.max_payload_bytes)
        if incoming is not None:
            reply = self._state.log_in(incoming)
            response = Response(reply.body, reply.status or 200, reply.headers)
            await response(scope, receive, send)
