"""A store with something in every table, and all rows that a store has."""

import contextlib
import shutil
import sqlite3
import tempfile
import typing as t
from functools import partial
from pathlib import Path

import duckdb

from target_moengage_cohort.core.membership import Member
from target_moengage_cohort.ledger.duckdb.schema import COHORT_TABLES
from target_moengage_cohort.ledger.engines import open_store
from target_moengage_cohort.ledger.moving import Opener
from target_moengage_cohort.ledger.records import PlanKind, RequestState, RunEntry
from tests.ledger.support import (
    ADD,
    COHORT,
    OTHER_STREAM,
    PLAN,
    PROGRESS,
    REMOVE,
    STREAM,
    accept,
    cohort,
    keep,
    members,
    send,
)
from tests.support.reports import past_run

WITHHELD = {"kind": PlanKind.WITHHELD, "plan_id": "withheld"}
ENTRY = RunEntry(
    run_id="run-1",
    started_at="2026-11-30T00:00:00Z",
    finished_at="2999-11-30T00:00:00Z",
    status="succeeded",
    sync_mode="mirror",
    complete="yes",
    records=9,
    added=5,
    removed=1,
)
_OF_PLACE = {"is_open", "host", "moved_to"}


def opener(*, is_stopped: t.Callable[[], bool] = lambda: False, **options: t.Any) -> Opener:
    """Return what opens stores as a command does."""
    options = {"run_id": "mover", "wait": lambda _seconds: False, "busy_seconds": 0.0, **options}
    return Opener(partial(open_store, **options), is_stopped)


def fill(settings: t.Any) -> None:
    """Let runs of two partners make a store, in which nothing is empty that a move could lose.

    The last request is that of a run that died.
    """
    opened = opener(run_id="run-1").open
    settings = replace(settings, keep_changes_days=400)
    with opened(settings) as store:
        ledger = store.open(COHORT, STREAM)
        store.begin(STREAM)
        store.use_version(STREAM, 7)
        store.note_read_whole(STREAM, whole=True)
        pairs = [Member("u", "a'\0é"), Member("w", "b"), Member("v"), Member(None, "z")]
        accept(ledger, ADD, [*members(*range(9)), *pairs])
        accept(ledger, ADD, [Member("w", "c")])  # so that b is an alias
        accept(ledger, REMOVE, members(2))
        ledger.answered(send(ledger, REMOVE, members(3)), RequestState.UNANSWERED)
        plan = PLAN
        for changes in ({}, WITHHELD):
            plan = replace(PLAN, **changes)
            keep(store, ledger, plan, [str(uid) for uid in range(5)])
        store.approve(ledger.entry, plan)
        sealed = store.open(cohort("sealed"), OTHER_STREAM)
        accept(sealed, ADD, members(1))
        accept(sealed, REMOVE, members(200))
        sealed.stream.fold()
        sealed.stream.forget(members(200))  # so that a removal is no longer kept
        sealed.seal()
        store.open_without_members(cohort("memberless"), "plain").sent(ADD, b"", 1, 5)
        store.write_progress(replace(PROGRESS, run_id="run-1"))
        store.note_run(past_run(), [past_run(cohort_id="vip", added=5)], {ledger.number: ENTRY})
        store.note_action("adopt", ledger.entry, members=3)
        store.pause("memberless")
        store.alerts.advance([STREAM], lambda _known: ({STREAM: "failed"}, {"run-1.failed": "{}"}))
        store.unarchivals.note([ledger.number], 5.0, done=True)
    with opened(replace(settings, partner="another")) as store:
        accept(store.open(cohort("theirs"), STREAM), ADD, members(7))
    with opened(settings) as store:
        ledger = store.open(COHORT, STREAM)
        send(ledger, ADD, members(100))
        store.end_requests()


def replace(struct: t.Any, **changes: t.Any) -> t.Any:
    return type(struct)(
        **{name: getattr(struct, name) for name in struct.__struct_fields__} | changes
    )


def places(folder: Path) -> list[Path]:
    """Return the directories of destinations in a folder, but no unfinished ones."""
    return [path for path in folder.glob("*") if len(path.name) == 32]


def rows(folder: Path) -> dict[str, list[t.Any]]:
    """Return all rows of the only store in a folder, except where it is; no process has it open."""
    (place,) = places(folder)
    with tempfile.TemporaryDirectory() as copy:  # as reading it would end the log of a killed run
        return _rows(Path(shutil.copytree(place, Path(copy, "store"))))


def _rows(place: Path) -> dict[str, list[t.Any]]:
    found = {}
    with contextlib.closing(sqlite3.connect(place / "control.sqlite")) as database:
        database.row_factory = sqlite3.Row
        names = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        for (name,) in names:
            some = [dict(row) for row in database.execute(f"SELECT * FROM {name}")]
            found[name] = ordered(
                {k: v for k, v in row.items() if k not in _OF_PLACE} for row in some
            )
    for path in place.glob("members-*.duckdb"):
        with duckdb.connect(path, read_only=True) as database:
            for name in (*COHORT_TABLES, "meta"):
                found[f"{path.stem}.{name}"] = ordered(database.execute(f"FROM {name}").fetchall())
    return found


def ordered(some: t.Iterable[t.Any]) -> list[t.Any]:
    return sorted(some, key=repr)


def without(found: dict[str, list[t.Any]], *tables: str) -> dict[str, list[t.Any]]:
    """Return rows without some tables, and without the number of the newest run."""
    kept = {name: some for name, some in found.items() if name not in tables}
    kept["store"] = [{k: v for k, v in row.items() if k != "last_run"} for row in kept["store"]]
    return kept


def leftovers(folder: Path) -> list[str]:
    """Return the files and directories that a move should have deleted."""
    return [
        path.name
        for path in folder.rglob("*")
        if ".part" in path.name or path.name.startswith("spill-") or ".wal" in path.name
    ]
