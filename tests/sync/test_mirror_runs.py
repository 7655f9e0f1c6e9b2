"""Mirror and one_time streams: whole runs against the emulator."""

import json
import os
import threading

import pytest

from target_moengage_cohort.core.errors import InputError, LedgerError, TryAgainError
from target_moengage_cohort.delivery.ports import Timing
from tests.support.logs import codes, warnings
from tests.support.singer import activate_version, lines, record, run, schema, state


@pytest.fixture
def mirror(emulator, tmp_path):
    """Runs a mirror of the stream `users` on a ledger of its own."""

    def go(*messages, **settings):
        options = {"ledger_uri": str(tmp_path / "ledger"), "sync_mode": "mirror", **settings}
        return run(emulator, lines(*messages), **options)

    return go


def users(*uids, **row):
    return [record(uid=uid, **row) for uid in uids]


def counted(*uids, count=None, **row):
    return users(*uids, n=len(uids) if count is None else count, **row)


COUNTED = {"cohorts": {"users": {"expected_count_column": "n"}}}
WITH_COUNT = schema(columns=("uid", "n"))


def members(emulator, cohort="users"):
    return {member.uid for member in emulator.members(cohort)}


def test_a_mirror_adds_who_is_new_and_removes_who_is_gone(emulator, mirror):
    """The second run sends exactly the difference to the first one."""
    first = mirror(schema(), *users(*map(str, range(100))), state({"a": 1}))
    assert first.error is None
    assert [{"a": 1}] == first.states
    second = mirror(schema(), *users(*map(str, range(5, 103))), state({"a": 2}))
    assert second.error is None
    assert {str(number) for number in range(5, 103)} == members(emulator)
    assert {("add_members", 3), ("remove_members", 5)} == {
        (each.body["action"], len(each.body["parameters"]["members"])) for each in second.accepted
    }
    (cohort,) = second.report.cohorts
    assert (3, 5, 95) == (cohort.added, cohort.removed, cohort.unchanged)
    assert cohort.desired == cohort.accepted
    assert 98 == cohort.desired.count
    assert "opened" == cohort.ledger
    assert "end_of_input" == cohort.complete


def test_an_unchanged_query_costs_no_request(mirror):
    """If nothing has changed, nothing is sent, and STATE advances."""
    mirror(schema(), *users("a", "b"), state({"a": 1}))
    again = mirror(schema(), *users("b", "a", "b"), state({"a": 2}))
    assert ([], [{"a": 2}]) == (again.attempts, again.states)
    assert "succeeded" == again.report.status


def test_removals_over_the_guard_are_withheld(emulator, mirror):
    """Without proof, more removals than max_removal_percent are withheld, and all else is sent."""
    mirror(schema(), *users(*map(str, range(100))))
    seen = mirror(schema(), *users(*map(str, range(50)), "new"), state({"a": 1}))
    assert members(emulator) == {*map(str, range(100)), "new"}
    (cohort,) = seen.report.cohorts
    assert ("withheld", 50, 1) == (seen.report.status, cohort.removals_withheld, cohort.added)
    assert cohort.plan_id
    assert [{"a": 1}] == seen.states


def test_a_row_count_that_is_right_is_proof(emulator, mirror):
    """With a right row count up to 20 members may be removed, however small the cohort."""
    mirror(WITH_COUNT, *counted(*map(str, range(25))), **COUNTED)
    seen = mirror(WITH_COUNT, *counted(*map(str, range(20, 25))), **COUNTED)
    assert {"20", "21", "22", "23", "24"} == members(emulator)
    assert "count" == seen.report.cohorts[0].complete


def test_a_row_count_that_is_wrong_removes_nobody(emulator, mirror):
    """If rows are missing, the run fails, adds new members, removes none and writes no STATE."""
    mirror(WITH_COUNT, *counted(*map(str, range(100))), **COUNTED)
    seen = mirror(WITH_COUNT, *counted("1", "new", count=3), state({"a": 1}), **COUNTED)
    assert "count_mismatch" == seen.error.code
    assert {*map(str, range(100)), "new"} == members(emulator)
    assert ([], "failed") == (seen.states, seen.report.status)


