"""Any input ends in success or in an error with a message, and adds only named members."""

import gzip
import json
import os
import re
import subprocess
import sys
import tempfile

import pytest
from hypothesis import given, seed
from hypothesis import strategies as st

from target_moengage_cohort.core.errors import InternalError
from target_moengage_cohort.emulator import Emulator
from tests.support.batches import ARROW, GZIP, JSONL, MAIN_KINDS, batch, uids
from tests.support.oddities import SEED, broken_lines, fuzzed, odd_messages
from tests.support.singer import (
    UNLIMITED,
    activate_version,
    config,
    environment,
    finish,
    lines,
    record,
    run,
    schema,
    start,
    state,
)
from tools.benchmarks.processes import LAUNCH

BATCHED = ("b1", "b2")
NAMES = ("u1", "u2", "u3", "7")
_ROW = st.fixed_dictionaries(
    {"uid": st.sampled_from(NAMES) | st.just(7)},
    optional={
        "_sdc_deleted_at": st.sampled_from([None, "2026-11-22"]),
        "x": st.sampled_from([None, 1.5, "\0", {"a": [1]}]),
    },
)


def typed_schema(*keys):
    message = schema(columns=("uid", "x"), keys=keys)
    message["schema"]["properties"]["uid"] = {"type": ["string", "null"]}
    return message


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """An emulator, and files for BATCH messages."""
    folder = tmp_path_factory.mktemp("files")
    for name, kind in MAIN_KINDS.items():
        kind.write(folder / name, [{"uid": uid} for uid in BATCHED])
    with Emulator(requests_per_minute=UNLIMITED) as emulator:
        yield emulator, folder


def good_messages(folder):
    return st.one_of(
        st.builds(lambda row: record(**row), _ROW),
        st.builds(lambda row: {**record(**row), "version": 1}, _ROW),
        st.sampled_from([typed_schema(), typed_schema("uid"), activate_version(1)]),
        st.just(state({"at": 0})),
        st.sampled_from([batch(kind, folder / name) for name, kind in MAIN_KINDS.items()]),
    )


def lenient(line):
    """Return a line as Python's lenient JSON reader decodes it."""
    try:
        return json.loads(line.decode(errors="replace"), parse_float=str)
    except (ValueError, RecursionError):
        return None


def named(line):
    """Return the members that the row in a line may mean, or the rows in its batch file."""
    message = lenient(line)
    if not isinstance(message, dict) or message.get("type") not in ("RECORD", "BATCH"):
        return set()
    if message["type"] == "BATCH":
        return {*BATCHED}
    row = message.get("record")
    uid = row.get("uid") if isinstance(row, dict) else None
    return {str(uid), str(uid).removesuffix(".0")} if isinstance(uid, str | int) else set()


def run_on(emulator, messages, **options):
    """Run on valid messages and odd bytes, and check that no other members are accepted."""
    emulator.reset()
    numbered = [
        {**one, "value": {"at": at}} if isinstance(one, dict) and one["type"] == "STATE" else one
        for at, one in enumerate(messages)
    ]
    data = lines(*numbered)
    seen = run(emulator, data, **options)
    assert not isinstance(seen.error, InternalError), seen.error
    assert seen.error is None or str(seen.error)
    rows = data.split(b"\n")  # an oddity may contain line breaks
    stop = re.search(r"line (\d+) of the input", str(seen.error))
    read = rows if stop is None else rows[: int(stop[1])]
    if stop is not None and not named(read[-1]) & {*BATCHED}:
        read.pop()
    assert uids(emulator) <= set().union(*map(named, read))
    places = [one.get("at") for one in seen.states if isinstance(one, dict)]
    places = [at for at in places if type(at) is int and 0 < at < len(messages)]
    assert sorted(places) == places
    return seen


def surely_there(messages):
    """Return the members accepted in any case: added before the odd lines, and not in them."""
    at = next((at for at, one in enumerate(messages) if isinstance(one, bytes)), len(messages))
    present = {}
    for one in messages[:at]:
        if one["type"] == "RECORD":
            present[str(one["record"]["uid"])] = not one["record"].get("_sdc_deleted_at")
    rest = lines(*messages[at:]).decode(errors="replace")
    return {uid for uid, there in present.items() if there and uid not in rest}


def inputs(folder, most):
    good = good_messages(folder)
    odd = odd_messages(good) | broken_lines(good) | st.binary(max_size=40)
    return st.lists(good | odd, max_size=most).map(lambda rest: [typed_schema(), *rest])


