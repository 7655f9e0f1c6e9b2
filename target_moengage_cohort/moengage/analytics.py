"""The Analytics Query API: counts the users of up to five groups in one query."""

from __future__ import annotations

import enum
import typing as t
from urllib.parse import quote

import msgspec

from target_moengage_cohort.core.errors import TryAgainError
from target_moengage_cohort.moengage import api_errors, calls
from target_moengage_cohort.moengage.api_answers import content
from target_moengage_cohort.moengage.calls import Api, Call
from target_moengage_cohort.moengage.redaction import mask_identifiers, scrub

if t.TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from target_moengage_cohort.moengage.calls import Send
    from target_moengage_cohort.moengage.filters import FilterGroup

MOST_GROUPS = 5
_V5 = "/v5/analytics"
_PAUSES = (2.0, 4.0, 8.0, 16.0, *[30.0] * 5)
"""The seconds between looks at a query, few enough for 15 calls a minute and 100 an hour."""
_encode = msgspec.json.Encoder().encode


class QueryState(enum.Enum):
    """How far a query is; only the last two are final."""

    PENDING = "PENDING"
    PROCESSING = "PROCESSING"
    SUCCESSFUL = "SUCCESSFUL"
    FAILED = "FAILED"


class QueryStatus(msgspec.Struct, frozen=True):
    """The status of a query.

    Attributes:
        failure_reason: Why a failed query failed, as far as MoEngage says.
    """

    state: QueryState = msgspec.field(name="status")
    failure_reason: str | None = None


class _Started(msgspec.Struct, frozen=True):
    request_id: str


class _Answer(msgspec.Struct, frozen=True):
    data: _Started


class _StatusAnswer(msgspec.Struct, frozen=True):
    data: QueryStatus


class _Row(msgspec.Struct, frozen=True):
    metric: int | float
    cseq: int


class _Results(msgspec.Struct, frozen=True):
    data: tuple[_Row, ...]


class Analytics:
    """Calls the Analytics Query API; for the errors see `Segments`.

    A query uses up a monthly quota that the customer's dashboards share.
    """

    def __init__(self, send: Send, id_attribute: str) -> None:
        self._send = send
        self._id_attribute = id_attribute
        self._latest = b""  # the body of the latest query

    def users(
        self, groups: Sequence[FilterGroup], wait: Callable[[float], bool]
    ) -> tuple[int, ...]:
        """Return the number of users of each of one to five groups, once MoEngage has counted them.

        ``wait`` waits for so many seconds, and returns whether to give up instead. Raise a
        `TryAgainError` if there is no result: `query_failed`, `query_pending` after three minutes
        of waiting, or `interrupted`.
        """
        request_id = self.count(groups)
        for pause in (*_PAUSES, None):
            status = self.status(request_id)
            if status.state is QueryState.SUCCESSFUL:
                return self.results(request_id, len(groups))
            if status.state is QueryState.FAILED:
                reason = status.failure_reason or "without a reason"
                msg = f"MoEngage could not answer the query: it failed ({reason}). Try again later"
                raise TryAgainError("query_failed", msg)
            if pause is not None and wait(pause):
                msg = "interrupted while waiting for the query's result. Run the command again"
                raise TryAgainError("interrupted", msg)
        msg = f"MoEngage has not answered the query after {sum(_PAUSES):.0f} s. Try again later"
        raise TryAgainError("query_pending", msg)

    def count(self, groups: Sequence[FilterGroup]) -> str:
        """Start a query that counts the users of one to five groups; return its request id."""
        body = _encode(query(self._id_attribute, groups))
        path = f"{_V5}/user-analysis"
        what = "start the query"
        call = Call(Api.ANALYTICS, calls.ANALYTICS, "POST", path, what, path, body)
        self._latest = body
        return content(call, self._send(call), _Answer).data.request_id

    def status(self, request_id: str) -> QueryStatus:
        """Return how far a query is."""
        call = self._call(request_id, "status")
        status = content(call, self._send(call), _StatusAnswer).data
        if (reason := status.failure_reason) is not None:
            shown = [self._id_attribute]
            reason = scrub(mask_identifiers(reason, shown, only_ordinary=True), ())
        return msgspec.structs.replace(status, failure_reason=reason)

    def results(self, request_id: str, groups: int) -> tuple[int, ...]:
        """Return the number of users of each group of a successful query, in their order."""
        call = self._call(request_id, "results")
        answer = self._send(call)
        rows = content(call, answer, _Results).data
        users = {row.cseq: int(row.metric) for row in rows}
        if [*sorted(users)] != [*range(groups)]:
            raise api_errors.unexpected(call, answer)
        return tuple(users[number] for number in range(groups))

    def _call(self, request_id: str, part: str) -> Call:
        path = f"{_V5}/query/{quote(request_id, safe='')}/{part}"
        return Call(
            Api.ANALYTICS,
            calls.ANALYTICS,
            "GET",
            path,
            f"ask for the query's {part}",
            f"{_V5}/query/{{id}}/{part}",
            earlier=self._latest,
        )


def query(id_attribute: str, groups: Sequence[FilterGroup]) -> dict[str, t.Any]:
    """Return the body of a query; MoEngage needs all of its keys."""
    if not 1 <= len(groups) <= MOST_GROUPS:
        msg = f"a query has 1 to {MOST_GROUPS} groups, not {len(groups)}"
        raise ValueError(msg)
    users = {
        "action_name": id_attribute,
        "executed": True,
        "filter_type": "user_attributes",
        "execution": {"count": 1, "type": "atleast"},
        "attributes": {"filter_operator": "and", "filters": []},
        "pii": False,
        "encrypted": False,
    }
    projection = {"data_type": "string", "extract_type": ""}
    return {
        "version": "2.0",
        "type": "user_analysis",
        "analysis_type": "total_count",
        "user_properties": [
            {"id": "A", "property": users, "projection": projection, "aggregation": {}}
        ],
        "segmentation": [{"filters": {"included_filters": group}} for group in groups],
        "distribution": {},
        "timerange": {},
        "granularity": "e",
        "chart_type": "column",
        "count_type": "number",
        "split_by": [],
    }
