"""`plan --members` and `status --withheld --members`: who would be added and removed."""

import collections
import csv
import json
import random
import resource
import signal
import stat
import subprocess
import sys

import pytest

from target_moengage_cohort.core.membership import Member
from tests.cli.conftest import PLANTED, people, person
from tests.support.singer import lines, record, run, schema

HEAD = ["cohort_id", "action", "uid", "anonymous_id"]


def written(path):
    """Return the changes in a file, by cohort and action."""
    with path.open(newline="") as file:
        head, *rows = csv.reader(file)
    assert HEAD == head
    found = collections.defaultdict(list)
    for cohort_id, action, uid, anonymous_id in rows:
        found[cohort_id, action].append(Member(uid or None, anonymous_id or None))
    assert all(len({*members}) == len(members) for members in found.values())
    return {key: {*members} for key, members in found.items()}


def tap(stream, members, **row):
    identifiers = ({"uid": each.uid, "anon": each.anonymous_id} for each in members)
    rows = [record(stream, **each, **row) for each in identifiers]
    return lines(schema(stream, ("uid", "anon", *row)), *rows)


def planned(desk, data, *options, code=0):
    """Return what a plan writes, and the plan of each cohort."""
    path = desk.folder / "members.csv"
    path.unlink(missing_ok=True)
    result = desk.run("plan", "--json", "--members", str(path), *options, text=data)
    assert code == result.exit_code, result.output
    plans = {each["cohort_id"]: each for each in json.loads(result.stdout)}
    return written(path), plans


STAYING = people(*range(100, 120))
AWKWARD = [
    Member('"quoted", and\nbroken'),
    Member(" padded "),
    Member(None, "a-1"),
    Member("ü", "é"),
]


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize(
    ("settings", "desired", "added", "removed"),
    [
        ({"sync_mode": "mirror"}, [*STAYING, *AWKWARD], AWKWARD, people(1, 2)),
        ({"sync_mode": "mirror"}, people(1, 3), people(3), [*STAYING, *people(2)]),  # withheld
        ({"sync_mode": "mirror", "removals": "deferred"}, STAYING, [], people(1, 2)),
        ({"sync_mode": "one_time"}, [*STAYING, *people(3)], people(3), []),
        ({"sync_mode": "remove"}, people(1), [], people(1)),
        ({}, [*people(1, 3), *AWKWARD], [*people(3), *AWKWARD], []),
    ],
)
def test_a_plan_writes_who(desk, settings, desired, added, removed):
    """The file has exactly the members that the plan counts, what it would withhold among them, in
    each mode, and no request is sent."""
    desk.raw |= {"anonymous_id_column": "anon"}
    desk.fill("vip", [*STAYING, *people(1, 2)])
    before = len(desk.emulator.requests())
    desk.raw |= settings
    found, plans = planned(desk, tap("vip", desired))
    wanted = {("vip", "add"): {*added}, ("vip", "remove"): {*removed}}
    assert {key: members for key, members in wanted.items() if members} == found
    assert (len(added), len(removed)) == (plans["vip"]["to_add"], plans["vip"]["to_remove"])
    assert before == len(desk.emulator.requests())


def test_a_run_does_what_the_plan_writes(desk):
    """For many cohorts and random changes, a run adds and removes whom its plan has named."""
    chance = random.Random(3)
    names = [f"c{number}" for number in range(7)]
    desk.raw |= {"sync_mode": "mirror", "max_removal_percent": 100, "max_payload_bytes": 1_000}
    desk.raw |= {"cohorts": {"fan": {"cohort_id_column": "c", "expected_count_column": "n"}}}

    def data():
        who = {name: chance.sample(range(60), 40) for name in names}
        count = sum(map(len, who.values()))
        rows = [
            record("fan", uid=person(number).uid, c=name, n=count)
            for name in names
            for number in who[name]
        ]
        return lines(schema("fan", ("uid", "c", "n")), *rows)

    assert run(desk.emulator, data(), **desk.raw).error is None
    for _ in range(3):
        text = data()
        found, _ = planned(desk, text)
        before = {name: desk.there(name) for name in names}
        assert run(desk.emulator, text, **desk.raw).error is None
        for name in names:
            after = desk.there(name)
            assert found.get((name, "add"), set()) == after - before[name]
            assert found.get((name, "remove"), set()) == before[name] - after


