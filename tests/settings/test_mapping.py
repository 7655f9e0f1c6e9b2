from __future__ import annotations

import pytest

from target_moengage_cohort.core.errors import SettingsError
from target_moengage_cohort.settings import Removals, load
from tests.settings.support import BASE, faults

SNAPSHOT_KEYS = {
    "expected_count_column": "n",
    "removals": "deferred",
    "max_removal_percent": 0,
    "max_addition_percent": 0,
}


@pytest.mark.parametrize("key", SNAPSHOT_KEYS)
@pytest.mark.parametrize("mode", ["incremental", "add", "remove"])
def test_keys_of_a_snapshot_are_refused_elsewhere(key, mode):
    """A key for mirror and one_time streams only is an error in another stream's mapping."""
    keys = {key: SNAPSHOT_KEYS[key]}
    expected = [("conflicting_settings", f"cohorts.vip.{key}")]
    assert expected == faults(cohorts={"vip": keys | {"sync_mode": mode}})
    assert expected == faults(cohorts={"vip": keys}, sync_mode=mode)


def test_a_smallest_match_is_the_top_level_s_unless_a_mapping_has_its_own():
    """A stream has its own min_match_percent, 0 too, or else the one of the top level."""
    mappings = {"a": {}, "b": {"min_match_percent": 0}, "c": {"min_match_percent": 9}}
    loaded = load(BASE | {"id_attribute": "u", "min_match_percent": 5, "cohorts": mappings})
    assert [5, 0, 9] == [each.min_match_percent for each in loaded.mappings.values()]
    assert 0 == load(BASE).default.min_match_percent


@pytest.mark.parametrize("mode", ["add", "remove"])
def test_a_membership_column_is_refused_where_the_mode_decides(mode):
    """With add and remove a membership column has no effect, so it is an error."""
    assert [("conflicting_settings", "cohorts.vip.membership_column")] == faults(
        cohorts={"vip": {"membership_column": "m", "sync_mode": mode}}
    )


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("removals", "never"),
        ("max_removal_percent", -1),
        ("max_removal_percent", "101"),
        ("max_addition_percent", "-1"),
        ("sync_mode", "append"),
        ("cohort_id", 5),
        ("uid_column", "a\0b"),
    ],
)
def test_a_mapping_s_keys_have_the_types_of_the_top_level(key, value):
    """In a mapping, keys have the types and ranges that they have at the top level."""
    mapping = {"sync_mode": "mirror", key: value}
    assert [("invalid_value", f"cohorts.vip.{key}")] == faults(cohorts={"vip": mapping})


@pytest.mark.parametrize(
    ("code", "key", "mapping"),
    [
        ("invalid_cohort_name", ".cohort_name", {"cohort_name": "a:b"}),
        ("invalid_value", ".cohort_id", {"cohort_id": " ", "cohort_name": "n"}),
        ("conflicting_settings", ".cohort_id", {"cohort_id_column": "c", "cohort_id": "x"}),
        ("conflicting_settings", ".cohort_name", {"cohort_id_column": "c", "cohort_name": "x"}),
        ("conflicting_settings", ".cohort_name_column", {"cohort_name_column": "n"}),
        ("unknown_key", "", {"uid_col": "x"}),
        ("unknown_key", "", {"stream": "x"}),
        ("unknown_key", "", {"uid_required": False}),
        ("invalid_value", "", "x"),
    ],
    ids=str,
)
def test_rules_of_a_mapping(code, key, mapping):
    """Each rule of a cohort's mapping names the stream and the key."""
    assert [(code, f"cohorts.vip{key}")] == faults(cohorts={"vip": mapping})


@pytest.mark.parametrize("mode", ["mirror", "one_time"])
def test_a_snapshot_takes_its_keys(mode):
    """A mirror or one_time stream accepts the keys of a snapshot, and a membership column."""
    keys = SNAPSHOT_KEYS | {"membership_column": "m", "sync_mode": mode}
    mapping = load(BASE | {"cohorts": {"vip": keys}}).mapping("vip")
    assert mapping.is_snapshot
    assert ("n", Removals.DEFERRED) == (mapping.expected_count_column, mapping.removals)
    assert (0, 0) == (mapping.max_removal_percent, mapping.max_addition_percent)
    assert {"uid": "uid", "membership": "m", "expected_count": "n"} == mapping.columns


@pytest.mark.parametrize("mode", ["incremental", "add", "remove", "mirror", "one_time"])
def test_the_top_level_s_guards_are_defaults_for_every_stream(mode):
    """At the top level, removals and guards are accepted whatever a stream's sync mode."""
    top = {"removals": "deferred", "max_removal_percent": 5, "max_addition_percent": 50}
    mapping = load(BASE | top | {"cohorts": {"vip": {"sync_mode": mode}}}).mapping("vip")
    assert (Removals.DEFERRED, 5) == (mapping.removals, mapping.max_removal_percent)
    assert 50 == mapping.max_addition_percent
    assert (mode in {"mirror", "one_time"}) is mapping.is_snapshot


