"""One cohort of a fan-out in trouble stops none of the others."""

import uuid

import pytest

from target_moengage_cohort.ledger.engines import open_store
from target_moengage_cohort.settings import load
from tests.support.logs import Warned, warnings
from tests.support.look import held
from tests.support.singer import config, lines, record, run, schema, state

FAN_OUT = {"s": {"cohort_id_column": "sid", "cohort_name_column": "sname"}}
MODES = ["incremental", "mirror"]


@pytest.fixture(params=MODES)
def segments(emulator, tmp_path, request):
    """Runs on rows of the stream `s`, each a cohort's id and name and a uid."""

    def go(*rows, **settings):
        options = {"cohorts": FAN_OUT, "ledger_uri": str(tmp_path / "ledger")}
        options |= {"sync_mode": request.param, "max_removal_percent": 100}
        messages = [schema("s", ("uid", "sid", "sname"))]
        messages += [record("s", uid=uid, sid=sid, sname=name) for sid, name, uid in rows]
        return run(emulator, lines(*messages, state({"n": len(rows)})), **options | settings)

    go.mode = request.param
    return go


def members(emulator, cohort):
    return {member.uid for member in emulator.members(cohort)}


FIRST = [(1, "Gold", "a"), (2, "Silver", "b"), (3, "Bronze", "c"), (1, "Gold", "a2")]
RENAMED = [(1, "Gold", "a"), (2, "Platinum", "b2"), (3, "Bronze", "c"), (1, "Gold", "new")]


@pytest.mark.parametrize("on_reject", ["fail", "skip"])
def test_a_renamed_cohort_is_withheld_and_the_others_go_on(
    emulator, segments, caplog, tmp_path, on_reject
):
    """Case 22: rows of other cohorts after it are delivered; nobody of it is added or removed."""
    skip = {"on_reject": on_reject, "rejects_path": str(tmp_path / "rejects.singer")}
    segments(*FIRST, **skip)
    seen = segments(*RENAMED, **skip)
    assert seen.error is None
    assert ("withheld", 3, None) == (
        seen.report.status,
        seen.report.exit_code,
        seen.report.error,
    )
    gone = {"a2"} if segments.mode == "incremental" else set()
    assert {"a", "new", *gone} == members(emulator, "1")
    assert {"b"} == members(emulator, "2")
    assert {"c"} == members(emulator, "3")
    assert [] == seen.states
    statuses = {each.cohort_id: each.status for each in seen.report.cohorts}
    assert {"1": "succeeded", "2": "withheld", "3": "succeeded"} == statuses
    assert Warned("cohort_renamed", "s", "2") in warnings(caplog)
    (message,) = (w.message for w in seen.report.warnings if w.code == "cohort_renamed")
    for part in ("'sname'", "'Platinum'", "'Silver'", "ledger rename 2 Platinum"):
        assert part in message


def test_the_name_may_follow(emulator, segments, tmp_path):
    """Once the ledger has the new name, the next run delivers the cohort's rows."""
    segments(*FIRST)
    segments(*RENAMED)
    loaded = load(config(emulator, ledger_uri=str(tmp_path / "ledger"))).settings
    with open_store(loaded, run_id=str(uuid.uuid4()), wait=lambda _: False) as store:
        store.open_known("2").rename("Platinum")
    seen = segments(*RENAMED)
    assert ("succeeded", [{"n": 4}]) == (seen.report.status, seen.states)
    assert "b2" in members(emulator, "2")


def test_only_a_column_of_names_renames(emulator, segments, tmp_path):
    """Without cohort_name_column a cohort keeps its name in the ledger, whoever has given it."""
    segments(*FIRST)
    loaded = load(config(emulator, ledger_uri=str(tmp_path / "ledger"))).settings
    with open_store(loaded, run_id=str(uuid.uuid4()), wait=lambda _: False) as store:
        store.open_known("2").rename("Platinum")
    unnamed = {"s": {"cohort_id_column": "sid"}}
    rows = [(1, "Gold", "a"), (2, "ignored", "b2"), (3, "Bronze", "c"), (4, "ignored", "d")]
    seen = segments(*rows, cohorts=unnamed)
    assert ("succeeded", [{"n": 4}]) == (seen.report.status, seen.states)
    assert "b2" in members(emulator, "2")
    names = {each.cohort_id: each.cohort_name for each in seen.report.cohorts}
    assert {"1": "Gold", "2": "Platinum", "3": "Bronze", "4": "4"} == names
    sent = {
        each.body["parameters"]["cohort_id"]: each.body["parameters"]["cohort_name"]
        for each in seen.attempts
    }
    assert ("Platinum", "4") == (sent["2"], sent["4"])


