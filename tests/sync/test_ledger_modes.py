"""The ledger in the modes that send single changes: whole runs against the emulator."""

import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from target_moengage_cohort.core.errors import TryAgainError
from target_moengage_cohort.core.membership import Member
from target_moengage_cohort.emulator import Emulator
from target_moengage_cohort.ledger.engines import open_store
from target_moengage_cohort.ledger.records import PlanKind
from target_moengage_cohort.moengage.answers import Outcome
from target_moengage_cohort.settings import load
from tests.support.logs import codes
from tests.support.look import held
from tests.support.singer import UNLIMITED, config, lines, record, run, schema, state

ADD, REMOVE = "add_members", "remove_members"
COLUMNS = schema(columns=("uid", "anonymous_id", "member"))
COHORT_COLUMNS = schema(columns=("uid", "cohort"))
MAPPED = {"anonymous_id_column": "anonymous_id"}
JUDGED = {"cohorts": {"users": {"membership_column": "member"}}}


@pytest.fixture
def folder(tmp_path):
    return str(tmp_path / "ledger")


@pytest.fixture
def go(emulator, folder):
    """Runs the stream `users` with a ledger of its own."""

    def sync(*messages, first=COLUMNS, **options):
        options = {"ledger_uri": folder, **MAPPED, **options}
        return run(emulator, lines(first, *messages), **options)

    return sync


def joins(*uids, **row):
    return [record(uid=uid, member=True, **row) for uid in uids]


def leaves(*uids, **row):
    return [record(uid=uid, member=False, **row) for uid in uids]


def sent(seen):
    """Return the sent changes in order: the action, and the members as in the bodies."""
    return [
        (each.body["action"], sorted(each.body["parameters"]["members"], key=str))
        for each in seen.attempts
    ]


def uids(*names):
    return [{"uid": name} for name in names]


def members(emulator, cohort="users"):
    return {member.uid for member in emulator.members(cohort)}


@pytest.mark.parametrize(
    ("mode", "action", "again"),
    [("incremental", ADD, joins), ("add", ADD, leaves), ("remove", REMOVE, joins)],
)
def test_what_is_accepted_is_not_sent_again(go, mode, action, again):
    """Once MoEngage has accepted a change, a later run with the same rows sends only new ones."""
    first = go(*joins("a", "b"), state({"at": 1}), sync_mode=mode)
    assert [(action, uids("a", "b"))] == sent(first)
    known = go(*again("b", "a"), state({"at": 2}), sync_mode=mode)
    assert ([], [{"at": 2}]) == (known.attempts, known.states)
    news = go(*again("a", "c", "b"), state({"at": 3}), sync_mode=mode)
    assert [(action, uids("c"))] == sent(news)
    (cohort,) = news.report.cohorts
    assert (3, 2, "opened") == (cohort.records, cohort.unchanged, cohort.ledger)
    assert 1 == cohort.added + cohort.removed


def test_what_is_queued_is_not_sent_again(go):
    """Rows that repeat a queued change take no request, even with STATE in between."""
    seen = go(*joins("a"), state({"at": 1}), *joins("a"), state({"at": 2}), *joins("a", "b"))
    assert [(ADD, uids("a", "b"))] == sent(seen)
    assert [{"at": 2}] == seen.states[-1:]
    assert 2 == seen.report.cohorts[0].unchanged


def test_what_is_in_flight_is_not_sent_again(emulator, go):
    """A row that repeats a member of an unanswered request takes no further request."""
    emulator.latency(0.4, 1)
    everybody = [f"{number}-{'x' * 200}" for number in range(8)]
    rounds = [message for at in range(5) for message in (*joins(*everybody), state({"at": at}))]
    seen = go(*rounds, max_payload_bytes=1_000)
    listed = [member["uid"] for _, each in sent(seen) for member in each]
    assert sorted(everybody) == sorted(listed)
    assert {"at": 4} == seen.states[-1]


def test_a_change_of_what_is_queued_is_sent(emulator, go):
    """A row is compared with the state after all queued changes: a member may leave and join
    again."""
    go(*joins("a", "b"), **JUDGED)
    seen = go(*leaves("a", "b"), state({"at": 1}), *joins("a"), state({"at": 2}), **JUDGED)
    assert {"a"} == members(emulator)
    assert {"at": 2} == seen.states[-1]
    assert [] == go(*joins("a"), *leaves("b"), **JUDGED).attempts