def test_row_counts_that_differ_are_an_error(emulator, mirror):
    """If two rows have different counts, the run fails and removes no members."""
    mirror(WITH_COUNT, *counted("1", "2"), **COUNTED)
    rows = [*counted("1", count=2), *counted("3", count=3)]
    seen = mirror(WITH_COUNT, *rows, **COUNTED)
    assert "count_mismatch" == seen.error.code
    assert {"1", "2", "3"} >= members(emulator) >= {"1", "2"}


def test_activate_version_after_the_records_is_proof_once(emulator, mirror):
    """An ACTIVATE_VERSION after all records proves completeness, unless a run that died used it."""

    def rows(*uids, version):
        return [{**row, "version": version} for row in users(*uids)]

    everybody = [str(number) for number in range(10)]
    mirror(schema(), *rows(*everybody, version=1), activate_version(1))
    broken = mirror(schema(), *rows(*everybody, version=2), b"{broken")
    assert isinstance(broken.error, InputError)
    rest = mirror(schema(), *rows(*everybody[5:], version=2), activate_version(2))
    assert "end_of_input" == rest.report.cohorts[0].complete
    assert set(everybody) == members(emulator)
    whole = mirror(schema(), *rows(*everybody[5:], version=3), activate_version(3))
    assert "activate_version" == whole.report.cohorts[0].complete
    assert set(everybody[5:]) == members(emulator)


def test_the_exit_code_of_the_tap_is_proof(emulator, mirror, tmp_path):
    """Exit code 0 of a tap that we started proves that the input is complete; other codes do
    not."""
    settings = {"ledger_uri": str(tmp_path / "ledger"), "sync_mode": "mirror"}
    mirror(schema(), *users("1", "2", "3"))
    dead = run(emulator, lines(schema(), *users("1")), tap_exit=lambda: 1, **settings)
    assert "tap_failed" == dead.error.code
    assert {"1", "2", "3"} == members(emulator)
    good = run(emulator, lines(schema(), *users("1")), tap_exit=lambda: 0, **settings)
    assert "tap_exit" == good.report.cohorts[0].complete
    assert {"1"} == members(emulator)


def test_deferred_removals_wait(emulator, mirror, caplog):
    """With removals: deferred the additions are delivered, and the removals wait."""
    mirror(schema(), *users("1", "2", "3"), removals="deferred")
    seen = mirror(schema(), *users("1", "4"), state({"a": 1}), removals="deferred")
    assert {"1", "2", "3", "4"} == members(emulator)
    (cohort,) = seen.report.cohorts
    assert ("succeeded", 2, 0) == (seen.report.status, cohort.removals_waiting, cohort.removed)
    assert cohort.plan_id
    assert [{"a": 1}] == seen.states
    assert ["ledger_created"] == codes(caplog)


def test_a_run_tells_that_the_guard_will_withhold_what_waits(mirror, caplog):
    """If the guard will object to the confirmation, the run warns, and ends as usual."""
    everybody = users(*map(str, range(30)))
    mirror(schema(), *everybody, removals="deferred")
    seen = mirror(schema(), *everybody[:5], removals="deferred")
    assert ("succeeded", 25) == (seen.report.status, seen.report.cohorts[0].removals_waiting)
    assert ("guard_will_object", "users", "users") == warnings(caplog)[-1]
    assert "25 of 30 members" in caplog.text


@pytest.mark.parametrize("end", [b"{broken", b'{"type": "NOTHING"}'])
def test_an_input_that_breaks_removes_nobody(emulator, mirror, caplog, end):
    """A broken line adds the members before it, removes none and writes no STATE."""
    mirror(schema(), *users(*map(str, range(100))))
    seen = mirror(schema(), *users(*map(str, range(99)), "new"), state({"a": 1}), end)
    assert isinstance(seen.error, InputError)
    assert {*map(str, range(100)), "new"} == members(emulator)
    assert [] == seen.states
    assert ("incomplete_input", "users", "users") == warnings(caplog)[-1]


def test_a_rejected_row_removes_nobody(emulator, mirror, caplog, tmp_path):
    """A row without identifier may be any member's: none is removed, and no STATE is written."""
    mirror(schema(), *users(*map(str, range(100))))
    options = {"on_reject": "skip", "rejects_path": str(tmp_path / "rejects.singer")}
    seen = mirror(schema(), *users(*map(str, range(99)), None, "new"), state({"a": 1}), **options)
    assert {*map(str, range(100)), "new"} == members(emulator)
    (cohort,) = seen.report.cohorts
    assert ("failed", "no", 1) == (cohort.status, cohort.complete, cohort.removals_withheld)
    assert ("incomplete_input", 1) == (seen.error.code, seen.report.exit_code)
    assert [] == seen.states
    assert ["rows_rejected", "incomplete_after_rejects", "incomplete_input"] == codes(caplog)[1:]


