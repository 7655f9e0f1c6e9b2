"""The measured part of `docs/performance.md`, between two marks; the rest is written by hand."""

import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from tests.support.project import ROOT
from tools.benchmarks.sections import Section, table

PATH = ROOT / "docs" / "performance.md"
BEGIN = "<!-- measured: everything from here on is written by `make bench-report` -->"
END = "<!-- measured: end -->"
GOALS = ["", "measured", "goal", ""]
PACKAGES = ("target-moengage-cohort", "duckdb", "msgspec", "singer-sdk", "pyarrow")
NOTE = (
    "The project sets these goals for itself. Each ratio compares processes on one machine. To "
    "measure again, run `make bench-report` or `make bench-report LONG=1` on an otherwise idle "
    "machine."
)
NEW = f"""# Performance

{BEGIN}
{END}

## What limits these results
"""


def targets(sections: list[Section]) -> str:
    """Return a table of the figures with a goal."""
    return table(GOALS, [figure.cells() for section in sections for figure in section.figures])


def write(sections: list[Section], path: Path = PATH) -> None:
    """Replace the measured part of the file, and keep the rest.

    Args:
        sections: The results.
        path: The file; it is created if it does not exist.
    """
    text = path.read_text() if path.exists() else NEW
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    parts = [
        BEGIN,
        surroundings(),
        "## Results and goals",
        targets(sections),
        NOTE,
        *(section.text() for section in sections),
        END,
    ]
    path.parent.mkdir(exist_ok=True)
    path.write_text(before + "\n\n".join(parts) + after)


def surroundings() -> str:
    """Return the machine, the versions and the date."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    today = datetime.now(UTC).date()
    packages = ", ".join(f"{package} {version(package)}" for package in PACKAGES)
    cores = f"{os.cpu_count()} cores, {processor()}, {memory / 1e9:.0f} GB of memory"
    lines = [
        f"Machine: {cores}, {platform.system()}",
        f"Versions: Python {platform.python_version()}, {packages}",
        f"Commit {commit()}, {today}",
    ]
    return "\n".join(f"- {line}" for line in lines)


def processor() -> str:
    """Return the processor's model."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # not Linux
        return platform.processor() or platform.machine()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()


def commit() -> str:
    """Return the measured commit, and whether files have changed since."""
    command = ["git", "describe", "--always", "--exclude=*", "--dirty= with changes"]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"  # not a clone, or git is not installed
    return done.stdout.strip()
