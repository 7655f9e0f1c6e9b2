"""A refusal after an attempt that may have been applied: the members stay in doubt."""

from pathlib import Path

import pytest

from target_moengage_cohort.core.errors import InputError
from target_moengage_cohort.ledger.engines import open_store
from target_moengage_cohort.settings import load
from tests.delivery.test_isolation import kept, members, people, rows
from tests.delivery.test_isolation import skipping as skipping  # noqa: PLC0414 - a fixture
from tests.support.singer import config, lines, record, run, schema, state

GONE = {"_sdc_deleted_at": "2026-11-22T04:00:00Z"}


def refusing(emulator, uids, start=2):
    """Return a callback that has members refused from the run's attempt number `start` on."""

    def before(seen, _interrupt) -> None:
        if len(seen.attempts) == start:
            emulator.poison(uids)

    return before


def doubted(seen):
    return seen.report.cohorts[0].in_doubt


def test_a_refusal_after_an_answer_that_was_lost_leaves_the_doubt(emulator, skipping):
    """The members of a request that was applied without an answer, and refused when it was sent
    again, stay in doubt as far as they are refused alone; the parts that are accepted do not."""
    uids = people(9)
    bad = [uids[2], uids[7]]
    emulator.drop_next(1, "after")
    data = lines(schema(), *rows(uids), state({"at": 1}))
    seen = run(emulator, data, before=refusing(emulator, bad), **skipping)
    (cohort,) = seen.report.cohorts
    assert (None, 2, 2, 7) == (seen.error, cohort.in_doubt, cohort.rejected, cohort.added)
    assert [{"at": 1}] == seen.states
    assert {*uids} == members(emulator)  # so it is right not to take them for refused


@pytest.mark.parametrize("mode", ["incremental", "mirror"])
def test_a_doubt_that_is_refused_later_is_removed_in_the_end(emulator, skipping, mode):
    """Refused alone in a later run, a doubt goes to the rejects file once, with its code, and the
    run after that removes the member."""
    options = skipping | {"sync_mode": mode, "max_removal_percent": 100}
    emulator.drop_next(1, "after")
    every, others = people(4), people(4)[1:]
    bad = every[0]
    run(emulator, lines(schema(), *rows(every)), before=refusing(emulator, [bad]), **options)
    assert {*every} == members(emulator)
    path = Path(skipping["rejects_path"])
    assert 1 == len(kept(path))

    def next_run(uids):
        return run(emulator, lines(schema(), *rows(uids)), tap_exit=lambda: 0, **options)

    second = next_run(every if mode == "mirror" else others)
    assert (None, 1) == (second.error, doubted(second))
    _, row = kept(path)
    assert bad == row["uid"]
    assert row["_reject_reason"].startswith("doubt_refused: ")
    emulator.clear_faults()
    third = next_run(others)
    assert (None, 0) == (third.error, doubted(third))
    assert ["remove_members"] == [each.body["action"] for each in third.attempts]
    assert {*others} == members(emulator)
    assert 2 == len(kept(path))


def test_a_removal_that_is_refused_again_and_again_is_reported_once(emulator, skipping, caplog):
    """A member to be removed whose removal is refused, too, stays in doubt. Each run says so, and
    none writes another row or fails."""
    emulator.drop_next(1, "after")
    data = lines(schema(), *rows(people(2)))
    run(emulator, data, before=refusing(emulator, people(1)), **skipping)
    for _ in range(3):
        caplog.clear()
        seen = run(emulator, lines(schema(), *rows(["other"])), **skipping)
        assert (None, 1) == (seen.error, doubted(seen))
    assert "doubt_refused" in {getattr(each, "code", None) for each in caplog.records}
    assert 2 == len(kept(Path(skipping["rejects_path"])))


def test_a_doubted_removal_that_is_refused_is_reported_once(emulator, skipping):
    """The same holds for a removal that may have been applied."""
    run(emulator, lines(schema(), *rows(people(3))), **skipping)
    emulator.fail_next(502, 1)
    columns = ("uid", "_sdc_deleted_at")
    data = lines(schema(columns=columns), record(uid="user-0001", **GONE))
    first = run(emulator, data, before=refusing(emulator, ["user-0001"]), **skipping)
    assert (None, 1) == (first.error, doubted(first))
    again = run(emulator, lines(schema(), *rows(people(1))), **skipping)
    assert (None, 1) == (again.error, doubted(again))
    emulator.clear_faults()
    last = run(emulator, lines(schema(), *rows(people(1))), **skipping)
    assert (None, 0) == (last.error, doubted(last))
    assert {"user-0000", "user-0002"} == members(emulator)
    reasons = [row["_reject_reason"] for row in kept(Path(skipping["rejects_path"]))]
    assert [False, True] == [reason.startswith("doubt_refused: ") for reason in reasons]


