"""Servers that are refused, and what is between them and the ledger."""

import contextlib
import os
import re
from concurrent.futures import ThreadPoolExecutor
from time import sleep

import duckdb
import psycopg
import pytest

from target_moengage_cohort.core.commands import suggest
from target_moengage_cohort.core.errors import LedgerError, SettingsError, TargetError
from target_moengage_cohort.core.interrupts import Patience
from target_moengage_cohort.ledger.postgres import (
    connection,
    copying,
    ledger_server,
    loaded_members,
)
from target_moengage_cohort.ledger.postgres.ledger_server import Server
from tests.ledger import databases
from tests.ledger.support import (
    ADD,
    COHORT,
    OTHER_STREAM,
    REMOVE,
    STREAM,
    accept,
    by_cohort,
    cohort,
    desired,
    flat,
    ledgers,
    members,
    send,
    stage,
)
from tests.support import pgbouncer

pytestmark = pytest.mark.server
PASSWORD = "PLANTED9"


@pytest.fixture
def role(tmp_path, server):
    """Return the name of a role that may connect to the test's database, and its URI."""
    uri = databases.uri_of(tmp_path)
    name = f"r_{uri.rpartition('/')[2]}"
    server.execute(f"CREATE ROLE {name} LOGIN PASSWORD '{PASSWORD}'")
    server.execute(f"REVOKE ALL ON DATABASE {uri.rpartition('/')[2]} FROM PUBLIC")
    server.execute(f"GRANT CONNECT ON DATABASE {uri.rpartition('/')[2]} TO {name}")
    return name, uri.replace("postgres@", f"{name}:{PASSWORD}@")


def codes(uri, *, read_only=False, **setting):
    """Return the code and the message with which a check of a ledger fails."""
    with (
        pytest.raises(TargetError) as raised,
        ledgers(None, setting={"ledger_uri": uri, **setting}, read_only=read_only) as store,
    ):
        store.check()
    return raised.value.code, str(raised.value)


def refusal(uri, **options):
    """Return the code and the message with which a ledger is not opened."""
    with (
        pytest.raises(TargetError) as raised,
        ledgers(None, setting={"ledger_uri": uri}, **options) as store,
    ):
        store.open(COHORT, STREAM)
    return raised.value.code, str(raised.value)


def granted(message):
    """Return what the statements in a message grant: the privileges of each kind of object."""
    found = re.findall(r"GRANT ([A-Z, ]+) ON (DATABASE|SCHEMA|ALL TABLES)", message)
    return {kind: privileges.split(", ") for privileges, kind in found}


ROWS = ["DELETE", "INSERT", "SELECT", "UPDATE"]


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        ("CREATE ON DATABASE {database}", {"DATABASE": ["TEMPORARY"]}),
        ("TEMPORARY ON DATABASE {database}", {"DATABASE": ["CREATE"]}),
    ],
)
def test_a_role_is_asked_only_for_what_it_lacks(role, given, missing):
    """Before there is a store, no message asks for a privilege that the role has."""
    name, uri = role
    database = uri.rpartition("/")[2]
    databases.administer(f"GRANT {given.format(database=database)} TO {name}")
    assert missing == granted(codes(uri)[1])
    if "CREATE" in missing["DATABASE"]:
        code, message = refusal(uri)
        assert "ledger_forbidden" == code
        assert missing == granted(message)


def test_a_role_in_a_prepared_schema_needs_no_privilege_on_the_database(tmp_path, role):
    """A schema without tables was prepared for the role, which then creates only the tables."""
    name, uri = role
    databases.administer(f"GRANT TEMPORARY ON DATABASE {uri.rpartition('/')[2]} TO {name}")
    with ledgers(tmp_path) as store:
        schema = store._server.schema  # noqa: SLF001 - which the messages name
    with psycopg.connect(databases.uri_of(tmp_path), autocommit=True) as owner:
        owner.execute(f"CREATE SCHEMA {schema}")
        for code, message in (codes(uri), refusal(uri)):
            assert "ledger_forbidden" == code
            assert {"SCHEMA": ["CREATE", "USAGE"]} == granted(message)
        owner.execute(message.partition("run: ")[2])
    with ledgers(None, setting={"ledger_uri": uri}) as store:
        store.check()
        accept(store.open(COHORT, STREAM), ADD, members(1))


