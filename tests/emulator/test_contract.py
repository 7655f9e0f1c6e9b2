from __future__ import annotations

import json

import pytest

AUTHENTICATION = "/v1/integrations/authentication"
MISSING = object()


def error_of(response):
    body = response.json()
    assert {"status", "error"} == body.keys()
    assert "fail" == body["status"]
    assert {"message", "type", "request_id"} <= body["error"].keys()
    assert all(isinstance(value, str) and value for value in body["error"].values())
    return response.status_code, body["error"]["type"], body["error"].get("attribute")


def test_accepts(client, emulator):
    """A valid request is answered with exactly the documented body, and applied."""
    response = client.add("u1", {"uid": "u2", "anonymous_id": "a2"}, {"anonymous_id": "a3"})

    assert 200 == response.status_code
    assert {
        "status": "success",
        "message": "Your request has been accepted and will be processed soon.",
    } == response.json()
    assert {("u1", None), ("u2", "a2"), (None, "a3")} == emulator.members("vip")


def test_removes(client, emulator):
    """A removal removes existing members and ignores the others."""
    client.add("u1", "u2", {"anonymous_id": "u1"})

    assert 200 == client.remove("u1", "nobody").status_code
    assert {("u2", None), (None, "u1")} == emulator.members("vip")


def test_adding_twice(client, emulator):
    """Adding an existing member changes nothing, not even the other identifier."""
    client.add({"uid": "u1", "anonymous_id": "a1"})
    client.add({"uid": "u1", "anonymous_id": "a2"})

    assert {("u1", "a1")} == emulator.members("vip")
    assert [1, 0] == [record.changed for record in emulator.requests()]


def test_cohorts_of_partners(client, emulator):
    """Cohorts of two partners are separate, even with the same identifier."""
    client.add("u1", partner="acme", cohort_name="A", cohort_description="first")
    client.add("u2", partner="other", cohort_name="B")

    assert {("u1", None)} == emulator.members("vip", "acme")
    assert {("u2", None)} == emulator.members("vip", "other")
    assert ["first", None] == [cohort.description for cohort in emulator.cohorts()]
    with pytest.raises(LookupError):
        emulator.members("vip")


@pytest.mark.parametrize(
    ("auth", "headers", "expected"),
    [
        (lambda _: None, {}, "Authentication required"),
        (lambda _: None, {"Authorization": "Bearer x"}, "Authentication required"),
        (lambda _: None, {"Authorization": "Basic ***"}, "Authentication required"),
        (lambda _: None, {"Authorization": "Basic YQ=="}, "Authentication required"),
        (lambda e: (e.workspace_id, "wrong"), {}, "Authentication Mismatch"),
        (lambda e: ("other", e.data_api_key), {}, "Authentication Mismatch"),
        (lambda e: ("other", e.data_api_key), {"MOE-APPKEY": "other"}, "Authentication Mismatch"),
        (lambda _: "right", {"MOE-APPKEY": "other"}, "Authentication Mismatch"),
        (lambda _: "right", {"MOE-APPKEY": None}, "Authentication Mismatch"),
    ],
)
def test_credentials(client, emulator, payload, auth, headers, expected):
    """Missing or wrong credentials are answered with 401, and nothing is applied."""
    response = client.post(payload("u1"), auth=auth(emulator), headers=headers)

    assert (401, expected, None) == error_of(response)
    assert [] == emulator.cohorts()


@pytest.mark.parametrize("kind", [None, "", "text/plain", "application/jsonp", "text/json"])
def test_content_type(client, payload, kind):
    """A content type other than JSON is answered with 415."""
    response = client.post(payload("u1"), headers={"Content-Type": kind})

    assert (415, "Unsupported media type", None) == error_of(response)


def test_content_type_with_parameters(client, payload):
    """A content type may have parameters, in any case."""
    response = client.post(
        payload("u1"), headers={"Content-Type": "Application/JSON; charset=utf-8"}
    )

    assert 200 == response.status_code


def test_size(client, payload):
    """A body of 128,000 bytes is accepted; one more byte is answered with 413."""
    body = json.dumps(payload("u1")).encode()

    assert 200 == client.post(body.ljust(128_000)).status_code
    assert (413, "Payload too large", None) == error_of(client.post(body.ljust(128_001)))


def test_size_is_an_option(start, payload):
    """The byte limit is an option, and a body far above it is read to its end."""
    client = start(max_payload_bytes=500)
    body = json.dumps(payload("u1")).encode()

    assert 200 == client.post(body.ljust(500)).status_code
    assert 413 == client.post(body.ljust(5_000_000)).status_code
    assert 5_000_000 == client.emulator.requests()[-1].bytes


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b'{"action": 5',
        b'{"action": "add_members"} x',
        b'{"x": "\xff"}',
        b'{"action": "\xff"}',
        b'{"x": ' + b"[" * 50_000,
    ],
)
def test_malformed(client, body):
    """A body that isn't JSON in UTF-8 is `Malformed JSON`, wherever it breaks."""
    assert (400, "Malformed JSON", None) == error_of(client.post(body))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        *(("action", value) for value in (MISSING, None, 5, "", "ADD_MEMBERS", "replace")),
        *(("partner", value) for value in (MISSING, None, 5, "", " \t")),
        *(("timestamp", value) for value in (None, 5, "", "now", "2026-13-01T00:00:00Z")),
        *(("parameters", value) for value in (MISSING, None, [], "x")),
        *(("parameters.cohort_id", value) for value in (MISSING, None, 7, "", " ")),
        *(("parameters.cohort_name", value) for value in (MISSING, None, 7, "", " ")),
        *(("parameters.cohort_description", value) for value in (None, 7)),
        *(("parameters.members", value) for value in (MISSING, None, [], {}, "u1", ["u1"])),
        *(
            ("parameters.members", [{"uid": "u1"}, member])
            for member in ({}, {"uid": 1}, {"uid": ""}, {"uid": None}, {"anonymous_id": 1})
        ),
    ],
)
def test_attributes(client, emulator, payload, path, value):
    """A missing or ill-typed attribute is named, and nothing is applied."""
    body = payload("u1")
    *parents, name = path.split(".")
    target = body["parameters"] if parents else body
    target.pop(name, None)
    if value is not MISSING:
        target[name] = value

    assert (400, "MissingAttributeError", name) == error_of(client.post(body))
    assert [] == emulator.cohorts()


