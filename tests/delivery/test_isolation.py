"""Refused members are isolated from the others."""

import json
import tempfile
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from target_moengage_cohort.core.errors import CohortError, InputError, InternalError
from target_moengage_cohort.delivery.ports import Timing
from target_moengage_cohort.emulator import Emulator
from tests.support.singer import UNLIMITED, lines, record, run, schema, state

COLUMNS = ("uid", "anonymous_id", "is_member", "cohort", "_sdc_deleted_at")


def people(count):
    return [f"user-{number:04}" for number in range(count)]


def rows(uids, **more):
    return [record(uid=uid, **more) for uid in uids]


def members(emulator, cohort="users"):
    return {member.uid for member in emulator.members(cohort)}


def kept(path):
    """The rows in a rejects file, and no SCHEMA."""
    messages = [json.loads(line) for line in path.read_bytes().splitlines()]
    return [message["record"] for message in messages if message["type"] == "RECORD"]


@pytest.fixture
def skipping(tmp_path):
    """Settings that let a run skip refused members, and keep a ledger."""
    return {
        "on_reject": "skip",
        "rejects_path": str(tmp_path / "rejects"),
        "ledger_uri": str(tmp_path / "ledger"),
    }


@pytest.fixture(scope="module")
def shared():
    """An emulator for all examples, each of which resets it."""
    with Emulator(requests_per_minute=UNLIMITED) as running:
        yield running


@settings(max_examples=25)
@given(
    poison=st.sets(st.integers(0, 59), max_size=8),
    mode=st.sampled_from(["incremental", "mirror"]),
    payload=st.sampled_from([1_000, 3_000]),
)
def test_whoever_is_refused_stands_alone_in_the_end(shared, poison, mode, payload):
    """All but the refused members are accepted, and the refused ones are in the rejects file. No
    member is unconfirmed, STATE is emitted, and requests of the cohort stay in order."""
    uids = people(60)
    bad = {uids[number] for number in poison}
    shared.reset()
    with tempfile.TemporaryDirectory() as folder:
        shared.poison(sorted(bad))
        seen = run(
            shared,
            lines(schema(), *rows(uids), state({"at": 1})),
            sync_mode=mode,
            max_payload_bytes=payload,
            on_reject="skip",
            rejects_path=f"{folder}/rejects",
            ledger_uri=f"{folder}/ledger",
        )
        (cohort,) = seen.report.cohorts
        assert {*uids} - bad == members(shared)
        assert sorted(bad) == sorted(row["uid"] for row in kept(Path(folder, "rejects")))
        assert (60 - len(bad), len(bad), 0) == (cohort.added, cohort.rejected, cohort.in_doubt)
        assert "succeeded" == seen.report.status
        assert [{"at": 1}] == seen.states
        assert 0 == seen.overlaps
        stamps = [request.timestamp for request in shared.requests()]
        assert stamps == sorted(set(stamps))


def test_the_reason_is_moengages_without_any_identifier(emulator, skipping):
    """A refused member's row has the columns of its mapping and MoEngage's reason, scrubbed."""
    emulator.poison(["user-0001"], message="No profile has {id}")
    mapping = {"cohort_id_column": "cohort", "membership_column": "is_member"}
    data = lines(
        schema(columns=COLUMNS),
        *rows(people(3), is_member=True, cohort="vip", _sdc_deleted_at=None),
    )
    run(emulator, data, cohorts={"users": mapping}, **skipping)
    (row,) = kept(Path(skipping["rejects_path"]))
    assert ("user-0001", "vip", True) == (row["uid"], row["cohort"], row["is_member"])
    assert "No profile has [redacted]" in row["_reject_reason"]
    assert "user-" not in row["_reject_reason"]


def test_a_refused_removal_can_be_replayed_as_one(emulator, skipping):
    """The rejected row of a removal is marked as a deletion."""
    run(emulator, lines(schema(), *rows(people(3))), **skipping)
    emulator.poison(["user-0001"])
    deleted = rows(people(2), _sdc_deleted_at="2026-11-22")
    run(emulator, lines(schema(columns=COLUMNS), *deleted), **skipping)
    emulator.clear_faults()
    assert {"user-0001", "user-0002"} == members(emulator)
    again = Path(skipping["rejects_path"]).rename(Path(skipping["rejects_path"] + ".singer"))
    run(emulator, again.read_bytes(), **skipping)
    assert {"user-0002"} == members(emulator)


