"""Whole stores that move: to an archive and from one, and from one place to another."""

import hashlib
import io
import json
import os
import stat
import zipfile

import fsspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from target_moengage_cohort.core.errors import BusyError, LedgerError, SettingsError, TryAgainError
from target_moengage_cohort.ledger import archive, archive_files, moving
from target_moengage_cohort.ledger.control import contents
from target_moengage_cohort.ledger.records import FORMAT
from tests.ledger.support import (
    ADD,
    COHORT,
    STREAM,
    accept,
    cohort,
    copied,
    finished,
    ledgers,
    members,
    place_of,
    process,
    send,
    uids,
)
from tests.ledger.support import settings as settings_of
from tests.ledger.test_ledger_model import Life, steps
from tests.support.moves import fill, leftovers, opener, places, rows, without


def export(folder, file, **options):
    opened = opener(**options)
    with (
        moving.held(opened, settings_of(folder)) as source,
        archive_files.written(str(file), options.get("step", lambda _name: None)) as output,
    ):
        archive.write(output, source.facts, source.pieces())


def restore(file, folder, opened=None, **changes):
    """Import an archive, a path or its bytes, into a folder."""
    target, opened = settings_of(folder, **changes), opened or opener()
    source = io.BytesIO(file) if isinstance(file, bytes) else archive_files.read(str(file))
    with source as stream:
        found = archive.Archive(stream, target)
        with moving.filled(opened, target, found.store, found.pieces) as filled:
            filled.put_in_place()


def copy(folder, to, **options):
    return moving.copy(opener(**options), settings_of(folder), settings_of(to))


def refusal(folder, **options):
    """Return the code with which a store refuses to be used, or ``None``."""
    with ledgers(folder, **options) as store:
        try:
            store.entries()
        except SettingsError as error:
            return error.code
    return None


def added(before, after):
    """Return the kind of the only command that a copy has recorded and the original has not."""
    (new,) = (each for each in after["operator_actions"] if each not in before["operator_actions"])
    return new["kind"]


@pytest.fixture
def folder(tmp_path):
    """The folder of a store with something in every table."""
    fill(settings_of(tmp_path / "ledger"))
    return tmp_path / "ledger"


@pytest.fixture
def packed(folder, tmp_path):
    """The store in an archive."""
    export(folder, tmp_path / "ledger.zip")
    return tmp_path / "ledger.zip"


def test_the_store_of_these_tests_has_something_in_every_table(folder):
    """Nothing that a move could lose is empty, but the requests, which are folded."""
    export(folder, folder.with_name("ledger.zip"))
    found = rows(folder)
    tables = {name.rpartition(".")[2] for name, some in found.items() if some}
    everything = {name.rpartition(".")[2] for name in found}
    assert {"requests"} == everything - tables


@pytest.mark.parametrize("page", [1, 2, 256])
def test_an_archive_has_every_row(folder, tmp_path, monkeypatch, page):
    """An exported and imported store has every row of the store it was, those of other partners and
    the numbers of its newest run and request among them, however many rows are read at a time."""
    monkeypatch.setattr(contents, "_PAGE", page)
    export(folder, tmp_path / "ledger.zip")
    restore(tmp_path / "ledger.zip", tmp_path / "new")
    before, after = rows(folder), rows(tmp_path / "new")
    assert "import" == added(before, after)
    assert before == after | {"operator_actions": before["operator_actions"]}
    assert [] == leftovers(tmp_path)
    with ledgers(tmp_path / "new") as store:
        assert {"memberless", "sealed", "vips"} == {each.cohort_id for each in store.entries()}
        assert 1 == sum(each.is_sealed for each in store.entries())


def test_a_copy_has_every_row(folder, tmp_path):
    """A copied store has every row, and in addition the record of the copy."""
    assert str(tmp_path / "new") == copy(folder, tmp_path / "new").uri
    before, after = rows(folder), rows(tmp_path / "new")
    assert without(before, "operator_actions") == without(after, "operator_actions")
    assert "copy" == added(before, after)
    assert [] == leftovers(tmp_path)


