"""The state directory's witness of a store: one that is older, another or missing is refused."""

import shutil
import stat

import pytest

from target_moengage_cohort.core.errors import LedgerError, SettingsError
from target_moengage_cohort.settings.addresses import state_path
from tests.ledger.support import (
    ADD,
    COHORT,
    STREAM,
    accept,
    copied,
    ledgers,
    members,
    place_of,
    send,
    uids,
)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "ledger"


def fill(folder, *uids, step=lambda _name: None):
    with ledgers(folder, step=step) as store:
        ledger = store.open(COHORT, STREAM)
        for uid in uids:
            accept(ledger, ADD, members(uid))


def restore(folder, backup):
    shutil.rmtree(folder)
    shutil.copytree(backup, folder)


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.suffix != ".lock"}


def witness():
    (path,) = state_path().glob("ledger-*.json")
    return path


def assert_refused(folder, code="ledger_older"):
    for read_only in (True, False, True):
        with ledgers(folder, read_only=read_only) as store:
            for call in (lambda: store.open(COHORT, STREAM), lambda: store.has("x"), store.entries):
                with pytest.raises(SettingsError) as raised:
                    call()
                assert code == raised.value.code
                assert store.place in str(raised.value)


def accepted(folder):
    with ledgers(folder) as store:
        return uids(store.open(COHORT, STREAM).members())


def test_a_store_from_before_the_newest_run_is_refused(folder):
    """A backup from before the newest run is refused, unchanged, until a person accepts it."""
    fill(folder, 1)
    backup = copied(folder, "backup")
    with ledgers(folder) as store:
        store.begin(STREAM)  # the newest run has sent nothing
    restore(folder, backup)
    before = (place_of(folder) / "control.sqlite").read_bytes()
    assert_refused(folder)
    assert before == (place_of(folder) / "control.sqlite").read_bytes()
    with ledgers(folder) as store:
        assert store.accept_older()
    assert witness().exists()
    assert ["1"] == accepted(folder)


def test_a_run_that_dies_is_known_from_its_first_change(folder):
    """A backup from before a run that was killed before it ended is refused."""
    fill(folder, 1)
    backup = copied(folder, "backup")
    with ledgers(folder) as store:
        store.begin(STREAM)
        known = witness().read_bytes()
    witness().write_bytes(known)  # as the run would have left it
    restore(folder, backup)
    assert_refused(folder)


def test_a_store_from_the_middle_of_the_newest_run_is_refused(folder):
    """A backup that was made while the newest run was at work is refused as well."""
    with ledgers(folder) as store:
        ledger = store.open(COHORT, STREAM)
        accept(ledger, ADD, members(1))
        backup = copied(folder, "backup")
        accept(ledger, ADD, members(2))
    restore(folder, backup)
    assert_refused(folder)


def test_another_store_in_its_place_is_refused(folder, tmp_path):
    """A store that was created elsewhere is refused in the place of one that is known."""
    fill(folder, 1)
    fill(tmp_path / "other", *range(20))
    restore(folder, tmp_path / "other")
    assert_refused(folder)
    with ledgers(folder) as store:
        assert store.accept_older()
    assert 20 == len(accepted(folder))


@pytest.mark.parametrize(
    ("what", "code"), [("directory", "ledger_older"), ("control", "ledger_mismatch")]
)
def test_a_store_that_vanished_is_refused(folder, what, code):
    """A store that is gone, or its control, is refused and never silently created anew."""
    fill(folder, 1)
    place = place_of(folder)
    if what == "directory":
        shutil.rmtree(place)
    else:
        (place / "control.sqlite").unlink()
    assert_refused(folder, code)
    assert not (place / "control.sqlite").exists()
    shutil.rmtree(place, ignore_errors=True)
    with ledgers(folder) as store:
        assert store.exists
        assert not store.accept_older()
        assert store.open(COHORT, STREAM).created


def test_a_store_that_was_moved_is_accepted(folder, tmp_path):
    """A store in a place that the state directory does not know opens, as after a move."""
    fill(folder, 1)
    folder.rename(tmp_path / "moved")
    assert ["1"] == accepted(tmp_path / "moved")


def test_looking_checks_but_writes_nothing(folder):
    """A read-only store leaves the witness as it is, and makes none."""
    with ledgers(folder, read_only=True) as store:
        assert [] == store.entries()
    assert not state_path().exists()
    fill(folder, 1)
    before = contents(state_path())
    with ledgers(folder, read_only=True) as store:
        assert 1 == store.open(COHORT, STREAM).numbers().base
    assert before == contents(state_path())


def test_a_look_at_a_run_under_way_is_not_refused(folder):
    """A read-only store that opens while runs begin, write and end is never refused."""

    def step(name):
        if not name.startswith("control: "):  # looking waits while the file is closed
            with ledgers(folder, read_only=True, busy_seconds=0.0) as store:
                assert 1 == len(store.entries())

    fill(folder, 0)
    for uid in range(1, 4):
        fill(folder, uid, step=step)


def test_a_crash_at_any_step_is_not_refused(folder):
    """After a crash at any step, with the state directory as it was then, the store opens."""
    copies = []

    def step(name):
        number = len(copies)
        states = state_path().with_name(f"state-{number}")
        if state_path().exists():
            shutil.copytree(state_path(), states)
        copies.append((name, copied(folder, str(number)), states))

    fill(folder, 1)
    fill(folder, 2, 3, step=step)
    assert "write .json" in {name for name, _, _ in copies}
    for _, copy, states in copies:
        restore(folder, copy)
        shutil.rmtree(state_path())
        if states.exists():
            shutil.copytree(states, state_path())
        assert {"1"} <= {*accepted(folder)}


def test_the_witness_is_private_and_must_be_written(folder):
    """The witness is its owner's alone; a run that cannot write it fails before it sends."""
    fill(folder, 1)
    assert 0o600 == stat.S_IMODE(witness().stat().st_mode)
    path = witness()
    (path.with_name(f"{path.name}.part")).mkdir()
    store = ledgers(folder)
    ledger = store.open(COHORT, STREAM)
    with pytest.raises(LedgerError) as raised:
        send(ledger, ADD, members(2))
    with pytest.raises(LedgerError):
        store.close()
    assert "ledger_unusable" == raised.value.code
    assert str(path) in str(raised.value)


def test_a_broken_witness_is_replaced_by_a_persons_word(folder):
    """A witness that cannot be read is an error, until the store is accepted."""
    fill(folder, 1)
    witness().write_bytes(b"{")
    with ledgers(folder) as store, pytest.raises(LedgerError) as raised:
        store.entries()
    assert "ledger_corrupt" == raised.value.code
    with ledgers(folder) as store:
        store.accept_older()
    assert ["1"] == accepted(folder)
