"""Misspelled settings, and the names of others that must not be taken for one."""

import json
import logging

import pytest

from target_moengage_cohort.core.errors import SettingsError
from target_moengage_cohort.settings import load, sources
from target_moengage_cohort.settings.declared import MAPPING_KEYS, SETTING_NAMES
from tests.settings.support import BASE, faults

PREFIX = "TARGET_MOENGAGE_COHORT_"
MISSPELLED = """
data_api_kye data-api-key dataApiKey DATA_API_KEY max_removal_percentage max_removals_percent
sync_mod syncmode snyc_mode ledger_url ledgeruri reject_path cohort on_rejects dryrun workspace
data_centre requests_per_min max_concurent api_uri removal report_pth anonymous_column
"""
# The settings that the SDK gives to every target, those of its SQL targets, and what Meltano adds.
SDK = """
add_record_metadata load_method batch_size_rows batch_wait_limit_seconds faker_config
process_activate_version_messages default_target_schema hard_delete sqlalchemy_url
"""
MELTANO = """
_select _catalog _load_schema _dialect _target_schema _metadata _schema
"""
# Of target-postgres, -snowflake, -bigquery, -jsonl, -csv, -s3, -parquet, -redshift and HTTP taps.
FOREIGN = """
max_parallelism parallelism parallelism_max batch_size max_batch_size batch_size_mb
flush_all_streams primary_key_required data_flattening_max_level temp_dir destination_path
file_naming_scheme default_target_database sanitize_null_text_characters use_copy ssl_enable
ssl_mode host port user password database schema warehouse role account project dataset
credentials_path credentials_json location table_prefix denormalized upsert overwrite
dedupe_before_upsert fail_fast timeout buffer_size max_cache max_batch_age column_name_transforms
generate_view cluster_on_key_properties partition_granularity partition_decimals api_key
api_version api_token base_url access_token client_id client_secret refresh_token start_date
user_agent request_timeout max_retries schema_mapping default_schema persist_empty_tables
invalid_records_detect invalid_records_threshold disable_persist before_run_sql after_run_sql
logging_level tap_id query_tag session_parameters archive_load_files s3_bucket s3_key_prefix stage
file_format no_compression max_wait_time message_size_limit batch_max_rows max_file_size
output_path file_type delimiter timezone record_sort_property_name overwrite_behavior
escape_character quotechar region endpoint include_metadata audience_id list_id segment_id
"""


@pytest.mark.parametrize("name", MISSPELLED.split())
def test_a_misspelled_setting_is_an_error(name):
    """A name that is close to a setting's is refused, in a file and in a variable."""
    for given in (name, PREFIX + name.upper()):
        if given.removeprefix(PREFIX).lower() not in SETTING_NAMES or given == name:
            assert [("unknown_setting", f"unknown setting {given!r}")] == [
                (code, where.partition(";")[0]) for code, where in faults(**{given: "x"})
            ]


@pytest.mark.parametrize("name", (SDK + MELTANO + FOREIGN).split())
def test_a_foreign_setting_is_none(name):
    """The settings of the SDK, of Meltano and of other targets stay warnings."""
    for given in (name, PREFIX + name.upper()):
        assert {given} == load(BASE | {given: "x"}).unknown.keys()


@pytest.mark.parametrize("key", sorted(MAPPING_KEYS - SETTING_NAMES))
def test_a_key_of_a_mapping_in_the_wrong_place_is_an_error(key):
    """At the top level, it would have no effect."""
    with pytest.raises(SettingsError) as error:
        load(BASE | {key: "x"})
    assert ["unknown_setting"] == [fault.code for fault in error.value.faults]


@pytest.mark.parametrize("name", ["zzz", "max_removal_percentage", "_load_schema", "loglevel"])
def test_variables_that_set_nothing_are_seen(monkeypatch, tmp_path, name):
    """An unknown variable is passed on by its own name, but not those of Meltano and the SDK."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(PREFIX + name.upper(), "x")
    expected = {PREFIX + name.upper()} if name in {"zzz", "max_removal_percentage"} else set()
    assert expected == sources.read(["ENV"]).keys()


@pytest.mark.parametrize(
    "name", ["COHORTS_VIP_COHORT_ID", "BATCH_CONFIG_STORAGE_ROOT", "EU_PARTNER", "_EU_DATA_CENTER"]
)
def test_parts_and_other_plugins_variables_are_not_seen(monkeypatch, tmp_path, name):
    """Meltano sets the parts of objects, and an inheriting plugin has our prefix and its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(PREFIX + name, "x")
    assert {} == sources.read(["ENV"])


@pytest.mark.parametrize("meltano", [True, False])
@pytest.mark.parametrize(
    "prefix",
    ["TARGET_MOENGAGE_COHORTS_", "TARGET_MOENGAGE_", "TARGET_MOENAGE_COHORT_", "TARGET_COHORT_"],
)
def test_a_variable_with_a_prefix_close_to_ours_is_a_warning(
    monkeypatch, tmp_path, caplog, prefix, meltano
):
    """It may be another plugin's, so it is no error, but a dry run that is none must not be quiet.
    If the variable that was meant is set, too, nothing is amiss."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(BASE))
    if meltano:
        monkeypatch.setenv("MELTANO_PROJECT_ROOT", str(tmp_path))
    monkeypatch.setenv(prefix + "DRY_RUN", "true")
    files = ["config.json"] if meltano else ["config.json", "ENV"]
    config = load(sources.read(files))
    expected = {prefix + "DRY_RUN": PREFIX + "DRY_RUN"} if "MOE" in prefix else {}
    assert expected == config.unknown
    config.warn(logging.getLogger("test"))
    assert len(expected) == sum(each.code == "unknown_setting" for each in caplog.records)
    monkeypatch.setenv(PREFIX + "DRY_RUN", "true")
    assert {} == load(sources.read(files)).unknown


def test_under_meltano_misspelled_variables_are_seen_without_env(monkeypatch, tmp_path):
    """Meltano drops a variable that it does not know; a foreign one is not our concern then."""
    (tmp_path / "config.json").write_text("{}")
    monkeypatch.setenv(PREFIX + "SYNC_MOD", "mirror")
    monkeypatch.setenv(PREFIX + "ZZZ", "x")
    files = [str(tmp_path / "config.json")]
    monkeypatch.delenv("MELTANO_PROJECT_ROOT", raising=False)
    assert {} == sources.read(files)
    monkeypatch.setenv("MELTANO_PROJECT_ROOT", str(tmp_path))
    assert {PREFIX + "SYNC_MOD"} == sources.read(files).keys()
