"""What `moengage-cohort verify` must not claim: at the bounds of samples, limits and quotas."""

import pytest

from target_moengage_cohort.core.membership import Action
from tests.cli.conftest import people, person
from tests.cli.test_verify import exported, observe
from tests.cli.test_verify import office as office  # noqa: PLC0414 - a fixture
from tests.cli.test_verify import start as start  # noqa: PLC0414 - a fixture


def unconfirmed(office):
    office.fill("vip", people(1, 2, 3))
    assert 0 == office.run("resync", "vip").exit_code
    return 3


def anonymous(office):
    office.fill("vip", [person(4, "anonymous_id"), person(5, "anonymous_id")])
    return 2


@pytest.mark.parametrize("fill", [unconfirmed, anonymous])
def test_members_of_whom_none_can_be_sampled_are_unknown(office, fill):
    """If all members are unconfirmed, or have no uid, nothing is known of them."""
    count = fill(office)
    code, result, findings = office.one("vip")
    assert (1, "unknown", []) == (code, result["status"], findings)
    assert ("nothing_sampled", count) == (result["unknown"]["code"], result["unsampled"])
    assert f"not in the sample: {count}" in office.run("verify", "vip").stdout


def test_members_in_no_sample_are_counted(office):
    """If some members can be sampled, the number of the others is shown."""
    office.fill("vip", [*people(1, 2, 3), person(4, "anonymous_id")])
    code, result, findings = office.one("vip")
    assert (0, [], 1) == (code, findings, result["unsampled"])


def reasons(results):
    return {name: (each["unknown"] or {}).get("code") for name, each in results.items()}


def queries(office):
    return [each.endpoint for each in office.emulator.apis.calls()].count("query")


@pytest.fixture
def many(office):
    """Forty cohorts, and the settings' own patience: in an hour, 33 can be asked about."""
    del office.raw["max_retry_seconds"]
    for number in range(40):
        office.fill(f"c{number}", people(1))
    return office


def test_the_cohorts_verified_longest_ago_come_first(many):
    """Those for whom an hour's limit has no room are unknown, and the next command asks about them
    first; the order of the output stays."""
    code, results = many.verify()
    assert (1, {None, "rate_limited"}) == (code, {*reasons(results).values()})
    left = [name for name, reason in reasons(results).items() if reason]
    assert 7 <= len(left) <= 8
    many.clock.advance(3_600)
    code, later = many.verify()
    assert 1 == code
    assert [*results] == [*later]
    assert {None} == {reasons(later)[name] for name in left}
    assert {*left}.isdisjoint(name for name, reason in reasons(later).items() if reason)


def test_the_rest_is_asked_about_while_there_is_time(many):
    """With --wait, cohorts for whom an hour's limit had no room are asked about when it has."""
    code, results = many.verify("--wait", "240")
    assert (0, {None}) == (code, {*reasons(results).values()})


def test_a_finding_stays_if_the_quota_ends(start):
    """If MoEngage says nothing more during --wait, what it said before is still reported."""
    office = start(monthly_queries=1)
    office.fill("vip", people(*range(10)))
    office.know(*range(10))
    office.emulator.apis.put_members("vip", "remove_members", [person(1).uid])
    code, result, findings = office.one("vip", "--wait", "5")
    assert (6, "wrong", ["missing"]) == (code, result["status"], findings)
    assert ("quota_exceeded", 9) == (result["unknown"]["code"], result["size"])


def test_no_query_begins_after_the_time(start):
    """Once the minutes of --wait are over, no other cohort is asked about again."""
    office = start(query_seconds=150)
    for name in ("a", "b"):
        office.fill(name, people(1, 2))
        office.emulator.apis.put_members(name, "remove_members", [person(1).uid])
    office.know(1, 2)
    code, results = office.verify("--wait", "6")
    assert (6, ["wrong", "wrong"]) == (code, [each["status"] for each in results.values()])
    assert 3 == queries(office)


