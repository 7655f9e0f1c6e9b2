"""The destination's directory: identity, catalog, locks, versions and leftovers of dead runs."""

import hashlib
import json
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from target_moengage_cohort.core.errors import BusyError, LedgerError, SettingsError
from target_moengage_cohort.core.membership import Cohort
from target_moengage_cohort.ledger.records import RunProgress
from tests.ledger.support import ADD, COHORT, REMOVE, STREAM, flat, ledgers, members

HOLD = """
import sys
from pathlib import Path
from target_moengage_cohort.ledger.records import RunProgress
from tests.ledger.support import ADD, COHORT, STREAM, ledgers, members
room = ledgers(Path(sys.argv[1]), run_id="run-of-another", clock=lambda: 0)
ledger = room.open(COHORT, STREAM)
ledger.accepted(ledger.sent(ADD, members(1, 2), 1))
ledger.sent(ADD, members(3), 1)
room.write_progress(RunProgress(run_id="run-of-another", pid=1, host="h", started_at="s",
                                streams=["x"], records=5, accepted=2, requests=1))
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def other(tmp_path):
    """Another process that has the cohort's ledger open, with an unanswered request."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert "held\n" == process.stdout.readline()
    yield process
    process.kill()
    process.communicate()


def contents(folder: Path) -> dict[str, tuple[int, str]]:
    """Return the time of change and the digest of each file but locks."""
    return {
        str(path): (path.stat().st_mtime_ns, hashlib.sha256(path.read_bytes()).hexdigest())
        for path in folder.rglob("*")
        if path.is_file() and path.suffix != ".lock"
    }


def test_a_busy_ledger_names_its_holder(tmp_path, other):
    """A run waits for a ledger that another process has, then fails with that run's name."""
    waits = []
    with ledgers(tmp_path, busy_seconds=1, wait=waits.append) as room:
        with pytest.raises(BusyError) as raised:
            room.open(COHORT, STREAM)
        assert "ledger_busy" == raised.value.code
        assert (
            f"the ledger of cohort 'vips' is held by run run-of-another (process {other.pid} on "
            f"{socket.gethostname()}, since 1970-01-01T00:00:00+00:00); run again when it ends"
        ) == str(raised.value)
        assert 1 <= sum(waits) < 1.5
        room.open(Cohort("another", "Another"), STREAM)


@pytest.mark.usefixtures("other")
def test_an_interrupted_run_does_not_wait_for_a_ledger(tmp_path):
    """A run that must end stops waiting for a busy ledger."""
    waits = []

    def wait(seconds):
        waits.append(seconds)
        return True

    with ledgers(tmp_path, wait=wait) as room, pytest.raises(BusyError):
        room.open(COHORT, STREAM)
    assert 1 == len(waits)


def test_a_ledger_is_free_once_it_is_closed(tmp_path):
    """Closing a ledger lets the next run open it, and empties its lock file."""
    with ledgers(tmp_path) as first, ledgers(tmp_path, busy_seconds=0, run_id="run-2") as second:
        ledger = first.open(COHORT, STREAM)
        with pytest.raises(BusyError):
            second.open(COHORT, STREAM)
        ledger.close()
        assert not second.open(COHORT, STREAM).created
        second.close()
        assert {b""} == {path.read_bytes() for path in first.folder.glob("*.lock")}


def test_what_a_killed_run_leaves_is_removed(tmp_path, other):
    """The spill directory and the progress file of a killed run are removed when ledgers are next
    opened, but not while it is alive."""
    with ledgers(tmp_path) as room:
        folder = room.folder
        assert 2 == len(list(folder.glob("spill-*")))
        (progress,) = room.runs_under_way()
        assert ("run-of-another", 5) == (progress.run_id, progress.records)
        (folder / "spill-run-of-another" / "block").write_bytes(b"ids")
    other.kill()
    other.wait()
    with ledgers(tmp_path) as room:
        assert [] == room.runs_under_way()
        assert ["spill-run-1"] == [path.name for path in folder.glob("spill-*")]
        assert [] == list(folder.glob("run-*"))


