from __future__ import annotations

import logging
from decimal import Decimal

import pytest

from target_moengage_cohort.core.errors import InputError, SettingsError
from target_moengage_cohort.settings import load
from target_moengage_cohort.singer.messages import Schema
from target_moengage_cohort.singer.stream_maps import StreamMaps

BASE = {"workspace_id": "ws", "data_api_key": "key", "data_center": "02", "partner": "acme"}
TEXT = {"type": ["string", "null"]}
SECRET = "pl4nt3d"


def transform(columns, *, keys=(), **settings):
    """Return a transform that has seen the SCHEMA of the stream `s`, and the resulting streams."""
    made = StreamMaps(load(BASE | settings).settings, logging.getLogger("test"))
    schema = {"type": "object", "properties": columns}
    return made, made.schema(Schema("s", schema, [*keys]))


def mapped(columns, **stream_map):
    return transform(columns, stream_maps={"s": stream_map})


def test_expressions_make_columns():
    """A stream map adds, renames and drops columns, in records and in the schema."""
    made, (schema,) = mapped({"id": {"type": "integer"}, "x": TEXT}, uid="str(id)", x=None)
    assert {"id", "uid"} == {*schema.schema["properties"]}
    assert [("s", {"id": 5, "uid": "5"})] == made.record("s", {"id": 5, "x": "y"})


def test_numbers_pass_exactly():
    """Columns without an expression keep every digit."""
    made, _ = mapped({"id": {"type": "number"}}, n="id")
    number = Decimal("12345678901234567890.10")
    assert [("s", {"id": number, "n": number})] == made.record("s", {"id": number})


def test_one_stream_may_become_two():
    """A stream with another one as its source is a stream of its own name."""
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
    """A stream that is mapped to null has no schema and no records."""
    made, schemas = transform({"id": TEXT}, stream_maps={"s": nothing})
    assert ([], []) == (schemas, made.record("s", {"id": "x"}))


def test_a_deletion_survives_a_map_that_drops_its_column():
    """A deleted member is not added, even if a map drops the column of the deletion."""
    made, _ = mapped({"id": TEXT}, uid="id", __else__=None)
    assert [("s", {"uid": "x", "_sdc_deleted_at": "2026"})] == made.record(
        "s", {"id": "x", "_sdc_deleted_at": "2026"}
    )
    assert [("s", {"uid": "x"})] == made.record("s", {"id": "x", "_sdc_deleted_at": None})


def test_the_record_itself_is_left_alone():
    """The record is not changed, because the rejects file needs the row as the tap sent it."""
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
    ("code", "columns", "settings"),
    [
        ("invalid_stream_map", {"id": TEXT}, {"stream_maps": {"s": {"uid": "str(id"}}}),
        ("invalid_stream_map", {"id": TEXT}, {"stream_maps": {"s": 5}}),
        ("invalid_stream_map", {"id": TEXT}, {"stream_maps": {"s": {"uid": 5}}}),
        (
            "invalid_stream_map",
            {"id": TEXT},
            {"stream_maps": {"s": {"__key_properties__": ["no"]}}},
        ),
        ("invalid_schema", {"id": 5}, {"stream_maps": {"s": {"uid": "id"}}}),
        ("invalid_schema", {"id": 5}, {"validate_records": True}),
        ("invalid_schema", {"id": {"type": "bogus"}}, {"validate_records": True}),
        ("invalid_schema", {"id": {"pattern": "("}}, {"validate_records": True}),
    ],
    ids=["expression", "map", "property", "keys", "mapped schema", "schema", "type", "pattern"],
)
def test_faulty_maps_and_schemas_are_reported_before_any_record(code, columns, settings):
    """The error names the stream; a map is a fault of the settings, a schema one of the tap."""
    error = SettingsError if code == "invalid_stream_map" else InputError
    with pytest.raises(error, match="the stream 's'") as raised:
        transform(columns, **settings)
    assert code == raised.value.code


@pytest.mark.parametrize(
    ("expression", "kind"),
    [
        ("1/0", "ZeroDivisionError"),
        ("int(id)", "ValueError"),
        ("id.no", "MapExpressionError"),
    ],
)
def test_an_expression_that_fails_rejects_the_row(expression, kind):
    """The reason has the class of the error, without its text, which quotes the record."""
    made, _ = mapped({"id": TEXT}, uid=expression)
    ((stream, error),) = made.record("s", {"id": SECRET})
    assert ("s", "stream_map_failed") == (stream, error.code)
    assert f"its stream map failed with {kind}" == error.reason


NESTED = {"type": "object", "additionalProperties": {"type": "integer"}}


@pytest.mark.parametrize(
    ("code", "reason", "columns", "record"),
    [
        (
            "schema_violated",
            "column 'id' violates the rule 'type' of",
            {"id": {"type": "integer"}},
            {"id": SECRET},
        ),
        (
            "schema_violated",
            "column 'id' violates the rule 'maximum' of",
            {"id": {"maximum": Decimal("1.5")}},
            {"id": 2},
        ),
        (
            "schema_violated",
            "column 'id' violates the rule 'enum' of",
            {"id": {"enum": ["a"]}},
            {"id": SECRET},
        ),
        (
            "schema_violated",
            "column 'scores' violates the rule 'type' of",
            {"scores": NESTED},
            {"scores": {SECRET: "x"}},
        ),
        (
            "schema_unusable",
            "the stream's schema cannot be used",
            {"id": {"$ref": "#/no"}},
            {"id": SECRET},
        ),
    ],
    ids=["type", "limit", "enum", "nested", "reference"],
)
def test_validation_names_column_and_rule_alone(code, reason, columns, record):
    """A row that breaks its schema is rejected, and neither its values nor its keys are shown."""
    made, _ = transform(columns, validate_records=True)
    ((_, error),) = made.record("s", record)
    assert code == error.code
    assert error.reason.startswith(reason)
    assert SECRET not in error.reason


@pytest.mark.parametrize(
    "record",
    [{"id": 1}, {"id": Decimal("0.3")}, {}, {"other": object}],
    ids=["integer", "decimal", "absent", "unknown column"],
)
def test_what_keeps_its_schema_passes(record):
    """Numbers in the types of the reader are valid, and extra columns are permitted."""
    made, _ = transform(
        {"id": {"type": "number", "multipleOf": Decimal("0.1")}}, validate_records=True
    )
    assert [("s", record)] == made.record("s", record)


def test_the_sdks_debug_messages_show_no_record(caplog):
    """The SDK's mapper, which logs the values of expressions at DEBUG, is silent."""
    with caplog.at_level(logging.DEBUG):
        made, _ = mapped({"id": TEXT}, uid="id + 'x'")
        made.record("s", {"id": SECRET})
    assert SECRET not in caplog.text
