from __future__ import annotations

import io
import json
import os
import threading
from decimal import Decimal

import hypothesis.strategies as st
import pytest
from hypothesis import example, given
from msgspec import UNSET

from target_moengage_cohort.core.errors import InputError
from target_moengage_cohort.core.interrupts import Interrupt
from target_moengage_cohort.singer.messages import ActivateVersion, Record, Schema, State
from target_moengage_cohort.singer.reader import Reader

NEVER = Interrupt()  # many would use up what `select` can wait for
SECRET = b"pl4nt3d"
COLUMNS = {"uid": "id", "anonymous_id": "a b", "deleted_at": "_sdc_deleted_at"}


def line(kind, **fields) -> bytes:
    return json.dumps({"type": kind} | fields).encode()


def record(stream="s", **columns) -> bytes:
    return line("RECORD", stream=stream, record=columns)


def reader(*streams) -> Reader:
    made = Reader()
    for stream in streams:
        made.expect(stream, COLUMNS, ["key", "id"])
    return made


def messages(made, *lines) -> list:
    found = made.messages(io.BytesIO(b"\n".join(lines)), NEVER)
    return [message for message in found if message is not None]


def through_pipe(made, data, chunk=1 << 20) -> list:
    """The messages of a pipe that is read so many bytes at a time."""
    read_end, write_end = os.pipe()
    os.write(write_end, data)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as source, pytest.MonkeyPatch.context() as patch:
        patch.setattr("target_moengage_cohort.singer.reader.CHUNK_BYTES", chunk)
        found = made.messages(source, NEVER)
        return [message for message in found if message is not None]


def shown(message):
    if isinstance(message, Record) and message.record is not None:
        row = message.record
        columns = {name: getattr(row, name) for name in row.__struct_fields__}
        return (message.stream, columns, message.version)
    return message


def test_a_record_has_one_attribute_for_each_role():
    """A record is a struct of roles; other columns are left out, missing ones are UNSET."""
    (message,) = messages(reader("s"), record(id="u1", other=SECRET.decode()))
    assert ("RECORD", "s") == (message.type, message.stream)
    assert {"uid": "u1", "anonymous_id": UNSET, "deleted_at": UNSET, "key_0": UNSET} == shown(
        message
    )[1]


@pytest.mark.parametrize(
    ("expected", "text"),
    [
        (123456789012345678901234567890, "123456789012345678901234567890"),
        (Decimal("12345678901234567890.10"), "12345678901234567890.10"),
        (Decimal("1E+400"), "1e400"),
        (None, "null"),
        (True, "true"),
        ("\u00e9\n", '"\\u00e9\\n"'),
        ([Decimal("1.5")], "[1.5]"),
    ],
    ids=repr,
)
def test_values_are_exact(expected, text):
    """Numbers keep every digit, on the fast path as in the whole record."""
    made = reader("s")
    raw = b'{"type":"RECORD","stream":"s","record":{"id":%b}}' % text.encode()
    values = [message.record.uid for message in messages(made, raw, raw)]
    assert [expected, expected, expected] == [*values, made.record()["id"]]


def test_other_messages():
    """SCHEMA, STATE and ACTIVATE_VERSION are typed; a schema keeps what the tap sent."""
    schema = {"properties": {"id": {"maximum": 1}}, "x": [1]}
    assert [
        Schema("s", schema, ["id"]),
        Schema("t", {"properties": {}}, []),
        State(b'{"a": 1}'),
        ActivateVersion("s", 5),
    ] == messages(
        reader(),
        line("SCHEMA", stream="s", schema=schema, key_properties=["id"]),
        line("SCHEMA", stream="t", schema={"properties": {}}, key_properties=None),
        line("STATE", value={"a": 1}) + b" \r",
        line("ACTIVATE_VERSION", stream="s", version=5),
    )


@pytest.mark.parametrize(
    ("expected", "text"),
    [
        (5, "5"),
        (1_790_000_000_000, "1790000000000"),
        (2**70, str(2**70)),
        ("5", '"5"'),
        (None, "null"),
        (None, "NaN"),
        (True, "true"),
        ([1], "[1]"),
        ({"a": None}, '{"a":null}'),
    ],
    ids=repr,
)
def test_the_version_of_a_message_is_read(expected, text):
    """RECORD and ACTIVATE_VERSION hand on their version, of whatever type the tap made it."""
    raw = [
        b'{"type":"RECORD","stream":"s","version":%b,"record":{"id":"u"}}' % text.encode(),
        b'{"type":"RECORD","stream":"s","record":{"id":"u"},"version":%b}' % text.encode(),
        b'{"type":"ACTIVATE_VERSION","stream":"s","version":%b}' % text.encode(),
    ]
    versions = [message.version for message in messages(reader("s"), *raw)]
    assert [expected] * 3 == versions
    assert [type(expected)] * 3 == [*map(type, versions)]


def test_a_version_is_not_required():
    """Most taps send none; that is read as null."""
    found = messages(reader("s"), record(id="u"), line("ACTIVATE_VERSION", stream="s"))
    assert [None, None] == [message.version for message in found]


