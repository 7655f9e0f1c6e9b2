from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from target_moengage_cohort.sync.summary import summary
from tests.support.reports import cohort, report

DRY = "Dry run, nothing sent: a real run would take"


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
    """With any cohorts and names, the summary has about twenty lines of at most 80 columns."""
    text = summary(report(*found, status=status, requests=requests), per_minute)
    lines = text.splitlines()
    assert text.split("\n") == lines
    assert len(lines) <= 20
    assert max(map(len, lines)) <= 80


def test_the_summary_shows_the_largest_cohorts_first():
    """Cohorts without room in the summary are counted."""
    text = summary(report(*(cohort(f"c{n}", records=n) for n in range(20))), 300)
    assert ["c19", "c18"] == [line.split()[0] for line in text.splitlines()[1:3]]
    assert "… and 8 more cohorts; report_path has them all" in text


@pytest.mark.parametrize(
    ("line", "made"),
    [
        (
            "Succeeded: 3 requests, 1.5 MB, 1 retry, throttled for 2 s",
            report(cohort(bytes=1_500_000), requests=3, retries=1, throttled_seconds=2.4),
        ),
        (
            f"{DRY} 600 requests (0 bytes),\n2 minutes at the rate limit",
            report(status="dry_run", requests=600),
        ),
        (
            f"{DRY} 1 request (12.3 KB),\nunder a minute at the rate limit",
            report(cohort(bytes=12_345), status="dry_run", requests=1),
        ),
        (
            f"{DRY} 0 requests (0 bytes)",
            report(status="dry_run"),
        ),
        (
            "1 pending removal; to release: moengage-cohort confirm s --config …",
            report(cohort(removals_waiting=1)),
        ),
        (
            "Withheld changes include 1 removal; see the warnings above",
            report(cohort(removals_withheld=1), status="withheld"),
        ),
        (
            "1 member is unconfirmed (no answer); the next run sends it again",
            report(cohort(in_doubt=1)),
        ),
        (
            "7 members are unconfirmed (no answer); the next run sends them again",
            report(cohort(in_doubt=7)),
        ),
    ],
    ids=["run", "dry run", "short", "nothing", "waiting", "withheld", "one in doubt", "doubt"],
)
def test_the_summary_says_what_it_took(line, made):
    """The last lines have the requests and the pending, withheld or unconfirmed members."""
    assert summary(made, 300).endswith(f"\n{line}")


def test_rows_of_no_cohort_are_listed_by_their_stream():
    """Rejected rows without a cohort are listed by their stream."""
    assert "(no cohort: s)" in summary(report(cohort(None)), 300)
