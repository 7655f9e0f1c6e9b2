"""Requests as they arrive: read to their end, or cut off."""

from __future__ import annotations

import typing as t

from starlette.datastructures import Headers

from .model import Incoming

if t.TYPE_CHECKING:
    from starlette.types import Receive, Scope

ABORT = "moengage_emulator_abort"
"""Key in a request's `scope["state"]`: a function that resets its connection."""

DISCONNECT = "http.disconnect"


async def abort(scope: Scope, receive: Receive) -> None:
    """Reset the connection of a request, without an answer."""
    scope["state"][ABORT]()
    while (await receive())["type"] != DISCONNECT:
        pass


async def read(scope: Scope, receive: Receive, max_bytes: int) -> Incoming | None:
    """Read a request to its end, so that the client can read the answer even to a huge body.

    Args:
        scope: The ASGI scope.
        receive: Returns the next piece of the body.
        max_bytes: Pieces that begin above this many bytes are counted but not kept.

    Returns:
        The request, or None if the client left before its end.
    """
    pieces: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == DISCONNECT:
            return None
        piece = message.get("body", b"")
        if size <= max_bytes:
            pieces.append(piece)
        size += len(piece)
        if not message.get("more_body", False):
            break
    headers = Headers(scope=scope)
    return Incoming(
        body=b"".join(pieces),
        size=size,
        authorization=headers.get("authorization"),
        app_key=headers.get("moe-appkey"),
        content_type=headers.get("content-type"),
        db_name=headers.get("moe-dbname"),
    )
