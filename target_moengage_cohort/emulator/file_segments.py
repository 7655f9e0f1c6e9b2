"""Version 2 of the Segments API: file segments, archive and unarchive."""

from __future__ import annotations

import typing as t
import urllib.request
from collections import deque
from http.client import HTTPException
from urllib.parse import urlsplit

import msgspec

from .managed_segments import FileSegment
from .problems import Problem, invalid
from .quotas import DAY

if t.TYPE_CHECKING:
    from collections.abc import Callable

    from .jobs import Jobs
    from .managed_segments import ManagedSegments
    from .people import User
    from .registry import Head

MAX_FILE_BYTES = 150_000_000
MAX_VALUES_A_DAY = 2_000_000
_TIMEOUT_SECONDS = 10
_UNREACHABLE = (OSError, HTTPException, ValueError, OverflowError)  # the last two: a wrong port
_ACTIONS = {"create": "creation", "add": "user-add", "remove": "user-remove"}

Change = t.Literal["create", "add", "remove", "replace"]


class _Update(msgspec.Struct, frozen=True):
    name: t.Annotated[str, msgspec.Meta(pattern=r"\S", max_length=200)]
    attribute_name: t.Annotated[str, msgspec.Meta(pattern=r"\S")]
    attribute_type: t.Literal["string", "double"]
    file_url: t.Annotated[str, msgspec.Meta(pattern=r"^https?://")]
    cs_id: str | None = None
    callback_url: t.Annotated[str, msgspec.Meta(pattern=r"^https?://")] | None = None
    emails: list[str] = []


class _Creation(_Update, frozen=True, kw_only=True):
    expiry_time: t.Annotated[int, msgspec.Meta(ge=1)]


class _Named(msgspec.Struct, frozen=True):
    name: str
    cs_id: str | None = None


class _BadFileError(Exception):
    """The file breaks a rule or cannot be fetched; has the callback's status and the reason."""


class FileSegments:
    """Changes file segments, each after a delay, and archives segments of all kinds.

    Args:
        segments: All segments.
        jobs: The work that is done later.
        locked: Calls a function with the state locked.
    """

    def __init__(
        self,
        segments: ManagedSegments,
        jobs: Jobs,
        locked: Callable[[Callable[[], t.Any]], t.Any],
    ) -> None:
        self._segments = segments
        self._jobs = jobs
        self._locked = locked
        self._processed: deque[tuple[float, int]] = deque()  # moments, and numbers of values
        self._requests = 0

    def change(self, kind: Change, body: bytes) -> tuple[int, dict[str, t.Any]]:
        """Accept a file; return the status and the body of the answer."""
        wanted = _decode(body, _Creation if kind == "create" else _Update)
        segment = self._create(wanted) if kind == "create" else self._find(wanted)
        self._requests += 1
        number, delay = self._requests, self._segments.options.processing_seconds
        self._jobs.add(delay, lambda: self._process(kind, segment, wanted, number))
        what = f"File-segment {_ACTIONS.get(kind, f'user-{kind}')} request accepted"
        fields = {"cs_name": segment.head.name, "cs_id": segment.head.id}
        return 202, {"message": what, "success": True, **fields}

    def archive(self, body: bytes) -> tuple[int, dict[str, t.Any]]:
        """Archive a segment; do nothing if it is archived."""
        head = self._named(body)
        if head.kind == "cohort" and not self._segments.options.archives_cohorts:
            raise _not_found(head.name)
        head.is_archived = True
        return 200, {"message": "Segment archived", "success": True, "cs_name": head.name}

    def unarchive(self, body: bytes) -> tuple[int, dict[str, t.Any]]:
        """Unarchive a segment; do nothing if it is active."""
        head = self._named(body)
        self._segments.registry.unarchive(head, self._segments.options.clock.wall())
        return 200, {"message": "Segment unarchived", "success": True, "cs_name": head.name}

    def _named(self, body: bytes) -> Head:
        wanted = _decode(body, _Named)
        head = self._segments.registry.find(wanted.name, wanted.cs_id)
        if head is None:
            raise _not_found(wanted.name)
        self._segments.registry.active(self._segments.options.clock.wall())  # archives old ones
        return head

    def _create(self, wanted: _Update) -> FileSegment:
        registry, now = self._segments.registry, self._segments.options.clock.wall()
        if registry.named(wanted.name) is not None:
            raise Problem(409, "Resource not created", f"Name already exists: {wanted.name}")
        if (head := registry.add(wanted.name, "file", now)) is None:
            raise Problem(429, "Too Many Requests", "Total active segments limit breached")
        segment = FileSegment(head, wanted.attribute_name)
        self._segments.files[head.id] = segment
        return segment

    def _find(self, wanted: _Update) -> FileSegment:
        head = self._segments.registry.find(wanted.name, wanted.cs_id)
        segment = None if head is None else self._segments.files.get(head.id)
        if segment is None:
            raise _not_found(wanted.name)
        return segment

    def _process(self, kind: Change, segment: FileSegment, wanted: _Update, number: int) -> None:
        """Fetch the file, change the segment, and call back."""
        answer: dict[str, t.Any] = {
            "db_name": self._segments.options.db_name,
            "segment_name": segment.head.name,
            "request_id": f"emulated-file-{number}",
        }
        try:
            values = _parsed(_fetched(wanted.file_url))
            matched = self._locked(lambda: self._apply(kind, segment, wanted, values))
            counts = {"values_found": len(values), "values_processed": len(values)}
            answer |= {**counts, "user_count": matched, "status": 201}
        except _BadFileError as error:
            answer |= {"status": 400, "error_message": str(error)}
        if wanted.callback_url is not None:
            _call_back(wanted.callback_url, msgspec.json.encode(answer))

    def _apply(self, kind: Change, segment: FileSegment, wanted: _Update, values: list[str]) -> int:
        now = self._segments.options.clock.monotonic()
        while self._processed and now - self._processed[0][0] >= DAY:
            self._processed.popleft()
        if sum(count for _, count in self._processed) + len(values) > MAX_VALUES_A_DAY:
            msg = f"more than {MAX_VALUES_A_DAY} values in a day"
            raise _BadFileError(msg)
        self._processed.append((now, len(values)))
        is_known = wanted.attribute_name == self._segments.options.id_attribute
        users: set[User] = {("uid", value) for value in values} if is_known else set()
        users = self._segments.people.among(users)
        if kind == "remove":
            segment.users = segment.users - users
        elif kind == "add":
            segment.users = segment.users | users
        else:
            segment.users = users
        segment.head.updated_at = self._segments.options.clock.wall()
        return len(users)


