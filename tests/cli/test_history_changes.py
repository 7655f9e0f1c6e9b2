"""`moengage-cohort history --singer --changes`: who was added and removed, for those who ask."""

import json

import pytest

from tests.cli.conftest import PLANTED, person
from tests.cli.test_history import DAY, NOW, mirror, sync
from tests.support.singer import record, schema


@pytest.fixture
def keeper(place, desk):
    """A desk that keeps changes, with each engine; its output may have identifiers."""
    _ = place  # where its ledger is
    desk.raw |= {"sync_mode": "mirror", "keep_changes_days": 30, "max_removal_percent": 100}
    return desk


def change(desk, numbers, at=NOW, **options):
    settings = {name: desk.raw[name] for name in ("keep_changes_days", "max_removal_percent")}
    return mirror(desk, numbers, at=at, **settings | options)


def changes(desk, *options, clock=lambda: NOW):
    """Return the changes, each with its key, and the STATE after them."""
    result = desk.run("history", "--singer", "--changes", *options, clock=clock)
    desk.output = desk.output.removesuffix(result.output)  # it is to have identifiers
    assert 0 == result.exit_code, result.output
    messages = [json.loads(line) for line in result.stdout.splitlines()]
    (keys,) = (
        each["key_properties"]
        for each in messages
        if each.get("stream") == "changes" and each["type"] == "SCHEMA"
    )
    rows = [
        each["record"]
        for each in messages
        if each["type"] == "RECORD" and each["stream"] == "changes"
    ]
    assert len(rows) == len({tuple(row[key] for key in keys) for row in rows})
    return rows, messages[-1]["value"]


def told(rows):
    return sorted(
        (row["action"], int(row["uid"][-4:]), row["cohort_id"], row["run_id"]) for row in rows
    )


def test_each_member_added_or_removed_is_a_row(keeper):
    """Each accepted change of a member is one row, with its run or command; with STATE only later
    ones are."""
    first = change(keeper, range(5)).report.run_id
    second = change(keeper, range(3, 7), at=NOW + 1).report.run_id
    rows, state = changes(keeper)
    added = [("add", each, "users", first) for each in range(5)]
    assert sorted(
        [
            *added,
            *(("add", each, "users", second) for each in (5, 6)),
            *(("remove", each, "users", second) for each in range(3)),
        ]
    ) == told(rows)
    path = keeper.folder / "state.json"
    path.write_text(json.dumps(state))
    assert [] == changes(keeper, "--state", str(path))[0]
    assert 0 == keeper.run("empty", "users", "--yes", clock=lambda: NOW).exit_code
    rows, _ = changes(keeper, "--state", str(path))
    (command,) = {row["run_id"] for row in rows}
    assert [("remove", each, "users", command) for each in range(3, 7)] == told(rows)
    assert {first, second, command} == {
        each["run_id"] for each in json.loads(keeper.run("history", "--json").stdout)
    }


def test_what_was_not_accepted_is_no_change(keeper):
    """Members whose request was refused are in none; when a later run adds them, once."""
    keeper.emulator.fail_next(401, 1)
    assert change(keeper, range(3)).error is not None
    assert [] == changes(keeper)[0]
    run = change(keeper, range(3), at=NOW + 1).report.run_id
    assert [("add", each, "users", run) for each in range(3)] == told(changes(keeper)[0])


def test_forget_erases_them(keeper):
    """After `forget` no change has the person, neither an earlier one nor the removal itself; the
    keys of all others are as before."""
    change(keeper, range(5))
    change(keeper, range(1, 5), at=NOW + 1)
    before = {(row["number"], row["position"]): row["uid"] for row in changes(keeper)[0]}
    path = keeper.folder / "some.csv"
    path.write_text("uid\n" + "".join(f"{person(each).uid}\n" for each in (0, 2)))
    assert 0 == keeper.run("forget", str(path), clock=lambda: NOW).exit_code
    gone = {person(0).uid, person(2).uid}
    after = {(row["number"], row["position"]): row["uid"] for row in changes(keeper)[0]}
    assert {key: uid for key, uid in before.items() if uid not in gone} == after
    for file in keeper.folder.rglob("*"):
        if file.is_file() and "ledger" in file.parts:
            assert not any(uid.encode() in file.read_bytes() for uid in gone), file


def test_they_are_kept_for_so_many_days(keeper):
    """A run deletes what is older; a run without the setting deletes all."""
    change(keeper, range(5), at=NOW - 31 * DAY)
    change(keeper, range(7), at=NOW - 29 * DAY)
    assert 7 == len(changes(keeper)[0])
    change(keeper, range(7), at=NOW)
    assert 2 == len(changes(keeper)[0])
    mirror(keeper, range(7), at=NOW + 1)
    assert [] == changes(keeper)[0]


def test_no_change_is_kept_unless_it_is_asked_for(keeper):
    """Without the setting nothing is kept, and --changes is refused; without --changes no output
    has an identifier."""
    mirror(keeper, range(3))
    assert [] == changes(keeper)[0]
    change(keeper, range(5), at=NOW + 1)
    for options in ((), ("--json",), ("--singer",)):
        assert PLANTED not in keeper.run("history", *options).output
    assert 2 == keeper.run("history", "--changes").exit_code
    del keeper.raw["keep_changes_days"]
    result = keeper.run("history", "--singer", "--changes")
    assert (1, "") == (result.exit_code, result.stdout)


def test_streams_without_members_have_changes_too(desk):
    """So has a cohort whose members are not kept; `forget` erases them there as well."""
    desk.raw |= {"ledger_uri": None, "sync_mode": "incremental", "keep_changes_days": 30}
    rows = [record("users", uid=person(each).uid) for each in range(4)]
    run = sync(desk, schema("users"), *rows, keep_changes_days=30).report.run_id
    assert [("add", each, "users", run) for each in range(4)] == told(changes(desk)[0])
    path = desk.folder / "some.csv"
    path.write_text(f"uid\n{person(1).uid}\n")
    assert 0 == desk.run("forget", str(path), clock=lambda: NOW).exit_code
    assert [0, 2, 3] == [each for _, each, *_ in told(changes(desk)[0])]
