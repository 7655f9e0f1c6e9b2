"""The benchmarks at a small size, so that they keep working."""

import os
import sys
from pathlib import Path

import pytest

from tools.benchmarks import batch, processes, report
from tools.benchmarks.__main__ import BENCHMARKS
from tools.benchmarks.cold import least_requests, least_seconds
from tools.benchmarks.sections import Figure, Section
from tools.benchmarks.sizes import Sizes

TINY = Sizes(members=2_000, rounds=1)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_each_benchmark_measures_everything(name):
    """Each benchmark fills its table, and no command fails."""
    section = BENCHMARKS[name](TINY)
    assert [] == section.failures
    assert name == section.name
    assert {len(section.columns)} == {len(row) for row in section.rows}
    assert section.figures


def test_the_long_form_has_a_larger_fan_out():
    """In the long form ten times as many members have rows, and figures for peak memory."""
    section = BENCHMARKS["fan-out"](Sizes(members=2_000, long=True, rounds=1))
    assert any("20,000" in cell for row in section.rows for cell in row)
    peaks = [figure for figure in section.figures if figure.name.endswith("peak memory")]
    assert ["2 cohorts of 10,000", "one cohort of 20,000"] == [
        figure.name.partition(":")[0] for figure in peaks
    ]
    assert all(figure.value for figure in peaks)


def test_the_long_form_has_larger_batches():
    """In the long form the target and bare DuckDB read ten times as many rows by Parquet."""
    results = batch.large(Sizes(members=2_000, long=True, rounds=1))
    assert [("Parquet", 20_000), ("bare DuckDB, Parquet", 20_000)] == [
        (case.title, case.records) for case in results
    ]
    assert all(ran.seconds for ran in results.values())


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
def test_the_open_files_of_a_process_are_counted(tmp_path):
    """A process is known to have had its standard streams open."""
    command = [sys.executable, "-c", "import os; os.listdir('/')"]
    ran = processes.run(command, Path(os.devnull), dict(os.environ), tmp_path / "errors")
    assert 0 == ran.code
    assert ran.open_files >= 3


def test_the_report_keeps_handwritten_text(tmp_path):
    """Writing the report again replaces the measured part, and nothing before or after it."""
    path = tmp_path / "docs" / "performance.md"
    slow, fast = (Figure("speed", value, 25, " times") for value in (24.0, 26.0))
    report.write([Section("First", ["", "s"], [["a", "1"]], "Of a.", "one", [slow])], path)
    assert "| speed | 24.0 times | at least 25 times | **not met** |" in path.read_text()
    by_hand = path.read_text().replace("# Performance", "# Speed") + "\nThe disk bounds it.\n"
    path.write_text(by_hand)
    report.write([Section("Second", ["", "s"], [["b", "2"]], "Of b.", "two", [fast])], path)
    written = path.read_text()
    assert "| speed | 26.0 times | at least 25 times | met |" in written
    assert written.startswith("# Speed\n")
    assert written.endswith("\nThe disk bounds it.\n")
    assert "First" not in written
    assert "make bench ONLY=two" in written


def test_the_minimum_follows_from_the_limits():
    """A million UUIDs fill 368 bodies, and the last body waits for one window."""
    assert 368 == least_requests(1_000_000)
    assert [0, 0, 62, 62, 124] == [least_seconds(n, 62) for n in (1, 300, 301, 600, 601)]