T = t.TypeVar("T")


def _decode(body: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        field = str(error).partition("`$.")[2].partition("`")[0] or "body"
        if "missing required field" in str(error):
            field = str(error).partition("`")[2].partition("`")[0]
        raise invalid("v2", field, str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise invalid("v2", "body", "not valid JSON") from None


def _not_found(name: str) -> Problem:
    message = f"Custom segment not found for the given name or cs_id: {name}"
    return Problem(404, "Entity Not Found", message)


def _parsed(content: bytes) -> list[str]:
    """Return the values of a CSV of one column; MoEngage trims nothing and repairs nothing."""
    try:
        values = content.decode().removesuffix("\n").split("\n")
    except UnicodeDecodeError:
        msg = "the file is not UTF-8"
        raise _BadFileError(msg) from None
    for reason, is_wrong in (
        ("a blank line", any(not value.strip() for value in values)),
        ("a quote", any('"' in value or value[:1] == value[-1:] == "'" for value in values)),
        ("a NUL byte", any("\0" in value for value in values)),
        ("a comma, so more than one column", any("," in value for value in values)),
        ("a carriage return", any("\r" in value for value in values)),
        ("a duplicate", len({*values}) < len(values)),
    ):
        if is_wrong:
            msg = f"the file has {reason}"
            raise _BadFileError(msg)
    return values


def _fetched(url: str) -> bytes:
    try:
        with _opener().open(url, timeout=_TIMEOUT_SECONDS) as response:
            content: bytes = response.read(MAX_FILE_BYTES + 1)
    except _UNREACHABLE as error:
        msg = f"cannot fetch the file from {urlsplit(url).netloc}: {type(error).__name__}"
        raise _BadFileError(msg) from None
    if len(content) > MAX_FILE_BYTES:
        msg = f"the file has more than {MAX_FILE_BYTES} bytes"
        raise _BadFileError(msg)
    return content


def _call_back(url: str, body: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(url, body, headers, method="POST")  # noqa: S310 - checked
    try:
        _opener().open(request, timeout=_TIMEOUT_SECONDS).close()
    except _UNREACHABLE:
        return  # nothing listens at the address


def _opener() -> urllib.request.OpenerDirector:
    return urllib.request.build_opener(urllib.request.ProxyHandler({}))
