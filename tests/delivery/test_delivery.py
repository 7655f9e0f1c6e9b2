"""The door of delivery."""

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from target_moengage_cohort.core.errors import InputError, InternalError
from target_moengage_cohort.core.interrupts import Interrupt
from target_moengage_cohort.core.membership import Action, Change, Cohort, Member
from target_moengage_cohort.delivery import delivery as delivery_module
from target_moengage_cohort.delivery.delivery import Delivery, dry_link, live_link
from target_moengage_cohort.delivery.ports import Callbacks, CohortCounts, Link, NoPace, Timing
from target_moengage_cohort.emulator import Emulator
from target_moengage_cohort.ledger.engines import open_store
from target_moengage_cohort.moengage import transport as transport_module
from target_moengage_cohort.moengage.answers import Answer, Outcome
from target_moengage_cohort.settings import load
from tests.support.singer import config, lines, record, run, schema, state

SETTINGS = load(
    {"workspace_id": "w", "data_api_key": "k", "data_center": "01", "partner": "acme"}
).settings
ACCEPTED = Answer(Outcome.ACCEPTED, "accepted")


class Pace(NoPace):
    """Permits without a limit, with a record of whether they were closed."""

    is_closed = False

    def close(self) -> None:
        self.is_closed = True


@pytest.fixture
def interrupt():
    interrupt = Interrupt()
    yield interrupt
    interrupt.close()


def delivery(
    link: Link, interrupt: Interrupt, states: list | None = None, **options: Any
) -> Delivery:
    emit = (states if states is not None else []).append
    callbacks = Callbacks(emit, lambda _cohort, _action, _member, _reason: None, lambda *_: None)
    options = {"timing": Timing(), "ledgers": {}, **options}
    made = Delivery(SETTINGS, link, callbacks, interrupt=interrupt, **options)
    made.start()
    return made


def changes(cohort: str, count: int, action: Action = Action.ADD) -> list[Change]:
    return [
        Change(Cohort(cohort, cohort), action, Member(f"user-{number}")) for number in range(count)
    ]


def users(count: int, start: int = 0) -> list[dict]:
    return [record(uid=f"user-{number:06}") for number in range(start, start + count)]


def uids(emulator: Emulator, cohort: str = "users") -> set[str]:
    return {member.uid for member in emulator.members(cohort)}


def test_memory_for_closed_bodies_is_bounded(emulator, monkeypatch):
    """Promise 8: if requests are slower than the input, reading waits."""
    monkeypatch.setattr(delivery_module, "CLOSED_WEIGHT_LIMIT", 30_000)
    waiting = []
    real = Delivery.submit

    def submit(self, changes):
        real(self, changes)
        waiting.append(self._state.lanes.budget.closed_weight)

    monkeypatch.setattr(Delivery, "submit", submit)
    emulator.latency(0.002)
    seen = run(emulator, lines(schema(), *users(20_000)), max_payload_bytes=5_000)
    assert seen.error is None
    assert 20_000 == len(uids(emulator))
    assert max(waiting) <= 30_000


def test_reading_goes_on_while_requests_are_under_way(emulator):
    """The input is read to its end even before the first answer."""
    emulator.hold()
    asked = []

    def release(_seen, _interrupt) -> None:
        asked.append(1)
        if len(asked) == 2:  # the second cohort's first row is the input's last
            emulator.release()

    rows = users(5_000)
    data = lines(schema(), schema("last"), *rows, record("last", uid="u"))
    seen = run(emulator, data, before=release)
    assert seen.error is None
    assert 5_000 == len(uids(emulator))


def test_a_run_that_is_interrupted_in_a_retry_is_not_complete(emulator, tmp_path):
    """A request that was given up when the run was interrupted leaves the report failed."""
    report = tmp_path / "report.json"
    for _ in range(20):
        emulator.reset()
        emulator.fail_next(503, 10, headers={"Retry-After": "100"})

        def interrupt_soon(_seen, interrupt) -> None:
            threading.Timer(0.01, interrupt.set).start()

        seen = run(
            emulator,
            lines(schema(), *users(1), state({"a": 1})),
            before=interrupt_soon,
            report_path=str(report),
        )
        assert [] == seen.states
        written = json.loads(report.read_text())
        (cohort,) = written["cohorts"]
        assert ("failed", "no", 1) == (written["status"], cohort["complete"], cohort["in_doubt"])


def test_covered_state_is_emitted_though_the_run_fails(emulator):
    """STATE for the changes accepted before a failure is emitted."""
    emulator.poison(["user-000150"])
    rows = users(300)
    data = lines(schema(), *rows[:10], state({"rows": 10}), *rows[10:], state({"rows": 300}))
    seen = run(emulator, data, max_payload_bytes=1_000, max_concurrency=1)
    assert isinstance(seen.error, InputError)
    assert [{"rows": 10}] == seen.states


def test_counts_are_those_of_one_cohort(interrupt):
    """Each cohort has its own counts, all zero if nothing was sent to it."""
    sent = []

    def send(body: bytes) -> Answer:
        sent.append(body)
        return ACCEPTED

    one = delivery(Link(send, NoPace(interrupt)), interrupt)
    one.submit([*changes("a", 3), *changes("a", 1, Action.REMOVE), *changes("b", 1)])
    assert one.drain()
    assert one.stop()
    size = sum(len(body) for body in sent if b'"cohort_id":"a"' in body)
    assert CohortCounts(added=2, removed=1, merged=1, requests=2, bytes=size) == one.counts("a")
    assert 1 == one.counts("b").added
    assert CohortCounts() == one.counts("c")
    assert (4, 3, 0) == (one.totals.accepted, one.totals.requests, one.backlog)


