"""Promise 5: a ledger whose process is killed at any step."""

import subprocess
import sys
from pathlib import Path

import pytest

from target_moengage_cohort.core.membership import Cohort
from target_moengage_cohort.ledger.interface import LedgerStore
from tests.ledger.story import EVERYONE, FORGOTTEN, PLAN, STORY, after
from tests.ledger.support import COHORT, REMOVE, STREAM, assert_holds, flat, ledgers

FORGET = [name for name, _ in STORY].index("forget")


@pytest.fixture(scope="module", params=[(), ("1",)], ids=["at once", "a row at a time"])
def tellings(request, tmp_path_factory):
    """The directories of all tellings, each killed one step later than the one before."""
    root = tmp_path_factory.mktemp("tellings")
    subprocess.run(
        [sys.executable, "-m", "tests.ledger.child", str(root), *request.param],
        check=True,
        timeout=300,
        cwd=Path(__file__).parents[2],
    )
    return sorted(root.iterdir(), key=lambda folder: int(folder.name))


def told(folder: Path) -> tuple[int, int, list[str]]:
    lines = (folder / "told").read_text().splitlines()
    begun = sum(line.startswith("begin") for line in lines)
    return begun, sum(line.startswith("done") for line in lines), lines


def opened(room: LedgerStore, names: set[str]):
    """Open the ledger by one of the names that it may have, or create it."""
    found = [entry.name for entry in room.entries()]
    if not found:
        return room.open(COHORT, STREAM)
    ledger = room.open_known(COHORT.cohort_id)
    assert ledger.entry.name in names
    return room.open(Cohort(COHORT.cohort_id, ledger.entry.name), STREAM)


def assert_one_of(ledger, states) -> None:
    """Check that the ledger has one of the states, in full."""
    for state in states[:-1]:
        try:
            assert_is(ledger, state)
        except AssertionError:
            continue
        return
    assert_is(ledger, states[-1])


def assert_is(ledger, state) -> None:
    assert_holds(ledger, state, EVERYONE)
    assert state.cohort_name == ledger.entry.name
    assert [PLAN] * bool(state.planned) == ledger.plans()
    if state.planned:
        removals = flat(ledger.plan_members(PLAN.plan_id, REMOVE))
        assert list(state.planned) == [member.uid for member in removals]


def test_every_part_of_the_story_is_killed(tellings):
    """The tellings reach the end of the story, and a kill interrupts each part of it."""
    *killed, last = tellings
    assert "end" == told(last)[2][-1]
    cut = {STORY[told(folder)[0] - 1][0] for folder in killed}
    assert {name for name, _ in STORY} == cut


def test_nothing_acknowledged_is_lost_by_a_kill(tellings):
    """Promise 5: after a kill at any step, the next open finds everything that was acknowledged,
    unanswered requests as unconfirmed, complete plans, and a catalog that agrees."""
    for folder in tellings:
        begun, done, _ = told(folder)
        states = [after(begun), after(done)]
        names = {state.cohort_name for state in states}
        with ledgers(folder / "ledger", run_id="run-2") as room:
            before = {entry.cohort_id: entry for entry in room.entries()}
            ledger = opened(room, names)
            assert_one_of(ledger, states)
            if before and ledger.numbers().in_doubt:
                assert not before[COHORT.cohort_id].is_settled
            assert STREAM == ledger.entry.stream
        with ledgers(folder / "ledger") as room:
            (entry,) = room.entries()
            assert (not opened(room, names).numbers().in_doubt) == entry.is_settled
        assert [] == [path.name for path in folder.rglob("spill-*")]
        assert [] == [path.name for path in folder.rglob("*.wal")]
        assert [] == [path.name for path in folder.rglob("*.new*")]


def test_a_forgotten_member_stays_forgotten_after_a_kill(tellings):
    """After a kill during `forget` the member is either still there, or has left no byte of an
    identifier in the directory once the ledger was opened again."""
    for folder in tellings:
        begun, done, _ = told(folder)
        if begun <= FORGET:
            continue
        with ledgers(folder / "ledger") as room:
            ledger = opened(room, {after(begun).cohort_name, after(done).cohort_name})
            is_there = bool(ledger.find([FORGOTTEN]))
        assert done <= FORGET or not is_there
        if not is_there:
            for path in folder.rglob("*"):
                data = path.read_bytes() if path.is_file() else b""
                assert b"forget-me-not" not in data, path.name
