"""Places of ledgers for tests that run with each engine."""

import itertools
import tempfile
from pathlib import Path

import psycopg

from tests.support.postgres import Postgres

_numbers = itertools.count(1)


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
