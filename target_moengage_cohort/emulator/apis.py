"""The Segments and the Analytics API without their sockets: checks, limits, faults and the log."""

from __future__ import annotations

import copy
import typing as t
from collections import deque
from email.utils import formatdate

import msgspec

from . import problems, rules
from .faults import Faults
from .file_segments import FileSegments
from .filter_segments import FilterSegments
from .jobs import Jobs
from .managed_segments import ManagedSegments
from .model import Fault
from .problems import ApiReply, Problem
from .queries import Queries
from .quotas import LIMITS, Quota

if t.TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterable

    from .managed_segments import SegmentSummary
    from .model import Action, Incoming
    from .options import Options
    from .problems import Family
    from .registry import Registry
    from .workspace import Workspace

T = t.TypeVar("T")


class Endpoint(t.NamedTuple):
    """One call of the documentation's tables."""

    name: str
    method: str
    path: str
    family: Family
    limit: str


_FILE = "/v2/custom-segments/file-segment"
ENDPOINTS = (
    Endpoint("file_create", "POST", _FILE, "v2", "file"),
    Endpoint("file_add", "PUT", f"{_FILE}/add-users", "v2", "file"),
    Endpoint("file_remove", "PUT", f"{_FILE}/remove-users", "v2", "file"),
    Endpoint("file_replace", "PUT", f"{_FILE}/replace", "v2", "file"),
    Endpoint("archive", "PATCH", "/v2/custom-segments/archive", "v2", "archive"),
    Endpoint("unarchive", "PATCH", "/v2/custom-segments/unarchive", "v2", "archive"),
    Endpoint("list", "GET", "/v3/custom-segments", "v3", "list"),
    Endpoint("get", "GET", "/v3/custom-segments/{id}", "v3", "get"),
    Endpoint("create", "POST", "/v3/custom-segments", "v3", "create"),
    Endpoint("update", "PATCH", "/v3/custom-segments/{id}", "v3", "update"),
    Endpoint("query", "POST", "/v5/analytics/user-analysis", "analytics", "analytics"),
    Endpoint("status", "GET", "/v5/analytics/query/{id}/status", "analytics", "analytics"),
    Endpoint("results", "GET", "/v5/analytics/query/{id}/results", "analytics", "analytics"),
)


class CallRecord(msgspec.Struct):
    """The log entry of a call.

    Attributes:
        number: 1 for the first since the last reset.
        arrived_at: In seconds since the epoch.
        arrived: The same on the monotonic clock.
        endpoint: Its name in `ENDPOINTS`.
        limit: The limit that it counts against.
        status: The answer's status; None if there was none.
        error: The title or code of the error.
    """

    number: int
    arrived_at: float
    arrived: float
    endpoint: str
    limit: str
    status: int | None = None
    error: str | None = None


