"""New cohorts of whose users MoEngage knows too few."""

import itertools
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from target_moengage_cohort.core.commands import suggest
from target_moengage_cohort.emulator import Emulator
from target_moengage_cohort.sync.changes import outbox
from target_moengage_cohort.sync.segments.match_guard import is_too_low, spread
from tests.support.ledger_places import MODES, placed
from tests.support.singer import UNLIMITED, lines, record, run, schema, state

GUARD = {"id_attribute": "uid", "min_match_percent": 50}
KNOWN = [f"k{number}" for number in range(3_000)]


def rows(stream="users", **cohorts):
    return [record(stream, uid=u, cohort=c) for c, uids in cohorts.items() for u in uids]


def queries(emulator):
    return [each.status for each in emulator.apis.calls() if each.endpoint == "query"]


def members(emulator, cohort):
    return {uid for uid, _ in emulator.members(cohort)}


def sent(seen):
    return {each.body["parameters"]["cohort_id"] for each in seen.attempts}


@pytest.fixture
def emulator():
    """An emulator that knows some users only."""
    with Emulator(requests_per_minute=UNLIMITED) as running:
        running.apis.know(KNOWN)
        yield running


@pytest.fixture(params=MODES)
def guarded(request, emulator):
    """Runs with the guard, in each mode and with each kind of ledger, of a stream with many cohorts
    by default."""
    cohorts, columns = {"users": {"cohort_id_column": "cohort"}}, schema(columns=("uid", "cohort"))
    with placed(request) as mode:
        options = {"cohorts": cohorts, **GUARD, **mode}
        yield lambda *messages, **changes: run(
            emulator, lines(columns, *messages), **options | changes
        )


def test_a_cohort_of_strangers_gets_nothing(emulator, guarded):
    """A new cohort below the percentage gets nothing, and no STATE passes its rows; the others are
    delivered. The next run counts again, and with a lower percentage delivers all of it."""
    bad = [*KNOWN[:49], *(f"x{number}" for number in range(51))]
    data = [*rows(good=KNOWN[:50], bad=bad), state(1)]
    for _ in range(2):
        seen = guarded(*data)
        assert ("match_too_low", 1, []) == (seen.error.code, seen.error.exit_code, seen.states)
        assert sent(seen) <= {"good"}
        status = {each.cohort_id: each.status for each in seen.report.cohorts}
        assert ({"good", "bad"}, "failed") == (status.keys(), status["bad"])
    assert ({*KNOWN[:50]}, set()) == (members(emulator, "good"), members(emulator, "bad"))
    seen = guarded(*data, min_match_percent=49)
    assert (None, [1], {*bad}) == (seen.error, seen.states, members(emulator, "bad"))


def test_known_cohorts_are_not_counted(emulator, guarded):
    """A cohort that has passed is not counted in later runs, whoever is added to it."""
    assert guarded(*rows(a=KNOWN[:2])).error is None
    assert [200] == queries(emulator)
    assert guarded(*rows(a=[*KNOWN[:2], *"xyz"])).error is None
    assert ([200], {*KNOWN[:2], *"xyz"}) == (queries(emulator), members(emulator, "a"))


def test_a_fixed_cohort_is_held_until_it_was_counted(emulator, guarded):
    """A cohort that the mapping names gets nothing before the end of the input, and STATE waits for
    the count."""
    messages = [schema("vip"), record("vip", uid="x"), state(1), record("vip", uid="y")]
    cohorts = {"vip": {}, "users": {"cohort_id_column": "cohort"}}
    seen = guarded(*messages, state(2), cohorts=cohorts)
    assert ("match_too_low", [], []) == (seen.error.code, seen.attempts, seen.states)
    good = [schema("vip"), *(record("vip", uid=uid) for uid in KNOWN[:9]), state(3)]
    seen = guarded(*good, cohorts=cohorts)
    assert (None, [3], {*KNOWN[:9]}) == (seen.error, seen.states, members(emulator, "vip"))


def test_five_cohorts_are_counted_at_a_time(emulator, guarded):
    """Twelve new cohorts take three queries."""
    cohorts = {f"c{number}": ["x" if number % 3 else "k1"] for number in range(12)}
    seen = guarded(*rows(**cohorts))
    assert ("match_too_low", 3) == (seen.error.code, len(queries(emulator)))
    assert {f"c{number}" for number in range(0, 12, 3)} == sent(seen)