class Moves(Life):
    """The life of ledgers that move."""

    def move(self, kind):
        self.store.close()
        self.die()
        former, self.folder = self.folder, self.folder.with_name(f"moved-{self.copies}")
        self.copies += 1
        if kind == "copy":
            copy(former, self.folder)
        else:
            export(former, former.with_name("ledger.zip"))
            restore(former.with_name("ledger.zip"), self.folder)
        self.store = ledgers(self.folder)


@given(
    parts=st.lists(st.tuples(steps, st.sampled_from(["copy", "export"])), min_size=1, max_size=3)
)
@settings(max_examples=12)
def test_any_history_goes_on_in_the_new_place(tmp_path_factory, parts):
    """After any history of requests, answers, crashes and moves, ledgers have what a replay of all
    requests has."""
    life = Moves(tmp_path_factory.mktemp("moves") / "l")
    try:
        for some, kind in parts:
            for name, of, value in some:
                life.do(name, of, value)
            life.move(kind)
            life.check()
    finally:
        life.store.close()


def test_requests_of_a_dead_run_move_as_doubts(tmp_path):
    """What a run had sent when it died is unconfirmed in the new place, too."""
    with ledgers(tmp_path / "ledger") as store:
        ledger = store.open(COHORT, STREAM)
        accept(ledger, ADD, members(1))
        send(ledger, ADD, members(2))
        killed = copied(tmp_path / "ledger", "killed")
    copy(killed, tmp_path / "new")
    with ledgers(tmp_path / "new") as store:
        ledger = store.open_known("vips")
        assert (1, 1) == (ledger.numbers().accepted.count, ledger.numbers().in_doubt)


# Who may use which


def test_a_moved_store_is_refused_and_the_new_one_is_used(folder, tmp_path):
    """A store that was copied is refused, whether to read or to write, and names the new place; the
    new one is used, whatever the state directory knew of that place, and is copied back."""
    with ledgers(tmp_path / "new") as store:
        accept(store.open(COHORT, STREAM), ADD, members("another store's"))
    place_of(tmp_path / "new").rename(tmp_path / "another")
    copy(folder, tmp_path / "new")
    assert ["ledger_moved"] * 2 == [refusal(folder, read_only=each) for each in (True, False)]
    with ledgers(folder) as store, pytest.raises(SettingsError) as raised:
        store.open(COHORT, STREAM)
    assert str(tmp_path / "new") in str(raised.value)
    with ledgers(tmp_path / "new") as store:
        accept(store.open(COHORT, STREAM), ADD, members("later"))
    place_of(folder).rename(tmp_path / "former")
    copy(tmp_path / "new", folder)
    with ledgers(folder) as store:
        assert "later" in uids(store.open(COHORT, STREAM).members())
    assert "ledger_moved" == refusal(tmp_path / "new")


def test_a_store_that_is_open_when_it_is_marked_changes_nothing_more(folder, tmp_path):
    """A process that opened the store, and changed it, before it was marked as moved cannot change
    it afterwards."""
    store = ledgers(folder)
    store.note_action("early")
    copy(folder, tmp_path / "new")
    before = rows(folder)
    for change in (lambda: store.begin("a new stream"), store.close):
        with pytest.raises(SettingsError) as raised:
            change()
        assert "ledger_moved" == raised.value.code
    assert before == rows(folder)


def test_a_reopened_store_is_used_again(folder, tmp_path):
    """A store that was moved is used again once a person has reopened it."""
    copy(folder, tmp_path / "new")
    with ledgers(folder) as store:
        assert str(tmp_path / "new") == store.moved_to()
    assert "ledger_moved" == refusal(folder)
    with ledgers(folder) as store:
        store.reopen()
    for read_only in (True, False):
        assert None is refusal(folder, read_only=read_only)


