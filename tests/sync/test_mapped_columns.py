"""Mapped columns that a SCHEMA does not name are taken from the rows."""

from __future__ import annotations

import pytest

from target_moengage_cohort.core.errors import InputError, SettingsError
from target_moengage_cohort.sync import mapped_columns
from tests.support.batches import MAIN_KINDS, Folder, rejected, uids
from tests.support.singer import activate_version, lines, record, run, schema, state

OPEN = {"type": "SCHEMA", "stream": "users", "schema": {"type": "object"}, "key_properties": []}
WAYS = {"RECORD": None, **MAIN_KINDS}
every_way = pytest.mark.parametrize("kind", WAYS.values(), ids=WAYS)


def opened(*keys, **schema_):
    """Return a SCHEMA that is open: it names no property, or only some."""
    return OPEN | {"schema": {"type": "object"} | schema_, "key_properties": list(keys)}


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path / "files")


def data(folder, kind, head, rows):
    said = [record(**row) for row in rows] if kind is None else [folder.batch(kind, rows)]
    return lines(head, *said, state({"at": 1}))


SCHEMAS = {
    "no properties": opened("_id"),
    "some properties": opened("_id", properties={"spent": {"anyOf": [{"type": "number"}, {}]}}),
    "patterns": opened(patternProperties={"^_": {"type": "string"}}),
    "combined": opened(allOf=[{"properties": {"_id": {}}}]),
    "empty": OPEN | {"schema": {}},
    "annotated": opened(**{"x-origin": {"table": "users"}}),
    "null, too": OPEN | {"schema": {"type": ["null", "object"]}},
    "by reference": OPEN | {"schema": {"$ref": "#/$defs/row", "$defs": {"row": {}}}},
}


@every_way
@pytest.mark.parametrize("head", SCHEMAS.values(), ids=SCHEMAS)
@pytest.mark.parametrize("mode", ["incremental", "mirror"])
def test_a_column_may_be_in_the_rows_alone(emulator, folder, kind, head, mode):
    """A document store's SCHEMA names no column, or only some; the rows have them."""
    rows = [{"_id": "m-1", "spent": 2.5}, {"_id": "m-2", "spent": 1.0}]
    options = {"cohorts": {"users": {"uid_column": "_id", "sync_mode": mode}}}
    seen = run(emulator, data(folder, kind, head, rows), **options)
    assert seen.error is None
    assert {"m-1", "m-2"} == uids(emulator)
    assert [{"at": 1}] == seen.states


@every_way
def test_all_roles_may_be_in_the_rows_alone(emulator, folder, kind):
    """Cohort, membership, row count and deletion are taken from rows, too."""
    rows = [
        {"u": "a", "d": "d1", "c": "x", "is_in": True, "n": 3, "gone": None},
        {"u": "b", "d": "d2", "c": "y", "is_in": False, "n": 3, "gone": None},
        {"u": "c", "d": "d3", "c": "y", "is_in": True, "n": 3, "gone": "2026-03-04"},
    ]
    columns = {"uid": "u", "anonymous_id": "d", "cohort_id": "c", "membership": "is_in"}
    columns |= {"expected_count": "n", "deleted_at": "gone"}
    mapping = {f"{role}_column": column for role, column in columns.items()}
    options = {"cohorts": {"users": mapping | {"sync_mode": "mirror"}}}
    seen = run(emulator, data(folder, kind, OPEN, rows), **options)
    assert seen.error is None
    assert ({"a"}, []) == (uids(emulator, "x"), list(emulator.members("y")))


def test_a_later_schema_names_more_columns(emulator):
    """SCHEMAs that grow with what the rows have change nothing."""
    said = [opened(), record(_id="m-1"), opened(properties={"seen": {}}), record(_id="m-2", seen=1)]
    seen = run(emulator, lines(*said, state({"at": 1})), uid_column="_id")
    assert seen.error is None
    assert {"m-1", "m-2"} == uids(emulator)