@pytest.mark.parametrize("read_only", [False, True])
def test_a_run_without_rights_on_the_store_names_the_missing_ones(tmp_path, role, read_only):
    """A run or command of a role without `USAGE`, which finds no table, says what to grant; once
    that is granted, it says no more of it."""
    name, uri = role
    databases.administer(f"GRANT TEMPORARY ON DATABASE {uri.rpartition('/')[2]} TO {name}")
    with ledgers(tmp_path) as store:
        store.open(COHORT, STREAM)
        schema = store._server.schema  # noqa: SLF001 - which the message names
    code, message = refusal(uri, read_only=read_only)
    assert "ledger_forbidden" == code
    assert {"SCHEMA": ["USAGE"], "ALL TABLES": ROWS} == granted(message)
    databases.execute(tmp_path, f"GRANT USAGE ON SCHEMA {schema} TO {name}")
    databases.execute(tmp_path, f"GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO {name}")
    assert {"ALL TABLES": ["DELETE", "INSERT", "UPDATE"]} == granted(codes(uri)[1])


def test_a_missing_table_refers_to_the_check(tmp_path):
    """Where a table is missing and no privilege is, the error names the command that looks."""
    with ledgers(tmp_path) as store:
        store.open(COHORT, STREAM)
    databases.execute(tmp_path, "ALTER TABLE cohorts RENAME TO elsewhere")
    code, message = refusal(databases.uri_of(tmp_path))
    assert "ledger_unusable" == code
    assert suggest("check") in message


def test_a_role_without_rights_is_told_which_to_grant(tmp_path, role):
    """A role that may not create a schema, or not use the tables of one, is refused with the
    statements that give it the rights, which suffice; no message has its password."""
    name, uri = role
    code, message = codes(uri)
    assert "ledger_forbidden" == code
    grant = message.partition("run: ")[2]
    assert grant.startswith("GRANT CREATE, TEMPORARY ON DATABASE")
    assert PASSWORD not in message
    with ledgers(tmp_path) as store:
        store.open(COHORT, STREAM)
    for options in ({}, {"read_only": True}):
        code, message = codes(uri, **options)
        assert "ledger_forbidden" == code
        grant = message.partition("run: ")[2]
        assert name in grant
        assert PASSWORD not in message
    databases.execute(tmp_path, grant)
    with ledgers(None, setting={"ledger_uri": uri}) as store:
        store.check()
        ledger = store.open(COHORT, STREAM)
        for action in (ADD, REMOVE):
            accept(ledger, action, members(1))
            ledger.stream.fold()


def test_a_granted_role_creates_the_store(tmp_path, role):
    """The statement that is suggested before there is a store suffices to create one."""
    _, uri = role
    grant = codes(uri)[1].partition("run: ")[2]
    with psycopg.connect(databases.uri_of(tmp_path), autocommit=True) as owner:
        owner.execute(grant)
    with ledgers(None, setting={"ledger_uri": uri}) as store:
        store.check()
        accept(store.open(COHORT, STREAM), ADD, members(1))


def test_a_read_only_server_is_refused(tmp_path):
    """A server that takes no changes, such as a replica, refuses runs but can be looked at."""
    with ledgers(tmp_path) as store:
        accept(store.open(COHORT, STREAM), ADD, members(1))
    name = databases.uri_of(tmp_path).rpartition("/")[2]
    databases.execute(tmp_path, f"ALTER DATABASE {name} SET default_transaction_read_only TO on")
    uri = databases.uri_of(tmp_path)
    for options in ({}, {"read_only": True}):
        assert "ledger_read_only" == codes(uri, **options)[0]
    with ledgers(tmp_path, read_only=True) as store:
        assert members(1) == flat(store.open(COHORT, STREAM).members())


def test_an_old_server_is_refused(tmp_path, monkeypatch):
    """A server older than the oldest version that is supported is refused by name."""
    monkeypatch.setattr(ledger_server, "OLDEST", 99)
    assert "ledger_server_old" == codes(databases.uri_of(tmp_path))[0]


def test_a_server_that_does_not_answer_is_an_error(tmp_path):
    """A server that cannot be reached fails the run with its place, without the password."""
    code, message = codes(f"postgresql://u:{PASSWORD}@127.0.0.1:1/x?sslpassword={PASSWORD}")
    assert "ledger_unreachable" == code
    assert "127.0.0.1:1/x" in message
    assert PASSWORD not in message
    missing = databases.uri_of(tmp_path) + "_missing"
    assert "ledger_unreachable" == codes(missing)[0]


