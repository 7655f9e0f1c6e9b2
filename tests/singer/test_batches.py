"""BATCH messages: formats, places, and the order of files, rows and records."""

import gzip
import shutil
import tempfile
import typing as t
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import ipc
from singer_sdk.helpers._batch import StorageTarget

from target_moengage_cohort.core.errors import InputError, TryAgainError
from tests.support.batches import (
    ARROW,
    GZIP,
    JSONL,
    KINDS,
    PARQUET,
    Folder,
    Row,
    as_table,
    batch,
    every_kind,
    json_line,
    record_line,
    rejected,
    uids,
)
from tests.support.singer import (
    activate_version,
    lines,
    record,
    run,
    schema,
    state,
)

MODES = ["incremental", "add", "remove", "mirror", "one_time"]
USERS = [{"uid": uid} for uid in "abc"]


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "files")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_each_kind_of_file_in_each_sync_mode(emulator, folder, kind, mode):
    """Each format, compressed or not and however it is labelled, works in each sync mode."""
    columns = ("uid", "_sdc_deleted_at")
    rows = [
        {"uid": "a", "_sdc_deleted_at": None},
        {"uid": "new", "_sdc_deleted_at": None},
        {"uid": "b", "_sdc_deleted_at": "2026-01-01"},
    ]
    options = {"ledger_uri": str(folder.path / "ledger"), "max_removal_percent": 100}
    first = [record(uid=uid) for uid in "abc"]
    run(emulator, lines(schema(columns=columns), *first), **options)
    options |= {"sync_mode": mode}
    after = {
        "incremental": {"a", "c", "new"},
        "add": {"a", "b", "c", "new"},
        "remove": {"c"},
        "mirror": {"a", "new"},
        "one_time": {"a", "b", "c", "new"},
    }
    message = folder.batch(kind, rows)
    seen = run(emulator, lines(schema(columns=columns), message, state({"a": 1})), **options)
    assert seen.error is None
    assert after[mode] == uids(emulator)
    assert [{"a": 1}] == seen.states
    (cohort,) = seen.report.cohorts
    assert (3, 0) == (cohort.records, cohort.rejected)
    assert all(Path(file.removeprefix("file://")).exists() for file in message["manifest"])


@pytest.mark.parametrize("kind", [PARQUET, ARROW], ids=["parquet", "arrow"])
@pytest.mark.parametrize("type_", [pa.float64(), pa.float32()], ids=str)
def test_a_column_of_floats_holds_no_identifiers(emulator, folder, kind, type_):
    """Every float is rejected, because it may have lost digits; null is not a float."""
    rejects = folder.new("singer")
    rows = [{"uid": 5.0, "n": "x"}, {"uid": None, "n": "y"}, {"uid": 1.5, "n": "z"}]
    message = folder.batch(kind, rows, {"uid": type_, "n": pa.string()})
    data = lines(schema(columns=("uid", "n")), message)
    seen = run(emulator, data, on_reject="skip", rejects_path=str(rejects))
    assert seen.error is None
    assert set() == uids(emulator)
    reasons = [reason for reason, _ in rejected(rejects)]
    assert 2 == sum("float" in reason for reason in reasons)
    assert 1 == sum("no identifier" in reason for reason in reasons)


@pytest.mark.parametrize("kind", [PARQUET, ARROW], ids=["parquet", "arrow"])
@pytest.mark.parametrize("scale", [0, 2])
@pytest.mark.parametrize("mode", ["incremental", "mirror"])
def test_a_column_of_decimals_keeps_every_digit(emulator, folder, kind, scale, mode):
    """Exact decimals are identifiers, whether their rows are taken together or one by one."""
    numbers = ["12345678901234567890", "900719925474099312345"]
    rows = [{"uid": Decimal(number)} for number in numbers]
    types = {"uid": pa.decimal128(38, scale)}
    deleted = {"uid": Decimal(7), "_sdc_deleted_at": "2026-03-04"}
    parts = [folder.batch(kind, rows, types)]
    parts += [folder.batch(kind, [*rows, deleted], types | {"_sdc_deleted_at": pa.string()})]
    for part in parts:
        seen = run(emulator, lines(schema(), part), sync_mode=mode)
        assert seen.error is None
        assert {*numbers} == uids(emulator)


FLOATS = [b"1.2345678901234568e+17", b"9.007199254740993E+18", b"1.23456789012345678e17"]


