"""A simulated month of runs and commands: the history against a model."""

import collections
import json
import random
import tempfile
import threading
import typing as t
from pathlib import Path

import pytest

from target_moengage_cohort.cli.history.history_figures import figures
from target_moengage_cohort.cli.history.history_messages import (
    Bookmarks,
    HistoryMessages,
    read_state,
)
from target_moengage_cohort.core.errors import BusyError, LedgerError
from target_moengage_cohort.core.membership import Cohort
from target_moengage_cohort.core.text import iso_utc
from target_moengage_cohort.core.warning_log import LoggedWarning
from target_moengage_cohort.ledger.engines import open_store
from target_moengage_cohort.ledger.records import MemberSet, RunProgress
from target_moengage_cohort.settings import load
from target_moengage_cohort.sync.mirror.recorder import Recorder
from target_moengage_cohort.sync.reporting.report import Destination, Report, ReportedError
from tests.support.reports import cohort

START, HOUR, DAY = 1_800_000_000.0, 3_600.0, 86_400.0
RUNS = 720
ENDINGS = ["plain"] * 10 + ["changed"] * 4 + ["withheld", "failed", "interrupted", "killed", "late"]
FIELDS = ("kind", "at", "run_id", "cohort_id", "status", "added", "removed", "error", "warnings")


class Month:
    """A scheduler, a person, what they did, and a warehouse that takes it over once a day."""

    def __init__(self, folder, seed):
        raw = {"workspace_id": "w", "data_api_key": "k", "data_center": 1, "partner": "acme"}
        self.settings = load(raw | {"ledger_uri": str(folder)}).settings
        self.random = random.Random(seed)
        self.now = START
        self.model: list[dict[str, t.Any]] = []  # what the history must show, the oldest first
        self.did: dict[str, list[tuple[str, str]]] = {"a": [], "b": []}  # ids and statuses
        self.warehouse: dict[tuple[t.Any, ...], dict[str, t.Any]] = {}
        self.bookmarks = Bookmarks()

    def store(self, run_id, step=lambda _name: None, **options):
        wait = threading.Event().wait
        clock = lambda: self.now  # noqa: E731
        return open_store(
            self.settings, run_id=run_id, wait=wait, clock=clock, step=step, **options
        )

    def note(self, kind, run_id, status, added, removed, **facts):
        at = iso_utc(self.now)
        defaults = {"cohort_id": None, "error": None, "warnings": ()}
        counts = {"added": added, "removed": removed}
        entry = {"kind": kind, "at": at, "run_id": run_id, "status": status}
        self.model.append(entry | counts | defaults | facts)

    def hour(self, number):
        """Run once; a person confirms most of what is withheld within the hour."""
        ending = self.random.choice(ENDINGS)
        self.run(f"run-{number}", ending)
        if ending == "withheld" and self.random.random() < 0.8:
            self.now += 0.4 * HOUR
            with self.store(f"confirm-{number}") as store:
                removals = self.random.randrange(1, 900)
                entry = store.entry("a")
                store.note_action("confirm", entry, additions=0, removals=removals)
            self.note("confirm", f"confirm-{number}", "succeeded", 0, removals, cohort_id="a")
            self.did["a"].append((f"confirm-{number}", "succeeded"))
            self.now -= 0.4 * HOUR
        self.now += HOUR

    def run(self, run_id, ending):
        """Let the store keep a run of two cohorts, of which the second has no change."""

        busy = []

        def step(name):
            if ending == "killed" and name == "finish run: before commit":
                raise LedgerError("ledger_unusable", "the process died here")
            if name == "finish run: before commit" and ending == "late" and not busy:
                busy.append(name)
                raise BusyError("ledger_busy", "another process has the ledger")

        with self.store(run_id, step) as store:
            opened = [
                store.open_without_members(Cohort(name, name), "users") for name in ("a", "b")
            ]
            assert ["a", "b"] == [each.entry.cohort_id for each in opened]
            store.write_progress(self.progress(run_id))
            added, removed = (self.random.randrange(50) for _ in range(2))
            changes = (added, removed) if ending in {"changed", "late"} else (0, 0)
            if ending != "killed":
                report = self.report(run_id, ending, *changes)
                Recorder(store).note_run(report, ["users"], {"a": 100}, {})
        self._expect(run_id, ending, *changes)

    def _expect(self, run_id, ending, added, removed):
        if ending == "killed":
            self.note("run", run_id, "unfinished", None, None)
            return
        warnings = ("plan_withheld",) if ending == "withheld" else ()
        error = {"failed": "api_failed", "interrupted": "interrupted"}.get(ending)
        status = {"failed": "failed", "interrupted": "failed", "withheld": "withheld"}
        status = status.get(ending, "succeeded")
        self.note("run", run_id, status, added, removed, error=error, warnings=warnings)
        if status != "succeeded" or added or removed:
            self.did["a"].append((run_id, status))
        if status == "failed":
            self.did["b"].append((run_id, status))

    def progress(self, run_id):
        facts = {"pid": 1, "host": "h", "records": 3, "accepted": 0, "requests": 0}
        return RunProgress(run_id=run_id, started_at=iso_utc(self.now), streams=["users"], **facts)

    def report(self, run_id, ending, added, removed):
        failed = ending in {"failed", "interrupted"}
        status = "failed" if failed else "withheld" if ending == "withheld" else "succeeded"
        error = ReportedError("api_failed", "MoEngage failed") if ending == "failed" else None
        warning = LoggedWarning("plan_withheld", "…", "users", "a")
        size = MemberSet(100 + added - removed, "0")
        other = "failed" if failed else "succeeded"
        return Report(
            run_id=run_id,
            version="1.0",
            started_at=iso_utc(self.now),
            finished_at=iso_utc(self.now),
            status=status,
            exit_code=int(failed),
            error=error,
            warnings=(warning,) if ending == "withheld" else (),
            destination=Destination("https://api", "w"),
            cohorts=[
                cohort("a", "users", status=status, added=added, removed=removed, accepted=size),
                cohort("b", "users", status=other, accepted=size),
            ],
        )

    def export(self):
        """Load what is new into the warehouse."""
        with self.store("reader", read_only=True) as store:
            keys = {}
            for message in HistoryMessages(
                store.history_reader(), self.settings, "", self.bookmarks, None
            ):
                if message["type"] == "SCHEMA":
                    keys[message["stream"]] = message["key_properties"]
                elif message["type"] == "RECORD":
                    stream, record = message["stream"], message["record"]
                    key = (stream, *(record[name] for name in keys[stream]))
                    self.warehouse[key] = record
                else:
                    state = json.dumps(message["value"], default=_plain)
                    self.bookmarks = read_state(state.encode()).bookmarks

    def shown(self, *options):
        with self.store("reader", read_only=True) as store:
            return store.history(*options)

    def check(self):
        """Compare the history with the model, and so the page of the history."""
        shown = [{name: getattr(each, name) for name in FIELDS} for each in self.shown()]
        assert self.model[::-1] == shown
        for name, did in self.did.items():
            found = [(each.run_id, each.status) for each in self.shown("", name)]
            assert did[::-1] == found, name
        with self.store("reader", read_only=True) as store:
            reader, now = store.history_reader(), iso_utc(self.now)
            page = figures(reader, store.entries(), "", now, 300)
        runs = [each for each in self.model if each["kind"] == "run"]
        assert collections.Counter(each["status"] for each in runs) == page["statuses"]
        for name in ("added", "removed"):
            assert [each[name] or 0 for each in runs] == [getattr(p, name) for p in page["points"]]
            done = sum(each[name] or 0 for each in self.model)
            assert done == sum(getattr(line, name) for line in page["cohorts"])
        half = iso_utc((START + self.now) / 2)
        later = [each for each in self.model if each["at"] >= half]
        assert len(later) == len(self.shown(half))