def test_removals_of_members_never_seen_are_sent(emulator, go):
    """A ledger does not know earlier members, so a member's first removal is always sent."""
    run(emulator, lines(schema(), *joins("a", "b")))
    assert {"a", "b"} == members(emulator)
    seen = go(*leaves("a", "never"), **JUDGED)
    assert [(REMOVE, uids("a", "never"))] == sent(seen)
    assert {"b"} == members(emulator)
    assert [] == go(*leaves("a", "never"), **JUDGED).attempts


@pytest.mark.parametrize("row", [{}, {"anonymous_id": None}, {"anonymous_id": "other"}])
def test_a_removal_has_the_identifiers_that_were_accepted(emulator, go, row):
    """A removal has the identifiers that were accepted, whatever else the row has."""
    go(*joins("a", anonymous_id="device"), **JUDGED)
    seen = go(*leaves("a", **row), **JUDGED)
    assert [(REMOVE, [{"uid": "a", "anonymous_id": "device"}])] == sent(seen)
    assert set() == members(emulator)


def test_a_removal_has_the_identifiers_that_are_in_doubt(emulator, go):
    """The removal of an unconfirmed member has the identifiers of its last request."""
    emulator.fail_next(503, applied=True)
    lost = go(*joins("a", anonymous_id="device"), **JUDGED, max_retry_seconds=0)
    assert isinstance(lost.error, TryAgainError)
    seen = go(*leaves("a"), **JUDGED)
    assert [(REMOVE, [{"uid": "a", "anonymous_id": "device"}])] == sent(seen)
    assert set() == members(emulator)


def test_another_anonymous_id_beside_a_uid_is_an_addition(emulator, go):
    """A known member with a new anonymous ID is sent once more, and removed with that ID. The
    former ID is removed by itself, after which the member is sent again: it may be the same."""
    go(*joins("a", anonymous_id="old"), **JUDGED)
    seen = go(*joins("a", anonymous_id="new"), **JUDGED)
    again = (ADD, [{"uid": "a", "anonymous_id": "new"}])
    assert [again, (REMOVE, [{"anonymous_id": "old"}]), again] == sent(seen)
    assert [] == go(*joins("a", anonymous_id="new"), **JUDGED).attempts
    gone = go(*leaves("a"), **JUDGED)
    assert [(REMOVE, [{"uid": "a", "anonymous_id": "new"}])] == sent(gone)
    assert set() == members(emulator)


def test_state_waits_for_what_a_skipped_record_relies_on(emulator, go):
    """A skipped record is covered only once the queued change that it repeats is accepted."""
    emulator.fail_next(503, applied=True)
    rows = (*joins("a"), state({"at": 1}), *joins("a"), state({"at": 2}))
    lost = go(*rows, max_retry_seconds=0)
    assert isinstance(lost.error, TryAgainError)
    assert [] == lost.states
    seen = go(*rows)
    assert {"at": 2} == seen.states[-1]
    assert [(ADD, uids("a"))] == sent(seen)


def test_a_doubt_is_sent_again_at_the_end_of_input(emulator, go):
    """Unconfirmed changes of an earlier run are sent again after the rows of the next one."""
    emulator.fail_next(503, applied=True)
    lost = go(*joins("a", "b"), max_retry_seconds=0)
    assert 2 == lost.report.cohorts[0].in_doubt
    seen = go(*joins("c"), state({"at": 1}))
    assert ([{"at": 1}], None) == (seen.states, seen.error)
    assert {"a", "b", "c"} == members(emulator)
    assert sorted(["a", "b", "c"]) == sorted(m["uid"] for _, each in sent(seen) for m in each)
    assert 0 == seen.report.cohorts[0].in_doubt
    assert [] == go(*joins("a", "b", "c")).attempts


@pytest.mark.parametrize("applied", [False, True])
def test_a_doubt_about_a_removal_is_sent_again(emulator, go, applied):
    """A removal with a lost answer is sent again, whether it was applied or not."""
    go(*joins("a", "b"), **JUDGED)
    emulator.fail_next(503, applied=applied)
    go(*leaves("a"), **JUDGED, max_retry_seconds=0)
    seen = go(**JUDGED)
    assert [(REMOVE, uids("a"))] == sent(seen)
    assert {"b"} == members(emulator)


