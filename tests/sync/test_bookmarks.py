"""What a STATE says of a mirror's stream."""

import json

import hypothesis.strategies as st
import pytest
from hypothesis import example, given

from target_moengage_cohort.sync.mirror.bookmarks import TapStates, read_state, refuse_method

STREAM, OTHERS = "vip", frozenset({"vip", "orders"})
KEY = {"replication_key": "updated_at", "replication_key_value": "2026-01-01"}


def parsed(value):
    return read_state(value if isinstance(value, bytes) else json.dumps(value).encode())


def entry(content, key=STREAM, **others):
    return {"bookmarks": {key: content, **others}}


WHOLE = {
    "absent": {"bookmarks": {}},
    "null": entry(None),
    "empty": entry({}),
    "a number": entry(1795923466781),
    "a fraction": entry(1795923466.5),
    "a number beyond all bounds": b'{"bookmarks":{"vip":' + b"9" * 5_000 + b"}}",
    "version only": entry({"version": 5}),
    "nulls": entry({"xmin": None, "replication_key": None, "replication_key_value": None}),
    "complete": entry({"initial_full_table_complete": True, "success_timestamp": "2026-01-01"}),
    "full table": entry({"last_replication_method": "FULL_TABLE", "version": 5, "xmin": None}),
    "partitions without a bookmark": entry({"partitions": [{"context": {"id": 1}}, {}]}),
    "no partitions": entry({"partitions": []}),
    "the bookmark of another stream": entry({}, orders=KEY),
    "another stream's under its tap's id": {"bookmarks": {"db-orders": KEY}},
    "an entry that fits none, next to its own": entry({}, gone=KEY),
    "null for all": None,
    "no entry at all": {},
    "a text that fits no stream": {"at": "the end"},
    "a number for all": 5,
    "bookmarks are null": {"bookmarks": None},
    "only what is being read": {"bookmarks": {}, "currently_syncing": None},
}
NOT_WHOLE = {
    "key value": entry(KEY),
    "zero": entry({"replication_key_value": 0}),
    "the key's own name": entry({"SystemModstamp": "2026-01-01"}),
    "a log": entry({"lsn": 5, "version": 1}),
    "a log of no shards": entry({"finished_shards": []}),
    "an empty text": entry({"token": ""}),
    "false": entry({"complete": False}),
    "another method": entry({"last_replication_method": "LOG_BASED"}),
    "unfinished": entry({"xmin": 7}),
    "partition": entry({"partitions": [{"context": {}}, {"context": {}, **KEY}]}),
    "odd partitions": entry({"partitions": {"a": KEY}}),
    "odd partition": entry({"partitions": [5, "x"]}),
    "progress markers": entry({"progress_markers": KEY}),
    "after the database's name": entry(KEY, "db-vip"),
    "after the schema's name": entry(KEY, "PUBLIC.vip"),
    "a name that fits no stream": entry(KEY, "customers"),
    "outside bookmarks": {"bookmarks": {}, "vip": KEY},
    "without bookmarks": {"vip": KEY},
    "a text": entry("2026-01-01"),
    "a list": entry([KEY]),
    "true": {"bookmarks": {STREAM: True}},
    "a text without bookmarks": {"vip": "2026-01-01"},
    "an object that fits no stream": {"customers": KEY},
    "a time that fits no stream": {"last_run": "2026-01-01T00:00:00Z"},
    "a time outside bookmarks": {"bookmarks": {}, "since": "2026-01-01"},
    "a text for all": "2026-01-01",
    "bookmarks are a list": {"bookmarks": [["vip", KEY]]},
    "infinite": b'{"bookmarks":{"vip":{"replication_key_value":1e999}}}',
    "half a surrogate pair": b'{"bookmarks":{"vip":{"replication_key_value":"\\ud800"}}}',
    "too deep": b'{"bookmarks":{"vip":' + b"[" * 100_000 + b"]" * 100_000 + b"}}",
}


@pytest.mark.parametrize("value", WHOLE.values(), ids=WHOLE)
def test_a_state_of_a_whole_read(value):
    """An entry without any bookmark, or of another stream, lets the tap read everything."""
    assert parsed(value).is_whole(STREAM, OTHERS)
    assert states_of(value).fault(STREAM, OTHERS, allows_bookmark=False) is None


@pytest.mark.parametrize("value", NOT_WHOLE.values(), ids=NOT_WHOLE)
def test_a_state_that_is_not_of_a_whole_read(value):
    """Any other content makes the tap leave out rows, so the input is not complete."""
    assert not parsed(value).is_whole(STREAM, OTHERS)
    assert states_of(value).fault(STREAM, OTHERS, allows_bookmark=False) is not None


def states_of(*values, row_after=None):
    states = TapStates()
    for number, value in enumerate(values):
        states.take(parsed(value))
        if number == row_after:
            states.begin(STREAM)
    return states


def test_another_taps_unnamed_entry_is_not_a_configured_streams():
    """Of a stream that the tap may not have, only an entry with its name counts."""
    state = parsed(entry(KEY, "customers"))
    assert state.is_whole(STREAM, OTHERS, only_named=True)
    assert not parsed(entry(KEY, "db-vip")).is_whole(STREAM, OTHERS, only_named=True)


