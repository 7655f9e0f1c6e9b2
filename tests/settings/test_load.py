from __future__ import annotations

import contextlib

import hypothesis.strategies as st
import pytest
from hypothesis import example, given
from rich.pretty import pretty_repr

from target_moengage_cohort.core.errors import SettingsError
from target_moengage_cohort.settings import load
from target_moengage_cohort.settings.declared import MAPPING_KEYS, SETTING_NAMES
from tests.settings.support import BASE, KEY, faults, messages

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["yes", "off", "12", "http://127.0.0.1:1", "uid", "\ud800", "[" * 9_999]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [*sorted(MAPPING_KEYS), "vip", "a.b", "a.b.cohort_id", "", "__alias__"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)
configurations = st.dictionaries(st.sampled_from(sorted(SETTING_NAMES)), json_values, max_size=6)


@given(configurations, st.booleans())
@example({"cohorts": "[" * 100_000}, True)  # noqa: FBT003
@example({"stream_maps": "\udcff"}, True)  # noqa: FBT003
def test_any_configuration_gives_settings_or_an_error(raw, complete):
    """Any JSON configuration is loaded or refused with a `SettingsError`."""
    with contextlib.suppress(SettingsError):
        assert load(BASE | raw if complete else raw).settings.base_url.startswith("http")


@given(
    st.sampled_from(sorted(SETTING_NAMES - {"stream_maps", "stream_map_config", "partner"})),
    st.sampled_from(["PLANTED9", ["PLANTED9"], {"PLANTED9": "PLANTED9"}, "http://u:PLANTED9@h"]),
)
def test_no_error_shows_the_key_or_a_url_s_credentials(name, value):
    """An error names setting and rule, and shows neither the API key nor an address."""
    extra = {name: value, "data_center": "no such"}
    shown = "; ".join(messages(**extra))
    assert ("invalid_value", "data_center") in faults(**extra)
    assert KEY not in shown
    if name in {"data_api_key", "api_url", "ledger_uri"}:
        assert "PLANTED9" not in shown


@pytest.mark.parametrize(
    "show",
    [repr, str, pretty_repr, "{}".format, "%s".__mod__],
    ids=["repr", "str", "rich", "format", "percent"],
)
def test_nothing_that_prints_settings_shows_the_key(show):
    """Neither Python's nor rich's representation of an object contains the key."""
    loaded = load(BASE)
    assert KEY not in show(loaded.settings) + show(loaded)


@pytest.mark.parametrize(
    "show",
    [repr, str, pretty_repr, "{}".format, "%s".__mod__],
    ids=["repr", "str", "rich", "format", "percent"],
)
def test_nothing_that_prints_a_storage_shows_what_opens_it(show):
    """Neither the parameters of a storage nor the credentials in its URL are ever shown."""
    storage = {"root": "s3://PLANTED:PLANTED@bucket", "params": {"secret": "PLANTED"}}
    loaded = load(BASE | {"batch_config": {"storage": storage}})
    config = loaded.settings.batch_config
    for shown in (show(loaded), show(loaded.settings), show(config), show(config.storage)):
        assert "PLANTED" not in shown


def test_all_missing_settings_are_reported_in_one_pass():
    """One error names every required setting that is missing, empty ones included."""
    names = ("workspace_id", "data_api_key", "data_center", "partner")
    found = faults({"partner": "", "data_center": None})
    assert [("required", name) for name in names] == found


def test_all_faults_are_reported_in_one_pass():
    """Faults at the top level and in several mappings are reported together, each individually."""
    cohorts = {"a": {"sync_mode": "x", "zzz": 1}, "b": "PLANTED", "c": {"cohort_id": 5}}
    expected = [
        ("required", "partner"),
        ("invalid_value", "max_concurrency"),
        ("invalid_value", "cohorts.a.sync_mode"),
        ("unknown_key", "cohorts.a"),
        ("invalid_value", "cohorts.b"),
        ("invalid_value", "cohorts.c.cohort_id"),
    ]
    assert sorted(expected) == sorted(faults(partner="", max_concurrency=99, cohorts=cohorts))


def test_a_wrong_default_is_one_fault():
    """A wrong value at the top level is not reported again for each stream that inherits it."""
    assert [("invalid_value", "sync_mode")] == faults(sync_mode="x", cohorts={"a": {}, "b": {}})


@pytest.mark.parametrize(
    ("code", "setting", "extra"),
    [
        ("conflicting_settings", "on_reject", {"on_reject": "skip"}),
        ("conflicting_settings", "flattening_enabled", {"flattening_enabled": True}),
        ("conflicting_settings", "report_path", {"report_path": "./x/../f", "rejects_path": "f"}),
        ("invalid_value", "partner", {"partner": " "}),
        ("invalid_value", "workspace_id", {"workspace_id": "a:b"}),
        *(
            ("invalid_value", name, {name: "clé"})
            for name in ("data_api_key", "segments_api_key", "analytics_api_key", "db_name")
        ),
        ("invalid_value", "cohorts", {"cohorts": ["vip"]}),
        ("invalid_value", "cohorts", {"cohorts": "["}),
        ("invalid_value", "cohorts", {"cohorts": "null"}),
        ("invalid_value", "stream_maps", {"stream_maps": "{"}),
        ("invalid_value", "stream_map_config", {"stream_map_config": [1]}),
    ],
    ids=str,
)
def test_rules_of_the_top_level(code, setting, extra):
    """Each rule has an error with a code that names the setting."""
    assert [(code, setting)] == faults(**extra)


def test_a_stream_that_is_not_mapped_is_an_error():
    """With `cohorts`, an unmapped stream is refused."""
    with pytest.raises(SettingsError) as error:
        load(BASE | {"cohorts": {"a": {}}}).mapping("b")
    assert "unmapped_stream" == error.value.code


def test_unknown_settings_come_with_the_nearest_name():
    """An unknown name is kept for a warning, without its value."""
    loaded = load(BASE | {"request_timeout": "x", "zzzzzz": 1})
    assert {"request_timeout": "request_timeout_seconds", "zzzzzz": None} == loaded.unknown
