"""The Cohort Sync API's requests."""

import json

import pytest

from target_moengage_cohort.core.membership import Action, Cohort, Member
from target_moengage_cohort.core.text import iso_utc
from target_moengage_cohort.moengage.cohort_sync import (
    Envelope,
    identifiers,
    log_in_body,
)
from target_moengage_cohort.settings import load

TIMESTAMP = iso_utc(1_800_000_000.123)


def test_a_body_is_compact_json_with_the_documented_fields():
    """A body has the documented fields, without white space."""
    envelope = Envelope(Cohort("vip", "VIP “users”", "d"), "acme", send_timestamp=True)
    data = envelope.body(Action.ADD, TIMESTAMP, Member("ü1").encode())
    expected = {
        "action": "add_members",
        "partner": "acme",
        "timestamp": "2027-01-15T08:00:00.123Z",
        "parameters": {
            "cohort_name": "VIP “users”",
            "cohort_id": "vip",
            "cohort_description": "d",
            "members": [{"uid": "ü1"}],
        },
    }
    assert expected == json.loads(data)
    assert json.dumps(expected, separators=(",", ":"), ensure_ascii=False).encode() == data


@pytest.mark.parametrize("description", [None, "d"], ids=["plain", "described"])
@pytest.mark.parametrize("send_timestamp", [True, False], ids=["timed", "untimed"])
def test_the_overhead_is_that_of_the_body(description, send_timestamp):
    """The overhead and the members make up a body's length to the byte."""
    envelope = Envelope(Cohort("c", "n", description), "p", send_timestamp)
    for action in Action:
        assert envelope.overhead(action) + 5 == len(envelope.body(action, TIMESTAMP, b"12345"))


def test_the_identifiers_of_a_body_are_those_of_its_members():
    """Every uid and every anonymous ID is found; the cohort's fields are not identifiers."""
    members = b",".join(one.encode() for one in (Member("u1", "a1"), Member(None, "a2")))
    body = Envelope(Cohort("c", "n", "d"), "p", send_timestamp=True).body(
        Action.REMOVE, TIMESTAMP, members
    )
    assert ["u1", "a1", "a2"] == [*identifiers(body)]


def test_the_body_of_a_log_in_has_the_documented_fields():
    """MoEngage gets the workspace, the key, the partner and the data center."""
    raw = {"workspace_id": "w", "data_api_key": "k", "data_center": "02", "partner": "acme"}
    expected = {"app_id": "w", "app_secret": "k", "source": "acme", "region": "02"}
    assert expected == json.loads(log_in_body(load(raw).settings))