@pytest.mark.parametrize("body", [[], "x", None, 5])
def test_no_object(client, body):
    """JSON other than an object lacks all attributes."""
    assert (400, "MissingAttributeError", "body") == error_of(
        client.post(json.dumps(body).encode())
    )


@pytest.mark.parametrize(
    "timestamp",
    ["2026-11-22T04:00:00.123Z", "2026-11-22T04:00:00Z", "2026-11-22T09:30:00.5+05:30"],
)
def test_timestamp(client, emulator, timestamp):
    """ISO 8601 timestamps are accepted, and unknown attributes are ignored."""
    response = client.add("u1", timestamp=timestamp, some_other="x")

    assert 200 == response.status_code
    assert timestamp == emulator.requests()[0].timestamp


@pytest.mark.parametrize(
    "name",
    ["x" * 201, "All Users", ".VIP", *(f"V{sign}P" for sign in ':|*?\\<>=$"')],
)
def test_bad_names(client, emulator, name):
    """A request with a forbidden name is answered with 200 but dropped, and the log says so."""
    response = client.add("u1", cohort_name=name)

    (record,) = emulator.requests()
    assert 200 == response.status_code
    assert [] == emulator.cohorts()
    assert ("dropped", "cohort_name", 200) == (record.outcome, record.dropped, record.status)


@pytest.mark.parametrize("name", ["x" * 200, "all users", "V.I.P.", "VIP (new)", "Ünïcode 你好"])
def test_good_names(client, emulator, name):
    """A name at the edge of the rules is accepted."""
    client.add("u1", cohort_name=name)

    assert [name] == [cohort.name for cohort in emulator.cohorts()]


def test_names_are_taken(client, emulator):
    """A request with another cohort's name is answered with 200 but dropped."""
    client.add("u1", cohort_id="one", cohort_name="VIP")
    client.add("u2", cohort_id="two", cohort_name="VIP")

    assert ["one"] == [cohort.cohort_id for cohort in emulator.cohorts()]
    assert [None, "name_taken"] == [record.dropped for record in emulator.requests()]


def test_rename(client, emulator):
    """A request with a new name is applied to the same cohort, which keeps its first name."""
    client.add("u1", cohort_name="Old")
    client.add("u2", cohort_name="New")

    assert [("Old", 2)] == [(cohort.name, cohort.members) for cohort in emulator.cohorts()]


def test_segment_limit(start):
    """A full workspace silently drops requests for a new cohort."""
    client = start(max_cohorts=1)
    client.add("u1", cohort_id="one")
    client.add("u1", cohort_id="two")
    client.add("u2", cohort_id="one")

    dropped = [record.dropped for record in client.emulator.requests()]
    assert [None, "segment_limit", None] == dropped


def test_authentication(client, emulator):
    """The credential check accepts the right credentials, and does not count as a request."""
    body = {
        "app_id": emulator.workspace_id,
        "app_secret": emulator.data_api_key,
        "source": "acme",
        "region": "01",
    }
    response = client.post(body, path=AUTHENTICATION, auth=None)

    assert (200, "success") == (response.status_code, response.json()["status"])
    assert response.json()["app_name"]
    assert 0 == emulator.totals().requests


@pytest.mark.parametrize(
    ("changes", "headers", "expected"),
    [
        ({"app_secret": "wrong"}, {}, (401, "Authentication Mismatch", None)),
        ({"app_id": "other"}, {}, (401, "Authentication Mismatch", None)),
        ({}, {"MOE-APPKEY": "other"}, (401, "Authentication Mismatch", None)),
        ({}, {"MOE-APPKEY": None}, (401, "Authentication Mismatch", None)),
        ({}, {"Content-Type": "text/plain"}, (415, "Unsupported media type", None)),
        ({"source": None}, {}, (400, "MissingAttributeError", "source")),
        ({"region": " "}, {}, (400, "MissingAttributeError", "region")),
    ],
)
def test_authentication_fails(client, emulator, changes, headers, expected):
    """The credential check refuses wrong or missing values."""
    body = {
        "app_id": emulator.workspace_id,
        "app_secret": emulator.data_api_key,
        "source": "acme",
        "region": "01",
    }
    response = client.post(body | changes, path=AUTHENTICATION, auth=None, headers=headers)

    assert expected == error_of(response)


def test_other_methods(client, emulator):
    """Cohort Sync accepts POST only, and other paths are unknown."""
    url = emulator.url + "/v1/integrations/cohortsync"

    assert 405 == client.session.get(url).status_code
    assert 404 == client.session.post(url + "s").status_code
