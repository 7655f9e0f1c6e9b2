"""Any history of requests, against a model."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from target_moengage_cohort.core.membership import Member
from target_moengage_cohort.ledger.duckdb import folding
from target_moengage_cohort.ledger.duckdb import members as members_module
from target_moengage_cohort.ledger.records import RequestState
from tests.ledger import databases
from tests.ledger.support import (
    ADD,
    OTHER_STREAM,
    REMOVE,
    STREAM,
    Model,
    assert_holds,
    cohort,
    copied,
    ledgers,
    send,
)
from tests.support.strategies import histories

pytestmark = pytest.mark.contract(more=["looked up"])

NAMES = ["1", "2", "u", "a'\0é"]
STREAMS = {"c0": STREAM, "c1": STREAM, "c2": OTHER_STREAM}
ids = st.sampled_from(NAMES)
people = st.one_of(
    st.builds(Member, uid=ids),
    st.builds(Member, anonymous_id=ids),
    st.builds(Member, uid=ids, anonymous_id=ids),
)
EVERYONE = [member for name in NAMES for member in (Member(name), Member(None, name))]
requests = st.lists(people, min_size=1, max_size=4, unique_by=lambda member: member.key)
cohorts = st.sampled_from([*STREAMS])
steps = histories(
    st.one_of(
        st.tuples(
            st.sampled_from(["accepted", "refused", "unanswered", "sent"]),
            cohorts,
            st.tuples(st.sampled_from([ADD, REMOVE]), requests),
        ),
        st.tuples(st.sampled_from(["fold", "check"]), cohorts, st.none()),
        st.tuples(st.sampled_from(["reopen", "look", "crash", "end"]), st.none(), st.none()),
    ),
    25,
)


class Life:
    """The ledgers of some cohorts, and models of them."""

    def __init__(self, folder):
        self.folder = folder
        self.models = {name: Model() for name in STREAMS}
        self.waiting = {}  # the request in flight of each cohort that has one
        self.revisions = dict.fromkeys(STREAMS, 0)
        self.copies = 0
        self.store = ledgers(folder)
        self.store.begin(STREAM)  # so that there is a directory to copy

    def ledger(self, name, store=None):
        return (store or self.store).open(cohort(name), STREAMS[name])

    def answer(self, name, state):
        if name in self.waiting:
            number = self.waiting.pop(name)
            self.ledger(name).answered(number, RequestState[state.upper()])
            self.models[name].answered(number, state)

    def send(self, name, action, whom):
        ledger = self.ledger(name)
        number = send(ledger, action, whom)
        assert number > max((max(m.requests, default=0) for m in self.models.values()), default=0)
        self.models[name].sent(number, action, whom)
        self.waiting[name] = number
        assert ledger.revision > self.revisions[name]
        self.revisions[name] = ledger.revision

    def die(self):
        self.models = {name: model.died() for name, model in self.models.items()}
        self.waiting = {}

    def check(self, store=None):
        models = self.models
        if store is not None:
            models = {name: model.died() for name, model in models.items()}
        for name, model in models.items():
            ledger = self.ledger(name, store)
            assert_holds(ledger, model.state(), EVERYONE)
            assert self.revisions[name] == ledger.revision

    def copy(self):
        self.copies += 1
        return copied(self.folder, str(self.copies))

    def look(self):
        """Check the present files without folding: the answered requests are in control."""
        with ledgers(self.copy(), read_only=True) as looking:
            unfolded = {entry.cohort_id: entry.unfolded for entry in looking.entries()}
            for name, number in self.waiting.items():
                assert unfolded[name] >= 1, number
            self.check(looking)

    def crash(self):
        """Continue with the files as they are now."""
        copy = self.copy()
        self.store.close()
        self.folder = copy
        self.die()
        self.store = ledgers(self.folder)

    def reopen(self):
        self.store.close()
        databases.free_leases(self.folder)  # a request may have been in flight
        self.die()
        with ledgers(self.folder, read_only=True) as looking:
            self.check(looking)
        self.store = ledgers(self.folder)

    def end(self):
        self.store.end_requests()
        self.die()

    def do(self, name, of, value):
        if name in {"accepted", "refused", "unanswered", "sent"}:
            self.answer(of, "refused" if name == "sent" else name)
            self.send(of, *value)
            if name != "sent":
                self.answer(of, name)
        elif name == "fold":
            self.ledger(of).stream.fold()
        elif name == "check":
            assert_holds(self.ledger(of), self.models[of].state(), EVERYONE)
        else:
            getattr(self, name)()


@pytest.fixture(params=[None, 2], ids=["at once", "two rows at a time"])
def _folded_at_a_time(request, monkeypatch):
    """Fold in many steps, as large ledgers do."""
    if request.param:
        monkeypatch.setattr(folding, "FOLDED_ROWS", request.param)
        monkeypatch.setattr(members_module, "DELETED_ROWS", request.param)


_THREE = [Member("2"), Member("1"), Member("u")]
_REPLACED = [  # more looked-up rows than one deletion may have
    ("accepted", "c2", (ADD, _THREE)),
    ("reopen", None, None),
    ("accepted", "c2", (ADD, [Member("1"), Member("2"), Member("u", "1")])),
]


@given(steps=steps)
@example(steps=_REPLACED)
@settings(max_examples=12)
@pytest.mark.usefixtures("_folded_at_a_time")
def test_ledgers_hold_what_their_histories_amount_to(tmp_path_factory, steps):
    """After any sequence of requests, answers, folds, crashes and reopenings the ledgers of several
    cohorts and streams have what a replay of all requests has, whether they fold in one step or in
    many, or only look as if folded."""
    life = Life(tmp_path_factory.mktemp("ledger") / "l")
    try:
        for name, of, value in steps:
            life.do(name, of, value)
        life.look()
        life.reopen()
        life.check()
        settled = {entry.cohort_id: entry.is_settled for entry in life.store.entries()}
        for name, is_settled in settled.items():
            assert (not life.models[name].state().doubts) == is_settled
    finally:
        life.store.close()
