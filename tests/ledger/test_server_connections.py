"""Connections to a server that freezes, drops them, or has defaults of its own."""

import contextlib
import os
import signal
import threading
from time import monotonic, sleep

import psycopg
import pytest
from psycopg import errors

from target_moengage_cohort.core.errors import LedgerError, SettingsError
from target_moengage_cohort.core.interrupts import Patience
from target_moengage_cohort.core.rate_limits import COHORT_SYNC, RateLimit, Span
from target_moengage_cohort.ledger.postgres import bounded, bulk, connection, copying
from target_moengage_cohort.ledger.postgres.connection import Channel
from target_moengage_cohort.ledger.postgres.ledger_server import Server
from target_moengage_cohort.ledger.postgres.server_tables import lock_number
from target_moengage_cohort.ledger.postgres.server_window import ServerWindow
from tests.ledger import databases
from tests.ledger.support import ADD, COHORT, REMOVE, STREAM, accept, ledgers, members
from tests.support.forwarder import Forwarder

pytestmark = pytest.mark.server
LIMIT = RateLimit(COHORT_SYNC, (Span(1, 60.0),))
NOWHERE = "postgresql://postgres@127.0.0.1:1/x"
WAITING = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"


def server_of(uri, wait=lambda _seconds: False, patience=30.0):
    """Return a server for a run that waits by a function, and whether it is patient."""
    return Server(uri, "s", Patience(wait, patience))


@pytest.fixture
def channel(tmp_path):
    """Return a channel to the test's database, for a run that goes on."""
    server = Server(databases.uri_of(tmp_path), "s", Patience(lambda _seconds: False, 0.0))
    with contextlib.closing(Channel(server, writes=True, seconds=0.2)) as channel:
        yield channel


@contextlib.contextmanager
def frozen(channel):
    """Stop the server's process of a connection meanwhile."""
    ((pid,),) = channel.run("SELECT pg_backend_pid()")
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def test_the_window_of_starts_does_not_depend_on_the_servers_isolation(tmp_path):
    """A start of another host counts, also where a transaction by default sees only what was
    committed before it began to wait."""
    with ledgers(tmp_path) as store:
        store.open(COHORT, STREAM)
        schema = store._server.schema  # noqa: SLF001 - the window of its schema
    uri = databases.uri_of(tmp_path)
    name = uri.rpartition("/")[2]
    databases.execute(
        tmp_path, f"ALTER DATABASE {name} SET default_transaction_isolation TO serializable"
    )
    window = ServerWindow(Server(uri, schema, Patience(lambda _seconds: True, 0.0)), LIMIT)
    waits = []
    with contextlib.closing(window), psycopg.connect(uri) as other:
        other.execute("SET TRANSACTION ISOLATION LEVEL READ COMMITTED")
        other.execute("SELECT pg_advisory_xact_lock(%s)", [lock_number(f"{schema} pace")])
        thread = threading.Thread(target=lambda: waits.append(window.acquire()))
        thread.start()
        deadline = monotonic() + 20
        while other.execute(WAITING).fetchone() == (0,) and monotonic() < deadline:
            sleep(0.01)
        other.execute(
            f'INSERT INTO "{schema}".pace VALUES'
            " ('start', 60, extract(epoch FROM clock_timestamp()) + 60)"
        )
        other.commit()
        thread.join()
    assert 1 == len(waits)
    assert waits[0] > 0.0


@pytest.mark.parametrize("patience", [30.0, 0.0])
def test_the_first_connection_is_tried_again(tmp_path, server, patience):
    """A run that finds no server tries again, within a bound and with a warning; one that is not
    patient fails immediately."""
    uri = databases.uri_of(tmp_path)
    with Forwarder() as forwarder:
        pauses = []

        def wait(seconds):
            pauses.extend([seconds] if seconds else [])
            if len(pauses) == 3:
                forwarder.lead_to(server.port)
            return False

        uri = uri.replace(str(server.port), str(forwarder.port))
        with contextlib.closing(Channel(server_of(uri, wait, patience), writes=True)) as channel:
            if not patience:
                with pytest.raises(LedgerError) as raised:
                    channel.run("SELECT 1")
                assert ("ledger_unreachable", []) == (raised.value.code, pauses)
                return
            assert [(1,)] == channel.run("SELECT 1")
        assert [1.0] * 3 == pauses