def test_whatever_comes_nobody_is_accepted_whom_no_row_named(place):
    """Odd lines among valid ones end the run with a message or have no effect. The members of
    earlier rows are accepted, and no others."""
    emulator, folder = place

    @seed(SEED)
    @fuzzed(100)
    @given(inputs(folder, 8), st.booleans())
    def holds(messages, skips):
        skip = {"on_reject": "skip", "rejects_path": str(folder / "rejects")}
        run_on(emulator, messages, **(skip if skips else {}))
        assert surely_there(messages) <= uids(emulator)

    holds()


def test_whatever_comes_the_sdk_ways_end_with_a_message(place):
    """The same applies if the SDK maps and validates whole records. If it flattens them, which
    turns lists into text, no traceback is shown."""
    emulator, folder = place
    slow = {"validate_records": True, "stream_maps": {"users": {"y": "uid"}}}
    flat = {"flattening_enabled": True, "flattening_max_depth": 2}

    @seed(SEED)
    @fuzzed(25)
    @given(inputs(folder, 5))
    def holds(messages):
        run_on(emulator, messages, **slow)
        seen = run(emulator, lines(*messages), **flat)
        assert not isinstance(seen.error, InternalError), seen.error

    holds()


def test_whatever_comes_a_mirror_removes_nobody_at_a_fault(place):
    """A mirror whose input has a fault adds and removes no members."""
    emulator, folder = place
    before = [typed_schema(), *(record(uid=f"old{number}") for number in range(9))]

    @seed(SEED)
    @fuzzed(15)
    @given(inputs(folder, 6))
    def holds(messages):
        emulator.reset()
        with tempfile.TemporaryDirectory() as ledger:
            options = {"sync_mode": "mirror", "ledger_uri": ledger, "max_removal_percent": 100}
            assert run(emulator, lines(*before), **options).error is None
            seen = run(emulator, lines(*messages), **options)
        assert not isinstance(seen.error, InternalError), seen.error
        if seen.error is not None:
            assert [] == emulator.requests(action="remove_members")
        assert {f"old{number}" for number in range(9)} <= uids(emulator) or seen.error is None

    holds()


def rows_of(value):
    """Return a RECORD with a valid uid, and an unmapped column with some raw JSON."""
    return b'{"type":"RECORD","stream":"users","record":{"uid":"a","x":%b}}' % value


def with_uid(value):
    return b'{"type":"RECORD","stream":"users","record":{"uid":%b}}' % value


def state_of(value):
    return b'{"type":"STATE","value":{"a":%b}}' % value


def batch_of(*manifest):
    return batch(JSONL, *manifest)


