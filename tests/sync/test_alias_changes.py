"""Anonymous IDs that go with a uid in streams of changes: who is left once the uid leaves."""

import pytest

from target_moengage_cohort.core.membership import Member
from target_moengage_cohort.delivery.ports import Timing
from target_moengage_cohort.ledger.engines import open_store
from target_moengage_cohort.settings import load
from target_moengage_cohort.sync.changes import outbox
from tests.support.look import members
from tests.support.singer import config, lines, record, run, schema, state

A, B = Member(None, "a"), Member(None, "b")
U, UA, UB = Member("u"), Member("u", "a"), Member("u", "b")
GONE = record(uid="u", member=False)
HISTORIES = {
    (A, UA): set(),
    (UA, A): {A.key},
    (A, UA, A): {A.key},
    (UA, A, UA): set(),
    (A, UA, A, UA): set(),
    (A, UA, A, UA, A): {A.key},
    (A, UA, U): set(),
    (A, UA, UB): set(),
    (A, UA, UB, B): {B.key},
    (A, UA, UB, B, UB, UA): set(),
    (UB, A, UA): set(),
    (B, A, UA, UB): set(),
}
"""Additions, and the members that are left after them once "u" leaves."""


def name(whom):
    return "-".join(f"{member.uid or ''}{member.anonymous_id or ''}" for member in whom)


histories = pytest.mark.parametrize(
    ("whom", "left"), HISTORIES.items(), ids=[name(whom) for whom in HISTORIES]
)


@pytest.fixture
def sync(emulator, tmp_path):
    """Runs additions of members and other messages; returns the outcomes."""

    def run_on(*whom, mode="incremental", **options):
        messages = [
            record(uid=each.uid, anonymous_id=each.anonymous_id, member=True)
            if isinstance(each, Member)
            else each
            for each in whom
        ]
        columns = {"membership_column": "member"} if mode == "incremental" else {}
        return run(
            emulator,
            lines(schema(columns=("uid", "anonymous_id", "member")), *messages),
            Timing(jitter=lambda _seconds: 0.0),
            anonymous_id_column="anonymous_id",
            ledger_uri=str(tmp_path / "ledger"),
            cohorts={"users": {"sync_mode": mode, **columns}},
            **options,
        )

    return run_on


@pytest.fixture
def remaining(emulator, sync):
    """Removes "u" and returns who is left; nothing is to be sent then."""

    def remove():
        assert sync(GONE).error is None
        assert [] == sync().attempts
        return members(emulator, "users")

    return remove


@histories
def test_the_last_row_with_an_anonymous_id_decides_whose_it_is(sync, remaining, whom, left):
    """An anonymous member leaves with the uid that was added with its id later, even if that has
    another id now, and stays if it was added again after that."""
    assert sync(*whom).error is None
    assert left == remaining()


@histories
def test_the_rows_of_several_batches_are_one_history(monkeypatch, sync, remaining, whom, left):
    """The outcome does not depend on how many rows are looked up together."""
    monkeypatch.setattr(outbox, "_BATCH_WITH_LEDGER", 1)
    assert sync(*whom).error is None
    assert left == remaining()


@histories
def test_the_rows_of_several_runs_are_one_history(sync, remaining, whom, left):
    """The outcome does not depend on which rows a run reads."""
    for each in whom:
        assert sync(each).error is None
    assert left == remaining()


@histories
def test_rows_that_are_read_again_end_the_same(sync, remaining, whom, left):
    """Rows that a later run reads again, all of them or the last ones, change no outcome."""
    for start in (0, 0, len(whom) - 2):
        assert sync(*whom[start:]).error is None
    assert left == remaining()


