"""Rows that are marked deleted, in RECORD messages and in batch files of each format."""

from __future__ import annotations

import typing as t

import pyarrow as pa
import pytest

from tests.support.batches import ARROW, MAIN_KINDS, PARQUET, Folder, rejected, uids
from tests.support.singer import lines, record, run, schema, state

WAYS = {"RECORD": None, **MAIN_KINDS}
every_way = pytest.mark.parametrize("kind", WAYS.values(), ids=WAYS)
NOW = "2026-03-04T05:06:07Z"


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path / "files")


def messages(folder, kind, rows, head, types=None):
    """Return rows as RECORD messages, or as a BATCH with a file of a kind."""
    if kind is None:
        return [head, *(record(**row) for row in rows), state({"at": 1})]
    return [head, folder.batch(kind, rows, types), state({"at": 1})]


@every_way
@pytest.mark.parametrize(
    "mark", ["_sdc_deleted_at", "_SDC_DELETED_AT", "_Sdc_Deleted_At", "_SDC_LSN_DELETED_AT"]
)
@pytest.mark.parametrize("is_declared", [True, False], ids=["declared", "undeclared"])
def test_a_mark_counts_in_any_case(emulator, folder, kind, mark, is_declared):
    """A warehouse's upper-case mark, and tap-mssql's, is a deletion, declared or not."""
    head = schema(columns=["USER_ID", *([mark] if is_declared else [])])
    rows = [{"USER_ID": "in", mark: None}, {"USER_ID": "out", mark: NOW}]
    run(emulator, lines(schema(), record(uid="out")))
    options = {"cohorts": {"users": {"uid_column": "USER_ID"}}}
    seen = run(emulator, lines(*messages(folder, kind, rows, head)), **options)
    assert seen.error is None
    assert {"in"} == uids(emulator)
    assert [{"at": 1}] == seen.states


@every_way
@pytest.mark.parametrize("mode", ["incremental", "add", "mirror", "one_time"])
def test_a_mapping_names_a_mark_of_its_own(emulator, folder, kind, mode):
    """A soft delete's own column marks deletions in addition to those of taps."""
    head = schema(columns=["uid", "removed_on", "_sdc_deleted_at"])
    nothing = {"removed_on": None, "_sdc_deleted_at": None}
    rows = [
        {"uid": "in", **nothing},
        {"uid": "soft", **nothing, "removed_on": "2026-03-04"},
        {"uid": "hard", **nothing, "_sdc_deleted_at": NOW},
    ]
    options = {"cohorts": {"users": {"deleted_at_column": "REMOVED_ON", "sync_mode": mode}}}
    seen = run(emulator, lines(*messages(folder, kind, rows, head)), **options)
    assert seen.error is None
    assert {"in"} == uids(emulator)


@every_way
@pytest.mark.parametrize("mode", ["incremental", "mirror"])
@pytest.mark.parametrize("value", ["no", "0001-01-01 00:00:00", "2026"])
def test_a_mark_without_a_meaning_rejects_its_row(emulator, folder, kind, mode, value):
    """A mark that is neither a timestamp nor empty is neither an addition nor a removal."""
    rows = [{"uid": "odd", "_sdc_deleted_at": value}, {"uid": "in", "_sdc_deleted_at": ""}]
    path = folder.new("rejects")
    options = {"sync_mode": mode, "on_reject": "skip", "rejects_path": str(path)}
    head = schema(columns=["uid", "_sdc_deleted_at"])
    seen = run(emulator, lines(*messages(folder, kind, rows, head)), **options)
    assert {"in"} == uids(emulator)
    ((reason, row),) = rejected(path)
    assert ("odd", value) == (row["uid"], row["_sdc_deleted_at"])
    assert reason.startswith("the column '_sdc_deleted_at' ")
    assert 1 == seen.report.cohorts[0].rejected


@every_way
@pytest.mark.parametrize(("value", "is_in"), [(False, True), (True, None), (0, None), (7, None)])
def test_a_mark_of_another_type(emulator, folder, kind, value, is_in):
    """False is no deletion; true and numbers reject the row."""
    path = folder.new("rejects")
    head = schema(columns=["uid", "_sdc_deleted_at"])
    rows = [{"uid": "odd", "_sdc_deleted_at": value}]
    options = {"on_reject": "skip", "rejects_path": str(path)}
    run(emulator, lines(*messages(folder, kind, rows, head)), **options)
    assert ({"odd"} if is_in else set()) == uids(emulator)
    assert [] == rejected(path) if is_in else 1 == len(rejected(path))