def test_a_mapping_s_guards_win_over_the_top_level_s():
    """A mapping's own removals and guards apply to its stream, and to no other."""
    top = {"sync_mode": "mirror", "removals": "deferred", "max_addition_percent": 50}
    own = {"removals": "immediate", "max_removal_percent": 100, "max_addition_percent": 0}
    loaded = load(BASE | top | {"cohorts": {"vip": own, "app": {}}})
    for expected, stream in (
        ((Removals.IMMEDIATE, 100, 0), "vip"),
        ((Removals.DEFERRED, 10, 50), "app"),
    ):
        m = loaded.mapping(stream)
        assert expected == (m.removals, m.max_removal_percent, m.max_addition_percent)


def test_by_default_a_mirror_removes_a_tenth_at_most():
    """By default removals are immediate, within 10 percent, and additions have no guard."""
    mapping = load(BASE | {"sync_mode": "mirror"}).mapping("vip")
    assert (Removals.IMMEDIATE, 10) == (mapping.removals, mapping.max_removal_percent)
    assert (None, None) == (mapping.max_addition_percent, mapping.expected_count_column)


@pytest.mark.parametrize("key", ["membership_column", "expected_count_column"])
def test_two_roles_of_one_column_are_refused(key):
    """A column with two roles is refused."""
    mapping = {key: "uid", "sync_mode": "mirror"}
    assert [("conflicting_settings", "cohorts.vip")] == faults(cohorts={"vip": mapping})


@pytest.mark.parametrize(
    ("first", "second", "code"),
    [
        ({"cohort_id": "x"}, {"cohort_id": "x", "cohort_name": "n"}, "duplicate_cohort"),
        ({}, {"cohort_id": "one", "cohort_name": "n"}, "duplicate_cohort"),
        ({"cohort_name": "n"}, {"cohort_name": "n"}, "duplicate_cohort_name"),
    ],
    ids=["id", "default id", "name"],
)
def test_no_two_streams_share_a_cohort(first, second, code):
    """Two streams with one cohort, or with one name, are reported before any input is read."""
    assert [(code, "cohorts")] == faults(cohorts={"one": first, "two": second})


def test_a_stream_may_feed_many_cohorts():
    """With `cohort_id_column` no cohort is fixed, and the description applies to each."""
    keys = {"cohort_id_column": "c", "cohort_name_column": "n", "cohort_description": "d"}
    mapping = load(BASE | {"cohorts": {"s": keys}}).mapping("s")
    assert (None, "d") == (mapping.cohort, mapping.cohort_description)
    assert {"uid": "uid", "cohort_id": "c", "cohort_name": "n"} == mapping.columns


def test_without_cohorts_every_stream_is_one_by_its_name():
    """Without `cohorts`, a stream populates the cohort of its own name, with the top level's
    columns."""
    mapping = load(BASE | {"uid_column": "id", "sync_mode": "remove"}).mapping("public-vip")
    assert ("public-vip", "public-vip") == (mapping.cohort.cohort_id, mapping.cohort.name)
    assert ("id", True, "remove") == (mapping.uid_column, mapping.uid_required, mapping.sync_mode)


def test_a_stream_s_own_name_must_be_fit_for_a_cohort():
    """A stream whose name MoEngage would drop needs a cohort_name."""
    with pytest.raises(SettingsError) as error:
        load(BASE).mapping("a:b")
    assert "invalid_cohort_name" == error.value.code


@pytest.mark.parametrize(
    ("required", "top", "mapping"),
    [
        (True, {}, {}),
        (False, {"anonymous_id_column": "a"}, {}),
        (False, {}, {"anonymous_id_column": "a"}),
        (True, {"anonymous_id_column": "a", "uid_column": "uid"}, {}),
        (True, {"anonymous_id_column": "a"}, {"uid_column": "uid"}),
    ],
    ids=["default", "anonymous", "anonymous in mapping", "explicit", "explicit in mapping"],
)
def test_when_the_uid_column_must_exist(required, top, mapping):
    """The uid column is required if set explicitly, or if nothing else identifies a member."""
    loaded = load(BASE | top | {"cohorts": {"s": mapping}})
    assert required is loaded.mapping("s").uid_required


@pytest.mark.parametrize("form", [{}, "{}", " { } "])
def test_an_explicit_empty_object_of_cohorts_is_refused(form):
    """Meltano makes it of a variable with a dot in a key, and every stream would be a cohort."""
    with pytest.raises(SettingsError) as refused:
        load(BASE | {"cohorts": form})
    assert "empty_cohorts" == refused.value.code
    assert "Meltano" in str(refused.value)
    assert "with a dot" in str(refused.value)


@pytest.mark.parametrize("absent", [{}, {"cohorts": None}, {"cohorts": ""}])
def test_without_cohorts_every_stream_is_one(absent):
    """Absent, and null or empty text as Meltano has it for no value, mean every stream."""
    assert "any" == load(BASE | absent).mapping("any").cohort_id


@pytest.mark.parametrize("form", [{"vip": None}, {"vip": {}}, '{"vip": {}}', {"a.b": {}}])
def test_a_stream_without_keys_is_no_empty_object(form):
    """A stream that is listed without any key is mapped by the defaults."""
    assert 1 == len(load(BASE | {"cohorts": form}).mappings)


def test_flattened_cohorts_are_no_empty_object():
    """Keys that Meltano flattened fill an empty object."""
    raw = BASE | {"cohorts": {}, "cohorts.vip.cohort_id": "v"}
    assert "v" == load(raw).mapping("vip").cohort_id
