"""Cohorts that are unarchived before MoEngage's archiving can end their use."""

import contextlib
import os

import pytest
from hypothesis import example, given
from hypothesis import settings as options
from hypothesis import strategies as st

from target_moengage_cohort.core.interrupts import Interrupt
from target_moengage_cohort.core.membership import Cohort, Member
from target_moengage_cohort.core.warning_log import WarningLog
from target_moengage_cohort.delivery.delivery import live_calls
from target_moengage_cohort.delivery.ports import Timing
from target_moengage_cohort.emulator import Emulator, ManualClock
from target_moengage_cohort.ledger.engines import open_store
from target_moengage_cohort.settings import load
from target_moengage_cohort.sync.context import RunContext
from target_moengage_cohort.sync.reporting.report import ReportHead
from target_moengage_cohort.sync.segments.unarchiver import Unarchiver
from tests.support.ledger_places import FolderPlace, ServerPlace, opened
from tests.support.logs import codes
from tests.support.singer import UNLIMITED, config, lines, record, run, schema
from tests.support.strategies import histories

DAY = 86_400
MAPPING = {"users": {"cohort_id_column": "c"}}
EXAMPLES = int(os.environ.get("EXAMPLES", "4")) // 2
COHORTS = 210  # more than may be unarchived in an hour


class Bench:
    """Runs of a stream by the emulator's clock, with a ledger in some place."""

    def __init__(self, emulator, place):
        self.emulator, self.place, self.clock = emulator, place, emulator.clock

    def run(self, *cohorts, columns=("uid", "c"), data=None, **changes):
        """Run on one member of each cohort, in one of several cohorts' streams by default."""
        rows = [record(uid="u", c=str(each)) for each in cohorts]
        timing = Timing(self.clock.monotonic, self.clock.wall, lambda _longest: 0.0)
        defaults = {
            "sync_mode": "mirror",
            "cohorts": MAPPING,
            "max_new_cohorts": UNLIMITED,
            "keep_unarchived_days": 30,
            "ledger_uri": self.place.uri,
        }
        data = data or lines(schema(columns=columns), *rows)
        before = self.clock.monotonic()
        seen = run(self.emulator, data, timing, **defaults | changes)
        assert before == self.clock.monotonic()  # it has not waited
        return seen

    def pass_days(self, days):
        self.clock.advance(days * DAY)

    def calls(self):
        """Return the answers to all requests to unarchive, in order."""
        calls = self.emulator.apis.calls()
        return [each.status for each in calls if each.endpoint == "unarchive"]

    def archived(self):
        return {each.name for each in self.emulator.apis.segments() if each.is_archived}

    def command(self, work, **changes):
        """Do some work with a store that may be written."""
        raw = config(self.emulator, ledger_uri=self.place.uri, **changes)
        with open_store(load(raw).settings, run_id="c", wait=lambda _: False) as store:
            work(store)


@pytest.fixture
def emulator():
    with Emulator(requests_per_minute=UNLIMITED, clock=ManualClock()) as running:
        yield running


@pytest.fixture(params=["files", "server"])
def bench(request, emulator):
    """A bench with each kind of ledger."""
    with opened(request, request.param) as place:
        yield Bench(emulator, place)


@pytest.fixture
def local(emulator):
    """A bench with a ledger in a directory."""
    with contextlib.closing(FolderPlace()) as place:
        yield Bench(emulator, place)


def test_a_stable_audience_is_never_archived(bench):
    """An audience that needs no requests is unarchived by the first run in 30 days each time, so
    that it is never archived, which it is without the setting."""
    for _ in range(20):
        seen = bench.run("a")
        assert (None, "succeeded") == (seen.error, seen.report.status)
        assert set() == bench.archived()
        bench.pass_days(10)
    assert [200] * 6 == bench.calls()
    assert 1 == len(bench.emulator.requests())
    bench.pass_days(60)
    bench.run("a", keep_unarchived_days=None)
    assert {"a"} == bench.archived()


def test_an_archived_cohort_is_unarchived_before_anything_is_sent(bench, caplog):
    """After more than 60 days the cohort may have been archived; it is unarchived before the run's
    requests leave, with a warning that names resync."""
    bench.run("a")
    bench.pass_days(61)
    rows = lines(schema(columns=("uid", "c")), record(uid="u", c="a"), record(uid="v", c="a"))
    bench.run(data=rows, keep_unarchived_days=None)
    assert {"a"} == bench.archived()
    caplog.clear()
    more = rows + lines(record(uid="w", c="a"))
    archived = []
    seen = bench.run(data=more)
    archived += bench.archived()
    assert ([], None, 3) == (archived, seen.error, len(bench.emulator.members("a")))
    assert ["unarchived_late"] == codes(caplog)
    (warning,) = seen.report.warnings
    assert ("a", "users") == (warning.cohort_id, warning.stream)
    assert "resync a" in warning.message
    caplog.clear()
    bench.pass_days(30)
    bench.run(data=more)
    assert [] == codes(caplog)