def test_a_server_that_stays_away_ends_the_run(caplog):
    """The attempts at a first connection end after a minute; the reason is logged before."""
    pauses = []
    server = server_of(NOWHERE, pauses.append)
    with pytest.raises(LedgerError) as raised:
        Channel(server, writes=True).run("SELECT 1")
    assert "ledger_unreachable" == raised.value.code
    assert 55.0 <= sum(pauses) <= 60.0
    assert ["waiting_for_server"] == [record.code for record in caplog.records]


@pytest.mark.parametrize("pause", [0.0, 1.0])
def test_a_run_that_was_stopped_tries_no_more(caplog, pause):
    """A run that is stopped at its first attempt, or after it, makes no other one, and blames no
    setting; it does not say that it tries again if it does not."""
    server = server_of(NOWHERE, lambda seconds: seconds == pause)
    with pytest.raises(LedgerError) as raised:
        Channel(server, writes=True).run("SELECT 1")
    assert "ledger_unreachable" == raised.value.code
    assert "password" not in str(raised.value)
    assert ["waiting_for_server"] * (pause > 0) == [record.code for record in caplog.records]


def test_a_server_that_has_no_connection_left_is_tried_again(tmp_path, server):
    """That a role has too many connections passes, although the server has asked for a password."""
    uri = databases.uri_of(tmp_path)
    role = f"p_{uri.rpartition('/')[2]}"
    server.require_password(role, "right")
    server.execute(f"ALTER ROLE {role} CONNECTION LIMIT 0")

    def wait(seconds):
        if seconds:
            server.execute(f"ALTER ROLE {role} CONNECTION LIMIT 1")
        return False

    uri = uri.replace("postgres@", f"{role}:right@")
    with contextlib.closing(Channel(server_of(uri, wait), writes=True)) as channel:
        assert [(1,)] == channel.run("SELECT 1")


@pytest.mark.parametrize("secret", ["", ":PLANTED9"], ids=["no password", "a wrong password"])
def test_a_wrong_password_is_not_tried_again(tmp_path, server, secret):
    """A server that refuses a password is not asked twice."""
    uri, pauses = databases.uri_of(tmp_path), []
    role = f"p_{uri.rpartition('/')[2]}"
    server.require_password(role, "right")
    uri = uri.replace("postgres@", f"{role}{secret}@")
    with pytest.raises(LedgerError) as raised:
        Channel(server_of(uri, pauses.append), writes=True).run("SELECT 1")
    assert ("ledger_unreachable", 0) == (raised.value.code, sum(pauses))
    assert "PLANTED9" not in str(raised.value)


@pytest.mark.parametrize("is_ending", [False, True])
def test_a_frozen_server_is_not_waited_for(tmp_path, server, is_ending):
    """An attempt at a connection to a server that does not answer ends after its time-out, and
    earlier in a run that is to end."""
    uri = f"{databases.uri_of(tmp_path)}?connect_timeout={20 if is_ending else 3}"
    began = monotonic()
    with server.frozen(), pytest.raises(LedgerError) as raised:
        Channel(server_of(uri, lambda _seconds: is_ending, 0.0), writes=True).run("SELECT 1")
    assert "ledger_unreachable" == raised.value.code
    assert (1.0 if is_ending else 3.0) <= monotonic() - began < 10.0


def test_a_frozen_server_ends_the_run(channel, monkeypatch):
    """A server that does not answer ends statements after some time."""
    monkeypatch.setattr(bounded, "_MARGIN_SECONDS", 0.2)
    with frozen(channel), pytest.raises(psycopg.OperationalError):
        channel.run("SELECT 1")
    assert channel.is_lost


def test_a_frozen_server_ends_a_copy(tmp_path, monkeypatch):
    """A server that sends nothing more ends the reading of members, however long that may take."""
    monkeypatch.setattr(bounded, "_MARGIN_SECONDS", 0.2)
    monkeypatch.setattr(copying, "SILENT_SECONDS", 0.2)
    server = server_of(databases.uri_of(tmp_path))
    with (
        contextlib.closing(Channel(server, writes=True, seconds=3600)) as channel,
        frozen(channel),
        pytest.raises(psycopg.OperationalError),
        copying.copied_out(channel, "SELECT 1", {"x": "INTEGER"}, tmp_path / "pipe") as _,
        (tmp_path / "pipe").open("rb") as pipe,
    ):
        assert b"" == pipe.read()


