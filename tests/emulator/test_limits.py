from __future__ import annotations

import math
from email.utils import parsedate_to_datetime

from hypothesis import given
from hypothesis import strategies as st

from target_moengage_cohort.emulator import ManualClock
from target_moengage_cohort.emulator.limits import RateLimit, RollingWindow

GAPS = st.lists(st.integers(0, 320).map(lambda eighths: eighths / 8), max_size=60)


def moments(gaps):
    now = 0.0
    for gap in gaps:
        now += gap
        yield now


@given(GAPS)
def test_largest_window(gaps):
    """The largest window is the largest number of moments that any 60 seconds contain."""
    window = RollingWindow()
    arrived = list(moments(gaps))
    for moment in arrived:
        window.add(moment)

    expected = max((sum(end - 60 < m <= end for m in arrived) for end in arrived), default=0)
    assert expected == window.largest


@given(GAPS, st.integers(1, 5))
def test_rate_limit(gaps, limit):
    """No 60 seconds admit more than the limit, and no request is refused below it."""
    rate = RateLimit(limit)
    admitted = []
    for now in moments(gaps):
        recent = sum(now - 60 < moment for moment in admitted)
        assert (recent < limit) == rate.admit(now)
        if recent < limit:
            admitted.append(now)


@given(GAPS, st.integers(1, 5))
def test_reset(gaps, limit):
    """A client that waits until `x-ratelimit-reset` is admitted."""
    rate = RateLimit(limit)
    wall = 1_800_000_000.25
    for now in moments(gaps):
        if not rate.admit(now):
            reset = int(rate.headers(now, wall + now)["x-ratelimit-reset"])
            assert 0 < reset - wall - now <= 61
            assert rate.admit(reset - wall)
            break


def test_headers(client, emulator):
    """Every answer has the limit, the remainder and the time when a request leaves the window."""
    now = emulator.clock.wall()
    client.add("u1")
    emulator.clock.advance(10)
    emulator.fail_next(503)
    answers = [client.add("u1"), client.post(b"{"), client.post(b"", auth=None)]

    assert [503, 400, 401] == [answer.status_code for answer in answers]
    assert ["298", "297", "297"] == [a.headers["x-ratelimit-remaining"] for a in answers]
    assert {"300"} == {answer.headers["x-ratelimit-limit"] for answer in answers}
    assert {str(math.ceil(now + 60))} == {a.headers["x-ratelimit-reset"] for a in answers}


def test_date(client, emulator):
    """The answer's Date comes from the same clock as the reset."""
    date = parsedate_to_datetime(client.add("u1").headers["Date"])

    assert int(emulator.clock.wall()) == date.timestamp()


def test_300_a_minute(client, emulator):
    """The 301st request in 60 seconds is 429 and not applied; at the reset one is admitted."""
    statuses = {client.add("u1").status_code for _ in range(300)}
    emulator.clock.advance(30)
    refused = client.add("u2")
    reset = int(refused.headers["x-ratelimit-reset"])
    emulator.clock.advance(reset - emulator.clock.wall())

    assert {200} == statuses
    assert 429 == refused.status_code
    assert "Rate Limits Exceeded" == refused.json()["error"]["type"]
    assert "0" == refused.headers["x-ratelimit-remaining"]
    assert {("u1", None)} == emulator.members("vip")
    assert 200 == client.add("u2").status_code
    assert 301 == emulator.totals().largest_window


def test_refusals_do_not_count(start, payload):
    """Neither a 429 nor a 401 counts towards the limit, but an error of the payload does."""
    client = start(requests_per_minute=2, clock=ManualClock())
    client.post(payload("u1"), auth=None)

    statuses = [client.post(b"{").status_code, client.add("u1").status_code]
    for _ in range(5):
        client.emulator.clock.advance(10)
        statuses.append(client.add("u1").status_code)
    client.emulator.clock.advance(10)
    statuses.append(client.add("u1").status_code)

    assert [400, 200, 429, 429, 429, 429, 429, 200] == statuses


def test_other_integrations(start):
    """Other integrations of the workspace use up the same limit."""
    client = start(requests_per_minute=10, clock=ManualClock())

    assert 9 == client.emulator.use_up(9)
    assert [200, 429] == [client.add("u1").status_code for _ in range(2)]
    assert 0 == client.emulator.use_up(3)
    assert 2 == client.emulator.totals().largest_window