def test_where_a_rejection_fails_the_run_a_refused_doubt_fails_one(emulator, skipping):
    """With on_reject: fail, a doubt that is refused later fails one run, and the next one removes
    the member."""
    options = skipping | {"on_reject": "fail"}
    emulator.fail_next(503)
    first = run(
        emulator, lines(schema(), *rows(people(1))), before=refusing(emulator, people(1)), **options
    )
    assert isinstance(first.error, InputError)
    assert 1 == doubted(first)
    data = lines(schema(), *rows(["good"]))
    second = run(emulator, data, **options)
    assert "doubt_refused" == second.error.code
    emulator.clear_faults()
    third = run(emulator, data, **options)
    assert (None, 0) == (third.error, doubted(third))
    assert {"good"} == members(emulator)


def test_a_refusal_without_a_doubt_leaves_none(emulator, skipping):
    """A request that was only held back by a rate limit, or refused by its first answer, leaves no
    doubt."""
    emulator.fail_next(429, 2, headers={"Retry-After": "0", "x-ratelimit-reset": "0"})
    emulator.poison(people(1))
    seen = run(emulator, lines(schema(), *rows(people(3))), **skipping)
    (cohort,) = seen.report.cohorts
    assert (None, 0, 1, 2) == (seen.error, cohort.in_doubt, cohort.rejected, cohort.added)


def test_a_part_that_was_too_large_keeps_its_doubt(emulator, skipping):
    """A body that may have been applied and is then too large is sent in parts, which are in doubt
    until they are accepted."""
    emulator.fail_next(503)

    def before(seen, _interrupt) -> None:
        if len(seen.attempts) == 2:
            emulator.fail_next(413)
            emulator.poison(["user-0000"])

    seen = run(emulator, lines(schema(), *rows(people(60))), before=before, **skipping)
    (cohort,) = seen.report.cohorts
    assert (None, 1, 59) == (seen.error, cohort.in_doubt, cohort.added)


def test_without_members_the_report_counts_the_doubt(emulator, skipping):
    """Where no members are kept, the report of the run counts what may have been applied."""
    del skipping["ledger_uri"]
    emulator.drop_next(1, "after")
    bad = people(9)[3:5]
    data = lines(schema(), *rows(people(9)))
    seen = run(emulator, data, before=refusing(emulator, bad), **skipping)
    (cohort,) = seen.report.cohorts
    assert (None, 2, 7) == (seen.error, cohort.in_doubt, cohort.added)


def test_a_member_who_was_accepted_stays_though_a_repetition_is_refused(emulator, skipping):
    """Accepted, sent again after a resync, and refused alone: nobody removes that member."""
    every = people(4)
    assert run(emulator, lines(schema(), *rows(every)), **skipping).error is None
    settings = load(config(emulator, **skipping)).settings
    with open_store(settings, run_id="resync", wait=lambda _seconds: False) as ledgers:
        ledgers.open_known("users").doubt_all()
    emulator.poison([every[0]])
    again = run(emulator, lines(schema(), *rows(every)), **skipping)
    assert 1 == again.report.cohorts[0].rejected
    emulator.clear_faults()
    run(emulator, lines(schema(), *rows(every)), **skipping)
    assert {*every} == members(emulator)


def test_a_workspace_that_refuses_everything_is_not_asked_for_each_cohort(emulator, skipping):
    """Where all cohorts so far are refused, the run ends, however many are left."""
    mapping = {"cohorts": {"users": {"cohort_id_column": "c"}}, "max_new_cohorts": 200}
    uids = people(200)
    emulator.poison(uids)
    data = [record(uid=uid, c=f"c{number}") for number, uid in enumerate(uids)]
    seen = run(emulator, lines(schema(columns=("uid", "c")), *data), **skipping | mapping)
    assert "request_refused" == seen.error.code
    assert len(seen.attempts) < 60


def test_the_mode_add_finishes_a_removal_and_makes_none(emulator, skipping):
    """A removal without an answer is sent again in the mode add. A member whose addition was
    refused after it may have been applied is removed by the next run in another mode only."""
    every, columns = people(4), ("uid", "_sdc_deleted_at")
    gone, bad = every[0], every[1]
    run(emulator, lines(schema(), *rows(every[:1] + every[2:])), **skipping)
    emulator.drop_next(1, "before")
    lost = skipping | {"max_retry_seconds": 0}
    assert run(emulator, lines(schema(columns=columns), record(uid=gone, **GONE)), **lost).error
    emulator.drop_next(1, "after")
    refused = refusing(emulator, [bad])
    run(emulator, lines(schema(), record(uid=bad)), before=refused, **skipping)
    run(emulator, lines(schema(), record(uid=bad)), **skipping)  # refused alone, so to be removed
    emulator.clear_faults()
    adds = run(emulator, lines(schema(), *rows(every[2:])), **skipping, sync_mode="add")
    assert (None, 1, {*every[1:]}) == (adds.error, doubted(adds), members(emulator))
    last = run(emulator, lines(schema(), *rows(every[2:])), **skipping)
    assert (None, 0, {*every[2:]}) == (last.error, doubted(last), members(emulator))
