"""Promise 7 for the other APIs: no run and no check shows an identifier or one of the keys."""

import contextlib
import json
import sqlite3

import pytest

from target_moengage_cohort.emulator import Emulator
from tests.support.leaks import ANONYMOUS, KEY, MEMBER, Watched
from tests.support.singer import config, lines, record, schema, state

KEYS = {"segments_api_key": f"{KEY}-segments", "analytics_api_key": f"{KEY}-analytics"}
ROW = {"uid": MEMBER, "anon": ANONYMOUS}
INPUT = lines(schema(columns=("uid", "anon")), record(**ROW), state({"a": 1}))
SETTINGS = {
    "sync_mode": "mirror",
    "anonymous_id_column": "anon",
    "max_retry_seconds": 0,
    "id_attribute": "uid",
    **KEYS,
}
SAID = f"No such users: {MEMBER}, {ANONYMOUS.upper()}, {json.dumps(MEMBER)}, {KEY}"


@pytest.fixture
def emulator():
    with Emulator(data_api_key=KEY, **KEYS) as running:
        yield running


@pytest.mark.parametrize("status", [None, 400, 403, 428, 500])
def test_a_guard_shows_no_member(emulator, tmp_path, status):
    """A run that counts the users of a new cohort, whatever MoEngage says of them, leaves no
    identifier and no key but in the ledger."""
    watched = Watched(tmp_path)
    emulator.apis.know(["another"])
    if status is not None:
        emulator.apis.fail_next(status, 4, message=SAID, error_type=MEMBER)
    settings = config(emulator, min_match_percent=50, **SETTINGS)
    assert 1 == watched.run(settings, INPUT)
    assert (status is None) is ("less than min_match_percent" in watched.seen)
    watched.check()


@pytest.mark.parametrize("status", [None, 400, 403, 500])
def test_unarchiving_shows_no_key(emulator, tmp_path, status):
    """Neither does a run that unarchives cohorts and lists segments."""
    watched = Watched(tmp_path)
    settings = config(emulator, keep_unarchived_days=1, **SETTINGS)
    assert 0 == watched.run(settings, INPUT)
    (path,) = watched.home.rglob("control.sqlite")
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE cohorts SET created_at = 1")
    if status is not None:
        emulator.apis.fail_next(status, 4, message=SAID, error_type=MEMBER)
    assert 0 == watched.run(settings, INPUT)
    assert "unarchive" in [each.endpoint for each in emulator.apis.calls()]
    assert ("not unarchived" in watched.seen) is (status is not None)
    watched.check()


@pytest.mark.parametrize("status", [None, 400, 403, 428, 500])
@pytest.mark.parametrize("options", [(), ("--json",)], ids=["text", "json"])
def test_a_probe_shows_no_key(emulator, tmp_path, options, status):
    """Neither does a check that probes both APIs with members of the ledger; a key without the
    scope fails it."""
    watched = Watched(tmp_path)
    settings = config(emulator, **SETTINGS)
    assert 0 == watched.run(settings, INPUT)
    if status is not None:
        emulator.apis.fail_next(status, 20, message=SAID, error_type=MEMBER)
    assert int(status == 403) == watched.run(settings, b"", "check", "--probe", *options)
    watched.check()