def test_a_newer_change_stands_for_a_doubt(emulator, go):
    """For an unconfirmed member with a newer row, only that row is sent."""
    emulator.fail_next(503, applied=True)
    go(*joins("a", "b", "c"), **JUDGED, max_retry_seconds=0)
    seen = go(*leaves("a"), *joins("b"), **JUDGED)
    assert {(REMOVE, "a"), (ADD, "b"), (ADD, "c")} == {
        (action, member["uid"]) for action, each in sent(seen) for member in each
    }
    assert {"b", "c"} == members(emulator)


def test_doubts_wait_for_an_input_that_ends_well(emulator, go):
    """A run on a broken input repeats no doubts, because newer rows may be missing."""
    emulator.fail_next(503, applied=True)
    go(*joins("a"), max_retry_seconds=0)
    broken = go(*joins("b"), b"{broken")
    assert broken.error is not None
    assert [(ADD, uids("b"))] == sent(broken)
    assert [(ADD, uids("a"))] == sent(go())


def test_doubts_of_a_fan_out_are_sent_again_for_cohorts_without_a_row(emulator, go, folder):
    """Unconfirmed changes are also sent again in cohorts without a row this time."""
    fan_out = {"first": COHORT_COLUMNS, "cohorts": {"users": {"cohort_id_column": "cohort"}}}
    fan_out["anonymous_id_column"] = None
    emulator.fail_next(503, applied=False)
    rows = [record(uid="a", cohort="one")]
    assert go(*rows, **fan_out, max_retry_seconds=0).error is not None
    seen = go(record(uid="b", cohort="two"), **fan_out)
    assert seen.error is None
    assert ({"a"}, {"b"}) == (members(emulator, "one"), members(emulator, "two"))
    assert not any(one.doubts for one in held(emulator, folder).values())


def test_no_members_are_kept_where_no_mode_needs_them(emulator, tmp_path):
    """Without a setting and without an existing ledger, other modes keep no member anywhere."""
    for mode in ("incremental", "add", "remove"):
        data = lines(schema(), *joins("planted"), state({"at": 1}))
        seen = run(emulator, data, sync_mode=mode)
        assert (1, "none") == (len(seen.attempts), seen.report.cohorts[0].ledger)
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not [path for path in written if path.suffix == ".duckdb"]
    assert not [path for path in written if b"planted" in path.read_bytes()]


def test_a_ledger_that_is_there_is_used(emulator, caplog):
    """An existing ledger is used in every mode, without any setting; other cohorts have none."""
    run(emulator, lines(schema(), *joins("a", "b")), sync_mode="mirror")
    assert ["ledger_created"] == codes(caplog)
    data = lines(schema(), *joins("a", "c"), schema("others"), record("others", uid="x"))
    seen = run(emulator, data)
    assert {("users", "c"), ("others", "x")} == {
        (each.body["parameters"]["cohort_id"], member["uid"])
        for each in seen.attempts
        for member in each.body["parameters"]["members"]
    }
    assert {"users": "opened", "others": "none"} == {
        cohort.cohort_id: cohort.ledger for cohort in seen.report.cohorts
    }


def test_changing_the_mode_of_a_stream_needs_no_step(emulator, go):
    """incremental, mirror, incremental, one_time, remove, mirror: each continues from the previous
    state, and sends the difference."""
    go(*joins("a", "b", "c"), **JUDGED)
    seen = go(*joins("a", "b", "d"), sync_mode="mirror", max_removal_percent=50)
    assert {(ADD, "d"), (REMOVE, "c")} == {(action, each[0]["uid"]) for action, each in sent(seen)}
    seen = go(*joins("a", "e"), *leaves("b", "d"), **JUDGED)
    assert [(ADD, uids("e")), (REMOVE, uids("b", "d"))] == sorted(sent(seen))
    assert {"a", "e"} == members(emulator)
    seen = go(*joins("f", "a"), sync_mode="one_time")
    assert [(ADD, uids("f"))] == sent(seen)
    seen = go(*joins("a"), sync_mode="remove")
    assert [(REMOVE, uids("a"))] == sent(seen)
    seen = go(*joins("a", "e", "f"), sync_mode="mirror")
    assert [(ADD, uids("a"))] == sent(seen)
    assert {"a", "e", "f"} == members(emulator)
    assert [] == go(*joins("a", "e", "f"), sync_mode="add").attempts


