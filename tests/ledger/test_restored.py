"""Stores of which a part is missing, older, of someone else or broken: nothing is sent."""

import contextlib
import errno
import os
import shutil
import sqlite3
import stat

import duckdb
import pytest

from target_moengage_cohort.core.errors import LedgerError, SettingsError
from target_moengage_cohort.ledger.records import FORMAT, RequestState
from tests.ledger.support import (
    ADD,
    COHORT,
    OTHER_STREAM,
    PROGRESS,
    STREAM,
    accept,
    cohort,
    copied,
    finished,
    ledgers,
    lose_witnesses,
    members,
    place_of,
    process,
    send,
    uids,
)

CONTROL = "control.sqlite"


def members_file(folder):
    (path,) = place_of(folder).glob("members-*.duckdb")
    return path


def assert_refused(folder, code, kind=SettingsError):
    """Check that a cohort cannot be opened, neither to write nor to read."""
    for read_only in (False, True, False):
        with (
            ledgers(folder, read_only=read_only) as store,
            pytest.raises(kind) as raised,
        ):
            store.open(COHORT, STREAM)
        assert code == raised.value.code
        assert str(place_of(folder)) in str(raised.value)


def fill(folder, *uids, folds=True):
    """Let a run add members; without `folds` the files are those of a run that was killed then."""
    with ledgers(folder) as store:
        ledger = store.open(COHORT, STREAM)
        for uid in uids:
            accept(ledger, ADD, members(uid))
        return folder if folds else copied(folder, "killed")


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "ledger"


@pytest.mark.parametrize("first", [True, False], ids=["new store", "old store"])
def test_control_without_its_log_is_refused(folder, first):
    """A copy of control's file without its log, made while a run had it open and had written, is
    refused, also if nothing but the log has the run's first change."""
    if not first:
        fill(folder, 1)
    copy = fill(folder, 2, folds=False)
    assert (place_of(copy) / f"{CONTROL}-wal").stat().st_size > 0
    for name in (f"{CONTROL}-wal", f"{CONTROL}-shm"):
        (place_of(copy) / name).unlink()
    assert_refused(copy, "ledger_mismatch")


def test_a_look_during_a_whole_run_does_not_harm(folder):
    """A read-only store that was opened before a run began, and is closed after that has ended,
    sees what the run recorded, and the next run opens the store."""
    fill(folder, 1)
    with ledgers(folder, read_only=True) as looking:
        assert [1] == [entry.counts.accepted.count for entry in looking.entries()]
        with ledgers(folder) as store:
            accept(store.open(COHORT, STREAM), ADD, members(2))
            assert [1] == [entry.unfolded for entry in looking.entries()]
        assert [2] == [entry.counts.accepted.count for entry in looking.entries()]
        fill(folder, *range(3, 60))
        assert [59] == [entry.counts.accepted.count for entry in looking.entries()]
    fill(folder, 60)


def test_control_opens_again_after_an_error(folder):
    """After an error of control, when it is closed by its run, the next run finds all that was
    acknowledged."""

    def step(name):
        if name == "sent: before commit" and is_full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    is_full = False
    store = ledgers(folder, step=step)
    ledger = store.open(COHORT, STREAM)
    accept(ledger, ADD, members(1))
    is_full = True
    with pytest.raises(LedgerError):
        send(ledger, ADD, members(2))
    with pytest.raises(LedgerError):
        store.close()
    for read_only in (True, False, True):
        with ledgers(folder, read_only=read_only) as again:
            assert ["1"] == uids(again.open(COHORT, STREAM).members())


@pytest.mark.parametrize("last", ["idle", "killed"])
def test_the_log_stays_while_another_run_has_control(folder, last):
    """If a run ends while another one has control open, which then ends or is killed, the next run
    finds all that was acknowledged."""
    idle = ledgers(folder, run_id="run-2")
    idle.begin("x")
    fill(folder, 1)
    place = copied(folder, "killed") if last == "killed" else folder
    idle.close()
    with ledgers(place) as store:
        assert ["1"] == uids(store.open(COHORT, STREAM).members())


