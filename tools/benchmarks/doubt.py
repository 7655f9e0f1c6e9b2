"""The record of a request that leaves and is accepted, compared with one such row in SQLite."""

import contextlib
import itertools
import json
import sqlite3
import statistics
import tempfile
import time
import typing as t
from collections.abc import Callable, Iterator
from pathlib import Path

import duckdb

from target_moengage_cohort.core.membership import Action, Cohort
from target_moengage_cohort.ledger.engines import open_store
from target_moengage_cohort.ledger.records import RequestState
from target_moengage_cohort.settings import load
from tools.benchmarks.data import people
from tools.benchmarks.sections import Figure, Section
from tools.benchmarks.sizes import Sizes

COLUMNS = ["", "requests", "ms each, median", "ms each, mean", "the ledger over it"]
MEMBERS = 2_700  # about what the body of a request has room for
REQUESTS = 100  # per round
TIMESTAMP = 1_795_492_800_000
SETTINGS = {"workspace_id": "w", "data_api_key": "k", "data_center": "01", "partner": "p"}
AIM = 5
NOTE = (
    f"A request of {MEMBERS:,} members, recorded before it leaves and again when it is accepted; "
    "each is on the disk when the call returns. The row in SQLite has the same bytes and is "
    "inserted and deleted, each in its own transaction, with `journal_mode=WAL` and "
    "`synchronous=FULL`, in the same directory. Both in turn, in this process. The ratio is of "
    "the medians."
)

Way: t.TypeAlias = Callable[[bytes, int], None]
"""Records a request's members, at a time in milliseconds, and that it was accepted."""


def measure(sizes: Sizes) -> Section:
    """Measure the ledger and bare SQLite."""
    uids = duckdb.sql(f"select uid from ({people(MEMBERS, 0)})").fetchall()
    members = json.dumps([{"uid": uid} for (uid,) in uids], separators=(",", ":")).encode()
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        with ledger(folder) as by_ledger, sqlite(folder) as by_sqlite:
            ways = {"the ledger": by_ledger, "SQLite, one row": by_sqlite}
            seconds = in_turn(ways, members, REQUESTS * sizes.rounds)
    ours, bare = (statistics.median(each) for each in seconds.values())
    rows = [
        [
            title,
            str(len(each)),
            f"{median * 1e3:.2f}",
            f"{statistics.mean(each) * 1e3:.2f}",
            ratio,
        ]
        for (title, each), median, ratio in zip(
            seconds.items(), (ours, bare), ("", f"{ours / bare:.1f}"), strict=True
        )
    ]
    name = f"a request of {MEMBERS:,} members recorded and accepted, over bare SQLite"
    figures = [Figure(name, ours / bare, AIM, at_most=True)]
    return Section("A request in doubt", COLUMNS, rows, NOTE, "doubt", figures)


def in_turn(ways: dict[str, Way], members: bytes, requests: int) -> dict[str, list[float]]:
    """Return the seconds of each request by each way, after one that does not count."""
    seconds: dict[str, list[float]] = {title: [] for title in ways}
    for number, (title, way) in itertools.product(range(requests + 1), ways.items()):
        begin = time.perf_counter()
        way(members, TIMESTAMP + number)
        seconds[title].append(time.perf_counter() - begin)
    return {title: each[1:] for title, each in seconds.items()}


@contextlib.contextmanager
def ledger(folder: Path) -> Iterator[Way]:
    """Yield the ledger's way, with a new ledger in a folder."""
    settings = load({**SETTINGS, "ledger_uri": str(folder / "ledger")}).settings
    with open_store(settings, run_id="bench", wait=lambda _seconds: False) as store:
        cohort = store.open(Cohort("c", "c"), "stream")

        def record(members: bytes, timestamp: int) -> None:
            """Record a request that leaves, and that it was accepted: the calls of delivery."""
            number = cohort.sent(Action.ADD, members, MEMBERS, timestamp)
            cohort.answered(number, RequestState.ACCEPTED)

        yield record


@contextlib.contextmanager
def sqlite(folder: Path) -> Iterator[Way]:
    """Yield the way of one row in SQLite, with a new file in a folder."""
    with contextlib.closing(sqlite3.connect(folder / "bare.sqlite", isolation_level=None)) as bare:
        bare.execute("PRAGMA journal_mode = WAL")
        bare.execute("PRAGMA synchronous = FULL")
        bare.execute(
            "CREATE TABLE doubts (number INTEGER PRIMARY KEY, action TEXT, members BLOB,"
            " timestamp INTEGER)"
        )

        def record(members: bytes, timestamp: int) -> None:
            """Insert a row and delete it; each statement is a transaction."""
            row = (Action.ADD.value, members, timestamp)
            insert = "INSERT INTO doubts (action, members, timestamp) VALUES (?, ?, ?)"
            number = bare.execute(insert, row).lastrowid
            bare.execute("DELETE FROM doubts WHERE number = ?", (number,))

        yield record
