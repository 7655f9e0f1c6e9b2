"""Mirrors of real taps that are killed in the middle of a full read."""

import signal

import pytest

from tests.taps.sources import PEOPLE

FEW, MANY = 500, 2_600  # records: before the first STATE with a resume mark, and after two of them
KILLED = -signal.SIGKILL

each_table = pytest.mark.parametrize("table", ["users", "vip"])
each_way = pytest.mark.parametrize("is_run", [False, True], ids=["pipe", "run"])


def is_marked(flow, state):
    """Return whether a tap that gets this STATE would read only the rest."""
    entries = state.get("bookmarks", {}).values()
    return any(entry.get(mark) is not None for entry in entries for mark in flow.source.marks)


def test_the_state_of_a_full_read(flow):
    """The tap has a mark in its STATE after each 1,000 rows of a table, and none in the end."""
    flow.mirror("users")
    ran = flow.run()
    assert (0, 0, None) == (ran.tap_exit, ran.exit_code, ran.error), ran.stderr
    assert PEOPLE // 1_000 <= sum(is_marked(flow, state) for state in ran.tap_states)
    assert not is_marked(flow, ran.tap_states[-1])
    assert ran.tap_states[-1] == flow.state


@each_way
@each_table
def test_a_full_read_that_is_killed(flow, change, table, is_run):
    """A killed run removes nobody and writes no mark; the next one reads everything."""
    flow.is_run = is_run
    flow.mirror(table)
    assert flow.run().error is None
    assert flow.source.audience() == flow.members()
    for count in (FEW, MANY, PEOPLE - 150):
        change()
        killed = flow.run(count)
        assert (KILLED, count, 1) == (killed.tap_exit, killed.records, killed.exit_code)
        assert killed.error == ("tap_failed" if is_run else "stopped_read"), killed.stderr
        assert not any(is_marked(flow, state) for state in killed.states)
        assert set() == killed.removed
    change()
    again = flow.run()
    assert (0, None) == (again.exit_code, again.error), again.stderr
    assert flow.source.audience() == flow.members()
    once_more = flow.run()
    assert (0, 0) == (once_more.exit_code, once_more.requests), once_more.stderr


@each_table
@pytest.mark.parametrize("count", [FEW, MANY])
def test_the_very_first_read_is_killed(flow, change, table, count):
    """A tap that died in its first run has no STATE to go on with, and skips nothing."""
    flow.mirror(table)
    killed = flow.run(count)
    assert (KILLED, "stopped_read", []) == (killed.tap_exit, killed.error, killed.states)
    change()
    assert flow.run().error is None
    assert flow.source.audience() == flow.members()


@each_way
def test_a_mark_that_an_older_version_let_out(flow, change, is_run):
    """The rest of a table is not its audience, though the tap activates it and exits with 0."""
    flow.is_run = is_run
    flow.mirror("users")
    assert flow.run().error is None
    change()
    flow.state = flow.run(MANY).tap_states[-1]
    assert is_marked(flow, flow.state)
    rest = flow.run()
    assert (0, 1, "resumed_read") == (rest.tap_exit, rest.exit_code, rest.error), rest.stderr
    assert 0 < rest.records < len(flow.source.audience())
    assert "ACTIVATE_VERSION" in [each["type"] for each in rest.messages[-3:]]
    assert set() == rest.removed
    assert flow.run().error is None
    assert flow.source.audience() == flow.members()


@pytest.mark.parametrize("method", ["INCREMENTAL", "LOG_BASED"])
def test_a_bookmark_in_a_mirror(flow, change, method):
    """A tap that reads only what is new is refused, from its first run on, and removes nobody."""
    flow.mirror("users")
    assert flow.run().error is None
    change()
    flow.mirror("users", method)
    flow.state = None
    ran = flow.run()
    assert (1, "bookmark_for_mirror") == (ran.exit_code, ran.error), ran.stderr
    assert (set(), None) == (ran.removed, flow.state)
    flow.state = flow.last_state_of_tap()  # as an older version would have written it
    change()
    ran = flow.run()
    assert (1, "bookmark_for_mirror") == (ran.exit_code, ran.error), ran.stderr
    assert set() == ran.removed
    flow.mirror("users")
    flow.state = None
    assert flow.run().error is None
    assert flow.source.audience() == flow.members()
