"""Alerts by change of state, sent to a real receiver on loopback."""

import json
import time
from functools import partial

import pytest

from target_moengage_cohort.core.errors import SettingsError
from target_moengage_cohort.ledger.engines import open_store
from target_moengage_cohort.settings import load
from target_moengage_cohort.sync.reporting import alerting
from target_moengage_cohort.sync.reporting.alert_states import State, StreamOutcome, changes
from tests.ledger.support import process
from tests.support import singer
from tests.support.receiver import Receiver
from tests.support.singer import config, lines, record, run, schema
from tests.sync.test_busy_streams import HOLD

ALL = "failed,withheld,missing_input,turnover,recovered"
PLANTED = "planted-"
HEADER = "Bearer key-in-a-header"
KEYS = {
    "event",
    "event_id",
    "streams",
    "stream",
    "cohort_id",
    "text",
    "command",
    "report",
    "reason",
}


def person(number: int) -> str:
    return f"{PLANTED}{number:03d}"


def rows(*numbers: int, stream: str = "users") -> bytes:
    return lines(schema(stream), *(record(stream, uid=person(each)) for each in numbers))


@pytest.fixture
def receiver(caplog):
    """A receiver; at the end, no alert and no log has a secret or an identifier."""
    caplog.set_level("DEBUG")
    with Receiver().running() as running:
        yield running
        shown = json.dumps(running.bodies) + caplog.text
        for secret in (PLANTED, running.secret, HEADER, "test-key"):
            assert secret not in shown


@pytest.fixture
def options(receiver, tmp_path):
    """The settings of a mirror with alerts."""
    return {
        "ledger_uri": str(tmp_path / "ledger"),
        "cohorts": {"users": {"sync_mode": "mirror"}},
        "notify_url": receiver.url,
        "notify_headers": {"Authorization": HEADER},
        "report_path": str(tmp_path / "report.json"),
    }


def test_one_event_for_each_change_of_state(emulator, place, options, receiver, tmp_path):
    """With either engine: a stream that fails, is withheld or recovers is told once, with reason,
    counts and command, whatever comes again each hour; the report says what was sent."""
    options |= {"ledger_uri": place.uri, "removals": "proven"}
    everybody = rows(*range(50))
    assert [] == run(emulator, everybody, **options).report.alerts
    for _ in range(2):
        emulator.fail_next(401, 50)
        failed = run(emulator, rows(*range(51)), **options)
        emulator.clear_faults()
    assert failed.error is not None
    for _ in range(2):
        withheld = run(emulator, rows(*range(40)), **options)
    assert "withheld" == withheld.report.status
    for _ in range(2):
        run(emulator, everybody, **options)
    expected = [(name, ["users"]) for name in ("failed", "withheld", "recovered")]
    assert expected == receiver.events
    assert all(KEYS <= body.keys() for body in receiver.bodies)
    first, second, third = receiver.bodies
    assert ("users", "users", failed.error.code) == (
        first["stream"],
        first["cohort_id"],
        first["code"],
    )
    assert "moengage-cohort check --config" in first["command"]
    assert ("users", "plan_withheld") == (second["cohort_id"], second["code"])
    assert "confirm --withheld" in second["command"]
    assert second["command"] in second["text"]
    assert 10 == second["details"][0]["removals_withheld"]
    assert str(tmp_path / "report.json") == third["report"]
    assert {HEADER} == {each["Authorization"] for each in receiver.headers}


def test_streams_of_one_run_share_an_event(emulator, options, receiver):
    """A run that several streams fail in sends one event with all of them; one that recovers alone
    is told alone, and the state of a stream without news stays as it is."""
    options["cohorts"] = {"users": {}, "others": {}, "third": {}}
    both = rows(1) + rows(2, stream="others")
    emulator.fail_next(401, 50)
    run(emulator, both, **options)
    emulator.clear_faults()
    run(emulator, rows(1), **options, on_missing_stream="warn")
    assert [("failed", ["users", "others"]), ("recovered", ["users"])] == receiver.events
    assert (None, None) == (receiver.bodies[0]["stream"], receiver.bodies[0]["cohort_id"])