def waiting(emulator, folder):
    """Return the number of pending plans by cohort ID."""
    options = config(emulator, ledger_uri=folder)
    with open_store(load(options).settings, run_id="look", wait=lambda _: False) as ledgers:
        return {
            entry.cohort_id: sum(
                plan.kind is PlanKind.WAITING and not ledgers.is_void(plan)
                for plan in ledgers.open_known(entry.cohort_id).plans()
            )
            for entry in ledgers.entries()
        }


@pytest.mark.parametrize("mode", ["incremental", "add", "remove", "one_time", "mirror"])
def test_a_new_run_of_a_stream_voids_what_waits(emulator, go, folder, mode):
    """The next run of the stream, in any mode and even without rows, discards an earlier run's
    pending plans."""
    go(*joins("a", "b"), sync_mode="mirror")
    go(*joins("a"), sync_mode="mirror", removals="deferred")
    assert {"users": 1} == waiting(emulator, folder)
    go(sync_mode=mode, max_removal_percent=0)
    assert {"users": 0} == waiting(emulator, folder)
    assert {"a", "b"} == members(emulator)


@pytest.mark.parametrize("mode", ["incremental", "mirror"])
def test_a_new_run_of_a_fan_out_voids_what_waits_in_all_its_cohorts(emulator, go, folder, mode):
    """Pending plans of a stream also expire in cohorts without a row this time."""
    fan_out = {"first": COHORT_COLUMNS, "cohorts": {"users": {"cohort_id_column": "cohort"}}}
    fan_out["anonymous_id_column"] = None
    rows = [record(uid=uid, cohort=cohort) for uid in "ab" for cohort in ("one", "two")]
    go(*rows, sync_mode="mirror", **fan_out)
    go(*rows[:2], sync_mode="mirror", removals="deferred", **fan_out)
    assert {"one": 1, "two": 1} == waiting(emulator, folder)
    go(record(uid="a", cohort="one"), sync_mode=mode, max_removal_percent=0, **fan_out)
    assert {"one": 0, "two": 0} == waiting(emulator, folder)


def test_a_run_of_another_stream_voids_nothing(emulator, go, folder):
    """Pending plans of a stream survive runs of other streams."""
    go(*joins("a", "b"), sync_mode="mirror")
    go(*joins("a"), sync_mode="mirror", removals="deferred")
    data = lines(schema("others"), record("others", uid="x"))
    assert run(emulator, data, ledger_uri=folder).error is None
    assert {"users": 1, "others": 0} == waiting(emulator, folder)


COHORTS = ("one", "two")
NAMES = [f"user-{number}-{'x' * 150}" for number in range(8)]  # about four to a body
event = st.tuples(
    st.sampled_from(COHORTS),
    st.sampled_from(NAMES),
    st.sampled_from([None, "device", "phone"]),
    st.booleans(),
)
troubles = st.one_of(
    st.none(),
    st.lists(st.sampled_from(["500", "503 applied", "429", "413", "drop after"]), max_size=3),
    st.tuples(st.sampled_from(["fail", "fail applied", "interrupt"]), st.integers(1, 8)),
)
runs = st.lists(
    st.tuples(st.lists(st.one_of(event, event, event, st.just("state")), max_size=25), troubles),
    min_size=2,
    max_size=5,
)


