"""An empty audience is proven by a row without identifiers whose row count is 0."""

import pyarrow as pa
import pytest

from tests.support.batches import ARROW, JSONL, PARQUET, Folder, batch
from tests.support.logs import codes, warnings
from tests.support.singer import activate_version, lines, record, run, schema, state

COUNTED = {"cohorts": {"users": {"expected_count_column": "n"}}}
TYPES = {"uid": pa.string(), "n": pa.int64()}
ALL = {"max_removal_percent": 100}


@pytest.fixture
def mirror(emulator, tmp_path):
    """Runs a mirror of the stream `users` on a ledger of its own."""

    def go(*messages, **settings):
        options = {"ledger_uri": str(tmp_path / "ledger"), "sync_mode": "mirror", **COUNTED}
        return run(emulator, lines(*messages, state({"n": 1})), **options | settings)

    return go


def counted(*uids, n=None, **row):
    count = len(uids) if n is None else n
    return [record(uid=uid, n=count, **row) for uid in uids]


def with_columns(*columns, keys=(), **types):
    made = schema(columns=("uid", "n", *columns), keys=keys)
    made["schema"]["properties"] |= types
    return made


NOBODY = record(uid=None, n=0)


@pytest.fixture(params=["record", "jsonl", "parquet", "parquet null", "arrow"])
def empty_input(request, tmp_path):
    """The proof as RECORD, and in each kind of file."""
    if request.param == "record":
        return [with_columns(), NOBODY]
    kind = {"jsonl": JSONL, "arrow": ARROW}.get(request.param, PARQUET)
    types = None if request.param in {"jsonl", "parquet null"} else TYPES
    path = Folder(tmp_path / "files").file(kind, [{"uid": None, "n": 0}], types)
    return [with_columns(), batch(kind, path)]


def test_the_proof_empties_a_cohort(emulator, mirror, empty_input):
    """With max_removal_percent 100 everybody leaves; the row is no record, and STATE passes."""
    mirror(with_columns(), *counted("a", "b", "c"), **ALL)
    seen = mirror(*empty_input, **ALL)
    assert seen.error is None
    assert set() == emulator.members("users")
    (cohort,) = seen.report.cohorts
    assert (0, 0, 3, "count") == (cohort.records, cohort.rejected, cohort.removed, cohort.complete)
    assert ("succeeded", [{"n": 1}]) == (seen.report.status, seen.states)


def test_without_the_setting_it_is_withheld(emulator, mirror, empty_input):
    """Emptying a cohort needs max_removal_percent 100; the plan can be released."""
    mirror(with_columns(), *counted("a", "b"))
    seen = mirror(*empty_input)
    assert ("withheld", 3) == (seen.report.status, seen.report.exit_code)
    assert seen.report.cohorts[0].plan_id
    assert 2 == len(emulator.members("users"))


@pytest.mark.parametrize(
    "row",
    [
        {"uid": None, "n": "0"},
        {"uid": "", "n": 0},
        {"n": 0},
        {"uid": None, "n": 0.0},
        {"uid": None, "n": 0, "device": None},
        {"uid": None, "n": 0, "is_in": None, "_sdc_deleted_at": "2026-01-01"},
    ],
    ids=["text", "empty", "absent", "decimal", "both", "deleted non-member"],
)
def test_the_forms_of_the_proof(emulator, mirror, row):
    """The count may be text or a decimal; membership and deletion of the row do not matter."""
    keys = {"anonymous_id_column": "device", "membership_column": "is_in"}
    mapped = {"cohorts": {"users": {"expected_count_column": "n", **keys}}}
    begun = with_columns("device", "is_in")
    mirror(begun, *counted("a", "b", device="d", is_in=True), **mapped, **ALL)
    seen = mirror(begun, record(**row), **mapped, **ALL)
    assert seen.error is None
    assert set() == emulator.members("users")


def test_it_is_recognised_before_validation_and_keys(emulator, mirror):
    """Neither a schema that wants text nor a key property that is absent rejects it."""
    strict = with_columns("id", keys=["id"], uid={"type": "string"}, n={"type": "integer"})
    settings = {**ALL, "validate_records": True}
    mirror(strict, *counted("a", id=1), **settings)
    assert 1 == len(emulator.members("users"))
    seen = mirror(strict, NOBODY, **settings)
    assert (None, set()) == (seen.error, emulator.members("users"))
    rejected = mirror(strict, record(uid=None, n=1), **settings)
    assert "row_rejected" == rejected.error.code


def test_in_a_fan_out_it_empties_all_cohorts(emulator, mirror):
    """It needs no cohort, and says that no cohort of the stream has members."""
    fan_out = {"users": {"expected_count_column": "n", "cohort_id_column": "sid"}}
    begun = with_columns("sid")
    rows = [*counted("a", n=2, sid="x"), *counted("b", n=2, sid="y")]
    mirror(begun, *rows, cohorts=fan_out, **ALL)
    seen = mirror(begun, record(uid=None, n=0, sid=None), cohorts=fan_out, **ALL)
    assert seen.error is None
    assert (set(), set()) == (emulator.members("x"), emulator.members("y"))


