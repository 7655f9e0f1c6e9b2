from __future__ import annotations

import pytest

from target_moengage_cohort.core.errors import SettingsError
from target_moengage_cohort.settings import Removals, load

BASE = {"workspace_id": "ws", "data_api_key": "key", "data_center": "02", "partner": "acme"}


def faults(**extra) -> tuple[str, ...]:
    with pytest.raises(SettingsError) as raised:
        load(BASE | extra)
    return raised.value.faults


SNAPSHOT_KEYS = {
    "expected_count_column": "n",
    "removals": "deferred",
    "max_removal_percent": 0,
    "max_addition_percent": 0,
}


@pytest.mark.parametrize("key", SNAPSHOT_KEYS)
@pytest.mark.parametrize("mode", ["incremental", "add", "remove"])
def test_keys_of_a_snapshot_are_refused_elsewhere(key, mode):
    """What only a mirror or one_time stream can use is an error in another stream's mapping."""
    fault = f"cohorts.vip.{key}: works with the sync modes mirror and one_time only, not with "
    given = {key: SNAPSHOT_KEYS[key]}
    assert (fault + mode,) == faults(cohorts={"vip": given | {"sync_mode": mode}})
    assert (fault + mode,) == faults(cohorts={"vip": given}, sync_mode=mode)


@pytest.mark.parametrize("mode", ["add", "remove"])
def test_a_membership_column_is_refused_where_the_mode_says_who_belongs(mode):
    """With add and remove a membership column would have nothing to say, so it is an error."""
    known = "works with the sync modes incremental, mirror and one_time only"
    assert (f"cohorts.vip.membership_column: {known}, not with {mode}",) == faults(
        cohorts={"vip": {"membership_column": "m", "sync_mode": mode}}
    )


@pytest.mark.parametrize(
    ("fault", "mapping"),
    [
        ("removals: must be one of immediate, deferred", {"removals": "never"}),
        ("max_removal_percent: must be >= 0", {"max_removal_percent": -1}),
        ("max_removal_percent: must be <= 100", {"max_removal_percent": "101"}),
        ("max_addition_percent: must be >= 0", {"max_addition_percent": "-1"}),
    ],
    ids=str,
)
def test_keys_of_a_snapshot_have_their_ranges(fault, mapping):
    """In a mapping the guards have the ranges that they have at the top level."""
    assert (f"cohorts.vip.{fault}",) == faults(cohorts={"vip": mapping | {"sync_mode": "mirror"}})


@pytest.mark.parametrize("mode", ["mirror", "one_time"])
def test_a_snapshot_takes_its_keys(mode):
    """A mirror or one_time stream takes the keys of a snapshot, and a membership column."""
    keys = SNAPSHOT_KEYS | {"membership_column": "m", "sync_mode": mode}
    mapping = load(BASE | {"cohorts": {"vip": keys}}).mapping("vip")
    assert mapping.is_snapshot
    assert ("n", Removals.DEFERRED) == (mapping.expected_count_column, mapping.removals)
    assert (0, 0) == (mapping.max_removal_percent, mapping.max_addition_percent)
    assert {"uid": "uid", "membership": "m", "expected_count": "n"} == mapping.columns


@pytest.mark.parametrize("mode", ["incremental", "add", "remove", "mirror", "one_time"])
def test_the_top_level_s_guards_are_defaults_for_every_stream(mode):
    """At the top level, removals and guards are taken whatever a stream's sync mode is."""
    top = {"removals": "deferred", "max_removal_percent": 5, "max_addition_percent": 50}
    mapping = load(BASE | top | {"cohorts": {"vip": {"sync_mode": mode}}}).mapping("vip")
    assert (Removals.DEFERRED, 5) == (mapping.removals, mapping.max_removal_percent)
    assert 50 == mapping.max_addition_percent
    assert (mode in {"mirror", "one_time"}) is mapping.is_snapshot


def test_a_mapping_s_guards_win_over_the_top_level_s():
    """What a mapping says of removals and guards holds for its stream, and for no other."""
    top = {"sync_mode": "mirror", "removals": "deferred", "max_addition_percent": 50}
    own = {"removals": "immediate", "max_removal_percent": 100, "max_addition_percent": 0}
    loaded = load(BASE | top | {"cohorts": {"vip": own, "app": {}}})
    for expected, stream in (
        ((Removals.IMMEDIATE, 100, 0), "vip"),
        ((Removals.DEFERRED, 10, 50), "app"),
    ):
        m = loaded.mapping(stream)
        assert expected == (m.removals, m.max_removal_percent, m.max_addition_percent)


def test_without_settings_a_mirror_removes_a_tenth_at_most_and_at_once():
    """By default removals are immediate, within 10 percent, and additions have no guard."""
    mapping = load(BASE | {"sync_mode": "mirror"}).mapping("vip")
    assert (Removals.IMMEDIATE, 10) == (mapping.removals, mapping.max_removal_percent)
    assert (None, None) == (mapping.max_addition_percent, mapping.expected_count_column)


@pytest.mark.parametrize(
    ("folder", "uri"),
    [
        (None, None),
        (None, ""),
        ("/var/lib/ledger", "/var/lib/ledger"),
        ("/var/lib/ledger", " /var/lib/ledger\n"),
        ("ledger", "ledger"),
        ("a/b:c", "a/b:c"),
        ("C:\\ledger", "C:\\ledger"),
        ("/var/lib/ledger", "file:///var/lib/ledger"),
        ("/var/lib/ledger", "FILE://localhost/var/lib/ledger"),
        ("/a b%", "file:///a%20b%25"),
        ("/a%20b", "/a%20b"),
        ("HOME/ledger", "~/ledger"),
        ("HOME/ledger", "file://~/ledger"),
        ("./~", "./~"),
    ],
)
def test_the_ledger_is_in_a_folder(monkeypatch, tmp_path, folder, uri):
    """A ledger's address is a path or a file:// URL, and a leading ~ is the user's home."""
    monkeypatch.setenv("HOME", str(tmp_path))
    expected = folder and folder.replace("HOME", str(tmp_path))
    assert expected == load(BASE | {"ledger_uri": uri}).settings.ledger_folder


@pytest.mark.parametrize(
    ("rule", "uri"),
    [
        ("only folders are supported yet", "postgresql://user:PLANTED9@db/ledger"),
        ("only folders are supported yet", "s3://PLANTED9/ledger"),
        ("only folders are supported yet", "file:PLANTED9"),
        ("must name a whole path after file://", "file://"),
        ("must name a whole path after file://", "file://PLANTED9/ledger"),
        ("must name a whole path after file://", "file://localhostPLANTED9"),
        ("holds characters that are no text", "file:///PLANTED9%00"),
        ("holds characters that are no text", "file:///PLANTED9%ff"),
        ("starts with ~ but no user of that name has a home", "~PLANTED9/ledger"),
        ("must not be blank", " "),
    ],
)
def test_other_ledgers_are_refused(rule, uri):
    """What names no folder is refused by its rule, and is not shown: it may hold a password."""
    (fault,) = faults(ledger_uri=uri)
    assert fault.startswith(f"ledger_uri: {rule}")
    assert "PLANTED9" not in fault
