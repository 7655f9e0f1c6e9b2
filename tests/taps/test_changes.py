"""Real taps that read only what is new, for a cohort that follows the changes."""

import pytest

from tests.taps.test_full_reads import FEW, KILLED, MANY

each_count = pytest.mark.parametrize("count", [FEW, MANY])
IN_A_CHANGE = 30  # records, of the 40 or 100 that a change has


@each_count
def test_new_rows_by_a_key(flow, change, count):
    """A killed INCREMENTAL read goes on where STATE says; everybody comes, nobody is removed."""
    flow.follow("users", "INCREMENTAL")
    ever = set()
    for kill_after in (count, 0, IN_A_CHANGE, 0):
        ran = flow.run(kill_after)
        ever |= flow.source.audience()
        assert (KILLED if kill_after else 0, 0) == (ran.tap_exit, ran.exit_code), ran.stderr
        assert set() == ran.removed
        assert kill_after or flow.source.audience() <= flow.members() <= ever
        change()
    once_more = flow.run()
    assert 40 <= once_more.records <= 41  # the last row before them may come again
    assert set() == once_more.removed
    assert flow.source.audience() <= flow.members()


@each_count
def test_a_log(flow, change, count):
    """A killed first read of LOG_BASED is completed, and the log delivers who comes and goes."""
    flow.follow("users", "LOG_BASED")
    killed = flow.run(count)
    assert (KILLED, count) == (killed.tap_exit, killed.records)
    if count == FEW:  # begins again, with the log from then on: who left before is never seen again
        assert flow.state is None
        flow.source.come(40)
    else:
        change()
    again, once_more = flow.run(), flow.run()
    assert (0, 0, 0) == (again.tap_exit, again.exit_code, once_more.exit_code), again.stderr
    assert (again.records < len(flow.source.audience())) is (count == MANY)
    assert flow.source.audience() == flow.members()
    change()
    killed = flow.run(IN_A_CHANGE)
    assert (KILLED, IN_A_CHANGE) == (killed.tap_exit, killed.records)
    change()
    for ran in (flow.run(), flow.run()):
        assert (0, 0, None) == (ran.tap_exit, ran.exit_code, ran.error), ran.stderr
    assert flow.source.audience() == flow.members()