def test_control_with_its_log_is_whole(folder):
    """A copy of all files of a run at work opens, and has all that was accepted."""
    copy = fill(folder, 1, 2, folds=False)
    (place_of(copy) / f"{CONTROL}-shm").unlink()
    with ledgers(copy) as store:
        assert ["1", "2"] == uids(store.open(COHORT, STREAM).members())


@pytest.mark.parametrize("made", [b"", None], ids=["an empty file", "a file without tables"])
def test_control_that_was_never_finished_counts_as_none(tmp_path, made):
    """If a process dies while it makes control, a look finds no cohort; the next run goes on."""
    with ledgers(tmp_path) as store:
        store.open(COHORT, STREAM)
        path = place_of(tmp_path) / "control.sqlite"
    for file in path.parent.iterdir():
        if file.is_file():
            file.unlink()
    lose_witnesses()
    if made is None:
        with contextlib.closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
    else:
        path.write_bytes(made)
    for _ in range(2):
        with ledgers(tmp_path, read_only=True) as looking:
            assert ([], {}) == (looking.entries(), looking.plans())
            assert 0 == looking.open(COHORT, STREAM).numbers().base
    with ledgers(tmp_path) as store:
        accept(store.open(COHORT, STREAM), ADD, members(1))
    with ledgers(tmp_path, read_only=True) as looking:
        assert 1 == looking.open(COHORT, STREAM).numbers().accepted.count


def test_a_missing_file_of_members_is_refused(folder):
    """A stream that control knows never begins empty because its file is missing."""
    fill(folder, 1)
    members_file(folder).unlink()
    assert_refused(folder, "ledger_mismatch")
    with ledgers(folder) as store:
        assert 1 == len(store.entries())
        accept(store.open(cohort("free"), OTHER_STREAM), ADD, members(1))


def test_an_older_file_of_members_is_refused(folder):
    """A file of members from before later requests were folded is refused."""
    fill(folder, 1)
    older = members_file(folder).read_bytes()
    fill(folder, 2)
    members_file(folder).write_bytes(older)
    assert_refused(folder, "ledger_mismatch")


def test_an_older_control_is_refused(folder):
    """A control from before later requests were folded is refused: the members are ahead of it."""
    fill(folder, 1)
    older = copied(folder, "older")
    fill(folder, 2)
    shutil.copy(place_of(older) / CONTROL, place_of(folder) / CONTROL)
    lose_witnesses()
    assert_refused(folder, "ledger_mismatch")


def test_an_older_control_is_refused_after_other_streams_went_on(folder):
    """Requests of other streams since an older control was restored do not hide that."""
    fill(folder, 1)
    older = copied(folder, "older")
    fill(folder, 2)
    shutil.copy(place_of(older) / CONTROL, place_of(folder) / CONTROL)
    lose_witnesses()
    with ledgers(folder) as store:
        other = store.open(cohort("other"), OTHER_STREAM)
        for uid in range(5):
            accept(other, ADD, members(uid))
    assert_refused(folder, "ledger_mismatch")


def test_other_members_with_the_same_mark_are_refused(folder):
    """A file with the mark that control has, but with other members, is refused."""
    fill(folder, 1)
    start = copied(folder, "start")
    fill(folder, 2)
    fill(start, 3)
    shutil.copy(members_file(start), members_file(folder))
    assert_refused(folder, "ledger_mismatch")


def test_a_file_of_members_that_is_ahead_by_known_requests_is_taken_over(folder):
    """Members that are ahead of control by requests which it still has, as after a crash between
    the two commits of a fold, are taken over."""
    steps = []

    def step(name):
        if name == "fold: committed":
            steps.append(copied(folder, f"step-{len(steps)}"))

    with ledgers(folder, step=step) as store:
        ledger = store.open(COHORT, STREAM)
        accept(ledger, ADD, members(1))
        ledger.answered(send(ledger, ADD, members(2)), RequestState.UNANSWERED)
    (crashed,) = steps
    for read_only in (True, False, True):
        with ledgers(crashed, read_only=read_only) as store:
            ledger = store.open(COHORT, STREAM)
            assert ["1", "2"] == uids(ledger.members())
            assert (1, 1) == (ledger.numbers().accepted.count, ledger.numbers().in_doubt)