def test_rows_that_are_read_again_together_send_nothing(sync, remaining):
    """A run that reads an anonymous member again, and then its uid, has nothing to send: the one
    would only become an alias of the other once more. A new anonymous member is sent."""
    assert 2 == len(sync(A, UA).attempts)
    assert [] == sync(A, UA).attempts
    assert [] == sync(A, A, UA, UA).attempts
    assert 1 == len(sync(A, UA, A).attempts)
    assert [] == sync(A).attempts
    assert {A.key} == remaining()


@pytest.mark.parametrize("applied", [False, True], ids=["lost", "applied"])
@histories
def test_an_answer_that_is_lost_in_between_changes_no_outcome(
    emulator, sync, remaining, whom, left, applied
):
    """After runs that end without the answer to any request, the rows after the last STATE lead to
    the same members."""
    start = 0
    for answered in range(4):  # requests before the answer is lost
        rest = [each for row in range(start, len(whom)) for each in (whom[row], state(row + 1))]

        def lose(seen, _interrupt, answered=answered):
            if len(seen.attempts) > answered:
                emulator.fail_next(503, 1_000, applied=applied)

        seen = sync(*rest, before=lose, max_retry_seconds=0)
        emulator.clear_faults()
        start = seen.states[-1] if seen.states else start
    assert sync(*whom[start:]).error is None
    assert left == remaining()


def test_members_that_are_sent_again_keep_what_they_are(emulator, sync, tmp_path):
    """Anonymous members that are no aliases in the ledger are none after all members were marked as
    unconfirmed, however many requests they take."""
    pairs = [Member(f"u{number}", f"a{number}") for number in range(60)]
    alone = [Member(None, each.anonymous_id) for each in pairs]
    assert len(sync(*alone, *pairs, mode="add").attempts) == 1  # `add` makes no aliases of it
    settings = load(config(emulator, ledger_uri=str(tmp_path / "ledger"))).settings
    with open_store(settings, run_id="resync", wait=lambda _seconds: False) as store:
        ledger = store.open_known("users")
        ledger.stream.doubt([ledger.number])
    assert len(sync(max_payload_bytes=1_000).attempts) > 2
    assert sync(*(record(uid=each.uid, member=False) for each in pairs)).error is None
    assert {each.key for each in alone} == members(emulator, "users")


def test_a_refused_uid_takes_over_no_anonymous_id(emulator, sync, tmp_path):
    """An anonymous member stays one of its own while the uid with its id is refused."""
    emulator.poison(["u"])
    rejects = {"on_reject": "skip", "rejects_path": str(tmp_path / "rejects.singer")}
    sync(A, UA, **rejects)
    assert {A.key} == members(emulator, "users")
    sync(record(anonymous_id="a", member=False))
    assert set() == members(emulator, "users")


@pytest.mark.parametrize(
    ("rows", "most"),
    [
        (("a", "ua"), 2),
        (("ua", "a"), 1),
        (("a", "ua", "ub"), 5),
        (("a", "ua", "u"), 5),
        (("ua", "ub", "ua", "ub"), 1),
        (("a", "ua") * 10, 2),
    ],
    ids=str,
)
def test_histories_of_many_members_share_requests(sync, rows, most):
    """The rows of many people, each person's together, take no request for each person, but one for
    each row of a person at most, and two if aliases are removed."""
    whom = [
        Member(f"u{number}" if "u" in row else None, f"{row[-1]}{number}" if row != "u" else None)
        for number in range(100)
        for row in rows
    ]
    assert len(sync(*whom).attempts) <= most


def test_a_removal_that_was_not_confirmed_precedes_additions(emulator, sync):
    """The removal of an alias, sent again, comes before its uid, which it may remove as well."""
    sync(B, UA)

    def lose(seen, _interrupt):
        if seen.attempts[-1].body["action"] == "remove_members":
            emulator.fail_next(503, 1_000)

    assert sync(UB, before=lose, max_retry_seconds=0).error is not None
    emulator.clear_faults()
    sent = [each.body["action"] for each in sync(UB).attempts]
    assert "add_members" == sent[-1]
    assert "remove_members" in sent