def test_a_table_without_properties_is_a_mirror_with_proof(emulator):
    """An ACTIVATE_VERSION proves a stream whose SCHEMA is open."""
    rows = [record(_id=uid) | {"version": 7} for uid in ("m-1", "m-2")]
    options = {"cohorts": {"users": {"uid_column": "_id", "sync_mode": "mirror"}}}
    seen = run(emulator, lines(OPEN, *rows, activate_version(7)), **options)
    assert "activate_version" == seen.report.cohorts[0].complete.value


@pytest.mark.parametrize("settings", [{}, {"validate_records": True}], ids=["plain", "SDK"])
def test_the_sdk_takes_open_schemas(emulator, settings):
    """Stream maps and validation work with a SCHEMA that does not name its own key."""
    rows = [record(_id="m-1"), record(_id="m-2")]
    maps = {"users": {"uid": "_id"}}
    seen = run(emulator, lines(opened("_id"), *rows), stream_maps=maps, **settings)
    assert seen.error is None
    assert {"m-1", "m-2"} == uids(emulator)


ROWS = [{"Uid": "m-1", "plan": "pro"}, {"Uid": "m-2", "plan": "free"}]


@every_way
@pytest.mark.parametrize("on_reject", ["fail", "skip"])
@pytest.mark.parametrize("mode", ["incremental", "mirror", "one_time"])
def test_a_column_that_no_row_has_is_an_error(emulator, folder, kind, on_reject, mode):
    """The error names the setting, the column, and what the rows have; nobody is removed, and no
    STATE passes the rows, though they are in the rejects file."""
    options = {"sync_mode": mode, "max_removal_percent": 100, "ledger_uri": str(folder.path)}
    run(emulator, lines(schema(), record(uid="m-0")), **options)
    if on_reject == "skip":
        options |= {"on_reject": "skip", "rejects_path": str(folder.new("rejects"))}
    seen = run(emulator, data(folder, kind, OPEN, ROWS), tap_exit=lambda: 0, **options)
    assert isinstance(seen.error, SettingsError)
    assert "missing_column" == seen.error.code
    assert "uid_column: the stream 'users' has no column 'uid'; it has 'Uid'" in str(seen.error)
    assert "set uid_column: Uid" in str(seen.error)
    assert "m-1" not in str(seen.error)
    assert {"m-0"} == uids(emulator)
    assert [] == seen.states
    assert "failed" == seen.report.status


def test_a_state_before_the_first_row_without_the_column_comes_out(emulator, tmp_path):
    """Only what is after the rows in question waits for them; once a row has the column, nothing
    waits."""
    path = tmp_path / "rejects"
    options = {"on_reject": "skip", "rejects_path": str(path)}
    said = [schema("first"), record("first", uid="x"), state({"at": 1}), OPEN, record(plan="pro")]
    seen = run(emulator, lines(*said, state({"at": 2})), **options)
    assert "missing_column" == seen.error.code
    assert [{"at": 1}] == seen.states
    seen = run(
        emulator, lines(*said, state({"at": 2}), record(uid="m-1"), state({"at": 3})), **options
    )
    assert seen.error is None
    assert {"at": 3} == seen.states[-1]
    assert {"m-1"} == uids(emulator)
    assert ["no identifier: 'uid' is null, empty or absent"] * 2 == [
        reason for reason, _ in rejected(path)
    ]


def test_the_number_of_rows_without_the_column_is_bounded(emulator, tmp_path, monkeypatch):
    """An endless stream of rows without the column ends, and few of them are rejected."""
    monkeypatch.setattr(mapped_columns, "_MOST_ROWS", 30)
    path = tmp_path / "rejects"
    rows = [record(**{f"c{number}": 1}) for number in range(1_000)]
    seen = run(emulator, lines(OPEN, *rows), on_reject="skip", rejects_path=str(path))
    assert "missing_column" == seen.error.code
    assert "'c0', 'c1'" in str(seen.error)
    assert 30 == len(rejected(path))