def test_the_budget_is_used_oldest_first_and_never_waited_for(local):
    """A run unarchives as many cohorts as the minute has room for, those first that were created or
    unarchived longest ago, and leaves the rest to later runs; with nothing due there is no call."""
    old, everyone = range(70), range(130)
    local.run(*old)
    local.pass_days(5)
    local.run(*everyone)
    local.pass_days(35)
    local.run(*everyone)
    local.run(*everyone)
    assert [200] * 50 == local.calls()
    local.pass_days(21)  # what was not unarchived is archived, if it is old
    archived = local.archived()
    assert (20, True) == (len(archived), archived <= {*map(str, old)})
    for count in (100, 130):
        local.clock.advance(63)
        local.run(*everyone)
        assert [200] * count == local.calls()
    assert set() == local.archived()
    local.run(*everyone)
    assert [200] * 130 == local.calls()


def test_hosts_share_the_budget(emulator, server, tmp_path, monkeypatch):
    """Two hosts with one ledger on a server unarchive 50 cohorts a minute together."""
    with contextlib.closing(ServerPlace(server)) as place:
        bench = Bench(emulator, place)
        bench.run(*range(70))
        bench.pass_days(31)
        for host in ("one", "two"):
            monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / host))
            assert bench.run(*range(70)).error is None
        assert [200] * 50 == bench.calls()


def test_a_cohort_that_is_not_there_yet_is_no_fault(bench, caplog):
    """MoEngage's answer that it has no such segment is not a warning; the cohort is tried again
    after as many days."""
    bench.run("a")
    bench.emulator.reset()
    bench.pass_days(31)
    caplog.clear()
    assert "succeeded" == bench.run("a").report.status
    assert ([404], []) == (bench.calls(), codes(caplog))
    bench.run("a")
    assert [404] == bench.calls()
    bench.pass_days(31)
    bench.run("a")
    assert [404, 404] == bench.calls()


def test_a_cohort_that_is_not_there_was_not_unarchived_late(local, caplog):
    """For a cohort that MoEngage does not have, a run does not say that it was unarchived, however
    old it is; for another one of its age it does."""
    local.run("a", "b")
    local.pass_days(61)
    local.emulator.apis.fail_next(404)
    caplog.clear()
    seen = local.run("a", "b")
    assert ([404, 200], ["unarchived_late"]) == (local.calls(), codes(caplog))
    assert ["b"] == [each.cohort_id for each in seen.report.warnings]


@pytest.mark.parametrize("status", [400, 401, 403, 500, 503, None])
def test_no_error_of_moengage_fails_a_sync(local, caplog, status):
    """Whatever MoEngage answers, the run succeeds, with one warning for all of a stream's cohorts
    that names resync; the next run tries again."""
    local.run("a", "b", "c")
    local.pass_days(31)
    caplog.clear()
    if status is None:
        local.emulator.apis.drop_next(3)
    else:
        local.emulator.apis.fail_next(status, 3)
    seen = local.run("a", "b", "c")
    assert (None, "succeeded") == (seen.error, seen.report.status)
    assert ["unarchive_failed"] == codes(caplog)
    assert "and 2 others" in seen.report.warnings[0].message
    assert "resync a" in seen.report.warnings[0].message
    assert (3 if status == 400 else 1) == len(local.calls())  # it does not try a wrong key thrice
    local.emulator.apis.clear_faults()
    caplog.clear()
    before = len(local.calls())
    local.run("a", "b", "c")
    assert ([200] * 3, []) == (local.calls()[before:], codes(caplog))


def test_a_key_without_the_scope_is_one_warning_for_all_streams(emulator, caplog):
    """After a refusal that is not about a cohort, the run asks no more, for no stream."""
    with contextlib.closing(FolderPlace()) as place:
        bench = Bench(emulator, place)
        streams = [lines(schema(each), record(each, uid="u")) for each in ("a", "b")]
        cohorts = {"a": {}, "b": {}}
        bench.run(data=b"".join(streams), cohorts=cohorts)
        bench.pass_days(31)
        emulator.apis.fail_next(403)
        caplog.clear()
        assert bench.run(data=b"".join(streams), cohorts=cohorts).error is None
        assert ([403], ["unarchive_failed"]) == (bench.calls(), codes(caplog))


