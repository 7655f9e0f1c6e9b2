from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import given
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from target_moengage_cohort.delivery import checkpoints as checkpoints_module
from target_moengage_cohort.delivery.checkpoints import Checkpoints


class AgainstNaiveModel(RuleBasedStateMachine):
    """A comparison of the counts with a plain list of everything that was read."""

    @initialize()
    def begin(self):
        self.checkpoints = Checkpoints()
        # An open record's epoch, a held stream's name, None for either once it is over, or a STATE
        self.read: list = []
        self.last_taken = -1

    @rule(count=st.integers(1, 4))
    def records(self, count):
        self.checkpoints.open(count)
        self.read += [self.checkpoints.epoch] * count

    @rule()
    def state(self):
        value = b"%d" % len(self.read)
        self.checkpoints.state(value)
        self.read.append(value)

    @precondition(lambda self: any(isinstance(item, int) for item in self.read))
    @rule(data=st.data())
    def settle(self, data):
        indexes = [i for i, item in enumerate(self.read) if isinstance(item, int)]
        chosen = data.draw(st.sets(st.sampled_from(indexes), min_size=1))
        counts: dict[int, int] = {}
        for index in chosen:
            counts[self.read[index]] = counts.get(self.read[index], 0) + 1
            self.read[index] = None
        self.checkpoints.settle(counts)

    @rule(stream=st.sampled_from(["s", "t", "u"]))
    def hold(self, stream):
        self.checkpoints.hold(stream)
        if stream not in self.read:
            self.read.append(stream)

    @rule(stream=st.sampled_from(["s", "t", "u"]))
    def release(self, stream):
        self.checkpoints.release(stream)
        self.read = [None if item == stream else item for item in self.read]

    @property
    def covered(self) -> int:
        """Return the position of the newest STATE after no open record or held stream, or -1."""
        newest = -1
        for index, item in enumerate(self.read):
            if isinstance(item, (int, str)):
                break
            if isinstance(item, bytes):
                newest = index
        return newest

    @rule()
    def take(self):
        covered = self.covered
        expected = self.read[covered] if covered > self.last_taken else None
        self.last_taken = max(self.last_taken, covered)
        assert expected == self.checkpoints.take()

    @invariant()
    def what_can_be_taken_is_known_beforehand(self):
        assert (self.covered > self.last_taken) == self.checkpoints.has_covered

    @invariant()
    def a_held_stream_is_no_open_record(self):
        assert any(isinstance(item, int) for item in self.read) == self.checkpoints.has_open

    @invariant()
    def held_bytes_are_bounded_by_what_waits(self):
        waiting = [v for v in self.read[self.last_taken + 1 :] if isinstance(v, bytes)]
        assert 0 <= self.checkpoints.held_bytes <= sum(map(len, waiting))


def test_the_newest_covered_state_is_taken_once():
    """Whatever the order of settling and releasing, `take` returns the newest STATE with nothing
    open and no held stream before it."""
    run_state_machine_as_test(AgainstNaiveModel)


def test_a_state_without_records_is_covered_at_once():
    """A STATE without preceding records is covered immediately."""
    checkpoints = Checkpoints()
    checkpoints.state(b"1")
    assert b"1" == checkpoints.take()
    assert None is checkpoints.take()


def test_a_state_waits_for_records_of_earlier_epochs():
    """A later epoch's acceptance does not cover a STATE while an earlier record is open."""
    checkpoints = Checkpoints()
    checkpoints.open()
    checkpoints.state(b"1")
    checkpoints.open()
    checkpoints.state(b"2")
    checkpoints.settle({1: 1})
    assert None is checkpoints.take()
    checkpoints.settle({0: 1})
    assert b"2" == checkpoints.take()


@given(st.integers(1, 50))
def test_states_in_a_row_take_the_room_of_one(count):
    """A tap that repeats STATE while a record is open does not fill the memory."""
    checkpoints = Checkpoints()
    checkpoints.open()
    for number in range(count):
        checkpoints.state(b"%04d" % number)
    assert 4 == checkpoints.held_bytes
    checkpoints.settle({0: 1})
    assert b"%04d" % (count - 1) == checkpoints.take()
    assert 0 == checkpoints.held_bytes


def test_held_state_is_bounded(monkeypatch):
    """Promise 8: if too much STATE waits, only the oldest and the newest are kept."""
    monkeypatch.setattr(checkpoints_module, "HELD_BYTES_LIMIT", 1_000)
    checkpoints = Checkpoints()
    for number in range(100):
        checkpoints.open()
        checkpoints.state(b"%0400d" % number)
        assert checkpoints.held_bytes <= 1_000
    checkpoints.settle({0: 1})
    assert b"%0400d" % 0 == checkpoints.take()
    checkpoints.settle(dict.fromkeys(range(1, 100), 1))
    assert b"%0400d" % 99 == checkpoints.take()
    assert 0 == checkpoints.held_bytes


def test_a_held_stream_holds_back_what_comes_later():
    """Promise 1: a STATE before a hold is emitted; a later one waits for the release."""
    checkpoints = Checkpoints()
    checkpoints.state(b"1")
    checkpoints.hold("s")
    checkpoints.state(b"2")
    assert b"1" == checkpoints.take()
    assert None is checkpoints.take()
    checkpoints.release("s")
    assert b"2" == checkpoints.take()


def test_the_first_hold_of_a_stream_counts():
    """A second SCHEMA of a held stream releases nothing, and one release frees all STATE."""
    checkpoints = Checkpoints()
    checkpoints.hold("s")
    checkpoints.state(b"1")
    checkpoints.hold("s")
    assert None is checkpoints.take()
    checkpoints.release("s")
    assert b"1" == checkpoints.take()


def test_every_held_stream_holds():
    """A STATE waits for the release of every stream that was held before it."""
    checkpoints = Checkpoints()
    checkpoints.hold("s")
    checkpoints.state(b"1")
    checkpoints.hold("t")
    checkpoints.state(b"2")
    checkpoints.release("t")
    assert None is checkpoints.take()
    checkpoints.hold("t")
    checkpoints.release("s")
    assert b"2" == checkpoints.take()


def test_a_release_settles_no_record():
    """A STATE that a released stream held back still waits for open records."""
    checkpoints = Checkpoints()
    checkpoints.hold("s")
    checkpoints.open()
    checkpoints.state(b"1")
    checkpoints.release("s")
    assert None is checkpoints.take()
    checkpoints.settle({0: 1})
    assert b"1" == checkpoints.take()


def test_releasing_a_stream_that_is_not_held_changes_nothing():
    """Streams of single changes may be released, too, and hold nothing back before or after."""
    checkpoints = Checkpoints()
    checkpoints.hold("s")
    checkpoints.state(b"1")
    checkpoints.release("t")
    assert None is checkpoints.take()


@given(st.integers(1, 50))
def test_states_in_a_row_of_a_held_stream_take_the_room_of_one(count):
    """Promise 8: repeated STATE during a snapshot does not fill the memory."""
    checkpoints = Checkpoints()
    checkpoints.hold("s")
    for number in range(count):
        checkpoints.state(b"%04d" % number)
    assert 4 == checkpoints.held_bytes
    checkpoints.release("s")
    assert b"%04d" % (count - 1) == checkpoints.take()
    assert 0 == checkpoints.held_bytes
