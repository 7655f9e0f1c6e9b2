"""Version 3 of the Segments API: lists segments, and creates and updates filter segments."""

from __future__ import annotations

import re
import typing as t
from datetime import UTC, datetime

import msgspec

from .filter_language import MAX_LENGTH, Group
from .managed_segments import FilterSegment
from .problems import Problem, invalid

if t.TYPE_CHECKING:
    from .managed_segments import ManagedSegments
    from .registry import Head

_NOT_FOUND = Problem(404, "Entity Not Found", "Custom segment not found")
_BAD_ID = "Invalid bson object-id passed in the request"


class _Update(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    included_filters: Group
    name: t.Annotated[str, msgspec.Meta(pattern=r"\S", max_length=200)] | None = None
    excluded_filters: Group | None = None
    updated_by: str | None = None


class FilterSegments:
    """The endpoints of version 3.

    Args:
        segments: All segments.
    """

    def __init__(self, segments: ManagedSegments) -> None:
        self._segments = segments

    def list(self, name: str | None) -> tuple[int, dict[str, t.Any]]:
        """Return all segments, or the one with exactly this name."""
        heads = self._segments.registry.heads(self._now)
        rows = [_row(each) for each in heads if self._shows(each) and name in {None, each.name}]
        return 200, {"data": rows}

    def get(self, segment_id: str) -> tuple[int, dict[str, t.Any]]:
        """Return one segment."""
        return 200, self._one(self._find(segment_id))

    def create(self, body: bytes) -> tuple[int, dict[str, t.Any]]:
        """Create a filter segment."""
        wanted = _decode(body)
        if wanted.name is None:
            raise invalid("v3", "name", "required")
        self._check(wanted, None)
        registry = self._segments.registry
        if (head := registry.add(wanted.name, "filter", self._now)) is None:
            count = {"actual_count": registry.active(self._now), "limit": registry.most}
            message = "Total active segments limit breached"
            raise Problem(429, "Too Many Requests", message, **count)
        segment = FilterSegment(head, wanted.included_filters, wanted.excluded_filters)
        self._segments.filters[head.id] = segment
        return 201, self._one(head)

    def update(self, segment_id: str, body: bytes) -> tuple[int, dict[str, t.Any]]:
        """Change a filter segment."""
        wanted, head = _decode(body), self._find(segment_id)
        segment = self._segments.filters.get(head.id)
        if segment is None or head.is_archived:
            raise Problem(403, "Forbidden operation", "Forbidden operation")
        self._check(wanted, head)
        segment.included, segment.excluded = wanted.included_filters, wanted.excluded_filters
        head.updated_at = self._now
        if wanted.name is not None:
            self._segments.registry.rename(head, wanted.name)
        return 200, self._one(head)

    @property
    def _now(self) -> float:
        return self._segments.options.clock.wall()

    def _shows(self, head: Head) -> bool:
        return self._segments.options.list_shows == "all" or head.kind == "filter"

    def _find(self, segment_id: str) -> Head:
        if not re.fullmatch("[0-9a-f]{24}", segment_id):
            raise Problem(400, "Invalid request", _BAD_ID)
        self._segments.registry.active(self._now)  # archives old ones
        head = self._segments.registry.find(None, segment_id)
        if head is None or not self._shows(head):
            raise _NOT_FOUND
        return head

    def _check(self, wanted: _Update, own: Head | None) -> None:
        """Raise the `Problem` of filters or a name that the segment must not have."""
        for group in filter(None, (wanted.included_filters, wanted.excluded_filters)):
            self._segments.language.check(group, "v3")
            if own is not None and self._segments.refers(group, own.id):
                raise Problem(412, "Cyclic Entity", "The segment is in its own filters")
        named = None if wanted.name is None else self._segments.registry.named(wanted.name)
        if named not in {None, own}:
            raise Problem(409, "Resource not created", f"Name already exists: {wanted.name}")
        filters = (wanted.included_filters, wanted.excluded_filters)
        for other in self._segments.filters.values():
            if other.head is not own and (other.included, other.excluded) == filters:
                existing = {"existing_cs_name": other.head.name, "existing_cs_id": other.head.id}
                message = "A segment with the same filters exists"
                raise Problem(409, "Resource not created", message, **existing)

    def _one(self, head: Head) -> dict[str, t.Any]:
        row = _row(head) | {"updated_time": _iso(head.updated_at), "description": ""}
        if (segment := self._segments.filters.get(head.id)) is not None:
            row["included_filters"] = segment.included
            row["excluded_filters"] = segment.excluded
        return {"data": [row] if self._segments.options.details_in_list else row}


def _row(head: Head) -> dict[str, t.Any]:
    """Return a segment as it is listed; the values of `type` and `source` are open."""
    source = "cohort_sync" if head.kind == "cohort" else "api"
    created = _iso(head.created_at)
    fields = {"created_time": created, "type": head.kind, "source": source}
    return {"name": head.name, "id": head.id, **fields}


def _iso(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds")


def _decode(body: bytes) -> _Update:
    if len(body) > MAX_LENGTH:
        raise Problem(413, "Payload too large", f"longer than {MAX_LENGTH} bytes")
    try:
        return msgspec.json.decode(body, type=_Update)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise invalid("v3", "body", str(error)) from None
