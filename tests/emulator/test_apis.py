"""The Segments and the Analytics API of the emulator, as MoEngage documents them."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from target_moengage_cohort.emulator import ManualClock
from target_moengage_cohort.emulator.apis import ENDPOINTS
from target_moengage_cohort.emulator.quotas import LIMITS, Quota

BY_NAME = {each.name: each for each in ENDPOINTS}
FILTERS = {
    "filter_operator": "and",
    "filters": [{"filter_type": "custom_segments", "id": "moe_all_users", "name": "All Users"}],
}
FILE = {
    "name": "File",
    "attribute_name": "uid",
    "attribute_type": "string",
    "file_url": "http://127.0.0.1:9/x.csv",
    "expiry_time": 30,
}
USERS = {
    "action_name": "uid",
    "executed": True,
    "filter_type": "user_attributes",
    "execution": {"count": 1, "type": "atleast"},
    "attributes": {"filter_operator": "and", "filters": []},
    "pii": False,
    "encrypted": False,
}
QUERY = {
    "version": "2.0",
    "type": "user_analysis",
    "analysis_type": "total_count",
    "user_properties": [
        {
            "id": "A",
            "property": USERS,
            "projection": {"data_type": "string", "extract_type": ""},
            "aggregation": {},
        }
    ],
    "segmentation": [{"filters": {"included_filters": FILTERS}}],
    "distribution": {},
    "timerange": {},
    "granularity": "e",
    "chart_type": "column",
    "count_type": "number",
    "split_by": [],
}
NO_ID = "a" * 24
endpoints = pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda each: each.name)


def call(client, name, body=None, *, argument=NO_ID, key=None, headers=None, auth=True):
    """Call an endpoint, as its own key's owner."""
    endpoint, emulator = BY_NAME[name], client.emulator
    workspace = emulator.workspace_id
    return client.session.request(
        endpoint.method,
        emulator.url + endpoint.path.replace("{id}", argument),
        json=body if endpoint.method != "GET" else None,
        auth=(workspace, key or emulator.data_api_key) if auth else None,
        headers={"MOE-APPKEY": workspace, "Content-Type": "application/json"} | (headers or {}),
        timeout=10,
    )


def error_of(answer, family):
    """Return status and the code or title of an error, whose body has the documented form."""
    body = answer.json()
    if family == "v2":
        assert {"title", "description"} == body.keys()
        return answer.status_code, body["title"]
    if family == "v3":
        assert {"response_id", "type", "error"} == body.keys()
        assert "custom_segment" == body["type"]
    if family == "analytics" and answer.status_code in {401, 403}:
        assert "text/plain" == answer.headers["Content-Type"].partition(";")[0]
        assert {"code", "target", "message"} == body.keys()
        return answer.status_code, body["code"]
    assert {"code", "message"} <= body["error"].keys()
    return answer.status_code, body["error"]["code"]


@endpoints
def test_credentials(client, endpoint):
    """Without credentials, with wrong ones, and without the workspace's header, there is a 401."""
    expected = (401, "ER001" if endpoint.family == "analytics" else "Authentication required")
    for fields in ({"auth": False}, {"key": "wrong"}, {"headers": {"MOE-APPKEY": None}}):
        assert expected == error_of(call(client, endpoint.name, **fields), endpoint.family)


@endpoints
def test_scopes(start, endpoint):
    """A key of the workspace for another API gets a 403."""
    keys = {"segments_api_key": "seg", "analytics_api_key": "ana"}
    client = start(**keys)
    own = "ana" if endpoint.family == "analytics" else "seg"
    for key in {"seg", "ana", "demo-key"} - {own}:
        status, code = error_of(call(client, endpoint.name, key=key), endpoint.family)
        assert (403, code == "ER007") == (status, endpoint.family == "analytics")
    assert call(client, endpoint.name, key=own).status_code not in {401, 403}


@endpoints
def test_content_type(client, endpoint):
    """Each call needs the content type of JSON, those without a body included."""
    answer = call(client, endpoint.name, headers={"Content-Type": "text/plain"})
    assert 415 == error_of(answer, endpoint.family)[0]


@endpoints
def test_limits(start, endpoint):
    """The call after the last one that a window has is a 429, and counts against nothing; when the
    window has passed, there is room."""
    client = start(clock=ManualClock())
    windows = LIMITS[endpoint.limit]
    if not windows:
        return
    seconds, most = min(windows.items())
    for _ in range(most):
        assert 429 != call(client, endpoint.name).status_code
    for _ in range(3):
        answer = call(client, endpoint.name)
        assert (429, "0") == (answer.status_code, answer.headers["x-ratelimit-remaining"])
        assert 429 == error_of(answer, endpoint.family)[0]
    reset = int(answer.headers["x-ratelimit-reset"]) - client.emulator.clock.wall()
    assert seconds == reset
    client.emulator.clock.advance(reset)
    assert 429 != call(client, endpoint.name).status_code


