"""Two hosts with a HOME each and one ledger on PostgreSQL."""

import pytest

from target_moengage_cohort.delivery.pace import WINDOW_SECONDS
from tests.support.emulator import EmulatorProcess
from tests.support.hosts import Hosts, busiest

LIMIT = 12  # requests a minute
ROUNDING = 1e-3
STREAMS = ("buyers", "members", "visitors")


def people(*numbers):
    return [f"user-{number:08}" for number in numbers]


@pytest.fixture
def moengage():
    with EmulatorProcess(f"--requests-per-minute={LIMIT}") as running:
        yield running


def members(moengage, cohort):
    return {uid for uid, _ in moengage.members(cohort)}


def test_two_hosts_share_streams_and_the_limit(server, moengage, tmp_path):
    """Promise 3: with clocks of different zones they keep the limit together, no stream is synced
    by both at once, and in the end MoEngage has what the inputs say."""
    hosts = Hosts(tmp_path, server.new_database("two_hosts"), moengage, LIMIT)
    assert "succeeded" == hosts.start({"one": people(1)}).end()["status"]
    hosts.log_starts()
    wanted = {stream: people(*range(1000 * n, 1000 * n + 700)) for n, stream in enumerate(STREAMS)}
    runs = [
        hosts.start({stream: wanted[stream] for stream in both}, TZ=zone, PGTZ=zone)
        for both, zone in ((STREAMS[:2], "Asia/Tokyo"), (STREAMS[:0:-1], "America/New_York"))
    ]
    reports = [run.end() for run in runs]
    assert ["succeeded"] * 2 == [report["status"] for report in reports], [r.log for r in runs]
    for stream in STREAMS:
        assert set(wanted[stream]) == members(moengage, stream)
    requests = [each for stream in STREAMS for each in moengage.requests(stream)]
    assert len(requests) > LIMIT
    assert {200} == {each["status"] for each in requests}
    starts = hosts.starts()
    assert (len(requests), LIMIT) == (len(starts), busiest(starts, WINDOW_SECONDS - ROUNDING))
    assert not any(each["overlapped"] for each in requests)
    shared = [
        cohort
        for report in reports
        for cohort in report["cohorts"]
        if cohort["cohort_id"] == STREAMS[1]
    ]
    assert [0, 700] == sorted(cohort["added"] for cohort in shared)


def test_a_new_host_sends_the_difference_only(server, moengage, tmp_path):
    """A run in an empty HOME knows what another one had accepted."""
    hosts = Hosts(tmp_path, server.new_database("new_host"), moengage, 300)
    assert "succeeded" == hosts.start({"members": people(*range(100))}).end()["status"]
    report = hosts.start({"members": people(*range(1, 101))}).end()
    (cohort,) = report["cohorts"]
    assert (1, 1, 99) == (cohort["added"], cohort["removed"], cohort["unchanged"])
    assert set(people(*range(1, 101))) == members(moengage, "members")
