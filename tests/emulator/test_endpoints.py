from __future__ import annotations

import json

import pytest

from target_moengage_cohort.emulator import Emulator, Options


def test_cohorts(client):
    """The cohorts are listed with partner, identifier, name, description and size."""
    client.add("u1", {"anonymous_id": "a1"}, cohort_description="Very important")

    expected = {
        "partner": "acme",
        "cohort_id": "vip",
        "name": "VIP ",
        "sent_name": "VIP ",
        "description": "Very important",
        "members": 2,
        "late": 0,
    }
    assert {"cohorts": [expected]} == client.control("GET", "cohorts").json()


def test_members(client):
    """A cohort's members are returned as lines of JSON in a stable order."""
    client.add("u2", {"anonymous_id": "a1"}, {"uid": "u1", "anonymous_id": "a2"})
    answer = client.control("GET", "members", params={"cohort_id": "vip", "partner": "acme"})

    assert [{"uid": "u2"}, {"uid": "u1", "anonymous_id": "a2"}, {"anonymous_id": "a1"}] == [
        json.loads(line) for line in answer.text.splitlines()
    ]


def test_many_members(client, emulator):
    """All members of a larger cohort are streamed."""
    for start in range(0, 25_000, 5_000):
        client.add(*(f"u{number}" for number in range(start, start + 5_000)))
    lines = client.control("GET", "members", params={"cohort_id": "vip"}).text.splitlines()

    assert 25_000 == len(lines) == len(emulator.members("vip"))
    assert '{"uid":"u24999"}' == lines[-1]


@pytest.mark.parametrize(
    ("query", "status"), [({}, 400), ({"cohort_id": "none"}, 404), ({"cohort_id": "vip"}, 404)]
)
def test_members_not_found(client, query, status):
    """An unknown or ambiguous cohort is an error with a reason."""
    client.add("u1", partner="a", cohort_name="A")
    client.add("u1", partner="b", cohort_name="B")
    answer = client.control("GET", "members", params=query)

    assert status == answer.status_code
    assert answer.json()["error"]


def test_requests(client, emulator):
    """The log has the details and the outcome of each request."""
    body = client.add("u1", "u2", timestamp="2026-11-22T04:00:00.123Z").request.body
    client.post(b"{")
    first, second = client.control("GET", "requests").json()["requests"]

    assert {
        "number": 1,
        "arrived_at": emulator.clock.wall(),
        "arrived": emulator.clock.monotonic(),
        "answered": emulator.clock.monotonic(),
        "bytes": len(body),
        "digest": first["digest"],
        "status": 200,
        "error_type": None,
        "reason": None,
        "outcome": "applied",
        "dropped": None,
        "fault": None,
        "overlapped": False,
        "action": "add_members",
        "partner": "acme",
        "cohort_id": "vip",
        "cohort_name": "VIP ",
        "timestamp": "2026-11-22T04:00:00.123Z",
        "members": 2,
        "changed": 2,
    } == first
    assert (400, "Malformed JSON", "refused", None) == tuple(
        second[name] for name in ("status", "error_type", "outcome", "action")
    )


def test_requests_of_same_bytes(client, emulator):
    """Requests of the same bytes have the same digest."""
    for uid in ("u1", "u1", "u2"):
        client.add(uid)
    one, again, other = (record.digest for record in emulator.requests())

    assert one == again != other


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({}, [1, 2, 3, 4]),
        ({"cohort_id": "two"}, [2, 4]),
        ({"action": "remove_members"}, [3]),
        ({"status": 500}, [4]),
        ({"outcome": "refused"}, [4]),
        ({"after": 2}, [3, 4]),
        ({"limit": 2}, [1, 2]),
        ({"cohort_id": "one", "partner": "acme", "after": 1}, [3]),
    ],
)
def test_requests_filtered(client, emulator, query, expected):
    """The log can be filtered, and the answer shows whether more requests match."""
    client.add("u1", cohort_id="one")
    client.add("u1", cohort_id="two")
    client.remove("u1", cohort_id="one")
    emulator.fail_next(500)
    client.add("u1", cohort_id="two")
    answer = client.control("GET", "requests", params=query).json()

    assert expected == [record["number"] for record in answer["requests"]]
    assert ("limit" in query) == answer["more"]


def test_log_is_bounded(start):
    """The log drops the oldest requests; totals count them."""
    client = start(log_size=2)
    for _ in range(5):
        client.add("u1")

    assert [4, 5] == [record.number for record in client.emulator.requests()]
    assert 5 == client.emulator.totals().requests


