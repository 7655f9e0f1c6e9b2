"""A real PgBouncer for tests, in transaction mode: each transaction may get another session."""

import contextlib
import shutil
import subprocess
import time
from pathlib import Path
from typing import Self

import psycopg

from tests.support import servers
from tests.support.postgres import Postgres
from tests.support.processes import guarded

SESSIONS = 2
START_SECONDS = 20
CONFIG = """\
[databases]
* = host={host} port={server} user={user}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = {sessions}
server_reset_query =
logfile =
pidfile =
"""
TLS = """\
client_tls_sslmode = require
client_tls_cert_file = {path}
client_tls_key_file = {path}
"""


def program() -> str | None:
    """Return PgBouncer's path, if it is installed."""
    return shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")


class PgBouncer:
    """A pooler of a server's sessions for the duration of a `with` block."""

    def __init__(self, server: Postgres, certificate: Path | None = None) -> None:
        """Describe it: the server, and the file of a certificate and its key to speak TLS with."""
        self._server = server
        self._certificate = certificate
        self.port = servers.free_port()
        self._guard: subprocess.Popen | None = None

    @property
    def uri(self) -> str:
        """The URI without a database."""
        return f"postgresql://{self._server.user}@127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        """Start it, and wait until it answers."""
        account = servers.account()
        folder = servers.private_folder(account, "pgbouncer-")
        path = folder / "pgbouncer.ini"
        of = self._server
        server = {"host": of.host, "server": of.port, "user": of.user}
        path.write_text(CONFIG.format(port=self.port, sessions=SESSIONS, **server))
        if self._certificate is not None:
            copy = folder / "server.pem"
            shutil.copy(self._certificate, copy)
            copy.chmod(0o644)  # in a folder that only its account may enter
            with path.open("a") as file:
                file.write(TLS.format(path=copy))
        path.chmod(0o644)
        self._guard = guarded(
            [program(), str(path)],
            remove=folder,
            user=account,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            with contextlib.suppress(psycopg.OperationalError):
                psycopg.connect(f"{self.uri}/postgres", sslmode="prefer").close()
                return self
            time.sleep(0.05)
        self.__exit__()
        message = "PgBouncer did not start"
        raise RuntimeError(message)

    def __exit__(self, *_: object) -> None:
        """Stop it."""
        self._guard.stdin.close()
        self._guard.wait()
