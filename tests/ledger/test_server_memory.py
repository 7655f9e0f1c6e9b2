"""The memory of large changes of the members on a server."""

import re
import stat
import sys
from pathlib import Path

import pytest

from tests.ledger.support import COHORT, STREAM, finished, ledgers, process
from tests.support.ledger_places import ServerPlace

MEMBERS = 1_000_000
MOST_KB = 160_000
COPIED = 300_000
MOST_IN_TABLES = 9_000_000
"""Bytes of the last rows, which DuckDB writes when it has 122,880; all take 21 million."""
CHANGES = """
import sys
from target_moengage_cohort.ledger.duckdb import instance
from tests.ledger.test_server_memory import change
instance._MEMORY_LIMIT = "64MB"
change(sys.argv[1])
"""


def fill(ledger, count):
    """Insert members in one change."""
    table, number = ledger.stream.table, ledger.number
    h = table.engine.hash_sql("uid", "NULL::VARCHAR")
    people = f"SELECT md5(i::VARCHAR) AS uid FROM range({count}) AS t(i)"
    with ledger.stream.changing("fill", [number]):
        table.run(f"INSERT INTO {{s}}.accepted SELECT {number}, {h}, uid, NULL FROM ({people})")


def change(uri):
    """Insert many members and delete them; print the peak of resident memory before and after."""
    with ledgers(Path(), setting={"ledger_uri": uri}) as store:
        ledger = store.open(COHORT, STREAM)
        before = peak()
        fill(ledger, MEMBERS)
        full = ledger.numbers().accepted.count
        table, number = ledger.stream.table, ledger.number
        with ledger.stream.changing("empty", [number]):
            table.run(f"DELETE FROM {{s}}.accepted WHERE cohort = {number}")
        print([before, peak(), full, ledger.numbers().accepted.count])


def peak():
    """Return the peak of this process's resident memory, in KB."""
    return int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1])


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process's own peak")
def test_a_change_of_a_million_members_takes_little_memory(server):
    """A million members, inserted and deleted on the server in one change each, are never all in
    the memory of the process."""
    place = ServerPlace(server)
    try:
        before, after, full, left = finished(process(CHANGES, place.uri))
    finally:
        place.close()
    assert (MEMBERS, 0) == (full, left)
    assert after - before < MOST_KB


@pytest.mark.server
def test_the_copy_of_the_members_leaves_the_memory_to_the_comparison(tmp_path):
    """The members that were copied from the server are in a private file, which goes with the run,
    and in no table in DuckDB's memory."""
    with ledgers(tmp_path) as store:
        fill(store.open(COHORT, STREAM), COPIED)
    with ledgers(tmp_path) as store:
        table = store.open(COHORT, STREAM).stream.table
        memory = "SELECT sum(memory_usage_bytes) FROM duckdb_memory() WHERE tag = 'IN_MEMORY_TABLE'"
        assert table.rows("SELECT count(*) FROM {s}.accepted") == [(COPIED,)]
        assert int(table.rows(memory)[0][0]) < MOST_IN_TABLES
        assert stat.S_IMODE(table.path.stat().st_mode) == 0o600
    assert not table.path.exists()
