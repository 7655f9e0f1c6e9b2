"""`moengage-cohort status --max-age`: which cohorts are fresh."""

import json
import time

from tests.cli.conftest import Desk, people
from tests.support.singer import lines, record, run, schema, state

HOUR = 3_600
FAN = {"users": {"cohort_id_column": "cohort"}}


def age(desk: Desk, *options: str, hours: float = 0) -> tuple[int, dict[str, bool]]:
    """Return the exit code, and which cohorts are fresh, so many hours from now."""
    clock = lambda: time.time() + hours * HOUR  # noqa: E731
    result = desk.run("status", "--max-age", "26h", "--json", *options, clock=clock)
    assert result.exit_code in {0, 6}, result.output
    shown = json.loads(result.stdout)
    assert shown["fresh"] is (result.exit_code == 0)
    line = desk.run("status", "--max-age", "26h", *options, clock=clock)
    assert (result.exit_code, 1) == (line.exit_code, len(line.stdout.splitlines()))
    return result.exit_code, {each["cohort_id"]: each["fresh"] for each in shown["cohorts"]}


def sync(desk: Desk, *messages, **options):
    settings = {"ledger_uri": desk.raw["ledger_uri"]} | options
    return run(desk.emulator, lines(*messages), **settings)


def fan(*cohorts: str) -> list[dict]:
    rows = [record(uid="u1", cohort=cohort) for cohort in cohorts]
    return [schema(columns=("uid", "cohort")), *rows]


def test_a_cohort_is_fresh_for_so_long(desk, place):
    """With either engine a cohort is fresh until its last successful sync is longer ago; a time far
    in the future is not fresh, and a failed run renews nothing."""
    desk.raw["ledger_uri"] = place.uri
    assert (6, {}) == age(desk)
    sync(desk, schema(), record(uid="u1"))
    assert (0, {"users": True}) == age(desk, hours=25)
    assert (6, {"users": False}) == age(desk, hours=27)
    assert (6, {"users": False}) == age(desk, hours=-27)
    desk.run("pause", "users")
    stale = desk.run("status", "--max-age", "1s", clock=lambda: time.time() + 60)
    assert "users (1 minute ago, paused)" in stale.stdout


def test_only_what_was_accepted_is_fresh(desk):
    """A run that fails, is withheld, is cut or replays rejected rows renews nothing."""
    mirror = {"sync_mode": "mirror"}
    everybody = [record(uid=f"u{number}") for number in range(100)]
    desk.raw["cohorts"] = {"users": mirror}
    assert (6, {"users": False}) == age(desk)
    withheld = {"removals": "proven", "cohorts": desk.raw["cohorts"]}
    sync(desk, schema(), *everybody, cohorts=desk.raw["cohorts"])
    with desk.ledgers() as ledgers, ledgers._ready().database.change("test") as transaction:  # noqa: SLF001
        transaction.run("UPDATE cohorts SET synced_at = 5")
    sync(desk, schema(), *everybody[1:], **withheld)
    sync(desk, schema(), *everybody, record(uid=True), cohorts=desk.raw["cohorts"])
    bad = desk.emulator
    bad.fail_next(401, 50)
    assert sync(desk, schema(), *everybody, record(uid="new"), cohorts=desk.raw["cohorts"]).error
    bad.clear_faults()
    assert (6, {"users": False}) == age(desk)
    sync(desk, schema(), *everybody, cohorts=desk.raw["cohorts"])
    assert (0, {"users": True}) == age(desk)


def test_a_confirmed_plan_makes_its_cohort_fresh(desk):
    """Removals that wait or are withheld are not fresh before they are confirmed, and then as of
    the run that planned them."""
    desk.raw["cohorts"] = {"users": {"sync_mode": "mirror", "removals": "deferred"}}
    options = {"cohorts": desk.raw["cohorts"]}
    rows = [record(uid=f"u{number}") for number in range(30)]
    sync(desk, schema(), *rows, **options)
    with desk.ledgers() as ledgers, ledgers._ready().database.change("test") as transaction:  # noqa: SLF001
        transaction.run("UPDATE cohorts SET synced_at = 5")
    sync(desk, schema(), *rows[1:], **options)
    assert (6, {"users": False}) == age(desk)
    assert 0 == desk.run("confirm", "users").exit_code
    assert (0, {"users": True}) == age(desk)


def test_a_fan_out_is_fresh_as_a_whole(desk):
    """A cohort without rows is as fresh as its stream; one that is withheld is not."""
    options = {"cohorts": FAN}
    desk.raw |= options
    assert (6, {"users": False}) == age(desk)
    sync(desk, *fan("a", "b"), **options)
    with desk.ledgers() as ledgers, ledgers._ready().database.change("test") as transaction:  # noqa: SLF001
        transaction.run("UPDATE cohorts SET synced_at = 5")
    sync(desk, *fan("a"), state(1), **options)
    assert (0, {"a": True, "b": True}) == age(desk)


def test_sealed_and_retired_cohorts_do_not_count(desk):
    """A ledger with sealed and retired cohorts only is fresh; one that was never synced is not."""
    desk.fill("old", people(1))
    assert (6, {"old": False}) == age(desk)
    with desk.ledger("old") as ledger:
        ledger.retire()
    desk.fill("once", people(1))
    with desk.ledger("once") as ledger:
        ledger.seal()
    assert (0, {}) == age(desk, hours=900)
    assert (0, {}) == age(desk, "once", "old")


def test_only_the_named_cohorts_count(desk):
    """With a COHORT only that one counts; an unknown one, a COHORT without --max-age and a bad span
    are wrong usage."""
    desk.fill("never", people(1))
    sync(desk, schema(), record(uid="u1"))
    assert (0, {"users": True}) == age(desk, "users")
    assert (6, {"users": True, "never": False}) == age(desk)
    for wrong in (("--max-age", "1h", "x"), ("users",), ("--max-age", "26"), ("--max-age", "-1h")):
        assert 2 == desk.run("status", *wrong).exit_code
