"""Runs of the target, and what they are measured beside, on a cohort at an emulated MoEngage."""

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
    """A folder for files, and an emulator of its own.

    Attributes:
        folder: Where files may be written.
        empty: A file without content.
    """

    def __init__(self, folder: Path, emulator: EmulatorProcess, settings: dict) -> None:
        self.folder = folder
        self.empty = folder / "empty"
        self.empty.touch()
        self._env = environment(folder)
        self._env.pop("PYTHONDONTWRITEBYTECODE", None)  # else we would be compiled at each start
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
        self.target(self.empty)  # so that all is compiled

    def target(self, source: Path) -> Ran:
        """Run the target on messages."""
        return self._run([program("target-moengage-cohort"), "--config", str(self._config)], source)

    def report(self) -> tuple[dict, dict]:
        """The report of the latest run of the target, and of its one cohort."""
        report = json.loads(self._report.read_text())
        (cohort,) = report["cohorts"]
        return report, cohort

    def sdk(self, source: Path) -> Ran:
        """Run the SDK's sink that does nothing on messages."""
        return self._run([sys.executable, str(HERE / "sdk_target.py")], source)

    def floor(self, source: Path, *options: str) -> Ran:
        """Run the floor on messages."""
        return self._run([sys.executable, str(HERE / "floor.py"), *options], source)

    def adopt(self, size: int) -> None:
        """Take version 0 of a cohort as accepted, without sending it."""
        members = self.folder / "members.csv"
        write_members(size, members)
        command = [program("moengage-cohort"), "adopt", "--config", str(self._config), STREAM]
        named = ["--csv", str(members), "--stream", STREAM, "--name", STREAM]
        self._run([*command, *named], self.empty)
        members.unlink()

    def _run(self, command: list[str], source: Path) -> Ran:
        return run(command, source, self._env, self._errors)


@contextlib.contextmanager
def bench(**settings: object) -> Iterator[Bench]:
    """Make a place to measure in, for the time of a `with` block.

    Args:
        **settings: Of the target, beside those that name the emulator.
    """
    with tempfile.TemporaryDirectory(prefix="bench-") as name, EmulatorProcess() as emulator:
        yield Bench(Path(name), emulator, settings)


class Mirror:
    """A mirror of a cohort that MoEngage has in version 0.

    Each run brings the other version, so that all runs have the same to do.

    Args:
        place: Where it runs; the cohort is adopted there.
        size: How many members the cohort has.
    """

    def __init__(self, place: Bench, size: int) -> None:
        self._place = place
        self._size = size
        self._next_version = 1
        place.adopt(size)

    def run(self, sources: list[Path]) -> Ran:
        """Run the target on the version that the cohort is not in.

        Args:
            sources: The messages of version 0 and of version 1.

        Raises:
            RunFailedError: The run did not bring the changes that it should have.
        """
        ran = self._place.target(sources[self._next_version])
        self._next_version = 1 - self._next_version
        _, cohort = self._place.report()
        found = [cohort[name] for name in ("records", "added", "removed")]
        wanted = [self._size, changed(self._size), changed(self._size)]
        if found != wanted:
            message = f"a run read, added and removed {found}, not {wanted}"
            raise RunFailedError(message)
        return ran


def mirror_settings() -> dict[str, object]:
    """The settings of a mirror whose pace does not count."""
    return {"sync_mode": "mirror", "requests_per_minute": UNLIMITED}