def test_files_of_another_store_or_stream_are_refused(folder):
    """A file of members that was copied from another destination's store, or from another stream of
    the same one, is refused."""
    fill(folder, 1)
    with ledgers(folder.with_name("b"), setting={"workspace_id": "b"}) as store:
        accept(store.open(COHORT, STREAM), ADD, members(1))
    mine = members_file(folder).read_bytes()
    members_file(folder).write_bytes(members_file(folder.with_name("b")).read_bytes())
    assert_refused(folder, "ledger_mismatch")
    members_file(folder).write_bytes(mine)
    with ledgers(folder) as store:
        accept(store.open(cohort("other"), OTHER_STREAM), ADD, members(1))
    one, two = place_of(folder).glob("members-*.duckdb")
    contents = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(contents)
    assert_refused(folder, "ledger_mismatch")


def test_the_directory_of_another_destination_is_refused(folder):
    """A directory that was copied from another workspace's is refused."""
    fill(folder, 1)
    with ledgers(folder, setting={"workspace_id": "b"}) as store:
        store.begin(STREAM)
        theirs = store.place
    mine = next(path for path in folder.iterdir() if str(path) != theirs)
    shutil.rmtree(theirs)
    shutil.copytree(mine, theirs)
    for read_only in (True, False):
        with ledgers(folder, setting={"workspace_id": "b"}, read_only=read_only) as store:
            with pytest.raises(SettingsError) as raised:
                store.open(COHORT, STREAM)
            assert "ledger_mismatch" == raised.value.code


def test_a_directory_of_the_old_format_is_refused(folder):
    """A directory of the format with a file per cohort is refused, and stays as it is."""
    place = fill(folder, 1)
    (place_of(place) / "destination.json").write_text("{}")
    assert_refused(folder, "ledger_old_format")
    with ledgers(folder) as store, pytest.raises(SettingsError) as raised:
        store.entries()
    assert "ledger_old_format" == raised.value.code


@pytest.mark.parametrize("what", ["control", "members"])
def test_an_older_format_is_refused(folder, what):
    """A store that lacks columns of today is refused by its format, and stays as it is."""
    fill(folder, 1)
    if what == "control":
        path = place_of(folder) / CONTROL
        with contextlib.closing(sqlite3.connect(path)) as database, database:
            database.execute("UPDATE store SET format = ?", [FORMAT - 1])
            database.execute("ALTER TABLE store DROP COLUMN host")
            database.execute("ALTER TABLE streams DROP COLUMN last_timestamp")
    else:
        path = members_file(folder)
        with duckdb.connect(path) as database:
            database.execute("UPDATE meta SET format = ?", [FORMAT - 1])
    before = path.read_bytes()
    assert_refused(folder, "ledger_old_format")
    assert before == path.read_bytes()


@pytest.mark.parametrize("what", ["control", "members"])
def test_a_newer_format_is_refused(folder, what):
    """A store, or a file of members, of a newer version is refused by name and left alone."""
    fill(folder, 1)
    if what == "control":
        path = place_of(folder) / CONTROL
        with sqlite3.connect(path) as database:
            database.execute("UPDATE store SET format = ?", [FORMAT + 1])
        database.close()
    else:
        path = members_file(folder)
        with duckdb.connect(path) as database:
            database.execute("UPDATE meta SET format = ?", [FORMAT + 1])
    before = path.read_bytes()
    assert_refused(folder, "ledger_newer")
    assert before == path.read_bytes()