def test_missing_input_and_turnover_are_told_if_they_are_wanted(emulator, options, receiver):
    """missing_input and turnover are events of their own, and none recovers from what was not
    told."""
    options["cohorts"] = {
        "users": {"sync_mode": "mirror", "max_removal_percent": 100},
        "others": {},
    }
    options |= {"notify_on": ALL, "alert_turnover_percent": 30}
    both = rows(*range(10)) + rows(1, stream="others")
    run(emulator, both, **options)
    run(emulator, rows(*range(10)), **options)
    run(emulator, rows(*range(5, 15)) + rows(1, stream="others"), **options)
    run(emulator, rows(*range(5, 15)) + rows(1, stream="others"), **options)
    assert [
        ("missing_input", ["others"]),
        ("turnover", ["users"]),
        ("recovered", ["others"]),
        ("recovered", ["users"]),
    ] == receiver.events
    silent = options | {"notify_on": "failed,recovered", "alert_turnover_percent": None}
    run(emulator, rows(*range(5, 15)), **silent)
    run(emulator, both, **silent)
    assert 4 == len(receiver.events)


def test_members_who_are_sent_again_are_no_turnover(emulator, options, receiver):
    """After resync a run sends everybody again, which is no turnover; those who leave are."""
    options |= {"notify_on": ALL, "alert_turnover_percent": 30}
    run(emulator, rows(*range(50)), **options)
    settings = load(config(emulator, **options)).settings
    for left, told in ((48, []), (30, [("turnover", ["users"])])):
        with open_store(settings, run_id="test", wait=lambda _seconds: True) as store:
            ledger = store.open_known("users")
            ledger.stream.doubt([ledger.number])
        seen = run(emulator, rows(*range(left)), max_removal_percent=100, **options)
        assert left == seen.report.cohorts[0].added
        assert told == receiver.events
    for number in ("38%", "48 members", "0 added", "18 removed"):
        assert number in receiver.bodies[0]["text"]


def test_a_run_that_fails_for_a_missing_stream_is_told(emulator, options, receiver):
    """With on_missing_stream: fail a run that fails is told as such, whatever notify_on has."""
    options |= {"cohorts": {"users": {}, "others": {}}, "on_missing_stream": "fail"}
    both = rows(1) + rows(2, stream="others")
    run(emulator, both, **options)
    for _ in range(2):
        assert 1 == run(emulator, rows(1), **options).report.exit_code
    run(emulator, both, **options)
    assert [("failed", ["others"]), ("recovered", ["others"])] == receiver.events
    assert "stream_without_input" == receiver.bodies[0]["code"]
    options["notify_on"] = "failed,missing_input"
    run(emulator, rows(1), **options)
    assert ("missing_input", ["others"]) == receiver.events[-1]


@pytest.mark.parametrize("cohorts", [{}, {"cohorts": {"users": {}, "others": {}}}])
def test_a_tap_that_fails_at_once_is_told(emulator, options, receiver, cohorts):
    """An error before any stream is met concerns all that are configured, or else those that the
    ledger knows."""
    del options["cohorts"]
    options |= cohorts
    both = rows(1) + rows(2, stream="others")
    run(emulator, both, tap_exit=lambda: 0, **options)
    for _ in range(2):
        assert 1 == run(emulator, b"", tap_exit=lambda: 1, **options).report.exit_code
    run(emulator, both, tap_exit=lambda: 0, **options)
    told = [(event, sorted(streams)) for event, streams in receiver.events]
    assert [("failed", ["others", "users"]), ("recovered", ["others", "users"])] == told


def test_busy_paused_interrupted_and_dry_runs_have_no_news(emulator, options, receiver):
    """A run that a signal stops, that is dry, or whose stream is paused changes no state."""
    run(emulator, rows(1), **options)
    emulator.fail_next(401, 50)
    assert run(emulator, rows(2), **options, dry_run=True).error is None

    def stop(_seen, interrupt):
        interrupt.signal = 15
        interrupt.set()

    run(emulator, rows(2), before=stop, **options)
    emulator.clear_faults()
    settings = load(config(emulator, **options)).settings
    with open_store(settings, run_id="test", wait=lambda _seconds: True) as store:
        store.pause("users")
    assert 3 == run(emulator, rows(2), **options).report.exit_code
    assert [] == receiver.events


def test_a_busy_stream_has_no_news(emulator, options, receiver, monkeypatch):
    """A run that another one keeps from a stream that has failed neither recovers it nor tells
    again that it failed."""
    monkeypatch.setattr(singer, "open_store", partial(open_store, busy_seconds=0.3))
    emulator.fail_next(401, 50)
    run(emulator, rows(1), **options)
    emulator.clear_faults()
    held = options | {"cohorts": {"held": {}, "users": {}}}
    emulator.fail_next(401, 50)
    run(emulator, rows(1, stream="held"), **held)
    emulator.clear_faults()
    before = receiver.events
    with process(HOLD, json.dumps(config(emulator, **held))) as holder:
        assert "held\n" == holder.stdout.readline()
        busy = run(emulator, rows(1, stream="held") + rows(1), **held)
        holder.kill()
    assert 4 == busy.error.exit_code
    assert [*before, ("recovered", ["users"])] == receiver.events
    run(emulator, rows(1, stream="held"), **held)
    assert ("recovered", ["held"]) == receiver.events[-1]


