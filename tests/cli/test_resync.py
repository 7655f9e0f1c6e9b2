"""`moengage-cohort resync` against the emulator."""

from target_moengage_cohort.ledger.records import PlanKind
from tests.cli.conftest import people


def test_resync_doubts_the_named_cohorts(desk):
    """resync marks all members of the named cohorts as unconfirmed; their plans are outdated and
    can only be approved for the next run, which removes no members now."""
    desk.fill("vip", people(1, 2))
    desk.fill("other", people(1))
    desk.plan("vip", people(1), kind=PlanKind.WITHHELD)
    result = desk.run("resync", "vip")
    assert 0 == result.exit_code
    assert result.stdout.startswith("cohort 'vip': ")
    assert "2 members" in result.stdout
    assert (2, 2) == desk.counts("vip")
    assert (1, 0) == desk.counts("other")
    sent = len(desk.emulator.requests())
    assert 0 == desk.run("confirm", "--withheld", "plan-withheld-vip").exit_code
    assert (2, 2) == desk.counts("vip")
    assert sent == len(desk.emulator.requests())


def test_resync_of_all_asks_for_confirmation(desk):
    """Without a name, resync takes all cohorts, after asking for confirmation."""
    desk.fill("vip", people(1, 2))
    desk.fill("other", people(1))
    refused = desk.run("resync", text="n\n")
    assert 1 == refused.exit_code
    assert "Re-send all members of 2 cohorts?" in refused.stderr
    assert (2, 0) == desk.counts("vip")
    assert 0 == desk.run("resync", text="y\n").exit_code
    assert (2, 2) == desk.counts("vip")
    assert (1, 1) == desk.counts("other")
    assert 0 == desk.run("resync", "--yes").exit_code


def test_resync_lifts_the_seal_of_a_cohort(desk):
    """The next run also sends a sealed one_time cohort again."""
    desk.fill("vip", people(1))
    with desk.ledger("vip") as ledger:
        ledger.seal()
    assert "1 member" in desk.run("resync", "vip").stdout
    with desk.ledger("vip") as ledger:
        assert not ledger.is_sealed


def test_resync_of_an_unknown_cohort_changes_nothing(desk):
    """If one cohort is unknown, resync names a similar one and changes nothing."""
    desk.fill("customers", people(1))
    result = desk.run("resync", "customers", "custmers")
    assert 1 == result.exit_code
    assert "'custmers'" in result.stderr
    assert "did you mean 'customers'?" in result.stderr
    assert (1, 0) == desk.counts("customers")


def test_resync_without_a_ledger_does_nothing(desk):
    """If the partner has no ledgers, resync says so and exits with 0."""
    result = desk.run("resync")
    assert 0 == result.exit_code
    assert "No ledgers for partner 'acme' in " in result.stdout
