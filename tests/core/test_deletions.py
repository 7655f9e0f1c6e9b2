from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import duckdb
import hypothesis.strategies as st
import pytest
from hypothesis import given
from msgspec import UNSET

from target_moengage_cohort.core.deletions import (
    BLANK,
    TIMESTAMP,
    UNDECLARED_OWN,
    Spellings,
    deletion_columns,
    in_any_case,
    is_deletion,
)
from target_moengage_cohort.core.errors import RowError

zones = st.none() | st.sampled_from([UTC, timezone(timedelta(hours=-3.5))])
times = st.datetimes(datetime(1971, 1, 1), datetime(8999, 12, 31), timezones=zones)  # noqa: DTZ001


@given(times, st.sampled_from(["seconds", "milliseconds", "microseconds"]), st.sampled_from("T "))
def test_a_timestamp_is_a_deletion(moment, timespec, separator):
    """Any date and time in ISO 8601 is a deletion, with or without a zone and a fraction."""
    assert is_deletion(moment.isoformat(separator, timespec))
    assert is_deletion(moment.date().isoformat())
    assert is_deletion(moment)
    assert is_deletion(moment.date())


@pytest.mark.parametrize(
    "text",
    [
        "2026-03-04T05:06:07Z",
        "2026-03-04T05:06:07.890123z",
        "2026-03-04 05:06:07.89+00",
        "2026-03-04 05:06:07 UTC",
        "2026-03-04T05:06:07.000+0530",
        "2026-03-04T05:06:07 +05:30:00",
        "2026-03-04 05:06",
        "2026-03-04t05:06:07",
        " 2026-03-04  ",
    ],
)
def test_what_taps_write_is_a_deletion(text):
    """The forms of PostgreSQL, MySQL, BigQuery, Salesforce and Python are timestamps."""
    assert is_deletion(text)


@pytest.mark.parametrize("value", [None, UNSET, "", "  ", "\t\n", False], ids=repr)
def test_null_empty_and_false_are_none(value):
    """A mark without a value, or one that says no, marks no deletion."""
    assert not is_deletion(value)


@pytest.mark.parametrize(
    "value",
    [
        *(True, 0, 1, 1_772_600_000, Decimal("1772600000.5"), 1.5, [], ["2026-03-04"], {}),
        *("no", "yes", "true", "false", "0", "now", "null", "2026", "20260304", "2026-13-04"),
        *("2026-03-04T25:00", "2026-03-04T05:06:07 CET", "04.03.2026", "2026-03-04, deleted"),
    ],
    ids=repr,
)
def test_any_other_value_rejects_the_row(value):
    """What is neither a timestamp, null, empty nor false is not guessed."""
    with pytest.raises(RowError) as raised:
        is_deletion(value)
    assert "invalid_deletion" == raised.value.code
    assert "must be a timestamp, null, empty or false" == raised.value.reason


@pytest.mark.parametrize(
    "value",
    [
        "0001-01-01T00:00:00",
        "0000-00-00 00:00:00",
        "1900-01-01",
        "1970-01-01T00:00:00Z",
        "9999-12-31 23:59:59",
    ],
)
def test_a_placeholder_rejects_the_row(value):
    """A date that stands for "none" in a database without null is not a deletion."""
    with pytest.raises(RowError) as raised:
        is_deletion(value)
    assert "invalid_deletion" == raised.value.code
    assert raised.value.reason.startswith("is a placeholder")


texts = st.text("0123456789-: TZ+.", max_size=26) | times.map(str) | st.sampled_from(["", " ", "x"])


@given(st.lists(texts, min_size=1, max_size=30))
def test_sql_sees_the_same_deletions(values):
    """DuckDB finds the same text to be a timestamp; what it finds neither is looked at again."""
    query = "SELECT regexp_full_match(v, ?), regexp_full_match(v, ?) FROM (SELECT unnest(?) AS v)"
    found = duckdb.execute(query, [TIMESTAMP, f"{BLANK}|{TIMESTAMP}", values]).fetchall()
    for value, (is_timestamp, is_clear) in zip(values, found, strict=True):
        try:
            assert is_timestamp is is_deletion(value)
        except RowError:
            assert not is_clear


@given(st.lists(st.booleans(), min_size=14, max_size=14), st.sampled_from([{}, {"x": 1}]))
def test_marks_are_found_in_any_case(upper, more):
    """Rows in JSON get the names that a decoder expects, whatever the case of a mark is there."""
    name = "".join(
        each.upper() if flag else each
        for each, flag in zip("_sdc_deleted_at", [*upper, False], strict=True)
    )
    corrected = Spellings(deletion_columns(None, ["uid"])).corrected
    row = {**more, "uid": '"_SDC_DELETED_AT": 5', name: None}
    expected = {**more, "uid": '"_SDC_DELETED_AT": 5', "_sdc_deleted_at": None}
    assert expected == json.loads(corrected(json.dumps(row).encode()))


def test_marks_that_a_schema_declares_keep_their_names():
    """A declared mark is expected as it is declared, next to the others."""
    columns = deletion_columns(None, ["uid", "_SDC_DELETED_AT", "_Sdc_Lsn_Deleted_At"])
    assert {"_sdc_deleted_at", "_SDC_DELETED_AT", "_sdc_lsn_deleted_at", "_Sdc_Lsn_Deleted_At"} == {
        *columns.values()
    }
    row = b'{"_SDC_DELETED_AT":1,"_sdc_deleted_at":2,"_Sdc_Lsn_Deleted_At" :3}'
    assert row == Spellings(columns).corrected(row)


@pytest.mark.parametrize(
    ("expected", "declared"),
    [("gone_at", ["GONE_AT", "gone_at"]), ("GONE_AT", ["GONE_AT"]), ("gone_at", ["other"])],
    ids=["exact", "another case", "undeclared"],
)
def test_the_exact_name_of_a_mappings_column_counts_first(expected, declared):
    """A mapping's own column is found in another case only if the exact name is not declared."""
    assert expected in deletion_columns("gone_at", declared).values()
    assert 3 == len(deletion_columns("gone_at", declared))


def test_a_declared_column_of_a_mapping_is_exact():
    """If the schema has the column of a mapping, one in another case is another column."""
    corrected = Spellings(deletion_columns("gone_at", ["gone_at"])).corrected
    row = b'{"gone_at":null,"GONE_AT":"2026-03-04"}'
    assert row == corrected(row)
    undeclared = Spellings(deletion_columns("gone_at", ["uid"])).corrected
    assert b'{"gone_at":"2026-03-04"}' == undeclared(b'{"GONE_AT":"2026-03-04"}')


@pytest.mark.parametrize(("written", "is_found"), [("GELöSCHT", True), ("GELÖSCHT", False)])
def test_other_letters_than_ascii_have_their_case(written, is_found):
    """A row and its undecoded JSON agree on the name: no deletion is seen in one of them only."""
    role = UNDECLARED_OWN
    found = in_any_case("Gelöscht", role, [written])
    assert found == (written if is_found else None)
    spellings = Spellings({role: "Gelöscht"})
    line = f'{{"{written}": null}}'
    expected = line.replace(written, "Gelöscht") if is_found else line
    assert expected.encode() == spellings.corrected(line.encode())