def test_a_429_is_no_warning(local, caplog):
    """If MoEngage's limit is used up by others, the rest is left to the next run."""
    local.run("a", "b")
    local.pass_days(31)
    caplog.clear()
    local.emulator.apis.fail_next(429, headers={"Retry-After": "30"})
    assert local.run("a", "b").error is None
    assert ([429], []) == (local.calls(), codes(caplog))
    local.clock.advance(29)
    local.run("a", "b")
    assert [429] == local.calls()
    local.clock.advance(33)
    local.run("a", "b")
    assert [429, 200, 200] == local.calls()


def test_a_cohort_that_is_always_refused_holds_up_no_other(local):
    """A cohort that MoEngage refuses comes last in the next run, after all others."""
    local.run(*range(60))
    local.pass_days(31)
    orders = []

    def look(store):
        orders.append([*store.unarchivals.due("users", local.clock.wall())])

    local.command(look)
    local.emulator.apis.fail_next(400, 50)
    local.run(*range(60))
    assert [400] * 50 == local.calls()
    local.command(look)
    before, after = orders
    assert [*before[50:], *before[:50]] == after
    for count in (100, 110):
        local.clock.advance(63)
        local.run(*range(60))
        assert count == len(local.calls())
    assert [200] * 60 == local.calls()[50:]


@pytest.mark.parametrize("status", [500, None])
def test_a_cohort_without_an_answer_holds_up_no_other(emulator, status):
    """A cohort at which MoEngage always fails comes last in the next run, and does not hold up the
    cohorts of other streams."""

    def fail():
        if status is None:
            emulator.apis.drop_next()
        else:
            emulator.apis.fail_next(status)

    with contextlib.closing(FolderPlace()) as place:
        bench = Bench(emulator, place)
        rows = [record("s", uid="u", c=each) for each in "abc"]
        data = lines(schema("s", columns=("uid", "c")), *rows, schema("t"), record("t", uid="u"))
        options = {"data": data, "cohorts": {"s": MAPPING["users"], "t": {}}}
        bench.run(**options)
        bench.pass_days(31)
        fail()
        assert bench.run(**options).error is None
        assert [status, 200] == bench.calls()  # of a and t; b and c are left
        assert bench.run(**options).error is None
        assert [status, *[200] * 4] == bench.calls()


def test_the_next_run_begins_with_another_cohort(local):
    """A cohort at which MoEngage always fails is tried last by the next run."""
    local.run(*"abc")
    local.pass_days(31)
    orders = []

    def look(store):
        names = {each.number: each.cohort_id for each in store.entries("users")}
        due = store.unarchivals.due("users", local.clock.wall())
        orders.append("".join(names[number] for number in due))

    local.command(look)
    local.emulator.apis.fail_next(503)
    local.run(*"abc")
    local.command(look)
    assert ([503], ["abc", "bca"]) == (local.calls(), orders)


def test_a_dry_run_unarchives_nothing(bench):
    """A dry run makes no call, and records nothing."""
    bench.run("a")
    bench.pass_days(31)
    assert bench.run("a", dry_run=True).error is None
    assert [] == bench.calls()
    bench.run("a")
    assert [200] == bench.calls()


def test_sealed_cohorts_are_kept_and_retired_ones_are_not(bench):
    """A sealed audience is still used by campaigns; a retired one may be archived."""
    columns = ("uid", "c", "n")
    rows = [record(uid="u", c=each, n=2) for each in ("a", "b")]
    one_time = {"sync_mode": "one_time", "expected_count_column": "n"} | MAPPING["users"]
    data = lines(schema(columns=columns), *rows)
    seen = bench.run(data=data, cohorts={"users": one_time})
    assert ["succeeded"] * 2 == [each.status for each in seen.report.cohorts]
    bench.command(lambda store: store.open_known("b").retire())
    bench.pass_days(31)
    only = lines(schema(columns=columns), record(uid="u", c="a", n=1))
    seen = bench.run(data=only, cohorts={"users": one_time})
    assert ["sealed"] == [each.status for each in seen.report.cohorts]
    assert [200] == bench.calls()
    bench.pass_days(31)
    bench.run(keep_unarchived_days=None)
    assert {"b"} == bench.archived()


def test_a_cohort_that_no_stream_populates_is_left_alone(local):
    """A fixed mapping unarchives its own cohort, and none that the stream populated before."""
    local.run("old", "new")
    local.pass_days(31)
    local.run(cohorts={"users": {"cohort_id": "new"}}, data=lines(schema(), record(uid="u")))
    assert [200] == local.calls()
    local.pass_days(40)
    local.run(cohorts={"users": {"cohort_id": "new"}}, data=lines(schema(), record(uid="u")))
    assert {"old"} == local.archived()