def test_reading_changes_nothing_on_disk(tmp_path, other):
    """A read-only store includes the journal and the WAL of a killed run, and leaves every byte
    and time as it was."""
    other.kill()
    other.wait()
    before = contents(tmp_path)
    assert any(name.endswith(".wal") for name in before)
    with ledgers(tmp_path, read_only=True) as room:
        ledger = room.open(COHORT, STREAM)
        numbers = ledger.numbers()
        assert (2, 1, 3) == (numbers.accepted.count, numbers.in_doubt, numbers.base)
        assert [(ADD, members(3)[0])] == flat(ledger.doubts())
        assert members(1, 2, 3) == sorted(flat(ledger.members()), key=lambda m: m.uid)
        new = room.open(Cohort("new", "New"), STREAM)
        assert (0, {}, False) == (new.numbers().base, new.known(members(1)), new.created)
        assert not room.has("new")
        assert room.use_version(STREAM, 7)
    assert before == contents(tmp_path)
    with ledgers(tmp_path) as room:
        assert numbers == room.open(COHORT, STREAM).numbers()


def test_reading_creates_no_directory(tmp_path):
    """A read-only store without ledgers opens empty ones and creates nothing."""
    with ledgers(tmp_path / "none", read_only=True) as room:
        assert 0 == room.open(COHORT, STREAM).numbers().base
        assert [] == room.entries()
    assert not (tmp_path / "none").exists()


def test_a_destination_has_one_directory_and_one_key(tmp_path):
    """Digests are the same in each run of a destination, and different in another one."""
    digests = []
    for workspace in ("w", "w", "another"):
        with ledgers(tmp_path, setting={"workspace_id": workspace}) as room:
            ledger = room.open(COHORT, STREAM)
            ledger.accepted(ledger.sent(ADD, members(1), 1))
            digests.append(ledger.numbers().accepted.digest)
    assert digests[0] == digests[1] != digests[2]
    assert 2 == len([path for path in tmp_path.iterdir() if path.is_dir()])


def test_files_of_another_destination_are_refused(tmp_path):
    """A directory or a ledger that was copied from another destination is refused."""
    rooms = [ledgers(tmp_path, setting={"workspace_id": workspace}) for workspace in "ab"]
    for room in rooms:
        room.open(COHORT, STREAM)
        room.close()
    first, second = (room.folder for room in rooms)
    (database,) = first.glob("*.duckdb")
    (second / database.name).write_bytes(database.read_bytes())
    with ledgers(tmp_path, setting={"workspace_id": "b"}) as room:
        for _ in range(2):
            with pytest.raises(SettingsError) as raised:
                room.open(COHORT, STREAM)
            assert "ledger_mismatch" == raised.value.code
        assert (
            f"ledger_uri: the ledger {second / database.name} belongs to another destination or "
            "cohort, or the destination.json in its directory was replaced; restore all files from "
            "one backup, or use another ledger_uri"
        ) == str(raised.value)
    (second / "destination.json").write_bytes((first / "destination.json").read_bytes())
    with pytest.raises(SettingsError) as raised:
        ledgers(tmp_path, setting={"workspace_id": "b"})
    assert "ledger_mismatch" == raised.value.code
    assert (
        f"ledger_uri: the directory {second} belongs to another destination (base URL and "
        "workspace_id); give it back its own name, or use another ledger_uri"
    ) == str(raised.value)


def test_a_newer_format_is_refused(tmp_path):
    """A directory or a ledger of a newer version of the program is refused."""
    with ledgers(tmp_path) as room:
        ledger = room.open(COHORT, STREAM)
        with ledger.tables() as (cursor, schema):
            cursor.execute(f"UPDATE {schema}.meta SET format = 2")
    with ledgers(tmp_path) as room, pytest.raises(SettingsError) as raised:
        room.open(COHORT, STREAM)
    assert "ledger_newer" == raised.value.code
    (database,) = room.folder.glob("*.duckdb")
    assert (
        f"the ledger {database} was created by a newer version of target-moengage-cohort; upgrade "
        "this installation"
    ) == str(raised.value)
    path = room.folder / "destination.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 2}))
    with pytest.raises(SettingsError) as raised:
        ledgers(tmp_path)
    assert "ledger_newer" == raised.value.code


