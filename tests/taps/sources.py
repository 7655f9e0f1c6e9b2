"""The databases that taps read: an audience as a table `users` and as a view `vip`."""

import itertools
import time
from abc import ABC, abstractmethod

from tests.support.mariadb import MariaDB
from tests.support.postgres import Postgres

PEOPLE = 5_000
ROWS_IN_A_TRANSACTION = 1_000  # a full read of PostgreSQL resumes at a transaction
SLOT_SECONDS = 30
READ_SECONDS = 3  # how long tap-postgres waits for the next change in the log
KEY = "changed"  # the column that rises with each change


class Source(ABC):
    """A database.

    Attributes:
        name: Its tap's name, without `tap-`.
        schema: The part of a stream's name before the table's.
        marks: The keys in a stream's STATE from which a full read is resumed.
    """

    name: str
    schema: str
    marks: frozenset[str]

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self.come(PEOPLE)

    @abstractmethod
    def sql(self, statement: str) -> list[str]:
        """Run a statement; return the first column of its result."""

    @abstractmethod
    def tap_settings(self) -> dict[str, object]:
        """Return the configuration of the tap."""

    @abstractmethod
    def settle(self) -> None:
        """Wait until the database has noticed that a killed tap has gone."""

    def stream(self, table: str) -> str:
        return f"{self.schema}-{table}"

    def audience(self) -> set[str]:
        return set(self.sql("select uid from users"))

    def come(self, count: int) -> None:
        """Let new people join, in several transactions if they are many."""
        numbers = list(itertools.islice(self._numbers, count))
        for start in range(0, count, ROWS_IN_A_TRANSACTION):
            rows = (f"('u{n}', {n})" for n in numbers[start : start + ROWS_IN_A_TRANSACTION])
            self.sql(f"insert into users (uid, {KEY}) values {', '.join(rows)}")

    def leave(self, count: int) -> None:
        """Let some leave from all over the table."""
        everybody = sorted(self.audience())
        gone = everybody[:: len(everybody) // count][:count]
        quoted = ", ".join(f"'{uid}'" for uid in gone)
        self.sql(f"delete from users where uid in ({quoted})")


class MySQL(Source):
    """A database of MariaDB, for pipelinewise-tap-mysql."""

    name = "mysql"
    marks = frozenset({"max_pk_values", "last_pk_fetched"})

    def __init__(self, server: MariaDB, database: str) -> None:
        self._server = server
        self.schema = database
        server.execute(f"create database {database}")
        self.sql(
            "create table users (id int auto_increment primary key, uid varchar(20), changed int)"
        )
        self.sql("create view vip as select uid, changed from users")
        super().__init__()

    def sql(self, statement: str) -> list[str]:
        return [row[0] for row in self._server.execute(statement, self.schema)]

    def tap_settings(self) -> dict[str, object]:
        names = ("host", "port", "user", "password")
        where = {name: getattr(self._server, name) for name in names}
        return where | {"filter_dbs": self.schema, "engine": "mariadb"}

    def settle(self) -> None:
        """Return at once: a new reader of the binary log is not kept out by a former one."""


class PostgreSQL(Source):
    """A database of PostgreSQL with wal2json, for pipelinewise-tap-postgres."""

    name = "postgres"
    schema = "public"
    marks = frozenset({"xmin"})

    def __init__(self, server: Postgres, database: str) -> None:
        self._database = server.new_database(database)
        self._slot = f"pipelinewise_{database}"
        self.sql(
            "create table users "
            "(id int generated always as identity primary key, uid varchar(20), changed int)"
        )
        self.sql("alter table users replica identity full")
        self.sql("create view vip as select uid, changed from users")
        self.sql(f"select pg_create_logical_replication_slot('{self._slot}', 'wal2json')")
        super().__init__()

    def sql(self, statement: str) -> list[str]:
        if statement.startswith("select"):
            return [str(value) for (value,) in self._database.query(statement)]
        self._database.execute(statement)
        return []

    def tap_settings(self) -> dict[str, object]:
        names = ("host", "port", "user", "password")
        where = {name: getattr(self._database, name) for name in names}
        name = self._database.database
        return where | {"dbname": name, "logical_poll_total_seconds": READ_SECONDS}

    def settle(self) -> None:
        deadline = time.monotonic() + SLOT_SECONDS
        active = f"select 1 from pg_replication_slots where slot_name = '{self._slot}' and active"
        while self.sql(active):
            assert time.monotonic() < deadline
            time.sleep(0.05)