@pytest.mark.parametrize("kind", [None, JSONL, GZIP], ids=["RECORD", "jsonl", "gzip"])
@pytest.mark.parametrize("kind_of_id", ["number", "integer", "string"])
def test_an_identifier_that_came_through_a_float_is_rejected(emulator, folder, kind, kind_of_id):
    """A spreadsheet's number with an exponent beyond 2^53 is somebody else's; smaller ones are not,
    and a rejected row that is replayed is rejected again."""
    head = schema()
    head["schema"]["properties"]["uid"] = {"type": ["null", kind_of_id]}
    rows = [b'{"uid":%b}' % each for each in (b"4711.0", b"8.15e2", b"123456789012345678", *FLOATS)]
    if kind is None:
        said = [b'{"type":"RECORD","stream":"users","record":%b}' % row for row in rows]
    else:
        path, data = folder.new(kind.suffix), b"\n".join(rows)
        path.write_bytes(gzip.compress(data) if kind is GZIP else data)
        said = [batch(kind, path)]
    path = folder.new("rejects")
    options = {"on_reject": "skip", "rejects_path": str(path)}
    run(emulator, lines(head, *said), **options)
    assert {"4711", "815", "123456789012345678"} == uids(emulator)
    assert 3 == len(rejected(path))
    assert {True} == {"came through a float" in reason for reason, _ in rejected(path)}
    replayed = path.rename(folder.new("replayed"))
    run(emulator, replayed.read_bytes(), **options)
    assert 3 == len(rejected(path))
    assert {"4711", "815", "123456789012345678"} == uids(emulator)


@pytest.mark.parametrize("kind", [PARQUET, ARROW], ids=["parquet", "arrow"])
def test_a_column_of_timestamps_tells_of_deletions(emulator, folder, kind):
    """If `_sdc_deleted_at` is a time instead of text, members with a time are removed."""
    types = {"uid": pa.string(), "_sdc_deleted_at": pa.timestamp("us", "UTC")}
    rows = [{"uid": "a", "_sdc_deleted_at": 1_790_000_000_000_000}, {"uid": "b"}]
    announced = schema(columns=("uid", "_sdc_deleted_at"))
    run(emulator, lines(announced, record(uid="a")))
    seen = run(emulator, lines(announced, folder.batch(kind, rows, types)))
    assert seen.error is None
    assert {"b"} == uids(emulator)


@pytest.mark.parametrize("kind", [PARQUET, ARROW], ids=["parquet", "arrow"])
def test_whole_rows_of_a_columnar_file_are_rejected(emulator, folder, kind):
    """A rejected row is kept with all its columns, mapped or not, of any type."""
    rejects = folder.new("singer")
    row = {"uid": None, "note": "ü", "n": 2**40, "price": Decimal("1.10"), "flag": True}
    row |= {"tags": ["a", "b"], "nothing": None}
    types = {"price": pa.decimal128(38, 2), "at": pa.timestamp("us", "UTC"), "raw": pa.binary()}
    rows = [{"uid": "a"}, row | {"at": 1_790_000_000_000_000, "raw": b"\xff"}]
    data = lines(schema(columns=("uid", *row)), folder.batch(kind, rows, types))
    seen = run(emulator, data, on_reject="skip", rejects_path=str(rejects))
    assert seen.error is None
    ((_, found),) = rejected(rejects)
    assert {n: v for n, v in row.items() if v is not None} == {
        n: v for n, v in found.items() if n not in {"at", "raw"}
    }
    assert str(found["at"]).startswith("2026-09-21")


