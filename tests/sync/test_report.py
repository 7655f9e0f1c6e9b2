from __future__ import annotations

import json
import os
import stat

import pytest

from target_moengage_cohort.core.errors import SettingsError
from target_moengage_cohort.sync.reporting import report as reports
from tests.support.reports import REPORT_FIELDS, cohort, report

COHORT_FIELDS = [
    "cohort_id",
    "cohort_name",
    "stream",
    "sync_mode",
    "status",
    "records",
    "added",
    "removed",
    "unchanged",
    "rejected",
    "excluded",
    "removals_waiting",
    "removals_withheld",
    "plan_id",
    "in_doubt",
    "requests",
    "bytes",
    "complete",
    "ledger",
    "desired",
    "accepted",
]


def test_the_file_has_the_fields_of_the_design(tmp_path):
    """The report has exactly the documented fields, in their order."""
    path = tmp_path / "report.json"
    reports.write(report(cohort(added=2), requests=3), str(path))
    written = json.loads(path.read_text(encoding="utf-8"))
    assert REPORT_FIELDS == [*written]
    assert COHORT_FIELDS == [*written["cohorts"][0]]
    assert (3, 2) == (written["requests"], written["cohorts"][0]["added"])


def test_the_file_is_replaced_whole_and_private(tmp_path):
    """A report replaces the last one, is readable by its owner only, and leaves no other file."""
    path = tmp_path / "report.json"
    before = os.umask(0)
    try:
        for requests in (1, 2):
            reports.write(report(requests=requests), str(path))
    finally:
        os.umask(before)
    assert 2 == json.loads(path.read_text(encoding="utf-8"))["requests"]
    assert 0o600 == stat.S_IMODE(path.stat().st_mode)
    assert [path] == [*tmp_path.iterdir()]


@pytest.mark.parametrize("name", ["no/report.json", "file/report.json", "."])
def test_a_path_that_cannot_be_written(tmp_path, name):
    """The error names the setting and the path, and no part of a report is left."""
    (tmp_path / "file").touch()
    before = sorted(tmp_path.iterdir())
    with pytest.raises(SettingsError, match=r"report_path: .* cannot be written \("):
        reports.write(report(), str(tmp_path / name))
    assert before == sorted(tmp_path.iterdir())
