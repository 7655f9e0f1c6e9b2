"""The Segments API: segments of all kinds, filter segments, and file segments."""

from __future__ import annotations

import typing as t
from urllib.parse import quote, urlencode

import msgspec

from target_moengage_cohort.moengage import calls
from target_moengage_cohort.moengage.answers import Outcome
from target_moengage_cohort.moengage.api_answers import content
from target_moengage_cohort.moengage.calls import Api, Call

if t.TYPE_CHECKING:
    from target_moengage_cohort.core.rate_limits import RateLimit
    from target_moengage_cohort.moengage.calls import Send
    from target_moengage_cohort.moengage.filters import Group

_V2 = "/v2/custom-segments"
_V3 = "/v3/custom-segments"
_encode = msgspec.json.Encoder().encode


_Text: t.TypeAlias = "str | t.Any"  # MoEngage documents no types; `Segment` makes it a str


class Segment(msgspec.Struct, frozen=True):
    """A segment, as MoEngage lists it; a field that it leaves out is empty.

    Whether cohorts are listed is open, so a segment that is not is *unknown*, never *absent*.
    """

    name: str = ""
    id: str = ""
    created_time: _Text = ""
    type: _Text = ""
    source: _Text = ""

    def __post_init__(self) -> None:
        """Convert a field that nothing depends on to text, so that no oddity fails the list."""
        for field in {"created_time", "updated_time", "type", "source"} & {*self.__struct_fields__}:
            if not isinstance(value := getattr(self, field), str):
                text = str(value) if isinstance(value, float | int) else ""
                msgspec.structs.force_setattr(self, field, text)


class SegmentDetails(Segment, frozen=True):
    """A segment with its filters, as JSON."""

    updated_time: _Text = ""
    description: t.Any = None
    included_filters: t.Any = None
    excluded_filters: t.Any = None


class FileSource(msgspec.Struct, frozen=True, kw_only=True):
    """A file of users for MoEngage to fetch, and the callback to call once it is processed.

    Attributes:
        attribute_name: The attribute that the file has the values of.
        file_url: An address of a CSV of one column; it may be signed, and is never logged.
    """

    attribute_name: str
    attribute_type: t.Literal["string", "double"] = "string"
    file_url: str
    callback_url: str | None = None
    emails: tuple[str, ...] = ()


class FileSegment(msgspec.Struct, frozen=True):
    """A file segment whose file MoEngage will process."""

    name: str = msgspec.field(name="cs_name")
    id: str = msgspec.field(name="cs_id")


class _Listed(msgspec.Struct, frozen=True):
    data: tuple[Segment, ...]


class _One(msgspec.Struct, frozen=True):
    data: SegmentDetails | tuple[SegmentDetails]  # which of the two is open


class _Done(msgspec.Struct, frozen=True):
    success: t.Literal[True]


class Segments:
    """Calls the Segments API.

    Each method raises an `ApiError`, or a `SettingsError` if key, scope or `db_name` is wrong, with
    a stable code, after a final answer that refuses the call; and what `Send` raises without one.
    """

    def __init__(self, send: Send) -> None:
        self._send = send

    def list(self, name: str | None = None) -> tuple[Segment, ...]:
        """Return all segments, or those with exactly this name."""
        query = "" if name is None else f"?{urlencode({'name': name})}"
        call = _call(calls.LIST, "GET", _V3, "list the segments", query=query)
        return content(call, self._send(call), _Listed).data

    def get(self, segment_id: str) -> SegmentDetails:
        """Return a segment with its filters."""
        call = _call(calls.GET, "GET", _V3, "show the segment", segment_id=segment_id)
        return self._details(call)

    def create(self, name: str, included: Group, excluded: Group | None = None) -> SegmentDetails:
        """Create a filter segment."""
        body = _filters(included, excluded) | {"name": name}
        return self._details(_call(calls.CREATE, "POST", _V3, "create the segment", body))

    def update(
        self,
        segment_id: str,
        included: Group,
        excluded: Group | None = None,
        name: str | None = None,
    ) -> SegmentDetails:
        """Change a filter segment's filters, and its name if one is given."""
        body = _filters(included, excluded) | _given(name=name)
        what = "update the segment"
        call = _call(calls.CREATE, "PATCH", _V3, what, body, segment_id=segment_id)
        return self._details(call)

    def archive(self, name: str, segment_id: str | None = None) -> None:
        """Archive a segment; the id wins over the name."""
        self._keep("archive", name, segment_id)

    def unarchive(self, name: str, segment_id: str | None = None) -> None:
        """Unarchive a segment, which may be a cohort; the id wins over the name."""
        self._keep("unarchive", name, segment_id)

    def create_file(self, name: str, source: FileSource, expiry_days: int) -> FileSegment:
        """Create a file segment, which expires after some days; it has no users at first."""
        body = _file(name, source) | {"expiry_time": expiry_days}
        return self._file("POST", "", body)

    def add_users(
        self, name: str, source: FileSource, segment_id: str | None = None
    ) -> FileSegment:
        """Add the users of a file to a file segment; the id wins over the name."""
        return self._file("PUT", "/add-users", _file(name, source, segment_id))

    def remove_users(
        self, name: str, source: FileSource, segment_id: str | None = None
    ) -> FileSegment:
        """Remove the users of a file from a file segment; the id wins over the name."""
        return self._file("PUT", "/remove-users", _file(name, source, segment_id))

    def replace_users(
        self, name: str, source: FileSource, segment_id: str | None = None
    ) -> FileSegment:
        """Replace the users of a file segment by those of a file; the id wins over the name."""
        return self._file("PUT", "/replace", _file(name, source, segment_id))

    def _details(self, call: Call) -> SegmentDetails:
        answer = self._send(call)
        fields = answer.content or {}
        if answer.outcome is Outcome.ACCEPTED and "data" not in fields:
            # Whether one segment comes in an envelope is open.
            answer = msgspec.structs.replace(answer, content={"data": fields})
        data = content(call, answer, _One).data
        return data if isinstance(data, SegmentDetails) else data[0]

    def _keep(self, action: str, name: str, segment_id: str | None) -> None:
        body = {"name": name} | _given(cs_id=segment_id)
        what = f"{action} the segment"
        call = _call(calls.ARCHIVE, "PATCH", f"{_V2}/{action}", what, body)
        content(call, self._send(call), _Done)

    def _file(self, method: str, action: str, body: dict[str, t.Any]) -> FileSegment:
        path = f"{_V2}/file-segment{action}"
        what = "change the file segment" if action else "create the file segment"
        call = _call(calls.FILE, method, path, what, body)
        return content(call, self._send(call), FileSegment)


def _call(
    limit: RateLimit,
    method: str,
    path: str,
    what: str,
    body: dict[str, t.Any] | None = None,
    *,
    query: str = "",
    segment_id: str | None = None,
) -> Call:
    shown = path if segment_id is None else f"{path}/{{id}}"
    if segment_id is not None:
        path = f"{path}/{quote(segment_id, safe='')}"
    data = b"" if body is None else _encode(body)
    return Call(Api.SEGMENTS, limit, method, path + query, what, shown, data)


def _filters(included: Group, excluded: Group | None) -> dict[str, t.Any]:
    return {"included_filters": included} | _given(excluded_filters=excluded)


def _file(name: str, source: FileSource, segment_id: str | None = None) -> dict[str, t.Any]:
    fields = msgspec.structs.asdict(source)
    fields["emails"] = source.emails or None
    return _given(name=name, cs_id=segment_id, **fields)


def _given(**fields: t.Any) -> dict[str, t.Any]:
    return {name: value for name, value in fields.items() if value is not None}