def test_where_nothing_is_accepted_it_is_the_settings(emulator, skipping):
    """After 40 refused requests without any acceptance the run ends with MoEngage's message."""
    emulator.fail_next(
        400, 10_000, error_type="MissingAttributeError", message="partner is unknown"
    )
    streams = [f"stream-{number}" for number in range(30)]
    data = [record(stream, uid=uid) for stream in streams for uid in people(20)]
    seen = run(emulator, lines(*map(schema, streams), *data, state({"at": 1})), **skipping)
    assert isinstance(seen.error, InputError)
    assert "request_refused" == seen.error.code
    assert "MissingAttributeError: partner is unknown" in str(seen.error)
    assert 40 <= len(emulator.requests()) <= 43  # of four senders, three may be under way
    assert [] == seen.states


@pytest.mark.parametrize("mode", ["incremental", "mirror"])
@pytest.mark.parametrize("is_known", [True, False])
@pytest.mark.parametrize("names", [("good", "bad"), ("bad", "good")])
def test_a_cohort_of_which_nothing_is_accepted_fails_alone(
    emulator, skipping, mode, is_known, names
):
    """A cohort that MoEngage refuses altogether takes 40 requests, known or new, first or last; the
    other one is delivered, the run fails, and no STATE passes the refused cohort's rows."""
    options = skipping | {"sync_mode": mode, "max_payload_bytes": 2_000}
    if is_known:
        known = [record(name, uid=uid) for name in names for uid in people(3)]
        run(emulator, lines(*map(schema, names), *known), tap_exit=lambda: 0, **options)
    emulator.fail_next(400, 10_000, cohort_id="bad")
    before = [request for request in emulator.requests() if request.cohort_id == "bad"]
    parts = [
        [schema(name), *(record(name, uid=uid) for uid in people(500)), state({"at": name})]
        for name in names
    ]
    data = lines(*(message for part in parts for message in part))
    seen = run(emulator, data, tap_exit=lambda: 0, **options)
    assert isinstance(seen.error, CohortError)
    assert "request_refused" == seen.error.code
    assert "'bad'" in str(seen.error)
    assert {*people(500)} == members(emulator, "good")
    requests = [request for request in emulator.requests() if request.cohort_id == "bad"]
    assert 40 == len(requests) - len(before)
    cohorts = {cohort.cohort_id: cohort for cohort in seen.report.cohorts}
    assert ("failed", "failed", 500) == (
        seen.report.status,
        cohorts["bad"].status,
        cohorts["good"].added + cohorts["good"].unchanged,
    )
    is_passed = names[0] == "good"
    assert [{"at": "good"}] * is_passed == seen.states


def test_one_cohort_of_a_fan_out_that_is_refused_fails_alone(emulator, skipping):
    """In a fan-out, too, the other cohorts of the stream are delivered, and later rows of the
    refused one are not sent."""
    emulator.fail_next(400, 10_000, cohort_id="c3")
    mapping = {"users": {"cohort_id_column": "cohort"}}
    rows_of = [
        record(uid=uid, cohort=f"c{number % 5}") for uid in people(100) for number in range(5)
    ]
    data = lines(schema(columns=("uid", "cohort")), *rows_of, state({"at": 1}))
    options = skipping | {"cohorts": mapping, "max_payload_bytes": 1_000}
    seen = run(emulator, data, piecemeal=True, **options)
    assert "request_refused" == seen.error.code
    assert [] == seen.states
    assert 40 == len([request for request in emulator.requests() if request.cohort_id == "c3"])
    assert all({*people(100)} == members(emulator, f"c{number}") for number in (0, 1, 2, 4))


@pytest.mark.parametrize("on_reject", ["fail", "skip"])
@pytest.mark.parametrize("people_sent", [1, 90])
def test_a_refusal_that_names_the_cohort_blames_no_member(
    emulator, skipping, on_reject, people_sent
):
    """If MoEngage refuses a cohort's name, one request is sent for it and no member is rejected."""
    error = {"type": "MissingAttributeError", "message": "bad", "attribute": "cohort_name"}
    body = json.dumps({"status": "fail", "error": error})
    emulator.fail_next(400, 10_000, body=body, cohort_id="bad")
    names = ("good", "bad")
    of_all = (record(each, uid=uid) for each in names for uid in people(people_sent))
    data = lines(*map(schema, names), *of_all, state({"at": 1}))
    seen = run(emulator, data, **skipping | {"on_reject": on_reject})
    assert "request_refused" == seen.error.code
    assert ["bad"] == [each.cohort_id for each in emulator.requests() if each.status == 400]
    assert 0 == sum(cohort.rejected for cohort in seen.report.cohorts)
    assert {*people(people_sent)} == members(emulator, "good")
    assert [] == seen.states


