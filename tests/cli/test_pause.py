"""`moengage-cohort pause` and `resume`, and the runs and commands that heed them."""

import getpass
import json
import socket

import pytest

from target_moengage_cohort.delivery.ports import NoPace
from target_moengage_cohort.ledger.records import PlanKind
from target_moengage_cohort.moengage.transport import Transport
from tests.cli.conftest import Desk, people
from tests.cli.test_actions import rows
from tests.support import singer
from tests.support.singer import Outcomes, lines, record, run, schema, state

USERS = [
    schema(columns=("uid", "cohort")),
    *(record(uid=uid, cohort="users") for uid in ("u1", "u2")),
]
OTHERS = [schema("others"), record("others", uid="o1")]
INPUT = lines(state({"n": 1}), *OTHERS, state({"n": 2}), *USERS, state({"n": 3}))
MODES = {
    "without members": {"ledger_uri": None},
    "mirror": {"sync_mode": "mirror"},
    "incremental": {},
    "fan_out": {"cohorts": {"users": {"cohort_id_column": "cohort"}, "others": {}}},
}


@pytest.fixture
def office(desk, place):
    """The desk, with its ledger in that place."""
    desk.raw["ledger_uri"] = place.uri
    return desk


def sync(desk: Desk, data: bytes = INPUT, **options) -> Outcomes:
    return run(desk.emulator, data, **{"ledger_uri": desk.raw["ledger_uri"]} | options)


def sent(seen: Outcomes) -> set[str]:
    """Return the members that a run sent anything for."""
    bodies = [each.body["parameters"]["members"] for each in seen.attempts]
    return {member["uid"] for members in bodies for member in members}


def check_withheld(seen: Outcomes, stream: str = "users") -> None:
    """Check that a run says that a stream is paused, and how to resume it."""
    assert (None, "withheld", 3) == (seen.error, seen.report.status, seen.report.exit_code)
    warnings = [each for each in seen.report.warnings if each.code == "stream_paused"]
    assert [stream] == [each.stream for each in warnings]
    assert f"moengage-cohort resume {stream} --config " in warnings[0].message


@pytest.mark.parametrize("mode", MODES)
def test_a_run_drops_the_rows_of_a_paused_stream(desk, mode):
    """A run sends nothing for a paused stream, holds STATE from its first row, delivers the other
    streams and is withheld, whatever on_withheld says; after resume a run delivers everything."""
    desk.raw["ledger_uri"] = MODES[mode].get("ledger_uri", desk.raw["ledger_uri"])
    options = {**MODES[mode], "on_withheld": "warn"}
    sync(desk, lines(*OTHERS, *USERS[:1]), **options)
    assert 0 == desk.run("pause", "users").exit_code
    seen = sync(desk, **options)
    check_withheld(seen)
    assert not {"u1", "u2"} & sent(seen)
    assert not [each for each in seen.states if each == {"n": 3}]
    assert {"others"} == {each.stream for each in seen.report.cohorts}
    assert 0 == desk.run("resume", "users").exit_code
    after = sync(desk, **options)
    assert (None, {"n": 3}) == (after.error, after.states[-1])
    assert {"u1", "u2"} == sent(after) - {"o1"}


def test_a_pause_holds_for_every_host(office):
    """A pause is in the store of either engine: of one stream or of all, with user, host and time,
    as are the actions; a repeated one changes nothing, and resume ends what it is told to end."""
    sync(office)
    whose = {"paused_by": getpass.getuser(), "host": socket.gethostname()}
    assert "paused" in office.run("pause", "users").stdout
    assert "already paused" in office.run("pause", "users").stdout
    office.run("pause")
    status = json.loads(office.run("status", "--json").stdout)
    assert [None, "users"] == [each["stream"] for each in status["paused"]]
    assert [whose, whose] == [{key: each[key] for key in whose} for each in status["paused"]]
    assert [True, True] == [each["paused"] for each in status["cohorts"]]
    assert ["paused"] == status["cohorts"][0]["attention"]
    assert "stream 'users'" in office.run("status").stdout
    assert 3 == sync(office).report.exit_code
    refused = office.run("resume", "users")
    assert 1 == refused.exit_code
    assert "moengage-cohort resume --config" in refused.stderr
    assert 0 == office.run("resume").exit_code
    assert "not paused" in office.run("resume").stdout
    assert 0 == sync(office).report.exit_code
    query = "SELECT kind, stream, done_by FROM operator_actions ORDER BY number"
    me = getpass.getuser()
    assert [
        ("pause", "users", me),
        ("pause", None, me),
        ("resume", "users", me),
        ("resume", None, me),
    ] == rows(office, query)


