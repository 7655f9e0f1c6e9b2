"""`moengage-cohort history --singer`: Singer messages, and a real target that loads them."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from target_moengage_cohort.cli.history import history_messages
from tests.cli.test_history import DAY, NOW, mirror, rows
from tests.support.ledger_places import ServerPlace
from tests.support.project import ROOT
from tests.support.singer import environment, lines, schema, start

MAIN = "from target_moengage_cohort.cli import main; main()"
TARGET = shutil.which(
    "target-postgres",
    path=os.pathsep.join([str(ROOT / ".venv-target-postgres" / "bin"), os.environ.get("PATH", "")]),
)


@pytest.fixture
def desk(desk):
    """The desk, with mirrors."""
    desk.raw["sync_mode"] = "mirror"
    return desk


def export(desk, state=None, *options):
    """Return the records by their streams, and the last STATE."""
    if state is not None:
        path = desk.folder / "state.json"
        path.write_text(state)
        options = ("--state", str(path), *options)
    result = desk.run("history", "--singer", *options)
    assert 0 == result.exit_code, result.output
    messages = [json.loads(line) for line in result.stdout.splitlines()]
    assert ["SCHEMA"] * 3 == [each["type"] for each in messages[:3]]
    assert "STATE" == messages[-1]["type"]
    records = {each["stream"]: [] for each in messages[:3]}
    for message in messages:
        if message["type"] == "RECORD":
            records[message["stream"]].append(message["record"])
    return records, json.dumps(messages[-1]["value"])


def counts(records):
    return {stream: len(found) for stream, found in records.items()}


def test_it_goes_on_where_its_state_ends(desk, place):
    """The first output has all runs, what they did to cohorts, and commands; one with its STATE has
    only what came later; one without any new record has its STATE again."""
    assert place
    mirror(desk, range(10), at=NOW)
    mirror(desk, range(10), at=NOW + 1)
    mirror(desk, range(3), at=NOW + 2)
    desk.run("resync", "users")
    records, state = export(desk, "")
    assert {"runs": 3, "run_cohorts": 2, "actions": 1} == counts(records)
    assert ["succeeded", "succeeded", "withheld"] == [each["status"] for each in records["runs"]]
    assert [10, 0] == [each["added"] for each in records["run_cohorts"]]
    assert ("resync", "users", 10) == tuple(
        records["actions"][0][name] if name != "members" else records["actions"][0]["counts"][name]
        for name in ("command", "cohort_id", "members")
    )
    records, again = export(desk, state)
    assert ({"runs": 0, "run_cohorts": 0, "actions": 0}, state) == (counts(records), again)
    mirror(desk, range(10), at=NOW + 3)
    desk.run("resync", "users")
    records, latest = export(desk, f"{state}\n{again}\n")
    assert {"runs": 1, "run_cohorts": 1, "actions": 1} == counts(records)
    assert latest != state


def test_an_unfinished_run_comes_again_when_it_has_ended(desk):
    """A run at work is written as such, and once more, with the same key, when it has ended."""
    mirror(desk, range(3), at=NOW)
    desk.emulator.hold()
    process = start(desk.folder / "home", desk.raw, XDG_STATE_HOME=str(desk.folder / "state"))
    process.stdin.write(lines(schema("users"), *rows(range(30))))
    process.stdin.close()
    desk.emulator.wait_until(lambda totals: totals.requests >= 2)
    records, state = export(desk)
    _, running = records["runs"]
    assert ("running", None) == (running["status"], running["finished_at"])
    mirror(desk, (), at=NOW, cohorts={"users": {"cohort_id": "x"}}, dry_run=True)
    desk.run("resync", "users")
    desk.emulator.release()
    assert 0 == process.wait()
    records, state = export(desk, state)
    (ended,) = records["runs"]
    assert (running["run_id"], "succeeded", 27) == tuple(
        ended[name] for name in ("run_id", "status", "added")
    )
    assert [ended["run_id"]] == [each["run_id"] for each in records["run_cohorts"]]
    assert 0 == sum(counts(export(desk, state)[0]).values())


def test_a_state_comes_every_so_many_records(desk, monkeypatch):
    """After each STATE, whichever is the last that a target has written, the rest follows: no
    record is lost, and the keys of all are different."""
    monkeypatch.setattr(history_messages, "_RECORDS_PER_STATE", 2)
    for number in range(5):
        mirror(desk, range(10 + number), at=NOW + number)
        desk.run("resync", "users")
    whole = desk.run("history", "--singer").stdout.splitlines()
    keys = {each["stream"]: each["key_properties"] for each in map(json.loads, whole[:3])}

    def read(output):
        found = [json.loads(line) for line in output]
        return {
            (each["stream"], *(each["record"][name] for name in keys[each["stream"]]))
            for each in found
            if each["type"] == "RECORD"
        }

    states = [number for number, line in enumerate(whole) if json.loads(line)["type"] == "STATE"]
    assert len(states) > 5
    for end in states:
        path = desk.folder / "state.json"
        path.write_text(json.dumps(json.loads(whole[end])["value"]))
        rest = desk.run("history", "--singer", "--state", str(path)).stdout.splitlines()
        assert read(whole) == read(whole[: end + 1]) | read(rest)
    assert 15 == len(read(whole)) == sum(json.loads(line)["type"] == "RECORD" for line in whole)


def test_another_store_begins_anew(desk):
    """With the STATE of another store, or of one that is older than its STATE, all is written."""
    mirror(desk, range(3))
    _, state = export(desk)
    other = json.loads(state)
    other["bookmarks"]["runs"]["store_id"] = other["bookmarks"]["actions"]["store_id"] = "x"
    older = json.loads(state)
    older["bookmarks"]["runs"]["number"] = 10**6
    for each in (other, older, {"bookmarks": {"users": {"replication_key_value": 3}}}):
        assert 1 == len(export(desk, json.dumps(each))[0]["runs"])
    assert 0 == len(export(desk, state)[0]["runs"])


def test_since_limits_the_first_output(desk):
    """--since leaves out what is earlier."""
    mirror(desk, range(3), at=NOW - 2 * DAY)
    mirror(desk, range(4), at=NOW)
    assert 1 == len(export(desk, None, "--since", "2027-01-15")[0]["runs"])


@pytest.mark.parametrize(
    "options",
    [
        ("--singer", "--json"),
        ("--singer", "--cohort", "users"),
        ("--state", "{state}"),
        ("--singer", "--state", "{missing}"),
        ("--singer", "--state", "{state}"),
    ],
)
def test_options_that_do_not_go_together_are_wrong_usage(desk, options):
    """So is a state file that is missing or broken; nothing is written then."""
    mirror(desk, range(3))
    path = desk.folder / "state.json"
    path.write_text("{}\n[")
    paths = {"state": path, "missing": desk.folder / "none"}
    result = desk.run("history", *(each.format_map(paths) for each in options))
    assert (2, "") == (result.exit_code, result.stdout)


@pytest.mark.skipif(TARGET is None, reason="target-postgres is not installed: make environments")
def test_a_real_target_doubles_no_row(desk, server):
    """target-postgres loads the history into a real PostgreSQL twice, from the beginning and from
    its STATE, and a run that had not ended before: each run, cohort and command has one row."""
    warehouse = ServerPlace(server)
    folder = Path(desk.folder)
    settings = {
        "host": server.host,
        "port": server.port,
        "user": server.user,
        "password": server.password,
        "database": warehouse.uri.rpartition("/")[2],
        "default_target_schema": "history",
    }
    (folder / "target.json").write_text(json.dumps(settings))
    home = folder / "home"

    def load(*options):
        config = str(folder / "config.json")
        command = [sys.executable, "-c", MAIN, "history", "--singer", "--config", config, *options]
        variables = environment(home, XDG_STATE_HOME=str(folder / "state"))
        tap = subprocess.run(command, env=variables, capture_output=True, check=True)
        target = subprocess.run(
            [TARGET, "--config", str(folder / "target.json")],
            input=tap.stdout,
            env=variables,
            capture_output=True,
            check=False,
        )
        assert 0 == target.returncode, target.stderr.decode()
        return target.stdout

    def loaded(query):
        with psycopg.connect(warehouse.uri) as connection:
            return connection.execute(query).fetchall()

    sizes = (
        "SELECT (SELECT count(*) FROM history.runs), (SELECT count(*) FROM history.run_cohorts),"
        " (SELECT count(*) FROM history.actions)"
    )
    mirror(desk, range(10), at=NOW)
    desk.run("resync", "users")
    desk.emulator.hold()
    process = start(home, desk.raw, XDG_STATE_HOME=str(folder / "state"))
    process.stdin.write(lines(schema("users"), *rows(range(30))))
    process.stdin.close()
    desk.emulator.wait_until(lambda totals: totals.requests >= 2)
    state = load()
    assert [(2, 1, 1)] == loaded(sizes)
    assert [("running",)] == loaded("SELECT status FROM history.runs WHERE finished_at IS NULL")
    process.send_signal(signal.SIGTERM)
    desk.emulator.release()
    process.wait()
    (folder / "state.json").write_bytes(state)
    for options in ((), ("--state", str(folder / "state.json")), ()):
        load(*options)
        assert [(2, 2, 1)] == loaded(sizes)
    assert [("failed", "interrupted")] == loaded(
        "SELECT status, error FROM history.runs WHERE added = 20 OR status = 'failed'"
    )
    warehouse.close()