def test_a_database_without_all_characters_is_refused():
    """The check refuses a database whose encoding is not that of all identifiers."""
    name = "latin"
    with psycopg.connect(f"{os.environ[databases.SERVER]}/postgres", autocommit=True) as connection:
        connection.execute(f"DROP DATABASE IF EXISTS {name}")
        connection.execute(f"CREATE DATABASE {name} ENCODING 'LATIN1' TEMPLATE template0")
    code, message = codes(f"{os.environ[databases.SERVER]}/{name}")
    assert "ledger_encoding" == code
    assert "LATIN1" in message


def test_the_log_of_a_server_has_no_identifier(tmp_path, server):
    """A request that cannot be recorded leaves its statement in the server's log, but no member."""
    planted = f"planted-{tmp_path.name}"  # other tests use the server, too
    with contextlib.suppress(LedgerError), ledgers(tmp_path) as store:  # the same at the end
        ledger = store.open(COHORT, STREAM)
        send(ledger, ADD, members("first"))
        databases.execute(
            tmp_path,
            "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN RAISE disk_full; END $$;"
            " CREATE TRIGGER full_disk BEFORE INSERT ON requests EXECUTE FUNCTION full_disk()",
        )
        with pytest.raises(LedgerError):
            send(ledger, ADD, members(planted, f"{planted}-2"))
    log = server.log()
    assert "INSERT INTO requests" in log
    assert "STATEMENT" in log
    assert planted not in log


def test_a_store_that_must_exist_is_not_created(tmp_path):
    """Without ledger_create nothing is created on the server."""
    uri = databases.uri_of(tmp_path)
    assert "ledger_missing" == codes(uri, ledger_create=False)[0]
    with pytest.raises(ValueError, match="unpack"):
        databases.execute(tmp_path, "SELECT 1")


@pytest.mark.parametrize(("change", "code"), [(1, "ledger_newer"), (-1, "ledger_old_format")])
def test_another_format_is_refused(tmp_path, change, code):
    """A store that a newer or an older version has made is refused by name."""
    with ledgers(tmp_path) as store:
        store.open(COHORT, STREAM)
    databases.execute(tmp_path, f"UPDATE store SET format = format + {change}")
    assert code == codes(databases.uri_of(tmp_path))[0]


def test_members_that_are_not_those_recorded_are_refused(tmp_path):
    """Members and control that were restored from two backups do not belong together."""
    with ledgers(tmp_path) as store:
        accept(store.open(COHORT, STREAM), ADD, members(1))
    databases.execute(tmp_path, "UPDATE marks SET accepted = 7")
    with pytest.raises(SettingsError) as raised, ledgers(tmp_path) as store:
        store.open(COHORT, STREAM)
    assert "ledger_mismatch" == raised.value.code


@pytest.mark.parametrize("fewest", [1, 1_000_000])
def test_members_that_are_fewer_than_recorded_are_refused(tmp_path, monkeypatch, fewest):
    """A table that lost rows is refused once it is copied, whether at the start or later."""
    monkeypatch.setattr(loaded_members, "FEWEST", fewest)
    with ledgers(tmp_path) as store:
        accept(store.open(COHORT, STREAM), ADD, members(1, 2, 3))
    databases.execute(tmp_path, "DELETE FROM accepted WHERE uid = '1'")
    with pytest.raises(SettingsError) as raised, ledgers(tmp_path) as store:
        flat(store.open(COHORT, STREAM).members())
    assert "ledger_mismatch" == raised.value.code


def test_a_cohort_that_is_new_stays_when_a_large_one_is_copied(tmp_path, monkeypatch):
    """Members of a cohort that was added in this run are kept when those of another are copied."""
    monkeypatch.setattr(loaded_members, "FEWEST", 1)
    monkeypatch.setattr(loaded_members, "MOST_PERCENT", 1_000_000)
    with ledgers(tmp_path) as store:
        accept(store.open(COHORT, STREAM), ADD, members(1))
    with ledgers(tmp_path) as store:
        ledger, new = store.open(COHORT, STREAM), store.open(cohort("new"), STREAM)
        accept(new, ADD, members(2))
        ledger.stream.fold()
        assert members(1) == flat(ledger.members())
        assert members(2) == flat(new.members())