DEEP = b"[" * 100_000 + b"]" * 100_000
MEGABYTES = 50_000_000
NOT_JSON, MISSING = "invalid_json", "batch_file_missing"
NOT_ALLOWED = "batch_storage_not_allowed"
NAMED = {
    "50 MB in an unmapped column": ([rows_of(b'"%b"' % (b"y" * MEGABYTES))], None),
    "50 MB in a STATE": ([rows_of(b"1"), state_of(b'"%b"' % (b"y" * MEGABYTES))], None),
    "50 MB of digits in an unmapped column": ([rows_of(b"1" * MEGABYTES)], None),
    "50 MB in a uid": ([rows_of(b"1"), with_uid(b'"%b"' % (b"y" * MEGABYTES))], "takes 50000010"),
    "50 MB of NUL": ([rows_of(b"1"), bytes(MEGABYTES)], NOT_JSON),
    "100,000 levels in an unmapped column": ([rows_of(b"1"), rows_of(DEEP)], NOT_JSON),
    "100,000 levels in a uid": ([rows_of(b"1"), with_uid(DEEP)], NOT_JSON),
    "100,000 levels in a STATE": ([rows_of(b"1"), state_of(DEEP)], NOT_JSON),
    "300 levels of anyOf": (
        [
            b'{"type":"SCHEMA","stream":"users","schema":{"properties":{"uid":%b}}}'
            % (b'{"anyOf":[' * 300 + b"]}" * 300),
            rows_of(b"1"),
        ],
        None,
    ),
    "NUL bytes between lines": ([rows_of(b"1"), b"\0\0"], NOT_JSON),
    "broken UTF-8 in a STATE": ([rows_of(b"1"), state_of(b'"\xff"')], "invalid_state"),
    "broken UTF-8 in an unmapped column": ([rows_of(b'"\xff"')], None),
    "broken UTF-8 in a name": ([rows_of(b'{"\xff":1}')], None),
    "broken UTF-8 in a uid": ([rows_of(b"1"), with_uid(b'"\xff"')], "invalid_record"),
    "half a surrogate pair in a uid": ([rows_of(b"1"), with_uid(b'"\\ud800"')], "neither text nor"),
    "half a surrogate pair in a name": ([rows_of(b'{"\\ud800":1}')], None),
    "10,000 digits in a uid": ([rows_of(b"1"), with_uid(b"1" * 10_000)], "invalid_record"),
    "an exponent of 10^9 in a uid": ([rows_of(b"1"), with_uid(b"1e1000000000")], "digits"),
    "an exponent of -10^9 in a uid": ([rows_of(b"1"), with_uid(b"1e-999999999")], "a fraction"),
    "4,000 digits in a STATE": ([rows_of(b"1"), state_of(b"1" * 4_000)], None),
    "an exponent of 10^9 in a STATE": ([rows_of(b"1"), state_of(b"1e1000000000")], None),
    "a million empty lines": ([b"\n" * 1_000_000, rows_of(b"1")], None),
    "no name in a manifest": ([rows_of(b"1"), batch_of()], None),
    "the name of a folder": ([rows_of(b"1"), batch_of("/")], MISSING),
    "/dev/null": ([rows_of(b"1"), batch_of("/dev/null")], MISSING),
    "/dev/zero": ([rows_of(b"1"), batch_of("/dev/zero")], MISSING),
    "standard input": ([rows_of(b"1"), batch_of("/dev/stdin")], MISSING),
    "a name with NUL": ([rows_of(b"1"), batch_of("file:///a%00")], MISSING),
    "a name too long": ([rows_of(b"1"), batch_of("/" + "x" * 300)], MISSING),
    "an empty name": ([rows_of(b"1"), batch_of("")], MISSING),
    "5,000 names": ([rows_of(b"1"), batch_of(*["/nowhere"] * 5_000)], MISSING),
    "a scheme that is unknown": ([rows_of(b"1"), batch_of("nope://x")], NOT_ALLOWED),
    "a scheme that wants more": ([rows_of(b"1"), batch_of("github://x")], NOT_ALLOWED),
    "a scheme of an archive": ([rows_of(b"1"), batch_of("zip://x")], NOT_ALLOWED),
    "a column named with a control character": (
        [rows_of(b"1"), schema(keys=("a\nb",))],
        "unsupported_column_name",
    ),
    "a type that is none": (
        [{**schema(), "schema": {"properties": {"uid": {"type": 5, "anyOf": 7}}}}, rows_of(b"1")],
        None,
    ),
}  # fmt: skip


@pytest.mark.parametrize(("messages", "fault"), NAMED.values(), ids=NAMED)
def test_odd_inputs_that_have_names(place, messages, fault):
    """An odd input is an error with a code or the reason of a rejected row, or does no harm. The
    good row is delivered, and STATE is written byte for byte or not at all."""
    emulator, _ = place
    emulator.reset()
    states = []
    seen = run(emulator, lines(schema(), *messages), write_state=states.append)
    assert not isinstance(seen.error, InternalError), seen.error
    assert (fault or "None") in f"{getattr(seen.error, 'code', '')} {seen.error}"
    assert {"a"} == uids(emulator)
    sent = [one for one in messages if isinstance(one, bytes) and b'"STATE"' in one[:20]]
    assert ([] if fault else sent) == [b'{"type":"STATE","value":%b}' % value for value in states]


def test_a_url_within_a_url_shows_no_credentials(place):
    """No message shows the credentials in the inner one of fsspec's chained URLs."""
    emulator, _ = place
    url = "simplecache::nope://planted:s/cret@host/file"
    seen = run(emulator, lines(schema(), batch_of(url)))
    assert "batch_storage_not_allowed" == seen.error.code
    assert "planted" not in str(seen.error)
    assert "cret" not in str(seen.error)


def test_two_thousand_streams_in_one_input():
    """Two thousand streams populate as many cohorts, and STATE covers all of them."""
    names = [f"s{number}" for number in range(2_000)]
    messages = [one for name in names for one in (schema(name), record(name, uid="u"))]
    with Emulator(requests_per_minute=UNLIMITED, max_cohorts=len(names)) as emulator:
        limit = len(names)
        seen = run(emulator, lines(*messages, state({"a": 1})), max_new_cohorts=limit)
        assert (None, [{"a": 1}]) == (seen.error, seen.states)
        assert [] == [name for name in names if uids(emulator, name) != {"u"}]


