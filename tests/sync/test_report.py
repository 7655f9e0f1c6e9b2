from __future__ import annotations

import json
import os
import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from target_moengage_cohort.core.errors import SettingsError
from target_moengage_cohort.sync import report as reports
from target_moengage_cohort.sync.report import CohortReport, Report

COHORT_FIELDS = [
    "cohort_id",
    "cohort_name",
    "stream",
    "sync_mode",
    "records",
    "added",
    "removed",
    "unchanged",
    "rejected",
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
FIELDS = [
    "run_id",
    "started_at",
    "finished_at",
    "status",
    "requests",
    "retries",
    "throttled_seconds",
    "cohorts",
]


def cohort(cohort_id="vip", stream="s", **numbers):
    return CohortReport(
        cohort_id=cohort_id, cohort_name=cohort_id, stream=stream, sync_mode="add", **numbers
    )


def report(*cohorts, **fields):
    numbers = {"status": "succeeded", "requests": 0, "retries": 0, "throttled_seconds": 0.0}
    times = {"run_id": "r", "started_at": "a", "finished_at": "b"}
    return Report(**times | numbers | fields, cohorts=list(cohorts))


def test_the_file_has_the_fields_of_the_design(tmp_path):
    """Programs find every field that the design names, in its order, and no other."""
    path = tmp_path / "report.json"
    reports.write(report(cohort(added=2), requests=3), str(path))
    written = json.loads(path.read_text(encoding="utf-8"))
    assert FIELDS == [*written]
    assert COHORT_FIELDS == [*written["cohorts"][0]]
    assert (3, 2) == (written["requests"], written["cohorts"][0]["added"])


def test_the_file_is_replaced_whole_and_private(tmp_path):
    """A report replaces the last one, is its owner's alone, and leaves nothing beside it."""
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
    """The error names the setting and the path, and no half of a report is left."""
    (tmp_path / "file").touch()
    before = sorted(tmp_path.iterdir())
    with pytest.raises(SettingsError, match=r"report_path: .* cannot be written \("):
        reports.write(report(), str(tmp_path / name))
    assert before == sorted(tmp_path.iterdir())


counts = st.integers(0, 99_999_999)
cohorts = st.builds(
    cohort,
    st.none() | st.text(max_size=60),
    st.text(max_size=60),
    records=counts,
    added=counts,
    removed=counts,
    rejected=counts,
    requests=st.integers(0, 999_999),
    bytes=counts,
    in_doubt=counts,
)
statuses = st.sampled_from(["succeeded", "failed", "dry_run"])


@given(st.lists(cohorts, max_size=30), statuses, st.integers(0, 9_999), st.integers(10, 300))
def test_the_summary_fits_a_screen(found, status, requests, per_minute):
    """However many cohorts, whatever their names: some twenty lines of at most 80 columns."""
    text = reports.summary(report(*found, status=status, requests=requests), per_minute)
    lines = text.splitlines()
    assert text.split("\n") == lines
    assert len(lines) <= 20
    assert max(map(len, lines)) <= 80


def test_the_summary_shows_the_largest_cohorts_first():
    """Small cohorts are counted where there is no room for them."""
    text = reports.summary(report(*(cohort(f"c{n}", records=n) for n in range(20))), 300)
    assert ["c19", "c18"] == [line.split()[0] for line in text.splitlines()[1:3]]
    assert "… and 8 more cohorts; report_path has them all" in text


@pytest.mark.parametrize(
    ("line", "made"),
    [
        (
            "succeeded: it took 3 requests, 1.5 MB, 1 retry; throttled for 2 s",
            report(cohort(bytes=1_500_000), requests=3, retries=1, throttled_seconds=2.4),
        ),
        (
            "dry_run: it would take 600 requests, 0 bytes, 2 minutes at the rate limit",
            report(status="dry_run", requests=600),
        ),
        (
            "dry_run: it would take 1 request, 12.3 KB, under a minute at the rate limit",
            report(cohort(bytes=12_345), status="dry_run", requests=1),
        ),
        ("dry_run: it would take 0 requests, 0 bytes", report(status="dry_run")),
        (
            "1 removal waits for: moengage-cohort confirm s --config …",
            report(cohort(removals_waiting=1)),
        ),
        (
            "withheld, 1 removal among it; the warnings above say what and why",
            report(cohort(removals_withheld=1), status="withheld"),
        ),
        ("1 member is in doubt: nobody knows whether it is accepted", report(cohort(in_doubt=1))),
        (
            "7 members are in doubt: nobody knows whether they are accepted",
            report(cohort(in_doubt=7)),
        ),
    ],
    ids=["run", "dry run", "short", "nothing", "waiting", "withheld", "one in doubt", "doubt"],
)
def test_the_summary_says_what_it_took(line, made):
    """The last lines are the run's cost, and what nobody knows the answer to."""
    assert line == reports.summary(made, 300).splitlines()[-1]


def test_rows_of_no_cohort_are_listed_by_their_stream():
    """A count of rows that name no cohort is no cohort."""
    assert "(no cohort: s)" in reports.summary(report(cohort(None)), 300)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0 bytes", 0),
        ("1 byte", 1),
        ("999 bytes", 999),
        ("1.0 KB", 1_000),
        ("999.9 KB", 999_949),
        ("1.0 MB", 999_950),
        ("1.0 MB", 1_000_000),
        ("2.5 GB", 2_500_000_000),
    ],
)
def test_a_size_has_a_unit_that_shows_it(text, size):
    """Whatever its size, something other than zero is never shown as zero."""
    assert text == reports.sized(size)


@pytest.mark.parametrize(
    ("text", "minutes"),
    [
        ("under a minute", 0.0033),
        ("under a minute", 0.99),
        ("1 minute", 1),
        ("1 minute", 1.04),
        ("1.5 minutes", 1.5),
        ("2 minutes", 2),
        ("1,234.5 minutes", 1234.5),
    ],
)
def test_a_duration_in_words(text, minutes):
    """Below a minute nothing more is known; above it a tenth is."""
    assert text == reports.lasting(minutes)
