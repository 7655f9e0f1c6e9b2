"""Streams whose members are not kept: control has their cohorts, runs, names and timestamps."""

import json

import pytest

from target_moengage_cohort.core.errors import SettingsError
from target_moengage_cohort.core.membership import Action
from target_moengage_cohort.delivery.ports import Timing
from target_moengage_cohort.ledger.engines import open_store
from target_moengage_cohort.settings import load
from tests.cli.conftest import Desk
from tests.ledger.support import OTHER_STREAM, STREAM, cohort, copied, encoded, ledgers, members
from tests.support.logs import codes
from tests.support.singer import (
    activate_version,
    config,
    finish,
    lines,
    record,
    run,
    schema,
    start,
    state,
)

NOON = 1_790_000_000.0
FAN_OUT = {"cohorts": {"users": {"cohort_id_column": "cohort"}}}


def rows(*uids, **columns):
    return [record(uid=uid, **columns) for uid in uids]


def entries(emulator, **settings):
    """Return what control has of the cohorts, by their ids."""
    loaded = load(config(emulator, **settings)).settings
    with open_store(loaded, run_id="look", wait=lambda _: False, read_only=True) as store:
        return {entry.cohort_id: entry for entry in store.entries()}


@pytest.mark.parametrize("mode", ["incremental", "add", "remove"])
def test_a_run_without_members_is_recorded(emulator, mode):
    """Each cohort has its name, stream and latest run in control, in every mode."""
    seen = run(emulator, lines(schema(), *rows("a", "b"), state(1)), sync_mode=mode)
    assert (None, [1]) == (seen.error, seen.states)
    (entry,) = entries(emulator).values()
    assert ("users", "users", False) == (entry.stream, entry.name, entry.has_members)
    assert (mode, 2) == (entry.last_run.sync_mode, entry.last_run.added + entry.last_run.removed)
    assert "succeeded" == entry.last_run.status


def test_timestamps_rise_across_runs_without_members(emulator):
    """A cohort's timestamps rise across runs, in whatever mode, though the clock goes back."""
    seen = []
    for hour, mode in ((10, "incremental"), (2, "incremental"), (1, "mirror"), (0, "add")):
        timing = Timing(wall_clock=lambda hour=hour: NOON + 3600 * hour)
        done = run(emulator, lines(schema(), *rows(f"at-{hour}")), timing, sync_mode=mode)
        seen += [each.body["timestamp"] for each in done.accepted]
    assert sorted(set(seen)) == seen
    assert 4 <= len(seen)


def test_timestamps_rise_after_a_crash(tmp_path):
    """What was sent before a crash is not later than what control has, not even by a new cohort."""
    ours, late = tmp_path / "ours", 1_790_000_000_000
    with ledgers(ours) as store:
        store.take(STREAM)
        for number in range(3):
            opened = store.open_without_members(cohort(f"c{number}"), STREAM)
            opened.sent(Action.ADD, encoded(members(1)), 1, late + 9_000 * number)
        crashed = copied(ours, "crashed")
    with ledgers(crashed, run_id="run-2") as store:
        store.accept_older()
        again = store.open_without_members(cohort("c0"), STREAM)
        assert late + 18_000 <= again.last_timestamp <= late + 30_000
    with ledgers(ours, run_id="run-2") as store:
        assert late + 18_000 == store.open_without_members(cohort("c1"), STREAM).last_timestamp
        assert 0 == store.open_without_members(cohort("x"), OTHER_STREAM).last_timestamp


def test_a_cohort_keeps_its_timestamps_with_another_stream(tmp_path):
    """A cohort that another stream populates from now on continues its timestamps."""
    with ledgers(tmp_path) as store:
        opened = store.open_without_members(cohort("vip"), STREAM)
        opened.sent(Action.ADD, encoded(members(1)), 1, 7_000)
    with ledgers(tmp_path, run_id="run-2") as store:
        store.reassign("vip", OTHER_STREAM)
    with ledgers(tmp_path, run_id="run-3") as store:
        assert 7_000 <= store.open(cohort("vip"), OTHER_STREAM).last_timestamp


