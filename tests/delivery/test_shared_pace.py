"""The pace of several hosts, which share a window on a PostgreSQL server."""

import contextlib
import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from target_moengage_cohort.core.errors import LedgerError
from target_moengage_cohort.core.interrupts import Interrupt
from target_moengage_cohort.delivery.delivery import live_link
from target_moengage_cohort.delivery.pace import WINDOW_SECONDS, Pace, cohort_sync_limit
from target_moengage_cohort.ledger.engines import open_store
from target_moengage_cohort.settings import load
from tests.delivery.test_pace import Clock, no_wait
from tests.support.permits import workspace
from tests.support.postgres import Postgres
from tests.support.strategies import histories

_numbers = itertools.count()
AN_HOUR = 3_600.0


@pytest.fixture(scope="module")
def server():
    with Postgres(timezone="Asia/Kolkata") as running:
        yield running


class Hosts:
    """Hosts with a store on one server, each with a state directory and a clock of its own."""

    def __init__(self, server, folder, count, limit):
        self.database = server.new_database(f"pace_{next(_numbers)}")
        self.uri = (
            f"postgresql://{server.user}@{server.host}:{server.port}/{self.database.database}"
        )
        self.clocks = [Clock(1_000 + number * AN_HOUR) for number in range(count)]
        with contextlib.ExitStack() as stack:
            self.settings = self._load(limit)
            self.stores = [stack.enter_context(self._store()) for _ in range(count)]
            self.paces = [
                stack.enter_context(contextlib.closing(self._pace(folder, number, limit)))
                for number in range(count)
            ]
            self.close = stack.pop_all().close

    def _load(self, limit):
        raw = {"workspace_id": "w", "data_api_key": "k", "data_center": 1, "partner": "p"}
        return load({**raw, "ledger_uri": self.uri, "requests_per_minute": limit}).settings

    def _store(self):
        return open_store(self.settings, run_id=f"run-{next(_numbers)}", wait=no_wait)

    def _pace(self, folder, number, limit):
        window = self.stores[number].shared_window(cohort_sync_limit(workspace(limit)))
        home = folder / f"{number}-{next(_numbers)}"
        home.mkdir()
        clock = self.clocks[number]
        return Pace(workspace(limit), no_wait, home, clock, f"boot-{number}", window)

    def execute(self, statement):
        schema = "SELECT nspname FROM pg_namespace WHERE nspname LIKE 'moengage_cohort_%'"
        ((name,),) = self.database.query(schema)
        self.database.execute(f"SET search_path TO {name}; {statement}")

    def let_pass(self, seconds):
        """Let time pass on all hosts, and on the server as far as its window can tell."""
        for clock in self.clocks:
            clock.now += seconds
        self.execute(f"UPDATE pace SET until = until - {seconds}")


@contextlib.contextmanager
def hosts(server, folder, count=2, limit=5):
    made = Hosts(server, folder, count, limit)
    try:
        yield made
    finally:
        made.close()


steps = histories(
    st.one_of(
        st.tuples(st.just("start"), st.integers(0, 2)),
        st.tuples(st.just("pass"), st.integers(0, 70)),
    ),
    24,
)


@given(steps=steps, limit=st.integers(1, 4))
@settings(max_examples=15)
def test_all_hosts_together_start_no_more_than_allowed(server, tmp_path_factory, steps, limit):
    """Promise 3: whichever of three hosts starts a request, no 62 seconds have more starts than the
    limit, and none is refused while there are fewer."""
    now, starts = 0.0, []
    folder = tmp_path_factory.mktemp("hosts")
    with hosts(server, folder, 3, limit) as three:
        for name, value in steps:
            if name == "pass":
                three.let_pass(value)
                now += value
                continue
            recent = [start for start in starts if now - start < WINDOW_SECONDS - 1]
            counted = [start for start in starts if now - start < WINDOW_SECONDS + 1]
            if three.paces[value].acquire():
                assert len(recent) < limit
                starts.append(now)
            else:
                assert len(counted) >= limit


def test_a_permit_that_the_server_refuses_is_given_back(server, tmp_path):
    """Attempts while the window is full use up nothing of the machine's own window."""
    with hosts(server, tmp_path, 2, limit=3) as both:
        first, second = both.paces
        assert [True] * 3 == [first.acquire() for _ in range(3)]
        both.let_pass(WINDOW_SECONDS - 10)
        assert [False] * 5 == [second.acquire() for _ in range(5)]
        assert second.seconds_to_permit > 0
        both.let_pass(10)
        assert [True, True, True, False] == [second.acquire() for _ in range(4)]


def test_a_429_to_one_host_holds_all_of_them(server, tmp_path):
    """While MoEngage asks to wait, no host starts a request; afterwards each may."""
    with hosts(server, tmp_path) as both:
        first, second = both.paces
        first.hold(30)
        assert not second.acquire()
        assert not first.acquire()
        both.let_pass(31)
        assert second.acquire()
        assert first.acquire()


def test_a_server_clock_that_is_set_back_does_not_stop_all(server, tmp_path):
    """A start of the future counts for a window from now, and no longer."""
    with hosts(server, tmp_path, limit=1) as both:
        first, second = both.paces
        assert first.acquire()
        both.execute("UPDATE pace SET until = until + 3600")
        assert not second.acquire()
        both.let_pass(WINDOW_SECONDS)
        assert second.acquire()


def test_without_the_server_there_is_no_permit(server, tmp_path):
    """An error of the shared window ends the run, though the machine's own has room."""
    with hosts(server, tmp_path) as both:
        both.execute("DROP TABLE pace")
        with pytest.raises(LedgerError):
            both.paces[0].acquire()


def test_a_run_takes_its_permits_from_both(server, tmp_path, monkeypatch):
    """The link of a run uses the window of its store."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    with hosts(server, tmp_path, 1, limit=2) as one:
        link = live_link(one.settings, Interrupt(), one.stores[0])
        with contextlib.closing(link.pace):
            assert [True, True] == [link.pace.acquire() for _ in range(2)]
        assert not one.paces[0].acquire()
