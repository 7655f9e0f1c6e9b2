"""The record of a request that leaves and is accepted, compared with one such bare row."""

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
import psycopg

from target_moengage_cohort.core.membership import Action, Cohort
from target_moengage_cohort.ledger.engines import open_store
from target_moengage_cohort.ledger.records import RequestState
from target_moengage_cohort.settings import load
from tests.support.postgres import KEEPS_ITS_WORD, Postgres
from tools.benchmarks.data import people
from tools.benchmarks.sections import Figure, Section
from tools.benchmarks.sizes import Sizes

COLUMNS = ["", "requests", "ms each, median", "ms each, mean", "relative to the bare row"]
MEMBERS = 2_700  # about what the body of a request has room for
REQUESTS = 100  # per round
TIMESTAMP = 1_795_492_800_000
SETTINGS = {"workspace_id": "w", "data_api_key": "k", "data_center": "01", "partner": "p"}
AIMS = {"files": 5, "PostgreSQL": 3}
NOTE = (
    f"A request of {MEMBERS:,} members, recorded before it is sent and again when it is accepted; "
    "each record is on disk when the call returns. The bare row has the same bytes. It is inserted "
    "and deleted, each in its own transaction: in SQLite with `journal_mode=WAL` and "
    "`synchronous=FULL` in the same directory, and on the same server. All run in turn, in this "
    "process. The ratio is of the medians."
)

Way: t.TypeAlias = Callable[[bytes, int], None]
"""Records a request's members, at a time in milliseconds, and that it was accepted."""


def measure(sizes: Sizes) -> Section:
    """Measure the ledger of each engine, and a bare row in SQLite and on the server."""
    uids = duckdb.sql(f"select uid from ({people(MEMBERS, 0)})").fetchall()
    members = json.dumps([{"uid": uid} for (uid,) in uids], separators=(",", ":")).encode()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        server = stack.enter_context(Postgres(**KEEPS_ITS_WORD))
        ways = {
            "files": stack.enter_context(ledger(str(folder / "ledger"))),
            "SQLite, one row": stack.enter_context(sqlite(folder)),
            "PostgreSQL": stack.enter_context(ledger(server.uri)),
            "PostgreSQL, one row": stack.enter_context(postgres(server.uri)),
        }
        seconds = in_turn(ways, members, REQUESTS * sizes.rounds)
    medians = {title: statistics.median(each) for title, each in seconds.items()}
    (files, sqlite_row, server_ledger, server_row) = medians.values()
    ratios = {"files": files / sqlite_row, "PostgreSQL": server_ledger / server_row}
    rows = [
        [
            f"the ledger on {title}" if title in ratios else title,
            str(len(each)),
            f"{medians[title] * 1e3:.2f}",
            f"{statistics.mean(each) * 1e3:.2f}",
            f"{ratios[title]:.1f}" if title in ratios else "",
        ]
        for title, each in seconds.items()
    ]
    what = f"a request of {MEMBERS:,} members recorded and accepted"
    figures = [
        Figure(f"{what}, on {title}: time relative to a bare row", ratio, AIMS[title], at_most=True)
        for title, ratio in ratios.items()
    ]
    return Section("Recording a request", COLUMNS, rows, NOTE, "doubt", figures)


def in_turn(ways: dict[str, Way], members: bytes, requests: int) -> dict[str, list[float]]:
    """Return the seconds of each request by each way, after one that does not count."""
    seconds: dict[str, list[float]] = {title: [] for title in ways}
    for number, (title, way) in itertools.product(range(requests + 1), ways.items()):
        begin = time.perf_counter()
        way(members, TIMESTAMP + number)
        seconds[title].append(time.perf_counter() - begin)
    return {title: each[1:] for title, each in seconds.items()}


@contextlib.contextmanager
def ledger(uri: str) -> Iterator[Way]:
    """Yield the ledger's way, with a new ledger in a folder or on a server."""
    settings = load({**SETTINGS, "ledger_uri": uri}).settings
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


@contextlib.contextmanager
def postgres(uri: str) -> Iterator[Way]:
    """Yield the way of one row on a server, in a table of its own."""
    with psycopg.connect(uri, autocommit=True, prepare_threshold=None) as bare:
        bare.execute(
            "CREATE TABLE bare (number BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,"
            " action TEXT, members BYTEA, timestamp BIGINT)"
        )

        def record(members: bytes, timestamp: int) -> None:
            """Insert a row and delete it; each statement is a transaction."""
            row = (Action.ADD.value, members, timestamp)
            insert = "INSERT INTO bare (action, members, timestamp) VALUES (%s, %s, %s)"
            ((number,),) = bare.execute(f"{insert} RETURNING number", row).fetchall()
            bare.execute("DELETE FROM bare WHERE number = %s", (number,))

        yield record
