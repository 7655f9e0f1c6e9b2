"""The requests for one day's churn of a cohort of ordinary size."""

import pytest

from tests.support.look import held, members
from tests.support.singer import lines, record, run, schema, state

SIZE, OUT, IN = 30_000, 900, 700
UIDS = [f"user-{number:07d}" for number in range(SIZE + IN)]
BEFORE, AFTER = UIDS[:SIZE], [*UIDS[OUT:SIZE], *UIDS[SIZE:]]


@pytest.fixture
def sync(emulator, tmp_path):
    """Run a mirror with a number of members; return the sent members by action."""

    def go(uids, position):
        rows = [record(uid=uid) for uid in uids]
        data = lines(schema(), *rows, state({"position": position}))
        seen = run(emulator, data, ledger_uri=str(tmp_path / "ledger"), sync_mode="mirror")
        assert seen.error is None
        assert [{"position": position}] == seen.states
        return seen

    return go


def asked(seen):
    """Return the action and uids of each request."""
    return {
        each.body["action"]: {member["uid"] for member in each.body["parameters"]["members"]}
        for each in seen.attempts
    }


def test_a_day_of_churn_costs_two_requests(emulator, sync, tmp_path):
    """900 removals and 700 additions on 30,000 members take two requests with exactly those
    members. The same rows in another order take none."""
    first = sync(BEFORE, 1)
    assert SIZE == first.report.cohorts[0].added
    churn = sync(AFTER, 2)
    assert 2 == len(churn.attempts)
    assert {"add_members": {*UIDS[SIZE:]}, "remove_members": {*UIDS[:OUT]}} == asked(churn)
    assert {*AFTER} == members(emulator, "users")
    assert {*AFTER} == held(emulator, str(tmp_path / "ledger"))["users"].accepted
    (cohort,) = churn.report.cohorts
    assert (IN, OUT, SIZE - OUT) == (cohort.added, cohort.removed, cohort.unchanged)
    assert (SIZE - OUT + IN, cohort.accepted) == (cohort.desired.count, cohort.desired)
    same = sync(AFTER[::-1], 3)
    assert [] == same.attempts
    (again,) = same.report.cohorts
    assert (0, 0, cohort.desired) == (again.added, again.removed, again.accepted)