def test_a_place_with_a_ledger_is_left_alone(folder, packed, tmp_path):
    """Neither a copy nor an import goes into a place that has a ledger, or remains of one."""
    with ledgers(tmp_path / "other") as store:
        accept(store.open(COHORT, STREAM), ADD, members("mine"))
    remains = place_of(tmp_path / "other")
    for name in ("whole", "control.sqlite"):
        (remains / name).unlink(missing_ok=True)
        before = {path: path.read_bytes() for path in remains.iterdir()}
        for work in (
            lambda: copy(folder, tmp_path / "other"),
            lambda: restore(packed, tmp_path / "other"),
        ):
            with pytest.raises(SettingsError) as raised:
                work()
            assert "ledger_exists" == raised.value.code
        assert before == {path: path.read_bytes() for path in remains.iterdir()}
    assert [] == leftovers(tmp_path)
    assert None is refusal(folder)


def test_a_ledger_that_appears_meanwhile_is_left_alone(folder, tmp_path):
    """If a run creates a ledger in the new place while the copy is made, that one stays, and the
    former one is used as before."""

    def step(name):
        if name == "part: whole":
            with ledgers(tmp_path / "new", run_id="other") as store:
                accept(store.open(COHORT, STREAM), ADD, members("mine"))

    with pytest.raises((SettingsError, LedgerError)):
        copy(folder, tmp_path / "new", step=step)
    with ledgers(tmp_path / "new") as store:
        assert ["mine"] == uids(store.open(COHORT, STREAM).members())
    assert None is refusal(folder)
    assert [] == leftovers(tmp_path)


def test_a_copy_that_may_not_last_keeps_the_mark(folder, tmp_path, monkeypatch):
    """If the disk fails once the copy is in its place, the former store stays marked as moved."""
    sync = os.fsync

    def fsync(descriptor):
        if places(tmp_path / "new"):
            raise OSError(5, os.strerror(5))
        sync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        with pytest.raises(LedgerError) as raised:
            copy(folder, tmp_path / "new")
    assert "ledger_copy_unconfirmed" == raised.value.code
    for text in (f"{tmp_path / 'new'} ", "moengage-cohort ledger reopen"):
        assert text in str(raised.value)
    assert ["ledger_moved", None] == [refusal(each) for each in (folder, tmp_path / "new")]


@pytest.mark.parametrize(
    ("partner", "stream"), [("acme", STREAM), ("acme", "plain"), ("another", STREAM)]
)
def test_a_busy_stream_is_named(folder, tmp_path, partner, stream):
    """While a run of any partner has a stream, with members or without, the store neither moves nor
    is it exported: the stream is named, and nothing is left."""
    file = tmp_path / "ledger.zip"
    with ledgers(folder, setting={"partner": partner}, run_id="at-work") as store:
        store.take(stream)
        for work in (lambda: export(folder, file), lambda: copy(folder, tmp_path / "new")):
            with pytest.raises(BusyError) as raised:
                work()
            assert stream in str(raised.value)
            assert "at-work" in str(raised.value)
    assert not file.exists()
    assert [] == leftovers(tmp_path)
    assert not (tmp_path / "new").exists()


def begin_at(at, folder):
    """Return a step at which a run begins a stream that the store did not have."""
    begun = []

    def step(name):
        if name == at and not begun:
            begun.append(name)
            with ledgers(folder, run_id="other") as store:
                accept(store.open(cohort("new"), "new"), ADD, members(1))

    return step


def test_a_stream_that_begins_before_the_copy_is_in_it(folder, tmp_path):
    """If a run begins a new stream while all others are held already, but nothing was copied yet,
    that stream is held and copied, too."""
    copy(folder, tmp_path / "new", step=begin_at("mark open: committed", folder))
    with ledgers(tmp_path / "new") as store:
        assert ["1"] == uids(store.open(cohort("new"), "new").members())


def test_a_stream_that_begins_before_the_copy_is_held(folder, tmp_path):
    """If the run that has begun such a stream goes on, the copy ends and names the stream."""
    other = ledgers(folder, run_id="other")

    def step(name):
        if name == "mark open: committed":
            other.open_without_members(cohort("new"), "new").sent(ADD, b"", 1, 5)

    with pytest.raises(BusyError) as raised:
        copy(folder, tmp_path / "new", step=step)
    assert "'new'" in str(raised.value)
    other.close()
    assert None is refusal(folder)


