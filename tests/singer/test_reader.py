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
from target_moengage_cohort.singer.columns import RowLayout, plain_rows
from target_moengage_cohort.singer.messages import ActivateVersion, Record, Schema, State
from target_moengage_cohort.singer.reader import Reader

NEVER = Interrupt()  # many would use up the descriptors that `select` can wait for
SECRET = b"pl4nt3d"
COLUMNS = {"uid": "id", "anonymous_id": "a b", "deleted_at": "_sdc_deleted_at"}


def line(kind, **fields) -> bytes:
    return json.dumps({"type": kind} | fields).encode()


def record(stream="s", **columns) -> bytes:
    return line("RECORD", stream=stream, record=columns)


def reader(*streams) -> Reader:
    made = Reader()
    for stream in streams:
        made.expect(stream, RowLayout(COLUMNS, ["key", "id"]))
    return made


def messages(made, *lines) -> list:
    found = made.messages(io.BytesIO(b"\n".join(lines)), NEVER)
    return [message for message in found if message is not None]


def through_pipe(made, data, chunk=1 << 20) -> list:
    """Return the messages of a pipe that is read a given number of bytes at a time."""
    read_end, write_end = os.pipe()
    os.write(write_end, data)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as source, pytest.MonkeyPatch.context() as patch:
        patch.setattr("target_moengage_cohort.singer.lines.CHUNK_BYTES", chunk)
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
    """SCHEMA, STATE and ACTIVATE_VERSION are typed; a schema keeps the content sent by the tap."""
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
    """RECORD and ACTIVATE_VERSION keep their version, of any type."""
    raw = [
        b'{"type":"RECORD","stream":"s","version":%b,"record":{"id":"u"}}' % text.encode(),
        b'{"type":"RECORD","stream":"s","record":{"id":"u"},"version":%b}' % text.encode(),
        b'{"type":"ACTIVATE_VERSION","stream":"s","version":%b}' % text.encode(),
    ]
    versions = [message.version for message in messages(reader("s"), *raw)]
    assert [expected] * 3 == versions
    assert [type(expected)] * 3 == [*map(type, versions)]


def test_a_version_is_not_required():
    """A missing version, as in most taps, is read as null."""
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
    """The content of a STATE is kept byte for byte, numbers and spacing included."""
    text = json.dumps(value, ensure_ascii=ascii_only, separators=separators).encode()
    assert [State(text)] == messages(reader(), b'{"type":"STATE", "value": ' + text + b" }")


@pytest.mark.parametrize("number", ["1.10", "1E5", "0.1000000000000000055511151231257827", "1e999"])
def test_the_digits_of_a_state_survive(number):
    """A number in a STATE keeps the form in which the tap wrote it."""
    text = f'{{"bookmark":{number}}}'.encode()
    assert [State(text)] == messages(reader(), b'{"type":"STATE","value":%b}' % text)


NOT_A_MESSAGE = "not a Singer message: 'type', 'stream' or 'key_properties' is missing or wrong"
NO_RECORD = (
    "a RECORD of the stream 's' has no 'record' object, or a number or text in it cannot be read"
)
BAD_LINES = [
    ("invalid_json", SECRET),
    ("invalid_json", record(id="pl4nt3d")[:-1]),
    ("invalid_json", record(id="pl4nt3d") + b"x"),
    ("invalid_json", b'{"type":"STATE","value":{"id":NaN,"x":"pl4nt3d"}}'),
    ("invalid_json", b'{"type":"STATE","value":' + b"[" * 99_999),
    ("invalid_json", b'{"type":"STATE","stream":"\xff","value":"pl4nt3d"}'),
    ("not_a_singer_message", b'["pl4nt3d"]'),
    ("not_a_singer_message", b'{"stream":"pl4nt3d"}'),
    ("not_a_singer_message", b'{"type":["pl4nt3d"]}'),
    ("not_a_singer_message", b'{"type":"RECORD","record":{}}'),
    ("not_a_singer_message", b'{"type":"ACTIVATE_VERSION"}'),
    ("unknown_message_type", b'{"type":"pl4nt3d"}'),
    ("invalid_batch", line("BATCH", stream="s", manifest=["pl4nt3d"])),
    ("invalid_record", line("RECORD", stream="s")),
    ("invalid_record", line("RECORD", stream="s", record="pl4nt3d")),
    ("invalid_record", b'{"type":"RECORD","stream":"s","record":{"id":%b}}' % (b"9" * 5_000)),
    ("invalid_schema", line("SCHEMA", stream="s")),
    (
        "invalid_schema",
        b'{"type":"SCHEMA","stream":"s","schema":{"properties":1e99999999999999999999}}',
    ),
    ("invalid_schema", line("SCHEMA", stream="s", schema={"pl4n": {"type": "string"}})),
    ("invalid_state", line("STATE", other="pl4nt3d")),
    ("invalid_state", b'{"type":"STATE","value":"pl4nt3d\xff"}'),
]