def test_with_on_withheld_warn_it_still_ends_with_3(segments):
    """No confirm can release such a cohort."""
    segments(*FIRST)
    assert 3 == segments(*RENAMED, on_withheld="warn").report.exit_code


def test_a_renamed_cohort_of_plain_ids_is_withheld(emulator, segments):
    """Ids as text take the fast way through the input; its result is the same."""
    segments(*((str(sid), name, uid) for sid, name, uid in FIRST))
    many = [("1", "Gold", f"m{number}") for number in range(50)]
    seen = segments(*many, ("2", "Platinum", "x"), *many, ("3", "Bronze", "d"))
    assert {f"m{number}" for number in range(50)} <= members(emulator, "1")
    assert ({"b"}, 3) == (members(emulator, "2"), seen.report.exit_code)
    assert "d" in members(emulator, "3")


def test_a_cohort_of_another_stream_is_withheld(emulator, segments, caplog, tmp_path):
    """A fan-out that names another stream's cohort leaves that one alone."""
    own = {"ledger_uri": str(tmp_path / "ledger"), "cohorts": {"vip": {"cohort_name": "VIP"}}}
    run(emulator, lines(schema("vip"), record("vip", uid="v")), **own)
    seen = segments((1, "Gold", "a"), ("vip", "VIP", "x"), (3, "Bronze", "c"))
    assert 3 == seen.report.exit_code
    assert ({"a"}, {"c"}) == (members(emulator, "1"), members(emulator, "3"))
    assert {"v"} == members(emulator, "vip")
    assert Warned("cohort_of_other_stream", "s", "vip") in warnings(caplog)
    (message,) = (w.message for w in seen.report.warnings if w.code == "cohort_of_other_stream")
    assert "'sid'" in message
    assert "ledger reassign vip s" in message


def test_the_owner_in_the_same_run_goes_on(emulator, segments, tmp_path):
    """The owner's rows are delivered, whether they come before or after the fan-out's."""
    own = {"vip": {"cohort_name": "VIP"}}
    ledger = {"ledger_uri": str(tmp_path / "ledger")}
    run(emulator, lines(schema("vip"), record("vip", uid="v")), cohorts=own, **ledger)
    vip = [schema("vip"), record("vip", uid="v"), record("vip", uid="w")]
    fan = [
        schema("s", ("uid", "sid", "sname")),
        record("s", uid="x", sid="vip", sname="VIP"),
        record("s", uid="a", sid="1", sname="Gold"),
    ]
    for messages in (vip + fan, fan + vip):
        options = {"cohorts": FAN_OUT | own, "sync_mode": segments.mode, **ledger}
        seen = run(emulator, lines(*messages), **options)
        assert 3 == seen.report.exit_code
        assert {"v", "w"} == members(emulator, "vip")
        assert {"a"} == members(emulator, "1")
        statuses = {(each.stream, each.cohort_id): each.status for each in seen.report.cohorts}
        assert ("withheld", "succeeded") == (statuses["s", "vip"], statuses["vip", "vip"])


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("N" * 201, "invalid_cohort_name"),
        ("a:b", "invalid_cohort_name"),
        ("Gold", "duplicate_cohort_name"),
        ("\x01" * 200, "no_room_for_members"),
    ],
    ids=["long", "forbidden", "taken in this run", "no room"],
)
def test_a_wrong_name_or_size_is_withheld(emulator, segments, caplog, name, code):
    """A new cohort that MoEngage would drop, or that has no room for members, is left out."""
    small = {"max_payload_bytes": 1_000} if code == "no_room_for_members" else {}
    seen = segments((1, "Gold", "a"), (2, name, "b"), (3, "Bronze", "c"), **small)
    assert 3 == seen.report.exit_code
    assert ({"a"}, {"c"}) == (members(emulator, "1"), members(emulator, "3"))
    assert not members(emulator, "2")
    assert Warned(code, "s", "2") in warnings(caplog)
    assert "'sname'" in next(w.message for w in seen.report.warnings if w.code == code)