def test_a_file_in_the_manner_of_tap_snowflake(emulator, folder):
    """Tables in chunks of any size are one Arrow file of several record batches, with the names of
    the schema, numbers as decimals, and a second STATE at the end."""
    types = {"user_id": pa.decimal128(38, 0), "vip": pa.bool_(), "updated_at": pa.timestamp("us")}
    chunks = [
        as_table([{"user_id": Decimal(n), "vip": n % 3 > 0, "updated_at": n} for n in part], types)
        for part in (range(70), range(70, 71), range(71, 200))
    ]
    files = []
    for number, tables in enumerate((chunks[:2], chunks[2:])):
        path = folder.new(f"{number}.arrow")
        table = pa.concat_tables(tables)
        with ipc.new_file(path, table.schema) as writer:
            writer.write_table(table)
        files.append(StorageTarget(root=str(path.parent)).get_url(path.name))
    assert 2 == ipc.open_file(folder.path / "users-0.0.arrow").num_record_batches
    mapping = {"uid_column": "user_id", "membership_column": "vip", "cohort_id": "users"}
    announced = schema("PUBLIC-USERS", columns=types)
    message = batch(ARROW, *files, stream="PUBLIC-USERS")
    states = [state({"bookmarks": {}}), state({"bookmarks": {"PUBLIC-USERS": {"x": 1}}})]
    seen = run(
        emulator,
        lines(announced, message, *states),
        cohorts={"PUBLIC-USERS": mapping | {"cohort_name": "Users"}},
    )
    assert seen.error is None
    assert {str(n) for n in range(200) if n % 3} == uids(emulator)
    assert states[-1]["value"] == seen.states[-1]


@every_kind
@pytest.mark.parametrize("name", ["plain", "a b", "ü", "a%41b", "a#b", "a+b"])
def test_files_are_found_by_the_urls_that_the_sdk_gives_them(emulator, folder, kind, name):
    """A manifest may have the SDK's form of a path or of a file:// URL, or a plain path, with any
    characters."""
    root = folder.path / name
    root.mkdir(parents=True)
    as_they_are = []
    for number, made in enumerate([str(root), f"file://{root}"]):
        kind.write(root / f"{number}.{kind.suffix}", [{"uid": f"u{number}"}])
        as_they_are.append(StorageTarget(root=made).get_url(f"{number}.{kind.suffix}"))
    kind.write(root / f"plain.{kind.suffix}", [{"uid": "plain"}])
    as_they_are.append(str(root / f"plain.{kind.suffix}"))
    seen = run(emulator, lines(schema(), batch(kind, *as_they_are)))
    assert seen.error is None
    assert {"u0", "u1", "plain"} == uids(emulator)


@every_kind
def test_an_empty_file_and_an_empty_manifest_say_nothing(emulator, folder, kind):
    """A batch without rows changes nothing, and STATE passes it."""
    path = folder.file(kind, [], {"uid": pa.string()})
    data = lines(schema(), batch(kind, path), batch(kind), state({"a": 1}))
    seen = run(emulator, data)
    assert seen.error is None
    assert ([{"a": 1}], 0) == (seen.states, len(seen.attempts))


@every_kind
def test_the_last_change_wins_across_records_files_and_rows(emulator, folder, kind):
    """RECORD and BATCH messages of one stream, files of a manifest and rows of a file are applied
    in order."""
    announced = schema(columns=("uid", "is_member"))
    mapping = {"cohorts": {"users": {"membership_column": "is_member"}}}

    def says(uid: str, *answers: str) -> list[Row]:
        return [{"uid": uid, "is_member": answer} for answer in answers]

    files = [
        folder.file(kind, says("record-file", "no") + says("file-file", "yes")),
        folder.file(kind, says("file-file", "no") + says("row-row", "yes", "no", "yes")),
        folder.file(kind, says("file-record", "no") + says("row-last", "yes", "no")),
    ]
    seen = run(
        emulator,
        lines(
            announced,
            record(uid="record-file", is_member="yes"),
            batch(kind, *files),
            record(uid="file-record", is_member="yes"),
            batch(kind, folder.file(kind, says("batch-batch", "yes"))),
            batch(kind, folder.file(kind, says("batch-batch", "no"))),
        ),
        **mapping,
    )
    assert seen.error is None
    assert {"row-row", "file-record"} == uids(emulator)
    assert 13 == seen.report.cohorts[0].records


@every_kind
def test_two_streams_take_turns(emulator, folder, kind):
    """Files of one stream may come between the records of another, each with its own mapping."""
    rows = [{"id": "a", "uid": "no"}, {"id": "b", "uid": "no"}]
    data = lines(
        schema(),
        schema("others", columns=("id", "uid")),
        record(uid="a"),
        batch(kind, folder.file(kind, rows), stream="others"),
        record(uid="b"),
        batch(kind, folder.file(kind, [{"uid": "c"}])),
        record("others", id="d", uid="no"),
    )
    seen = run(emulator, data, cohorts={"users": {}, "others": {"uid_column": "id"}})
    assert seen.error is None
    assert ({"a", "b", "c"}, {"a", "b", "d"}) == (uids(emulator), uids(emulator, "others"))


