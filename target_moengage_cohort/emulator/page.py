"""The page at `GET /`: one document without external resources, and the data that it shows."""

from __future__ import annotations

import base64
import hashlib
import typing as t
from importlib.resources import files

import msgspec
from starlette.responses import Response

if t.TYPE_CHECKING:
    from starlette.requests import Request

    from .apis import CallRecord
    from .faults import FaultsView
    from .managed_segments import SegmentSummary
    from .model import CohortSummary, RequestRecord, Totals
    from .options import Order
    from .state import State

RECENT = 50


class Overview(msgspec.Struct, frozen=True):
    """The data of the page; it contains no identifier of a member.

    Attributes:
        order: The rule that decides between two requests of one cohort.
        max_payload_bytes: The largest accepted body.
        requests_per_minute: The limit in any rolling 60 seconds.
        used: How much of the limit is used up now.
        totals: The sums since the last reset.
        faults: The faults that affect the next requests.
        cohorts: All cohorts, in the order of their creation.
        segments: All segments, cohorts included, likewise.
        calls: The last 50 calls of the Segments and the Analytics API, newest first.
        requests: The last 50 of the selected requests, newest first.
        failed: The last 50 requests that were refused or not applied, newest first.
    """

    order: Order
    max_payload_bytes: int
    requests_per_minute: int
    used: int
    totals: Totals
    faults: FaultsView
    cohorts: list[CohortSummary]
    segments: list[SegmentSummary]
    calls: list[CallRecord]
    requests: list[RequestRecord]
    failed: list[RequestRecord]


def overview(state: State, is_selected: t.Callable[[RequestRecord], bool]) -> Overview:
    """Return the data of the page.

    Args:
        state: The emulator's state.
        is_selected: Whether the requests are to contain one; failed ones are there in any case.
    """
    return Overview(
        order=state.options.order,
        max_payload_bytes=state.options.max_payload_bytes,
        requests_per_minute=state.options.requests_per_minute,
        used=state.used(),
        totals=state.totals(),
        faults=state.faults(),
        cohorts=state.cohorts(),
        segments=state.apis.segments(),
        calls=state.apis.calls()[: -RECENT - 1 : -1],
        requests=state.recent(RECENT, is_selected),
        failed=state.recent(RECENT, lambda record: not record.has_succeeded),
    )


async def page(_request: Request) -> Response:
    """Return the page."""
    return Response(_HTML, headers=_HEADERS, media_type="text/html")


def _text(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def _hash(inline: str) -> str:
    return base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode()


def _policy(style: str, script: str) -> str:
    """Return a policy that allows the page its own style, script, icon and data, nothing else."""
    return (
        f"default-src 'none'; script-src 'sha256-{_hash(script)}'; "
        f"style-src 'sha256-{_hash(style)}'; connect-src 'self'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'"
    )


# Four files to edit, one to send: a browser asks for nothing else.
_STYLE, _SCRIPT = _text("page.css"), _text("page.js") + _text("page_faults.js")
_HTML = (
    _text("page.html")
    .replace("<style></style>", f"<style>{_STYLE}</style>")
    .replace("<script></script>", f"<script>{_SCRIPT}</script>")
)
_HEADERS = {
    "Content-Security-Policy": _policy(_STYLE, _SCRIPT),
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