def test_deleted_and_non_member_rows_count_as_absent(emulator, mirror):
    """In a mirror a row that is deleted or of a non-member counts as absent."""
    columns = schema(columns=("uid", "in_it", "_sdc_deleted_at"))
    mapping = {"cohorts": {"users": {"membership_column": "in_it", "max_removal_percent": 100}}}
    mirror(columns, *users("1", "2", "3", "4", in_it=True), **mapping)
    rows = [*users("1", in_it=True), *users("2", in_it=False)]
    rows += [record(uid="3", in_it=True, _sdc_deleted_at="2026-01-01"), *users("4", in_it="no")]
    mirror(columns, *rows, *users("4", in_it="yes"), **mapping)
    assert {"1", "4"} == members(emulator)


def test_one_time_removes_nobody_and_is_sealed_by_proof(emulator, mirror):
    """A one_time stream adds until its first proven run, and sends nothing after that."""
    once = {"sync_mode": "one_time", **COUNTED}
    mirror(WITH_COUNT, *users("1", "2"), sync_mode="one_time")
    mirror(WITH_COUNT, *counted("2", "3"), **once)
    assert {"1", "2", "3"} == members(emulator)
    sealed = mirror(WITH_COUNT, *counted("4"), state({"a": 1}), **once)
    assert ([], [{"a": 1}]) == (sealed.attempts, sealed.states)
    assert {"1", "2", "3"} == members(emulator)


def test_a_one_time_that_is_interrupted_in_a_retry_is_not_sealed(emulator, tmp_path):
    """Members of a request that was abandoned by an interrupted run are sent by the next one, even
    if it follows immediately."""
    once = {"sync_mode": "one_time", **COUNTED}
    data = lines(WITH_COUNT, *counted("1"))
    for number in range(20):
        emulator.reset()
        emulator.fail_next(503, 10, headers={"Retry-After": "100"})

        def interrupt_soon(_seen, interrupt) -> None:
            threading.Timer(0.01, interrupt.set).start()

        once["ledger_uri"] = str(tmp_path / str(number))
        run(emulator, data, before=interrupt_soon, **once)
        emulator.clear_faults()
        assert run(emulator, data, **once).error is None
        assert {"1"} == members(emulator)


FAN_OUT = {"cohorts": {"users": {"cohort_id_column": "c", "max_removal_percent": 100}}}
WITH_COHORT = schema(columns=("uid", "c"))


def fan_out(**cohorts):
    return [record(uid=uid, c=cohort) for cohort, uids in cohorts.items() for uid in uids]


def test_a_new_ledger_is_warned_of_once(emulator, caplog, tmp_path):
    """A fan-out whose cohorts are all new warns of the new ledger only."""
    settings = {"ledger_uri": str(tmp_path / "ledger"), "sync_mode": "mirror"}
    messages = lines(WITH_COHORT, *fan_out(a="1", b="2", c="3"))
    assert run(emulator, messages, cohorts=FAN_OUT["cohorts"], **settings).error is None
    assert ["ledger_created"] == codes(caplog)


def test_a_cohort_that_vanishes_from_a_fan_out_is_emptied_with_proof_only(emulator, tmp_path):
    """A cohort without rows keeps its members, unless the input is proven and 100 % may leave."""
    settings = {"ledger_uri": str(tmp_path / "ledger"), "sync_mode": "mirror", **FAN_OUT}

    def go(rows, **more):
        return run(emulator, lines(WITH_COHORT, *rows), **settings, **more)

    go(fan_out(a="12", b="34"))
    seen = go(fan_out(a="12"))
    assert {"3", "4"} == members(emulator, "b")
    assert "withheld" == seen.report.status
    assert go(fan_out(a="12"), tap_exit=lambda: 0).error is None
    assert (set(), {"1", "2"}) == (members(emulator, "b"), members(emulator, "a"))