@pytest.mark.parametrize("trouble", ["500", "302", "404", "hangs", "refused"])
def test_what_is_not_taken_is_sent_again_by_the_next_run(
    emulator, options, receiver, trouble, monkeypatch
):
    """A receiver that answers no 2xx, hangs or is not there fails no run and holds it up for a
    bounded time; the next run of any host sends the same event_id, and then nothing more."""
    monkeypatch.setattr(alerting, "SECONDS", 0.8)
    run(emulator, rows(1), **options)
    emulator.fail_next(401, 50)
    receiver.is_hanging = trouble == "hangs"
    receiver.status = int(trouble) if trouble.isdigit() else 200
    wrong = {"notify_url": "http://127.0.0.1:9/x"} if trouble == "refused" else {}
    began = time.monotonic()
    seen = run(emulator, rows(2), **options | wrong)
    assert time.monotonic() - began < 8
    emulator.clear_faults()
    assert [False] == [each.sent for each in seen.report.alerts]
    assert "alert_not_sent" in {each.code for each in seen.report.warnings}
    receiver.is_hanging, receiver.status = False, 204
    after = run(emulator, rows(1), **options)
    assert [("failed", True), ("recovered", True)] == [
        (each.event, each.sent) for each in after.report.alerts
    ]
    assert ("failed", "recovered") == tuple(name for name, _ in receiver.events[-2:])
    ids = {body["event_id"] for body in receiver.bodies if body["event"] == "failed"}
    assert {seen.report.alerts[0].event_id} == ids
    count = len(receiver.events)
    assert [] == run(emulator, rows(1), **options).report.alerts
    assert count == len(receiver.events)


def test_a_crash_loses_no_event(emulator, place, options, receiver):
    """With either engine, a run that dies before, between or after state, POST and note leaves an
    event that the next run tells, if again then with the same event_id."""
    options["ledger_uri"] = place.uri
    run(emulator, rows(1), **options)

    class Crash(BaseException):
        pass

    for step in ("alerts: before commit", "alerts: committed", "alert sent: before commit"):
        receiver.bodies.clear()

        def die(name, step=step):
            if name == step:
                raise Crash

        emulator.fail_next(401, 50)
        with pytest.raises(Crash):
            run(emulator, rows(2), step=die, **options)
        run(emulator, rows(2), **options)
        emulator.clear_faults()
        assert {"failed"} == {name for name, _ in receiver.events}
        assert 1 == len({body["event_id"] for body in receiver.bodies})
        run(emulator, rows(1), **options)
        assert "recovered" == receiver.events[-1][0]


def test_text_has_nothing_that_a_chat_takes_for_markup():
    """A name in an event cannot mention a channel."""
    outcome = StreamOutcome(stream="<!channel>", state=State.FAILED, reason="a & b")
    _, (event,) = changes([outcome], {}, frozenset({"failed"}))
    text = alerting.text_of(event, "acme")
    assert "<" not in text
    assert "a &amp; b" in text


@pytest.mark.parametrize(
    ("setting", "value", "code"),
    [
        ("notify_url", "http://example.com/secret", "invalid_value"),
        ("notify_url", "ftp://example.com/secret", "invalid_value"),
        ("notify_url", "https://[secret", "invalid_value"),
        ("notify_url", "https://user:secret@example.com/x", "invalid_value"),
        ("notify_on", "failed,secret", "invalid_value"),
        ("notify_headers", {"X": "secret\n"}, "invalid_value"),
        ("notify_headers", {"X:": "secret"}, "invalid_value"),
        ("alert_turnover_percent", 5, "conflicting_settings"),
        ("notify_on", "turnover", "conflicting_settings"),
    ],
)
def test_settings_that_cannot_work_are_refused(emulator, setting, value, code):
    """A webhook without TLS, an unknown event and a bad header are refused, and not quoted."""
    with pytest.raises(SettingsError) as refused:
        load(config(emulator, **{setting: value}))
    assert code == refused.value.code
    assert "example.com" not in str(refused.value)
    assert "secret" not in str(refused.value)
