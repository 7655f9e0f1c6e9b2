"""What `moengage-cohort verify` must not claim: at the bounds of samples, limits and quotas."""

import pytest

from tests.cli.conftest import people, person
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
    assert f"in no sample: {count}" in office.run("verify", "vip").stdout


def test_members_in_no_sample_are_counted(office):
    """If some members can be sampled, the number of the others is shown."""
    office.fill("vip", [*people(1, 2, 3), person(4, "anonymous_id")])
    code, result, findings = office.one("vip")
    assert (0, [], 1) == (code, findings, result["unsampled"])