def test_a_run_that_is_to_end_does_not_wait_for_a_frozen_server(channel, monkeypatch):
    """A signal ends the wait for a server that would have had more time."""
    monkeypatch.setattr(bounded, "_LAST_SECONDS", 0.2)
    channel.wait = lambda _seconds: True
    began = monotonic()
    with frozen(channel), pytest.raises(psycopg.OperationalError):
        channel.run("SELECT 1", 60.0)
    assert monotonic() - began < 10.0


def test_the_rest_of_a_transaction_is_not_executed_without_its_begin(channel, tmp_path):
    """After a connection was lost within a transaction, all of it fails, and the next one works."""
    channel.run("CREATE TABLE public.kept (x INTEGER)")
    channel.begin("BEGIN; INSERT INTO public.kept VALUES (1)")
    databases.terminate(tmp_path)
    for _ in range(2):
        with pytest.raises(psycopg.OperationalError):
            channel.run("INSERT INTO public.kept VALUES (2)")
    with pytest.raises(psycopg.OperationalError):
        channel.begin("INSERT INTO public.kept VALUES (3)")
    channel.roll_back()
    channel.begin("BEGIN; INSERT INTO public.kept VALUES (4)")
    channel.commit()
    assert [(4,)] == channel.run("SELECT x FROM public.kept")


CANCEL = (
    "BEGIN; DO $$ BEGIN IF nextval('public.attempts') < {} THEN RAISE query_canceled; END IF;"
    " END $$;"
    " SELECT last_value FROM public.attempts"
)


def test_the_begin_of_a_transaction_outlasts_timeouts_of_the_role(channel, monkeypatch):
    """A begin that is canceled before its own timeouts apply is repeated some times; one that
    takes long is not, nor is what follows within a transaction."""
    channel.run("CREATE SEQUENCE public.attempts")
    assert [(9,)] == channel.begin(CANCEL.format(9))
    with pytest.raises(errors.QueryCanceled):
        channel.begin(CANCEL.format(1_000).replace("BEGIN; ", "", 1))
    channel.roll_back()
    assert [(10,)] == channel.run("SELECT last_value FROM public.attempts")
    with pytest.raises(errors.QueryCanceled):
        channel.begin(CANCEL.format(1_000))
    channel.roll_back()
    assert [(31,)] == channel.run("SELECT last_value FROM public.attempts")
    monkeypatch.setattr(connection, "_AT_ONCE", 0.0)
    with pytest.raises(errors.QueryCanceled):
        channel.begin(CANCEL.format(1_000))
    channel.roll_back()
    assert [(32,)] == channel.run("SELECT last_value FROM public.attempts")


@pytest.mark.parametrize("compares", [False, True])
def test_connections_that_drop_are_made_again_with_pauses(channel, tmp_path, compares):
    """A server that takes connections and drops them is asked again after a pause, and not at all
    by a run that is to end; so it is if it drops them while leases are compared."""
    connections, pauses = [], []

    def drop(channel):
        connections.append(1)
        databases.terminate(tmp_path)
        if compares:
            channel.run("SELECT 1")

    def wait(seconds):
        pauses.extend([seconds] if seconds else [])
        return len(pauses) == 3

    channel.run("SELECT 1")
    databases.terminate(tmp_path)
    channel.reconnected, channel.wait = drop, wait
    with pytest.raises(psycopg.OperationalError):
        channel.begin("SELECT 1")
    assert channel.is_lost
    assert [1.0] * 3 == pauses
    assert 3 == len(connections)


def test_a_copy_to_the_server_is_in_pieces(channel, monkeypatch):
    """No statement waits for all chunks of a copy: each ends on its own, within its own time."""
    monkeypatch.setattr(copying, "_PIECE", 1)
    channel.run("CREATE TABLE public.copied (x INTEGER)")

    def chunks():
        for number in range(4):
            channel.run("SET LOCAL statement_timeout TO '1s'")  # not within another statement
            yield f"{number}\n"

    channel.begin("BEGIN")
    assert 4 == copying.copy_in(channel, "public.copied", ["x"], chunks())
    channel.commit()
    assert [(4,)] == channel.run("SELECT count(*) FROM public.copied")


def test_a_change_of_members_waits_for_a_stopped_process_no_longer_than_a_lease(tmp_path):
    """Within a change each statement may take as long as a lease; deletions leave that so."""
    with ledgers(tmp_path) as store:
        ledger = store.open(COHORT, STREAM)
        accept(ledger, ADD, members(1))
        ledger.stream.fold()
        table = ledger.stream.table
        with table.change("test"):
            channel = table._bulk.channel  # noqa: SLF001 - the settings of its session
            run = channel.run
            before = run("SHOW statement_timeout")
            assert 90.0 == channel.connection.seconds
            table.run("DELETE FROM {s}.marks")
            after = run("SHOW statement_timeout")
            table.write_marks({ledger.number: ledger.entry.mark})
    assert [("90s",)] == before == after