class Apis:
    """The state of both APIs, and the handle for tests; `reset` comes first.

    Args:
        options: The emulator's options.
        changed: The lock of the whole state; notified after every call.
    """

    def __init__(self, options: Options, changed: threading.Condition) -> None:
        self._options = options
        self._changed = changed
        self._jobs = Jobs(options.clock)

    def reset(self, workspace: Workspace, registry: Registry) -> None:
        """Clear everything."""
        self._workspace = workspace
        self._jobs.clear()
        self._segments = ManagedSegments(self._options, workspace, registry)
        self._files = FileSegments(self._segments, self._jobs, self._call_locked)
        self._filters = FilterSegments(self._segments)
        self._queries = Queries(self._segments)
        self._quotas = {name: Quota(windows) for name, windows in LIMITS.items()}
        self._faults = Faults()
        self._log: deque[CallRecord] = deque(maxlen=self._options.log_size)
        self._number = 0

    def close(self) -> None:
        """Drop the work that is not due yet."""
        self._jobs.close()

    def receive(self, endpoint: Endpoint, incoming: Incoming, argument: str | None) -> ApiReply:
        """Process a call and return its answer.

        Args:
            endpoint: Which one is called.
            incoming: The request.
            argument: The id in its path, or the name in the query of `list`.
        """
        with self._changed:
            clock = self._options.clock
            self._number += 1
            now, wall = clock.monotonic(), clock.wall()
            record = CallRecord(self._number, wall, now, endpoint.name, endpoint.limit)
            self._log.append(record)
            reply = self._answer(record, endpoint, incoming, argument)
            record.status = reply.status
            limit = self._quotas[endpoint.limit].headers(now, wall)
            headers = {"date": formatdate(wall, usegmt=True)} | limit | reply.headers
            self._changed.notify_all()
            return msgspec.structs.replace(reply, headers=headers, delay=self._faults.delay())

    def _answer(
        self, record: CallRecord, endpoint: Endpoint, incoming: Incoming, argument: str | None
    ) -> ApiReply:
        json = {"content-type": "application/json"}
        try:
            self._check(endpoint, incoming)
            if not self._quotas[endpoint.limit].admit(record.arrived):
                raise problems.rate_exceeded(endpoint.limit)
            fault = self._faults.next(None)
            if fault is not None and not fault.applied:
                return _faulty(fault, endpoint.family, record.number)
            status, fields = self._apply(endpoint, incoming, argument)
            if fault is not None:
                return _faulty(fault, endpoint.family, record.number)
            if endpoint.family == "v3":
                fields = problems.envelope(record.number, **fields)
            return ApiReply(status, msgspec.json.encode(fields), json)
        except Problem as problem:
            record.error = problem.title
            body, kind = problems.body_of(problem, endpoint.family, record.number)
            return ApiReply(problem.status, body, {"content-type": kind})

    def _check(self, endpoint: Endpoint, incoming: Incoming) -> None:
        """Raise the `Problem` of wrong credentials, scope, content type or database."""
        options, family = self._options, endpoint.family
        own = {
            "analytics": options.analytics_api_key or options.data_api_key,
        }.get(family, options.segments_api_key or options.data_api_key)
        keys = {options.data_api_key, options.segments_api_key, options.analytics_api_key}
        user, key = rules.basic_credentials(incoming) or ("", "")
        if key not in keys or {user, incoming.app_key} != {options.workspace_id}:
            raise problems.unauthenticated(family)
        if key != own:
            raise problems.out_of_scope(family)
        if not rules.is_json(incoming):
            raise Problem(415, "Unsupported media type", "The content type must be JSON")
        name = incoming.db_name
        required = options.requires_db_name and family != "analytics"
        if (name is None and required) or name not in {None, options.db_name}:
            message = "MoEngage Client not found. Please check values for headers"
            raise Problem(400, "Invalid request", message)

    def _apply(
        self, endpoint: Endpoint, incoming: Incoming, argument: str | None
    ) -> tuple[int, dict[str, t.Any]]:
        body, given = incoming.body, argument or ""
        handlers: dict[str, Callable[[], tuple[int, dict[str, t.Any]]]] = {
            "file_create": lambda: self._files.change("create", body),
            "file_add": lambda: self._files.change("add", body),
            "file_remove": lambda: self._files.change("remove", body),
            "file_replace": lambda: self._files.change("replace", body),
            "archive": lambda: self._files.archive(body),
            "unarchive": lambda: self._files.unarchive(body),
            "list": lambda: self._filters.list(argument),
            "get": lambda: self._filters.get(given),
            "create": lambda: self._filters.create(body),
            "update": lambda: self._filters.update(given, body),
            "query": lambda: self._queries.start(body),
            "status": lambda: self._queries.status(given),
            "results": lambda: self._queries.results(given),
        }
        return handlers[endpoint.name]()

    def _call_locked(self, function: Callable[[], T]) -> T:
        with self._changed:
            try:
                return function()
            finally:
                self._changed.notify_all()

    # The handle --------------------------------------------------------------------------

    def calls(self) -> list[CallRecord]:
        """Copy the log, in order of arrival."""
        with self._changed:
            return [copy.copy(record) for record in self._log]

    def segments(self) -> list[SegmentSummary]:
        """Return the segments of all kinds, in the order of their creation."""
        with self._changed:
            return [*self._segments.summaries()]

    def know(self, uids: Iterable[str], anonymous_ids: Iterable[str] = ()) -> None:
        """Make these the only known users of the workspace."""
        with self._changed:
            self._segments.people.know(uids, anonymous_ids)

    def put_members(
        self, cohort_id: str, action: Action, uids: Iterable[str], partner: str | None = None
    ) -> None:
        """Change a cohort without a request, as if one had been lost or sent by another client.

        Raises:
            LookupError: If the cohort does not exist, or several partners have it.
        """
        with self._changed:
            if (cohort := self._workspace.find(cohort_id, partner)) is None:
                msg = f"cohort {cohort_id!r} does not exist"
                raise LookupError(msg)
            cohort.put(action, uids)

    def run(self, name: str) -> None:
        """Simulate a campaign that uses a segment now, which keeps it from being archived.

        Raises:
            LookupError: If there is no segment of this name.
        """
        with self._changed:
            if (head := self._segments.registry.named(name)) is None:
                msg = f"segment {name!r} does not exist"
                raise LookupError(msg)
            head.last_run = self._options.clock.wall()

    def fail_queries(self, count: int = 1, reason: str = "Injected by the emulator") -> None:
        """Make the next queries end as FAILED."""
        with self._changed:
            self._queries.fail_next(count, reason)

    def fail_next(self, status: int, count: int = 1, **answer: t.Any) -> None:
        """Answer the next calls with a status; see `Emulator.fail_next`."""
        fault = Fault("status", status, **answer)
        self.change_faults(lambda faults: faults.schedule(fault, count))

    def drop_next(self, count: int = 1, when: t.Literal["before", "after"] = "before") -> None:
        """Reset the connections of the next calls, before or after they are processed."""
        fault = Fault("drop_before")
        if when == "after":
            fault = Fault("drop_after", applied=True)
        self.change_faults(lambda faults: faults.schedule(fault, count))

    def clear_faults(self) -> None:
        """Remove all faults of calls."""
        self.change_faults(lambda faults: faults.clear())

    def change_faults(self, change: Callable[[Faults], None]) -> None:
        """Change the faults of calls, which are injected whatever the endpoint."""
        with self._changed:
            change(self._faults)

    def wait_until(self, reached: Callable[[], bool], timeout: float = 10.0) -> bool:
        """Block until a condition holds, which is evaluated after each call and processed file."""
        with self._changed:
            return self._changed.wait_for(reached, timeout)


def _faulty(fault: Fault, family: Family, number: int) -> ApiReply:
    if fault.status is None:
        return ApiReply(None, b"", {})
    title = fault.error_type or "Injected"
    problem = Problem(fault.status, title, fault.message or "Injected by the emulator")
    body, kind = problems.body_of(problem, family, number)
    if fault.body is not None:
        body = fault.body.encode()
    headers = {name.lower(): value for name, value in fault.headers.items()}
    return ApiReply(fault.status, body, {"content-type": kind} | headers)
