"""A mirror and the STATE of its tap: whole runs against the emulator."""

import dataclasses
import re

import pytest

from target_moengage_cohort.core.errors import InputError
from tests.support.logs import codes
from tests.support.project import ROOT
from tests.support.singer import activate_version, lines, record, run, schema, state
from tests.support.taps import AFTER, KEY, TAPS, VERSIONED, Tap

MANY = [str(number) for number in range(12)]
FULL_READS = [tap for tap in TAPS if tap.code is None]
CUT = [tap for tap in FULL_READS if tap.during is not None]
NAMES = {"ids": lambda tap: tap.name}
PLAIN = Tap("plain", None, {}, syncs=False)
RESUMES = Tap("resumes", None, {"version": 1}, during={"xmin": 5}, **VERSIONED)


@pytest.fixture
def mirror(emulator, tmp_path):
    """Runs a mirror of the stream `users` on a ledger of its own, with all removals allowed."""
    kept = {"ledger_uri": str(tmp_path / "ledger"), "max_removal_percent": 100}

    def go(messages, write_state=None, **settings):
        options = {**kept, "sync_mode": "mirror", **settings}
        if options["sync_mode"] not in {"mirror", "one_time"}:
            del options["max_removal_percent"]
        return run(emulator, lines(*messages), write_state=write_state, **options)

    return go


def members(emulator):
    return audience(emulator, "users")


def audience(emulator, cohort):
    return {member.uid for member in emulator.members(cohort)}


def code(seen):
    return None if seen.error is None else seen.error.code


@pytest.mark.parametrize("tap", TAPS, **NAMES)
def test_which_taps_can_be_a_mirror(emulator, mirror, tap):
    """A full read removes who is gone; any other read removes nobody, from its first run on."""
    assert tap.code == code(mirror(tap.run(MANY, 0)))
    seen = mirror(tap.run(MANY[1:] if tap.code is None else MANY[:1], 1))
    assert tap.code == code(seen)
    if tap.code is None:
        assert set(MANY[1:]) == members(emulator)
        assert "succeeded" == seen.report.status
        assert [tap.run([], 1)[-1]["value"]] == seen.states
    else:
        assert [] == seen.states
        assert (set() if tap.properties else set(MANY)) == members(emulator)


@pytest.mark.parametrize("tap", CUT, **NAMES)
def test_a_full_read_that_was_cut(emulator, mirror, tap):
    """The STATE of a cut read never leaves, and the rest of one never counts as an audience."""
    assert code(mirror(tap.run(MANY, 0))) is None
    seen = mirror(tap.run(MANY[:5], 1, is_cut=True))
    assert ("stopped_read", []) == (code(seen), seen.states)
    assert ["failed"] == [each.status for each in seen.report.cohorts]
    # As if an older version of the target had let that STATE out.
    for options in ({}, {"tap_exit": lambda: 0}, {"removals": "deferred"}):
        seen = mirror(tap.run(MANY[5:], 2, fed=tap.during), **options)
        assert "resumed_read" == code(seen)
        assert "failed" == seen.report.status
        assert ("failed", None) == (seen.report.cohorts[0].status, seen.report.cohorts[0].plan_id)
        assert [tap.run([], 2)[-1]["value"]] == seen.states
        assert set(MANY) == members(emulator)
    assert code(mirror(tap.run(MANY[1:], 3))) is None
    assert set(MANY[1:]) == members(emulator)


def test_a_read_that_stopped_without_a_mark(emulator, mirror):
    """A tap that dies in a table without a resume mark says that it was reading it."""
    assert code(mirror(PLAIN.run(MANY, 0))) is None
    reading = state({"bookmarks": {"users": {}}, "currently_syncing": "users"})
    seen = mirror([reading, *PLAIN.run(MANY[:6], 1)[:-1], reading])
    assert ("stopped_read", []) == (code(seen), seen.states)
    assert set(MANY) == members(emulator)


@pytest.mark.parametrize("tap", [tap for tap in FULL_READS if tap.syncs], **NAMES)
def test_a_later_read_that_stopped_without_a_mark(emulator, mirror, tap):
    """A tap that dies before its first mark still has what its last complete read has written."""
    tap = dataclasses.replace(tap, during=None)
    assert code(mirror(tap.run(MANY, 0))) is None
    assert "stopped_read" == code(mirror(tap.run(MANY[:6], 1, is_cut=True, fed=tap.after)))
    assert set(MANY) == members(emulator)