def test_a_refused_one_time_cohort_is_not_sealed(emulator, skipping):
    """A one_time cohort of which nothing was accepted is sent again by the next run."""
    names, options = ("good", "bad"), skipping | {"sync_mode": "one_time"}
    data = lines(
        *map(schema, names), *(record(each, uid=uid) for each in names for uid in people(90))
    )
    emulator.fail_next(400, 10_000, cohort_id="bad")
    seen = run(emulator, data, tap_exit=lambda: 0, **options)
    assert "request_refused" == seen.error.code
    emulator.clear_faults()
    again = run(emulator, data, tap_exit=lambda: 0, **options)
    assert again.error is None
    assert {*people(90)} == members(emulator, "bad")


def test_the_only_cohort_of_a_configuration_ends_the_run(emulator, skipping):
    """If every configured cohort is refused altogether, the run ends before the end of input."""
    emulator.fail_next(400, 10_000)
    mapping = {"users": {"cohort_id": "only"}}
    data = lines(schema(), *rows(people(500)), state({"at": 1}))
    options = skipping | {"cohorts": mapping, "max_payload_bytes": 1_000}
    seen = run(emulator, data, **options)
    assert isinstance(seen.error, InputError)
    assert "request_refused" == seen.error.code
    assert 40 == len(emulator.requests())
    assert [] == seen.states


@pytest.mark.parametrize("first", [0, 475], ids=["in front", "behind"])
def test_many_who_are_refused_stand_together_and_keep_nobody_out(emulator, skipping, first):
    """25 adjacent refused members keep no other member out, wherever they are. A later run of a
    mirror, which has nothing else to send, does not fail because of them."""
    uids = people(500)
    bad = uids[first : first + 25]
    emulator.poison(bad)
    options = skipping | {"sync_mode": "mirror"}
    for _ in range(2):
        seen = run(emulator, lines(schema(), *rows(uids), state({"at": 1})), **options)
        assert "succeeded" == seen.report.status
        assert [{"at": 1}] == seen.states
    assert {*uids} - {*bad} == members(emulator)


def test_isolation_ends_with_the_time_for_retries(emulator, skipping):
    """If MoEngage refuses every request for max_retry_seconds, the run ends."""
    uids = people(200)
    emulator.poison(uids[1:])
    now = iter(range(0, 1_000_000, 5))
    timing = Timing(clock=lambda: float(next(now)), jitter=lambda _seconds: 0.0)
    data = lines(schema(), *rows(uids))
    seen = run(emulator, data, timing, max_retry_seconds=300, flush_seconds=86_400, **skipping)
    assert isinstance(seen.error, InputError)
    assert len(emulator.requests()) < 200


def test_refusals_are_counted_whatever_their_request_ids(emulator, skipping, caplog):
    """After ten refusals for one reason no more are logged individually, despite different request
    IDs."""
    bad = people(30)
    emulator.poison(bad)
    run(emulator, lines(schema(), *rows([*people(400)])), **skipping)
    messages = [record.getMessage() for record in caplog.records]
    assert 10 == sum("row rejected: " in message for message in messages)
    assert 1 == sum(message.startswith("30 rows ") for message in messages)


def test_in_a_mirror_a_refused_member_is_tried_again(emulator, skipping):
    """A desired member that was refused is sent again by the next run, and then alone."""
    emulator.poison(["user-0003"])
    options = skipping | {"sync_mode": "mirror"}
    data = lines(schema(), *rows(people(9)))
    run(emulator, data, **options)
    emulator.clear_faults()
    seen = run(emulator, data, **options)
    assert [["user-0003"]] == [
        [member["uid"] for member in one.body["parameters"]["members"]] for one in seen.attempts
    ]
    assert {*people(9)} == members(emulator)


@pytest.mark.parametrize("mode", ["mirror", "one_time"])
def test_replayed_rows_are_no_snapshot(emulator, skipping, mode):
    """Replayed rows of a snapshot stream are additions and remove no members: neither missing ones,
    nor those whose row is deleted or marks a non-member."""
    options = skipping | {
        "cohorts": {"users": {"sync_mode": mode, "membership_column": "is_member"}},
        "max_removal_percent": 100,
    }
    emulator.poison(["user-0003"])
    data = [schema(columns=COLUMNS), *rows(people(9), is_member=True, _sdc_deleted_at=None)]
    run(emulator, lines(*data), tap_exit=lambda: 0, **options)
    emulator.clear_faults()
    again = Path(skipping["rejects_path"]).rename(Path(skipping["rejects_path"] + ".singer"))
    replay = again.read_bytes() + lines(
        record(uid="user-0001", is_member=False, _reject_reason="x"),
        record(uid="user-0002", is_member=True, _sdc_deleted_at="2026-11-22", _reject_reason="x"),
    )
    seen = run(emulator, replay, tap_exit=lambda: 0, **options)
    assert seen.error is None
    assert {*people(9)} == members(emulator)