def test_an_incremental_bookmark_on_a_mirror_is_an_error(emulator, mirror):
    """A stream with a replication_key_value omits rows, so a mirror of it fails."""
    mirror(schema(), *users(*map(str, range(100))))
    bookmark = {"bookmarks": {"users": {"replication_key_value": "2026-01-01"}}}
    seen = mirror(schema(), *users(*map(str, range(99))), state(bookmark))
    assert "bookmark_for_mirror" == seen.error.code
    assert "FULL_TABLE" in str(seen.error)
    assert 100 == len(members(emulator))
    assert [] == seen.states


def test_a_lost_answer_is_made_up_for_by_the_next_run(emulator, mirror):
    """Members in doubt that have left are removed, and those that remain are sent again."""
    emulator.fail_next(503, 1_000, applied=True)
    lost = mirror(schema(), *users("1", "2", "3"), max_retry_seconds=0)
    assert isinstance(lost.error, TryAgainError)
    assert 3 == lost.report.cohorts[0].in_doubt
    emulator.clear_faults()
    seen = mirror(schema(), *users("2", "3", "4"), max_removal_percent=50)
    assert {"2", "3", "4"} == members(emulator)
    assert 0 == seen.report.cohorts[0].in_doubt


def test_a_dry_run_leaves_the_ledger_as_it_is(mirror, tmp_path):
    """A dry run reports what it would do, sends nothing and changes no file of the ledger."""
    mirror(schema(), *users("1", "2", "3"))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    seen = mirror(schema(), *users("2", "3", "4"), dry_run=True, max_removal_percent=50)
    assert ([], "dry_run") == (seen.attempts, seen.report.status)
    (cohort,) = seen.report.cohorts
    assert (1, 1, 1) == (cohort.added, cohort.removed, cohort.requests - 1)
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


def test_a_dry_run_without_a_ledger_says_so_and_makes_none(mirror, tmp_path):
    """Before the first run a dry run plans for an empty ledger, and leaves no file behind."""
    seen = mirror(schema(), *users("1"), dry_run=True)
    (cohort,) = seen.report.cohorts
    assert ("none", 1, 0) == (cohort.ledger, cohort.added, cohort.accepted.count)
    assert not (tmp_path / "ledger").exists()


def test_growth_over_max_addition_percent_is_withheld(emulator, mirror):
    """More additions than max_addition_percent allows are withheld, but not of a new cohort."""
    mirror(schema(), *users(*map(str, range(10))), max_addition_percent=50)
    seen = mirror(schema(), *users(*map(str, range(1, 17))), max_addition_percent=50)
    assert {str(number) for number in range(1, 10)} == members(emulator)
    (cohort,) = seen.report.cohorts
    assert ("withheld", 0, 1) == (seen.report.status, cohort.added, cohort.removed)
    assert cohort.plan_id


def test_timestamps_rise_across_runs_though_the_clock_goes_back(emulator, tmp_path):
    """A cohort's timestamps continue from those of the last run, whatever the clock says."""
    settings = {"ledger_uri": str(tmp_path / "ledger"), "sync_mode": "mirror"}
    seen = []
    for hour, uid in ((10, "a"), (2, "b")):
        timing = Timing(wall_clock=lambda hour=hour: 1_790_000_000.0 + 3600 * hour)
        done = run(emulator, lines(schema(), *users("x", uid)), timing, **settings)
        seen += [each.body["timestamp"] for each in done.accepted]
    assert sorted(seen) == seen
    assert len(set(seen)) == len(seen) >= 2


def test_another_stream_of_an_owned_cohort_is_refused(emulator, mirror):
    """One stream populates a cohort; another one is refused, with the command that allows it."""
    mirror(schema(), *users("1"), cohorts={"users": {"cohort_id": "vip", "cohort_name": "VIP"}})
    other = {"others": {"cohort_id": "vip", "cohort_name": "VIP"}}
    seen = mirror(schema("others"), record("others", uid="2"), cohorts=other)
    assert "cohort_of_other_stream" == seen.error.code
    assert "moengage-cohort ledger reassign" in str(seen.error)
    assert {"1"} == members(emulator, "vip")


def test_a_renamed_cohort_is_refused(mirror):
    """A cohort keeps its name until a person renames it."""
    mirror(schema(), *users("1"), cohorts={"users": {"cohort_name": "VIP"}})
    seen = mirror(schema(), *users("2"), cohorts={"users": {"cohort_name": "VIPs"}})
    assert "cohort_renamed" == seen.error.code
    assert "moengage-cohort ledger rename" in str(seen.error)


