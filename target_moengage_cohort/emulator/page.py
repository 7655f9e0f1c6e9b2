"""The page for people, `GET /`: one file without anything from elsewhere, and what it asks for."""

from __future__ import annotations

import base64
import hashlib
import re
import typing as t
from importlib.resources import files

import msgspec
from starlette.responses import Response

if t.TYPE_CHECKING:
    from starlette.requests import Request

    from .faults import FaultsView
    from .model import CohortSummary, Order, RequestRecord, Totals
    from .state import State

RECENT = 50


class Overview(msgspec.Struct, frozen=True):
    """What the page shows; no identifier of a member is in it.

    Attributes:
        order: What decides between two requests of one cohort.
        max_payload_bytes: The largest body that is accepted.
        requests_per_minute: The limit in any rolling 60 seconds.
        used: How much of that is used up now.
        totals: What happened since the last reset.
        faults: What is to happen to the requests that come next.
        cohorts: All of them, in the order in which they were created.
        requests: The last 50, the newest first.
        failed: The last 50 that were not answered with 200, or were and not applied.
    """

    order: Order
    max_payload_bytes: int
    requests_per_minute: int
    used: int
    totals: Totals
    faults: FaultsView
    cohorts: list[CohortSummary]
    requests: list[RequestRecord]
    failed: list[RequestRecord]


def overview(state: State) -> Overview:
    """Look at all that the page shows."""
    return Overview(
        order=state.options.order,
        max_payload_bytes=state.options.max_payload_bytes,
        requests_per_minute=state.options.requests_per_minute,
        used=state.used(),
        totals=state.totals(),
        faults=state.faults(),
        cohorts=state.cohorts(),
        requests=state.recent(RECENT),
        failed=state.recent(RECENT, lambda record: not record.is_well),
    )


async def page(_request: Request) -> Response:
    """Answer with the page."""
    return Response(_HTML, headers=_HEADERS, media_type="text/html")


def _policy(html: str) -> str:
    """Allow the page its own style, script, icon and emulator, and nothing else.

    Args:
        html: The page, with one `<style>` and one `<script>`.
    """
    hashes = {
        kind: base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode()
        for kind, inline in re.findall(r"<(style|script)>(.*?)</\1>", html, re.DOTALL)
    }
    return (
        f"default-src 'none'; script-src 'sha256-{hashes['script']}'; "
        f"style-src 'sha256-{hashes['style']}'; connect-src 'self'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'"
    )


_HTML = files(__package__).joinpath("page.html").read_text(encoding="utf-8")
_HEADERS = {
    "Content-Security-Policy": _policy(_HTML),
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
