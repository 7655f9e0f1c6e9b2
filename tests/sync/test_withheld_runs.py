"""How runs end that withhold something: on_withheld, and inputs that are not complete."""

import pytest

from tests.support.singer import lines, record, run, schema, state

HUNDRED = [*map(str, range(100))]


@pytest.fixture
def mirror(emulator, tmp_path):
    """Runs a mirror of the stream `users` on a ledger of its own."""

    def go(*uids, **settings):
        options = {"ledger_uri": str(tmp_path / "ledger"), "sync_mode": "mirror"}
        rows = [record(uid=uid) for uid in uids]
        data = lines(schema(), *rows, state({"n": len(uids)}))
        skip = {"on_reject": "skip", "rejects_path": str(tmp_path / "rejects.singer")}
        return run(emulator, data, **options | skip | settings)

    return go


@pytest.mark.parametrize(
    "settings",
    [{}, {"removals": "proven"}, {"max_addition_percent": 0}],
    ids=["guard", "proven", "growth"],
)
@pytest.mark.parametrize(("on_withheld", "code"), [("fail", 3), ("warn", 0)])
def test_on_withheld_decides_the_exit_code_alone(mirror, settings, on_withheld, code):
    """The report's status and the plan are the same; with warn the run ends with 0."""
    mirror(*HUNDRED)
    seen = mirror(*HUNDRED[40:], "new", **settings, on_withheld=on_withheld)
    assert seen.error is None
    assert ("withheld", code) == (seen.report.status, seen.report.exit_code)
    (cohort,) = seen.report.cohorts
    assert ("withheld", True) == (cohort.status, cohort.plan_id is not None)
    assert [{"n": 61}] == seen.states
    assert "plan_withheld" in [each.code for each in seen.report.warnings]


@pytest.mark.parametrize("on_withheld", ["fail", "warn"])
def test_an_incomplete_input_is_an_error(mirror, on_withheld):
    """Removals that are left out of an incomplete input are no plan to release: exit code 1."""
    mirror(*HUNDRED)
    seen = mirror(*HUNDRED[1:], None, on_withheld=on_withheld)
    assert ("incomplete_input", 1) == (seen.error.code, seen.report.exit_code)
    assert ("failed", []) == (seen.report.status, seen.states)
    (cohort,) = seen.report.cohorts
    assert ("failed", None, 1) == (cohort.status, cohort.plan_id, cohort.removals_withheld)


def test_an_incomplete_input_that_removes_nobody_succeeds(mirror):
    """If nobody is missing a rejected row leaves nothing undone but STATE, with a warning."""
    mirror(*HUNDRED)
    seen = mirror(*HUNDRED, None)
    assert ("succeeded", 0, []) == (seen.report.status, seen.report.exit_code, seen.states)
    assert "incomplete_after_rejects" in [each.code for each in seen.report.warnings]