def test_one_stream_without_its_column_does_not_hold_up_another(emulator, tmp_path):
    """The rows of a stream that has its columns are delivered."""
    said = [
        schema("good"),
        OPEN,
        record("good", uid="a"),
        record(plan="x"),
        record("good", uid="b"),
    ]
    options = {"on_reject": "skip", "rejects_path": str(tmp_path / "rejects")}
    seen = run(emulator, lines(*said), **options)
    assert "missing_column" == seen.error.code
    assert {"a", "b"} == uids(emulator, "good")


def test_a_stream_without_rows_lacks_nothing(emulator):
    """An empty view with an open SCHEMA is no error: nothing shows what its rows would have."""
    seen = run(emulator, lines(OPEN, state({"at": 1})))
    assert seen.error is None
    assert [{"at": 1}] == seen.states


@every_way
@pytest.mark.parametrize("nobody", [{"n": 0}, {"uid": None, "n": 0}], ids=["absent", "null"])
def test_a_row_that_proves_emptiness_needs_no_other_column(emulator, folder, kind, nobody):
    """The row of an empty audience may have its row count alone, with an open SCHEMA, too."""
    mapping = {"sync_mode": "mirror", "expected_count_column": "n", "membership_column": "is_in"}
    options = {"cohorts": {"users": mapping}, "max_removal_percent": 100}
    options["ledger_uri"] = str(folder.path)
    run(emulator, lines(OPEN, record(uid="m-1", n=1, is_in=True)), **options)
    assert {"m-1"} == uids(emulator)
    seen = run(emulator, data(folder, kind, OPEN, [nobody]), **options)
    assert seen.error is None
    assert set() == uids(emulator)


def test_an_input_that_is_an_open_schema_alone_is_an_error(emulator):
    """A tap that died after a SCHEMA without columns has shown nothing."""
    seen = run(emulator, lines(OPEN))
    assert "invalid_schema" == seen.error.code
    assert "failed" == seen.report.status
    seen = run(emulator, lines(schema()))
    assert seen.error is None


def test_a_row_count_that_no_row_has_is_an_error(emulator):
    """Without its expected_count_column a mirror ends at its first row."""
    options = {"cohorts": {"users": {"sync_mode": "mirror", "expected_count_column": "n"}}}
    seen = run(emulator, lines(OPEN, record(uid="m-1")), **options)
    assert "missing_column" == seen.error.code
    assert str(seen.error).startswith("expected_count_column: ")


@pytest.mark.parametrize("mode", ["incremental", "mirror"])
def test_a_deletion_column_that_no_row_has_is_an_error(emulator, mode):
    """A misspelled deleted_at_column would add whoever is deleted, so no STATE passes."""
    options = {"cohorts": {"users": {"sync_mode": mode, "deleted_at_column": "deletd"}}}
    head = schema(columns=("uid", "deleted"))
    rows = [record(uid="a", deleted=None), record(uid="b", deleted="2026-03-04")]
    seen = run(emulator, lines(head, *rows, state({"at": 1})), **options)
    assert "missing_column" == seen.error.code
    assert str(seen.error).startswith("deleted_at_column: ")
    assert [] == seen.states


def test_columns_directly_in_the_schema_are_named(emulator):
    """A tap that leaves out `properties` altogether is told so."""
    head = OPEN | {"schema": {"_id": {"type": ["null", "string"]}, "plan": {"type": "string"}}}
    seen = run(emulator, lines(head, record(_id="m-1", plan="pro")), uid_column="_id")
    assert isinstance(seen.error, InputError)
    assert "invalid_schema" == seen.error.code
    assert "its columns ('_id', 'plan') directly in 'schema'" in str(seen.error)