def _plain(value):
    return {name: getattr(value, name) for name in value.__struct_fields__}


@pytest.fixture
def quick(monkeypatch):
    """A folder in memory, if the system has one: thousands of transactions wait for no disk."""
    memory = Path("/dev/shm")
    place = memory if memory.is_dir() else None
    with tempfile.TemporaryDirectory(dir=place) as folder:
        monkeypatch.setenv("XDG_STATE_HOME", f"{folder}/state")
        yield Path(folder)


def test_a_month(quick):
    """After 720 runs with faults, kills, withheld plans and confirmations the history has each run
    and command as it ended, and so has a warehouse that loads it daily; later, 400 days of it."""
    month = Month(quick / "ledger", seed=17)
    for number in range(RUNS):
        month.hour(number)
        if number % 24 == 23:
            month.export()
        if number % 240 == 239:
            month.check()
    runs = {key[1]: row for key, row in month.warehouse.items() if key[0] == "runs"}
    assert {each["run_id"]: each["status"] for each in month.model if each["kind"] == "run"} == {
        run_id: row["status"] for run_id, row in runs.items()
    }
    kinds = [key[0] for key in month.warehouse]
    assert sum(each["kind"] != "run" for each in month.model) == kinds.count("actions")
    failed = [key[1:] for key in month.warehouse if key[0] == "run_cohorts"]
    of_runs = {(run, name) for name, did in month.did.items() for run, _ in did if run in runs}
    assert of_runs == {*failed}
    month.now = START + 400 * DAY + RUNS * HOUR / 2
    month.run("last", "plain")
    oldest = iso_utc(month.now - 400 * DAY)
    month.model = [each for each in month.model if each["at"] >= oldest]
    assert [each["run_id"] for each in month.model if each["kind"] == "run"] == [
        each.run_id for each in reversed(month.shown()) if each.kind == "run"
    ]
