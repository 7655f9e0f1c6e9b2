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
    ("stream_map", "reason"),
    [
        ({"uid": "1/0"}, "stream_maps.s.uid: '1/0' failed with ZeroDivisionError"),
        ({"uid": "int(id)"}, "stream_maps.s.uid: 'int(id)' failed with ValueError"),
        ({"uid": "id.no"}, "stream_maps.s.uid: 'id.no' failed with AttributeDoesNotExist"),
        (
            {"x": "id", "uid": "id + score"},
            "stream_maps.s.uid: 'id + score' failed with TypeError; 'score' is null or absent",
        ),
        (
            {"__filter__": "score>5"},
            "stream_maps.s.__filter__: 'score>5' failed with TypeError; 'score' is null or absent",
        ),
        (
            {"uid": "ID.upper()"},
            "stream_maps.s.uid: 'ID.upper()' failed with NameNotDefined; 'ID' is null or absent",
        ),
        (
            {"score": "self + 1"},
            "stream_maps.s.score: 'self + 1' failed with TypeError; 'score' is null or absent",
        ),
    ],
    ids=["division", "conversion", "attribute", "null", "filter", "name", "self"],
)
def test_an_expression_that_fails_rejects_the_row(stream_map, reason):
    """The reason has stream, column and expression, and the class of the error without its text,
    which quotes the record; and which columns of the expression the record lacks."""
    made, _ = mapped({"id": TEXT, "score": {"type": ["integer", "null"]}}, **stream_map)
    ((stream, error),) = made.record("s", {"id": SECRET, "score": None})
    assert ("s", "stream_map_failed") == (stream, error.code)
    assert reason == error.reason


@pytest.mark.parametrize(
    ("stream_map", "place"),
    [
        ({"s": {"uid": "lower(id)"}}, "s.uid: 'lower(id)' calls the unknown function 'lower'"),
        ({"s": {"__filter__": "bool(lenght(id))"}}, "s.__filter__: 'bool(lenght(id))' calls"),
        ({"s*": {"uid": "id + upper(id)"}}, "s*.uid: 'id + upper(id)' calls"),
        ({"two": {"__source__": "s", "uid": "sha265(id)"}}, "two.uid: 'sha265(id)' calls"),
    ],
    ids=["column", "filter", "pattern", "copy"],
)
def test_a_misspelled_function_is_reported_with_the_schema(stream_map, place):
    """A function that does not exist is a fault of the settings, and no row is blamed for it."""
    with pytest.raises(SettingsError) as raised:
        transform({"id": TEXT}, stream_maps=stream_map)
    assert "invalid_stream_map" == raised.value.code
    assert str(raised.value).startswith(f"stream_maps.{place}")
    assert "sha256" in str(raised.value)


def test_functions_of_other_streams_are_not_looked_at():
    """A stream map with a fault is reported with its own stream, which may never come."""
    maps = {"s": {"uid": "md5(id)"}, "t": {"uid": "lower(id)"}}
    made, _ = transform({"id": TEXT}, stream_maps=maps)
    assert 1 == len(made.record("s", {"id": "x"}))


def test_a_key_need_not_be_in_the_schema():
    """A SCHEMA that does not name its own key can be mapped all the same."""
    made, (schema,) = transform({}, keys=["_id"], stream_maps={"s": {"uid": "_id"}})
    assert ["_id"] == schema.key_properties
    assert [("s", {"_id": "x", "uid": "x"})] == made.record("s", {"_id": "x"})


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
    ],
    ids=["type", "limit", "enum", "nested"],
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


@pytest.mark.parametrize(
    ("place", "columns"),
    [
        ("for the column 'id', rule '$ref'", {"x": TEXT, "id": {"$ref": "#/no"}}),
        ("for the column 'id', rule 'properties'", {"id": {"properties": {"x": {"$ref": "#/no"}}}}),
    ],
    ids=["column", "nested"],
)
def test_a_schema_that_cannot_be_used_is_one_error(place, columns):
    """A rule that no record can be checked by ends the run: it is a fault of the schema."""
    made, _ = transform(columns, validate_records=True)
    with pytest.raises(InputError) as raised:
        made.record("s", {"id": {"x": SECRET}})
    assert "invalid_schema" == raised.value.code
    assert place in str(raised.value)
    assert "validate_records: false" in str(raised.value)
    assert SECRET not in str(raised.value)


@pytest.mark.parametrize(
    ("place", "column"),
    [
        ("for the column 'id', rule 'type'", {"type": "bogus"}),
        ("for the column 'id', rule 'pattern'", {"pattern": "("}),
        ("for the column 'id', rule 'multipleOf'", {"multipleOf": 0}),
        ("for the column 'id', rule 'required'", {"required": True}),
        ("for the column 'id', rule 'maximum'", {"maximum": "7"}),
        ("for the column 'id'", 5),
    ],
)
def test_an_invalid_schema_names_column_and_rule(place, column):
    """The error comes with the SCHEMA, once, and says what to fix and what to do without that."""
    with pytest.raises(InputError, match="validate_records: false") as raised:
        transform({"id": column}, validate_records=True)
    assert "invalid_schema" == raised.value.code
    assert place in str(raised.value)


VALID = [
    ({"multipleOf": Decimal("1E-38")}, Decimal("149.5")),
    ({"multipleOf": Decimal("1E-38")}, 12),
    ({"multipleOf": Decimal("1E-38")}, 0.1),
    ({"multipleOf": Decimal("0.01")}, Decimal("12345678901234567890123456789.01")),
    ({"multipleOf": Decimal("2.5E+30")}, 5 * 10**30),
    ({"multipleOf": 3}, Decimal("3E+999999999")),
    ({"maximum": 10, "exclusiveMaximum": True}, Decimal("9.99")),
    ({"maximum": 10, "exclusiveMaximum": False}, 10),
    ({"anyOf": [{"minimum": 0, "exclusiveMinimum": True}, {"type": "string"}]}, "x"),
]
BROKEN = [
    ("multipleOf", {"multipleOf": Decimal("0.01")}, Decimal("1.005")),
    ("multipleOf", {"multipleOf": Decimal("1E-38")}, Decimal("1E-39")),
    ("multipleOf", {"multipleOf": 4}, Decimal(6)),
    ("multipleOf", {"multipleOf": 7}, Decimal("3E+999999999")),
    ("multipleOf", {"multipleOf": Decimal("0.5")}, Decimal("1E-999999999")),
    ("exclusiveMaximum", {"maximum": 10, "exclusiveMaximum": True}, 10),
    ("exclusiveMinimum", {"minimum": -1, "exclusiveMinimum": True}, -1),
    ("minimum", {"minimum": -1, "exclusiveMinimum": False}, -2),
]


@pytest.mark.parametrize(("rules", "value"), VALID, ids=str)
def test_numbers_that_keep_their_rules_pass(rules, value):
    """Multiples are exact whatever their digits, and the limits of draft 4 are understood."""
    made, _ = transform({"n": rules}, validate_records=True)
    assert [("s", {"n": value})] == made.record("s", {"n": value})


@pytest.mark.parametrize(("rule", "rules", "value"), BROKEN, ids=str)
def test_numbers_that_break_their_rules_do_not(rule, rules, value):
    """What is no multiple, or beyond a limit of draft 4, is rejected with column and rule."""
    made, _ = transform({"n": rules}, validate_records=True)
    ((_, error),) = made.record("s", {"n": value})
    assert f"column 'n' violates the rule {rule!r} of the stream's schema" == error.reason
