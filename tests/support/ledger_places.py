"""Places of ledgers for tests that run with each engine."""

import contextlib
import itertools
import tempfile
import typing as t
from pathlib import Path

import psycopg
import pytest

from tests.support.postgres import Postgres

_numbers = itertools.count(1)

MODES: dict[str, dict[str, t.Any]] = {
    "mirror": {"sync_mode": "mirror"},
    "incremental": {"sync_mode": "incremental"},
    "with members": {"sync_mode": "incremental", "ledger_uri": "files"},
    "mirror on a server": {"sync_mode": "mirror", "ledger_uri": "server"},
    "incremental on a server": {"sync_mode": "incremental", "ledger_uri": "server"},
}
"""Settings of runs; for `placed`."""


class FolderPlace:
    """A folder for a ledger; `folder` is one for other files."""

    def __init__(self) -> None:
        self._temporary = tempfile.TemporaryDirectory()
        self.folder = Path(self._temporary.name)
        self.uri = str(self.folder / "ledger")

    def bury(self, heir: str = "") -> None:
        """Let the leases of dead runs end; here they have ended with them."""

    def close(self) -> None:
        """Remove it."""
        self._temporary.cleanup()


class ServerPlace(FolderPlace):
    """A database of a server for a ledger."""

    def __init__(self, server: Postgres) -> None:
        super().__init__()
        self._server = server
        self._name = f"place_{next(_numbers)}"
        server.new_database(self._name)
        self.uri = f"postgresql://{server.user}@{server.host}:{server.port}/{self._name}"

    def bury(self, heir: str = "") -> None:
        """Let the leases of dead runs end, as if their time had passed; or give them to an heir."""
        bury(self.uri, heir)

    def close(self) -> None:
        """Drop it."""
        super().close()
        with psycopg.connect(self.uri.replace(self._name, "postgres"), autocommit=True) as other:
            other.execute(f"DROP DATABASE {self._name} WITH (FORCE)")


def bury(uri: str, heir: str = "") -> None:
    """Do likewise in a database of any server."""
    query = "SELECT nspname FROM pg_namespace WHERE nspname LIKE 'moengage_cohort_%'"
    with psycopg.connect(uri, autocommit=True) as connection:
        for (schema,) in connection.execute(query).fetchall():
            change = f"UPDATE {schema}.leases SET holder = %s, fence = fence + 1"
            connection.execute(change, [heir])


@contextlib.contextmanager
def opened(request: pytest.FixtureRequest, kind: str) -> t.Iterator[FolderPlace]:
    """Yield a place of a kind: "files" or "server"."""
    server = request.getfixturevalue("server") if kind == "server" else None
    with contextlib.closing(FolderPlace() if server is None else ServerPlace(server)) as place:
        yield place


@contextlib.contextmanager
def placed(request: pytest.FixtureRequest) -> t.Iterator[dict[str, t.Any]]:
    """Yield the settings of the mode that a fixture has as its parameter, with a place if any."""
    options = {"ledger_uri": None} | MODES[request.param]
    if (kind := options["ledger_uri"]) is None:
        yield options
        return
    with opened(request, kind) as place:
        yield options | {"ledger_uri": place.uri}
