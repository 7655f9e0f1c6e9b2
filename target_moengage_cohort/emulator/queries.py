"""The Analytics Query API: counts the users of groups, with a delay and a monthly quota."""

from __future__ import annotations

import typing as t

import msgspec

from .filter_language import Group  # noqa: TC001 - msgspec resolves it
from .problems import Problem, invalid
from .quotas import MonthlyQuota

if t.TYPE_CHECKING:
    from .managed_segments import ManagedSegments


class _Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All of its keys must be there, and no others."""


class _Execution(_Strict, frozen=True):
    count: int
    type: t.Literal["atleast"]


class _NoFilters(_Strict, frozen=True):
    filter_operator: t.Literal["and", "or"]
    filters: t.Annotated[list[t.Any], msgspec.Meta(max_length=0)]


class _Property(_Strict, frozen=True):
    action_name: str
    executed: t.Literal[True]
    filter_type: t.Literal["user_attributes"]
    execution: _Execution
    attributes: _NoFilters
    pii: bool
    encrypted: bool


class _Projection(_Strict, frozen=True):
    data_type: t.Literal["string", "double"]
    extract_type: str


class _UserProperty(_Strict, frozen=True):
    id: t.Literal["A"]
    property: _Property
    projection: _Projection
    aggregation: dict[str, t.Any]


class _Filters(_Strict, frozen=True):
    included_filters: Group


class _Segmentation(_Strict, frozen=True):
    filters: _Filters


class _Query(_Strict, frozen=True):
    version: t.Literal["2.0"]
    type: t.Literal["user_analysis"]
    analysis_type: t.Literal["total_count"]
    user_properties: t.Annotated[list[_UserProperty], msgspec.Meta(min_length=1, max_length=1)]
    segmentation: t.Annotated[list[_Segmentation], msgspec.Meta(min_length=1, max_length=5)]
    distribution: dict[str, t.Any]
    timerange: dict[str, t.Any]
    granularity: t.Literal["e"]
    chart_type: t.Literal["column"]
    count_type: t.Literal["number"]
    split_by: t.Annotated[list[t.Any], msgspec.Meta(max_length=0)]


class _Run(msgspec.Struct):
    groups: list[Group]
    started: float
    failure_reason: str | None
    counts: list[int] | None = None


class Queries:
    """The queries of a workspace.

    Args:
        segments: All segments.
    """

    def __init__(self, segments: ManagedSegments) -> None:
        self._segments = segments
        self._quota = MonthlyQuota(segments.options.monthly_queries)
        self._runs: dict[str, _Run] = {}
        self._failures: list[str] = []

    def fail_next(self, count: int, reason: str) -> None:
        """Let the next queries fail."""
        self._failures += [reason] * count

    def start(self, body: bytes) -> tuple[int, dict[str, t.Any]]:
        """Start a query."""
        try:
            query = msgspec.json.decode(body, type=_Query)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise invalid("analytics", "body", str(error)) from None
        options = self._segments.options
        name = query.user_properties[0].property.action_name
        if name != options.id_attribute:
            raise invalid("analytics", "action_name", "unknown attribute", name)
        groups = [each.filters.included_filters for each in query.segmentation]
        for group in groups:
            self._segments.language.check(group, "analytics")
            if options.counts_as_run:
                self._segments.count_run(group, options.clock.wall())
        if not self._quota.admit(options.clock.wall()):
            raise Problem(428, "QUOTA_EXCEEDED", "The monthly scan quota is used up")
        request_id = f"emulated-query-{len(self._runs) + 1}"
        reason = self._failures.pop(0) if self._failures else None
        self._runs[request_id] = _Run(groups, options.clock.monotonic(), reason)
        data = {"request_id": request_id}
        return 200, {"response_id": request_id, "type": "user_analysis", "data": data}

    def status(self, request_id: str) -> tuple[int, dict[str, t.Any]]:
        """Return how far a query is."""
        run = self._find(request_id)
        data = {"status": self._state(run)}
        if data["status"] == "FAILED":
            data["failure_reason"] = run.failure_reason or ""
        return 200, {"data": data}

    def results(self, request_id: str) -> tuple[int, dict[str, t.Any]]:
        """Return the counts of a query; raise a `Problem` if it has no results."""
        run = self._find(request_id)
        state = self._state(run)
        if state == "FAILED":
            raise Problem(424, "FAILED_DEPENDENCY", run.failure_reason or "")
        if state != "SUCCESSFUL" or run.counts is None:
            raise Problem(404, "NOT_FOUND", "The query has no results yet")
        same = {"granularity": "entire", "splitby": [], "step": "A", "tseq": 0}
        return 200, {
            "data": [{"metric": each, **same, "cseq": n} for n, each in enumerate(run.counts)]
        }

    def _find(self, request_id: str) -> _Run:
        if (run := self._runs.get(request_id)) is None:
            raise Problem(404, "NOT_FOUND", "No such query")
        return run

    def _state(self, run: _Run) -> str:
        """Return a query's state: pending for half of the delay; it is counted at its end."""
        age = self._segments.options.clock.monotonic() - run.started
        delay = self._segments.options.query_seconds
        if age < delay:
            return "PENDING" if age < delay / 2 else "PROCESSING"
        if run.failure_reason is not None:
            return "FAILED"
        if run.counts is None:
            people, language = self._segments.people, self._segments.snapshot()
            run.counts = [len(people.among(language.users(group))) for group in run.groups]
        return "SUCCESSFUL"
