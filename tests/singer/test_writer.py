from __future__ import annotations

import contextlib
import json
import logging
import os
import select
import stat
import subprocess
import sys
from datetime import datetime
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from target_moengage_cohort.core.errors import BusyError, SettingsError, TryAgainError
from target_moengage_cohort.core.interrupts import Patience
from target_moengage_cohort.singer.messages import Schema
from target_moengage_cohort.singer.writer import RejectsFile, write_state

PATIENCE = Patience(lambda _seconds: False, 0.0)
STREAM = Schema("s", {"properties": {"id": {}}, "x": 1}, ["id"])


@pytest.fixture
def path(tmp_path):
    return tmp_path / "rejects.singer"


def lines(path) -> list:
    return [json.loads(line, parse_float=Decimal) for line in path.read_bytes().splitlines()]


def test_rows_are_messages_that_can_be_replayed(path):
    """Each run writes a stream's SCHEMA before its first row, and each row has its reason, time and
    run."""
    for run_id in ("r1", "r2"):
        rejects = RejectsFile(str(path), run_id, PATIENCE)
        rejects.append(STREAM, {"id": 1, "n": Decimal("1.10")}, "the reason")
        rejects.append(STREAM, {"id": 2}, "another")
        rejects.close()
    written = lines(path)
    assert ["SCHEMA", "RECORD", "RECORD"] * 2 == [message["type"] for message in written]
    schema, first = written[:2]
    assert ("s", ["id"], 1) == (schema["stream"], schema["key_properties"], schema["schema"]["x"])
    added = {"_reject_reason", "_reject_run_id", "_reject_at"}
    assert {"id", *added} == {*schema["schema"]["properties"]}
    row = first["record"]
    assert (1, Decimal("1.10"), "the reason", "r1") == (
        *(row[name] for name in ("id", "n", "_reject_reason", "_reject_run_id")),
    )
    assert datetime.fromisoformat(row["_reject_at"]).tzinfo is not None


def test_a_changed_schema_is_written_again(path):
    """A new SCHEMA precedes its rows; two streams have one each."""
    rejects = RejectsFile(str(path), "r", PATIENCE)
    changed = Schema("s", {"properties": {"id": {}, "new": {}}}, ["id"])
    other = Schema("t", {"properties": {}}, [])
    for stream in (STREAM, changed, changed, other, changed):
        rejects.append(stream, {}, "reason")
    rejects.close()
    kinds = [(message["type"][0], message["stream"]) for message in lines(path)]
    assert [*["Ss", "Rs", "Ss", "Rs", "Rs", "St", "Rt", "Rs"]] == ["".join(kind) for kind in kinds]


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.decimals(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text("ab_"), inner),
)


@given(st.dictionaries(st.text("abc"), json_values, max_size=5))
@settings(max_examples=25)  # each one waits for the disk
def test_rows_survive_exactly(tmp_path, record):
    """A row comes back with every digit of its numbers."""
    path = tmp_path / "exact"
    path.unlink(missing_ok=True)
    rejects = RejectsFile(str(path), "r", PATIENCE)
    rejects.append(STREAM, record, "reason")
    rejects.close()
    found = lines(path)[1]["record"]
    assert record == {name: value for name, value in found.items() if name in record}


def test_the_file_is_its_owners_alone(path):
    """The file contains identifiers, so only its owner can read it, whatever the umask."""
    before = os.umask(0)
    try:
        RejectsFile(str(path), "r", PATIENCE).close()
    finally:
        os.umask(before)
    assert 0o600 == stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("length", [3, 90_000, 200_000], ids=["short", "long", "longer"])
@pytest.mark.parametrize("whole", [b"", b'{"type":"RECORD"}\n'], ids=["nothing", "a line"])
def test_a_torn_line_is_cut_off(path, length, whole):
    """The unfinished line of a dead run is removed; whole lines before it are kept."""
    path.write_bytes(whole + b'{"type":"RECORD","stream":"s"'.ljust(length, b" ")[:length])
    RejectsFile(str(path), "r", PATIENCE).close()
    assert whole == path.read_bytes()


@pytest.mark.parametrize("content", [b"notes", b'{\n  "partner": "acme"\n}', b'x\n{"typo": 1}'])
def test_a_file_of_something_else_is_left_alone(path, content):
    """A path to another kind of file is refused, and the file is unchanged."""
    path.write_bytes(content)
    with pytest.raises(SettingsError) as raised:
        RejectsFile(str(path), "r", PATIENCE)
    assert "not_a_rejects_file" == raised.value.code
    assert content == path.read_bytes()


def test_a_path_that_cannot_be_opened(tmp_path):
    """The error names the setting, the path and the system's reason."""
    with pytest.raises(SettingsError) as raised:
        RejectsFile(str(tmp_path / "no" / "file"), "r", PATIENCE)
    path = tmp_path / "no" / "file"
    what = (
        f"rejects_path: {path} cannot be opened (No such file or directory); create its directory"
    )
    assert "rejects_file_unusable" == raised.value.code
    assert str(raised.value).startswith(what)


def test_a_disk_that_cannot_take_a_row_fails_the_run(path):
    """If a row cannot be kept, an error ends the run, so that STATE does not pass it."""
    rejects = RejectsFile(str(path), "r", PATIENCE)
    with path.open("rb") as read_only:
        os.dup2(read_only.fileno(), rejects._file)  # noqa: SLF001 - as a disk gives up
    with pytest.raises(TryAgainError, match=r"rejects_path: .* cannot be written") as raised:
        rejects.append(STREAM, {"id": "pl4nt3d"}, "reason")
    assert "rejects_file_not_written" == raised.value.code
    assert "pl4nt3d" not in str(raised.value)


