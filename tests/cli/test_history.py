"""`moengage-cohort history`: runs and commands, as they ended."""

import functools
import getpass
import json
import signal
import socket
import time

import pytest

from target_moengage_cohort.core.errors import BusyError
from target_moengage_cohort.delivery.ports import Timing
from tests.cli.conftest import people, person
from tests.support import singer
from tests.support.singer import lines, record, run, schema, start

NOW = 1_800_000_000.0  # 2027-01-15T08:00:00Z
DAY = 86_400


@pytest.fixture
def desk(desk):
    """The desk, with mirrors."""
    desk.raw["sync_mode"] = "mirror"
    return desk


def rows(numbers, stream="users"):
    return [record(stream, uid=person(number).uid) for number in numbers]


def sync(desk, *messages, at=NOW, **options):
    """Run in this process at a time; return what came of it."""
    timing = Timing(jitter=lambda _seconds: 0.0, wall_clock=lambda: at)
    settings = {key: desk.raw[key] for key in ("ledger_uri", "sync_mode")}
    return run(desk.emulator, lines(*messages), timing, **settings | options)


def mirror(desk, numbers, **options):
    return sync(desk, schema("users"), *rows(numbers), **options)


def history(desk, *options, at=NOW):
    result = desk.run("history", "--json", *options, clock=lambda: at)
    assert 0 == result.exit_code, result.output
    return json.loads(result.stdout)


def chosen(entries, *names):
    return [tuple(entry[name] for name in names) for entry in entries]


@pytest.mark.usefixtures("place")
def test_runs_and_commands_are_listed_newest_first(desk):
    """Each run and command is an item with all that the contract names, the newest first."""
    mirror(desk, range(10), at=NOW - 50)
    plan = mirror(desk, range(3), at=NOW - 40).report.cohorts[0].plan_id
    desk.run("confirm", "--withheld", plan, clock=lambda: NOW - 30)
    mirror(desk, range(3), at=NOW - 20)
    desk.run("empty", "users", "--yes", clock=lambda: NOW - 10)
    entries = history(desk)
    names = ("kind", "at", "stream", "cohort_id", "status", "added", "removed", "accepted")
    where = "users", "users"
    assert [
        ("empty", "2027-01-15T07:59:50.000Z", *where, "succeeded", None, 3, None),
        ("run", "2027-01-15T07:59:40.000Z", *where, "succeeded", 0, 0, 3),
        ("confirm", "2027-01-15T07:59:30.000Z", *where, "succeeded", 0, 7, None),
        ("run", "2027-01-15T07:59:20.000Z", *where, "withheld", 0, 0, 10),
        ("run", "2027-01-15T07:59:10.000Z", *where, "succeeded", 10, 0, 10),
    ] == chosen(entries, *names)
    assert {(getpass.getuser(), socket.gethostname())} == {*chosen(entries, "user", "host")}
    assert 5 == len({entry["run_id"] for entry in entries})
    first, withheld = entries[-1], entries[-2]
    assert ("end_of_input", 10, 1, 0, None) == tuple(
        first[name] for name in ("complete", "records", "requests", "exit_code", "turnover_percent")
    )
    assert (7, 3, None) == tuple(
        withheld[name] for name in ("removals_withheld", "exit_code", "error")
    )
    assert ["plan_withheld"] == withheld["warnings"]


def test_turnover_is_of_the_members_before(desk):
    """Turnover is what was added and removed, in percent of the members before the run."""
    desk.raw["max_removal_percent"] = 50
    mirror(desk, range(10), at=NOW - 2)
    mirror(desk, range(2, 13), at=NOW - 1, max_removal_percent=50)
    latest, first = history(desk)
    assert (3, 2, 50.0, 11) == tuple(
        latest[name] for name in ("added", "removed", "turnover_percent", "accepted")
    )
    assert first["turnover_percent"] is None


def test_a_cohort_has_what_runs_did_to_it(desk):
    """With --cohort, a run of many cohorts has the numbers of that one, and is left out if it did
    nothing to it; commands are those of the cohort or of all."""
    names = {"cohorts": {"users": {"cohort_id_column": "cohort"}}}

    def fan_out(at, **members):
        pairs = [(cohort, each) for cohort, numbers in members.items() for each in numbers]
        messages = [record(uid=person(each).uid, cohort=cohort) for cohort, each in pairs]
        sync(desk, schema(columns=("uid", "cohort")), *messages, at=at, **names)

    fan_out(NOW - 9, a=range(5), b=range(9))
    fan_out(NOW - 8, a=range(5), b=range(10))
    fan_out(NOW - 7, a=range(1), b=range(10))
    path = desk.folder / "some.csv"
    path.write_text(f"uid\n{person(1).uid}\n")
    desk.run("forget", str(path), clock=lambda: NOW - 6)
    desk.run("resync", "b", clock=lambda: NOW - 5)
    fields = ("kind", "cohort_id", "status", "added", "removals_withheld")
    of_a = [("forget", None, "succeeded", None, 0), ("run", "a", "withheld", 0, 4)]
    assert [*of_a, ("run", "a", "succeeded", 5, 0)] == chosen(
        history(desk, "--cohort", "a"), *fields
    )
    kinds = [entry["kind"] for entry in history(desk, "--cohort", "b")]
    assert ["resync", "forget", "run", "run"] == kinds
    for stream, found in (("users", True), ("others", False)):
        with desk.ledgers() as ledgers, ledgers._ready().database.change("test") as change:  # noqa: SLF001 - a command of a stream
            change.run("UPDATE operator_actions SET stream = ? WHERE kind = 'forget'", [stream])
        kinds = [entry["kind"] for entry in history(desk, "--cohort", "b")]
        assert found is ("forget" in kinds)
    runs = [entry for entry in history(desk) if entry["kind"] == "run"]
    assert [(None, "users", 2)] * 3 == chosen(runs, "cohort_id", "stream", "cohorts")
    assert 1 == desk.run("history", "--cohort", "c").exit_code