def test_no_more_than_1000_members_are_counted(guarded):
    """Of a large cohort 1,000 members from all of it are counted, not the first ones."""
    strangers = [f"x{number}" for number in range(1_500)]
    seen = guarded(*rows(a=[*strangers, *KNOWN]), min_match_percent=55)
    assert None is seen.error  # about 66 percent; none of the first 1,000 members is known
    seen = guarded(*rows(b=[*KNOWN[:1_500], *strangers, *(f"y{n}" for n in range(1_500))]))
    assert "match_too_low" == seen.error.code
    assert "of 1,000 user IDs" in str(seen.error)


@pytest.mark.parametrize("answer", [428, 403, 400, "failed"])
def test_what_cannot_be_counted_is_withheld(emulator, guarded, answer):
    """If the count cannot be had, nothing is sent for the cohort, no STATE passes its rows, and the
    error says so; the next run delivers it."""
    if answer == "failed":
        emulator.apis.fail_queries()
    else:
        emulator.apis.fail_next(answer)
    seen = guarded(*rows(a=KNOWN[:3]), state(1))
    assert ("match_unknown", [], []) == (seen.error.code, seen.attempts, seen.states)
    assert str(answer).upper() in str(seen.error) or "failed" in str(seen.error)
    assert "k1" not in str(seen.error)
    assert [1] == guarded(*rows(a=KNOWN[:3]), state(1)).states


@pytest.mark.parametrize("has_own_key", [True, False])
@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_is_named(emulator, guarded, status, has_own_key):
    """If MoEngage refuses the key, the error names the setting that holds it, the scope that it
    needs, and the command that tries it, and does not say to run again."""
    emulator.apis.fail_next(status)
    key = {"analytics_api_key": "demo-key"} if has_own_key else {}
    seen = guarded(*rows(a=KNOWN[:3]), state(1), **key)
    assert ("match_unknown", [], []) == (seen.error.code, seen.attempts, seen.states)
    held = "analytics_api_key" if has_own_key else "data_api_key (analytics_api_key is not set)"
    for part in (held, "the scope Dashboard & Analyze APIs", suggest("check", "--probe")):
        assert part in str(seen.error)
    assert "un again" not in str(seen.error)


def test_nothing_is_counted_once_the_quota_is_used_up(emulator, guarded):
    """After a 428 the run makes no further query, and no cohort that it could not count gets
    anything."""
    emulator.apis.fail_next(428)
    seen = guarded(*rows(**{f"c{number}": KNOWN[:1] for number in range(12)}), state(1))
    assert ("match_unknown", [428]) == (seen.error.code, queries(emulator))
    assert ([], []) == (seen.attempts, seen.states)
    assert {"failed"} == {each.status for each in seen.report.cohorts}


def test_other_cohorts_are_counted_after_a_failed_query(emulator, guarded):
    """A query that fails says nothing of the cohorts that are in another one."""
    emulator.apis.fail_queries()
    seen = guarded(*rows(**{f"c{number}": KNOWN[:1] for number in range(7)}))
    assert ("match_unknown", [200, 200]) == (seen.error.code, queries(emulator))
    assert 2 == len(sent(seen))


def test_more_users_than_were_counted_are_unknown(emulator, guarded):
    """If MoEngage counts more users than there are user IDs, the count says nothing, and the cohort
    gets nothing."""
    answers = (
        {"data": {"request_id": "q"}},
        {"data": {"status": "SUCCESSFUL"}},
        {"data": [{"metric": 4, "cseq": 0}]},
    )
    for answer in answers:
        emulator.apis.fail_next(200, body=json.dumps(answer))
    seen = guarded(*rows(a=KNOWN[:3]), state(1))
    assert ("match_unknown", [], []) == (seen.error.code, seen.attempts, seen.states)
    assert "id_attribute" in str(seen.error)


def test_members_without_user_ids_cannot_be_counted(emulator, guarded):
    """Anonymous members have no ID attribute, so that a cohort of them only is withheld, unless the
    mapping's own percentage is 0."""
    columns = {"anonymous_id_column": "device", "uid_column": "uid", "cohort_id_column": "cohort"}
    data = [schema(columns=("uid", "device", "cohort")), record(uid="", device="d", cohort="a")]
    seen = guarded(*data, cohorts={"users": columns})
    assert ("match_unknown", []) == (seen.error.code, queries(emulator))
    seen = guarded(*data, cohorts={"users": columns | {"min_match_percent": 0}})
    assert (None, {"a"}) == (seen.error, sent(seen))