@pytest.mark.parametrize("read_only", [False, True])
def test_another_stream_or_name_is_refused_with_the_way_out(tmp_path, read_only):
    """A ledger of another stream or of a cohort with another name is refused; the message names
    the command that changes it."""
    with ledgers(tmp_path) as room:
        room.open(COHORT, STREAM)
    with ledgers(tmp_path, read_only=read_only) as room:
        with pytest.raises(SettingsError) as raised:
            room.open(COHORT, "others")
        assert "cohort_of_other_stream" == raised.value.code
        assert (
            "cohorts.others: the ledger of cohort 'vips' belongs to stream 'vip_users'; to let "
            "'others' populate the cohort from now on, run: moengage-cohort ledger reassign COHORT "
            "STREAM --config …"
        ) == str(raised.value)
        with pytest.raises(SettingsError) as raised:
            room.open(Cohort(COHORT.cohort_id, "Gold"), STREAM)
        assert "cohort_renamed" == raised.value.code
        assert (
            "cohorts.vip_users.cohort_name: the ledger of cohort 'vips' has the name 'VIPs', not "
            "'Gold'; to rename the cohort, run: moengage-cohort ledger rename COHORT NAME "
            "--config …"
        ) == str(raised.value)
        assert "VIPs" == room.open(COHORT, STREAM).entry.name


def test_a_new_description_is_noted(tmp_path):
    """The description of a cohort may change, and the catalog has the latest one."""
    for description in (None, "old", "new"):
        with ledgers(tmp_path) as room:
            room.open(Cohort("vips", "VIPs", description), STREAM)
            assert [description] == [entry.description for entry in room.entries()]


def test_the_catalog_lists_the_cohorts_of_a_partner(tmp_path):
    """The catalog lists a partner's cohorts by id, and the error for an unknown id suggests one."""
    with ledgers(tmp_path) as room:
        for cohort_id in ("vips", "buyers"):
            room.open(Cohort(cohort_id, cohort_id), STREAM)
        assert room.has("vips")
        assert not room.has("vip")
        assert ["buyers", "vips"] == [entry.cohort_id for entry in room.entries()]
        with pytest.raises(SettingsError) as raised:
            room.open_known("vip")
        assert "no_ledger" == raised.value.code
        assert (
            f"cohort 'vip' of partner 'acme' has no ledger in {room.folder}; did you mean 'vips'?"
        ) == str(raised.value)
        assert "buyers" == room.open_known("buyers").entry.cohort_id
    with ledgers(tmp_path, setting={"partner": "other"}) as room:
        assert [] == room.entries()
        assert not room.has("vips")


def test_a_lost_entry_of_the_catalog_is_restored(tmp_path):
    """The catalog's entry is restored from the ledger itself."""
    with ledgers(tmp_path) as room:
        room.open(COHORT, STREAM)
    (room.folder / next(room.folder.glob("cohort-*.json"))).unlink()
    with ledgers(tmp_path) as room:
        assert not room.open(COHORT, STREAM).created
        assert [COHORT.name] == [entry.name for entry in room.entries()]


def test_a_version_that_an_unfinished_run_used_is_not_new(tmp_path):
    """A version is not new after an unfinished run has read it, but is new after a finished one."""
    with ledgers(tmp_path) as room:
        assert room.use_version(STREAM, 1)
        assert room.use_version(STREAM, 1)
    with ledgers(tmp_path) as room:
        assert not room.use_version(STREAM, 1)
        assert room.use_version("others", 1)
        assert room.use_version(STREAM, 2)
        room.finish_version(STREAM, 2)
    with ledgers(tmp_path) as room:
        assert room.use_version(STREAM, 2)
        for version in range(10, 120):
            room.use_version(STREAM, version)
    with ledgers(tmp_path) as room:
        assert not room.use_version(STREAM, 119)
        assert room.use_version(STREAM, 10)


def test_only_the_owner_can_read_files(tmp_path):
    """Directories are 0700 and files 0600 while a run is under way, including those of DuckDB."""
    with ledgers(tmp_path / "a" / "b") as room:
        ledger = room.open(COHORT, STREAM)
        ledger.sent(ADD, members(1), 1)
        room.write_progress(
            RunProgress(
                run_id="run-1",
                pid=1,
                host="h",
                started_at="s",
                streams=[],
                records=0,
                accepted=0,
                requests=0,
            )
        )
        paths = list((tmp_path / "a").rglob("*"))
        assert {".wal", ".duckdb", ".json", ".lock"} <= {path.suffix for path in paths}
        for path in paths:
            mode = stat.S_IMODE(path.stat().st_mode)
            assert (0o700 if path.is_dir() else 0o600) == mode, path.name