def test_a_dry_link_accepts_everything(interrupt):
    """A dry run delivers and covers like a real one, but sends nothing."""
    states = []
    one = delivery(dry_link(interrupt), interrupt, states)
    one.submit(changes("a", 3))
    one.state(b"1")
    assert one.drain()
    assert one.stop()
    assert ([b"1"], 3, None) == (states, one.counts("a").added, one.failure)


def test_a_live_link_makes_its_transport_for_the_first_request(
    emulator, interrupt, monkeypatch, tmp_path
):
    """A run that sends nothing does not import the slow modules."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    made = []
    real = transport_module.Transport

    def transport(settings):
        made.append(settings)
        return real(settings)

    monkeypatch.setattr(transport_module, "Transport", transport)
    link = live_link(load(config(emulator)).settings, interrupt)
    assert [] == made
    one = delivery(link, interrupt)
    one.submit(changes("a", 3))
    assert one.drain()
    assert one.stop()
    assert 1 == len(made)
    assert {"user-0", "user-1", "user-2"} == uids(emulator, "a")


def test_the_pace_is_closed_once_all_threads_have_ended(interrupt):
    """A stopped delivery leaves no pace open."""
    pace = Pace(interrupt)
    one = delivery(Link(lambda _body: ACCEPTED, pace), interrupt)
    assert one.stop()
    assert pace.is_closed


def test_the_pace_stays_open_for_a_thread_that_has_not_ended(interrupt, monkeypatch):
    """A request without an answer is abandoned: its members are unconfirmed, and a late answer is
    ignored."""
    monkeypatch.setattr(delivery_module, "GRACE_SECONDS", 0.05)
    pace, sending, answered = Pace(interrupt), threading.Event(), threading.Event()

    def send(_body: bytes) -> Answer:
        sending.set()
        answered.wait()
        return ACCEPTED

    one = delivery(Link(send, pace), interrupt)
    one.submit(changes("a", 3))
    one.close("a")
    sending.wait()
    assert not one.stop()
    assert not pace.is_closed
    answered.set()
    for thread in threading.enumerate():
        if thread.name.startswith("sender-"):
            thread.join()
    assert (0, 3) == (one.counts("a").added, one.counts("a").in_doubt)


class SlowLedger:
    """A ledger of the cohort `a` whose record of a request takes some seconds, on a clock."""

    def __init__(self, folder: Path, seconds: float) -> None:
        self.now = 0.0
        self._seconds = seconds
        raw = {"workspace_id": "w", "data_api_key": "k", "data_center": 1, "partner": "acme"}
        settings = load({**raw, "ledger_uri": str(folder)}).settings
        wait = threading.Event().wait
        self.store = open_store(settings, run_id="r", wait=wait, step=self._step)
        self.ledger = self.store.open(Cohort("a", "A"), "stream")

    def _step(self, name: str) -> None:
        if name == "sent: before commit":
            self.now += self._seconds

    def deliver(self, link: Link, interrupt: Interrupt) -> bool:
        """Send a change; return whether it was accepted."""
        timing = Timing(clock=lambda: self.now)
        one = delivery(link, interrupt, timing=timing, ledgers={"a": self.ledger})
        one.submit(changes("a", 1))
        is_done = one.drain()
        assert one.stop()
        return is_done


@pytest.mark.parametrize(("seconds", "permits"), [(0.5, [0.0]), (60.0, [0.0, 60.0])])
def test_a_permit_is_not_older_than_the_request(interrupt, tmp_path, monkeypatch, seconds, permits):
    """A request whose record took longer than a second takes another permit right before it
    leaves."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    slow, permitted, sent = SlowLedger(tmp_path / "ledger", seconds), [], []

    class Noted(NoPace):
        def acquire(self) -> bool:
            permitted.append(slow.now)
            return super().acquire()

    def send(_body: bytes) -> Answer:
        sent.append(slow.now)
        return ACCEPTED

    with slow.store:
        assert slow.deliver(Link(send, Noted(interrupt)), interrupt)
    assert (permits, [seconds]) == (permitted, sent)


def test_a_request_without_a_new_permit_is_not_sent(interrupt, tmp_path, monkeypatch):
    """A run that is to end while it waits for another permit sends nothing, and no member is in
    doubt."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    slow, sent = SlowLedger(tmp_path / "ledger", 60.0), []

    class Ending(NoPace):
        def acquire(self) -> bool:
            if slow.now:
                interrupt.set()
            return super().acquire()

    def send(body: bytes) -> Answer:
        sent.append(body)
        return ACCEPTED

    with slow.store:
        assert not slow.deliver(Link(send, Ending(interrupt)), interrupt)
        assert ([], 0) == (sent, slow.ledger.numbers().base)


def test_a_failure_ends_every_wait(interrupt):
    """A bug in a thread ends the run with an error that quotes nothing."""

    def send(_body: bytes) -> Answer:
        msg = "pl4nt3d"
        raise RuntimeError(msg)

    one = delivery(Link(send, NoPace(interrupt)), interrupt)
    one.submit(changes("a", 3))
    with pytest.raises(InternalError) as failure:
        one.drain()
    assert ("internal_error", False) == (failure.value.code, "pl4nt3d" in str(failure.value))
    with pytest.raises(InternalError):
        one.state(b"1")
    assert one.stop()


def test_without_a_rate_limit_only_a_429_is_waited_for(interrupt):
    """Permits are granted until the run is to end, which also ends the wait for a 429."""
    pace = NoPace(interrupt)
    assert pace.acquire()
    pace.hold(3_600)
    threading.Timer(0.05, interrupt.set).start()
    assert not pace.acquire()
