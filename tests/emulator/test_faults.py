from __future__ import annotations

import threading
import time

import pytest
import requests


def test_fail_next(client, emulator):
    """The next requests get the status, with its headers, and are not applied."""
    emulator.fail_next(503, 2, headers={"Retry-After": "3", "X-RateLimit-Remaining": "7"})
    answers = [client.add("u1"), client.add("u2"), client.add("u3")]

    assert [503, 503, 200] == [answer.status_code for answer in answers]
    assert "3" == answers[0].headers["Retry-After"]
    assert "7" == answers[0].headers["x-ratelimit-remaining"]
    assert "Server Error" == answers[0].json()["error"]["type"]
    assert {("u3", None)} == emulator.members("vip")
    assert ["status", "status", None] == [record.fault for record in emulator.requests()]


def test_fail_next_details(client, emulator):
    """A fault can have its own error or body, and the change can be applied anyway."""
    emulator.fail_next(403, error_type="Account Suspended", message="Pay first")
    emulator.fail_next(502, body="<html>", headers={"Content-Type": "text/html"}, applied=True)
    suspended, proxy = client.add("u1"), client.add("u2")

    error = suspended.json()["error"]
    assert ("Account Suspended", "Pay first") == (error["type"], error["message"])
    assert ("<html>", "text/html") == (proxy.text, proxy.headers["Content-Type"])
    assert {("u2", None)} == emulator.members("vip")


@pytest.mark.parametrize(
    ("status", "expected"),
    [(403, "BlockedClient"), (429, "Rate Limits Exceeded"), (500, "Server Error")],
)
def test_default_types(client, emulator, status, expected):
    """A fault imitates the documented error of its status."""
    emulator.fail_next(status)

    assert expected == client.add("u1").json()["error"]["type"]


def test_one_cohort_only(client, emulator):
    """A fault for one cohort waits for its next request and does not affect other cohorts."""
    emulator.fail_next(500, cohort_id="two")

    assert 200 == client.add("u1", cohort_id="one").status_code
    assert 500 == client.add("u1", cohort_id="two").status_code
    assert 200 == client.add("u1", cohort_id="two").status_code


def test_script(client, emulator):
    """Faults are injected in the order in which they were set up, one per request."""
    emulator.fail_next(500)
    emulator.drop_next()
    emulator.fail_next(429)
    statuses = [client.add("u1").status_code, None]
    with pytest.raises(requests.ConnectionError):
        client.add("u1")
    statuses += [client.add("u1").status_code for _ in range(2)]

    assert [500, None, 429, 200] == statuses
    assert statuses == [record.status for record in emulator.requests()]


@pytest.mark.parametrize(("when", "expected"), [("before", set()), ("after", {("u1", None)})])
def test_drop_next(client, emulator, when, expected):
    """A dropped connection is reset without an answer, before or after the change."""
    emulator.drop_next(when=when)
    with pytest.raises(requests.ConnectionError, match="reset"):
        client.add("u1")

    (record,) = emulator.requests()
    assert expected == emulator.members("vip")
    assert (None, f"drop_{when}") == (record.status, record.fault)
    assert {"none": 1} == emulator.totals().answers


def test_fail_share(client, emulator):
    """A share of the requests fails, the same ones with the same seed."""

    def statuses():
        emulator.fail_share(0.3, seed=7, statuses=(500, 503))
        return [client.add("u1").status_code for _ in range(60)]

    first = statuses()
    assert {200, 500, 503} == set(first)
    assert 30 < first.count(200) < 55
    assert first == statuses()


@pytest.mark.parametrize(
    "member",
    [{"uid": "bad"}, {"anonymous_id": "bad"}, {"uid": "u2", "anonymous_id": "bad"}],
)
def test_poison(client, emulator, member):
    """A request that lists a poison member is refused with 400, which may echo the identifier."""
    emulator.poison(["bad", "worse"], "No such user: {id}")
    refused = client.add("u1", member)

    assert 400 == refused.status_code
    assert "No such user: bad" == refused.json()["error"]["message"]
    assert set() == emulator.members("vip")
    assert 200 == client.add("u1").status_code


def test_latency(client, emulator):
    """Answers are delayed by the given seconds, for the given number of requests."""
    emulator.latency(0.1, count=1)
    started = time.monotonic()
    client.add("u1")

    assert 0.1 <= time.monotonic() - started
    assert None is emulator.state.faults().latency


def test_client_that_gives_up(client, emulator, payload):
    """A client that stops waiting has no answer in the log, though its change is applied."""
    emulator.hold()
    with pytest.raises(requests.ReadTimeout):
        client.session.post(
            emulator.url + "/v1/integrations/cohortsync",
            json=payload("u1"),
            auth=(emulator.workspace_id, emulator.data_api_key),
            headers={"MOE-APPKEY": emulator.workspace_id},
            timeout=0.05,
        )
    emulator.wait_until(lambda totals: totals.answers == {"none": 1})
    emulator.release()
    client.add("u2")

    first, second = emulator.requests()
    assert (None, "applied") == (first.status, first.outcome)
    assert not second.overlapped


def test_overlap(client, emulator):
    """A request that arrives while another of its cohort is unanswered is marked."""
    emulator.hold()
    threads = []
    for number, cohort in enumerate(("one", "two", "one"), start=1):
        other = type(client)(emulator)
        threads.append(
            threading.Thread(target=other.add, args=["u1"], kwargs={"cohort_id": cohort})
        )
        threads[-1].start()
        emulator.wait_until(lambda totals, number=number: totals.requests == number)
    emulator.release()
    for thread in threads:
        thread.join()

    totals = emulator.totals()
    assert [False, False, True] == [record.overlapped for record in emulator.requests()]
    assert (1, 3, {"200": 3}) == (totals.overlapped, totals.most_unanswered, totals.answers)


def test_clear_faults(client, emulator):
    """All faults are removed together."""
    emulator.fail_next(500, 10)
    emulator.fail_share(1.0)
    emulator.poison(["u1"])
    emulator.latency(100)
    emulator.clear_faults()

    assert 200 == client.add("u1").status_code


@pytest.mark.parametrize(
    "inject",
    [
        lambda emulator: emulator.fail_next(200),
        lambda emulator: emulator.fail_next(500, 0),
        lambda emulator: emulator.fail_next(500, mesage="typo"),
        lambda emulator: emulator.drop_next(when="never"),
        lambda emulator: emulator.fail_share(1.5),
        lambda emulator: emulator.latency(-1),
        lambda emulator: emulator.requests(cohort="typo"),
    ],
)
def test_invalid_faults(emulator, inject):
    """An invalid fault is refused when it is set up."""
    with pytest.raises(ValueError, match=r"at `|unknown field"):
        inject(emulator)
