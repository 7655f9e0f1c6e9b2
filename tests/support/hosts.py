"""Hosts that share a ledger on one PostgreSQL: processes with a HOME each."""

import itertools
import json
import os
import subprocess
import sys
import typing as t
from collections.abc import Iterable
from pathlib import Path

from tests.support.emulator import EmulatorProcess
from tests.support.postgres import Postgres
from tests.support.singer import environment, lines, record, schema, state

Wanted = dict[str, list[str]]
"""The members that each stream's cohort is to have."""

_LOG_STARTS = """
CREATE TABLE starts (at DOUBLE PRECISION);
CREATE FUNCTION log_start() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN INSERT INTO {schema}.starts VALUES (NEW.until - NEW.seconds); RETURN NEW; END $$;
CREATE TRIGGER log_start AFTER INSERT ON pace
FOR EACH ROW WHEN (NEW.kind = 'start') EXECUTE FUNCTION log_start();
"""


class Hosts:
    """Starts runs, each in an empty HOME as in a new container.

    Args:
        folder: Where the HOMEs are made.
        postgres: The server; its database is the ledger's.
        emulator: The MoEngage.
        limit: The requests that may start in a minute, for the runs together.
    """

    def __init__(
        self, folder: Path, postgres: Postgres, emulator: EmulatorProcess, limit: int
    ) -> None:
        self._folder = folder
        self._numbers = itertools.count(1)
        self._postgres = postgres
        self.uri = (
            f"postgresql://{postgres.user}@{postgres.host}:{postgres.port}/{postgres.database}"
        )
        self._settings = {
            "workspace_id": emulator.workspace_id,
            "data_api_key": emulator.data_api_key,
            "data_center": "01",
            "partner": "acme",
            "api_url": emulator.url,
            "requests_per_minute": limit,
            "ledger_uri": self.uri,
            "sync_mode": "mirror",
            "max_removal_percent": 100,
            "max_payload_bytes": 4_000,
        }

    def start(self, wanted: Wanted, **variables: str) -> "Running":
        """Start a run that mirrors some streams, with their row counts as proof."""
        home = self._folder / f"host-{next(self._numbers)}"
        home.mkdir()
        cohorts = {stream: {"expected_count_column": "n"} for stream in wanted}
        report = home / "report.json"
        settings = {**self._settings, "cohorts": cohorts, "report_path": str(report)}
        (home / "config.json").write_text(json.dumps(settings))
        messages: list[dict[str, t.Any]] = []
        for stream, uids in wanted.items():
            messages.append(schema(stream, ("uid", "n")))
            messages += [record(stream, uid=uid, n=len(uids)) for uid in uids]
        (home / "input.singer").write_bytes(lines(*messages, state({"host": str(home)})))
        with (home / "input.singer").open("rb") as source, (home / "log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "target_moengage_cohort", "--config", "config.json"],
                cwd=home,
                stdin=source,
                stdout=subprocess.DEVNULL,
                stderr=log,
                env={**environment(home, **variables), "PYTHONPATH": os.pathsep.join(sys.path)},
            )
        return Running(process, home)

    def log_starts(self) -> None:
        """Have the server log each start of a request from now on; the store must exist."""
        self._execute(_LOG_STARTS)

    def starts(self) -> list[float]:
        """Return the starts, in seconds of the server's clock."""
        return [at for (at,) in self._postgres.query(f"SELECT at FROM {self._schema}.starts")]

    def _execute(self, sql: str) -> None:
        schema = self._schema
        self._postgres.execute(f"SET search_path TO {schema}; {sql.format(schema=schema)}")

    @property
    def _schema(self) -> str:
        query = "SELECT nspname FROM pg_namespace WHERE nspname LIKE 'moengage_cohort_%'"
        ((name,),) = self._postgres.query(query)
        return name


class Running:
    """A run on a host."""

    def __init__(self, process: subprocess.Popen, home: Path) -> None:
        self.process = process
        self._home = home

    def end(self, timeout: float = 300) -> dict[str, t.Any]:
        """Wait for its end; return its report."""
        self.process.wait(timeout)
        return json.loads((self._home / "report.json").read_text())

    @property
    def log(self) -> str:
        """What it has logged so far."""
        return (self._home / "log").read_text()


def busiest(times: Iterable[float], seconds: float) -> int:
    """Return the most times that are within so many seconds."""
    ordered = sorted(times)
    most = first = 0
    for last, time in enumerate(ordered):
        while ordered[first] <= time - seconds:
            first += 1
        most = max(most, last - first + 1)
    return most
