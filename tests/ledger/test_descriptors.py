"""Stores of processes that may open few files."""

import pytest

from tests.ledger.support import finished, ledgers, process

MANY = """
import json, resource, sys
from pathlib import Path
import duckdb  # before there is no descriptor left to import it
resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[2]),) * 2)
from target_moengage_cohort.core.errors import TargetError
from tests.ledger.support import *
told = []
try:
    with ledgers(Path(sys.argv[1])) as store:
        opened = [store.open(cohort(f"c{i}"), f"s{i}") for i in range(int(sys.argv[3]))]
        for ledger in opened:
            accept(ledger, ADD, members(ledger.entry.cohort_id))
        for ledger in opened:
            ledger.stream.fold()
        told = [ledger.numbers().accepted.count for ledger in opened]
except TargetError as error:
    told = [error.code, str(error)]
print(json.dumps(told))
"""
FALLBACK = """
import fcntl, sys, time
from pathlib import Path
del fcntl.F_OFD_SETLK
from target_moengage_cohort.core.errors import BusyError
from tests.ledger.support import *
print(sys.argv[2], flush=True)
try:
    with ledgers(Path(sys.argv[1]), busy_seconds=0, run_id=sys.argv[2]) as store:
        store.open(COHORT, STREAM)
        if sys.argv[2] == "holder":
            print("held", flush=True)
            sys.stdin.readline()
except BusyError as error:
    print(json.dumps(["holder" in str(error)]))
else:
    print(json.dumps([]))
"""


@pytest.mark.contract
def test_many_streams_need_few_descriptors(tmp_path):
    """A process that may open 64 files keeps the leases of 100 streams, and writes them all."""
    assert [1] * 100 == finished(process(MANY, tmp_path, 64, 100))
    with ledgers(tmp_path, read_only=True) as store:
        assert [1] * 100 == [entry.counts.accepted.count for entry in store.entries()]


@pytest.mark.parametrize("limit", [9, 11, 13, 15])
def test_a_limit_that_is_too_low_is_named(tmp_path, limit):
    """If not even a few files can be opened, the error has a code of its own, names the limit, and
    says how to raise it."""
    told = finished(process(MANY, tmp_path, limit, 3))
    if told != [1, 1, 1]:
        code, message = told
        assert "too_many_open_files" == code
        assert f"{limit} files" in message
        assert "ulimit -n" in message
    with ledgers(tmp_path) as store:  # another process can use what is there
        store.check()


def test_leases_have_files_where_bytes_cannot_be_locked(tmp_path):
    """Without locks on bytes, as on macOS, a stream that another process has is busy as well, and
    free when that has ended."""
    holder = process(FALLBACK, tmp_path, "holder")
    try:
        assert ["holder\n", "held\n"] == [holder.stdout.readline() for _ in range(2)]
        assert [True] == finished(process(FALLBACK, tmp_path, "other"))
    finally:
        holder.kill()
        holder.communicate()
    assert [] == finished(process(FALLBACK, tmp_path, "other"))