def test_a_number_of_any_length_in_a_state_survives(place, tmp_path):
    """A STATE may contain integers of more than 4,300 digits, which Python refuses to parse."""
    emulator, _ = place
    value = b'{"a":%b}' % (b"7" * 10_000)
    process = start(tmp_path / "home", config(emulator, sync_mode="mirror"))
    data = lines(schema(), record(uid="a"), b'{"type":"STATE","value":%b}' % value)
    out, err = process.communicate(data, timeout=60)
    assert 0 == process.returncode, err
    assert value in out


def test_a_fifo_in_a_manifest_is_not_waited_for(place, tmp_path):
    """A pipe without a writer is not a batch file, whatever scheme names it."""
    emulator, _ = place
    os.mkfifo(tmp_path / "fifo")
    for name, code in (
        (str(tmp_path / "fifo"), "batch_file_missing"),
        ((tmp_path / "fifo").as_uri(), "batch_file_missing"),
        (f"local://{tmp_path}/fifo", "batch_storage_not_allowed"),
    ):
        report = tmp_path / "report.json"
        process = start(tmp_path / "home", config(emulator, report_path=str(report)))
        assert 1 == finish(process, lines(schema(), batch(JSONL, name))).code
        assert code == json.loads(report.read_text())["error"]["code"]


@pytest.mark.parametrize("is_batch", [True, False], ids=["gzip bomb", "standard input"])
def test_a_line_without_end_takes_no_memory_without_end(place, tmp_path, is_batch):
    """At most 128 MiB of an endless line are read, however small its file is."""
    emulator, _ = place
    bomb, source, errors = (tmp_path / name for name in ("bomb", "source", "errors"))
    if is_batch:
        with gzip.open(bomb, "wb", 1) as file:
            for _ in range(200):
                file.write(bytes(1 << 20))
    source.write_bytes(lines(schema(), record(uid="a"), *([batch(GZIP, bomb)] if is_batch else ())))
    if not is_batch:
        os.truncate(source, 1 << 30)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config(emulator)))
    command = [sys.executable, "-m", "target_moengage_cohort", "--config", str(path)]
    launcher = [sys.executable, "-I", "-S", str(LAUNCH), str(source), str(errors)]
    took = json.loads(subprocess.check_output([*launcher, *command], env=environment(tmp_path)))
    assert 1 == took["code"]
    assert "the line exceeds 128 MiB" in errors.read_text()
    assert took["peak_bytes"] < 400 << 20


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        (b"\x02\0\0\0\x04\0\0\0", b"\x02\0\0\0\0\xff\xff\x7f"),
        (b"uid", b"u\xffd"),
        (b"b1b2", b"b1\xff\xff"),
    ],
    ids=["offsets", "a name", "text"],
)
def test_an_arrow_file_that_lies_is_a_message(place, good, bad):
    """An offset beyond the file, which would crash the process, and invalid text are errors."""
    emulator, folder = place
    emulator.reset()
    content = (folder / "arrow").read_bytes()
    assert good in content
    (folder / "lies").write_bytes(content.replace(good, bad))
    seen = run(emulator, lines(schema(), record(uid="a"), batch(ARROW, folder / "lies")))
    assert "batch_file_unreadable" == seen.error.code
    assert {"a"} == uids(emulator)


@pytest.mark.parametrize("kind", MAIN_KINDS.values(), ids=MAIN_KINDS)
def test_whatever_is_in_a_batch_file_is_a_message(place, kind):
    """Random files and corrupted files end the run with a message or are read. Only members of
    whole rows are accepted."""
    emulator, folder = place
    good = (folder / next(name for name, one in MAIN_KINDS.items() if one is kind)).read_bytes()

    @seed(SEED)
    @fuzzed(15)
    @given(st.data())
    def holds(data):
        content = data.draw(st.binary(max_size=200) | st.just(good))
        for _ in range(data.draw(st.integers(0, 3))):
            at = data.draw(st.integers(0, len(content)))
            content = content[:at] + data.draw(st.binary(max_size=4)) + content[at + 1 :]
        path = folder / "odd"
        path.write_bytes(content)
        emulator.reset()
        seen = run(emulator, lines(schema(), record(uid="a"), batch(kind, path)))
        assert not isinstance(seen.error, InternalError), seen.error
        assert "a" in uids(emulator)

    holds()