@pytest.mark.parametrize(("code", "bad"), BAD_LINES, ids=lambda value: str(value)[:50])
def test_a_bad_line_is_named_by_its_number(code, bad):
    """An error has the number of the line and its fault, but none of its content."""
    with pytest.raises(InputError) as raised:
        messages(reader("s"), record(id="u1"), bad, b"")
    assert code == raised.value.code
    assert str(raised.value).startswith("line 2 of the input: ")
    assert SECRET.decode() not in str(raised.value)


FOREIGN_LINE = (
    "the tap may have failed, or another program wrote to its output. Check the tap's log, then "
    "run again"
)
VIOLATION = ". The tap violates the Singer specification; try a newer version"
WORDINGS = [
    (
        f"not valid JSON; {FOREIGN_LINE}",
        b"x",
    ),
    (NOT_A_MESSAGE + VIOLATION, b"[]"),
    ("a message of type RECORD has no 'stream'" + VIOLATION, b'{"type":"RECORD"}'),
    (
        "unknown message type; the supported types are RECORD, SCHEMA, STATE, ACTIVATE_VERSION, "
        "BATCH" + VIOLATION,
        b'{"type":"x"}',
    ),
    (NO_RECORD + VIOLATION, line("RECORD", stream="s")),
    ("the SCHEMA of the stream 's' has no 'schema' object" + VIOLATION, line("SCHEMA", stream="s")),
    (
        "the SCHEMA of the stream 's' has its columns ('id', 'name') directly in 'schema' "
        "instead of in its 'properties'" + VIOLATION,
        line("SCHEMA", stream="s", schema={"id": {"type": "string"}, "name": {}}),
    ),
    ("a STATE has no 'value'" + VIOLATION, line("STATE")),
    ("the 'value' of a STATE is not UTF-8" + VIOLATION, b'{"type":"STATE","value":"\xff"}'),
    (
        "a BATCH of the stream 's' has no 'encoding' or no 'manifest'" + VIOLATION,
        line("BATCH", stream="s"),
    ),
]


@pytest.mark.parametrize(("what", "bad"), WORDINGS, ids=lambda value: str(value)[:50])
def test_the_message_about_a_bad_line(what, bad):
    """Each fault has a readable message."""
    with pytest.raises(InputError) as raised:
        messages(reader("s"), bad)
    assert f"line 1 of the input: {what}" == str(raised.value)


@pytest.mark.parametrize(
    ("odd", "read"),
    [(b"NaN", None), (b"-Infinity", None), (b'"\\ud800"', []), (b"1e99999999999999999999", None)],
)
@pytest.mark.parametrize("column", ["id", "other"])
def test_what_json_has_no_number_or_text_for_stops_no_run(odd, read, column):
    """Python's json writes NaN and half surrogates. NaN is read as null, and a half surrogate as a
    value that is not a valid identifier, so that its row is rejected."""
    bad = b'{"type":"RECORD","stream":"s","record":{"id":"u","%b":%b}}' % (column.encode(), odd)
    (found,) = messages(reader("s"), bad)
    assert ("u" if column == "other" else read) == found.record.uid


def test_empty_lines_are_passed_over():
    """A blank line is skipped, and lines are still counted correctly."""
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
    """Any input results in messages, or in an `InputError` that names a line."""
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
    """Interleaved streams are read like each line by a reader that knows no stream yet."""
    together = messages(reader("s", "t"), *lines)
    one_by_one = [message for one in lines for message in messages(reader("s", "t"), one)]
    assert [*map(shown, one_by_one)] == [*map(shown, together)]


@given(streams, st.integers(1, 200), st.booleans())
def test_the_way_the_input_is_cut_does_not_matter(lines, chunk, line_break):
    """However the bytes arrive, the messages are the same; the last line needs no line break."""
    data = b"\n".join(lines) + (b"\n" if line_break and lines else b"")
    made = reader("s", "t")
    found = through_pipe(made, data, chunk)
    assert [*map(shown, messages(reader("s", "t"), *lines))] == [*map(shown, found)]
    assert len(lines) == made.number


def test_an_empty_input_has_no_messages():
    """An input without a byte is not an error, whether a pipe or a file in memory."""
    assert [] == through_pipe(reader(), b"")
    assert [] == messages(reader())


def test_text_files_in_memory_are_read_too():
    """Text, as in the SDK's tests, is read as UTF-8."""
    source = io.StringIO(record(id="é").decode() + "\n")
    (first,) = reader("s").messages(source, NEVER)
    assert "é" == first.record.uid