INVISIBLE = {
    "byte order mark": ("\ufeffuid", "'\\ufeffuid' (with a byte order mark in front)"),
    "space": ("uid ", "'uid ' (with a space at the end)"),
    "no-break space": ("\xa0uid", "'\\xa0uid' (with a no-break space in front)"),
    "zero-width space": ("u\u200bid", "'u\\u200bid' (with a zero width space)"),
    "tab": ("uid\t", "'uid\\t' (with a tab at the end)"),
}


@pytest.mark.parametrize(("column", "shown"), INVISIBLE.values(), ids=INVISIBLE)
@pytest.mark.parametrize("is_declared", [True, False], ids=["declared", "undeclared"])
def test_what_is_invisible_in_a_name_is_named(emulator, column, shown, is_declared):
    """A column that looks like the mapped one is shown with what makes it another."""
    head = schema(columns=(column, "plan")) if is_declared else OPEN
    seen = run(emulator, lines(head, record(**{column: "u-1", "plan": "pro"})))
    assert "missing_column" == seen.error.code
    assert f"it has 'plan', {shown}" in str(seen.error) or f"it has {shown}, 'plan'" in str(
        seen.error
    )
    assert 2 == str(seen.error).count(shown)
    assert ("utf-8-sig" in str(seen.error)) is ("byte order" in shown)


@pytest.mark.parametrize("on_reject", ["fail", "skip"])
@pytest.mark.parametrize(("key", "column"), [("Row", "row"), ("row", "Row"), ("row", "\ufeffrow")])
@pytest.mark.parametrize("maps", [{}, {"users": {"uid": "uid"}}], ids=["plain", "mapped"])
def test_a_key_that_rows_spell_differently_is_named(
    emulator, tmp_path, on_reject, key, column, maps
):
    """A key property in another case than in the rows is no fault of any row: the error says what
    to set, whatever on_reject says."""
    head = schema(columns=("uid", column), keys=(key,))
    options = {"stream_maps": maps, "on_reject": on_reject}
    if on_reject == "skip":
        options["rejects_path"] = str(tmp_path / "rejects")
    seen = run(emulator, lines(head, record(uid="007", **{column: 1})), **options)
    assert isinstance(seen.error, InputError)
    assert "missing_key" == seen.error.code
    assert repr(key) in str(seen.error)
    assert "__key_properties__: [uid]" in str(seen.error)
    assert set() == uids(emulator)


@every_way
@pytest.mark.parametrize("mode", ["incremental", "mirror"])
@pytest.mark.parametrize("has_uids", [True, False])
def test_the_default_uid_column_is_optional_next_to_an_anonymous_id(
    emulator, folder, kind, mode, has_uids
):
    """With anonymous IDs, rows may have the undeclared default column `uid` or not."""
    uid = {"uid": "u-1"} if has_uids else {}
    rows = [{"device": "d-1", **uid}, {"device": "d-2", **({"uid": None} if has_uids else {})}]
    options = {"anonymous_id_column": "device", "sync_mode": mode}
    head = schema(columns=("device",))
    seen = run(emulator, data(folder, kind, head, rows), **options)
    assert seen.error is None
    expected = {("u-1" if has_uids else None, "d-1"), (None, "d-2")}
    assert expected == {(one.uid, one.anonymous_id) for one in emulator.members("users")}
    assert [{"at": 1}] == seen.states


@every_way
def test_an_undeclared_uid_column_is_needed_though_rows_have_anonymous_ids(emulator, folder, kind):
    """A uid_column that is set must be in some row, even if each row has an anonymous ID."""
    rows = [{"device": "d-1"}, {"device": "d-2"}]
    options = {"anonymous_id_column": "device", "uid_column": "user_id", "sync_mode": "mirror"}
    seen = run(emulator, data(folder, kind, schema(columns=("device",)), rows), **options)
    assert "missing_column" == seen.error.code
    assert str(seen.error).startswith("uid_column: ")
    assert [] == seen.states