def test_a_member_that_is_removed_is_not_counted(emulator):
    """Of a new cohort of changes, members whose last change is a removal are not counted."""
    columns = schema(columns=("uid", "in"))
    changes = [("x", True), ("y", True), ("k1", True), ("x", False), ("y", False), ("z", False)]
    data = lines(columns, *(record(**{"uid": uid, "in": there}) for uid, there in changes))
    seen = run(emulator, data, cohorts={"users": {"membership_column": "in"}}, **GUARD)
    assert (None, [200]) == (seen.error, queries(emulator))


def test_a_dry_run_counts_nothing(emulator, guarded):
    """A dry run sends no identifier, so it asks for no count, and does as if all were known."""
    seen = guarded(*rows(a="xyz"), dry_run=True)
    assert (None, []) == (seen.error, emulator.apis.calls())


def test_a_long_input_is_counted_before_it_begins(emulator, monkeypatch):
    """If the changes that are held take too much memory, their cohorts are counted, and those that
    fail get nothing of the rest of the input either."""
    monkeypatch.setattr(outbox, "_MOST_HELD", 3)
    monkeypatch.setattr(outbox, "_BATCH", 1)
    cohorts = {"users": {"cohort_id_column": "cohort"}}
    data = lines(
        schema(columns=("uid", "cohort")),
        *rows(bad="123", good=KNOWN[:2]),
        state(1),
        *rows(bad=KNOWN[:9]),
        *rows(good=KNOWN[5:6]),
    )
    seen = run(emulator, data, piecemeal=True, cohorts=cohorts, **GUARD)
    assert ("match_too_low", {"good"}, []) == (seen.error.code, sent(seen), seen.states)
    assert {*KNOWN[:2], KNOWN[5]} == members(emulator, "good")


def test_rows_of_files_are_counted(emulator, tmp_path):
    """The rows of a Parquet file, which never become Python's, are counted, too."""
    path = tmp_path / "rows.parquet"
    options = {"sync_mode": "mirror", "ledger_uri": str(tmp_path / "ledger"), **GUARD}

    def batch(uids):
        pq.write_table(pa.table({"uid": uids, "gone": [False] * len(uids)}), path)
        encoding = {"format": "parquet", "compression": "none"}
        message = {"type": "BATCH", "stream": "users", "encoding": encoding}
        return lines(schema(), message | {"manifest": [path.as_uri()]})

    seen = run(emulator, batch(["k1", *"xyz"]), **options)
    assert ("match_too_low", []) == (seen.error.code, seen.attempts)
    assert "knows 1 of 4 user IDs" in str(seen.error)
    assert run(emulator, batch(["k1", "k2", *"xy"]), **options).error is None


def test_an_empty_cohort_passes(emulator, tmp_path):
    """A new cohort to which nothing is added needs no count."""
    data = lines(schema(columns=("uid", "n")), record(uid=None, n=0))
    mapping = {"users": {"sync_mode": "mirror", "expected_count_column": "n"}}
    seen = run(emulator, data, cohorts=mapping, ledger_uri=str(tmp_path / "ledger"), **GUARD)
    assert (None, []) == (seen.error, queries(emulator))


@given(known=st.integers(0, 1_000), counted=st.integers(1, 1_000), percent=st.integers(0, 100))
def test_the_percentage_is_exact(known, counted, percent):
    """A cohort is refused exactly if the known users are less than so many percent of those that
    were counted."""
    assert (known / counted * 100 < percent - 1e-9) == is_too_low(known, counted, percent)


@given(items=st.lists(st.integers(), unique=True), most=st.integers(1, 20))
def test_a_sample_is_spread_over_all_items(items, most):
    """A sample has as many items as asked for, or all, each once and in their order, without a
    large gap."""
    chosen = spread(items, most)
    assert min(most, len(items)) == len(chosen) == len({*chosen})
    places = [items.index(each) for each in chosen]
    assert places == sorted(places)
    gaps = [later - former for former, later in itertools.pairwise(places)]
    assert all(gap <= len(items) / len(chosen) + 1 for gap in gaps)


def test_the_report_has_the_error(emulator, tmp_path):
    """The report names the error by its code."""
    report = tmp_path / "report.json"
    run(emulator, lines(schema(), record(uid="x")), report_path=str(report), **GUARD)
    written = json.loads(report.read_text())
    assert ("failed", "match_too_low") == (written["status"], written["error"]["code"])