@pytest.mark.parametrize(
    ("since", "found"),
    [
        ("1d", 1),
        ("26h", 2),
        ("1w", 3),
        ("9999999999999w", 4),
        ("2027-01-14", 2),
        ("2027-01-15T08:00", 1),
        ("2027-01-15T10:00+02:00", 1),
        ("2027-01-15T08:00:01Z", 0),
    ],
)
def test_since_takes_a_date_a_time_or_a_span(desk, since, found):
    """--since leaves out what is earlier than a date, a time or a span before now."""
    for days in (10, 5, 1.05, 0):
        mirror(desk, range(3), at=NOW - days * DAY)
    assert found == len(history(desk, "--since", since))


@pytest.mark.parametrize("since", ["", "yesterday", "7", "7y", "-1d", "2027-13-01"])
def test_another_since_is_wrong_usage(desk, since):
    """Anything else is wrong usage."""
    mirror(desk, range(3))
    assert 2 == desk.run("history", "--since", since).exit_code


@pytest.mark.usefixtures("place")
def test_a_missing_store_is_an_error(desk):
    """Without a ledger there is no history, which is an error, and none is created."""
    result = desk.run("history", "--json")
    assert (1, "") == (result.exit_code, result.stdout)
    assert "there is no ledger" in result.stderr
    assert "no ledger" in desk.run("history").stderr


def failing(desk):
    desk.emulator.fail_next(401, 9)
    return mirror(desk, range(20), at=NOW)


def interrupted(desk):
    return mirror(desk, range(20), before=lambda _seen, interrupt: interrupt.set())


def incomplete(desk):
    return sync(desk, schema("users"), *rows(range(4)), b"{")


def nothing(desk):
    return sync(desk)


def unchanged(desk):
    return mirror(desk, range(10))


@pytest.mark.parametrize(
    ("ending", "status", "error"),
    [
        (failing, "failed", "credentials_refused"),
        (interrupted, "failed", "interrupted"),
        (incomplete, "failed", "invalid_json"),
        (nothing, "succeeded", None),
        (unchanged, "succeeded", None),
    ],
)
def test_every_run_has_its_outcome(desk, ending, status, error):
    """A run is recorded however it ends, also if it did nothing; the error has its code."""
    mirror(desk, range(10), at=NOW - 1)
    seen = ending(desk)
    latest = history(desk)[0]
    assert (seen.report.run_id, status, error) == tuple(
        latest[name] for name in ("run_id", "status", "error")
    )
    assert len(history(desk, "--cohort", "users")) == (1 if ending is nothing else 2)


def test_a_killed_run_is_unfinished(desk, place):
    """A run at work is running, and is listed at once; when its process has died, unfinished."""
    mirror(desk, range(3), at=NOW - 100 * DAY)
    desk.emulator.hold()
    process = start(desk.folder / "home", desk.raw, XDG_STATE_HOME=str(desk.folder / "state"))
    process.stdin.write(lines(schema("users"), *rows(range(30))))
    process.stdin.close()
    desk.emulator.wait_until(lambda totals: totals.requests >= 2)
    began = time.monotonic()
    (running, _) = history(desk)
    assert time.monotonic() - began < 5
    assert ("run", "running", ["users"], None) == tuple(
        running[name] for name in ("kind", "status", "streams", "added")
    )
    process.send_signal(signal.SIGKILL)
    process.wait()
    place.bury()
    desk.emulator.release()
    (unfinished, _) = history(desk)
    assert unfinished == running | {"status": "unfinished"}
    mirror(desk, range(30), at=NOW)
    assert ["succeeded", "unfinished", "succeeded"] == [each["status"] for each in history(desk)]


def test_a_run_that_only_found_busy_streams_is_recorded(desk, monkeypatch):
    """So is a run whose streams were all busy, without a cohort."""
    mirror(desk, range(3), at=NOW - 1)
    impatient = functools.partial(singer.open_store, busy_seconds=0.1)
    monkeypatch.setattr(singer, "open_store", impatient)
    with desk.ledgers() as ledgers:
        ledgers.take("users")
        seen = mirror(desk, range(4))
    assert 4 == seen.error.exit_code
    (latest, _) = history(desk)
    assert ("failed", "ledger_busy", "users", None) == tuple(
        latest[name] for name in ("status", "error", "stream", "cohort_id")
    )