def test_file_operations_share_a_limit(start):
    """All kinds of file operations count together, with the documented message."""
    client = start(clock=ManualClock())
    names = ["file_create", "file_add", "file_remove", "file_replace"]
    for number in range(10):
        call(client, names[number % 4], FILE)
    answer = call(client, "file_add", FILE)
    assert (429, "Too Many Requests") == error_of(answer, "v2")
    message = "File segment operations limit breached. Please retry after some time."
    assert message == answer.json()["description"]


def test_the_quota_of_queries_comes_back_with_the_month(start):
    """A query beyond the quota is a 428 until the calendar month ends, and counts against nothing;
    status and results are no queries."""
    clock = ManualClock()
    client = start(clock=clock, monthly_queries=2)

    def query():
        clock.advance(10)
        return call(client, "query", QUERY)

    def end_of_month():
        now = datetime.fromtimestamp(clock.wall(), UTC)
        first = datetime(now.year + now.month // 12, now.month % 12 + 1, 1, tzinfo=UTC)
        return (first - now).total_seconds()

    for _ in range(2):
        assert [200, 200, 428, 428] == [query().status_code for _ in range(4)]
        clock.advance(end_of_month() - 60)
        answer = query()
        assert (428, "QUOTA_EXCEEDED") == error_of(answer, "analytics")
        assert 200 == call(client, "results", argument="emulated-query-2").status_code
        clock.advance(50)


gaps = st.lists(st.integers(0, 100).map(lambda eighths: eighths / 8), max_size=60)
windows = st.dictionaries(st.sampled_from([1.0, 8.0, 60.0]), st.integers(1, 8), min_size=1)


@given(gaps, windows)
def test_quota(gaps, windows):
    """No window admits more than it has, and no request is refused while all have room."""
    quota, admitted, now = Quota(windows), [], 0.0
    for gap in gaps:
        now += gap
        has_room = all(
            sum(now - seconds < moment for moment in admitted) < most
            for seconds, most in windows.items()
        )
        assert has_room == quota.admit(now)
        if has_room:
            admitted.append(now)


def test_success_of_version_2(client):
    """File operations, archive and unarchive answer with the documented bodies."""
    made = call(client, "file_create", FILE).json()
    assert (24, "File") == (len(made["cs_id"]), made["cs_name"])
    for name, what in (
        ("file_add", "user-add"),
        ("file_remove", "user-remove"),
        ("file_replace", "user-replace"),
    ):
        answer = call(client, name, FILE)
        message = f"File-segment {what} request accepted"
        assert 202 == answer.status_code
        assert made | {"message": message} == answer.json()
    for name in ("archive", "unarchive"):
        answer = call(client, name, {"name": "File"})
        assert 200 == answer.status_code
        assert {"message", "success", "cs_name"} == answer.json().keys()


@pytest.mark.parametrize("field", [*FILE])
def test_fields_of_version_2(client, field):
    """Each required field that is missing or empty is named."""
    for body in (
        {key: FILE[key] for key in FILE if key != field},
        FILE | {field: ""},
        FILE | {field: None},
    ):
        answer = call(client, "file_create", body)
        assert (400, "Invalid request") == error_of(answer, "v2")
        assert answer.json()["description"].startswith(f"{field} - ")


def test_errors_of_version_2(client):
    """What is not there is a 404, and a name that exists a 409, with the documented texts."""
    call(client, "file_create", FILE)
    answer = call(client, "file_create", FILE)
    assert (409, "Resource not created") == error_of(answer, "v2")
    assert "Name already exists: File" == answer.json()["description"]
    for name in ("archive", "unarchive", "file_add", "file_remove", "file_replace"):
        answer = call(client, name, FILE | {"name": "none"})
        assert (404, "Entity Not Found") == error_of(answer, "v2")
        text = "Custom segment not found for the given name or cs_id: none"
        assert text == answer.json()["description"]


def test_success_of_version_3(client):
    """List, get, create and update answer with the documented fields."""
    body = {"name": "Filter", "included_filters": FILTERS}
    made = call(client, "create", body)
    data = made.json()["data"]
    listed = call(client, "list").json()
    changed = call(client, "update", {"included_filters": FILTERS}, argument=data["id"])
    got = call(client, "get", argument=data["id"]).json()

    assert (201, 200) == (made.status_code, changed.status_code)
    assert {"data", "response_id", "type"} == listed.keys() == got.keys()
    assert {"name", "id", "created_time", "type", "source"} == listed["data"][0].keys()
    assert {"updated_time", "description", "included_filters"} <= got["data"].keys()
    assert FILTERS == got["data"]["included_filters"]


def test_errors_of_version_3(client):
    """An id that is none, and one of nothing, are told apart."""
    answer = call(client, "get", argument="none")
    assert 400 == error_of(answer, "v3")[0]
    message = "Invalid bson object-id passed in the request"
    assert message == answer.json()["error"]["message"]
    assert (404, "Entity Not Found") == error_of(call(client, "get"), "v3")


@pytest.mark.parametrize("path", ["", "user_properties.0", "user_properties.0.property"])
def test_a_query_needs_all_keys(client, path):
    """A query without one of its keys, or with another one, is not valid."""
    where = QUERY
    for key in filter(None, path.split(".")):
        where = where[int(key) if key.isdigit() else key]
    wrong = [{key: where[key] for key in where if key != left_out} for left_out in where]
    for value in (*wrong, where | {"more": 1}):
        client.emulator.reset()  # for the limit
        answer = call(client, "query", _replaced(QUERY, path, value))
        assert (400, "VALIDATION_FAILED") == error_of(answer, "analytics")


def _replaced(query, path, value):
    """Return a copy of a query with another object at a path."""
    if not path:
        return value
    (users,) = query["user_properties"]
    users = value if path.endswith("0") else users | {"property": value}
    return query | {"user_properties": [users]}


def test_success_of_a_query(client):
    """Start, status and results answer with the documented bodies."""
    client.add("u1", "u2")
    started = call(client, "query", QUERY).json()
    request_id = started["data"]["request_id"]
    status = call(client, "status", argument=request_id).json()
    results = call(client, "results", argument=request_id).json()

    assert {"response_id", "type", "data"} == started.keys()
    assert {"status": "SUCCESSFUL"} == status["data"]
    row = {"metric": 2, "granularity": "entire", "splitby": [], "step": "A", "tseq": 0, "cseq": 0}
    assert [row] == results["data"]


def test_other_methods(client):
    """An endpoint takes its own method only, though another one may have the same path."""
    workspace = client.emulator.workspace_id
    for path, method in (
        ("/v3/custom-segments", "DELETE"),
        ("/v2/custom-segments/archive", "POST"),
        ("/v5/analytics/user-analysis", "GET"),
    ):
        answer = client.session.request(
            method, client.emulator.url + path, auth=(workspace, "demo-key"), timeout=10
        )
        assert 405 == answer.status_code


def test_control(client, emulator):
    """Everything that steers the two APIs does so over HTTP, too."""
    client.add("u1", "u2")

    def post(path, **body):
        answer = client.control("POST", path, json=body)
        assert 200 == answer.status_code
        return answer.json()

    assert {"count": 1} == post("users", uids=["u1"])
    post("members", cohort_id="vip", action="add_members", uids=["u3"])
    assert {("u1", None), ("u2", None), ("u3", None)} == emulator.members("vip")
    post("queries/fail", reason="because")
    request_id = call(client, "query", QUERY).json()["data"]["request_id"]
    status = call(client, "status", argument=request_id).json()["data"]
    assert {"status": "FAILED", "failure_reason": "because"} == status
    assert 424 == call(client, "results", argument=request_id).status_code
    post("segments/run", name="VIP ")
    post("calls/status", status=503, headers={"Retry-After": "3"})
    assert "3" == call(client, "list").headers["Retry-After"]
    (segment,) = client.control("GET", "segments").json()["segments"]
    assert ("VIP ", "cohort", False) == tuple(segment[k] for k in ("name", "kind", "is_archived"))
    calls = client.control("GET", "calls").json()["calls"]
    names = [("query", 200), ("status", 200), ("results", 424), ("list", 503)]
    assert names == [(each["endpoint"], each["status"]) for each in calls]


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("members", {"cohort_id": "none", "action": "add_members", "uids": []}, 404),
        ("members", {"cohort_id": "vip", "action": "add", "uids": []}, 400),
        ("segments/run", {"name": "none"}, 404),
        ("users", {"ids": []}, 400),
        ("queries/fail", {"count": 0}, 400),
    ],
)
def test_invalid_control(client, path, body, status):
    """A control request that is invalid, or finds nothing, says why."""
    answer = client.control("POST", path, json=body)
    assert status == answer.status_code
    assert answer.json()["error"]


def test_a_reset_forgets_both_apis(client, emulator):
    """After a reset there are no segments, calls, users or used-up limits."""
    client.add("u1")
    for _ in range(50):
        call(client, "list")
    emulator.apis.know([])
    emulator.reset()
    assert ([], []) == (emulator.apis.segments(), emulator.apis.calls())
    assert 200 == call(client, "list").status_code
    client.add("u1")
    request_id = call(client, "query", QUERY).json()["data"]["request_id"]
    (row,) = call(client, "results", argument=request_id).json()["data"]
    assert 1 == row["metric"]
