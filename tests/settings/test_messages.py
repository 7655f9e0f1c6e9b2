"""The wording of each message about a setting, once."""

import logging
from pathlib import Path

import pytest

from target_moengage_cohort.core.errors import SettingsError
from target_moengage_cohort.settings import load
from tests.settings.support import BASE, messages

COHORTS = {
    "cohorts.vip: must be an object, not text": "x",
    "cohorts.vip: unknown key 'uid_col'; did you mean 'uid_column'?": {"uid_col": "x"},
    "cohorts.vip: unknown key 'zzzz'; the keys are cohort_id, cohort_name, cohort_description, "
    "cohort_id_column, cohort_name_column, uid_column, anonymous_id_column, sync_mode, "
    "membership_column, deleted_at_column, expected_count_column, allow_bookmark, exclusive, "
    "removals, max_removal_percent, max_addition_percent, "
    "min_match_percent": {"zzzz": "x"},
    "cohorts.vip.cohort_name: must not contain ':'; MoEngage may drop such a name without an "
    "error, so set a valid cohort_name": {"cohort_name": "a:b"},
    "cohorts.vip.cohort_id: must not be blank": {"cohort_id": " ", "cohort_name": "n"},
    "cohorts.vip.cohort_id: cannot be combined with cohort_id_column; remove one of them": {
        "cohort_id_column": "c",
        "cohort_id": "x",
    },
    "cohorts.vip.cohort_name_column: requires cohort_id_column": {"cohort_name_column": "n"},
    "cohorts.vip: uid_column and membership_column name the same column 'uid'; change one of "
    "them": {"membership_column": "uid"},
    "cohorts.vip.membership_column: works only with the sync modes incremental, mirror and "
    "one_time, not with add": {"membership_column": "m", "sync_mode": "add"},
    "cohorts.vip.min_match_percent: requires id_attribute": {"min_match_percent": 1},
    "cohorts.vip.min_match_percent: works only with the sync modes incremental, add, mirror and "
    "one_time, not with remove": {"min_match_percent": 0, "sync_mode": "remove"},
    "cohorts.vip.removals: works only with the sync modes mirror and one_time, not with "
    "incremental": {"removals": "deferred"},
}
SETTINGS = {
    "data_center: must be one of 01, 02, 03, 04, 05, 06, 101; there is no default, because a "
    "wrong value would send data to another region": {"data_center": "7"},
    "sync_mode: must be one of incremental, add, remove, mirror, one_time": {"sync_mode": "x"},
    "removals: must be one of immediate, proven, deferred": {"removals": "never"},
    "on_reject: must be one of fail, skip": {"on_reject": "ignore"},
    "max_addition_percent: must be at least 0": {"max_addition_percent": -1},
    "min_match_percent: must be at most 100": {"min_match_percent": 101},
    "min_match_percent: requires id_attribute": {"min_match_percent": 1},
    "keep_unarchived_days: must be at least 1": {"keep_unarchived_days": 0},
    "keep_unarchived_days: must be at most 59": {"keep_unarchived_days": 60},
    "max_concurrency: must be at most 16": {"max_concurrency": 17},
    "max_concurrency: must be an integer, not text": {"max_concurrency": "10%"},
    "max_concurrency: must be an integer, not a float": {"max_concurrency": 1.5},
    "workspace_id: must be text, not an integer": {"workspace_id": 12},
    "data_api_key: must be text, not an array": {"data_api_key": ["k"]},
    "dry_run: must be a boolean, not an object": {"dry_run": {"a": 1}},
    "stream_maps: is not valid JSON": {"stream_maps": "{"},
    "stream_maps: must be an object, not null": {"stream_maps": "null"},
    "stream_map_config: must be an object, not a boolean": {"stream_map_config": True},
    "cohorts: is not valid JSON": {"cohorts": "vip"},
    "cohorts: must be an object, not an array": {"cohorts": ["vip"]},
    "partner: must not be blank": {"partner": " "},
    "partner: contains invalid characters": {"partner": "\ud800"},
    "partner: is required": {"partner": ""},
    "workspace_id: must be ASCII without spaces or a colon": {"workspace_id": "a:b"},
    "data_api_key: must be ASCII without spaces": {"data_api_key": "clé"},
    "batch_config.storage.root: must not be blank": {"batch_config": {"storage": {"root": " "}}},
    "on_reject: skip requires rejects_path, so that no row is lost": {"on_reject": "skip"},
    "flattening_enabled: requires flattening_max_depth": {"flattening_enabled": True},
    "metrics_path: must end with .prom": {"metrics_path": "metrics.txt"},
    "report_path: is the same file as rejects_path, which it would replace": {
        "report_path": "./x/../f",
        "rejects_path": str(Path.cwd() / "f"),
    },
    "cohorts: streams 'a' and 'b' populate the same cohort 'x'; give each its own cohort_id, or "
    "merge the streams": {
        "cohorts": {"a": {"cohort_id": "x"}, "b": {"cohort_id": "x", "cohort_name": "n"}}
    },
    "cohorts: streams 'a' and 'b' give two cohorts the same name 'n'; MoEngage uses a name "
    "only once, so change one of them": {
        "cohorts": {"a": {"cohort_name": "n"}, "b": {"cohort_name": "n"}}
    },
    **{message: {"cohorts": {"vip": mapping}} for message, mapping in COHORTS.items()},
}


@pytest.mark.parametrize("message", SETTINGS, ids=lambda message: message[:50])
def test_each_fault_names_the_setting_and_the_rule(message):
    """A message says which setting is wrong and what it must be."""
    assert [message] == messages(**SETTINGS[message])


@pytest.mark.parametrize(
    ("hint", "stream"),
    [
        ("Did you mean 'public-vip'? If so, correct that name. Otherwise a", "public-vips"),
        ("A", "zzz"),
        ("A", "public-all"),
    ],
)
def test_a_stream_that_is_not_mapped_gets_the_nearest_name(hint, stream):
    """The message lists the streams that are mapped."""
    with pytest.raises(SettingsError) as error:
        load(BASE | {"cohorts": {"public-vip": {}, "app": {}}}).mapping(stream)
    assert (
        f"stream {stream!r} is not mapped under cohorts (mapped: app, public-vip). {hint}dd it, "
        "or deselect it in the tap"
    ) == str(error.value)


def test_a_foreign_setting_is_a_warning(caplog):
    """The warning has a code and the nearest name, and does not show a value."""
    load(BASE | {"request_timeout": "x", "zzzzzz": 1}).warn(logging.getLogger("test"))
    assert [
        (
            "unknown_setting",
            "unknown setting 'request_timeout'; did you mean 'request_timeout_seconds'?",
        ),
        ("unknown_setting", "unknown setting 'zzzzzz'"),
    ] == [(record.code, record.getMessage()) for record in caplog.records]


def test_a_misspelled_setting_is_an_error():
    """The message names the setting that was meant, in a variable's form for a variable."""
    variable = "TARGET_MOENGAGE_COHORT_DATA_API_KYE"
    assert [
        f"unknown setting '{variable}'; did you mean 'TARGET_MOENGAGE_COHORT_DATA_API_KEY'?",
        "unknown setting 'data_api_kye'; did you mean 'data_api_key'?",
        "unknown setting 'uid_colum'; did you mean 'uid_column'?",
    ] == sorted(messages(**{"data_api_kye": "x", "uid_colum": 1, variable: "x"}))
    text = "unknown setting 'membership_column'; set it in a stream's mapping under cohorts"
    assert [text] == messages(membership_column="x")