@pytest.mark.parametrize("what", [CONTROL, "members"])
@pytest.mark.parametrize("garbage", [b"broken" * 10_000, b"SQLite format 3\0" + b"x" * 5_000])
def test_a_corrupt_file_is_refused(folder, what, garbage):
    """A file that is no database is an error that names it, and stays as it is."""
    fill(folder, 1)
    path = place_of(folder) / CONTROL if what == CONTROL else members_file(folder)
    path.write_bytes(garbage)
    assert_refused(folder, "ledger_corrupt", LedgerError)
    assert garbage == path.read_bytes()


def test_a_truncated_file_is_refused(folder):
    """A control or a file of members that lost its end or all of its content is refused."""
    fill(folder, *range(50))
    for name in (CONTROL, members_file(folder).name):
        for share in (0, 0.5):
            copy = copied(folder, f"{name}-{share}")
            path = place_of(copy) / name
            os.truncate(path, int(path.stat().st_size * share) // 4096 * 4096)
            with ledgers(copy) as store, pytest.raises((LedgerError, SettingsError)):
                store.open(COHORT, STREAM).stream.fold()


def test_a_write_that_was_cut_off_loses_nothing_acknowledged(folder):
    """If the end of a log that was being written when the power failed is missing, the store opens
    with all that was acknowledged before, or is refused."""
    copies = []

    def step(name):
        if name == "sent: committed":
            copies.append(copied(folder, f"sent-{len(copies)}"))

    whom = members(*range(20_000))  # more than the log has room for
    with ledgers(folder, step=step) as store:
        ledger = store.open(COHORT, STREAM)
        accept(ledger, ADD, members("first"))
        ledger.stream.fold()
        accept(ledger, ADD, members("second"))
        acknowledged = {path.name: path.stat().st_size for path in place_of(folder).iterdir()}
        send(ledger, ADD, whom)
        copy = copies[-1]
    name = f"{CONTROL}-wal"
    end = (place_of(copy) / name).stat().st_size
    start = acknowledged[name]
    assert end > start
    for size in (start, start + 1, start + 24, (start + end) // 2, end - 1, end):
        cut = copied(copy, str(size))
        os.truncate(place_of(cut) / name, size)
        with ledgers(cut) as store:
            ledger = store.open(COHORT, STREAM)
            assert {"first", "second"} <= {*uids(ledger.members())}
            assert 2 == ledger.numbers().accepted.count
            assert ledger.numbers().in_doubt == (len(whom) if size == end else 0)


def test_only_the_owner_can_read_files(folder):
    """Directories are 0700 and files 0600 from their first byte, those of both engines included,
    with the mask that the target sets."""
    modes = {}

    def note(_name="") -> None:
        for path in [folder, *folder.rglob("*")]:
            if path.exists():
                modes[path] = stat.S_IMODE(path.stat().st_mode)

    (folder / "a").mkdir(mode=0o700, parents=True)  # parents are not created
    with ledgers(folder / "a" / "b", step=note, run_id=PROGRESS.run_id) as store:
        ledger = store.open(COHORT, STREAM)
        send(ledger, ADD, members(1))
        store.write_progress(PROGRESS)
        store.reassign(COHORT.cohort_id, OTHER_STREAM)
        note()
    names = {path.name for path in modes}
    assert {f"{CONTROL}-wal", f"{CONTROL}-shm", CONTROL, "control.lock"} <= names
    assert {".wal", ".duckdb", ".lock", ".new"} <= {path.suffix for path in modes}
    for path, mode in modes.items():
        is_directory = path.name in {"ledger", "a", "b"} or not (path.suffix or path.name == "lock")
        is_directory &= not path.name.startswith("control.sqlite")
        assert (0o700 if is_directory else 0o600) == mode, path.name


def test_control_is_private_whatever_the_mask(folder):
    """Control with its log, its locks and the directory are the owner's alone under any mask."""
    before = os.umask(0o022)
    try:
        with ledgers(folder) as store:
            store.begin(STREAM)
            modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.rglob("*")}
    finally:
        os.umask(before)
    files = {CONTROL, f"{CONTROL}-wal", f"{CONTROL}-shm", "control.lock"}
    assert dict.fromkeys(files, 0o600) | {place_of(folder).name: 0o700} == modes


FORBIDDEN = """
import json, os, sys
from pathlib import Path
import html, http.client, urllib.request
import duckdb
from target_moengage_cohort.core.errors import LedgerError
from target_moengage_cohort.ledger.duckdb import staging
from tests.ledger.support import *
if os.getuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
folder, told = Path(sys.argv[1]), {}
os.environ["XDG_STATE_HOME"] = str(folder)  # any but that of the user who wrote
with ledgers(folder, read_only=True) as store:
    ledger = store.open(COHORT, STREAM)
    told["read"] = uids(ledger.members())
    told["entries"] = [entry.cohort_id for entry in store.entries()]
try:
    with ledgers(folder) as store:
        send(store.open(COHORT, STREAM), ADD, members(2))
except LedgerError as error:
    told["code"] = error.code
print(json.dumps(told))
"""


def test_a_folder_that_cannot_be_written_can_be_read(tmp_path):
    """A store in a read-only folder can be looked at, and an attempt to write is an error."""
    folder = tmp_path / "ledger"
    fill(folder, 1)
    paths = [folder, *folder.rglob("*")]
    for path in paths:
        path.chmod(0o555 if path.is_dir() else 0o444)
    for parent in tmp_path.parents[:3]:
        parent.chmod(parent.stat().st_mode | 0o055)
    tmp_path.chmod(0o755)
    try:
        told = finished(process(FORBIDDEN, folder))
    finally:
        for path in paths:
            path.chmod(0o700)
    assert {"read": ["1"], "entries": ["vips"], "code": "ledger_unusable"} == told


def test_a_directory_that_cannot_be_created_is_an_error(tmp_path):
    """A ledger below a regular file is an error that names the path."""
    (tmp_path / "file").touch()
    with ledgers(tmp_path / "file" / "ledger") as store, pytest.raises(LedgerError) as raised:
        store.open(COHORT, STREAM)
    assert "ledger_unusable" == raised.value.code
    assert str(tmp_path / "file" / "ledger") in str(raised.value)


def test_reading_creates_no_directory(tmp_path):
    """A read-only store without ledgers opens empty ones and creates nothing."""
    with ledgers(tmp_path / "none", read_only=True) as store:
        assert 0 == store.open(COHORT, STREAM).numbers().base
        assert [] == store.entries()
        assert {} == store.plans()
    assert not (tmp_path / "none").exists()


MASKLESS = """
import json, os, stat, sys
from pathlib import Path
from tests.ledger.support import *
os.umask(0)
folder, modes = Path(sys.argv[1]), {}
def note(_name=""):
    for path in folder.rglob("*"):
        modes[path.name] = oct(stat.S_IMODE(path.stat().st_mode))
with ledgers(folder, step=note) as store:
    ledger = store.open(COHORT, STREAM)
    accept(ledger, ADD, members(1))
    ledger.stream.fold()
    staging = store.staging()
    for part in range(40):
        staging.append(ledger.number, [f"{part}-{i:0200d}" for i in range(50_000)], None, None)
        note()
        if any(name.startswith("duckdb_temp") for name in modes):
            break
    ledger.stream.difference(staging, [ledger])
    note()
print(json.dumps(modes))
"""


def test_no_mask_opens_a_file_to_others(tmp_path):
    """Without any mask, as in a program that embeds the target, files are 0600 and directories
    0700, those included that DuckDB makes: members, logs and what it spills."""
    modes = finished(process(MASKLESS, tmp_path))
    assert any(name.endswith(".wal") for name in modes)
    assert any(name.startswith("duckdb_temp") for name in modes)
    folders = {name for name, mode in modes.items() if mode == "0o700"}
    assert {"0o600", "0o700"} == {*modes.values()}
    assert not any("." in name or name == "lock" for name in folders)