def test_a_ledger_that_is_new_is_told_loudly(mirror, caplog):
    """A run that creates a ledger warns, with its directory."""
    mirror(schema(), *users("1"))
    assert [("ledger_created", None, None)] == warnings(caplog)
    assert "created a new ledger in" in caplog.text
    caplog.clear()
    mirror(schema(), *users("1"))
    assert [] == warnings(caplog)


def test_no_report_or_log_of_a_mirror_shows_an_id(mirror, caplog, tmp_path):
    """Neither the log nor the report of a mirror that withholds shows a member's id."""
    caplog.set_level("DEBUG")
    mirror(schema(), *users(*(f"secret-{number}" for number in range(30))))
    path = tmp_path / "report.json"
    mirror(schema(), *users("secret-0"), report_path=str(path))
    assert "secret-" not in caplog.text + path.read_text()
    assert "withheld" == json.loads(path.read_text())["status"]


def test_a_run_that_moengage_refuses_while_a_mirror_is_read_fails(emulator, tmp_path):
    """A request that fails for good ends the run with its error, though only a mirror is left."""
    emulator.fail_next(401, 1_000)
    streams = {"events": {"sync_mode": "incremental"}, "users": {}}
    read_end, write_end = os.pipe()
    os.write(write_end, lines(schema("events"), record("events", uid="1"), schema(), *users("2")))
    with os.fdopen(read_end, "rb") as source:

        def close_later():
            emulator.wait_until(lambda totals: totals.requests > 0)
            os.close(write_end)

        closer = threading.Thread(target=close_later)
        closer.start()
        settings = {"ledger_uri": str(tmp_path / "ledger"), "sync_mode": "mirror"}
        seen = run(emulator, source, cohorts=streams, flush_seconds=1, **settings)
        closer.join()
    assert "credentials_refused" == seen.error.code
    assert "failed" == seen.report.status


def test_two_streams_cannot_become_one_mirror(mirror):
    """Two of the tap's streams under one name could hide that one of them is not complete."""
    maps = {"users": {"__alias__": "all"}, "others": {"__alias__": "all"}}
    seen = mirror(schema(), *users("1"), schema("others"), stream_maps=maps)
    assert "mirror_of_two_streams" == seen.error.code
    assert "'users' and 'others' both become 'all'" in str(seen.error)


def test_activate_version_is_proof_with_stream_maps_too(emulator, mirror):
    """The version of a record is known however the record is read."""
    rows = [{**row, "version": 1} for row in users(*map(str, range(10)))]
    mirror(schema(), *rows, activate_version(1), validate_records=True)
    rows = [{**row, "version": 2} for row in users("1", "2")]
    seen = mirror(schema(), *rows, activate_version(2), validate_records=True)
    assert "activate_version" == seen.report.cohorts[0].complete
    assert {"1", "2"} == members(emulator)


def test_after_an_error_of_a_ledger_nothing_more_is_sent(emulator, mirror, tmp_path):
    """An unusable ledger ends the run before the rows for other cohorts are sent."""
    columns = schema(columns=("uid", "c"))
    fan_out = {"cohorts": {"users": {"cohort_id_column": "c", "sync_mode": "incremental"}}}
    mirror(columns, record(uid="1", c="b"), **fan_out)
    (database,) = (tmp_path / "ledger").rglob("*.duckdb")
    database.write_bytes(b"no database")
    before = len(emulator.requests())
    seen = mirror(columns, record(uid="1", c="a"), record(uid="2", c="b"), **fan_out)
    assert isinstance(seen.error, LedgerError)
    assert before == len(emulator.requests())


def test_a_version_of_an_unproven_run_is_no_proof_later(emulator, mirror):
    """A run that just ended may have been cut off, so the rest of its version proves nothing."""

    def rows(*uids, version):
        return [{**row, "version": version} for row in users(*uids)]

    everybody = [str(number) for number in range(30)]
    mirror(schema(), *rows(*everybody, version=1), activate_version(1))
    mirror(schema(), *rows(*everybody[:28], version=2))
    rest = mirror(schema(), *rows(*everybody[28:], version=2), activate_version(2))
    assert "end_of_input" == rest.report.cohorts[0].complete
    assert set(everybody[28:]) <= members(emulator)
    assert len(members(emulator)) >= 28