@pytest.mark.parametrize("sync_mode", ["incremental", "add"])
def test_a_state_before_the_first_row_has_to_wait(mirror, sync_mode):
    """A tap that dies before its second STATE would take the rest of its first read for done."""
    bookmarks = {"users": {"lsn": 5, "version": 1}}
    early = {"bookmarks": bookmarks, "currently_syncing": "users"}
    rows = [schema(), *(record(uid=uid) for uid in MANY)]
    assert [] == mirror([state(early), *rows], sync_mode=sync_mode).states
    later = {"bookmarks": {"users": {"lsn": 5, "xmin": 7}}, "currently_syncing": "users"}
    assert [later] == mirror([state(early), *rows, state(later)], sync_mode=sync_mode).states
    empty = {"bookmarks": bookmarks, "currently_syncing": None}
    messages = [state(early), schema(), state(empty)]
    assert [empty] == mirror(messages, sync_mode=sync_mode).states


@pytest.mark.parametrize("sync_mode", ["incremental", "add"])
def test_a_read_that_was_cut_in_another_mode(emulator, mirror, sync_mode):
    """STATE may leave in the other modes, so the first mirror proves nothing, and the next does."""
    seen = mirror(RESUMES.run(MANY, 0, is_cut=True), sync_mode=sync_mode)
    assert [{"xmin": 5}] == [each["bookmarks"]["users"] for each in seen.states[-1:]]
    mirror(PLAIN.run(MANY, 0), dry_run=True)  # notes nothing
    seen = mirror(PLAIN.run(MANY[5:], 1))
    assert "resumed_read" == code(seen)
    assert (1, {*MANY}) == (len(seen.states), members(emulator))
    assert code(mirror(PLAIN.run(MANY[5:], 2))) is None


def test_a_bookmark_from_before_the_mirror_has_a_way_out(mirror, monkeypatch):
    """A tap may keep in STATE the bookmark of a method that was changed since: the message says how
    to clear it, as the method that it asks for is set already."""
    left = state({"bookmarks": {"users": {"replication_key": "at", "replication_key_value": 1}}})
    for name, value in {"PROJECT_ROOT": "/p", "ENVIRONMENT": "e"}.items():
        monkeypatch.setenv(f"MELTANO_{name}", value)
    for name in ("EXTRACTOR_NAME", "LOADER_NAME"):
        monkeypatch.setenv(f"MELTANO_{name}", name.lower())
    rows = [schema(), *(record(uid=uid) for uid in MANY)]
    seen = mirror([*rows, left])
    assert ("bookmark_for_mirror", []) == (code(seen), seen.states)
    assert "meltano state clear e:extractor_name-to-loader_name (" in str(seen.error)
    assert code(mirror([*rows, state({"bookmarks": {"users": {}}})])) is None


def test_a_whole_state_of_another_mode_is_no_cut(emulator, mirror):
    """After a complete read in another mode the first mirror is as any other."""
    mirror(RESUMES.run(MANY, 0), sync_mode="add")
    assert code(mirror(PLAIN.run(MANY[1:], 1))) is None
    assert set(MANY[1:]) == members(emulator)


def test_a_row_count_proves_what_state_does_not(emulator, mirror):
    """After a cut read in another mode, a row count that is right is proof at once."""
    mirror(RESUMES.run(MANY, 0, is_cut=True), sync_mode="add")
    counted = [schema(columns=("uid", "n")), *(record(uid=uid, n=6) for uid in MANY[6:])]
    cohorts = {"cohorts": {"users": {"expected_count_column": "n"}}}
    assert code(mirror(counted, **cohorts)) is None
    assert set(MANY[6:]) == members(emulator)


def test_a_state_is_noted_before_it_is_written(mirror):
    """A run that dies while it writes a STATE has noted that it was not that of a whole read."""

    def broken(_value):
        raise InputError("broken", "the scheduler has gone away")

    cut = RESUMES.run(MANY, 0, is_cut=True)[1:]  # without the STATE before the rows
    seen = mirror(cut, write_state=broken, sync_mode="add")
    assert "broken" == code(seen)
    assert "resumed_read" == code(mirror(PLAIN.run(MANY, 1)))


def test_bookmark_properties_are_refused_before_any_row(mirror):
    """A tap that reads in the order of a column keeps a bookmark, so nothing is sent."""
    tap = Tap("tap", None, {}, properties=["updated_at"], syncs=False)
    seen = mirror(tap.run(MANY, 0))
    assert ("bookmark_for_mirror", []) == (code(seen), seen.attempts)
    assert code(mirror(tap.run(MANY, 0), sync_mode="incremental")) is None


def test_a_method_is_refused_at_once(mirror):
    """A STATE with another method than FULL_TABLE ends the run where it stands."""
    rows = [record(uid=uid) for uid in MANY]
    method = state({"bookmarks": {"users": {"last_replication_method": "LOG_BASED"}}})
    seen = mirror([method, schema(), *rows], cohorts={"users": {}})
    assert ("bookmark_for_mirror", []) == (code(seen), seen.attempts)