@pytest.mark.parametrize("replayed_first", [True, False])
def test_rejected_rows_beside_others_of_a_snapshot_are_refused(emulator, skipping, replayed_first):
    """Rows that were rejected once cannot be in one input with the rows of their snapshot."""
    both = [
        [schema(), *rows(people(3))],
        [schema(columns=(*COLUMNS, "_reject_reason")), *rows(people(1))],
    ]
    data = lines(*(message for part in both[:: -1 if replayed_first else 1] for message in part))
    seen = run(emulator, data, sync_mode="mirror", **skipping)
    assert isinstance(seen.error, InputError)
    assert "replay_mixed_with_rows" == seen.error.code


@pytest.mark.parametrize(
    "stream_map",
    [{"uid": "uid"}, {"uid": "'p-' + uid"}, {"uid": "uid", "__else__": None}],
    ids=["same", "prefix", "nothing else"],
)
def test_stream_maps_are_applied_to_a_row_once(emulator, skipping, stream_map):
    """A row that was refused after stream maps is replayed as they made it, and a row that was
    rejected before them passes through them; both are additions."""
    options = skipping | {"stream_maps": {"users": stream_map}, "sync_mode": "mirror"}
    uids = people(9)
    made = {f"p-{uid}" if "+" in stream_map["uid"] else uid for uid in uids}
    bad = sorted(made)[3]
    emulator.poison([bad])
    with_odd = [*rows(uids), record(uid=["odd"])]
    run(emulator, lines(schema(columns=("uid", "n")), *with_odd), tap_exit=lambda: 0, **options)
    emulator.clear_faults()
    assert made - {bad} == members(emulator)
    again = Path(skipping["rejects_path"]).rename(Path(skipping["rejects_path"] + ".singer"))
    data = again.read_bytes().replace(b'["odd"]', b'"user-0001"')
    options |= {"max_removal_percent": 100}
    seen = run(emulator, data, tap_exit=lambda: 0, **options)
    assert seen.error is None
    assert made == members(emulator)


def test_a_replay_into_a_new_cohort_is_known_to_the_mirror(emulator, skipping):
    """The next mirror removes a member that was replayed into a cohort without a ledger."""
    del skipping["ledger_uri"]
    options = skipping | {
        "cohorts": {"users": {"sync_mode": "mirror", "cohort_id_column": "cohort"}},
        "max_removal_percent": 100,
    }
    columns = ("uid", "cohort", "_reject_reason")
    replay = lines(schema(columns=columns), record(uid="late", cohort="new", _reject_reason="x"))
    run(emulator, replay, **options)
    assert {"late"} == members(emulator, "new")
    mirror = lines(schema(columns=("uid", "cohort")), record(uid="other", cohort="new"))
    run(emulator, mirror, tap_exit=lambda: 0, **options)
    assert {"other"} == members(emulator, "new")


def test_a_new_mirror_rejects_nobody_twice(emulator, skipping):
    """A member of a new mirror that MoEngage refuses is rejected once."""
    uids = people(300)
    emulator.poison(uids[3:5])
    options = skipping | {"sync_mode": "mirror", "max_payload_bytes": 1_000, "piecemeal": True}
    seen = run(emulator, lines(schema(), *rows(uids)), **options)
    assert 2 == len(kept(Path(skipping["rejects_path"])))
    assert (298, 2) == (seen.report.cohorts[0].added, seen.report.cohorts[0].rejected)


def test_a_member_too_large_for_moengage_is_rejected_alone(skipping):
    """A single member that gets a 413 is rejected like a refused one."""
    with Emulator(requests_per_minute=UNLIMITED, max_payload_bytes=500) as emulator:
        data = lines(schema(), record(uid="x" * 600), *rows(people(30)), state({"at": 1}))
        seen = run(emulator, data, **skipping)
        assert seen.error is None
        assert [{"at": 1}] == seen.states
        assert {*people(30)} == members(emulator)
        (row,) = kept(Path(skipping["rejects_path"]))
        assert "x" * 600 == row["uid"]


def test_a_415_is_our_fault(emulator):
    """A request that MoEngage rejects as malformed is not blamed on any row."""
    emulator.fail_next(415, 1_000)
    seen = run(emulator, lines(schema(), *rows(people(9))))
    assert isinstance(seen.error, InternalError)
    assert "malformed_request" == seen.error.code
    assert 1 == len(emulator.requests())
