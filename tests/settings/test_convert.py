from __future__ import annotations

import pytest

from target_moengage_cohort.settings.convert import nearest_name
from tests.settings.support import faults, messages, settings

LIMITS = {
    "requests_per_minute": (1, 1_000_000),
    "max_payload_bytes": (1_000, 131_072),
    "max_concurrency": (1, 16),
    "request_timeout_seconds": (1, 600),
    "max_retry_seconds": (0, 86_400),
    "flush_seconds": (1, 86_400),
    "max_removal_percent": (0, 100),
}


@pytest.mark.parametrize("name", LIMITS)
@pytest.mark.parametrize("form", [int, str, "{}.0".format], ids=["number", "text", "as a float"])
def test_limits_have_ends(name, form):
    """A limit at either end of its range is accepted, also as text, and one beyond is refused."""
    least, most = LIMITS[name]
    assert [least, most] == [getattr(settings(**{name: form(end)}), name) for end in LIMITS[name]]
    assert [f"{name}: must be at least {least}"] == messages(**{name: form(least - 1)})
    assert [f"{name}: must be at most {most}"] == messages(**{name: form(most + 1)})


@pytest.mark.parametrize("value", [-1, "-1"], ids=repr)
@pytest.mark.parametrize("name", ["max_addition_percent", "flattening_max_depth"])
def test_optional_limits_have_a_lower_end(name, value):
    """An optional limit also has a range."""
    assert [f"{name}: must be at least 0"] == messages(**{name: value})
    assert 10**30 == getattr(settings(**{name: 10**30}), name)


@pytest.mark.parametrize(
    "value", [True, "many", "10%", 1.5, "1.5", [1], float("nan"), "1" * 5_000], ids=str
)
@pytest.mark.parametrize("name", ["max_concurrency", "max_addition_percent"])
def test_a_limit_is_an_integer(name, value):
    """Any value that is not an integer is refused."""
    assert [("invalid_value", name)] == faults(**{name: value})
    assert messages(**{name: value})[0].startswith(f"{name}: must be an integer, not ")


@pytest.mark.parametrize(
    ("expected", "value"),
    [
        *((True, value) for value in (True, "true", "True", "1", 1, "yes", "ON")),
        *((False, value) for value in (False, "false", "FALSE", "0", 0, "no", "Off")),
    ],
    ids=repr,
)
def test_switches_may_be_words(expected, value):
    """A switch from the environment is a word."""
    assert expected is settings(dry_run=value).dry_run


@pytest.mark.parametrize("value", ["maybe", 2, 1.5, [True], {"a": 1}], ids=repr)
def test_a_switch_is_a_boolean(value):
    """Any value other than a switch's words is refused."""
    assert [("invalid_value", "dry_run")] == faults(dry_run=value)


@pytest.mark.parametrize("text", ["no", "on", "Yes", "true", "1", " a ", "null", "{}"])
def test_text_stays_as_it_is(text):
    """In a text setting, words of a switch and digits are kept as text."""
    loaded = settings(uid_column=text, cohorts={"s": {"cohort_id": text}})
    assert (text, text) == (loaded.uid_column, loaded.cohorts["s"].cohort.cohort_id)


@pytest.mark.parametrize("name", ["workspace_id", "data_api_key", "partner", "rejects_path"])
@pytest.mark.parametrize("value", [12, ["k"], {"a": 1}, True, "\ud800", "a\0b"], ids=repr)
def test_text_is_text(name, value):
    """Other types, and characters that UTF-8 or a path cannot have, are refused."""
    assert [("invalid_value", name)] == faults(**{name: value})


@pytest.mark.parametrize("value", ["append", "Mirror", "", 1, ["add"]], ids=repr)
@pytest.mark.parametrize("name", ["sync_mode", "removals", "on_reject"])
def test_a_choice_is_one_of_its_values(name, value):
    """A value that is not among the choices is refused, and an empty one means the default."""
    if value == "":
        assert settings() == settings(**{name: value})
    else:
        assert [("invalid_value", name)] == faults(**{name: value})


def test_a_choice_may_have_space_around_it():
    """Space around a choice is ignored."""
    assert "mirror" == settings(sync_mode=" mirror\n").sync_mode


@pytest.mark.parametrize(
    ("code", "setting", "config"),
    [
        ("invalid_value", "", ["PLANTED"]),
        ("invalid_value", "", "PLANTED"),
        ("invalid_value", "", '["PLANTED"]'),
        ("invalid_value", ".storage", {"storage": "PLANTED"}),
        ("required", ".storage.root", {"storage": {"params": {"secret": "PLANTED"}}}),
        ("required", ".storage.root", {"storage": {"root": ""}}),
        ("invalid_value", ".storage.root", {"storage": {"root": " "}}),
        ("invalid_value", ".storage.root", {"storage": {"root": ["PLANTED"]}}),
        ("invalid_value", ".storage.root", {"storage": {"root": "PLANTED\0"}}),
        ("invalid_value", ".storage.params", {"storage": {"root": "r", "params": "PLANTED"}}),
        ("unknown_key", ".storage", {"storage": {"root": "r", "rooot": "PLANTED"}}),
        ("unknown_key", "", {"storge": "PLANTED"}),
        ("invalid_value", ".encoding.format", {"encoding": {"format": 5}}),
        ("invalid_value", ".batch_size", {"batch_size": "PLANTED"}),
    ],
    ids=str,
)
def test_rules_of_batch_config(code, setting, config):
    """Each rule names the key at any depth, and no error shows a value."""
    assert [(code, f"batch_config{setting}")] == faults(batch_config=config)
    assert "PLANTED" not in messages(batch_config=config)[0]


def test_all_faults_of_an_object_are_reported_in_one_pass():
    """Missing, unknown and wrong keys of one object are separate faults."""
    config = {"storage": {"rooot": "r", "params": 5}}
    where = "batch_config.storage"
    expected = {("invalid_value", f"{where}.params"), ("required", f"{where}.root")}
    assert expected | {("unknown_key", where)} == set(faults(batch_config=config))


def test_the_nearest_name_is_a_similar_one():
    """A name without a similar one has no nearest name."""
    assert "partner" == nearest_name("partnr", ["workspace_id", "partner"])
    assert None is nearest_name("zzzzzz", ["partner"])
