"""A warning when MoEngage will soon drop further segments."""

import pytest

from tests.support.singer import lines, record, run, schema

CODE = "segment_limit"
FAN_OUT = {
    "cohorts": {"users": {"cohort_id_column": "cohort"}, "one": {}},
    "max_new_cohorts": 10_000,
}


@pytest.fixture
def fill(emulator, tmp_path):
    """Runs that populate as many cohorts, numbered from a first one."""

    def go(first, end, **settings):
        rows = [record(uid="u", cohort=str(number)) for number in range(first, end)]
        data = lines(schema(columns=("uid", "cohort")), *rows)
        options = FAN_OUT | {"ledger_uri": str(tmp_path / "ledger"), "flush_seconds": 86_400}
        return run(emulator, data, **options | settings)

    return go


def reported(seen):
    return [each.code for each in seen.report.warnings if each.code == CODE]


def test_from_900_cohorts_each_run_warns(fill):
    """899 cohorts are none too many; at 900 the run that reaches them warns, and each one after."""
    assert [] == reported(fill(0, 897))
    assert [] == reported(fill(897, 899, dry_run=True))
    assert [CODE] == reported(fill(897, 900, dry_run=True))  # as if they were in the store
    assert [] == reported(fill(897, 899))
    seen = fill(899, 900)
    assert ([CODE], "succeeded") == (reported(seen), seen.report.status)
    assert [CODE] == reported(fill(0, 1))
    assert [CODE] == reported(fill(0, 1, dry_run=True))
    assert [CODE] == reported(fill(0, 1, partner="another"))  # they share the workspace


def test_cohorts_that_are_refused_do_not_count(fill):
    """Cohorts beyond max_new_cohorts are not created."""
    assert "too_many_new_cohorts" == fill(0, 950, dry_run=True, max_new_cohorts=5).error.code
    seen = fill(0, 950, max_new_cohorts=5)
    assert ("too_many_new_cohorts", []) == (seen.error.code, reported(seen))