def test_a_cohort_belongs_to_one_stream_without_members_too(emulator):
    """Another stream, or another name, of a cohort that is known is refused in every mode."""
    vip = {"cohort_id": "vip", "cohort_name": "VIP"}
    assert run(emulator, lines(schema(), *rows("a")), cohorts={"users": vip}).error is None
    data = lines(schema("others"), record("others", uid="a"))
    for mapping, message, code in (
        ({"others": vip}, data, "cohort_of_other_stream"),
        ({"users": vip | {"cohort_name": "New"}}, lines(schema()), "cohort_renamed"),
    ):
        seen = run(emulator, message, cohorts=mapping)
        assert isinstance(seen.error, SettingsError)
        assert (code, []) == (seen.error.code, seen.attempts)


def test_a_crash_without_members_loses_nothing(emulator, tmp_path):
    """A process that is killed before its STATE leaves no doubts: the next one sends the rows."""
    emulator.hold()
    settings = config(emulator, flush_seconds=1)
    first = start(tmp_path / "home", settings)
    first.stdin.write(lines(schema(), *rows("a"), state(0)))
    first.stdin.flush()
    emulator.wait_until(lambda totals: totals.requests >= 1)
    first.kill()
    assert b"" == first.communicate()[0]
    emulator.release()
    done = finish(start(tmp_path / "home", settings), lines(schema(), *rows("a"), state(1)))
    assert (0, [1]) == (done.code, done.states)
    assert {"a"} == {uid for uid, _ in emulator.members("users")}
    sent = [each.timestamp for each in emulator.requests()]
    assert sorted(set(sent)) == sent


def test_status_lists_cohorts_without_members(emulator, tmp_path):
    """`status` lists the cohorts of all modes, those without members without numbers of them."""
    assert run(emulator, lines(schema(), *rows("a", "b"))).error is None
    desk = Desk(emulator, tmp_path)
    desk.raw = config(emulator)
    (listed,) = json.loads(desk.run("status", "--json").stdout)["cohorts"]
    assert ("users", None, None) == (listed["cohort_id"], listed["accepted"], listed["digest"])
    assert 2 == listed["last_run"]["added"]
    text = desk.run("status").stdout
    assert "users" in text
    assert "members are not kept" in text


def test_commands_tell_that_members_are_unknown(emulator, tmp_path):
    """`empty`, `resync` and `retire` refuse a cohort without members; `forget` removes from it."""
    assert (
        run(
            emulator,
            lines(schema(columns=("uid", "cohort")), *rows("a", "b", cohort="vip")),
            **FAN_OUT,
        ).error
        is None
    )
    desk = Desk(emulator, tmp_path)
    desk.raw = config(emulator, **FAN_OUT)
    for command in (
        ("empty", "vip", "--yes"),
        ("ledger", "retire", "vip", "--yes"),
        ("resync", "vip"),
    ):
        done = desk.run(*command)
        assert 1 == done.exit_code
        assert "adopt" in done.output
    (tmp_path / "people").write_text("uid\na\n")
    done = desk.run("forget", str(tmp_path / "people"))
    assert 0 == done.exit_code, done.output
    assert {"b"} == {uid for uid, _ in emulator.members("vip")}
    assert not list(tmp_path.rglob("*.duckdb"))