@pytest.mark.parametrize("at", ["dump: committed", "restore accepted: committed"])
def test_a_stream_that_begins_during_the_copy_undoes_it(folder, tmp_path, at):
    """If a run begins a new stream later, the copy is undone, and the store is used as before."""
    with pytest.raises(BusyError):
        copy(folder, tmp_path / "new", step=begin_at(at, folder))
    assert not (tmp_path / "new").exists()
    with ledgers(folder) as store:
        assert ["1"] == uids(store.open(cohort("new"), "new").members())


def test_an_export_is_of_one_moment(folder, tmp_path):
    """A stream that begins during an export is in none of it."""
    file = tmp_path / "ledger.zip"
    export(folder, file, step=begin_at("dump: committed", folder))
    restore(file, tmp_path / "new")
    with ledgers(tmp_path / "new") as store:
        assert not store.has("new")
        assert "new" not in store.streams()


def test_a_stopped_command_leaves_nothing(folder, packed, tmp_path):
    """A command that is stopped between two pieces changes nothing and leaves nothing."""
    before = rows(folder)
    for work in (
        lambda stop: export(folder, tmp_path / "other.zip", is_stopped=stop),
        lambda stop: copy(folder, tmp_path / "new", is_stopped=stop),
        lambda stop: restore(packed, tmp_path / "new", opener(is_stopped=stop)),
    ):
        for last in (1, 3, 5):
            left = list(range(last))
            with pytest.raises(TryAgainError) as raised:
                work(lambda left=left: not left or left.pop() is None)
            assert "interrupted" == raised.value.code
    assert ["ledger", "ledger.zip"] == sorted(
        path.name for path in tmp_path.iterdir() if path.name != "state"
    )
    assert without(before) == without(rows(folder))


# Restored stores


def test_an_older_archive_is_refused_until_accepted(folder, packed, tmp_path):
    """A store that was imported from an archive of before the newest run is refused until a person
    accepts it; one of the newest run is not."""
    place_of(folder).rename(tmp_path / "lost")
    restore(packed, folder)
    assert None is refusal(folder, read_only=True)
    with ledgers(folder) as store:
        accept(store.open(COHORT, STREAM), ADD, members("later"))
    place_of(folder).rename(tmp_path / "lost-again")
    restore(packed, folder)
    assert ["ledger_older"] * 2 == [refusal(folder, read_only=each) for each in (True, False)]
    with ledgers(folder) as store:
        assert store.accept_older()
    with ledgers(folder) as store:
        assert "later" not in uids(store.open(COHORT, STREAM).members())
        assert 3 == len(store.entries())


def test_a_store_of_which_one_run_is_missing_is_refused(folder, packed, tmp_path):
    """An archive of before a run that has changed nothing but its own record is refused, too: the
    import itself counts as no run."""
    with ledgers(folder) as store:
        store.note_action("nothing")
    place_of(folder).rename(tmp_path / "lost")
    restore(packed, folder)
    assert "ledger_older" == refusal(folder)


# Archives that are not right


def test_any_damage_is_refused_or_changes_nothing(packed, folder, tmp_path_factory):
    """An archive of which any byte has changed, or that was cut off, is refused and leaves nothing,
    or is the same store."""
    whole, wanted = packed.read_bytes(), without(rows(folder), "operator_actions")
    damages = st.one_of(
        st.tuples(st.integers(0, len(whole) - 1), st.integers(1, 255)),
        st.tuples(st.integers(0, len(whole) - 1), st.just(0)),
    )

    @settings(max_examples=60)
    @given(damage=damages)
    def check(damage):
        at, flip = damage
        data = bytearray(whole)
        data[at] ^= flip
        root = tmp_path_factory.mktemp("damaged")
        code = "none"
        try:
            restore(bytes(data) if flip else whole[:at], root / "new")
        except SettingsError as error:
            code = error.code
        assert code in {"archive_damaged", "archive_newer", "none"}
        if code == "none":
            assert wanted == without(rows(root / "new"), "operator_actions")
        else:
            assert [] == list(root.iterdir())

    check()