ALLOWED = {"cohorts": {"users": {"allow_bookmark": True}}}


def test_a_bookmark_may_be_allowed_but_is_never_written(emulator, mirror):
    """A person's word lifts the refusals; no STATE with the bookmark leaves."""
    reads = {"activates": AFTER, "is_versioned": True, "syncs": False}
    tap = Tap("tap", None, KEY, properties=["updated_at"], **reads)
    for number, uids in enumerate([MANY, MANY[1:]]):
        seen = mirror(tap.run(uids, number), **ALLOWED)
        assert (None, []) == (code(seen), seen.states)
        assert set(uids) == members(emulator)
    cut = Tap("tap", None, {"xmin": 7}, **reads)
    assert "stopped_read" == code(mirror(cut.run(MANY[5:], 2), **ALLOWED))
    assert set(MANY[1:]) | {*MANY[5:]} == members(emulator)


def test_a_last_state_that_is_not_written_is_a_warning(mirror, caplog):
    """A run whose last STATE would make the tap leave out rows says that it is not written."""
    tap = Tap("tap", None, KEY, syncs=False)
    seen = mirror(tap.run(MANY, 0), **ALLOWED)
    assert (None, []) == (code(seen), seen.states)
    assert "state_withheld" in codes(caplog)


def test_the_other_streams_of_a_run_go_on(emulator, mirror):
    """A mirror that is not complete fails alone: others remove, and no STATE passes it."""
    both = {"cohorts": {"users": {}, "others": {}}}
    first = [schema(stream="others"), *(record("others", uid=uid) for uid in MANY)]
    assert code(mirror([*first, *PLAIN.run(MANY, 0)], **both)) is None
    smaller = [*first[:-1], *RESUMES.run(MANY[:3], 1, is_cut=True)]
    seen = mirror(smaller, **both)
    assert ("stopped_read", []) == (code(seen), seen.states)
    assert set(MANY) == members(emulator)
    assert 11 == len(emulator.members("others"))


@pytest.mark.parametrize("tap", CUT, **NAMES)
def test_two_mirrors_of_one_stream_of_the_tap(emulator, mirror, tap):
    """Stream maps make two streams of one: its STATE says of both that they were cut."""
    maps = {"users": {}, "copy": {"__source__": "users"}}
    both = {"stream_maps": maps}
    assert code(mirror(tap.run(MANY, 0), **both)) is None
    seen = mirror(tap.run(MANY[:5], 1, is_cut=True), **both)
    assert ("stopped_read", []) == (code(seen), seen.states)
    assert ["failed"] * 2 == [each.status for each in seen.report.cohorts]
    seen = mirror(tap.run(MANY[5:], 2, fed=tap.during), **both)
    assert "resumed_read" == code(seen)
    assert [set(MANY)] * 2 == [audience(emulator, each) for each in ("users", "copy")]
    assert code(mirror(tap.run(MANY[1:], 3), **both)) is None
    assert [set(MANY[1:])] * 2 == [audience(emulator, each) for each in ("users", "copy")]


def test_an_incremental_stream_keeps_its_bookmark_next_to_a_mirror(mirror):
    """A mirror whose entry is whole does not hold back another stream's bookmark."""
    cohorts = {"users": {}, "orders": {"sync_mode": "incremental"}}
    value = {"bookmarks": {"users": {}, "orders": KEY}}
    rows = [record(uid=uid) for uid in MANY]
    messages = [schema(), *rows, schema(stream="orders"), record("orders", uid="a")]
    seen = mirror([*messages, state(value)], cohorts=cohorts)
    assert (None, [value]) == (code(seen), seen.states)


def test_one_changed_row_of_a_log_removes_nobody(emulator, mirror):
    """A log's few rows with ACTIVATE_VERSION after them look like a whole audience."""
    first, then = 1_700_000_000_001, 1_700_000_000_002
    rows = [record(uid=uid) | {"version": first} for uid in MANY]
    mirror([schema(), *rows, activate_version(first)])
    changed = [schema(), record(uid="3") | {"version": then}, activate_version(then)]
    bookmark = state({"bookmarks": {"users": {"version": then, "lsn": "00000025"}}})
    assert "bookmark_for_mirror" == code(mirror([*changed, bookmark]))
    assert set(MANY) == members(emulator)


def test_the_documentation_lists_every_tap_and_its_verdict():
    """The table of taps has each one with whether it can be a mirror."""
    text = (ROOT / "docs" / "taps.md").read_text()
    rows = re.findall(r"^\| (.+?) \| (yes|no) \|", text, re.MULTILINE)
    assert {tap.name: tap.code is None for tap in TAPS} == {
        name.replace("`", ""): word == "yes" for name, word in rows
    }