@every_kind
def test_state_waits_until_the_rows_of_a_batch_are_accepted(emulator, folder, kind):
    """STATE after a BATCH is emitted only after all requests for its rows are accepted."""
    rows = [{"uid": f"{number:036}"} for number in range(200)]
    data = lines(schema(), folder.batch(kind, rows), state({"a": 1}))
    seen = run(emulator, data, max_payload_bytes=1_000)
    assert seen.error is None
    assert len(seen.attempts) > 5
    assert ([{"a": 1}], [len(seen.attempts)]) == (seen.states, seen.accepted_before)

    emulator.reset()
    emulator.fail_next(503, 1_000)
    refused = run(emulator, data, max_payload_bytes=1_000, max_retry_seconds=0)
    assert isinstance(refused.error, TryAgainError)
    assert ([], set()) == (refused.states, uids(emulator))


@every_kind
def test_a_batch_s_version_is_that_of_its_rows(emulator, folder, kind):
    """An ACTIVATE_VERSION after a BATCH of its version proves a mirror complete, unless another
    BATCH follows or the version differs."""

    def proof(*messages: t.Any) -> str:
        ledger = str(folder.new("ledger"))
        seen = run(emulator, lines(schema(), *messages), sync_mode="mirror", ledger_uri=ledger)
        assert seen.error is None
        return seen.report.cohorts[0].complete.value

    path = folder.file(kind, USERS)
    of_version = batch(kind, path, version=5)
    assert "activate_version" == proof(of_version, activate_version(5))
    assert "end_of_input" == proof(of_version, activate_version(5), of_version)
    assert "end_of_input" == proof(of_version, activate_version(6))
    assert "end_of_input" == proof(batch(kind, path), activate_version(5))


@every_kind
def test_a_dry_run_reads_batches(emulator, folder, kind):
    """A dry run reports the changes for a batch, and sends nothing."""
    data = lines(schema(), folder.batch(kind, USERS), state({"a": 1}))
    seen = run(emulator, data, dry_run=True)
    assert seen.error is None
    (cohort,) = seen.report.cohorts
    assert (3, 3) == (cohort.records, cohort.added)
    assert ([], 0, 0) == (seen.states, len(seen.attempts), emulator.totals().requests)


def test_lines_of_a_file_are_rows_and_no_messages(emulator, folder):
    """Lines of a file are rows; Singer messages among them are rows without a uid."""
    path = folder.new("json")
    path.write_bytes(json_line({"uid": "a"}) + record_line({"uid": "b"}) + b"\n")
    seen = run(emulator, lines(schema(), batch(JSONL, path)))
    assert isinstance(seen.error, InputError)
    assert {"a"} == uids(emulator)


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_a_version_of_batches_is_proven_like_that_of_records(emulator, folder, kind):
    """An ACTIVATE_VERSION after BATCH messages of its version proves that all of it has arrived."""
    message = folder.batch(kind, USERS) | {"version": 7}
    seen = run(emulator, lines(schema(), message, activate_version(7)), sync_mode="mirror")
    (cohort,) = seen.report.cohorts
    assert "activate_version" == cohort.complete.value


@pytest.mark.parametrize("place", ["with the target's files", "in another file system"])
def test_a_tap_may_remove_its_files_when_it_ends(emulator, folder, tmp_path, place):
    """A mirror needs no file longer than the tap lives, wherever the file is."""
    if place == "in another file system":
        shared = Path("/dev/shm")
        if not shared.is_dir() or shared.stat().st_dev == Path(tempfile.gettempdir()).stat().st_dev:
            pytest.skip("this machine has no second file system to write to")
        files = Folder(Path(tempfile.mkdtemp(dir=shared)))
    else:
        files = Folder(tmp_path / "of the tap")

    def end_tap():
        shutil.rmtree(files.path)
        return 0

    options = {"ledger_uri": str(folder.path / "ledger"), "sync_mode": "mirror"}
    options |= {"max_removal_percent": 100}
    run(emulator, lines(schema(), *(record(uid=uid) for uid in "abx")), **options)
    messages = [
        files.batch(KINDS["parquet"], [{"uid": uid} for uid in part]) for part in ("ab", "c")
    ]
    seen = run(emulator, lines(schema(), *messages), tap_exit=end_tap, **options)
    assert seen.error is None
    assert {"a", "b", "c"} == uids(emulator, "users")
