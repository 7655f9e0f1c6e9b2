"""Requests to the Segments and the Analytics API, and the limits that they count against; pure."""

from __future__ import annotations

import enum
import typing as t
from urllib.parse import parse_qs, urlsplit

import msgspec

from target_moengage_cohort.core.rate_limits import RateLimit, rate_limit

if t.TYPE_CHECKING:
    from collections.abc import Iterator

    from target_moengage_cohort.moengage.answers import Answer

# Whether archive and unarchive have a limit each, and whether update has one, is open: sharing is
# the reading that passes no limit.
ARCHIVE = rate_limit("archive", minute=50, hour=200, day=1_000)
FILE = rate_limit("file", hour=10, day=100)
LIST = rate_limit("list", minute=50, hour=200, day=1_000)
GET = rate_limit("get", minute=100, hour=1_000, day=4_000)
CREATE = rate_limit("create", minute=50, hour=200, day=1_000)
ANALYTICS = rate_limit("analytics", second=5, minute=15, hour=100)
MOST_USERS = 2_000_000
"""Of all files of a day."""
USERS_A_PERMIT = 1_000
FILE_USERS = rate_limit("file_users", day=MOST_USERS // USERS_A_PERMIT)
"""Of users in files, counted in thousands: each of them would fill the windows."""

_PRIVATE = {"value", "file_url", "callback_url", "emails", "updated_by"}


class Api(enum.StrEnum):
    """An API with a key of its own; the value is the setting of that key."""

    SEGMENTS = "segments_api_key"
    ANALYTICS = "analytics_api_key"


class Call(msgspec.Struct, frozen=True):
    """One request, which counts against a limit.

    Attributes:
        what: What it does, for messages, as in `"archive the segment"`.
        path: Path and query.
        shown_path: The path without names and ids.
        earlier: The body of an earlier request that this one is about; the answer may quote it.
    """

    api: Api
    limit: RateLimit
    method: str
    path: str
    what: str
    shown_path: str
    body: bytes = b""
    earlier: bytes = b""


Send: t.TypeAlias = "t.Callable[[Call], Answer]"
"""Sends a call until it has a final answer, within its limit.

It raises a `TryAgainError` if there is none: `rate_limited` if there is no permit in time,
`retries_exhausted`, or `interrupted`.
"""


def names(call: Call) -> list[str]:
    """Return the names in a call that the user has typed, so that messages may show them."""
    fields = msgspec.json.decode(call.body) if call.body else {}
    found = [fields.get("name"), fields.get("attribute_name")]
    found += parse_qs(urlsplit(call.path).query).get("name", [])
    return [name for name in found if isinstance(name, str)]


def private_values(body: bytes) -> Iterator[str]:
    """Yield what no message may show of a body: identifiers, and addresses, which may be signed."""
    if body:
        yield from _private_values(msgspec.json.decode(body), is_private=False)


def _private_values(node: t.Any, *, is_private: bool) -> Iterator[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            yield from _private_values(value, is_private=is_private or key in _PRIVATE)
    elif isinstance(node, list):
        for value in node:
            yield from _private_values(value, is_private=is_private)
    elif is_private and not isinstance(node, bool | None):
        yield str(node)