@pytest.mark.parametrize("mode", ["incremental", "add", "mirror"])
@pytest.mark.parametrize("end", [[], [b"{broken"], [activate_version(7)]], ids=["", "broken", "ok"])
def test_a_version_proves_in_its_first_run_only(emulator, mode, end):
    """A version that any earlier run has seen, finished or not and in whatever mode, is no proof:
    the tap may have resumed within it."""
    everybody = [{**row, "version": 7} for row in rows(*map(str, range(100)))]
    mirror = {"sync_mode": "mirror", "max_removal_percent": 50}
    run(emulator, lines(schema(), *rows(*map(str, range(100)))), **mirror)
    run(emulator, lines(schema(), *everybody, *end), sync_mode=mode)
    rest = lines(schema(), *everybody[:30], activate_version(7))
    seen = run(emulator, rest, **mirror)
    assert ("end_of_input", 70) == (
        seen.report.cohorts[0].complete,
        seen.report.cohorts[0].removals_withheld,
    )
    assert 100 == len(emulator.members("users"))


def test_a_version_that_was_only_activated_proves_nothing_later(emulator):
    """A run that saw an ACTIVATE_VERSION without rows has seen the version."""
    run(emulator, lines(schema(), activate_version(7)))
    data = lines(schema(), {**record(uid="a"), "version": 7}, activate_version(7))
    seen = run(emulator, data, sync_mode="mirror")
    assert "end_of_input" == seen.report.cohorts[0].complete


@pytest.mark.parametrize("mode", ["incremental", "mirror"])
def test_no_ledger_is_created_against_a_person_s_word(emulator, tmp_path, caplog, mode):
    """With ledger_create: false the store must exist, while its cohorts may be new."""
    data, folder = lines(schema(), *rows("a"), state(1)), tmp_path / "ledger"
    settings = {"ledger_uri": str(folder), "sync_mode": mode}
    seen = run(emulator, data, **settings, ledger_create=False)
    assert ("ledger_missing", [], []) == (seen.error.code, seen.attempts, seen.states)
    assert not folder.exists()
    assert run(emulator, data, **settings).error is None
    assert ["ledger_created"] == codes(caplog)
    other = lines(schema("other"), record("other", uid="b"))
    assert run(emulator, other, **settings, ledger_create=False).error is None
    assert ["ledger_created"] == codes(caplog)
    assert {"b"} == {uid for uid, _ in emulator.members("other")}


def test_parents_of_an_explicit_path_are_not_created(emulator, tmp_path):
    """A ledger_uri below a directory that is missing, as an unmounted disk, is refused."""
    place = tmp_path / "disk" / "ledger"
    seen = run(emulator, lines(schema(), *rows("a")), ledger_uri=str(place))
    assert ("ledger_parent_missing", []) == (seen.error.code, seen.attempts)
    assert not place.parent.exists()
    place.parent.mkdir()
    assert run(emulator, lines(schema(), *rows("a")), ledger_uri=str(place)).error is None


@pytest.mark.parametrize("how", ["rename", "reassign", "mirror"])
def test_members_from_before_any_were_kept_are_forgotten(emulator, tmp_path, how):
    """A user whom a cohort got before its members were kept is removed by `forget`, though the
    ledger has other members since; `empty` says that it cannot know them."""
    desk = Desk(emulator, tmp_path)
    del desk.raw["ledger_uri"]
    desk.raw["cohorts"] = {"users": {"cohort_id": "vip"}}
    assert (
        run(emulator, lines(schema(), *rows("a", "b")), cohorts=desk.raw["cohorts"]).error is None
    )
    if how == "rename":
        assert 0 == desk.run("ledger", "rename", "vip", "VIP").exit_code
    elif how == "reassign":
        desk.raw["cohorts"] = {"others": {"cohort_id": "vip"}}
        assert 0 == desk.run("ledger", "reassign", "vip", "others").exit_code
    else:
        data = lines(schema(), *rows("c"))
        mirror = {"cohorts": desk.raw["cohorts"], "sync_mode": "mirror"}
        assert run(emulator, data, **mirror).error is None
    assert 0 == desk.run("forget", "-", text="a\n").exit_code
    assert {"b", *("c" if how == "mirror" else "")} == {one.uid for one in emulator.members("vip")}
    assert "adopt vip" in desk.run("empty", "vip", "--yes").stderr
