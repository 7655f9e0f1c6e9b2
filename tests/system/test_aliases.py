"""Anonymous ids that go with a uid: whatever MoEngage makes of them, cohorts end right."""

from __future__ import annotations

import os

import hypothesis.strategies as st
import pytest
from hypothesis import Phase, given, settings

from target_moengage_cohort.core.membership import Member
from target_moengage_cohort.delivery.ports import Timing
from target_moengage_cohort.emulator import Emulator
from tests.support.look import members
from tests.support.singer import UNLIMITED, lines, record, run, schema
from tests.support.strategies import histories

EXAMPLES = int(os.environ.get("EXAMPLES", "4")) * 2
PEOPLE = ("1", "2")
DEVICES = ("a", "b")
EVERYONE = [
    member
    for uid in PEOPLE
    for member in (
        Member(uid),
        *(Member(None, uid + device) for device in DEVICES),
        *(Member(uid, uid + device) for device in DEVICES),
    )
]
FAULTS = st.sampled_from([None, None, None, ("503 applied", 1), ("503", 2), ("interrupt", 2)])
SHORT = settings(max_examples=EXAMPLES, phases=[Phase.generate], database=None)
turns = histories(
    st.tuples(st.lists(st.sampled_from(EVERYONE), max_size=3), st.sampled_from([0, 1, 2]), FAULTS),
    6,
)


class Life:
    """The runs of one stream."""

    def __init__(self, emulator, folder, **mapping):
        self.emulator, self.folder, self.mapping = emulator, folder, mapping

    def run(self, rows, fault=None):
        """Run on rows, each a member and whether it belongs; return the number of requests."""
        kind, when = fault or (None, 0)

        def before(seen, interrupt):
            if len(seen.attempts) == when and kind == "interrupt":
                interrupt.set()
            elif len(seen.attempts) == when and kind is not None:
                self.emulator.fail_next(503, 1_000, applied="applied" in kind)

        messages = [
            record(uid=member.uid, anonymous_id=member.anonymous_id, member=present)
            for member, present in rows
        ]
        seen = run(
            self.emulator,
            lines(schema(columns=("uid", "anonymous_id", "member")), *messages),
            Timing(jitter=lambda _seconds: 0.0),
            before=before,
            tap_exit=lambda: 0,
            anonymous_id_column="anonymous_id",
            max_removal_percent=100,
            max_retry_seconds=0 if fault else 900,
            ledger_uri=self.folder,
            cohorts={"users": self.mapping | {"membership_column": "member"}},
        )
        self.emulator.clear_faults()
        assert fault or seen.error is None, seen.error
        return len(seen.attempts)

    def converge(self, rows):
        """Run until nothing is sent, which is soon."""
        assert 0 in [self.run(rows) for _ in range(4)]


def assert_right(emulator, wanted, *, merges):
    """Check that a cohort has its members, and no one else but them under another identifier."""
    found = members(emulator, "users")
    users = {
        (member.anonymous_id,): member.uid for member in wanted.values() if member.uid is not None
    }
    if merges:
        known = emulator.state.users()
        assert {
            known.get(key[0], key) if isinstance(key, tuple) else key for key in wanted
        } == found
    else:
        assert wanted.keys() <= found
        assert found - wanted.keys() <= users.keys()


@pytest.fixture(scope="module", params=[False, True], ids=["apart", "merged"])
def moengage(request):
    with Emulator(requests_per_minute=UNLIMITED, merges=request.param) as running:
        yield running


def first_names(whom, linked):
    """Leave out anonymous members whose ids have gone with a uid: they are known by that now."""
    chosen = []
    for member in whom:
        if member.uid is not None:
            linked |= {member.anonymous_id} - {None}
        if member.uid is not None or member.anonymous_id not in linked:
            chosen.append(member)
    return chosen


@given(history=turns)
@SHORT
def test_a_mirror_ends_right_whether_identifiers_merge_or_not(tmp_path_factory, moengage, history):
    """After any runs with any faults, runs without any leave no identifier in the cohort that does
    not belong, and miss none that does; soon nothing is left to send."""
    moengage.reset()
    life = Life(moengage, str(tmp_path_factory.mktemp("ledger")), sync_mode="mirror")
    merges, wanted, linked = moengage.state.options.merges, {}, set()
    for whom, _, fault in history:
        rows = first_names(whom, linked) if merges else whom
        wanted = {member.key: member for member in rows}
        life.run([(member, True) for member in rows], fault)
    life.converge([(member, True) for member in wanted.values()])
    assert_right(moengage, wanted, merges=merges)


@given(history=turns)
@SHORT
def test_changes_end_right_whether_identifiers_merge_or_not(tmp_path_factory, moengage, history):
    """After any changes with any faults, the cohort has each member whose last change added it, and
    no anonymous member that went with a uid which has left or has another id now.

    If identifiers merge, an anonymous member that comes after its uid is not a member of its own.
    """
    moengage.reset()
    life = Life(moengage, str(tmp_path_factory.mktemp("ledger")), sync_mode="incremental")
    wanted, linked, merges = {}, set(), moengage.state.options.merges
    for whom, odds, fault in history:
        rows = []
        for number, member in enumerate(whom):
            is_gone = number % 3 == odds
            named = Member(member.uid) if is_gone and member.uid is not None else member
            chosen = first_names([named], linked) if merges else [named]
            rows += [(each, not is_gone) for each in chosen]
        for member, present in rows:
            wanted.pop(member.key, None)
            if present:
                wanted[member.key] = member
                if member.uid is not None:
                    wanted.pop((member.anonymous_id,), None)
        if fault:
            life.run(rows, fault)
        life.run(rows)
    life.converge([])
    assert_right(moengage, wanted, merges=merges)