@pytest.mark.usefixtures("place")
def test_status_writes_a_withheld_plan(desk):
    """The file has exactly the members of a withheld plan, also when newer rows have replaced it;
    nothing changes."""
    desk.raw |= {"sync_mode": "mirror"}
    desk.fill("vip", [*STAYING, *people(1, 2)])
    settings = {key: desk.raw[key] for key in ("ledger_uri", "sync_mode")}
    plan = run(desk.emulator, tap("vip", people(1, 3)), **settings).report.cohorts[0].plan_id
    for number in range(2):
        path = desk.folder / f"{number}.csv"
        done = desk.run("status", "--withheld", plan, "--members", str(path))
        assert 0 == done.exit_code, done.output
        assert {("vip", "remove"): {*STAYING, *people(2)}} == written(path)
        run(desk.emulator, tap("vip", people(1, 3, 4)), **settings)
    assert people(2)[0] in desk.there("vip")


def test_an_unknown_plan(desk):
    """A plan that is not withheld is an error, and no file is left."""
    desk.fill("vip", people(1))
    path = desk.folder / "members.csv"
    result = desk.run("status", "--withheld", "abc", "--members", str(path))
    assert 1 == result.exit_code
    assert not path.exists()


@pytest.mark.parametrize("command", ["plan", "status"])
def test_never_over_a_file(desk, command):
    """A file that is there stays as it is, and a new one is its owner's alone."""
    desk.raw |= {"sync_mode": "mirror"}
    desk.fill("vip", [*STAYING])
    settings = {key: desk.raw[key] for key in ("ledger_uri", "sync_mode")}
    plan = run(desk.emulator, tap("vip", people(1)), **settings).report.cohorts[0].plan_id
    path = desk.folder / "members.csv"
    options = ["--withheld", plan] if command == "status" else []
    arguments = [command, *options, "--members", str(path)]
    assert 0 == desk.run(*arguments, text=tap("vip", people(1))).exit_code
    assert 0o600 == stat.S_IMODE(path.stat().st_mode)
    path.write_text("mine")
    again = desk.run(*arguments, text=tap("vip", people(1)))
    assert 1 == again.exit_code
    assert "choose another file" in again.stderr
    assert "mine" == path.read_text()


@pytest.mark.parametrize("options", [["--members", "x"], ["--withheld", "x"]])
def test_each_needs_the_other(desk, options):
    """`status` takes --withheld and --members together only."""
    assert 2 == desk.run("status", *options).exit_code


def test_an_input_that_fails_leaves_no_file(desk):
    """If the plan fails, no file is left that could be taken for a whole one."""
    desk.raw |= {"sync_mode": "mirror"}
    path = desk.folder / "members.csv"
    result = desk.run("plan", "--members", str(path), text=tap("vip", people(1)) + b"{broken\n")
    assert 1 == result.exit_code
    assert not path.exists()


def start(desk, path, **options):
    config = desk.folder / "config.json"
    config.write_text(json.dumps(desk.raw))
    command = "from target_moengage_cohort.cli import main; main()"
    arguments = ["plan", "--members", str(path), "--config", str(config)]
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    return subprocess.Popen([sys.executable, "-c", command, *arguments], **pipes, **options)


@pytest.mark.parametrize("mode", ["mirror", "add"])
def test_a_full_disk_leaves_no_file(desk, mode):
    """A file that cannot be written in full fails the command with its reason, and is removed."""
    desk.raw |= {"sync_mode": mode}
    path = desk.folder / "members.csv"

    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    process = start(desk, path, preexec_fn=limit)
    _, errors = process.communicate(tap("vip", people(*range(3_000))), timeout=60)
    assert 1 == process.returncode, errors
    errors = errors.decode()
    assert "--members" in errors
    assert "Traceback" not in errors
    assert PLANTED not in errors
    assert not path.exists()


def test_a_signal_leaves_no_file(desk):
    """A signal ends the plan with its exit code, and no file is left."""
    path = desk.folder / "members.csv"
    with start(desk, path) as process:
        process.stdin.write(tap("vip", people(1)))
        process.stdin.flush()
        while not path.exists():
            assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    assert 128 + signal.SIGTERM == process.returncode
    assert not path.exists()
