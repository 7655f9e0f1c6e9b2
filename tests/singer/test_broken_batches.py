"""Invalid BATCH messages and files, and their rows that cannot be delivered."""

import gzip
import io
import json
import logging
import re
import socket
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import msgspec
import pyarrow as pa
import pytest
from pyarrow import ipc

from target_moengage_cohort.core.errors import InputError
from target_moengage_cohort.core.interrupts import Interrupt
from target_moengage_cohort.delivery.ports import Link, NoPace
from target_moengage_cohort.ledger.engines import open_store
from target_moengage_cohort.moengage.transport import Transport
from target_moengage_cohort.settings import load
from tests.support.batches import (
    ARROW,
    GZIP,
    JSONL,
    MAIN_KINDS,
    PARQUET,
    Folder,
    batch,
    every_kind,
    rejected,
    uids,
)
from tests.support.singer import (
    activate_version,
    config,
    lines,
    open_run,
    record,
    run,
    schema,
    state,
)

SECRET = "PLANTED"
USERS = [{"uid": uid} for uid in "abc"]


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "files")


def cut(path: Path) -> None:
    """Remove the second half of a file."""
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def replace_by_text(path: Path) -> None:
    path.write_bytes(b"<html>\n<p>no such file</p>\n</html>\n" * 50)


def spoil_a_line(path: Path) -> None:
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    data = data.replace(b'{"uid":"u30"}', b'{"uid":"%b"' % SECRET.encode())
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


def put_no_object(path: Path) -> None:
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    data = data.replace(b'{"uid":"u30"}', b'["%b"]' % SECRET.encode())
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


def put_no_text(path: Path) -> None:
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    data = data.replace(b'{"uid":"u30"}', b'{"uid":"\xff%b"}' % SECRET.encode())
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


DAMAGE = [
    *((kind, Path.unlink) for kind in MAIN_KINDS.values()),
    *((kind, cut) for kind in MAIN_KINDS.values()),
    *((kind, replace_by_text) for kind in MAIN_KINDS.values()),
    *((kind, lambda path: path.write_bytes(b"")) for kind in (PARQUET, ARROW)),
    *((kind, spoil_a_line) for kind in (JSONL, GZIP)),
    *((kind, put_no_object) for kind in (JSONL, GZIP)),
    *((kind, put_no_text) for kind in (JSONL, GZIP)),
]


@pytest.mark.parametrize("mode", ["incremental", "mirror"])
@pytest.mark.parametrize(
    ("kind", "damage"),
    DAMAGE,
    ids=[f"{kind.suffix} {getattr(damage, '__name__', '')}" for kind, damage in DAMAGE],
)
def test_a_file_that_is_missing_or_broken_is_an_incomplete_input(
    emulator, folder, caplog, kind, damage, mode
):
    """The run fails and names the file. Members read before it are added, no members are removed,
    and no STATE passes the file."""
    options = {"ledger_uri": str(folder.path / "ledger"), "max_removal_percent": 100}
    options |= {"sync_mode": mode}
    before = run(emulator, lines(schema(), *(record(uid=uid) for uid in "abc")), **options)
    assert before.error is None
    good = folder.batch(kind, [{"uid": "a"}, {"uid": "good"}])
    path = folder.file(kind, [{"uid": f"u{number}"} for number in range(400)])
    damage(path)
    with caplog.at_level(logging.DEBUG):
        data = lines(schema(), good, state({"a": 1}), batch(kind, path), state({"a": 2}))
        seen = run(emulator, data, **options)
    assert isinstance(seen.error, InputError)
    assert path.name in str(seen.error)
    assert {"a", "b", "c", "good"} <= uids(emulator)
    assert ([{"a": 1}] if mode == "incremental" else []) == seen.states
    assert "failed" == seen.report.status
    assert SECRET not in str(seen.error) + caplog.text


@pytest.mark.parametrize("kind", [JSONL, GZIP], ids=["jsonl", "gzip"])
def test_a_broken_line_is_named_and_what_was_before_it_is_delivered(emulator, folder, kind):
    """If a file is broken in the middle, the rows before that place are added."""
    path = folder.file(kind, [{"uid": f"u{number}"} for number in range(400)])
    spoil_a_line(path)
    seen = run(emulator, lines(schema(), batch(kind, path)))
    assert re.search(r"\b(row|line) 31\b", str(seen.error))
    assert {f"u{number}" for number in range(30)} == uids(emulator)


