"""Whose web pages may ask the emulator: its own, and nobody else's.

The page and the control endpoints need no credentials, and what they tell may be real: members'
identifiers, when somebody tries real data out. A browser on this machine reaches loopback for every
web page it shows. A page from elsewhere must not read answers by letting its own name point to
loopback (DNS rebinding), which its `Host` gives away; nor change anything by a request whose
answer it can't read, which its `Origin` gives away. Programs send no `Origin`, and go where they
are told to.
"""

from __future__ import annotations

import typing as t
from ipaddress import ip_address
from urllib.parse import urlsplit

import msgspec
from starlette.datastructures import Headers
from starlette.responses import Response

if t.TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

_PRIVATE = (".localhost", ".internal")  # reserved: the public DNS never holds them


class OwnPagesOnly:
    """Middleware that answers 403 to what another site's page asks.

    Args:
        app: What it protects.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        headers = Headers(scope=scope)
        reason = refuse(headers.get("host", ""), headers.get("origin"), scope["server"][0])
        if reason is None:
            await self._app(scope, receive, send)
            return
        body = msgspec.json.encode({"error": reason})
        await Response(body, 403, media_type="application/json")(scope, receive, send)


def refuse(host: str, origin: str | None, server: str) -> str | None:
    """Say why a request is refused, if it is.

    Args:
        host: Its header `Host`.
        origin: Its header `Origin`, which browsers send.
        server: The IP address that it came in at.

    Returns:
        The reason and what to do; None if the request may pass.
    """
    if origin is not None and origin.partition("://")[2].lower() != host.lower():
        return "this is not for other sites' pages: open the emulator's own"
    if not _is_private(host) and _is_loopback(server):
        return "this comes over loopback by a public name: ask for localhost or 127.0.0.1"
    return None


def _is_loopback(server: str) -> bool:
    """Say whether an address is this machine's own, also where IPv6 stands for IPv4."""
    address = ip_address(server)
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


def _is_private(host: str) -> bool:
    """Say whether a host can't be a public name: a single word, reserved, or an address."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
        if "." in name and not name.endswith(_PRIVATE):
            ip_address(name)
    except ValueError:
        return False
    return True