def test_an_adopted_cohort_is_unarchived_by_its_first_run(bench, caplog):
    """A cohort that was adopted is in MoEngage, nobody knows since when: the first run unarchives
    it, without requests and without a warning, and from then on a run in so many days does."""
    bench.run("a", ledger_uri=f"{bench.place.folder}/lost")
    bench.pass_days(61)
    bench.run("b", ledger_uri=f"{bench.place.folder}/lost", keep_unarchived_days=None)
    assert {"a"} == bench.archived()
    bench.command(lambda store: store.open(Cohort("a", "a"), "users").adopt([[Member("u")]]))
    caplog.clear()
    for days, calls in ((0, 1), (29, 1), (2, 2)):
        bench.pass_days(days)
        seen = bench.run("a")
        assert (None, set(), []) == (seen.error, bench.archived(), seen.attempts)
        assert [200] * calls == bench.calls()
    assert [] == codes(caplog)


def test_cohorts_without_members_in_the_ledger_are_kept_too(local, caplog):
    """In incremental mode without members a late warning names --full-refresh, not resync."""
    options = {"sync_mode": "incremental", "ledger_uri": None}
    local.run("a", **options)
    local.pass_days(61)
    caplog.clear()
    seen = local.run("a", **options)
    assert ([200], ["unarchived_late"]) == (local.calls(), codes(caplog))
    assert "--full-refresh" in seen.report.warnings[0].message


def test_an_interrupt_ends_it(local):
    """A run that is interrupted makes no further call, and records those that it made."""
    local.run(*range(5))
    local.pass_days(31)
    loaded = load(config(local.emulator, ledger_uri=local.place.uri, keep_unarchived_days=30))
    interrupt = Interrupt()
    timing = Timing(local.clock.monotonic, local.clock.wall, lambda _longest: 0.0)
    context = RunContext(ReportHead("r", WarningLog(), loaded.settings), loaded, interrupt, timing)

    @contextlib.contextmanager
    def sending():
        with contextlib.closing(live_calls(loaded.settings, interrupt.wait)) as calls:

            def send(call):
                answer = calls.send_at_once(call)
                if len(local.calls()) == 2:
                    interrupt.set()
                return answer

            yield send

    mapping = load(config(local.emulator, cohorts=MAPPING)).mapping("users")
    with open_store(loaded.settings, run_id="r", wait=interrupt.wait) as store:
        Unarchiver(context, store, sending).unarchive(mapping)
    assert [200] * 2 == local.calls()
    local.run(*range(5))
    assert [200] * 5 == local.calls()


@given(
    steps=histories(
        st.one_of(
            st.tuples(st.just("run"), st.integers(1, 6)),
            st.tuples(st.just("run"), st.integers(1, 6)),
            st.tuples(st.just("pass"), st.floats(0, 4_000)),
            st.tuples(st.just("pass"), st.floats(0, 100_000)),
            st.tuples(st.just("fail"), st.sampled_from([400, 404, 429, 500])),
        ),
        8,
    ),
    gap=st.floats(0, 130),
)
@example(steps=[("run", 6)], gap=63.0)  # 50 a minute, until 200 an hour are used up
@options(max_examples=EXAMPLES)
def test_never_more_than_the_budget(tmp_path_factory, steps, gap):
    """Promise 3: however runs follow each other, MoEngage gets at most 50 requests a minute and
    200 an hour to unarchive cohorts, and no run waits for a permit or fails."""
    with (
        pytest.MonkeyPatch.context() as patch,
        Emulator(requests_per_minute=UNLIMITED, clock=ManualClock()) as emulator,
        contextlib.closing(FolderPlace()) as place,
    ):
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        bench, injected = Bench(emulator, place), 0
        bench.run(*range(COHORTS))
        bench.pass_days(40)
        for name, value in steps:
            if name == "pass":
                emulator.clock.advance(value)
            elif name == "fail":
                emulator.apis.fail_next(value, 1)
                injected += value == 429
            else:
                for _ in range(value):
                    assert bench.run(*range(COHORTS), keep_unarchived_days=1).error is None
                    emulator.clock.advance(gap)
        calls = [each for each in emulator.apis.calls() if each.endpoint == "unarchive"]
        assert sum(each.status == 429 for each in calls) <= injected
        for seconds, most in ((60, 50), (3_600, 200)):
            for first in calls:
                during = [each for each in calls if 0 <= each.arrived - first.arrived < seconds]
                assert len(during) <= most
