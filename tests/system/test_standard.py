"""The SDK's standard target tests, with checks of the members in the emulator."""

import typing as t
from types import MappingProxyType

import pytest
from singer_sdk.testing import suites, target_tests
from singer_sdk.testing.runners import TargetTestRunner
from singer_sdk.testing.templates import TargetTestTemplate

from target_moengage_cohort.emulator import Emulator
from target_moengage_cohort.target import TargetMoEngageCohort
from tests.support.singer import config

ONE_TO_FOUR = {"1", "2", "3", "4"}
NESTED = {
    "stream_maps": {
        "test_object_schema_*": {"id": "str(object_store['id'])", "__key_properties__": []}
    }
}


class Expected(t.NamedTuple):
    """The members that a standard test's file should add to the emulator."""

    members: dict[str, set[str]]
    settings: t.Mapping[str, t.Any] = MappingProxyType({})


EXPECTED = {
    "array_data": Expected({"test_array_data": ONE_TO_FOUR}),
    "camelcase": Expected({"TestCamelcase": {"1", "2"}}, {"uid_column": "Id"}),
    "camelcase_complex_schema": Expected({}, {"uid_column": "Id"}),
    "cli_prints": Expected({}),
    "duplicate_records": Expected({"test_duplicate_records": {"1", "2"}}),
    "encoded_string_data": Expected(
        {
            stream: {str(number) for number in range(1, count + 1)}
            for stream, count in (
                ("test_strings", 11),
                ("test_strings_in_objects", 11),
                ("test_strings_in_arrays", 6),
            )
        }
    ),
    "invalid_schema": Expected({}),
    "no_primary_keys": Expected({"test_no_pk": {"1", "2", "3"}}),
    "optional_attributes": Expected({"test_optional_attributes": ONE_TO_FOUR}),
    "pk_updates": Expected({"example_stream": {"1", "2"}}),
    "record_before_schema": Expected({}),
    "record_missing_fields": Expected({"record_missing_fields": {"1", "2"}}),
    "record_missing_key_property": Expected({}),
    "schema_no_properties": Expected(
        {
            "test_object_schema_with_properties": {"1", "2"},
            "test_object_schema_no_properties": {"1", "2"},
        },
        NESTED,
    ),
    "schema_updates": Expected({"test_schema_updates": {"1", "2", "3", "4", "5", "6"}}),
    "special_chars_in_attributes": Expected(
        {"special": {"a2e98886"}},
        {
            "uid_column": "_id",
            "cohorts": {
                "test:SpecialChars!in?attributes": {
                    "cohort_id": "special",
                    "cohort_name": "special",
                }
            },
        },
    ),
}

STANDARD = {test.name: test for test in suites.target_tests.tests}


def with_validation(test: type[TargetTestTemplate], emulator: Emulator) -> TargetTestTemplate:
    """Return the SDK's test with a `validate` that checks the emulator's cohorts."""
    expected = EXPECTED[test.name].members

    class Validated(test):  # type: ignore[misc, valid-type]
        def validate(self) -> None:
            found = {
                cohort.cohort_id: {member.uid for member in emulator.members(cohort.cohort_id)}
                for cohort in emulator.cohorts()
            }
            assert expected == found

    return Validated()


@pytest.mark.parametrize("validate_records", [False, True], ids=["fast path", "SDK's path"])
@pytest.mark.parametrize("name", STANDARD)
def test_standard(name, validate_records, emulator):
    """The SDK's standard test passes on both paths through the target, and MoEngage accepts the
    content of its file."""
    settings = {"uid_column": "id", **EXPECTED[name].settings, "validate_records": validate_records}
    runner = TargetTestRunner(
        target_class=TargetMoEngageCohort, config=config(emulator, **settings)
    )
    with_validation(STANDARD[name], emulator).run(None, None, runner)


def test_every_standard_test_is_here():
    """Every standard test of the SDK is run; the one that the SDK leaves out has its own."""
    assert set(STANDARD) == set(EXPECTED)
    names = {
        test.name
        for test in vars(target_tests).values()
        if isinstance(test, type) and getattr(test, "name", None)
    }
    assert {"multiple_state_messages", "record_missing_required_property"} == names - set(STANDARD)
