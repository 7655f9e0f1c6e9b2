"""A real MariaDB with a binary log for tests.

It listens on loopback only, in a temporary folder, and ends with its guard, as PostgreSQL does.
"""

import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Self

from tests.support import servers
from tests.support.processes import guarded

START_SECONDS = 60
START_ATTEMPTS = 3
SQL_SECONDS = 60
# For tests: nothing needs to survive a crash, and the machine may be small.
OPTIONS = {
    "bind-address": "127.0.0.1",
    "server-id": "1",
    "log-bin": "binlog",
    "binlog-format": "ROW",
    "binlog-row-image": "FULL",
    "innodb-buffer-pool-size": "32M",
    "innodb-flush-log-at-trx-commit": "0",
    "character-set-server": "utf8mb4",
    "default-time-zone": "+00:00",
}
FLAGS = ("skip-name-resolve", "gdb")  # gdb: an interrupt ends it at once
ACCESS = """
create user '{user}'@'127.0.0.1' identified by '{password}';
grant select, replication client, replication slave on *.* to '{user}'@'127.0.0.1';
grant binlog monitor on *.* to '{user}'@'127.0.0.1'
"""


class MariaDBError(RuntimeError):
    """An error of MariaDB."""


class MariaDB:
    """A MariaDB server for the duration of a `with` block.

    Args:
        tree: The folder that has `sbin/mariadbd`.
    """

    host = "127.0.0.1"
    user = "tap"
    password = "any"

    def __init__(self, tree: Path) -> None:
        self.port = 0
        self._tree = tree
        self._environment = {**os.environ, **servers.libraries()}
        self._guard: subprocess.Popen | None = None
        self._folder: Path | None = None

    def __enter__(self) -> Self:
        """Start the server, and wait until it answers."""
        try:
            for _ in range(START_ATTEMPTS):  # another process may take the port before us
                if self._start():
                    self.execute(ACCESS.format(user=self.user, password=self.password))
                    return self
                self.close()
        except BaseException:
            self.close()
            raise
        message = f"MariaDB did not start in {START_ATTEMPTS} attempts"
        raise MariaDBError(message)

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

    def execute(self, sql: str, database: str = "") -> list[list[str]]:
        """Run statements, and return the rows that they print, as texts."""
        client = [str(self._tree / "bin" / "mariadb"), "--no-defaults", "--user=root"]
        client += [f"--socket={self._socket}", "--batch", "--skip-column-names"]
        done = subprocess.run(
            [*client, *([database] if database else [])],
            input=sql,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=SQL_SECONDS,
            check=False,
        )
        if done.returncode:
            raise MariaDBError(done.stderr)
        return [line.split("\t") for line in done.stdout.splitlines()]

    @property
    def _socket(self) -> Path:
        return self._folder / "socket"

    def _start(self) -> bool:
        account = servers.account()
        self._folder = servers.private_folder(account, "mariadb-")
        data = self._folder / "data"
        self._initialise(data, account)
        self.port = servers.free_port()
        places = {"basedir": self._tree, "datadir": data, "socket": self._socket, "port": self.port}
        places |= {"pid-file": self._folder / "pid", "plugin-dir": self._plugins}
        places["tmpdir"] = self._folder
        options = [f"--{name}={value}" for name, value in {**OPTIONS, **places}.items()]
        options += [f"--{name}" for name in FLAGS]
        with (self._folder / "log").open("wb") as log:
            self._guard = guarded(
                [str(self._tree / "sbin" / "mariadbd"), "--no-defaults", *options],
                remove=self._folder,
                user=account,
                cwd=self._folder,
                env=self._environment,
                stdout=log,
                stderr=log,
            )
        return self._wait_until_it_answers()

    @property
    def _plugins(self) -> Path:
        return self._tree / "lib" / "mysql" / "plugin"

    def _initialise(self, data: Path, account: str | None) -> None:
        places = {"basedir": self._tree, "datadir": data, "plugin-dir": self._plugins}
        places["tmpdir"] = self._folder  # two that start at once would share files in /tmp
        options = [f"--{name}={value}" for name, value in places.items()]
        options += ["--auth-root-authentication-method=normal", "--skip-test-db"]
        done = subprocess.run(
            [str(self._tree / "bin" / "mariadb-install-db"), "--no-defaults", *options],
            cwd=self._folder,
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
            **servers.identity(account),
        )
        if done.returncode:
            raise MariaDBError(done.stderr + done.stdout)

    def _wait_until_it_answers(self) -> bool:
        deadline = time.monotonic() + START_SECONDS
        while self._guard.poll() is None and time.monotonic() < deadline:
            try:
                self.execute("select 1")
            except MariaDBError:
                time.sleep(0.1)
            else:
                return True
        return False
