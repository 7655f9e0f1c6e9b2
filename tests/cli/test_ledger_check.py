"""`moengage-cohort ledger check` and `ledger accept-older` with ledgers that were damaged."""

import contextlib
import json
import os
import shlex
import shutil
import sqlite3
import subprocess

import duckdb
import pytest

from target_moengage_cohort.ledger.records import PlanKind
from tests.cli.conftest import people, person
from tests.support.singer import lines, record, run, schema


def files(desk):
    return sorted((desk.folder / "ledger").glob("*/members-*.duckdb"))


def execute(desk, *statements):
    (path,) = files(desk)
    with duckdb.connect(path) as database:
        for statement in statements:
            database.execute(statement)


def checked(desk, code):
    """Return the check's faults, each as its code, stream and cohort."""
    result = desk.run("ledger", "check", "--json")
    assert code == result.exit_code, result.output
    return json.loads(result.stdout)


def repair(desk, command):
    """Run a command that the check printed."""
    words = shlex.split(command)
    if words[0] == "mv":
        subprocess.run(words, check=True)
    else:
        path = str(desk.folder / "config.json")
        assert ["moengage-cohort", "--config", path] == [words[0], *words[-2:]]
        assert 0 == desk.run(*words[1:-2]).exit_code


def faults(result):
    return [(each["code"], each["stream"], each["cohort_id"]) for each in result["faults"]]


def test_a_whole_ledger_has_no_fault(desk):
    """The check recomputes all streams, also with unfolded plans and doubts, and exits with 0."""
    assert [] == checked(desk, 0)["checked"]
    desk.fill("vip", people(1, 2, 3), stream="users")
    desk.fill("other", people(1))
    desk.plan("vip", people(1, 2), kind=PlanKind.WITHHELD)
    desk.run("resync", "vip")
    result = checked(desk, 0)
    assert (["other", "users"], [], []) == (result["checked"], result["busy"], result["faults"])
    assert "Checked 2 streams: 0 faults" in desk.run("ledger", "check").stdout


FAULTS = {
    "members_differ": ["DELETE FROM accepted WHERE uid LIKE '%1'"],
    "mark_differs": ["UPDATE marks SET mark = mark - 1"],
    "rows_of_other_stream": ["INSERT INTO accepted SELECT 999, h, uid, NULL FROM accepted LIMIT 1"],
    "members_without_plan": [
        "INSERT INTO plan_members SELECT cohort, 'x', 'add', 'u', NULL FROM marks"
    ],
}


@pytest.mark.parametrize("code", FAULTS)
def test_each_fault_has_a_command_that_repairs_it(desk, code):
    """A fault in the rows is named with its stream; its command repairs it, and keeps the rest."""
    desk.fill("vip", people(1, 2), stream="users")
    execute(desk, *FAULTS[code])
    before = files(desk)[0].read_bytes()
    result = checked(desk, 1)
    assert [(code, "users")] == [each[:2] for each in faults(result)]
    assert before == files(desk)[0].read_bytes()
    text = desk.run("ledger", "check")
    assert (1, True) == (text.exit_code, result["faults"][0]["command"] in text.stdout)
    repair(desk, result["faults"][0]["command"])
    assert [] == faults(checked(desk, 0))
    assert {person(2)} <= desk.accepted("vip")


def test_a_missing_file_can_be_accepted(desk):
    """A stream whose file is missing is refused by runs until a person accepts it as empty."""
    desk.fill("vip", people(1), stream="users")
    files(desk)[0].unlink()
    assert 1 == desk.run("resync", "vip").exit_code
    (fault,) = checked(desk, 1)["faults"]
    assert ("members_missing", "users") == (fault["code"], fault["stream"])
    assert 1 == desk.run("ledger", "accept-older", "nobody").exit_code
    repair(desk, fault["command"])
    assert [] == faults(checked(desk, 0))
    assert (0, 0) == desk.counts("vip")


def test_rows_of_a_cohort_in_two_files_are_found(desk):
    """A cohort whose rows a second stream's file has, too, is named with that stream."""
    desk.fill("vip", people(1), stream="users")
    (path,) = files(desk)
    copy = path.read_bytes()
    desk.fill("other", people(2), stream="others")
    desk.run("ledger", "reassign", "vip", "others")
    path.write_bytes(copy)
    result = checked(desk, 1)
    assert [("rows_of_other_stream", "users", "vip")] == faults(result)
    repair(desk, result["faults"][0]["command"])
    assert [] == faults(checked(desk, 0))
    assert {person(1)} == desk.accepted("vip")


def test_a_file_that_no_stream_has_is_found(desk):
    """A file of members of no stream is named and can be moved away; other partners' files are
    known."""
    desk.fill("vip", people(1))
    (path,) = files(desk)
    desk.raw["partner"] = "another"
    desk.fill("theirs", people(1))
    stray = path.with_name("members-0123.duckdb")
    shutil.copy(path, stray)
    result = checked(desk, 1)
    assert [("unknown_file", None, None)] == faults(result)
    assert str(stray) == result["faults"][0]["path"]
    repair(desk, result["faults"][0]["command"])
    assert [] == faults(checked(desk, 0))


