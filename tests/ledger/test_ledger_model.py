"""Any history of requests, against a model."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from target_moengage_cohort.core.membership import Member
from target_moengage_cohort.ledger.duckdb import journal
from tests.ledger.support import ADD, COHORT, REMOVE, STREAM, Model, assert_holds, ledgers
from tests.support.strategies import histories

ids = st.sampled_from(["1", "2", "3", "u", "a'\0é"])
people = st.one_of(
    st.builds(Member, uid=ids),
    st.builds(Member, anonymous_id=ids),
    st.builds(Member, uid=ids, anonymous_id=ids),
)
EVERYONE = [
    member
    for name in ["1", "2", "3", "u", "a'\0é"]
    for member in (Member(name), Member(None, name))
]
steps = histories(
    st.one_of(
        st.tuples(
            st.just("sent"),
            st.tuples(st.sampled_from([ADD, REMOVE]), st.lists(people, min_size=1, max_size=4)),
        ),
        st.tuples(st.sampled_from(["accepted", "refused"]), st.integers(0, 3)),
        st.tuples(st.sampled_from(["fold", "numbers", "reopen"]), st.none()),
    ),
    25,
)


@pytest.fixture(params=[None, 2], ids=["at once", "two rows at a time"])
def folded_at_a_time(request, monkeypatch):
    """Fold in many steps, as large ledgers do."""
    if request.param:
        monkeypatch.setattr(journal, "FOLDED_ROWS", request.param)
        monkeypatch.setattr(journal, "DELETED_ROWS", request.param)


@given(steps=steps)
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.usefixtures("folded_at_a_time")
def test_a_ledger_holds_what_its_history_amounts_to(tmp_path_factory, steps):
    """After any sequence of requests, responses, folds and reopenings the ledger has what a replay
    of all requests has, whether it folds in one step or in many."""
    folder = tmp_path_factory.mktemp("ledger")
    model, waiting, revision = Model(), [], 0
    room = ledgers(folder)
    try:
        for name, value in steps:
            ledger = room.open(COHORT, STREAM)
            if name == "sent":
                action, whom = value
                number = ledger.sent(action, whom, 1)
                model.sent(number, action, whom)
                waiting.append(number)
                assert ledger.revision > revision
                revision = ledger.revision
                assert not ledger.entry.is_settled
            elif name in {"accepted", "refused"} and waiting:
                number = waiting.pop(value % len(waiting))
                getattr(ledger, name)(number)
                model.answered(number, name)
            elif name == "fold":
                ledger.fold()
            elif name == "numbers":
                assert_holds(ledger, model.state(), EVERYONE)
            elif name == "reopen":
                room.close()
                with ledgers(folder, read_only=True) as looking:
                    assert_holds(looking.open(COHORT, STREAM), model.state(), EVERYONE)
                room = ledgers(folder)
                waiting.clear()
        ledger = room.open(COHORT, STREAM)
        assert_holds(ledger, model.state(), EVERYONE)
        room.close()
        with ledgers(folder) as again:
            assert_holds(again.open(COHORT, STREAM), model.state(), EVERYONE)
            assert (not model.state().doubts) == again.entries()[0].is_settled
    finally:
        room.close()