def test_unprocessed_removals_are_no_strangers(start):
    """While removals wait, more of them than the ledger keeps may be in the segment. Afterwards
    users whom the others may explain are unknown, and strangers beyond them are found."""
    office = start(processing_seconds=300)
    everyone = people(*range(5_000))
    office.fill("vip", everyone)
    office.clock.advance(300)
    office.change("vip", (Action.REMOVE, everyone[1_000:]))
    assert (6, ["removed_still_in"]) == office.one("vip")[::2]
    office.clock.advance(300)
    assert (0, []) == office.one("vip")[::2]
    strangers = [f"s{each}" for each in range(1_100)]  # and 1,000 removals are not kept
    office.emulator.apis.put_members("vip", "add_members", strangers[:100])
    code, result, findings = office.one("vip")
    assert (1, [], "removals_not_kept") == (code, findings, result["unknown"]["code"])
    office.emulator.apis.put_members("vip", "add_members", strangers)
    assert (6, ["strangers"]) == office.one("vip")[::2]


def test_lost_removals_that_are_not_kept_are_no_strangers(office):
    """If MoEngage has lost removals that are followed by as many as the ledger keeps, nobody knows
    who these users are."""
    everyone = people(*range(3_100))
    office.fill("vip", everyone)
    for removed in (everyone[:50], everyone[50:3_050]):
        office.change("vip", (Action.REMOVE, removed))
    office.lose(Action.REMOVE, *range(50))
    code, result, findings = office.one("vip")
    assert (1, [], "removals_not_kept") == (code, findings, result["unknown"]["code"])
    assert "strangers" in office.run("verify", "vip").stdout
    code, result, findings = observe(office, exported(*range(50), *range(3_050, 3_100)))
    assert (6, ["strangers"], 50) == (code, findings, result["observed"]["strangers"])
    assert "up to 50 " in result["findings"][0]["message"]


def test_an_answer_that_explains_less_replaces_a_finding(office):
    """With --wait, members who are no longer missing are no finding, though the latest answer
    leaves open who other users are."""
    everyone = people(*range(3_100))
    office.fill("vip", everyone)
    for removed in (everyone[:50], everyone[50:3_050]):
        office.change("vip", (Action.REMOVE, removed))
    office.lose(Action.REMOVE, *range(50))
    office.lose(Action.ADD, 3_060)
    office.know(*range(3_100))
    office.before_wait = lambda: office.lose(Action.REMOVE, 3_060)
    code, result, findings = office.one("vip", "--wait", "1")
    assert (1, "unknown", []) == (code, result["status"], findings)
    assert (None, 100) == (result["settled_seconds"], result["size"])


def test_members_whom_moengage_does_not_know_are_no_fault_of_an_export(office):
    """A member who is not in an export may be unknown to MoEngage, as a query would say: the number
    is shown, and nothing is wrong."""
    office.fill("vip", people(*range(10)))
    office.know(*range(7))
    assert (0, []) == office.one("vip")[::2]
    code, result, findings = observe(office, exported(*range(7)))
    assert (0, [], 3) == (code, findings, result["observed"]["missing"])
    shown = office.run("verify", "vip", "--observed", str(office.folder / "export.csv")).stdout
    assert "missing there: 3 of 10" in shown
    assert "moengage-cohort verify vip" in shown


def test_an_export_without_any_member_is_wrong(office):
    """If no member is in an export, it is another segment's, or MoEngage has none of them."""
    office.fill("vip", people(1, 2))
    assert (6, ["none_observed"]) == observe(office, exported())[::2]


def test_removed_members_without_a_uid_are_no_strangers(start):
    """Removals that no sample can have may be unprocessed, too."""
    office = start(processing_seconds=300)
    office.fill("vip", [*people(1, 2, 3), person(4, "anonymous_id")])
    office.clock.advance(300)
    office.change("vip", (Action.REMOVE, [person(4, "anonymous_id")]))
    code, result, findings = office.one("vip")
    assert (0, [], 4) == (code, findings, result["size"])


@pytest.mark.parametrize("fill", [unconfirmed, anonymous])
def test_an_export_says_nothing_of_members_that_it_cannot_have(office, fill):
    """If all members are unconfirmed, or have no uid, an export does not show how they are."""
    fill(office)
    code, result, findings = observe(office, exported())
    assert (1, [], "nothing_sampled") == (code, findings, result["unknown"]["code"])
