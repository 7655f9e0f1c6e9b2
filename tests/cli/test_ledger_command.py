"""`moengage-cohort ledger reassign` and `ledger rename` with real ledgers."""

from target_moengage_cohort.core.membership import Cohort
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
    assert "cohort_name: " in invalid.stderr
    assert "; MoEngage may silently drop such a name, so choose another one" in invalid.stderr
    taken = desk.run("ledger", "rename", "vip", "Others")
    assert 1 == taken.exit_code
    assert "cohort 'other' already has the name 'Others'" in taken.stderr
    result = desk.run("ledger", "rename", "vip", "VIP users")
    assert 0 == result.exit_code
    assert "MoEngage does not document what happens to a segment" in result.stdout
    with desk.ledger("vip") as ledger:
        assert "VIP users" == ledger.entry.name
