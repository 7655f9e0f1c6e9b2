"""Streams that another run holds, among others: whole runs against the emulator."""

import contextlib
import json
import signal
import time

import pytest

from target_moengage_cohort.core.errors import BusyError, InputError
from target_moengage_cohort.ledger.engines import open_store as open_real_store
from target_moengage_cohort.sync.mirror.completeness import Proof
from tests.ledger.support import process
from tests.support import singer
from tests.support.logs import codes
from tests.support.singer import (
    config,
    finish,
    lines,
    record,
    run,
    schema,
    start,
    state,
)

HOLD = """
import json, sys
from target_moengage_cohort.ledger.engines import open_store
from target_moengage_cohort.settings import load
store = open_store(load(json.loads(sys.argv[1])).settings, run_id="other-run", wait=lambda _: True)
store.take("held")
print("held", flush=True)
sys.stdin.readline()
store.close()
"""
MODES = {
    "without members": {"ledger_uri": None},
    "mirror": {"cohorts": {"held": {"sync_mode": "mirror"}, "free": {"sync_mode": "mirror"}}},
    "incremental": {},
    "fan_out": {"cohorts": {"held": {"cohort_id_column": "cohort"}, "free": {}}},
}
FREE = [schema("free"), record("free", uid="f1"), record("free", uid="f2")]
HELD = [
    schema("held", ("uid", "cohort")),
    record("held", uid="h1", cohort="held"),
    record("held", uid="h2", cohort="held"),
]
INPUT = lines(state({"n": 1}), *FREE, state({"n": 2}), *HELD, state({"n": 3}), *FREE, state(4))


def uids(emulator, cohort):
    """Return the uids of a cohort's members."""
    return {uid for uid, _ in emulator.members(cohort)}


@pytest.fixture
def settings(tmp_path):
    """The settings of all runs here, apart from the modes."""
    return {"ledger_uri": str(tmp_path / "ledger"), "on_reject": "fail"}


@pytest.fixture
def another(emulator, settings):
    """Returns another process that holds the stream `held`, as a context manager."""

    @contextlib.contextmanager
    def hold(**changes):
        with process(HOLD, json.dumps(config(emulator, **settings | changes))) as holder:
            assert "held\n" == holder.stdout.readline()
            try:
                yield holder
            finally:
                holder.kill()

    return hold


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """Runs wait for a stream for a moment only."""
    monkeypatch.setattr(
        singer,
        "open_store",
        lambda *given, **named: open_real_store(*given, **named, busy_seconds=0.3),
    )


@pytest.mark.parametrize("mode", MODES)
def test_a_busy_stream_fails_alone(emulator, settings, another, caplog, tmp_path, mode):
    """The rows of a busy stream are dropped and hold STATE; the others are delivered, and the next
    run delivers everything."""
    report = tmp_path / "report.json"
    options = {**settings, **MODES[mode], "report_path": str(report)}
    with another(ledger_uri=options["ledger_uri"]) as holder:
        seen = run(emulator, INPUT, **options)
    assert isinstance(seen.error, BusyError)
    assert (4, "ledger_busy") == (seen.error.exit_code, seen.error.code)
    for part in ("'held'", "run other-run", f"process {holder.pid} on"):
        assert part in str(seen.error)
    assert {"f1", "f2"} == uids(emulator, "free")
    assert "held" not in {each.body["parameters"]["cohort_id"] for each in seen.attempts}
    assert {"free"} == {each.cohort_id for each in seen.report.cohorts}
    assert not [value for value in seen.states if value not in ({"n": 1}, {"n": 2})]
    assert ["ledger_busy", "waiting_for_stream"] == sorted(codes(caplog))
    written = json.loads(report.read_text())
    assert ("failed", "ledger_busy") == (written["status"], written["error"]["code"])
    assert str(seen.error) == written["error"]["message"]
    after = run(emulator, INPUT, **options)
    assert (None, 4) == (after.error, after.states[-1])
    assert {"h1", "h2"} == uids(emulator, "held")
    assert json.loads(report.read_text())["error"] is None


def test_a_mirror_beside_a_busy_stream_is_settled(emulator, settings, another):
    """The members that left a mirror are removed while another stream is busy."""
    options = {**settings, **MODES["mirror"]}
    assert run(emulator, INPUT, **options).error is None
    fewer = lines(*HELD, *FREE[:1], record("free", uid="f1"))
    with another():
        seen = run(emulator, fewer, **options, max_removal_percent=50)
    assert isinstance(seen.error, BusyError)
    assert {"f1"} == uids(emulator, "free")
    assert Proof.END_OF_INPUT is seen.report.cohorts[0].complete
    assert {"h1", "h2"} == uids(emulator, "held")


def test_a_worse_error_beats_a_busy_stream(emulator, settings, another):
    """A run with a busy stream and a row that is refused ends with the row's error."""
    bad = lines(*HELD, schema("free"), record("free", uid=True))
    with another():
        seen = run(emulator, bad, **settings)
    assert isinstance(seen.error, InputError)


def test_the_rows_of_a_busy_stream_are_not_judged(emulator, settings, another, tmp_path):
    """A row, a file or an activation of a busy stream that would be refused is dropped like any."""
    rejects = tmp_path / "rejects"
    batch = {
        "type": "BATCH",
        "stream": "held",
        "encoding": {"format": "jsonl"},
        "manifest": ["file:///nowhere.jsonl"],
    }
    rows = [
        record("held", uid=True),
        record("held"),
        {"type": "ACTIVATE_VERSION"} | {"stream": "held", "version": 1},
    ]
    data = lines(*HELD[:1], *rows, batch, schema("held", ("uid", "x")), *rows, *FREE)
    with another():
        seen = run(emulator, data, **settings | {"on_reject": "skip", "rejects_path": str(rejects)})
    assert isinstance(seen.error, BusyError)
    assert ["free"] == [each.cohort_id for each in seen.report.cohorts]
    assert not (rejects.exists() and rejects.read_bytes())
    assert {"f1", "f2"} == uids(emulator, "free")


def test_a_stream_map_may_feed_a_busy_stream_and_a_free_one(emulator, settings, another):
    """Of the streams that one becomes by stream maps, only the busy one is dropped."""
    maps = {"free": {}, "held": {"__source__": "free"}}
    with another():
        seen = run(emulator, lines(*FREE, state({"n": 1})), **settings, stream_maps=maps)
    assert isinstance(seen.error, BusyError)
    assert [] == seen.states
    assert {"f1", "f2"} == uids(emulator, "free")


def test_a_dry_run_finds_a_stream_busy(emulator, settings, another):
    """A dry run with a busy stream plans the other one, and ends with exit code 4."""
    options = {**settings, **MODES["mirror"]}
    assert run(emulator, INPUT, **options).error is None
    with another():
        seen = run(emulator, INPUT, **options, dry_run=True)
    assert isinstance(seen.error, BusyError)
    assert ["free"] == [each.cohort_id for each in seen.report.cohorts]
    assert 2 == seen.report.cohorts[0].desired.count


def test_one_signal_ends_the_wait(emulator, settings, another, tmp_path):
    """SIGTERM ends a run that waits for a stream, long before it would give up."""
    with another():
        target = start(tmp_path / "home", config(emulator, **settings))
        target.stdin.write(lines(*HELD))
        target.stdin.flush()
        for line in iter(target.stderr.readline, b""):
            if b"other-run" in line:
                break
        began = time.monotonic()
        target.send_signal(signal.SIGTERM)
        done = finish(target)
    assert 143 == done.code
    assert time.monotonic() - began < 20
    assert not emulator.requests()