def repacked(packed, change):
    """Return an archive with other pieces; their digests are right unless the change sets one."""
    with zipfile.ZipFile(packed) as source:
        pieces = {name: source.read(name) for name in source.namelist()}
    manifest = json.loads(pieces.pop("manifest.json"))
    change(manifest, pieces)
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in pieces.items()}
    manifest["files"] = digests | manifest.pop("set", {})
    output = io.BytesIO()
    with zipfile.ZipFile(output, "w") as archived:
        for name, data in {**pieces, "manifest.json": json.dumps(manifest).encode()}.items():
            archived.writestr(name, data)
    return output.getvalue()


def lose(_manifest, pieces):
    del pieces[next(name for name in pieces if name.endswith("accepted.parquet"))]


def swap(_manifest, pieces):
    first, second, *_ = (name for name in pieces if name.endswith("accepted.parquet"))
    pieces[first], pieces[second] = pieces[second], pieces[first]


def forge_digest(manifest, _pieces):
    manifest["set"] = {"control.jsonl": "0" * 64}


def forge_numbers(manifest, _pieces):
    manifest["store"]["cohorts"][0]["accepted"] += 1


def forge_column(_manifest, pieces):
    pieces["control.jsonl"] = pieces["control.jsonl"].replace(b'"revision"', b'"unknown"')


def forge_table(_manifest, pieces):
    pieces["control.jsonl"] += b'{"table": "store; --", "columns": ["host"]}\n'


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lose, "ledger_copy_differs"),
        (swap, "ledger_copy_differs"),
        (forge_digest, "archive_damaged"),
        (forge_numbers, "ledger_copy_differs"),
        (forge_column, "ledger_newer"),
        (forge_table, "ledger_newer"),
        (lambda manifest, _: manifest.update(format=2), "archive_newer"),
        (lambda manifest, _: manifest.update(ledger_format=FORMAT + 1, store=[]), "archive_newer"),
        (lambda manifest, _: manifest.update(ledger_format=FORMAT - 1), "ledger_old_format"),
        (lambda manifest, _: manifest.pop("store"), "archive_damaged"),
    ],
)
def test_an_archive_of_other_content_is_refused(packed, tmp_path, change, code):
    """An archive whose members are not those that its control and its manifest have, or that a
    version of another format wrote, is refused and leaves nothing."""
    with pytest.raises((SettingsError, LedgerError)) as raised:
        restore(repacked(packed, change), tmp_path / "new")
    assert code == raised.value.code
    assert not (tmp_path / "new").exists()


def test_an_archive_of_another_destination_is_refused(packed, tmp_path):
    """An archive of another workspace or data center is refused and leaves nothing."""
    for changes in ({"workspace_id": "b"}, {"data_center": 2}):
        with pytest.raises(SettingsError) as raised:
            restore(packed, tmp_path / "new", **changes)
        assert "archive_of_other_destination" == raised.value.code
    assert not (tmp_path / "new").exists()
    restore(packed, tmp_path / "new", partner="another")


# Files