def test_dry_runs_leave_no_trace(desk):
    """A dry run is not in the history."""
    mirror(desk, range(3))
    mirror(desk, range(5), dry_run=True)
    assert 1 == len(history(desk))


@pytest.mark.usefixtures("place")
def test_runs_and_commands_are_kept_for_400_days(desk):
    """What ended more than 400 days ago goes with the next run or command, also of dead runs."""
    mirror(desk, range(3), at=NOW - 401 * DAY)
    desk.run("resync", "users", clock=lambda: NOW - 401 * DAY)
    with desk.ledgers() as ledgers, ledgers._ready().database.change("test") as transaction:  # noqa: SLF001 - a dead run
        transaction.run(
            "INSERT INTO runs (number, run_id, partner, started_at, started_by, host)"
            " VALUES (99, 'dead', 'acme', '2025-12-01T00:00:00.000Z', 'u', 'h')"
        )
    mirror(desk, range(4), at=NOW - 399 * DAY)
    desk.run("resync", "users", clock=lambda: NOW - 398 * DAY)
    assert 3 + 2 == len(history(desk))
    mirror(desk, range(5), at=NOW)
    desk.run("resync", "users", clock=lambda: NOW + 1)
    entries = history(desk)
    assert ["resync", "run"] * 2 == [each["kind"] for each in entries]
    assert len(history(desk, "--cohort", "users")) == len(entries)


@pytest.mark.usefixtures("place")
def test_a_run_deletes_old_commands(desk):
    """A run deletes the commands of more than 400 days ago but the latest, whose number the next
    one must not have."""
    mirror(desk, range(3), at=NOW - 402 * DAY)
    for _ in range(2):
        desk.run("resync", "users", clock=lambda: NOW - 401 * DAY)
    mirror(desk, range(4), at=NOW)
    numbers = [each["number"] for each in history(desk) if each["kind"] == "resync"]
    assert 1 == len(numbers)
    desk.run("resync", "users", clock=lambda: NOW + 1)
    (later,) = (each["number"] for each in history(desk) if each["kind"] == "resync")
    assert later == numbers[0] + 1


def test_a_failure_to_record_fails_no_run(desk):
    """If the outcome cannot be recorded, the run only warns: members and STATE are as without."""

    names = iter(["finish run: before commit"])

    def step(name):
        if name == "finish run: before commit" and next(names, None):
            raise BusyError("ledger_busy", "another process has locked it")

    seen = mirror(desk, range(3), step=step)
    assert seen.error is None
    assert "history_not_recorded" in [each.code for each in seen.report.warnings]
    assert {*people(*range(3))} == desk.there("users")
    assert ["succeeded"] == [each["status"] for each in history(desk)]  # written at the end


def test_an_error_as_the_ledger_is_closed_is_recorded(desk):
    """A run that fails after its outcome was recorded is a failed one in the history, too."""
    desk.raw |= {"ledger_uri": str(desk.folder / "ledger"), "sync_mode": "add"}
    seen: list[str] = []

    def step(name):
        seen.append(name)
        if name == "note stream: before commit" and "finish run: committed" in seen:
            raise BusyError("ledger_busy", "another process has locked it")

    messages = schema("users"), *rows(range(3))
    assert "ledger_busy" == sync(desk, *messages, step=step, ledger_uri=None).error.code
    desk.raw["ledger_uri"] = None
    (entry,) = history(desk)
    assert ("failed", "ledger_busy", 3) == tuple(
        entry[name] for name in ("status", "error", "added")
    )


def test_the_table_has_the_proof(desk):
    """A run whose input was proven complete says how; one that merely ended does not."""
    version = [{"type": "ACTIVATE_VERSION", "stream": "users", "version": 1}]
    users = [{**row, "version": 1} for row in rows(range(3))]
    sync(desk, schema("users"), *users, *version)
    mirror(desk, range(4))
    shown = desk.run("history").stdout
    assert (2, 1) == (shown.count("succeeded"), shown.count("proof: "))
    assert "proof: activate_version" in shown


def test_the_table_fits_a_terminal(desk):
    """The table has at most 80 columns, no escape codes, and who gave a command from where."""
    name = "c" * 90
    mirror(desk, range(9), cohorts={"users": {"cohort_id": name}})
    mirror(desk, range(2), cohorts={"users": {"cohort_id": name}}, at=NOW - 9)
    desk.fill(name + "\x1b[31m", people(1))
    desk.run("resync", name)
    desk.run("empty", name + "\x1b[31m", "--yes")
    result = desk.run("history")
    assert 0 == result.exit_code
    assert max(map(len, result.stdout.splitlines())) <= 80
    assert f"by {getpass.getuser()} on " in result.stdout
    assert "7 removals withheld" in result.stdout
    assert "\x1b" not in result.stdout
