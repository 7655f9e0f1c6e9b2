"""`moengage-cohort empty` against the emulator."""

from target_moengage_cohort.core.membership import Member
from target_moengage_cohort.ledger.records import PlanKind
from tests.cli.conftest import PLANTED, people


def test_empty_removes_all_members(desk):
    """empty asks for confirmation, removes all members, and discards the cohort's plans."""
    desk.fill("vip", people(*range(50)))
    desk.plan("vip", people(1), kind=PlanKind.WITHHELD)
    refused = desk.run("empty", "vip", text="n\n")
    assert 1 == refused.exit_code
    assert "Remove 50 members from cohort 'vip'?" in refused.stderr
    assert 50 == len(desk.there("vip"))
    result = desk.run("empty", "vip", "--yes")
    first, after = result.stdout.splitlines()
    assert (0, "cohort 'vip': 50 of 50 removals accepted") == (result.exit_code, first)
    assert "stream 'vip'" in after
    assert f"ledger retire vip --config {desk.folder}" in after
    assert set() == desk.there("vip") == desk.accepted("vip")
    with desk.ledger("vip") as ledger:
        assert [] == ledger.plans()
    assert "0 of 0 removals accepted" in desk.run("empty", "vip").stdout


def test_empty_removes_members_in_doubt(desk):
    """Members in doubt are also removed, in bodies within the limit."""
    desk.raw["max_payload_bytes"] = 1_000
    desk.fill("vip", people(*range(100)))
    desk.run("resync", "vip")
    assert "100 of 100 removals accepted" in desk.run("empty", "vip", "--yes").stdout
    assert set() == desk.there("vip") == desk.accepted("vip")
    assert 1_000 >= max(request.bytes for request in desk.removals())


def test_empty_removes_aliases(desk):
    """An anonymous member that went with a uid later is removed, even if the uid is not there."""
    device = Member(None, f"{PLANTED}device")
    desk.fill("vip", [device])
    desk.fill("vip", [Member(f"{PLANTED}1", device.anonymous_id)])
    assert 2 == len(desk.there("vip"))
    assert 0 == desk.run("empty", "vip", "--yes").exit_code
    assert set() == desk.there("vip")
    with desk.ledger("vip") as ledger:
        assert [] == list(ledger.aliases())


def test_empty_continues_after_a_rejected_removal(desk):
    """If MoEngage rejects a removal, empty exits with 1, and all other members are removed."""
    whom = people(*range(20))
    desk.fill("vip", whom)
    desk.emulator.poison([whom[3].uid])
    result = desk.run("empty", "vip", "--yes")
    assert 1 == result.exit_code
    assert "Error: MoEngage rejected 1 member of cohort 'vip' (" in result.stderr
    assert "); all others were sent\n" in result.stderr
    assert {whom[3]} == desk.accepted("vip") == desk.there("vip")