_MOVE = """
import re, resource, sys
from pathlib import Path
from target_moengage_cohort.ledger.duckdb import instance
instance._MEMORY_LIMIT = "64MB"
from tests.ledger import test_moving as moves
folder = Path(sys.argv[1])
if sys.argv[2] == "fill":
    moves.fill_many(folder / "ledger", 2_000_000)
elif sys.argv[2] == "archive":
    moves.export(folder / "ledger", folder / "ledger.zip")
    moves.restore(folder / "ledger.zip", folder / "imported")
else:
    moves.copy(folder / "ledger", folder / "copied")
if sys.platform == "linux":  # where ru_maxrss counts the memory of the process that started it
    print(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
else:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def fill_many(folder, count):
    """Let a store have many members, without requests."""
    with ledgers(folder) as store:
        ledger = store.open(COHORT, STREAM)
        with ledger.stream.changing("fill", [ledger.number]):
            h = ledger.stream.table.engine.hash_sql("uid", "NULL::VARCHAR")
            people = f"SELECT md5(i::VARCHAR) AS uid FROM range({count}) AS t(i)"
            select = f"SELECT {ledger.number}, {h}, uid, NULL FROM ({people})"
            ledger.stream.table.run(f"INSERT INTO {{s}}.accepted {select}")


def test_moves_take_little_memory(tmp_path):
    """Two million members move within the engine's limit, and the memory of the process does not
    have them either."""
    for what in ("fill", "archive", "copy"):
        taken = finished(process(_MOVE, tmp_path, what))  # in KB
        assert what == "fill" or taken < 250_000
    with ledgers(tmp_path / "copied") as store:
        assert 2_000_000 == store.open(COHORT, STREAM).numbers().base


def test_an_archive_is_private_and_replaces_another_in_full(folder, tmp_path):
    """An archive is its owner's alone while it is written, too, and an older one stays until it is
    whole; whatever an export that died has left is replaced."""
    file = tmp_path / "ledger.zip"
    for path in (file, tmp_path / "ledger.zip.part"):
        path.write_bytes(b"older")
        path.chmod(0o644)
    modes = []

    def step(_name):
        part = tmp_path / "ledger.zip.part"
        if part.exists() and b"older" != part.read_bytes():
            modes.append(stat.S_IMODE(part.stat().st_mode))
            assert b"older" == file.read_bytes()

    export(folder, file, step=step)
    assert {0o600} == {*modes, stat.S_IMODE(file.stat().st_mode)}
    assert [] == leftovers(tmp_path)
    restore(file, tmp_path / "new")


def test_an_export_that_fails_leaves_the_older_archive(folder, tmp_path):
    """If an archive cannot be written in full, the older one stays, and no part of the new one."""
    file = tmp_path / "ledger.zip"
    file.write_bytes(b"older")

    def step(name):
        if name == "archive: written":
            raise OSError(28, os.strerror(28))

    with pytest.raises(LedgerError) as raised:
        export(folder, file, step=step)
    assert "archive_unusable" == raised.value.code
    assert b"older" == file.read_bytes()
    assert [] == leftovers(tmp_path)


@pytest.mark.parametrize("kind", ["file", "FILE", "memory"])
def test_archives_are_on_any_storage(folder, tmp_path, kind):
    """An archive is written to a URL, and read from it; nothing but the archive is left there."""
    url = f"{kind}://{tmp_path}/an archive.zip"
    export(folder, url.replace(" ", "%20") if kind != "memory" else url)
    restore(url.replace(" ", "%20") if kind != "memory" else url, tmp_path / "new")
    assert rows(folder)["cohorts"] == rows(tmp_path / "new")["cohorts"]
    assert (tmp_path / "an archive.zip").exists() == (kind != "memory")
    if kind == "memory":
        assert ["an archive.zip"] == [
            path.rpartition("/")[2] for path in fsspec.filesystem("memory").find(str(tmp_path))
        ]


@pytest.mark.parametrize(
    "url",
    ["/no/such/folder/x.zip", "memory://none/x.zip", "s9://user:PLANTED@host/x.zip?k=PLANTED"],
)
def test_an_archive_that_cannot_be_read_is_named_without_credentials(tmp_path, url):
    """A file that is missing, or in an unknown storage, is an error that names it without its
    credentials."""
    with pytest.raises((LedgerError, SettingsError)) as raised:
        restore(url, tmp_path / "new")
    assert raised.value.code in {"archive_unusable", "storage_package_missing"}
    assert "x.zip" in str(raised.value)
    assert "PLANTED" not in str(raised.value)


def test_a_missing_ledger_is_an_error(tmp_path):
    """Where there is no ledger nothing is exported or copied, and none is created."""
    for work in (
        lambda: export(tmp_path / "none", tmp_path / "x.zip"),
        lambda: copy(tmp_path / "none", tmp_path / "b"),
    ):
        with pytest.raises(SettingsError) as raised:
            work()
        assert "no_ledger" == raised.value.code
    assert [] == [path for path in tmp_path.iterdir() if path.name != "state"]