def test_a_directory_that_cannot_be_created_is_an_error_with_advice(tmp_path):
    """A ledger below a file is an error that names the path and says what to do."""
    (tmp_path / "file").write_text("")
    with pytest.raises(LedgerError) as raised:
        ledgers(tmp_path / "file" / "ledger")
    assert "ledger_unusable" == raised.value.code
    message = str(raised.value)
    assert message.startswith(f"the ledger path {tmp_path / 'file' / 'ledger'}")
    assert message.endswith(
        "cannot be created (NotADirectoryError: Not a directory); fix the directory or the disk, "
        "then run again"
    )


def test_a_corrupt_file_is_an_error_with_advice(tmp_path):
    """A ledger that is not a database, or a corrupt entry, is an error that names the file."""
    with ledgers(tmp_path) as room:
        room.open(COHORT, STREAM)
    (database,) = room.folder.glob("*.duckdb")
    database.write_bytes(b"no database" * 1000)
    with ledgers(tmp_path) as room, pytest.raises(LedgerError) as raised:
        room.open(COHORT, STREAM)
    assert "ledger_unusable" == raised.value.code
    message = str(raised.value)
    assert message.startswith(f"the ledger {database} cannot be used (IOException: ")
    assert message.endswith(
        "); its directory must be writable and its disk must have free space. Nothing more is "
        "sent. Fix the problem, then run again"
    )
    (entry := database.with_suffix(".json")).write_text("{")
    with ledgers(tmp_path) as room, pytest.raises(LedgerError) as raised:
        room.entries()
    assert "ledger_unusable" == raised.value.code
    with ledgers(tmp_path) as room, pytest.raises(LedgerError) as raised:
        room.open_known(COHORT.cohort_id)
    assert "ledger_corrupt" == raised.value.code
    assert f"the ledger file {entry} is corrupt; restore it from a backup" == str(raised.value)


def test_many_cohorts_are_open_together(tmp_path):
    """More cohorts than are kept attached, or than the soft limit of open files allows, can be used
    together, and each has its own members."""
    many = """
import resource, sys
from pathlib import Path
from target_moengage_cohort.core.membership import Cohort
from tests.ledger.support import ADD, STREAM, ledgers, members
resource.setrlimit(resource.RLIMIT_NOFILE, (150, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
with ledgers(Path(sys.argv[1])) as room:
    opened = [room.open(Cohort(f"c{i}", f"C{i}"), STREAM) for i in range(90)]
    for turn in range(2):
        for i, ledger in list(enumerate(opened))[::4]:
            ledger.accepted(ledger.sent(ADD, members(i, turn), 1))
    assert [len({i, 0, 1}) for i in range(0, 90, 4)] == [
        ledger.numbers().accepted.count for ledger in opened[::4]]
"""
    subprocess.run(
        [sys.executable, "-c", many, str(tmp_path)],
        check=True,
        timeout=120,
        cwd=Path(__file__).parents[2],
    )


def test_an_accepted_removal_is_known_later(tmp_path):
    """The next run knows a removal that was accepted."""
    with ledgers(tmp_path) as room:
        ledger = room.open(COHORT, STREAM)
        ledger.accepted(ledger.sent(REMOVE, members(1), 1))
    with ledgers(tmp_path) as room:
        known = room.open(COHORT, STREAM).known(members(1, 2))
    assert {"1": REMOVE} == {key: found.action for key, found in known.items()}


def test_the_catalog_of_another_partner_is_left_alone(tmp_path):
    """If another partner's entry was lost, no cohort is taken for the other partner's, and the
    other partner's next run restores the entry."""
    theirs = {"partner": "other"}
    for setting in ({}, theirs):
        with ledgers(tmp_path, setting=setting) as room:
            room.open(COHORT, STREAM)
            path = room.folder
    (lost,) = [file for file in path.glob("cohort-*.json") if b'"other"' in file.read_bytes()]
    lost.unlink()
    with ledgers(tmp_path) as room:
        assert ["acme"] == [entry.partner for entry in room.entries()]
        assert not room.open(COHORT, STREAM).created
    with ledgers(tmp_path, setting=theirs) as room:
        assert ["other"] == [entry.partner for entry in room.entries()]
        assert lost.exists()