@pytest.mark.parametrize("kind", [PARQUET, ARROW], ids=["parquet", "arrow"])
@pytest.mark.parametrize("mode", ["incremental", "mirror"])
@pytest.mark.parametrize(
    "type_", [pa.timestamp("ms"), pa.timestamp("ns", "UTC"), pa.date32()], ids=str
)
def test_times_of_a_columnar_file_are_marks(emulator, folder, kind, mode, type_):
    """Columns of times and dates mark deletions; a time of zero is a placeholder."""
    path = folder.new("rejects")
    types = {"uid": pa.string(), "_SDC_DELETED_AT": type_}
    unit = 20_000 * (1 if pa.types.is_date(type_) else 86_400 * 1_000)
    unit *= 1_000_000 if "ns" in str(type_) else 1
    rows = [
        {"uid": "in", "_SDC_DELETED_AT": None},
        {"uid": "out", "_SDC_DELETED_AT": unit},
        {"uid": "odd", "_SDC_DELETED_AT": 0},
    ]
    options = {"sync_mode": mode, "on_reject": "skip", "rejects_path": str(path)}
    run(emulator, lines(*messages(folder, kind, rows, schema(), types)), **options)
    assert {"in"} == uids(emulator)
    assert ["odd"] == [row["uid"] for _, row in rejected(path)]


def test_a_stream_map_keeps_marks_in_any_case(emulator):
    """A deletion survives a map that drops its column, whatever the case of that is."""
    rows = [record(id="out", _SDC_DELETED_AT=NOW), record(id="in", _SDC_DELETED_AT=None)]
    maps = {"users": {"uid": "id", "__else__": None}}
    head = schema(columns=["id", "_SDC_DELETED_AT"])
    run(emulator, lines(schema(), record(uid="out")))
    run(emulator, lines(head, *rows), stream_maps=maps)
    assert {"in"} == uids(emulator)


class TestDeletionsThatCarryOnlyTheirKey:
    """A log-based tap sends of a deleted row its key, which need not be the uid."""

    HEAD = schema(columns=("id", "user_id", "is_in", "_sdc_deleted_at"), keys=("id",))
    MAPPING: t.ClassVar = {"uid_column": "user_id", "membership_column": "is_in"}
    ROWS: t.ClassVar = [
        {"id": 1, "user_id": "u-1", "is_in": True, "_sdc_deleted_at": None},
        {"id": 1, "_sdc_deleted_at": NOW},
        {"id": 2, "_SDC_LSN_DELETED_AT": NOW},
        {"id": 3, "user_id": None, "is_in": None, "_sdc_deleted_at": NOW},
    ]

    def test_the_run_fails_and_says_what_it_is(self, emulator):
        """The message says that it is a deletion without an identifier, and the ways out."""
        said = [record(**row) for row in self.ROWS]
        data = lines(self.HEAD, said[0], state({"at": 1}), said[1], state({"at": 2}))
        seen = run(emulator, data, cohorts={"users": self.MAPPING})
        assert "deletion_without_identifier" == seen.error.code
        for text in ("is a deletion", "'user_id'", "REPLICA IDENTITY FULL", "mirror"):
            assert text in str(seen.error)
        assert "Fix the value" not in str(seen.error)
        assert [{"at": 1}] == seen.states

    @pytest.mark.parametrize("kind", [None, *MAIN_KINDS.values()], ids=["RECORD", *MAIN_KINDS])
    def test_with_skip_a_warning_says_that_they_are_lost(self, emulator, folder, kind, caplog):
        """The run goes on, and one warning with its code counts who stays in the cohort."""
        path = folder.new("rejects")
        options = {"on_reject": "skip", "rejects_path": str(path)}
        data = lines(*messages(folder, kind, self.ROWS, self.HEAD))
        seen = run(emulator, data, cohorts={"users": self.MAPPING}, **options)
        assert seen.error is None
        assert {"u-1"} == uids(emulator)
        (warning,) = [each for each in caplog.records if vars(each).get("code") == "deletion_lost"]
        assert "users" == warning.stream
        assert "3 rows" in warning.message
        assert 3 == len(rejected(path))

    def test_a_fan_out_that_cannot_tell_the_cohort_says_the_same(self, emulator):
        """A deletion without its cohort is told for what it is, too."""
        head = schema(columns=("id", "uid", "cohort", "_sdc_deleted_at"))
        options = {"cohorts": {"users": {"cohort_id_column": "cohort"}}}
        seen = run(emulator, lines(head, record(id=1, _sdc_deleted_at=NOW)), **options)
        assert "deletion_without_identifier" == seen.error.code
        assert "'cohort'" in str(seen.error)

    def test_sync_mode_add_skips_them(self, emulator):
        """Where deletions have no effect, none is lost."""
        options = {"cohorts": {"users": {"uid_column": "user_id", "sync_mode": "add"}}}
        data = lines(self.HEAD, *(record(**row) for row in self.ROWS))
        seen = run(emulator, data, **options)
        assert seen.error is None
        assert {"u-1"} == uids(emulator)

    def test_they_show_nothing_of_columns_that_no_schema_names(self, emulator, folder):
        """Deletions by key are no reason to call a column missing."""
        head = schema(columns=("id",))
        path = folder.new("rejects")
        options = {"on_reject": "skip", "rejects_path": str(path), "uid_column": "user_id"}
        seen = run(emulator, lines(head, record(id=1, _sdc_deleted_at=NOW)), **options)
        assert seen.error is None
        assert 1 == len(rejected(path))
