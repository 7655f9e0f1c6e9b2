"""The schema of the settings, which ``--about`` shows."""

import pytest

from target_moengage_cohort.settings.about import DESCRIPTIONS, json_schema
from target_moengage_cohort.settings.declared import MAPPING_KEYS, SETTING_NAMES

PROPERTIES = json_schema()["properties"]
MAPPING = PROPERTIES["cohorts"]["additionalProperties"]


def test_the_schema_has_what_can_be_set_and_no_more():
    """The schema has every setting and every key of a mapping, but no derived fields."""
    assert SETTING_NAMES == PROPERTIES.keys()
    assert MAPPING_KEYS == MAPPING["properties"].keys()
    assert ([], False) == (MAPPING["required"], MAPPING["additionalProperties"])


@pytest.mark.parametrize("properties", [PROPERTIES, MAPPING["properties"]], ids=["top", "mapping"])
def test_everything_has_a_type_a_title_and_a_description(properties):
    """Every setting has a type other than null, a title and a description."""
    for name, setting in properties.items():
        assert {"type", "title", "description"} <= setting.keys(), name
        assert "anyOf" not in setting
        assert None is not setting.get("default", "")


def test_every_description_belongs_to_a_setting():
    """No description is left over from a removed or renamed setting or key."""
    batch = PROPERTIES["batch_config"]["properties"]
    nested = [batch["encoding"]["properties"], batch["storage"]["properties"]]
    names = {name for each in (PROPERTIES, MAPPING["properties"], batch, *nested) for name in each}
    assert names == DESCRIPTIONS.keys()


def test_a_mapping_has_no_defaults_of_its_own():
    """The defaults of a mapping's keys are the top level's, if they are there, too."""
    keys = MAPPING["properties"].items()
    defaults = {name: key["default"] for name, key in keys if "default" in key}
    assert {"allow_bookmark": False} == defaults


def test_the_schema_marks_the_secrets():
    """Only the keys, and the settings that may open a storage or a server, are secret."""
    keys = ["data_api_key", "segments_api_key", "analytics_api_key"]
    others = ["exclude_path", "ledger_uri", "notify_url", "notify_headers"]
    assert [*keys, *others, "batch_config"] == [
        name for name, setting in PROPERTIES.items() if setting.get("secret")
    ]
    storage = PROPERTIES["batch_config"]["properties"]["storage"]["properties"]
    assert ["params"] == [name for name, setting in storage.items() if setting.get("secret")]