def test_a_row_appended_during_a_sync_is_synced_by_the_next(path, monkeypatch):
    """A row that is appended during a sync is made durable by the next one."""
    rejects, synced, sync = RejectsFile(str(path), "r", PATIENCE), [], os.fsync

    def slow(descriptor):
        synced.append(len(lines(path)))
        if len(synced) == 1:
            rejects.append(STREAM, {"id": 2}, "reason")
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", slow)
    rejects.append(STREAM, {"id": 1}, "reason")
    rejects.sync()
    rejects.sync()
    rejects.sync()
    assert [2, 3] == synced


def test_a_sync_that_failed_stays_failed(path, monkeypatch):
    """After one failed sync, later ones also fail, even if the system reports success."""
    rejects = RejectsFile(str(path), "r", PATIENCE)
    rejects.append(STREAM, {"id": 1}, "reason")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: os.read(-1, descriptor))
        with pytest.raises(TryAgainError):
            rejects.sync()
    with pytest.raises(TryAgainError) as raised:
        rejects.sync()
    assert "rejects_file_not_written" == raised.value.code


def test_it_knows_its_own_file(path, tmp_path):
    """A descriptor of the file is distinguished from any other, links included."""
    rejects = RejectsFile(str(path), "r", PATIENCE)
    (tmp_path / "link").symlink_to(path)
    other = tmp_path / "other"
    other.touch()
    with (tmp_path / "link").open("rb") as same, other.open("rb") as another:
        assert [True, False] == [rejects.is_file(same.fileno()), rejects.is_file(another.fileno())]
    rejects.close()


def test_a_torn_line_of_a_dead_run_is_cut_before_the_next_row(path):
    """A running process repairs the file that another one left behind, before it appends."""
    rejects = RejectsFile(str(path), "alive", PATIENCE)
    rejects.append(STREAM, {"id": 1}, "r")
    with path.open("ab") as dead:
        dead.write(b'{"type":"RECORD","str')
    rejects.append(STREAM, {"id": 2}, "r")
    rejects.close()
    assert ["SCHEMA", "RECORD", "RECORD"] == [message["type"] for message in lines(path)]


HOLD = """
import fcntl, os, signal, sys
file = open(sys.argv[1], "a")
fcntl.flock(file, fcntl.LOCK_EX)
print("locked", flush=True)
os.kill(os.getpid(), signal.SIGSTOP)
"""


def test_a_stopped_process_delays_others_for_a_bounded_time(path, caplog):
    """A process that was stopped in the middle of a row delays other runs within their patience;
    then they are busy. A run that must end does not wait, and a long wait is logged."""
    caplog.set_level(logging.INFO)
    command = [sys.executable, "-c", HOLD, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as holder:
        try:
            assert b"locked\n" == holder.stdout.readline()
            for ends, at_least in ((False, 0.9), (True, 0.0)):
                waits = []
                wait = Patience(lambda s, e=ends, w=waits: w.append(s) or e, 1.0)
                with pytest.raises(BusyError) as raised:
                    RejectsFile(str(path), "r", wait)
                assert ("rejects_file_busy", 4) == (raised.value.code, raised.value.exit_code)
                assert at_least <= sum(waits) < 1.1
            assert 1 == len(waits)
            assert [] == caplog.records
            wait = Patience(lambda _seconds: False, 3.0)
            with pytest.raises(BusyError):
                RejectsFile(str(path), "r", wait)
            assert ["waiting_for_rejects_file"] == [each.code for each in caplog.records]
        finally:
            holder.kill()
    RejectsFile(str(path), "r", PATIENCE).close()


@contextlib.contextmanager
def piped():
    """Standard output as a pipe: its reading end."""
    reading, writing = os.pipe()
    with (
        os.fdopen(reading, "rb") as reader,
        os.fdopen(writing, "w") as writer,
        contextlib.redirect_stdout(writer),
    ):
        yield reader


class GaveUpError(Exception):
    pass


def give_up(_seconds):
    raise GaveUpError


@pytest.mark.parametrize("size", [100, select.PIPE_BUF, 60_000, 300_000])
def test_a_state_that_waits_for_its_reader_leaves_no_part_of_a_line(size):
    """While nobody reads, a long STATE is not begun; once the pipe is empty, it goes as a whole."""
    value = b'"%b"' % (b"x" * size)
    with piped() as pipe:
        write_state(b"{}", give_up)
        if size >= select.PIPE_BUF:
            with pytest.raises(GaveUpError):
                write_state(value, give_up)
            assert b"{}\n" == pipe.read1()
        write_state(value, give_up)
        received = b""
        while not received.endswith(value + b"\n"):
            received += pipe.read1()
    assert received in {value + b"\n", b"{}\n" + value + b"\n"}


def test_a_state_without_a_reader_is_an_error():
    """A long STATE that waits notices that nobody will ever read it."""
    with piped() as pipe:
        write_state(b"{}", give_up)
        pipe.close()
        with pytest.raises(TryAgainError) as raised:
            write_state(b"x" * 100_000, give_up)
    assert "state_not_written" == raised.value.code