state_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text("ab\u00e9"), inner),
)


@given(state_values, st.booleans(), st.sampled_from([(", ", ": "), (",", ":"), (" ,\t", " : ")]))
def test_the_bytes_of_a_state_survive(value, ascii_only, separators):
    """What a STATE holds is handed on byte for byte, its numbers and its spacing included."""
    text = json.dumps(value, ensure_ascii=ascii_only, separators=separators).encode()
    assert [State(text)] == messages(reader(), b'{"type":"STATE", "value": ' + text + b" }")


@pytest.mark.parametrize("number", ["1.10", "1E5", "0.1000000000000000055511151231257827", "1e999"])
def test_the_digits_of_a_state_survive(number):
    """A number in a STATE keeps the form in which the tap wrote it."""
    text = f'{{"bookmark":{number}}}'.encode()
    assert [State(text)] == messages(reader(), b'{"type":"STATE","value":%b}' % text)


@pytest.mark.parametrize(
    ("what", "bad"),
    [
        ("not valid JSON", SECRET),
        ("not valid JSON", record(id="pl4nt3d")[:-1]),
        ("not valid JSON", record(id="pl4nt3d") + b"x"),
        ("not valid JSON", b'{"type":"STATE","value":{"id":NaN,"x":"pl4nt3d"}}'),
        ("not valid JSON", b'{"type":"STATE","value":' + b"[" * 99_999),
        ("not valid JSON", b'{"type":"STATE","stream":"\xff","value":"pl4nt3d"}'),
        ("not a Singer message", b'["pl4nt3d"]'),
        ("not a Singer message", b'{"stream":"pl4nt3d"}'),
        ("not a Singer message", b'{"type":["pl4nt3d"]}'),
        ("unknown message type", b'{"type":"pl4nt3d"}'),
        (
            "a BATCH of the stream 's' has no 'encoding'",
            line("BATCH", stream="s", manifest=["pl4nt3d"]),
        ),
        ("a message of type RECORD names no 'stream'", b'{"type":"RECORD","record":{}}'),
        ("a message of type ACTIVATE_VERSION names no 'stream'", b'{"type":"ACTIVATE_VERSION"}'),
        ("a RECORD of the stream 's' has no 'record'", line("RECORD", stream="s")),
        (
            "a RECORD of the stream 's' has no 'record'",
            line("RECORD", stream="s", record="pl4nt3d"),
        ),
        (
            "a RECORD of the stream 's' has no 'record', or it is no object, or a number",
            b'{"type":"RECORD","stream":"s","record":{"id":%b}}' % (b"9" * 5_000),
        ),
        ("the SCHEMA of the stream 's' has no 'properties'", line("SCHEMA", stream="s")),
        (
            "the SCHEMA of the stream 's' has no 'properties'",
            b'{"type":"SCHEMA","stream":"s","schema":{"x":1e99999999999999999999}}',
        ),
        ("a STATE has no 'value'", line("STATE", other="pl4nt3d")),
        ("the 'value' of a STATE is not UTF-8", b'{"type":"STATE","value":"pl4nt3d\xff"}'),
    ],
    ids=lambda value: str(value)[:50],
)
def test_a_bad_line_is_named_by_its_number(what, bad):
    """An error says which line it is and what is wrong with it, and shows nothing of it."""
    with pytest.raises(InputError) as raised:
        messages(reader("s"), record(id="u1"), bad, b"")
    assert str(raised.value).startswith(f"line 2 of the input: {what}")
    assert SECRET.decode() not in str(raised.value)


@pytest.mark.parametrize(
    ("odd", "read"),
    [(b"NaN", None), (b"-Infinity", None), (b'"\\ud800"', []), (b"1e99999999999999999999", None)],
)
@pytest.mark.parametrize("column", ["id", "other"])
def test_what_json_has_no_number_or_text_for_stops_no_run(odd, read, column):
    """Python's json writes NaN and half surrogates: no number is read as null, and no text as
    something that is no identifier, so that its row is rejected where it is one."""
    bad = b'{"type":"RECORD","stream":"s","record":{"id":"u","%b":%b}}' % (column.encode(), odd)
    (found,) = messages(reader("s"), bad)
    assert ("u" if column == "other" else read) == found.record.uid


def test_empty_lines_are_passed_over():
    """A blank line, as a shell adds one, is no message; lines are still counted right."""
    made = reader("s")
    assert 2 == len(messages(made, record(id="a"), b"", b"  \r", record(id="b")))
    assert 4 == made.number


fragments = st.sampled_from(
    [
        record(id="u1"),
        record("t", id=1),
        line("STATE", value=1.5),
        b'{"type":',
        b'"RECORD"',
        b"}",
        b'"stream":"s"',
        b"[",
        b"\\ud800",
        b'"',
        b"\xff",
        b"\0",
        b'"record":{',
        b"1e9999",
        b",",
    ]
)


