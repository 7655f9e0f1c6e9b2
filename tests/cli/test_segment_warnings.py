"""`check` and `plan` warn of the limit of segments, as runs do."""

import pytest

from tests.support.singer import lines, record, run, schema

TEXT = "1,000 segments"


@pytest.fixture
def full(desk, emulator):
    """A desk with 900 cohorts."""
    desk.raw |= {"cohorts": {"users": {"cohort_id_column": "c"}}, "max_new_cohorts": 2_000}
    rows = [record(uid="u", c=str(number)) for number in range(900)]
    settings = {key: desk.raw[key] for key in ("cohorts", "max_new_cohorts", "ledger_uri")}
    seen = run(emulator, lines(schema(columns=("uid", "c")), *rows), **settings)
    assert "segment_limit" in [each.code for each in seen.report.warnings]
    return desk


def test_check_and_plan_warn_of_the_segments(full):
    """Both say so on standard error, and succeed."""
    data = lines(schema(columns=("uid", "c")), record(uid="v", c="1"))
    for command in (("check",), ("plan", "--json")):
        result = full.run(*command, text=data.decode())
        assert 0 == result.exit_code
        assert TEXT in " ".join(result.stderr.split())


def test_a_few_cohorts_are_no_reason_to_warn(desk):
    """Without many cohorts neither says anything of segments."""
    for command in (("check",), ("plan",)):
        assert TEXT not in desk.run(*command, text="").output
