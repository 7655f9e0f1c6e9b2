"""Runs of the target and of its baselines on a cohort of an emulated MoEngage."""

import contextlib
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.support.emulator import EmulatorProcess
from tests.support.project import program
from tests.support.singer import UNLIMITED, environment
from tools.benchmarks.data import STREAM, changed, write_members
from tools.benchmarks.processes import Ran, RunFailedError, run

HERE = Path(__file__).parent


class Bench:
    """A folder for files, with its own emulator.

    Attributes:
        folder: The folder.
        state: The folder of the ledger on files, within it.
        scratch: The folder of temporary files, within it.
        empty: A file without content.
    """

    def __init__(self, folder: Path, emulator: EmulatorProcess, settings: dict) -> None:
        self.folder = folder
        self.empty = folder / "empty"
        self.empty.touch()
        self.state = folder / "state"
        self.scratch = folder / "scratch"
        self.scratch.mkdir()
        self._env = environment(folder, TMPDIR=str(self.scratch))
        self._env.pop(
            "PYTHONDONTWRITEBYTECODE", None
        )  # otherwise each start would compile the modules
        self._errors = folder / "errors"
        self._config = folder / "config.json"
        self._report = folder / "report.json"
        self._settings = {
            "workspace_id": emulator.workspace_id,
            "data_api_key": emulator.data_api_key,
            "data_center": "01",
            "partner": "acme",
            "api_url": emulator.url,
            "report_path": str(self._report),
            **settings,
        }
        self._config.write_text(json.dumps(self._settings))
        self.target(self.empty)  # compiles the modules

    def target(self, source: Path) -> Ran:
        """Run the target on messages."""
        return self._run([program("target-moengage-cohort"), "--config", str(self._config)], source)

    def report(self) -> dict:
        """Return the latest report of the target."""
        return json.loads(self._report.read_text())

    def totals(self) -> list[int]:
        """Return the records, additions and removals of all cohorts in the latest report."""
        cohorts = self.report()["cohorts"]
        names = ("records", "added", "removed")
        return [sum(cohort[name] for cohort in cohorts) for name in names]

    def sdk(self, source: Path) -> Ran:
        """Run the SDK's no-op sink on messages."""
        return self._run([sys.executable, str(HERE / "sdk_target.py")], source)

    def floor(self, source: Path, *options: str) -> Ran:
        """Run the floor on messages."""
        return self._run([sys.executable, str(HERE / "floor.py"), *options], source)

    def bare(self, form: str, source: str, database: Path, *, changes: int) -> Ran:
        """Run bare DuckDB on files that it reads itself; see `bare.py`."""
        command = [sys.executable, str(HERE / "bare.py"), form, source, str(database), str(changes)]
        return self._run(command, self.empty)

    def adopt(self, size: int) -> None:
        """Import version 0 of a cohort into the ledger, without sending it."""
        members = self.folder / "members.csv"
        write_members(size, members)
        command = [program("moengage-cohort"), "adopt", "--config", str(self._config), STREAM]
        options = ["--csv", str(members), "--stream", STREAM, "--name", STREAM]
        self._run([*command, *options], self.empty)
        members.unlink()

    def _run(self, command: list[str], source: Path) -> Ran:
        return run(command, source, self._env, self._errors)


@contextlib.contextmanager
def bench(**settings: object) -> Iterator[Bench]:
    """Yield a bench for the duration of a `with` block.

    Args:
        **settings: Settings of the target, in addition to those of the emulator, which has the
            same limit of requests.
    """
    limit = f"--requests-per-minute={settings['requests_per_minute']}"
    with tempfile.TemporaryDirectory(prefix="bench-") as name, EmulatorProcess(limit) as emulator:
        yield Bench(Path(name), emulator, settings)


class Mirror:
    """A mirror of members that have two versions.

    Args:
        place: The bench.
        size: The number of members, in all cohorts together.
        changes: How many of them are gone in the other version, where as many are new.
    """

    def __init__(self, place: Bench, size: int, changes: int) -> None:
        self._place = place
        self._size = size
        self._changes = changes
        self._version = 0  # that MoEngage has

    def first(self, sources: list[Path]) -> Ran:
        """Run the target for the first time, on version 0."""
        return self._target(sources, 0, [self._size, self._size, 0])

    def repeat(self, sources: list[Path]) -> Ran:
        """Run the target on the version that MoEngage has."""
        return self._target(sources, self._version, [self._size, 0, 0])

    def run(self, sources: list[Path]) -> Ran:
        """Run the target on the version that MoEngage does not have.

        All such runs have the same work.

        Args:
            sources: The messages of version 0 and of version 1.

        Raises:
            RunFailedError: If the run did not make the expected changes.
        """
        expected = [self._size, self._changes, self._changes]
        return self._target(sources, 1 - self._version, expected)

    def _target(self, sources: list[Path], version: int, expected: list[int]) -> Ran:
        ran = self._place.target(sources[version])
        self._version = version
        counts = self._place.totals()
        if counts != expected:
            message = f"a run read, added and removed {counts}, not {expected}"
            raise RunFailedError(message)
        return ran


def adopted(place: Bench, size: int) -> Mirror:
    """Return a mirror of one cohort that MoEngage has in version 0."""
    place.adopt(size)
    return Mirror(place, size, changed(size))


class Bare:
    """The work of such a mirror by bare DuckDB, with a file of its own.

    Args:
        place: The bench.
        form: The form of the sources: `parquet` or `records`.
        sources: What DuckDB is to read, of version 0 and of version 1: a path or a pattern.
        size: The number of members.

    Attributes:
        database: The file.
    """

    def __init__(self, place: Bench, form: str, sources: list[str], size: int) -> None:
        self.database = place.folder / f"bare-{form}-{size}.duckdb"
        self._place = place
        self._form = form
        self._sources = sources
        self._changes = changed(size)
        self._version = 0  # that the file has
        place.bare(form, sources[0], self.database, changes=size)

    def run(self) -> Ran:
        """Run it on the version that its file does not have."""
        self._version = 1 - self._version
        source = self._sources[self._version]
        return self._place.bare(self._form, source, self.database, changes=2 * self._changes)


def mirror_settings() -> dict[str, object]:
    """Return the settings of a mirror without a rate limit."""
    return {"sync_mode": "mirror", "requests_per_minute": UNLIMITED}