@given(st.lists(fragments | st.binary(max_size=6), max_size=6).map(b"".join))
@example(b'{"type":"RECORD","stream":"s","record":{"id":1e99999999999999999999}}')
def test_arbitrary_bytes_are_messages_or_an_input_error(data):
    """Whatever the input, there are messages, or an `InputError` that names a line."""
    data = data.replace(b"\n", b"") + SECRET
    with pytest.raises(InputError) as raised:
        messages(reader("s", "t"), data, b"")
    assert str(raised.value).startswith("line 1 of the input: ")
    assert SECRET.decode() not in str(raised.value)
    assert raised.value.__cause__ is None


streams = st.lists(
    st.one_of(
        st.builds(record, st.sampled_from("st"), id=st.text() | st.integers(), key=st.just(5)),
        st.builds(record, st.sampled_from("stx")),
        st.builds(
            lambda version: line("RECORD", stream="s", record={"id": "u"}, version=version),
            st.none() | st.integers() | st.text("5"),
        ),
        st.builds(lambda value: line("STATE", value=value), st.integers()),
        st.just(line("ACTIVATE_VERSION", stream="s", version=1)),
        st.just(line("SCHEMA", stream="s", schema={"properties": {}})),
    ),
    max_size=12,
)


@given(streams)
def test_the_fast_path_gives_what_the_generic_one_gives(lines):
    """Interleaved streams read the same as each line read by a reader that knows no stream yet."""
    together = messages(reader("s", "t"), *lines)
    one_by_one = [message for one in lines for message in messages(reader("s", "t"), one)]
    assert [*map(shown, one_by_one)] == [*map(shown, together)]


@given(streams, st.integers(1, 200), st.booleans())
def test_the_way_the_input_is_cut_does_not_matter(lines, chunk, line_break):
    """However the bytes come, the messages are the same; the last line needs no line break."""
    data = b"\n".join(lines) + (b"\n" if line_break and lines else b"")
    made = reader("s", "t")
    found = through_pipe(made, data, chunk)
    assert [*map(shown, messages(reader("s", "t"), *lines))] == [*map(shown, found)]
    assert len(lines) == made.number


def test_an_empty_input_has_no_messages():
    """An input without a byte is no error, whether a pipe or a file in memory."""
    assert [] == through_pipe(reader(), b"")
    assert [] == messages(reader())


def test_text_files_in_memory_are_read_too():
    """The SDK's tests hand over text; it is read as UTF-8."""
    source = io.StringIO(record(id="é").decode() + "\n")
    (first,) = reader("s").messages(source, NEVER)
    assert "é" == first.record.uid


def test_an_interrupt_ends_the_wait_for_input():
    """A reader that waits for a silent tap ends at once; a line that is not whole is left out."""
    read_end, write_end = os.pipe()
    os.write(write_end, record(id="u1") + b"\n" + b'{"type":"REC')
    interrupt = Interrupt()
    found = []
    with os.fdopen(read_end, "rb") as source:
        for message in reader("s").messages(source, interrupt):
            found.append(message)
            if message is None:  # all that is there was read; the next step waits
                threading.Timer(0.01, interrupt.set).start()
    os.close(write_end)
    assert ["u1"] == [message.record.uid for message in found if message is not None]


def test_before_it_waits_it_says_so():
    """`None` comes after the lines that are there, so that nothing is held back meanwhile."""
    read_end, write_end = os.pipe()
    with os.fdopen(read_end, "rb") as source:
        found = reader("s").messages(source, NEVER)
        os.write(write_end, record(id="u1") + b"\n" + record(id="u2") + b"\n")
        assert ["u1", "u2"] == [next(found).record.uid, next(found).record.uid]
        assert None is next(found)
        os.write(write_end, record(id="u3"))
        os.close(write_end)
        assert "u3" == next(found).record.uid


def test_a_new_schema_changes_what_is_decoded():
    """After `expect` the next record is read by the new columns, without a line between."""
    made = reader("s")
    data = io.BytesIO(2 * (record(id="u1", other="o") + b"\n"))
    found = made.messages(data, NEVER)
    assert "u1" == next(found).record.uid
    made.expect("s", {"uid": "other"}, [])
    assert "o" == next(found).record.uid


@pytest.mark.parametrize("column", ['a"b', "a\\b", "a\tb"])
def test_a_column_that_cannot_be_looked_for_is_told(column):
    """A key or mapped column whose name msgspec cannot take is an error that says what to do."""
    with pytest.raises(InputError, match="rename it with a stream map"):
        Reader().expect("s", {"uid": "id"}, [column])


@pytest.mark.parametrize(
    "columns",
    [b'{"x":"pl4nt3d\xff"}', b'{"x":%b}' % (b"9" * 5_000)],
    ids=["not utf-8", "digits"],
)
def test_a_whole_record_that_cannot_be_read_is_an_input_error(columns):
    """The fast path skips a column that the rejects file would need, which is told by its line."""
    made = reader("s")
    messages(made, b'{"type":"RECORD","stream":"s","record":%b}' % columns)
    with pytest.raises(InputError, match="line 1 of the input: a RECORD of the stream 's'") as info:
        made.record()
    assert SECRET.decode() not in str(info.value)
