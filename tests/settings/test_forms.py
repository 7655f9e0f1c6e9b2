from __future__ import annotations

import json

import hypothesis.strategies as st
import pytest
from hypothesis import given

from target_moengage_cohort.core.errors import SettingsError
from target_moengage_cohort.settings import load
from target_moengage_cohort.settings.declared import SETTING_NAMES
from tests.settings.support import BASE, settings

NUMBERS = ("requests_per_minute", "max_payload_bytes", "max_retry_seconds", "flush_seconds")
NUMBERS += ("max_new_cohorts",)
SWITCHES = ("send_timestamp", "dry_run", "validate_records", "flattening_enabled")
SWITCHES += ("ledger_create",)
TEXTS = ("uid_column", "anonymous_id_column", "report_path", "flattening_separator")


streams = st.text(st.sampled_from("ab-._é "), min_size=1, max_size=8)
texts = st.text(st.sampled_from("abc dé.1"), min_size=1, max_size=6)


def objects(*keys):
    return st.dictionaries(
        streams, st.dictionaries(st.sampled_from(keys), texts, min_size=1), max_size=4
    )


def forms(nested):
    """Return an object setting in all its forms."""
    flat = {f"{outer}.{key}": leaf for outer, keys in nested.items() for key, leaf in keys.items()}
    return [nested, json.dumps(nested), flat, json.dumps(flat)]


def outcome(cohorts):
    try:
        return load(BASE | {"cohorts": cohorts}).mappings
    except SettingsError as error:
        return sorted(map(str, error.faults))


@given(objects("cohort_name", "cohort_id", "cohort_description", "anonymous_id_column"))
def test_flattened_cohorts_are_the_nested_ones(cohorts):
    """Dotted keys, as JSON text or not, load as the nested form does; names may have dots."""
    results = [outcome(form) for form in forms(cohorts)]
    assert [results[0]] * 4 == results


@given(objects("uid", "__alias__", "__filter__", "e_mail"))
def test_flattened_stream_maps_are_the_nested_ones(stream_maps):
    """Stream maps load the same from dotted keys, stream names with dots included."""
    for form in forms(stream_maps):
        assert stream_maps == settings(stream_maps=form).stream_maps


def test_stream_maps_may_drop_streams_whose_names_have_dots():
    """Null and `__NULL__` for a dotted name drop that stream, and lists stay lists."""
    dropped = {"a.b": None, "c.d": "__NULL__", "__else__": None}
    flat = {**dropped, "e.f.__key_properties__": ["id"]}
    nested = {**dropped, "e.f": {"__key_properties__": ["id"]}}
    assert nested == settings(stream_maps=flat).stream_maps
    assert nested == settings(stream_maps=nested).stream_maps


keys = st.text(st.sampled_from("ab_é"), min_size=1, max_size=3)
params = st.recursive(
    st.dictionaries(keys, texts | st.integers() | st.booleans(), min_size=1, max_size=3),
    lambda inner: st.dictionaries(keys, texts | inner, min_size=1, max_size=3),
    max_leaves=4,
)


def flattened(value):
    """Return an object as Meltano flattens it for the environment."""
    found = {}
    for key, leaf in value.items():
        below = flattened(leaf) if isinstance(leaf, dict) else {"": leaf}
        found |= {f"{key}.{rest}".rstrip("."): deep for rest, deep in below.items()}
    return found


@given(params)
def test_a_flattened_batch_config_is_the_nested_one(params):
    """`batch_config` loads the same from dotted keys, as JSON text or not, flattened in part or in
    full, nested parameters included."""
    storage = {"root": "s3://bucket", "params": params}
    config = {"encoding": {"format": "parquet"}, "storage": storage}
    whole, flat = {"batch_config": config}, flattened(config)
    mixed = {"storage": {"root": "s3://bucket"}, **flattened({"storage": {"params": params}})}
    forms = [whole, flattened(whole), *({"batch_config": form} for form in (flat, mixed))]
    forms += [{"batch_config": json.dumps(form)} for form in (config, flat, mixed)]
    for form in forms:
        found = load(BASE | form)
        assert ("s3://bucket", params) == (
            found.settings.batch_config.storage.root,
            found.settings.batch_config.storage.params,
        )
        assert {} == found.unknown


def test_loading_leaves_the_configuration_alone():
    """A partly flattened configuration is read as one, and not changed."""
    raw = BASE | {"cohorts": {"vip": {"cohort_id": "x"}, "vip.cohort_name": "n"}}
    before = json.dumps(raw)
    cohort = load(raw).mappings["vip"].cohort
    assert ("x", "n", before) == (cohort.cohort_id, cohort.name, json.dumps(raw))


def test_everything_from_the_environment():
    """All settings load from text, with the values that they have as JSON."""
    typed = dict.fromkeys(NUMBERS, 1_000) | dict.fromkeys(SWITCHES, True)
    typed |= {"max_concurrency": 2, "request_timeout_seconds": 3, "send_timestamp": False}
    typed |= {"max_removal_percent": 4, "max_addition_percent": 5}
    typed |= {"min_match_percent": 6, "keep_unarchived_days": 7}
    typed |= {"alert_turnover_percent": 8, "notify_headers": {"A": "b"}}
    typed |= {"keep_changes_days": 8}
    typed |= {"flattening_max_depth": 2, "flattening_max_key_length": 9}
    typed |= {"stream_maps": {"x": {"uid": "id"}}, "stream_map_config": {"n": 1.5}}
    mirror = {"sync_mode": "mirror", "expected_count_column": "n", "max_removal_percent": 100}
    params = {"key": "k", "client_kwargs": {"region_name": "x"}, "anon": False, "n": 5}
    storage = {"root": "s3://bucket/dir", "prefix": "p", "params": params}
    encoding = {"format": "jsonl", "compression": "gzip"}
    typed |= {"batch_config": {"encoding": encoding, "storage": storage, "batch_size": 9}}
    typed |= {"cohorts": {"a.b": {"cohort_id": "c"}, "m": mirror}}
    text = BASE | {name: name for name in TEXTS} | {"sync_mode": "add", "on_reject": "skip"}
    text |= {"api_url": "http://127.0.0.1:1", "rejects_path": "r", "ledger_uri": "file:///l"}
    text |= {"exclude_path": "x.csv", "notify_url": "https://h", "notify_on": "turnover"}
    text |= dict.fromkeys(("segments_api_key", "analytics_api_key"), "k")
    text |= {"db_name": "db", "id_attribute": "uid", "metrics_path": "a.prom"}
    text |= {"removals": "deferred", "on_missing_stream": "fail", "on_withheld": "warn"}
    assert {*typed, *text} == SETTING_NAMES
    as_text = {name: json.dumps(value) for name, value in typed.items()}
    assert load(typed | text) == load(as_text | text)


@pytest.mark.parametrize(
    "form",
    [
        {"public-x.y": {"cohort_id": "a"}, "public-x.z": {}},
        {"public-x.y.cohort_id": "a", "public-x.z": None},
        {"public-x": {"y": {"cohort_id": "a"}, "z": {}}},
    ],
    ids=["as it is meant", "flattened", "nested by its dots"],
)
def test_stream_names_with_dots_survive_meltano(form):
    """Meltano flattens objects in the environment, and nests names with dots in its files."""
    loaded = load({**BASE, "cohorts": form})
    cohorts = {stream: mapping.cohort.cohort_id for stream, mapping in loaded.mappings.items()}
    assert {"public-x.y": "a", "public-x.z": "public-x.z"} == cohorts