def test_a_long_computation_within_a_change_is_no_idle_time(tmp_path, monkeypatch):
    """The server does not end the transaction of a process that computes between statements."""
    monkeypatch.setattr(bulk, "_IDLE_SECONDS", 1)
    monkeypatch.setattr(bulk, "_BEAT_SECONDS", 0.1)
    with ledgers(tmp_path) as store:
        ledger = store.open(COHORT, STREAM)
        accept(ledger, ADD, members(1))
        ledger.stream.fold()
        with ledger.stream.table.change("test"):
            sleep(1.5)  # by the server's clock


@pytest.mark.parametrize(
    "limit",
    [
        "statement_timeout TO '1ms'",
        "lock_timeout TO '1ms'",
        "idle_in_transaction_session_timeout TO '1ms'",
        "idle_session_timeout TO '50ms'",
        "transaction_timeout TO '20ms'",
        "default_transaction_deferrable TO on",
    ],
)
def test_limits_of_the_role_or_database_do_not_disturb(tmp_path, server, limit):
    """Time-outs that an administrator has set for all sessions end no run: each transaction has its
    own, and a session that was idle for too long is replaced."""
    uri, name = databases.uri_of(tmp_path), limit.partition(" ")[0]
    if not server.query("SELECT 1 FROM pg_settings WHERE name = %s", [name]):
        pytest.skip(f"this version of PostgreSQL has no {name}")
    databases.administer(f"ALTER DATABASE {uri.rpartition('/')[2]} SET {limit}")
    with ledgers(tmp_path) as store:
        store.check()
        ledger = store.open(COHORT, STREAM)
        with ledger.stream.table.change("test"):
            ledger.stream.table._bulk.channel.run("SELECT pg_sleep(0.1)")  # noqa: SLF001 - it is slow
        for action in (ADD, REMOVE):
            accept(ledger, action, members(*range(5_000)))
            sleep(0.1)  # by the server's clock
            ledger.stream.fold()
        ledger.stream.forget(members(1))
        store.shared_window(LIMIT).hold(0.0)
        store.leases.renew()
    with ledgers(tmp_path, read_only=True) as store:
        store.check()
        assert 0 == store.open(COHORT, STREAM).numbers().base


@pytest.mark.parametrize("name", ["statement_timeout", "transaction_timeout"])
def test_a_limit_that_ends_a_vacuum_fails_nothing(tmp_path, server, name):
    """What was erased is committed before its space is given back, however that ends."""
    if not server.query("SELECT 1 FROM pg_settings WHERE name = %s", [name]):
        pytest.skip(f"this version of PostgreSQL has no {name}")
    uri = databases.uri_of(tmp_path)
    databases.administer(f"ALTER DATABASE {uri.rpartition('/')[2]} SET {name} TO '100ms'")
    with ledgers(tmp_path) as store:
        ledger = store.open(COHORT, STREAM)
        accept(ledger, ADD, members(1, 2))
        ledger.stream.fold()
        schema = store._server.quoted_schema  # noqa: SLF001 - the schema of its tables
        with psycopg.connect(uri, options=f"-c {name}=0") as other:
            other.execute(f"LOCK TABLE {schema}.aliases IN SHARE MODE")  # so VACUUM has to wait
            ledger.stream.table.rewrite()
        ledger.stream.forget(members(1))
        assert 1 == ledger.numbers().base


@pytest.mark.parametrize(
    "loss", ["DELETE FROM accepted", "UPDATE accepted SET h = gen_random_uuid()"]
)
def test_a_deletion_that_the_server_does_not_make_is_an_error(tmp_path, loss):
    """Rows that are deleted here and are not there on the server stop the run."""
    with contextlib.suppress(LedgerError), ledgers(tmp_path) as store:  # the same at the end
        ledger = store.open(COHORT, STREAM)
        accept(ledger, ADD, members(1, 2))
        ledger.stream.fold()
        databases.execute(tmp_path, loss)
        accept(ledger, REMOVE, members(1))
        with pytest.raises(SettingsError) as raised:
            ledger.stream.fold()
        assert "ledger_mismatch" == raised.value.code