def test_totals(client, emulator):
    """The totals count requests, answers, members and the busiest minute."""
    client.add("u1", "u2")
    client.post(b"", auth=None)
    emulator.clock.advance(60)
    client.remove("u1")

    assert {
        "requests": 3,
        "answers": {"200": 2, "401": 1},
        "bytes": sum(record.bytes for record in emulator.requests()),
        "members_sent": 3,
        "members_held": 1,
        "cohorts": 1,
        "late": 0,
        "overlapped": 0,
        "most_unanswered": 1,
        "largest_window": 2,
    } == client.control("GET", "totals").json()


def test_faults(client):
    """All faults can be set up, shown and removed over HTTP, and no member is shown."""
    for path, body in (
        ("status", {"status": 503, "count": 2, "headers": {"Retry-After": "3"}}),
        ("drop", {"when": "after", "cohort_id": "vip"}),
        ("share", {"share": 0.05, "seed": 7, "statuses": [500, 503]}),
        ("latency", {"seconds": 0.2, "count": 10}),
        ("poison", {"ids": ["u7"], "message": "No such user: {id}"}),
        ("hold", {"held": True}),
    ):
        answer = client.control("POST", f"faults/{path}", json=body)
        assert 200 == answer.status_code
    shown = client.control("GET", "faults")
    cleared = client.control("DELETE", "faults").json()

    assert [(503, 2), (None, 1)] == [
        (scripted["fault"]["status"], scripted["left"]) for scripted in shown.json()["scripted"]
    ]
    assert (0.05, 0.2) == (shown.json()["share"]["share"], shown.json()["latency"]["seconds"])
    assert (1, True) == (shown.json()["poisoned"], shown.json()["held"])
    assert "u7" not in shown.text
    assert {
        "scripted": [],
        "share": None,
        "latency": None,
        "poisoned": 0,
        "held": False,
    } == cleared


def test_scripted_over_http(client, emulator):
    """A fault that is set up over HTTP is injected."""
    client.control("POST", "faults/status", json={"status": 503, "headers": {"Retry-After": "3"}})
    client.control("POST", "faults/poison", json={"ids": ["u1"], "message": "Not {id}"})
    failed, refused = client.add("u1"), client.add("u1")

    assert (503, "3") == (failed.status_code, failed.headers["Retry-After"])
    assert (400, "Not u1") == (refused.status_code, refused.json()["error"]["message"])
    assert 2 == emulator.totals().requests


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("faults/status", {}),
        ("faults/status", {"status": 503, "cuont": 1}),
        ("faults/drop", {"when": "never"}),
        ("faults/latency", {"seconds": "1"}),
        ("others", {"count": 0}),
    ],
)
def test_invalid_requests(client, path, body):
    """An invalid control request is answered with 400 and a reason."""
    answer = client.control("POST", path, json=body)

    assert 400 == answer.status_code
    assert answer.json()["error"]


def test_others_and_late(start):
    """The limit can be used up, and late changes applied, over HTTP."""
    client = start(order="late", requests_per_minute=3)
    client.emulator.fail_next(500)
    client.add("u1")

    assert {"count": 2} == client.control("POST", "others", json={"count": 5}).json()
    assert {"count": 1} == client.control("POST", "late").json()
    assert {("u1", None)} == client.emulator.members("vip")


def test_reset(client, emulator):
    """A reset clears cohorts, log, totals, faults and the limit's window."""
    client.add("u1")
    emulator.use_up(299)
    emulator.fail_next(500)
    client.control("POST", "reset")

    assert ([], []) == (emulator.cohorts(), emulator.requests())
    assert 0 == emulator.totals().requests
    assert 200 == client.add("u1").status_code


@pytest.mark.parametrize(
    "options",
    [
        {"order": "random"},
        {"late_after": -1},
        {"requests_per_minute": 0},
        {"max_payload_bytes": 0},
        {"log_size": 0},
    ],
)
def test_invalid_options(options):
    """Invalid options are refused."""
    with pytest.raises(ValueError, match=r"at least|not a valid"):
        Options(**options)


def test_stop(client):
    """An emulator stops immediately even if answers are held back, and can still be queried."""
    with Emulator() as emulator:
        other = type(client)(emulator)
        other.add("u1")
        emulator.latency(100)
        emulator.hold()
    assert {("u1", None)} == emulator.members("vip")
    with pytest.raises(Exception, match="refused"):
        other.add("u2")
