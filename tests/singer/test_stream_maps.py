from __future__ import annotations

import logging
from decimal import Decimal

import pytest

from target_moengage_cohort.core.errors import InputError, SettingsError
from target_moengage_cohort.settings import load
from target_moengage_cohort.singer.messages import Schema
from target_moengage_cohort.singer.stream_maps import SdkTransform

BASE = {"workspace_id": "ws", "data_api_key": "key", "data_center": "02", "partner": "acme"}
TEXT = {"type": ["string", "null"]}
SECRET = "pl4nt3d"


def transform(columns, *, keys=(), **settings):
    """A transform that has seen the SCHEMA of the stream `s`, and what that became."""
    made = SdkTransform(load(BASE | settings).settings, logging.getLogger("test"))
    schema = {"type": "object", "properties": columns}
    return made, made.schema(Schema("s", schema, [*keys]))


def mapped(columns, **stream_map):
    return transform(columns, stream_maps={"s": stream_map})


def test_expressions_make_columns():
    """A stream map adds, renames and drops columns, of records and of the schema."""
    made, (schema,) = mapped({"id": {"type": "integer"}, "x": TEXT}, uid="str(id)", x=None)
    assert {"id", "uid"} == {*schema.schema["properties"]}
    assert [("s", {"id": 5, "uid": "5"})] == made.record("s", {"id": 5, "x": "y"})


def test_numbers_pass_exactly():
    """What no expression touches keeps every digit."""
    made, _ = mapped({"id": {"type": "number"}}, n="id")
    number = Decimal("12345678901234567890.10")
    assert [("s", {"id": number, "n": number})] == made.record("s", {"id": number})


def test_one_stream_may_become_two():
    """A stream that is another's source is a stream of its own, by the name it is given."""
    made, schemas = transform(
        {"id": TEXT},
        stream_maps={
            "s": {"__alias__": "one"},
            "two": {"__source__": "s", "__filter__": "id=='x'"},
        },
    )
    assert ["one", "two"] == [schema.stream for schema in schemas]
    assert ["one"] == [stream for stream, _ in made.record("s", {"id": "y"})]
    assert ["one", "two"] == [stream for stream, _ in made.record("s", {"id": "x"})]


@pytest.mark.parametrize("nothing", [None, "__NULL__"])
def test_a_stream_may_be_dropped(nothing):
    """A stream that is mapped to nothing has no schema and no records."""
    made, schemas = transform({"id": TEXT}, stream_maps={"s": nothing})
    assert ([], []) == (schemas, made.record("s", {"id": "x"}))


def test_a_deletion_survives_a_map_that_drops_its_column():
    """Else a deleted member would be added."""
    made, _ = mapped({"id": TEXT}, uid="id", __else__=None)
    assert [("s", {"uid": "x", "_sdc_deleted_at": "2026"})] == made.record(
        "s", {"id": "x", "_sdc_deleted_at": "2026"}
    )
    assert [("s", {"uid": "x"})] == made.record("s", {"id": "x", "_sdc_deleted_at": None})


def test_the_record_itself_is_left_alone():
    """The rejects file needs the row as the tap sent it."""
    made, _ = mapped({"id": TEXT, "o": {"type": "object"}}, id="'changed'")
    record = {"id": "x", "o": {"a": [1]}}
    made.record("s", record)
    assert {"id": "x", "o": {"a": [1]}} == record


def test_flattening_makes_columns_of_nested_ones():
    """Nested properties become columns, joined by the separator."""
    nested = {"a": {"type": "object", "properties": {"b": TEXT}}}
    made, (schema,) = transform(
        nested, flattening_enabled=True, flattening_max_depth=1, flattening_separator="."
    )
    assert {"a.b"} == {*schema.schema["properties"]}
    assert [("s", {"a.b": "x"})] == made.record("s", {"a": {"b": "x"}})


@pytest.mark.parametrize(
    ("error", "columns", "settings"),
    [
        (SettingsError, {"id": TEXT}, {"stream_maps": {"s": {"uid": "str(id"}}}),
        (SettingsError, {"id": TEXT}, {"stream_maps": {"s": 5}}),
        (SettingsError, {"id": TEXT}, {"stream_maps": {"s": {"uid": 5}}}),
        (SettingsError, {"id": TEXT}, {"stream_maps": {"s": {"__key_properties__": ["no"]}}}),
        (InputError, {"id": 5}, {"stream_maps": {"s": {"uid": "id"}}}),
        (InputError, {"id": 5}, {"validate_records": True}),
        (InputError, {"id": {"type": "bogus"}}, {"validate_records": True}),
        (InputError, {"id": {"pattern": "("}}, {"validate_records": True}),
    ],
    ids=["expression", "map", "property", "keys", "mapped schema", "schema", "type", "pattern"],
)
def test_faulty_maps_and_schemas_are_told_before_any_record(error, columns, settings):
    """The error names the stream; a map is the settings' fault, a schema the tap's."""
    with pytest.raises(error, match="the stream 's'"):
        transform(columns, **settings)


@pytest.mark.parametrize(
    ("expression", "kind"),
    [
        ("1/0", "ZeroDivisionError"),
        ("int(id)", "ValueError"),
        ("id.no", "MapExpressionError"),
    ],
)
def test_an_expression_that_fails_rejects_the_row(expression, kind):
    """The reason names the error's kind, and not its text, which quotes the record."""
    made, _ = mapped({"id": TEXT}, uid=expression)
    ((stream, error),) = made.record("s", {"id": SECRET})
    assert ("s", f"its stream map failed with {kind}") == (stream, error.reason)


NESTED = {"type": "object", "additionalProperties": {"type": "integer"}}


@pytest.mark.parametrize(
    ("reason", "columns", "record"),
    [
        ("id breaks the rule 'type' of", {"id": {"type": "integer"}}, {"id": SECRET}),
        ("id breaks the rule 'maximum' of", {"id": {"maximum": Decimal("1.5")}}, {"id": 2}),
        ("id breaks the rule 'enum' of", {"id": {"enum": ["a"]}}, {"id": SECRET}),
        ("scores breaks the rule 'type' of", {"scores": NESTED}, {"scores": {SECRET: "x"}}),
        ("the stream's schema cannot be used", {"id": {"$ref": "#/no"}}, {"id": SECRET}),
    ],
    ids=["type", "limit", "enum", "nested", "reference"],
)
def test_validation_names_column_and_rule_alone(reason, columns, record):
    """A row that breaks its schema is rejected, and neither its values nor its keys are shown."""
    made, _ = transform(columns, validate_records=True)
    ((_, error),) = made.record("s", record)
    assert error.reason.startswith(reason)
    assert SECRET not in error.reason


@pytest.mark.parametrize(
    "record",
    [{"id": 1}, {"id": Decimal("0.3")}, {}, {"other": object}],
    ids=["integer", "decimal", "absent", "unknown column"],
)
def test_what_keeps_its_schema_passes(record):
    """Numbers are valid as the reader makes them, and a schema forbids no other columns."""
    made, _ = transform(
        {"id": {"type": "number", "multipleOf": Decimal("0.1")}}, validate_records=True
    )
    assert [("s", record)] == made.record("s", record)


def test_the_sdks_debug_messages_show_no_record(caplog):
    """The SDK's mapper logs what expressions evaluate to at DEBUG; it stays silent."""
    with caplog.at_level(logging.DEBUG):
        made, _ = mapped({"id": TEXT}, uid="id + 'x'")
        made.record("s", {"id": SECRET})
    assert SECRET not in caplog.text