@every_kind
def test_a_row_that_cannot_be_delivered_is_named_by_its_file_and_number(emulator, folder, kind):
    """With `fail` the run stops before the row, and names its place without its values. The rows
    before it are delivered, and STATE does not pass it."""
    good = [{"uid": f"u{number}"} for number in range(6)]
    path = folder.file(kind, [*good, {"uid": None, "note": SECRET}, {"uid": "after"}])
    data = lines(
        schema(columns=("uid", "note")), state({"a": 1}), batch(kind, path), state({"a": 2})
    )
    seen = run(emulator, data)
    assert isinstance(seen.error, InputError)
    assert path.name in str(seen.error)
    assert re.search(r"\b(row|line) 7\b", str(seen.error))
    assert "no identifier: 'uid' is null, empty or absent" in str(seen.error)
    assert SECRET not in str(seen.error)
    assert {row["uid"] for row in good} == uids(emulator)
    assert [{"a": 1}] == seen.states


@every_kind
def test_a_row_that_no_request_can_hold_is_rejected(emulator, folder, kind):
    """An identifier longer than a request is rejected, as in a RECORD."""
    rejects = folder.new("singer")
    rows = [{"uid": "a"}, {"uid": "x" * 1_500}, {"uid": "b"}]
    options = {"on_reject": "skip", "rejects_path": str(rejects), "max_payload_bytes": 1_000}
    seen = run(emulator, lines(schema(), folder.batch(kind, rows)), **options)
    assert seen.error is None
    assert {"a", "b"} == uids(emulator)
    assert [rows[1]] == [row for _, row in rejected(rejects)]


@pytest.mark.parametrize("kind", [JSONL, GZIP], ids=["jsonl", "gzip"])
@pytest.mark.parametrize("key", ["id", "uid", "anon"])
def test_a_row_without_its_key_has_the_error_of_a_record(emulator, folder, kind, key):
    """A row without a key property is refused as in a RECORD, even if the key is an identifier and
    the row has the other one."""
    whole = {"uid": "a", "anon": "x", "id": 1}
    rows = [whole, {column: value for column, value in whole.items() if column != key}]
    data = lines(schema(columns=whole, keys=(key,)), folder.batch(kind, rows))
    seen = run(emulator, data, anonymous_id_column="anon")
    assert (InputError, "missing_key") == (type(seen.error), seen.error.code)
    assert f"lacks the key property '{key}'" in str(seen.error)


@every_kind
def test_a_key_without_a_role_may_follow_one_with_a_role(emulator, folder, kind):
    """Rows of a stream with two keys, the first of which is the uid, are also taken one by one."""
    rows = [{"uid": "a", "note": "x"}, {"uid": None, "note": "y"}]
    data = lines(schema(columns=("uid", "note"), keys=("uid", "note")), folder.batch(kind, rows))
    seen = run(emulator, data, on_reject="skip", rejects_path=str(folder.new("rejects")))
    assert seen.error is None
    assert ({"a"}, 1) == (uids(emulator), seen.report.cohorts[0].rejected)


@every_kind
def test_rejected_rows_can_be_fixed_and_replayed(emulator, folder, kind):
    """A batch's rows in the rejects file are a Singer input that can be fixed and replayed."""
    rejects = folder.new("singer")
    rows = [{"uid": "a", "note": "x"}, {"uid": "", "note": "y"}, {"uid": None, "note": "z"}]
    data = lines(schema(columns=("uid", "note")), folder.batch(kind, rows), state({"a": 1}))
    seen = run(emulator, data, on_reject="skip", rejects_path=str(rejects))
    assert ([{"a": 1}], {"a"}) == (seen.states, uids(emulator))
    messages = [json.loads(line) for line in rejects.read_bytes().splitlines()]
    assert ["SCHEMA", "RECORD", "RECORD"] == [message["type"] for message in messages]
    for message in messages[1:]:
        message["record"]["uid"] = message["record"]["note"]
    assert run(emulator, lines(*messages)).error is None
    assert {"a", "y", "z"} == uids(emulator)