@pytest.mark.parametrize("is_known", [True, False])
def test_two_names_in_one_run_withhold_the_cohort(emulator, segments, is_known):
    """What was read before its second name is delivered in a stream of changes; a mirror's plan is
    not, since the rows are no whole. STATE does not pass."""
    if is_known:
        segments((2, "Silver", "b"), (1, "Gold", "a"))
    seen = segments((2, "Silver", "b1"), (2, "Grey", "b2"), (1, "Gold", "new"), (2, "Silver", "b3"))
    assert ("withheld", 3, []) == (seen.report.status, seen.report.exit_code, seen.states)
    assert "new" in members(emulator, "1")
    assert not {"b2", "b3"} & members(emulator, "2")
    if segments.mode == "mirror":
        assert ({"b"} if is_known else set()) == members(emulator, "2")


def test_no_state_passes_rows_that_a_second_name_drops(emulator, tmp_path):
    """A STATE before the second name covers rows that are delivered first."""
    rows = [record("s", uid=f"b{n}", sid="2", sname="Silver") for n in range(3)]
    messages = [schema("s", ("uid", "sid", "sname")), *rows, state(1)]
    messages += [record("s", uid="x", sid="2", sname="Grey"), state(2)]
    options = {"cohorts": FAN_OUT, "ledger_uri": str(tmp_path / "ledger")}
    first = [schema("s", ("uid", "sid", "sname")), record("s", uid="b", sid="2", sname="Silver")]
    run(emulator, lines(*first), **options)
    seen = run(emulator, lines(*messages), **options)
    assert {"b", "b0", "b1", "b2"} == members(emulator, "2")
    assert 2 not in seen.states


@pytest.mark.parametrize("segments", ["mirror"], indirect=True)
def test_a_rejected_row_makes_its_cohort_incomplete_alone(emulator, segments, caplog, tmp_path):
    """The other cohorts of a mirror remove who is gone; that one removes nobody: exit code 1."""
    skip = {"on_reject": "skip", "rejects_path": str(tmp_path / "rejects.singer")}
    rows = [(sid, name, f"{sid}-{n}") for sid, name, _ in FIRST[:3] for n in range(5)]
    segments(*rows, **skip)
    seen = segments(*rows[1:5], *rows[6:10], (2, "Silver", None), *rows[10:], **skip)
    assert {"1-1", "1-2", "1-3", "1-4"} == members(emulator, "1")
    assert 5 == len(members(emulator, "2"))
    assert ("incomplete_input", 1, []) == (seen.error.code, seen.report.exit_code, seen.states)
    complete = {each.cohort_id: (each.status, str(each.complete)) for each in seen.report.cohorts}
    assert {
        "1": ("succeeded", "end_of_input"),
        "2": ("failed", "no"),
        "3": ("succeeded", "end_of_input"),
    } == complete
    assert Warned("incomplete_after_rejects", "s", "2") in warnings(caplog)


@pytest.mark.parametrize("segments", ["mirror"], indirect=True)
def test_a_rejected_row_without_cohort_makes_the_stream_incomplete(emulator, segments, tmp_path):
    """It may have been any cohort's: nobody is removed anywhere."""
    skip = {"on_reject": "skip", "rejects_path": str(tmp_path / "rejects.singer")}
    segments(*FIRST, **skip)
    seen = segments(*FIRST[:3], (None, "Gold", "z"), **skip)
    assert {"a", "a2"} == members(emulator, "1")
    assert {"no"} == {str(each.complete) for each in seen.report.cohorts}


@pytest.mark.parametrize("segments", ["mirror"], indirect=True)
def test_rows_of_a_retired_cohort_make_no_other_incomplete(emulator, segments, tmp_path):
    """They are rejected, and the other cohorts remove who is gone; STATE passes."""
    skip = {"on_reject": "skip", "rejects_path": str(tmp_path / "rejects.singer")}
    segments(*FIRST, **skip)
    loaded = load(config(emulator, ledger_uri=str(tmp_path / "ledger"))).settings
    with open_store(loaded, run_id=str(uuid.uuid4()), wait=lambda _: False) as store:
        store.open_known("2").retire()
    seen = segments(*FIRST[:3], **skip)
    assert ({"a"}, {"b"}) == (members(emulator, "1"), members(emulator, "2"))
    assert ("succeeded", [{"n": 3}]) == (seen.report.status, seen.states)
    assert 1 == sum(each.rejected for each in seen.report.cohorts)