@pytest.mark.parametrize("error", [LedgerError("planted", "planted"), MemoryError()])
def test_a_copy_that_is_cut_off_is_an_error(tmp_path, error):
    """Rows that end by any error on our side are not taken for all rows there are."""
    uri = databases.uri_of(tmp_path)
    channel = connection.Channel(Server(uri, "s", Patience(sleep, 0.0)), writes=True)
    channel.run("SELECT 1")
    databases.terminate(tmp_path)

    def fail(_channel):
        raise error

    with pytest.raises(psycopg.OperationalError):
        channel.run("SELECT 1")
    channel.reconnected = fail
    with (
        contextlib.closing(channel),
        duckdb.connect() as cursor,
        pytest.raises(type(error)),
        copying.copied_out(channel, "SELECT 1", {"x": "INTEGER"}, tmp_path / "pipe") as source,
    ):
        cursor.execute(f"FROM {source}").fetchall()


def test_a_change_that_waits_for_too_long_is_an_error(tmp_path):
    """A statement that takes too long ends the run, and leaves the ledger as it was."""
    with ledgers(tmp_path) as store:
        ledger = store.open(COHORT, STREAM)
        accept(ledger, ADD, members(1))
        ledger.stream.fold()
        databases.execute(
            tmp_path,
            "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
            " SET LOCAL statement_timeout TO '1s'; RAISE query_canceled; END $$;"
            " CREATE TRIGGER slow BEFORE INSERT ON requests EXECUTE FUNCTION slow()",
        )
        with pytest.raises(TargetError) as raised:
            send(ledger, ADD, members(2))
        assert "ledger_busy" == raised.value.code
    databases.execute(tmp_path, "DROP TRIGGER slow ON requests")
    with ledgers(tmp_path) as store:
        assert members(1) == flat(store.open(COHORT, STREAM).members())


def test_a_full_disk_is_named(tmp_path):
    """A server without space stops the run with an error that names the disk."""
    with contextlib.suppress(LedgerError), ledgers(tmp_path) as store:  # the same at the end
        ledger = store.open(COHORT, STREAM)
        send(ledger, ADD, members(1))
        databases.execute(
            tmp_path,
            "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN RAISE disk_full; END $$;"
            " CREATE TRIGGER full_disk BEFORE INSERT ON requests EXECUTE FUNCTION full_disk()",
        )
        with pytest.raises(LedgerError) as raised:
            send(ledger, ADD, members(2))
        assert "disk" in str(raised.value)
        assert "ledger_unusable" == raised.value.code
        databases.execute(tmp_path, "DROP TRIGGER full_disk ON requests")
        with pytest.raises(LedgerError):
            ledger.stream.fold()


@pytest.mark.skipif(pgbouncer.program() is None, reason="PgBouncer is not installed")
def test_a_ledger_works_behind_a_transaction_pooler(tmp_path, server, monkeypatch):
    """Each transaction may get another session: several runs on few sessions keep what they send,
    and compare, fold, plan and renew as without a pooler."""
    with pgbouncer.PgBouncer(server) as pooler:
        monkeypatch.setenv(databases.SERVER, pooler.uri)
        with ledgers(tmp_path) as one, ledgers(tmp_path, run_id="run-2") as two:
            ledger, other = one.open(COHORT, STREAM), two.open(cohort("other"), OTHER_STREAM)
            for number in range(5):
                accept(ledger, ADD, members(number, "x"))
                accept(other, REMOVE, members(number))
                ledger.check_lease()
            assert 6 == ledger.numbers().accepted.count
            other.stream.fold()
            one.leases.renew()
            staging = stage(one, desired(ledger, ["x", "y"]))
            difference = ledger.stream.difference(staging, [ledger])
            assert members(*range(5)) == by_cohort(difference.changes("removals"))[ledger.number]
            accept(ledger, REMOVE, members(*range(5)))
        with ledgers(tmp_path, read_only=True) as store:
            assert members("x") == flat(store.open(COHORT, STREAM).members())


def test_runs_that_create_a_store_at_the_same_time_share_it(tmp_path):
    """Of several runs that find no store, one creates it, and all use the same one."""
    stores = [ledgers(tmp_path, run_id=f"run-{number}") for number in range(4)]
    assert [False] * 4 == [store.exists for store in stores]

    def use(store):
        with store:
            store.open(cohort(store.run_id), store.run_id)
            return store._control.store_id  # noqa: SLF001 - it is nobody else's business

    with ThreadPoolExecutor(len(stores)) as pool:
        assert 1 == len(set(pool.map(use, stores)))
    with ledgers(tmp_path) as store:
        assert [f"run-{number}" for number in range(4)] == store.streams()
