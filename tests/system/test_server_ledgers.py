"""Runs on several hosts whose ledger is on a PostgreSQL server."""

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from target_moengage_cohort.core.errors import LedgerError
from target_moengage_cohort.ledger.engines import open_store
from target_moengage_cohort.ledger.postgres import server_uri
from target_moengage_cohort.ledger.postgres.postgres_store import PostgresStore
from target_moengage_cohort.settings import load
from tests.support import pgbouncer
from tests.support.ledger_places import ServerPlace
from tests.support.look import held, members
from tests.support.postgres import Postgres
from tests.support.singer import (
    config,
    environment,
    finish,
    lines,
    record,
    run,
    schema,
    start,
    state,
)
from tests.support.tls import Authority

HURRIED = """
import sys
from target_moengage_cohort.__main__ import main
from target_moengage_cohort.ledger.postgres import lease_rows

lease_rows.MARGIN_SECONDS = 2.0
sys.argv[0] = "target-moengage-cohort"
main()
"""
"""The target, with leases of three seconds if its request_timeout_seconds is 1."""

WAIT_SECONDS = 30.0


@pytest.fixture
def place(server):
    opened = ServerPlace(server)
    yield opened
    opened.close()


def begin(home, settings, script=HURRIED):
    """Start a target on a host of its own."""
    home.mkdir(exist_ok=True)
    path = home / "config.json"
    path.write_text(json.dumps(settings))
    return subprocess.Popen(
        [sys.executable, "-c", script, "--config", str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(home),
    )


def write(process, *messages):
    process.stdin.write(lines(*messages))
    process.stdin.flush()


def wait_until(condition):
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("late", ["late", "a"], ids=["a new member", "an accepted member"])
def test_a_run_that_was_stopped_sends_and_writes_nothing_once_its_lease_is_lost(
    emulator, place, tmp_path, late
):
    """A run that is stopped between two requests loses its lease to another one. When it goes on,
    it sends nothing more and says why. It writes no STATE either, even if it knows the member of
    the last row as accepted."""
    setting = {"request_timeout_seconds": 1, "flush_seconds": 1}
    settings = config(emulator, ledger_uri=place.uri, max_payload_bytes=1_000, **setting)
    first = begin(tmp_path / "one", {**settings, "report_path": str(tmp_path / "report.json")})
    columns = ("uid", "_sdc_deleted_at")
    write(first, schema(columns=columns), record(uid="a"))
    wait_until(lambda: members(emulator, "users") == {"a"})
    first.send_signal(signal.SIGSTOP)
    second = begin(tmp_path / "two", settings)
    gone = record(uid="a", _sdc_deleted_at="2026-11-30")
    data = lines(schema(columns=columns), gone, record(uid="b"), state({"two": 1}))
    done = finish(second, data)
    assert 0 == done.code, done.stderr
    assert members(emulator, "users") == {"b"}
    sent = len(emulator.requests())
    first.send_signal(signal.SIGCONT)
    with contextlib.suppress(BrokenPipeError):
        write(first, record(uid=late), state({"one": 1}))
    ended = finish(first)
    assert (1, []) == (ended.code, ended.states)
    assert sent == len(emulator.requests())
    report = json.loads((tmp_path / "report.json").read_text())
    assert "lease_lost" == report["error"]["code"]
    place.bury()
    assert {"b"} == held(emulator, place.uri)["users"].accepted


KILLS = int(os.environ.get("KILLS", "20")) // 2
SEED = int(os.environ.get("SEED", "20261130"))


def test_runs_and_servers_that_are_killed_at_random_times_wrong_nobody(emulator, tmp_path):
    """Kills of runs, and immediate stops of the server, lose nothing: a complete run makes the
    cohort right, with the ledger that is there, and the next one sends nothing."""
    print(f"SEED={SEED}")  # is shown if the test fails
    chance, people = random.Random(SEED), [f"user-{number}" for number in range(800)]
    with Postgres(fsync="on", synchronous_commit="on", full_page_writes="on") as server:
        place = ServerPlace(server)
        mirror = {"sync_mode": "mirror", "max_removal_percent": 100, "max_payload_bytes": 2_000}
        mirror |= {
            "request_timeout_seconds": 1,
            "cohorts": {"users": {"expected_count_column": "n"}},
        }
        settings = config(emulator, ledger_uri=place.uri, **mirror)
        for number in range(KILLS):
            emulator.latency(chance.choice([0.0, 0.005, 0.02]))
            data = whole(chance.sample(people, chance.randrange(300, 600)))
            run = begin(tmp_path / "home", settings)
            feeder = threading.Thread(target=feed, args=(run, data))
            feeder.start()
            time.sleep(chance.uniform(0.6, 1.6))
            if number % 2:
                server.crash()
            if chance.random() < 0.5:
                run.kill()
            feeder.join()
            run.communicate(timeout=WAIT_SECONDS * 4)
            wait_until(server.answers)
            wanted = chance.sample(people, chance.randrange(300, 600))
            for sends in (None, 0):
                before = len(emulator.requests())
                done = finish(begin(tmp_path / "home", settings), whole(wanted))
                assert 0 == done.code, done.stderr
                assert members(emulator, "users") == {*wanted}
                assert sends in {None, len(emulator.requests()) - before}
            assert {*wanted} == held(emulator, place.uri)["users"].accepted
        place.close()


def whole(uids):
    """Return the input of a whole audience, which says how many rows it has."""
    rows = [record(uid=uid, n=len(uids)) for uid in uids]
    return lines(schema(columns=("uid", "n")), *rows, state({"rows": len(uids)}))


def feed(process, data):
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write(data)
        process.stdin.flush()


@pytest.mark.parametrize("pooled", [False, True], ids=["directly", "through a pooler"])
def test_two_hosts_share_a_ledger(emulator, place, server, tmp_path, pooled):
    """Two runs at the same time, on hosts of different time zones, with separate homes: nobody is
    sent twice, because each stream is one run's at a time, and the cohorts are right at the end."""
    if pooled and pgbouncer.program() is None:
        pytest.skip("PgBouncer is not installed")
    people = {name: {f"{name}-{number}" for number in range(400)} for name in ("a", "b")}
    with contextlib.ExitStack() as stack:
        uri = place.uri
        if pooled:
            pooler = stack.enter_context(pgbouncer.PgBouncer(server))
            uri = f"{pooler.uri}/{uri.rpartition('/')[2]}"
        mirror = {"sync_mode": "mirror", "max_payload_bytes": 2_000, "ledger_uri": uri}
        settings = config(emulator, cohorts={name: {} for name in people}, **mirror)
        emulator.latency(0.01)
        data = lines(
            *(schema(name) for name in people),
            *(record(name, uid=uid) for name, uids in people.items() for uid in sorted(uids)),
            state({"done": 1}),
        )
        zones = {"one": "America/Los_Angeles", "two": "Asia/Kolkata"}
        runs = [
            start(tmp_path / home, settings, TZ=zone, PGTZ=zone) for home, zone in zones.items()
        ]
        with ThreadPoolExecutor(len(runs)) as pool:
            ended = list(pool.map(lambda run: finish(run, data), runs))
    assert [0, 0] == [run.code for run in ended], [run.stderr for run in ended]
    assert sum(map(len, people.values())) == sum(one.members for one in emulator.requests())
    for name, uids in people.items():
        assert uids == members(emulator, name)
        assert uids == held(emulator, place.uri)[name].accepted


@pytest.mark.skipif(pgbouncer.program() is None, reason="PgBouncer is not installed")
def test_a_server_must_prove_its_name(server, emulator, tmp_path, monkeypatch):
    """Over the network the certificate is verified against the system's roots, or those of
    `PGSSLROOTCERT`; a server that cannot prove its name gets no password."""
    authority = Authority(tmp_path)
    authority.context("localhost")
    pem = next(tmp_path.glob("localhost-*.pem"))
    with pgbouncer.PgBouncer(server, pem) as pooler:
        monkeypatch.setattr(server_uri, "is_loopback", lambda _host: False)
        uri = f"postgresql://postgres@localhost:{pooler.port}/postgres"
        other = uri.replace("localhost", "127.0.0.1")
        for roots, address, code in (
            (authority.file, uri, None),
            (authority.file, other, "ledger_unreachable"),
            (pem, uri, "ledger_unreachable"),
        ):
            monkeypatch.setattr(server_uri, "system_roots", lambda roots=roots: str(roots))
            assert code == code_of_check(emulator, address)
        assert code_of_check(emulator, f"{other}?sslmode=require") is None
        monkeypatch.setenv("PGSSLMODE", "require")
        assert "ledger_unreachable" == code_of_check(emulator, uri)
        monkeypatch.setenv("PGSSLROOTCERT", str(authority.file))
        assert [None, "ledger_unreachable"] == [code_of_check(emulator, at) for at in (uri, other)]


def code_of_check(emulator, uri):
    """Return the code with which the check of a ledger fails, if it does."""
    settings = load(config(emulator, ledger_uri=uri)).settings
    with open_store(settings, run_id="check", wait=lambda _seconds: True, read_only=True) as store:
        try:
            store.check()
        except LedgerError as error:
            return error.code
    return None


def test_a_signal_ends_the_wait_for_a_server_that_does_not_answer(emulator, tmp_path):
    """A run that has asked a frozen server for its first connection ends soon after a signal, long
    before the attempt would."""
    with socket.create_server(("127.0.0.1", 0)) as frozen:
        uri = f"postgresql://u@127.0.0.1:{frozen.getsockname()[1]}/x?connect_timeout=60"
        process = start(tmp_path / "home", config(emulator, ledger_uri=uri))
        write(process, schema(), record(uid="a"))
        connection, _ = frozen.accept()
        with connection:
            began = time.monotonic()
            process.send_signal(signal.SIGTERM)
            ended = finish(process)
    assert (143, []) == (ended.code, ended.states)
    assert time.monotonic() - began < 10.0
    assert [] == emulator.requests()


def test_no_attempt_is_repeated_after_the_lease_has_passed(emulator, place, monkeypatch):
    """A retry is an attempt of its own: if the lease has passed to another run meanwhile, it is not
    made, and the member stays in doubt."""
    now = [1_000.0]
    monkeypatch.setattr(PostgresStore, "lease_clock", staticmethod(lambda: now[0]))

    def lose(_seen, _interrupt):
        now[0] += 90.0
        place.bury("somebody else")

    emulator.fail_next(503, 5)
    data = lines(schema(), record(uid="a"), state({"a": 1}))
    seen = run(emulator, data, before=lose, ledger_uri=place.uri)
    assert ("lease_lost", 1, []) == (seen.error.code, len(seen.attempts), seen.states)
    place.bury()
    assert {"a"} == {*held(emulator, place.uri)["users"].doubts}