@pytest.mark.parametrize("segments", ["mirror"], indirect=True)
def test_a_withheld_cohort_does_not_count_as_vanished(emulator, segments):
    """A mirror of a fan-out empties cohorts without rows, but none that is withheld."""
    segments(*FIRST)
    proven = {"tap_exit": lambda: 0}
    seen = segments((1, "Gold", "a"), (1, "Gold", "a2"), (2, "Platinum", "b"), **proven)
    assert ({"b"}, set()) == (members(emulator, "2"), members(emulator, "3"))
    assert "withheld" == seen.report.status
    assert ["1", "2", "3"] == sorted(each.cohort_id for each in seen.report.cohorts)


@pytest.mark.parametrize("before", [[], [(2, "Silver", "b")]], ids=["renamed", "two names"])
def test_a_withheld_cohort_gets_no_doubts(emulator, segments, tmp_path, before):
    """What is unconfirmed of it waits until a person has confirmed its name; others' does not."""
    segments(*FIRST)
    more = [(1, "Gold", "a3"), (2, "Silver", "b3")]
    for cohort in ("1", "2"):
        emulator.drop_next(when="before", cohort_id=cohort)
    emulator.hold()  # the first lost answer stops the run, so both requests must be under way

    def release(seen, _interrupt) -> None:
        if len(seen.attempts) >= 2:
            emulator.release()

    segments(*FIRST, *more, max_retry_seconds=0, before=release)
    folder = str(tmp_path / "ledger")
    doubted = {cohort: dict(of.doubts) for cohort, of in held(emulator, folder).items()}
    assert [1, 1, 0] == [len(doubted[cohort]) for cohort in ("1", "2", "3")]
    rows = [(1, "Gold", "a"), (1, "Gold", "a2"), more[0], *before, (2, "Platinum", "b"), FIRST[2]]
    seen = segments(*rows)
    assert {"1"} == {each.body["parameters"]["cohort_id"] for each in seen.attempts}
    assert ({"a", "a2", "a3"}, {"b"}) == (members(emulator, "1"), members(emulator, "2"))
    left = held(emulator, folder)
    assert ({}, doubted["2"]) == (left["1"].doubts, left["2"].doubts)
    healed = segments(*FIRST, *more)
    assert ("succeeded", {"b", "b3"}) == (healed.report.status, members(emulator, "2"))


@pytest.mark.parametrize("before", [[], [("w", "2", "2", None)]], ids=["renamed", "two names"])
def test_a_withheld_cohort_keeps_its_aliases(emulator, segments, tmp_path, before):
    """No alias of it is removed, although no row has that anonymous ID any more."""
    columns = {**FAN_OUT["s"], "anonymous_id_column": "anon"}

    def go(*rows, **settings):
        names = ("uid", "sid", "sname", "anon")
        messages = [record("s", **dict(zip(names, row, strict=True))) for row in rows]
        options = {
            "sync_mode": segments.mode,
            "max_removal_percent": 100,
            "cohorts": {"s": columns},
        }
        options |= {"ledger_uri": str(tmp_path / "ledger"), **settings}
        return run(emulator, lines(schema("s", names), *messages), **options)

    device, named = ("a", "b"), ("u", "w")
    go(*((None, sid, sid, anon) for sid, anon in zip("12", device, strict=True)))
    go(*((uid, sid, sid, anon) for uid, sid, anon in zip(named, "12", device, strict=True)))
    seen = go(("u", "1", "1", None), *before, ("w", "2", "other", None))
    removals = [each.body for each in seen.attempts if each.body["action"] == "remove_members"]
    assert ["1"] == [each["parameters"]["cohort_id"] for each in removals]
    aliases = {
        cohort: of.aliases for cohort, of in held(emulator, str(tmp_path / "ledger")).items()
    }
    assert (0, 1) == (len(aliases["1"]), len(aliases["2"]))
    go(("u", "1", "1", None), ("w", "2", "2", None))
    assert all(not of.aliases for of in held(emulator, str(tmp_path / "ledger")).values())
