"""`moengage-cohort ledger reassign` and `ledger rename` with real ledgers."""

from target_moengage_cohort.core.membership import Cohort
from target_moengage_cohort.ledger.records import PlanKind
from tests.cli.conftest import people


def test_reassign_changes_the_stream(desk):
    """ledger reassign lets another stream populate a cohort, and keeps the accepted members."""
    desk.fill("vip", people(1), stream="old")
    desk.raw["cohorts"] = {"new": {"cohort_id": "vip"}, "one": {}}
    assert 1 == desk.run("ledger", "reassign", "vip", "old").exit_code
    assert 1 == desk.run("ledger", "reassign", "vip", "one").exit_code
    result = desk.run("ledger", "reassign", "vip", "new")
    assert 0 == result.exit_code
    assert "now belongs to stream 'new', no longer to 'old'" in result.stdout
    again = desk.run("ledger", "reassign", "vip", "new")
    assert (0, True) == (again.exit_code, "already belongs to stream 'new'" in again.stdout)
    with desk.ledgers() as ledgers:
        ledger = ledgers.open(Cohort("vip", "vip"), "new")
        assert 1 == ledger.numbers().accepted.count


def test_rename_changes_the_name(desk):
    """ledger rename checks the name by MoEngage's rules, and warns of undocumented behaviour."""
    desk.fill("vip", people(1))
    desk.fill("other", people(1), name="Others")
    invalid = desk.run("ledger", "rename", "vip", ".x")
    assert 1 == invalid.exit_code
    assert "Error: NAME: must not start with a period" in invalid.stderr
    taken = desk.run("ledger", "rename", "vip", "Others")
    assert 1 == taken.exit_code
    assert "cohort 'other' already has the name 'Others'" in taken.stderr
    result = desk.run("ledger", "rename", "vip", "VIP users")
    assert 0 == result.exit_code
    assert "MoEngage does not document what happens to a segment" in result.stdout
    with desk.ledger("vip") as ledger:
        assert "VIP users" == ledger.entry.name


def test_reassign_moves_all_cohorts_of_a_stream(desk):
    """reassign --from moves all cohorts of a renamed stream, can be repeated, and is one command of
    the history; a busy stream, a wrong one and another cohort's mapping change nothing."""
    desk.fill("vip", people(1, 2), stream="old")
    desk.fill("gold", people(1), stream="old")
    plan = desk.plan("vip", people(1), kind=PlanKind.WITHHELD)
    command = ("ledger", "reassign", "--from", "old", "new")
    desk.raw["cohorts"] = {"new": {"cohort_id": "other"}}
    assert 1 == desk.run(*command).exit_code
    del desk.raw["cohorts"]
    assert 1 == desk.run("ledger", "reassign", "--from", "none", "new").exit_code
    assert 1 == desk.run("ledger", "reassign", "--from", "old", "old").exit_code
    assert 2 == desk.run("ledger", "reassign", "--from", "old", "vip", "new").exit_code
    for busy in ("old", "new"):
        with desk.ledgers() as ledgers:
            ledgers.take(busy)
            assert 4 == desk.run(*command).exit_code
    assert "Moved 2 cohorts " in desk.run(*command).stdout
    again = desk.run(*command)
    assert (0, True) == (again.exit_code, "no cohorts left" in again.stdout)
    with desk.ledgers() as ledgers:
        assert ["gold", "vip"] == [entry.cohort_id for entry in ledgers.entries("new")]
        assert [{"cohorts": 2, "members": 3}] == [
            each.counts for each in ledgers.history() if each.kind == "reassign"
        ]
    assert 0 == desk.run("confirm", "--withheld", plan).exit_code
    assert {*people(1)} == desk.there("vip")
