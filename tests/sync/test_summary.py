from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from target_moengage_cohort.sync.reporting.summary import summary
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


def lines(made):
    """Return the lines of a summary."""
    return [line.text for line in summary(made, 300)]


def test_rows_have_the_names_of_their_cohort():
    """The record of a cohort's row has its stream and id, however long; that of the total none."""
    name = "x" * 99
    row, total = summary(report(cohort(name, "users", added=1)), 300)
    assert (name, "users") == (row.extra["cohort_id"], row.extra["stream"])
    assert {"code": "summary"} == total.extra


@given(st.lists(cohorts, max_size=60), statuses, st.integers(0, 9_999), st.integers(10, 300))
def test_the_summary_has_lines_that_fit(found, status, requests, per_minute):
    """With any cohorts and names, there are at most 50 rows, and no line exceeds 80 columns."""
    made = report(*found, status=status, requests=requests)
    made = [line.text for line in summary(made, per_minute)]
    assert all([line] == line.splitlines() for line in made)
    assert len(made) <= 50 + 3
    assert max(map(len, made)) <= 80


def test_rows_are_aligned_without_a_header():
    """Each row names its own numbers, and those of all rows end in the same columns."""
    made = lines(
        report(cohort("a", records=1_000, added=7), cohort("longer", records=5, removed=42))
    )
    rows = [line for line in made if line.split()[0] in {"a", "longer"}]
    assert 2 == len(rows)
    for name in (" read", " added", " removed"):
        assert 1 == len({row.index(name) for row in rows})


def test_only_cohorts_that_changed_or_are_in_trouble_have_rows():
    """A run without changes and troubles has one line; each trouble has a row, before changes."""
    quiet = [cohort(f"c{n}", records=n) for n in range(20)]
    assert 1 == len(lines(report(*quiet)))
    troubles = {
        "rejected": {"rejected": 1},
        "waiting": {"removals_waiting": 1},
        "withheld": {"removals_withheld": 1},
        "unconfirmed": {"in_doubt": 1},
        "failed": {"status": "failed"},
        "absent": {"status": "no_input"},
    }
    made = [cohort("changed", added=1), *quiet]
    made += [cohort(name, **numbers) for name, numbers in troubles.items()]
    names = [line.split()[0] for line in lines(report(*made))]
    assert [*troubles, "changed"] == names[: len(troubles) + 1]
    assert not {f"c{n}" for n in range(20)} & {*names}


def test_the_summary_shows_the_most_changed_cohorts_first():
    """Cohorts without room in the summary are counted."""
    made = lines(report(*(cohort(f"c{n}", added=n) for n in range(1, 61))))
    assert ["c60", "c59"] == [line.split()[0] for line in made[:2]]
    assert 50 == sum(line.startswith("c") for line in made)
    assert "… and 10 more cohorts; the report (report_path) lists all of them" in made


@pytest.mark.parametrize(
    ("line", "made"),
    [
        (
            "Succeeded: 3 requests, 1.5 MB, 1 retry, throttled for 2 s; 0 of 1 cohort changed",
            report(cohort(bytes=1_500_000), requests=3, retries=1, throttled_seconds=2.4),
        ),
        (
            "Duration at the rate limit: 2 minutes",
            report(status="dry_run", requests=600),
        ),
        (
            f"{DRY} 1 request (12.3 KB)",
            report(cohort(bytes=12_345), status="dry_run", requests=1),
        ),
        (
            f"{DRY} 0 requests (0 bytes)",
            report(status="dry_run"),
        ),
        (
            "1 pending removal; to send them, run: moengage-cohort confirm s --config config.json",
            report(cohort(removals_waiting=1)),
        ),
        (
            "1 removal was withheld; see the warnings above",
            report(cohort(removals_withheld=1), status="withheld"),
        ),
        (
            "Changes of 2 cohorts were withheld; see the warnings above",
            report(*[cohort(status="withheld")] * 2, cohort("c"), status="withheld"),
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
    ids=[
        "run",
        "dry run",
        "short",
        "nothing",
        "waiting",
        "withheld",
        "cohorts",
        "one in doubt",
        "doubt",
    ],
)
def test_the_summary_says_what_it_took(line, made):
    """The last lines have the requests and the pending, withheld or unconfirmed members."""
    assert line in lines(made)


def test_rows_of_no_cohort_are_listed_by_their_stream():
    """Rejected rows without a cohort are listed by their stream."""
    assert lines(report(cohort(None, rejected=1)))[0].startswith("(no cohort: s)")