@every_kind
@pytest.mark.parametrize(
    ("what", "options"),
    [
        ("stream maps", {"stream_maps": {"users": {"uid": "uid"}}}),
        ("flattening", {"flattening_enabled": True, "flattening_max_depth": 1}),
        ("validate_records", {"validate_records": True}),
    ],
    ids=["stream maps", "flattening", "validation"],
)
def test_what_needs_whole_records_is_refused_with_batches(emulator, folder, kind, what, options):
    """Stream maps, flattening and validation would be ignored with a BATCH, so they are refused
    together, and the error names them."""
    data = lines(schema(), folder.batch(kind, USERS), state({"a": 1}))
    seen = run(emulator, data, **options)
    assert isinstance(seen.error, InputError)
    assert what in str(seen.error)
    assert "BATCH" in str(seen.error)
    assert ([], set()) == (seen.states, uids(emulator))


@pytest.mark.parametrize(
    ("code", "changed"),
    [
        ("unsupported_batch_format", {"encoding": {"format": "avro"}}),
        ("unsupported_batch_format", {"encoding": {"format": "jsonl", "compression": "zstd"}}),
        ("invalid_batch", {"encoding": {"format": 5}}),
        ("invalid_batch", {"encoding": {}}),
        ("invalid_batch", {"encoding": None}),
        ("invalid_batch", {"manifest": None}),
        ("invalid_batch", {"manifest": "file:///x"}),
        ("invalid_batch", {"manifest": [5]}),
        ("not_a_singer_message", {"stream": None}),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_message_that_cannot_be_used_is_refused(emulator, folder, code, changed):
    """An unsupported format or an incomplete BATCH is an error that names the line."""
    message = folder.batch(JSONL, USERS)
    data = lines(schema(), {**message, **changed}, state({"a": 1}))
    seen = run(emulator, data)
    assert isinstance(seen.error, InputError)
    assert code == seen.error.code
    assert "line 2 of the input" in str(seen.error)
    assert ([], set()) == (seen.states, uids(emulator))


def test_a_batch_before_its_schema_is_refused(emulator, folder):
    """A BATCH of a stream without a SCHEMA is refused as a RECORD is."""
    data = lines(schema(), folder.batch(JSONL, USERS) | {"stream": "unknown"}, state({"a": 1}))
    seen = run(emulator, data)
    assert (InputError, "record_before_schema") == (type(seen.error), seen.error.code)
    assert ([], set()) == (seen.states, uids(emulator))


class Nothing(BaseHTTPRequestHandler):
    """A web server without any files."""

    def do_GET(self) -> None:
        self.send_error(404)

    do_HEAD = do_GET  # noqa: N815 - the name is http.server's

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@pytest.fixture
def nowhere() -> Iterator[dict[str, str]]:
    """Hosts with credentials: one without the file, and one that does not answer."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with ThreadingHTTPServer(("127.0.0.1", 0), Nothing) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        who = f"user:{SECRET}@127.0.0.1"
        yield {"missing": f"http://{who}:{server.server_port}", "closed": f"http://{who}:{port}"}
        server.shutdown()
        thread.join()


@every_kind
@pytest.mark.parametrize("where", ["missing", "closed", "unknown scheme", "no url"])
def test_what_opens_a_url_is_never_shown(emulator, nowhere, caplog, kind, where):
    """Neither the query of a URL, which may sign it, nor its credentials appear in an error, in a
    log at any level, or in a report."""
    host = nowhere.get(where, f"nosuch://user:{SECRET}@host" if "scheme" in where else "http://[")
    url = f"{host}/dir/users.{kind.suffix}?X-Amz-Signature={SECRET}&token={SECRET}#{SECRET}"
    options = {"batch_config": {"storage": {"root": f"{host}/dir"}}} if where in nowhere else {}
    with caplog.at_level(logging.DEBUG):
        seen = run(emulator, lines(schema(), batch(kind, url), state({"a": 1})), **options)
    assert isinstance(seen.error, InputError)
    assert "users." in str(seen.error)
    assert SECRET not in str(seen.error) + caplog.text + repr(msgspec.json.encode(seen.report))
    assert [] == seen.states


def test_arrow_files_without_pyarrow_name_the_extra(emulator, folder, monkeypatch):
    """If pyarrow is not installed, the error names the extra to install."""
    message = folder.batch(ARROW, USERS)
    for name in [name for name in sys.modules if name.partition(".")[0] == "pyarrow"]:
        monkeypatch.setitem(sys.modules, name, None)
    seen = run(emulator, lines(schema(), message))
    assert isinstance(seen.error, InputError)
    assert "pyarrow_missing" == seen.error.code
    assert "install target-moengage-cohort[arrow]" in str(seen.error)


@pytest.mark.parametrize("kind", [JSONL, PARQUET, ARROW], ids=lambda kind: kind.format)
def test_files_without_rows_prove_nothing(emulator, folder, kind):
    """An empty file and an ACTIVATE_VERSION after it do not prove an audience empty."""
    options = {"sync_mode": "mirror", "max_removal_percent": 100}
    run(emulator, lines(schema(), *(record(uid=uid) for uid in "abc")), **options)
    path = folder.new(kind.suffix)
    if kind is JSONL:
        path.write_bytes(b"")
    else:
        kind.write(path, [], {"uid": pa.string()})
    message = batch(kind, path) | {"version": 7}
    seen = run(emulator, lines(schema(), message, activate_version(7)), **options)
    assert "withheld" == seen.report.status
    assert {*"abc"} == uids(emulator)


def test_nothing_that_should_be_gzip_is_broken(emulator, folder):
    """An empty file labelled as gzip is an interrupted upload, so it is an error."""
    path = folder.new("json.gz")
    path.write_bytes(b"")
    options = {"sync_mode": "mirror", "max_removal_percent": 100}
    seen = run(emulator, lines(schema(), batch(GZIP, path), state({"a": 1})), **options)
    assert isinstance(seen.error, InputError)
    assert "batch_file_unreadable" == seen.error.code
    assert "is empty and therefore not a gzip file" in str(seen.error)
    assert [] == seen.states


@pytest.mark.parametrize("mode", ["mirror", "incremental"])
def test_what_duckdb_cannot_read_does_not_matter_in_other_columns(emulator, folder, mode, tmp_path):
    """An unmapped column of a type that DuckDB lacks does no harm, unless one of its rows is
    rejected."""
    table = pa.table({"uid": ["a", "b"], "n": pa.array([1, 2], pa.decimal256(60, 2))})
    path = folder.new("arrow")
    with ipc.new_file(path, table.schema) as writer:
        writer.write_table(table)
    data = lines(schema(columns=("uid", "n")), batch(ARROW, path))
    assert run(emulator, data, sync_mode=mode).error is None
    assert {"a", "b"} == uids(emulator)
    table = table.set_column(0, "uid", [["c", None]])
    with ipc.new_file(path, table.schema) as writer:
        writer.write_table(table)
    skipping = {"on_reject": "skip", "rejects_path": str(tmp_path / "rejects")}
    seen = run(emulator, data, sync_mode=mode, **skipping)
    assert isinstance(seen.error, InputError)
    assert "batch_file_unreadable" == seen.error.code


@pytest.mark.parametrize("mode", ["mirror", "incremental"])
def test_an_interrupt_ends_a_manifest_of_many_files(emulator, folder, mode):
    """Promise 1: after an interrupt no further file is read, and no STATE that follows is taken."""
    there, missing = folder.file(PARQUET, USERS), folder.new("parquet")
    data = lines(schema(), batch(PARQUET, there, there, missing), state({"a": 1}))
    loaded = load(config(emulator, sync_mode=mode))
    states, interrupt = [], Interrupt()
    store = open_store(loaded.settings, run_id="r", wait=interrupt.wait)
    link = Link(Transport(loaded.settings).send, NoPace(interrupt))
    running = open_run(loaded, interrupt, store, link, states.append)
    interrupt.set()
    running.read(io.BytesIO(data))
    running.finish()
    assert "failed" == running.report.status
    assert ["no"] == [cohort.complete.value for cohort in running.report.cohorts]
    assert [] == states