def test_an_unusable_file_is_a_fault_of_its_stream(desk):
    """A file that is no database is a fault of its stream, and the others are checked."""
    desk.fill("vip", people(1), stream="b")
    (path,) = files(desk)
    desk.fill("other", people(1), stream="a")
    path.write_bytes(b"broken" * 10_000)
    result = checked(desk, 1)
    assert [("members_unusable", "b", None)] == faults(result)
    assert ["a", "b"] == result["checked"]
    repair(desk, result["faults"][0]["command"])
    assert [("members_missing", "b", None)] == faults(checked(desk, 1))


def test_busy_streams_are_named(desk):
    """A stream that a run has is named, the others are checked, and the exit code is 4."""
    desk.fill("vip", people(1))
    desk.fill("other", people(1))
    with desk.ledger("vip"):
        result = checked(desk, 4)
    assert (["other"], ["vip"]) == (result["checked"], result["busy"])


def test_a_restored_ledger_is_refused_until_accepted(desk):
    """Commands refuse a ledger from before the newest run, name accept-older, and work after it."""
    desk.fill("vip", people(1))
    shutil.copytree(desk.folder / "ledger", desk.folder / "backup")
    desk.fill("vip", people(2))
    shutil.rmtree(desk.folder / "ledger")
    refused = desk.run("status")
    assert (1, True) == (refused.exit_code, "ledger accept-older --config" in refused.stderr)
    shutil.copytree(desk.folder / "backup", desk.folder / "ledger")
    for command in (("status",), ("ledger", "check"), ("resync", "vip"), ("empty", "vip", "--yes")):
        assert 1 == desk.run(*command).exit_code
    assert {person(1), person(2)} == desk.there("vip")
    assert 0 == desk.run("ledger", "accept-older").exit_code
    assert 0 == desk.run("ledger", "check").exit_code
    assert 0 == desk.run("resync", "vip").exit_code
    shutil.rmtree(desk.folder / "ledger")
    assert "the next run creates one" in desk.run("ledger", "accept-older").stdout
    assert 0 == desk.run("status").exit_code


def cut(path, share):
    os.truncate(path, int(path.stat().st_size * share))


def replaced(path, connect):
    path.unlink()
    with contextlib.closing(connect(path)) as database:
        database.execute("CREATE TABLE mine (a INTEGER)")


CONTROL = {
    "cut": lambda path: cut(path, 0.5),
    "garbage": lambda path: path.write_bytes(b"broken" * 1_000),
    "empty": lambda path: cut(path, 0),
    "missing": lambda path: path.unlink(),
}
MEMBERS = {
    **CONTROL,
    "another database": lambda path: replaced(path, duckdb.connect),
    "another engine's": lambda path: replaced(path, sqlite3.connect),
}


@pytest.mark.parametrize(
    ("file", "fault"), [*(("control", k) for k in CONTROL), *(("members", k) for k in MEMBERS)]
)
def test_the_error_of_a_damaged_ledger_has_a_command_that_works(desk, file, fault):
    """Whatever happened to control or to a file of members, commands and runs refuse it without a
    request, and the error ends with a command to paste; after that they work again."""
    desk.fill("vip", people(1, 2), stream="users")
    (members,) = files(desk)
    path = members if file == "members" else members.with_name("control.sqlite")
    (MEMBERS if file == "members" else CONTROL)[fault](path)
    requests = desk.emulator.totals().requests
    vip = {"cohorts": {"users": {"cohort_id": "vip", "cohort_name": "vip"}}, "sync_mode": "mirror"}
    data = lines(schema(), record(uid=person(1).uid), record(uid=person(3).uid))
    refused = run(desk.emulator, data, **desk.raw, **vip)
    assert refused.error.code in {"ledger_corrupt", "ledger_mismatch"}
    assert str(path) in str(refused.error)
    result = desk.run("resync", "vip")
    assert 1 == result.exit_code
    assert requests == desk.emulator.totals().requests
    *_, command = result.stderr.strip().split(": ")
    for part in command.split(" && "):
        repair(desk, part)
    again = run(desk.emulator, data, **desk.raw, **vip)
    assert again.error is None
    assert {person(1), person(3)} == desk.accepted("vip")


def test_a_file_that_cannot_be_read_is_not_moved_away(desk):
    """If a file of members cannot be opened for another reason than its content, the check ends
    with that error, and does not suggest to replace the file."""
    desk.fill("vip", people(1))
    (path,) = files(desk)
    kept = path.with_suffix(".kept")
    path.rename(kept)
    path.mkdir()
    result = desk.run("ledger", "check")
    assert (1, "") == (result.exit_code, result.stdout)
    assert "mv " not in result.stderr
    path.rmdir()
    kept.rename(path)
    assert 0 == desk.run("ledger", "check").exit_code