def test_the_name_of_another_stream_is_not_a_longer_name_of_a_mirrors():
    """An entry with the exact name of a stream is that one's alone."""
    method = {"last_replication_method": "INCREMENTAL"}
    state = parsed({"bookmarks": {"vip": {}, "crm-vip": method}})
    assert state.is_whole(STREAM, {*OTHERS, "crm-vip"})
    assert state.is_whole(STREAM, OTHERS)
    other = parsed(entry(method, "crm-vip"))
    assert refuse_method(other, STREAM, {*OTHERS, "crm-vip"}) is None
    assert refuse_method(other, STREAM, OTHERS) is not None


MARKS = {
    "MySQL": {"max_pk_values": {"id": 9}, "last_pk_fetched": {"id": 5}},
    "PostgreSQL": {"last_replication_method": "FULL_TABLE", "version": 5, "xmin": 7},
    "Oracle": {"version": 5, "ORA_ROWSCN": 7},
    "MongoDB": {"version": 5, "max_id_value": "9", "last_id_fetched": "5"},
    "DynamoDB": {"version": 5, "last_evaluated_key": {"id": {"S": "5"}}},
    "Salesforce": {"JobID": "7", "BatchIDs": ["1"]},
    "HubSpot": {"offset": {"after": 100}},
}


@pytest.mark.parametrize("mark", MARKS.values(), ids=MARKS)
def test_a_resume_mark_says_whether_the_tap_resumes_or_stopped(mark):
    """Before the first row it means that the tap resumes; in the last STATE, that it stopped."""
    allowed = [
        states_of(entry(mark), entry({}), row_after=0),
        states_of(entry({}), entry(mark), row_after=0),
        states_of(entry({}), entry(mark), entry({}), row_after=0),
    ]
    faults = [each.fault(STREAM, OTHERS, allows_bookmark=False) for each in allowed]
    assert ["resumed_read", "stopped_read", None] == [each and each.code for each in faults]
    faults = [each.fault(STREAM, OTHERS, allows_bookmark=True) for each in allowed]
    assert ["resumed_read", "stopped_read", None] == [each and each.code for each in faults]


def test_a_mark_is_remembered_though_the_tap_clears_it_before_its_first_row():
    """What counts is any STATE before the first row."""
    states = states_of(entry({"xmin": 5}), entry({}), row_after=1)
    assert "resumed_read" == states.fault(STREAM, OTHERS, allows_bookmark=False).code


def test_a_bookmark_may_be_allowed():
    """A person's word lifts the refusal of a bookmark, in the first STATE and in the last."""
    states = states_of(entry(KEY), entry(KEY), row_after=0)
    assert "bookmark_for_mirror" == states.fault(STREAM, OTHERS, allows_bookmark=False).code
    assert states.fault(STREAM, OTHERS, allows_bookmark=True) is None


@pytest.mark.parametrize(
    ("content", "stopped"),
    [
        ({}, True),
        ({"last_replication_method": "FULL_TABLE", "version": 5}, True),
        ({"initial_full_table_complete": True}, False),
        ({"version": 5, "success_timestamp": "2026-01-01"}, False),
    ],
    ids=["nothing", "a version", "complete", "successful"],
)
@pytest.mark.parametrize("name", ["currently_syncing", "current_stream"])
@pytest.mark.parametrize("syncing", ["vip", "db-vip"])
def test_a_stream_that_is_being_read_in_the_last_state_was_cut(content, stopped, name, syncing):
    """The tap has died in it, unless its entry says that it has ended."""
    value = {name: syncing, **entry(content)}
    fault = states_of(value).fault(STREAM, OTHERS, allows_bookmark=False)
    assert (fault is not None and fault.code == "stopped_read") is stopped
    ended = states_of(value, {name: "orders", **entry(content)})
    assert ended.fault(STREAM, OTHERS, allows_bookmark=False) is None


@pytest.mark.parametrize(
    ("refused", "content"),
    [
        (True, {"last_replication_method": "INCREMENTAL"}),
        (True, {"last_replication_method": "LOG_BASED", "lsn": 5}),
        (True, {"last_replication_method": []}),
        (False, {"last_replication_method": "FULL_TABLE"}),
        (False, {"last_replication_method": None}),
        (False, {}),
        (False, 5),
    ],
)
def test_the_replication_method_of_a_mirror(refused, content):
    """A method other than FULL_TABLE is refused, of the mirror's own stream only."""
    assert refused is (refuse_method(parsed(entry(content)), STREAM) is not None)
    assert refuse_method(parsed(entry(content, "orders")), STREAM) is None


def test_no_message_has_a_value():
    """A message names the key of an entry, never what stands there."""
    value = {"replication_key_value": "4111-1111", "last_pk_fetched": {"email": "a@example.com"}}
    for content in (value, {"replication_key_value": "4111-1111"}):
        for row_after in (0, None):
            states = states_of(entry(content), row_after=row_after)
            text = str(states.fault(STREAM, OTHERS, allows_bookmark=False))
            assert "4111" not in text
            assert "example.com" not in text


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text("a\u00e9"),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["bookmarks", "vip", "partitions", "xmin", "version", "currently_syncing", "x"]
            ),
            inner,
        )
    ),
)


@given(json_values)
@example({"bookmarks": {"vip": {"partitions": [{"partitions": [KEY]}]}}})
def test_any_state_can_be_looked_into(value):
    """A STATE of any shape is read without an error, and is whole if it has no other value."""
    state = parsed(value)
    is_whole = state.is_whole(STREAM, OTHERS)
    fault = states_of(value).fault(STREAM, OTHERS, allows_bookmark=False)
    assert is_whole or fault is not None
    if is_whole and fault is not None:
        assert "stopped_read" == fault.code  # by currently_syncing
