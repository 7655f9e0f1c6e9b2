"""The start-up time of the command, compared with a target from the SDK's template."""

import json
import statistics
import subprocess
import sys
import tempfile
import time
import typing as t
from pathlib import Path

from tests.support.singer import environment
from tools.benchmarks.sections import Figure, Section
from tools.benchmarks.sizes import Sizes

TIMES = 5  # per round
COLUMNS = ["", "the target, ms", "the SDK's template, ms", "relative speed of the target"]
NOTE = (
    "Medians of whole processes, run in turn: `--version`, `--about`, and a run on empty input. "
    "The other target is made from the SDK's template, with a no-op sink."
)
OURS, SDKS = "target_moengage_cohort", "tools.benchmarks.sdk_target"
ROOT = Path(__file__).resolve().parents[2]


class Startup(t.NamedTuple):
    """Median wall times of one way to start, in seconds."""

    name: str
    ours: float
    sdk: float

    @property
    def ratio(self) -> float:
        """The time of the SDK's template over that of the target."""
        return self.sdk / self.ours


def seconds(module: str, arguments: t.Sequence[str], home: Path) -> float:
    """Return the seconds that a module takes as a program, with empty standard input."""
    variables = environment(home) | {"PYTHONPATH": str(ROOT)}
    variables.pop("PYTHONDONTWRITEBYTECODE", None)  # otherwise each start would compile the modules
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", module, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=variables | {"PYTHONPYCACHEPREFIX": str(home / "bytecode")},
        check=True,
    )
    return time.perf_counter() - began


def measure(sizes: Sizes) -> Section:
    """Measure the start-up time."""
    measured = starts(TIMES * sizes.rounds)
    rows = [
        [each.name, f"{each.ours * 1000:.0f}", f"{each.sdk * 1000:.0f}", f"{each.ratio:.1f} times"]
        for each in measured
    ]
    figures = [
        Figure(f"{each.name}: speed relative to the SDK's template", each.ratio, 1, " times")
        for each in measured
        if each.name != "--about"  # which the SDK formats
    ]
    return Section("Start-up time", COLUMNS, rows, NOTE, "startup", figures)


def starts(times: int) -> list[Startup]:
    """Start both targets in turn, several times each way, after one start to fill the caches."""
    settings = {"workspace_id": "w", "data_api_key": "k", "data_center": "01", "partner": "p"}
    measured = []
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        path = home / "config.json"
        path.write_text(json.dumps(settings))
        for arguments in (["--version"], ["--about"], ["--config", str(path)]):
            taken = [
                (seconds(OURS, arguments, home), seconds(SDKS, arguments, home))
                for _ in range(times + 1)
            ][1:]
            ours, sdk = (statistics.median(column) for column in zip(*taken, strict=True))
            name = arguments[0] if len(arguments) == 1 else "empty run"
            measured.append(Startup(name, ours, sdk))
    return measured