def test_a_paused_stream_lends_no_run_the_cohort_of_another(desk):
    """In the history, a run names its cohort only if that is the only one of its only stream."""
    desk.raw["cohorts"] = {"users": {"cohort_id": "c-users"}, "others": {"cohort_id": "c-others"}}
    desk.run("pause", "users")
    options = {"cohorts": desk.raw["cohorts"], "on_missing_stream": "warn"}
    sync(desk, lines(*USERS), **options)
    sync(desk, INPUT, **options)
    sync(desk, lines(*OTHERS), **options)
    found = json.loads(desk.run("history", "--json").stdout)
    runs = [each for each in found if each["kind"] == "run"]
    assert 3 == len(runs)
    assert [None] * 3 == [each["cohort_id"] for each in runs]
    assert all({"users", "others"} == {*each["streams"]} for each in runs)


def test_pause_and_resume_name_the_ledger(desk):
    """A pause in a ledger that no run uses stops nobody, so the output says where it is."""
    for command in ("pause", "pause", "resume", "resume"):
        assert f"paused in {desk.raw['ledger_uri']}" in desk.run(command).stdout.replace(
            "resumed in", "paused in"
        )


def test_a_pause_of_all_holds_for_streams_to_come(desk):
    """While all streams are paused, not even the first run of one sends anything."""
    assert 0 == desk.run("pause").exit_code
    seen = sync(desk, lines(*USERS))
    assert (3, set()) == (seen.report.exit_code, sent(seen))
    assert "resume --config" in seen.report.warnings[-1].message


@pytest.mark.parametrize(
    ("place", "mode"),
    [*(("files", mode) for mode in MODES), ("server", "mirror"), ("server", "incremental")],
    indirect=["place"],
)
def test_a_run_under_way_stops_before_its_next_request(office, mode):
    """A pause ends what a run under way sends for the stream: the request in flight is its last;
    no STATE passes what was not sent, and the next run after resume delivers the rest."""
    options = {"max_payload_bytes": 1_000, "max_concurrency": 1, **MODES[mode]}
    office.raw |= {"ledger_uri": options.setdefault("ledger_uri", office.raw["ledger_uri"])}
    wanted = {f"u{number:03d}" for number in range(400)}
    cohort = {"cohort": "fan"}
    users = [record(uid=uid, **cohort) for uid in sorted(wanted)]

    data = lines(schema(columns=("uid", "cohort")), *users, state({"n": 3}), *OTHERS, state(4))

    def pause(seen, _interrupt):
        if len(seen.attempts) == 1:
            with office.ledgers() as ledgers:
                ledgers.pause("users")

    seen = sync(office, data, before=pause, **options)
    check_withheld(seen)
    first = seen.attempts[0].body["parameters"]["members"]
    assert {member["uid"] for member in first} | {"o1"} == sent(seen)
    assert [] == seen.states
    office.run("resume")
    after = sync(office, data, **options)
    assert (None, 4) == (after.error, after.states[-1])
    (of_users,) = {each.cohort_id for each in after.report.cohorts} - {"others"}
    assert wanted == {uid for uid, _ in office.emulator.members(of_users)}


def test_a_request_is_not_retried_once_its_stream_is_paused(desk, emulator):
    """A request that MoEngage has not answered is not sent again: its members stay in doubt."""
    emulator.fail_next(500, 10)

    def pause(seen, _interrupt):
        if len(seen.attempts) == 1:
            with desk.ledgers() as ledgers:
                ledgers.pause("users")

    seen = sync(desk, lines(*USERS, state(1)), before=pause)
    check_withheld(seen)
    assert (1, []) == (len(seen.attempts), seen.states)
    assert (0, 2) == desk.counts("users")