def test_repeated_proofs_are_one(emulator, mirror):
    """A tap may send the row twice, as when it tries again."""
    mirror(with_columns(), *counted("a"), **ALL)
    seen = mirror(with_columns(), NOBODY, NOBODY, NOBODY, **ALL)
    assert (None, set()) == (seen.error, emulator.members("users"))


@pytest.mark.parametrize(
    "rows",
    [
        [NOBODY, *counted("a")],
        [*counted("a"), NOBODY],
        [NOBODY, *counted("a", n=0)],
        [*counted("a", n=0), NOBODY, NOBODY],
        [NOBODY, *counted("a", n=0, _sdc_deleted_at="2026-01-01")],
        [*counted("a", "b"), NOBODY],
    ],
    ids=["before", "after", "same count", "same, after", "deleted", "columns"],
)
def test_with_any_other_row_it_is_a_mismatch(emulator, mirror, rows):
    """An audience is not empty and not: nobody is removed, and no STATE is written."""
    mirror(with_columns(), *counted("a", "b"), **ALL)
    seen = mirror(with_columns(), *rows, **ALL)
    assert ("count_mismatch", []) == (seen.error.code, seen.states)
    assert {"a", "b"} == {member.uid for member in emulator.members("users")}


def test_a_row_without_identifier_and_another_count_is_rejected(mirror):
    """Only a count of 0 makes such a row a proof."""
    assert "row_rejected" == mirror(with_columns(), record(uid=None, n=1)).error.code


def test_without_the_column_it_is_a_row_like_any_other(mirror):
    """A stream without expected_count_column has no such proof."""
    seen = mirror(with_columns(), NOBODY, cohorts={"users": {}})
    assert "row_rejected" == seen.error.code


def test_the_first_input_may_be_empty(mirror, empty_input):
    """A new cohort without members succeeds, and sends nothing."""
    seen = mirror(*empty_input)
    assert ("succeeded", []) == (seen.report.status, seen.attempts)


ONCE = {"sync_mode": "one_time"}


def test_an_empty_audience_never_seals(emulator, mirror, caplog, empty_input):
    """A one_time stream stays open after an empty input, and the next one populates it."""
    seen = mirror(*empty_input, **ONCE)
    assert "succeeded" == seen.report.status
    assert ("one_time_empty", "users", "users") in warnings(caplog)
    caplog.clear()
    mirror(with_columns(), *counted("a"), **ONCE)
    assert 1 == len(emulator.members("users"))
    assert "one_time_empty" not in codes(caplog)
    mirror(with_columns(), *counted("a", "b"), **ONCE)
    assert 1 == len(emulator.members("users"))  # the second input has sealed it


@pytest.mark.parametrize(
    "messages",
    [
        counted("a", _sdc_deleted_at="2026-01-01"),
        [{**NOBODY, "record": {"uid": "x", "n": 1, "is_in": False}}],
        [],
    ],
    ids=["deleted", "non-members", "tap exit"],
)
def test_an_input_without_members_never_seals(emulator, tmp_path, caplog, messages):
    """Rows of nobody are no members, whatever proves the input."""
    mapped = {"users": {"expected_count_column": "n", "membership_column": "is_in"}}
    for each in messages:
        each["record"].setdefault("is_in", True)
    options = {"ledger_uri": str(tmp_path / "ledger"), "cohorts": mapped, **ONCE}
    begun = with_columns("is_in")
    run(emulator, lines(begun, *messages), tap_exit=lambda: 0, **options)
    assert "one_time_empty" in codes(caplog)
    caplog.clear()
    run(emulator, lines(begun, *counted("z", is_in=True)), **options)
    assert 1 == len(emulator.members("users"))


@pytest.mark.parametrize(("proof", "code"), [(False, "one_time_not_sealed"), (True, None)])
def test_a_one_time_without_proof_says_that_it_is_not_sealed(mirror, caplog, proof, code):
    """An input without proof adds members and seals nothing, and a warning says so."""
    rows = [{**record(uid="a"), "version": 1}]
    mirror(schema(), *rows, *[activate_version(1)] * proof, cohorts={"users": {}}, **ONCE)
    assert [code] * (code is not None) == [c for c in codes(caplog) if c.startswith("one_time")]


def test_a_sealed_one_time_warns_of_nothing(mirror, caplog):
    """Once it is sealed there is nothing left to prove."""
    mirror(with_columns(), *counted("a"), **ONCE)
    caplog.clear()
    seen = mirror(schema(), record(uid="b"), cohorts={"users": {}}, **ONCE)
    assert "sealed" == seen.report.cohorts[0].status
    assert [] == [c for c in codes(caplog) if c.startswith("one_time")]
