"""Any configuration results in settings or in an error with a message, never in a traceback."""

import json
import logging
import subprocess
import sys

import pytest
from hypothesis import given, seed
from hypothesis import strategies as st

from target_moengage_cohort.core.errors import SettingsError, TargetError
from target_moengage_cohort.settings import Settings, load
from target_moengage_cohort.settings.declared import MAPPING_KEYS
from target_moengage_cohort.singer.messages import Schema
from target_moengage_cohort.singer.stream_maps import StreamMaps
from tests.support.oddities import SEED, fuzzed
from tests.support.singer import environment

REQUIRED = {"workspace_id": "w", "data_api_key": "k", "data_center": "01", "partner": "p"}
OBJECTS = ("cohorts", "batch_config", "stream_maps", "stream_map_config")
QUIET = logging.getLogger("quiet")
QUIET.propagate = False


def deep(levels, is_object):
    value = 1
    for _ in range(levels):
        value = {"a": value} if is_object else [value]
    return value


def json_text(value):
    try:
        return json.dumps(value)
    except (RecursionError, ValueError):
        return "[" * 9_000


words = st.sampled_from(
    ["uid", "users", "mirror", "a.b", "true", "", "-1", "1e9", "[]", "{}", '{"a":1}', "null", "\0",
     "__NULL__", "__filter__", "__else__", "__source__", "__alias__", "__key_properties__", "1/0",
     "int(uid)", "config['x']", "[1 for", "fake.x()", "__import__('os')", "\ud800", "http://[",
     "file://x", "file://%00", "~nobody/x", "x" * 5_000, "[" * 9_000, '{"a":' * 9_000, "1" * 5_000,
     "storage", "root", "params", "encoding", "." * 50, ".".join("a" * 3_000)]
)  # fmt: skip
numbers = st.sampled_from(
    [10**30, -(10**400), 2**64, 1.5, float("nan"), float("inf"), 10**4_299, True, None, -1, 0]
)
deep_values = st.builds(deep, st.sampled_from([300, 900, 3_000]), st.booleans())
keys = st.sampled_from(sorted(MAPPING_KEYS))
values = st.recursive(
    numbers | words | st.text(max_size=5) | st.integers() | deep_values,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words | keys, inner, max_size=3),
    max_leaves=6,
)
by_name = st.dictionaries(words, st.dictionaries(words | keys, values, max_size=3), max_size=3)
batch_configs = st.fixed_dictionaries(
    {},
    optional={
        "storage": st.fixed_dictionaries({}, optional={"root": values, "params": values}),
        "encoding": values,
        "batch_size": values,
    },
)
SHAPED = {**dict.fromkeys(OBJECTS, by_name), "batch_config": batch_configs}
one_setting = st.sampled_from(Settings.__struct_fields__).flatmap(
    lambda name: (SHAPED.get(name, values) | values).flatmap(
        lambda value: st.sampled_from([{name: value}, {name: json_text(value)}])
    )
)
dotted = st.builds(
    lambda name, parts, value: {".".join([name, *parts]): value},
    st.sampled_from(OBJECTS),
    st.lists(words | keys, min_size=1, max_size=3),
    values,
)
configurations = st.lists(one_setting | dotted, max_size=3).map(
    lambda parts: {name: value for part in parts for name, value in part.items()}
)


def check(odd):
    """Load a configuration, and use it as a run does."""
    messages = []
    try:
        loaded = load(REQUIRED | odd)
        loaded.warn(QUIET)
        loaded.mapping("users")
        if loaded.settings.transforms_records:
            made = StreamMaps(loaded.settings, QUIET)
            made.schema(Schema("users", {"properties": {"uid": {"type": "string"}}}, ["uid"]))
            made.record("users", {"uid": "a"})
    except SettingsError as error:
        messages = [f"{fault.code}: {fault}" for fault in error.faults]
    except TargetError as error:
        messages = [str(error)]
    assert [] == [message for message in messages if not message.strip(": ")]


@seed(SEED)
@fuzzed(300)
@given(configurations)
def test_any_configuration_loads_or_is_a_message(odd):
    """Wrong types, huge values, deep nesting, dotted keys and JSON text load or are reported."""
    check(odd)


NAMED = {
    "deep cohorts": {"cohorts": deep(900, is_object=True)},
    "deep cohorts, as text": {"cohorts": json.dumps(deep(700, is_object=True))},
    "deep stream maps": {"stream_maps": {"users": deep(900, is_object=True)}},
    "deep values for stream maps": {
        "stream_map_config": deep(900, is_object=True),
        "stream_maps": {"users": {"a": "uid"}},
    },
    "dots without end": {"batch_config." + ".".join("a" * 3_000): 1},
    "an expression that is none": {"stream_maps": {"users": {"__filter__": "[1 for"}}},
    "keys of a number": {"stream_maps": {"users": {"__key_properties__": 5}}},
}


@pytest.mark.parametrize("odd", NAMED.values(), ids=NAMED)
def test_odd_configurations_that_have_names(odd):
    """A value that is nested too deeply or refused by the SDK is an error with a message."""
    check(odd)


ODD_FILES = {
    "deep": b"[" * 100_000,
    "deep object": b'{"cohorts":' + b'{"a":' * 400 + b"1" + b"}" * 401,
    "broken UTF-8": b'{"partner":"\xff"}',
    "NUL": b"\0\0\0\0",
    "a list": b"[]",
    "many digits": b'{"requests_per_minute":%b}' % (b"1" * 10_000),
    "half a surrogate pair": b'{"\\ud800":"\\ud800","data_api_key":"\\ud800"}',
    "stream maps of the wrong kind": b'{"stream_maps":{"users":{"__key_properties__":5}}}',
    "50 MB": b'{"partner":"' + b"x" * 50_000_000 + b'"}',
}


@pytest.mark.parametrize("content", ODD_FILES.values(), ids=ODD_FILES)
@pytest.mark.parametrize("program", ["target_moengage_cohort", "target_moengage_cohort.cli"])
def test_odd_configuration_files_are_no_traceback(tmp_path, program, content):
    """A file that is not a configuration ends both commands with a message."""
    path = tmp_path / "config.json"
    path.write_bytes(content)
    start = f"import {program} as p; p.main()"
    arguments = ["--config", str(path)]
    if program.endswith("cli"):
        arguments.insert(0, "status")
    else:
        start = "from target_moengage_cohort.cli.target_command import main; main()"
    ended = subprocess.run(
        [sys.executable, "-c", start, *arguments],
        env=environment(tmp_path),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode in {1, 2}
    assert b"Traceback" not in ended.stderr
    assert b"error" in ended.stderr.lower()
