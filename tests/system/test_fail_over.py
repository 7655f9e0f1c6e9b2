"""Runs whose server fails over to an asynchronous replica, behind one address."""

import time

import pytest

from tests.support.forwarder import Forwarder
from tests.support.ledger_places import bury
from tests.support.look import members
from tests.support.mirror_host import MirrorHost, assert_converges, people, under_way
from tests.support.postgres import Postgres, Replica
from tests.support.singer import lines, schema

HASTY = """
import sys
from target_moengage_cohort.__main__ import main
from target_moengage_cohort.ledger.postgres import ledger_server

ledger_server.RECONNECT_SECONDS = 0.0
main()
"""
"""The target, without another attempt at a first connection."""


class Pair:
    """A primary server, its replica, and the address that leads to one of them."""

    def __init__(self, primary, replica, forwarder):
        self.replica, self._primary, self._forwarder = replica, primary, forwarder
        self.uri = f"postgresql://postgres@127.0.0.1:{forwarder.port}/postgres"

    def wait_for_attempt(self):
        """Wait until a run has asked for a connection in vain."""
        deadline = time.monotonic() + 60.0
        while not self._forwarder.dropped:
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def fail_over(self, meanwhile=lambda: None):
        """Let the replica take the primary server's place; meanwhile there is no server."""
        self._primary.shut_down()
        self._forwarder.lead_to(None)
        meanwhile()
        self.replica.promote()
        self._forwarder.lead_to(self.replica.port)


@pytest.fixture
def pair():
    with Postgres() as primary, Replica(primary) as replica, Forwarder(primary.port) as forwarder:
        yield Pair(primary, replica, forwarder)


@pytest.fixture
def host(emulator, pair, tmp_path):
    return MirrorHost(emulator, tmp_path, pair.uri)


FIRST, SECOND, THIRD = people(*range(100)), people(*range(50, 200)), people(*range(150, 250))


@pytest.mark.parametrize("has_begun", [False, True], ids=["from before the run", "from within it"])
def test_a_fail_over_that_loses_commits_stops_the_run(emulator, pair, host, has_begun):
    """A run whose server has become a replica that was behind sends nothing more, and says why; so
    do the next ones, until a person has accepted the older ledger. Then all is right again."""
    assert host.run(FIRST)[0] is None
    pair.replica.catch_up()
    if not has_begun:
        pair.replica.cut_off()
    with under_way(emulator, host, SECOND) as ending:
        if has_begun:
            pair.replica.catch_up()
            pair.replica.cut_off()
            before = len(emulator.requests())
            emulator.latency(1.0, count=1)  # which leaves time to hold back the answer, too
            emulator.release()
            emulator.wait_until(lambda totals: totals.requests > before)
            emulator.hold()
        sent = len(emulator.requests())
        pair.fail_over()
    assert "ledger_lost_commits" == ending.result()[0]
    assert sent == len(emulator.requests())
    bury(pair.uri)
    assert ("ledger_older", 0) == host.run(SECOND)
    host.repair(SECOND)
    assert_converges(emulator, pair.uri, host, THIRD)


def test_a_fail_over_between_runs_that_loses_commits_is_noticed(emulator, pair, host):
    """A run finds out that the server lacks an earlier run, and sends nothing before a person has
    accepted that."""
    assert host.run(FIRST)[0] is None
    pair.replica.catch_up()
    pair.replica.cut_off()
    assert host.run(SECOND)[0] is None
    pair.fail_over()
    assert ("ledger_older", 0) == host.run(THIRD)
    host.repair(SECOND)
    assert_converges(emulator, pair.uri, host, THIRD)


def test_a_run_goes_on_after_a_fail_over_that_loses_nothing(emulator, pair, host):
    """A replica that has every commit takes over in the middle of a run, which ends well."""
    assert host.run(FIRST)[0] is None
    with under_way(emulator, host, SECOND) as ending:
        pair.replica.catch_up()

        def meanwhile():
            emulator.release()
            pair.wait_for_attempt()

        pair.fail_over(meanwhile)
    code, requests = ending.result()
    assert code is None
    assert requests > 2
    assert_converges(emulator, pair.uri, host, SECOND)


def test_a_replica_that_takes_no_changes_is_named(emulator, pair, host, tmp_path):
    """A run on a replica fails with a code of its own and sends nothing, and `check` says so, but
    the ledger can be looked at; a run that waits goes on once the replica is promoted."""
    assert host.run(FIRST)[0] is None
    pair.replica.catch_up()
    folder = tmp_path / "other"
    folder.mkdir()
    uri = f"postgresql://postgres@127.0.0.1:{pair.replica.port}/postgres"
    other = MirrorHost(emulator, folder, uri)
    assert ("ledger_read_only", 0) == other.run(SECOND, script=HASTY)
    code, text = other.command("check")
    assert (1, True) == (code, "read-only" in text)
    assert 0 == other.command("status")[0]
    waiting, before = other.start(), len(emulator.requests())
    waiting.stdin.write(lines(schema(columns=("uid", "n"))))
    waiting.stdin.flush()
    assert any(b"trying again" in line for line in iter(waiting.stderr.readline, b""))
    pair.fail_over()
    assert other.end(waiting, SECOND, before)[0] is None
    assert {*SECOND} == members(emulator, "users")