def test_a_retry_that_waits_for_its_permit_heeds_a_pause(desk, monkeypatch):
    """A pause that begins while a retry waits for the rate limit keeps it from being sent."""
    permits = []

    class Pace(NoPace):
        def acquire(self):
            permits.append(len(permits))
            if len(permits) == 2:
                with desk.ledgers() as ledgers:
                    ledgers.pause("users")
            return super().acquire()

    monkeypatch.setattr(singer, "NoPace", Pace)
    desk.emulator.fail_next(500, 1)
    seen = sync(desk, lines(*USERS, state(1)))
    check_withheld(seen)
    assert (1, [], 2) == (len(seen.attempts), seen.states, len(permits))
    assert (0, 2) == desk.counts("users")


def test_a_plan_of_a_paused_stream_says_that(desk):
    """A dry run shows what comes after the pause, and warns that it is paused."""
    sync(desk, lines(*OTHERS))
    desk.run("pause")
    seen = sync(desk, dry_run=True)
    assert ("dry_run", 0) == (seen.report.status, seen.report.exit_code)
    assert {"users", "others"} == {each.cohort_id for each in seen.report.cohorts}
    assert {"users", "others"} == {
        each.stream for each in seen.report.warnings if each.code == "stream_paused"
    }


def test_confirm_is_refused_and_repairs_are_not(desk):
    """confirm, which schedules have, exits with 3 for a paused stream, pending or withheld; resync,
    empty and the like are a person's and work."""
    desk.fill("vip", people(1, 2, 3, 4), stream="users")
    desk.plan("vip", people(1, 2, 3))
    plan_id = desk.plan("vip", people(1, 2), kind=PlanKind.WITHHELD)
    desk.run("pause")
    before = len(desk.removals())
    for arguments in (("users",), ("--withheld", plan_id)):
        refused = desk.run("confirm", *arguments)
        assert 3 == refused.exit_code
        assert "moengage-cohort resume --config" in refused.stderr
    assert before == len(desk.removals())
    assert 0 == desk.run("resync", "vip").exit_code
    assert 0 == desk.run("empty", "vip", "--yes").exit_code
    assert not desk.there("vip")


def test_a_confirmation_under_way_stops_before_its_next_request(desk, monkeypatch):
    """A pause ends what confirm sends, too: the request in flight is its last, exit code 3; after
    resume the next run of the stream has what is left."""
    everybody = people(*range(300))
    desk.fill("vip", everybody, stream="users")
    plan_id = desk.plan("vip", everybody[:1], kind=PlanKind.WITHHELD)
    desk.raw |= {"max_payload_bytes": 1_000, "max_concurrency": 1}
    before, send = len(desk.removals()), Transport.send

    def pause(transport, body):
        with desk.ledgers() as ledgers:
            ledgers.pause("users")
        return send(transport, body)

    monkeypatch.setattr(Transport, "send", pause)
    refused = desk.run("confirm", "--withheld", plan_id)
    assert 3 == refused.exit_code
    assert "moengage-cohort resume users --config" in refused.stderr
    assert "Error: cohort 'vip': not all changes were accepted" in refused.stderr
    assert 1 == len(desk.removals()) - before
    assert desk.there("vip")


def test_a_stream_that_nobody_knows_cannot_be_paused_or_resumed(desk):
    """A misspelled stream is refused, because the right one would go on, or stay paused; one that
    is configured can be paused before its first run."""
    desk.raw["cohorts"] = {"buyers": {}}
    refused = desk.run("pause", "buyer")
    assert 1 == refused.exit_code
    assert "did you mean 'buyers'" in refused.stderr
    assert 0 == desk.run("pause", "buyers").exit_code
    refused = desk.run("resume", "buyer")
    assert (1, "did you mean 'buyers'" in refused.stderr) == (refused.exit_code, True)