def test_an_interrupt_ends_the_wait_for_input():
    """A reader that waits for a silent tap ends immediately and omits an incomplete line."""
    read_end, write_end = os.pipe()
    os.write(write_end, record(id="u1") + b"\n" + b'{"type":"REC')
    interrupt = Interrupt()
    found = []
    with os.fdopen(read_end, "rb") as source:
        for message in reader("s").messages(source, interrupt):
            found.append(message)
            if message is None:  # all available input was read; the next step waits
                threading.Timer(0.01, interrupt.set).start()
    os.close(write_end)
    assert ["u1"] == [message.record.uid for message in found if message is not None]


def test_before_it_waits_it_says_so():
    """`None` follows the available lines, so that nothing is held back while the reader waits."""
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
    """After `expect` the very next record is read by the new columns."""
    made = reader("s")
    data = io.BytesIO(2 * (record(id="u1", other="o") + b"\n"))
    found = made.messages(data, NEVER)
    assert "u1" == next(found).record.uid
    made.expect("s", RowLayout({"uid": "other"}, []))
    assert "o" == next(found).record.uid


@pytest.mark.parametrize("column", ['a"b', "a\\b", "a\tb"])
def test_a_column_that_cannot_be_decoded_is_refused(column):
    """A column name that msgspec does not accept is an error that names the remedy."""
    with pytest.raises(InputError, match="rename it with a stream map") as raised:
        Reader().expect("s", RowLayout({"uid": "id"}, [column]))
    assert "unsupported_column_name" == raised.value.code


@pytest.mark.parametrize(
    "columns",
    [b'{"x":"pl4nt3d\xff"}', b'{"x":%b}' % (b"9" * 5_000)],
    ids=["not utf-8", "digits"],
)
def test_a_whole_record_that_cannot_be_read_is_an_input_error(columns):
    """If a skipped column cannot be decoded for the rejects file, the error names its line."""
    made = reader("s")
    messages(made, b'{"type":"RECORD","stream":"s","record":%b}' % columns)
    with pytest.raises(InputError, match="line 1 of the input: ") as raised:
        made.record()
    assert "invalid_record" == raised.value.code
    assert SECRET.decode() not in str(raised.value)


PLAIN = {"uid": "id"}


def plain_reader() -> Reader:
    """A reader that takes plain rows of the stream `s`."""
    made = Reader()
    plain = plain_rows(PLAIN, [], {"id": {"type": "string"}})
    made.expect("s", RowLayout(PLAIN, [], plain))
    return made


def test_plain_records_are_one_message():
    """A piece of plain records after another one is a chunk, which has columns and rows."""
    made = plain_reader()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("target_moengage_cohort.singer.lines.PIECE_BYTES", 1)
        found = made.messages(io.BytesIO(b"\n".join(record(id=uid) for uid in "abc")), NEVER)
        first, second, third = list(found)
    assert "a" == first.record.uid
    assert [("s", None, 1)] * 2 == [
        (each.stream, each.version, each.count) for each in (second, third)
    ]
    assert [["b"], ["c"]] == [each.chunk.columns().uids for each in (second, third)]
    assert 3 == made.number


def test_a_chunk_is_taken_row_by_row_where_its_lines_are():
    """While a chunk is read row by row, `record` and `where` are those of its latest row."""
    made = plain_reader()
    data = b"".join(record(id=uid, n=uid) + b"\n" for uid in "abcd")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("target_moengage_cohort.singer.lines.PIECE_BYTES", len(data) // 4 + 1)
        found = made.messages(io.BytesIO(data), NEVER)
        assert ["a", "b"] == [next(found).record.uid, next(found).record.uid]
        rows = next(found)
        assert (2, 4) == (rows.count, made.number)
        seen = [(row.uid, made.record()["n"], made.where("")) for row in rows.chunk.rows()]
    assert [("c", "c", "line 3 of the input: "), ("d", "d", "line 4 of the input: ")] == seen


@pytest.mark.parametrize(
    "odd",
    [
        record(id=None),
        record(id=""),
        record(id=5),
        record(),
        record(id="x" * 1_001),
        line("RECORD", stream="s", record={"id": "u"}, version=5),
        record("t", id="u"),
        line("STATE", value=1),
        b"",
        record(id="u") + record(id="u"),
    ],
    ids=lambda value: str(value)[:50],
)
def test_a_piece_with_an_unusual_line_is_not_plain(odd):
    """If any line is not a plain record of the latest stream and version, each message of its piece
    is yielded individually."""
    made = plain_reader()
    data = io.BytesIO(record(id="a") + b"\n")
    assert 1 == len([*made.messages(data, NEVER)])
    data = io.BytesIO(b"\n".join([record(id="b"), odd, record(id="c")]))
    found = made.messages(data, NEVER)
    assert "b" == next(found).record.uid
