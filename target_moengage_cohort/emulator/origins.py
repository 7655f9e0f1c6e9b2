"""Protection of the page and the control endpoints against other web sites.

They need no credentials, and their answers contain real identifiers if the emulator gets real
data. A browser on this machine can reach loopback on behalf of every web page it shows. A foreign
page must not read answers by pointing its own name to loopback (DNS rebinding); its `Host` header
shows that. Nor may it change anything by a request whose answer it can't read; its `Origin` header
shows that. Programs send no `Origin`.
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
    """Middleware that answers 403 to requests of other sites' pages.

    Args:
        app: The application that it protects.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Forward a request, or refuse it."""
        headers = Headers(scope=scope)
        reason = refuse(headers.get("host", ""), headers.get("origin"), scope["server"][0])
        if reason is None:
            await self._app(scope, receive, send)
            return
        body = msgspec.json.encode({"error": reason})
        await Response(body, 403, media_type="application/json")(scope, receive, send)


def refuse(host: str, origin: str | None, server: str) -> str | None:
    """Return why a request is refused and what to do; None if it may pass.

    Args:
        host: Its header `Host`.
        origin: Its header `Origin`, which browsers send.
        server: The IP address at which it arrived.
    """
    if origin is not None and origin.partition("://")[2].lower() != host.lower():
        return "requests from other sites' pages are refused: open the emulator's own page"
    if not _is_private(host) and _is_loopback(server):
        return "public host names are refused over loopback: use localhost or 127.0.0.1"
    return None


def _is_loopback(server: str) -> bool:
    """Return whether an address is a loopback address, including IPv4 mapped to IPv6."""
    address = ip_address(server)
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


def _is_private(host: str) -> bool:
    """Return whether a host can't be a public name: a single word, reserved, or an address."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
        if "." in name and not name.endswith(_PRIVATE):
            ip_address(name)
    except ValueError:
        return False
    return True