@dataclass
class History:
    """A stream of changes that several runs read from the last STATE on, and their results.

    Attributes:
        events: All changes, with a mark for each STATE.
        position: The number of events that the last STATE covers.
        accepted: By cohort and uid, the action and member of the last acceptance.
        doubted: Cohort and uid of each member in a request that was not accepted, since then.
    """

    emulator: Emulator
    folder: str
    events: list = field(default_factory=list)
    position: int = 0
    accepted: dict = field(default_factory=dict)
    doubted: set = field(default_factory=set)

    def sync(self, trouble=None):
        """Run on the events that no STATE covers yet, and check the requests."""
        mapping = {"cohort_id_column": "cohort", "membership_column": "member", **MAPPED}
        expected = self._news()
        doubted = {*self.doubted}
        seen = run(
            self.emulator,
            self._input(),
            before=self._trouble(trouble),
            cohorts={"users": mapping},
            ledger_uri=self.folder,
            max_payload_bytes=1_000,
            max_retry_seconds=0 if isinstance(trouble, tuple) else 900,
        )
        self.emulator.clear_faults()
        for value in seen.states:
            self.position = value["position"]
        self._look(seen, expected | doubted)
        return seen

    def _input(self):
        columns = ("uid", "anonymous_id", "cohort", "member")
        said = [
            state({"position": at})
            if each == "state"
            else record(cohort=each[0], uid=each[1], anonymous_id=each[2], member=each[3])
            for at, each in enumerate(self.events[self.position :], self.position + 1)
        ]
        return lines(schema(columns=columns), *said)

    def _news(self):
        """Cohort and uid of each member with a change that differs from its expected state."""
        expected, found = {**self.accepted}, set()
        for each in self.events[self.position :]:
            if each != "state":
                cohort, uid, anonymous_id, present = each
                change = (ADD, Member(uid, anonymous_id)) if present else (REMOVE, None)
                if expected.get((cohort, uid)) != change:
                    found.add((cohort, uid))
                expected[cohort, uid] = change
        return found

    def _trouble(self, trouble):
        for kind in trouble if isinstance(trouble, list) else ():
            if kind.startswith("drop"):
                self.emulator.drop_next(when="after")
            else:
                headers = {"Retry-After": "0", "x-ratelimit-reset": "0"} if kind == "429" else {}
                self.emulator.fail_next(int(kind[:3]), applied="applied" in kind, headers=headers)

        def before(seen, interrupt):
            if isinstance(trouble, tuple) and len(seen.attempts) == trouble[1]:
                if trouble[0] == "interrupt":
                    interrupt.set()
                else:
                    self.emulator.fail_next(503, 1_000, applied="applied" in trouble[0])

        return before

    def _look(self, seen, allowed):
        settled = {each.data for each in seen.accepted}
        for each in seen.attempts:
            action, parameters = each.body["action"], each.body["parameters"]
            for member in parameters["members"]:
                if "uid" not in member:
                    key = parameters["cohort_id"], member["anonymous_id"]
                    assert (action, len(self._owners(*key)) > 0) == (REMOVE, True)
                    continue
                who = (parameters["cohort_id"], member["uid"])
                assert who in allowed | self._renamed(), (
                    "somebody was sent again whom nothing had changed"
                )
                if each.outcome is Outcome.ACCEPTED:
                    self.accepted[who] = (action, Member(**member) if action == ADD else None)
                    self.doubted.discard(who)
                elif each.data not in settled:
                    self.doubted.add(who)

    def _owners(self, cohort, anonymous_id):
        """Return the uids beside which an anonymous id has ever stood in a cohort."""
        rows = [each for each in self.events if each != "state" and each[0] == cohort]
        return {uid for _, uid, beside, present in rows if present and beside == anonymous_id}

    def _renamed(self):
        """Return cohort and uid of those with a former anonymous id; they go with its removal."""
        rows = {each[:3] for each in self.events if each != "state" and each[3]}
        return {row[:2] for row in rows if len([r for r in rows if r[:2] == row[:2]]) > 1}

    def wanted(self):
        """The members of each cohort after all changes."""
        last = {each[:2]: each for each in self.events if each != "state"}
        return {
            cohort: {
                Member(uid, anonymous_id)
                for name, uid, anonymous_id, present in last.values()
                if present and name == cohort
            }
            for cohort in COHORTS
        }


@pytest.fixture(scope="module")
def one_emulator():
    with Emulator(requests_per_minute=UNLIMITED) as running:
        yield running


@given(story=runs)
@settings(max_examples=15)
def test_any_history_converges_and_repeats_nothing(one_emulator, story):
    """After runs with any changes and faults, the cohorts equal the stream. Every member in a
    request was changed or unconfirmed, or is a former anonymous id, or the uid that had it."""
    one_emulator.reset()
    with tempfile.TemporaryDirectory() as folder:
        history = History(one_emulator, str(Path(folder) / "ledger"))
        for events, trouble in story:
            history.events += [*events, "state"]
            history.sync(trouble)
        last = history.sync()
        assert last.error is None
        assert len(history.events) == history.position
        wanted = history.wanted()
        there = {cohort: members(one_emulator, cohort) for cohort in COHORTS}
        assert {cohort: {one.uid for one in each} for cohort, each in wanted.items()} == there
        assert not any(one.doubts for one in held(one_emulator, history.folder).values())
        history.events = [
            (cohort, member.uid, member.anonymous_id, True)
            for cohort in COHORTS
            for member in wanted[cohort]
        ]
        history.position = 0
        assert [] == history.sync().attempts