ANONYMOUS = {"anonymous_id_column": "device", "max_removal_percent": 100}
WITH_DEVICE = schema(columns=("uid", "device"))


@pytest.mark.parametrize("uid", [None, "u2"], ids=["signed out", "another person's"])
def test_a_device_that_stays_is_not_removed_with_its_former_uid(emulator, mirror, uid):
    """A removal omits the anonymous ID of a desired member, and precedes additions, because
    MoEngage would use that ID if it does not know the uid."""
    mirror(WITH_DEVICE, record(uid="u1", device="a1"), record(uid="u", device="a"), **ANONYMOUS)
    seen = mirror(
        WITH_DEVICE, record(uid=uid, device="a1"), record(uid="u", device="a"), **ANONYMOUS
    )
    assert seen.error is None
    removal, addition = (each.body for each in seen.accepted)
    assert ("remove_members", [{"uid": "u1"}]) == (
        removal["action"],
        removal["parameters"]["members"],
    )
    assert "add_members" == addition["action"]
    assert 2 == len(emulator.members("users"))


def test_streams_of_mirrors_are_delivered_at_the_same_time(emulator, tmp_path):
    """Several mirrors overlap, up to max_concurrency: no request is answered before all have left,
    which would be for ever if one waited for another."""
    names = [f"stream-{number}" for number in range(4)]
    messages = [each for name in names for each in (schema(name), record(name, uid="u"))]
    settings = {"ledger_uri": str(tmp_path / "ledger"), "sync_mode": "mirror"}
    all_have_left = threading.Barrier(len(names), timeout=60)
    seen = run(
        emulator,
        lines(*messages),
        before=lambda _seen, _interrupt: all_have_left.wait(),
        max_concurrency=len(names),
        **settings,
    )
    assert seen.error is None
    assert {("u",)} == {tuple(each.uid for each in emulator.members(name)) for name in names}


def test_state_before_a_mirror_is_not_held_by_it(mirror, tmp_path):
    """A STATE before a mirror's SCHEMA is written though the mirror's input is not complete."""
    streams = {"events": {"sync_mode": "incremental"}, "users": {}}
    messages = [schema("events"), record("events", uid="1"), state({"a": 1})]
    options = {"on_reject": "skip", "rejects_path": str(tmp_path / "rejects.singer")}
    seen = mirror(
        *messages, schema(), *users("2", None), state({"a": 2}), cohorts=streams, **options
    )
    assert [{"a": 1}] == seen.states


def test_a_run_stopped_while_its_tap_lingers_has_no_proof(emulator, mirror, tmp_path):
    """If the tap's exit code never arrives, the run fails and removes no members."""
    mirror(schema(), *users("1", "2"))
    settings = {"ledger_uri": str(tmp_path / "ledger"), "sync_mode": "incremental"}
    seen = run(emulator, lines(schema("e")), tap_exit=lambda: None, **settings)
    assert "failed" == seen.report.status


@pytest.mark.parametrize(
    ("cohorts", "absent"),
    [
        ({"users": {}, "gone": {}}, ["gone"]),
        ({"b": {}, "users": {}, "a": {}}, ["a", "b"]),
        ({"users": {}}, []),
        (None, []),
    ],
)
def test_a_configured_stream_without_input_is_a_warning(mirror, caplog, cohorts, absent):
    """A complete input without a configured stream succeeds, and a warning names the stream."""
    seen = mirror(schema(), *users("1"), cohorts=cohorts)
    assert "succeeded" == seen.report.status
    assert {"users": "succeeded", **dict.fromkeys(absent, "no_input")} == {
        cohort.stream: cohort.status for cohort in seen.report.cohorts
    }
    assert absent == [
        warned.stream for warned in warnings(caplog) if warned.code == "stream_without_input"
    ]


@pytest.mark.parametrize(
    "messages",
    [
        [schema(columns=("uid", "_reject_reason")), record(uid="1", _reject_reason="x")],
        [schema(), *users("1"), b"{broken"],
    ],
    ids=["replay", "broken"],
)
def test_other_inputs_need_not_have_each_stream(mirror, caplog, messages):
    """Neither replayed rejects nor an input that was cut short warns of a missing stream."""
    mirror(*messages, cohorts={"users": {}, "gone": {}})
    assert "stream_without_input" not in codes(caplog)
