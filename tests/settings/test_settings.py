from __future__ import annotations

import contextlib
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import example, given
from rich.pretty import pretty_repr

from target_moengage_cohort.core.errors import SettingsError
from target_moengage_cohort.settings import is_loopback, load
from target_moengage_cohort.settings.load import MAPPING_KEYS, SETTING_NAMES, nearest

KEY = "Key-0f9a8b7c6d"
BASE = {"workspace_id": "ws", "data_api_key": KEY, "data_center": "02", "partner": "acme"}

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


def faults(**extra) -> tuple[str, ...]:
    with pytest.raises(SettingsError) as raised:
        load(BASE | extra)
    return raised.value.faults


def settings(**extra):
    return load(BASE | extra).settings


@given(configurations, st.booleans())
@example({"cohorts": "[" * 100_000}, True)  # noqa: FBT003
@example({"stream_maps": "\udcff"}, True)  # noqa: FBT003
def test_any_configuration_gives_settings_or_an_error(raw, complete):
    """Whatever JSON a configuration holds, it is loaded or refused with a `SettingsError`."""
    with contextlib.suppress(SettingsError):
        assert load(BASE | raw if complete else raw).settings.base_url.startswith("http")


@given(
    st.sampled_from(sorted(SETTING_NAMES - {"stream_maps", "stream_map_config", "partner"})),
    st.sampled_from(["PLANTED9", ["PLANTED9"], {"PLANTED9": "PLANTED9"}, "http://u:PLANTED9@h"]),
)
def test_no_error_shows_the_key_or_a_url_s_credentials(name, value):
    """An error names setting and rule, and shows neither the API key nor what an address holds."""
    shown = "; ".join(faults(**{name: value, "data_center": "no such"}))
    assert "data_center: must be one of 01, 02, 03, 04, 05, 06, 101" in shown
    assert KEY not in shown
    if name in {"data_api_key", "api_url", "ledger_uri"}:
        assert "PLANTED9" not in shown


@pytest.mark.parametrize(
    "show",
    [repr, str, pretty_repr, "{}".format, "%s".__mod__],
    ids=["repr", "str", "rich", "format", "percent"],
)
def test_nothing_that_prints_settings_shows_the_key(show):
    """Neither Python's nor rich's way of showing an object has the key in it."""
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


@pytest.mark.parametrize(
    ("fault", "config"),
    [
        (": must be an object", "PLANTED"),
        (": must be an object", ["PLANTED"]),
        (".storage: must be an object", {"storage": "PLANTED"}),
        (".storage.root: is required", {"storage": {"params": {"secret": "PLANTED"}}}),
        (".storage.root: is required", {"storage": {"root": ""}}),
        (".storage.root: must not be blank", {"storage": {"root": " "}}),
        (".storage.root: must be of type text, not array", {"storage": {"root": ["PLANTED"]}}),
        (".storage.root: holds characters that are no text", {"storage": {"root": "PLANTED\0"}}),
        (
            ".storage.params: must be of type object, not text",
            {"storage": {"root": "r", "params": "PLANTED"}},
        ),
        (
            ".storage.rooot: is no key of batch_config.storage; did you mean root?",
            {"storage": {"root": "r", "rooot": "PLANTED"}},
        ),
        (".storge: is no key of batch_config; did you mean storage?", {"storge": "PLANTED"}),
        (".encoding.format: must be of type text, not integer", {"encoding": {"format": 5}}),
        (".batch_size: must be of type integer, not text", {"batch_size": "PLANTED"}),
    ],
    ids=lambda value: str(value)[:40],
)
def test_rules_of_batch_config(fault, config):
    """Each rule names the key, in whatever depth it stands, and no error shows a value."""
    assert (f"batch_config{fault}",) == faults(batch_config=config)


def test_what_is_missing_is_told_all_at_once():
    """One error names every required setting that is missing, empty ones included."""
    with pytest.raises(SettingsError) as raised:
        load({"partner": "", "data_center": None})
    names = ("workspace_id", "data_api_key", "data_center", "partner")
    assert tuple(f"{name}: is required" for name in names) == raised.value.faults


@pytest.mark.parametrize(
    ("number", "given"),
    [
        *(("01", given) for given in ("1", 1, "01", "DC-01", "dc01", "DC_1", " dc 1 ")),
        ("101", "101"),
        ("101", 101),
        ("06", "dc-6"),
    ],
    ids=repr,
)
def test_data_centers_are_normalised(number, given):
    """A data centre may be written in every way in which MoEngage's pages write it."""
    assert f"https://api-{number}.moengage.com" == settings(data_center=given).base_url


@pytest.mark.parametrize("given", ["7", "0", "10", "eu", True, 1.0, ["1"], "-1", "https://x"])
def test_an_unknown_data_center_is_never_guessed(given):
    """There is no default: the wrong data centre is somebody else's region."""
    (fault,) = faults(data_center=given)
    assert "data_center: must be one of 01, 02, 03, 04, 05, 06, 101" in fault


@pytest.mark.parametrize(
    "url",
    [
        "https://proxy.example/moengage",
        "http://127.0.0.1:8025",
        "http://[::1]:80",
        "http://LocalHost",
    ],
)
def test_base_urls_are_https_or_loopback(url):
    """Another base URL is taken without its last slash; plain http on loopback alone."""
    assert url == settings(api_url=f" {url}/\n").base_url


@pytest.mark.parametrize(
    ("rule", "url"),
    [
        ("must be https, since", "http://api-01.moengage.com"),
        ("must be https, since", "http://127.0.0.1.example"),
        ("must be https, since", "http://localhost.example"),
        ("must be https, since", "http://0.0.0.0:80"),
        ("must be an https:// URL", "ftp://127.0.0.1"),
        ("must be an https:// URL", "api-01.moengage.com"),
        ("must be an https:// URL", "https://"),
        ("must not hold credentials", "https://user@example.com"),
        ("must not hold credentials", "http://127.0.0.1@example.com"),
        ("must be ASCII without spaces or backslashes", "http://127.0.0.1\\@example.com"),
        ("must be ASCII without spaces or backslashes", "https://a b"),
        ("must not have a query or a fragment", "https://x/?"),
        ("must not have a query or a fragment", "https://x/#a"),
        ("is no URL", "http://[::1"),
        ("is no URL", "http://127.0.0.1:99999"),
        ("must be of type text, not integer", 5),
    ],
)
def test_other_urls_are_refused(rule, url):
    """Credentials never go over plain http to another machine, nor to a doubtful address."""
    (fault,) = faults(api_url=url)
    assert fault.startswith(f"api_url: {rule}")


@pytest.mark.parametrize(
    ("loopback", "host"),
    [(True, "127.8.9.1"), (True, "::1"), (True, "localhost"), (False, "10.0.0.1"), (False, "")],
)
def test_loopback_is_this_machine_alone(loopback, host):
    """Only a loopback address or the name localhost is this machine itself."""
    assert loopback is is_loopback(host)


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
    """A limit at either end of its range is taken, as text too, and one beyond is refused."""
    least, most = LIMITS[name]
    assert [least, most] == [getattr(settings(**{name: form(end)}), name) for end in LIMITS[name]]
    assert (f"{name}: must be >= {least}",) == faults(**{name: form(least - 1)})
    assert (f"{name}: must be <= {most}",) == faults(**{name: form(most + 1)})


@pytest.mark.parametrize("value", [True, "many", 1.5, "1.5", [1], float("nan")], ids=repr)
def test_a_limit_is_a_whole_number(value):
    """What is no whole number is no limit."""
    (fault,) = faults(max_concurrency=value)
    assert fault.startswith("max_concurrency: must be of type integer, not ")


@pytest.mark.parametrize(
    ("fault", "extra"),
    [
        (
            "sync_mode: must be one of incremental, add, remove, mirror, one_time",
            {"sync_mode": "append"},
        ),
        ("removals: must be one of immediate, deferred", {"removals": "never"}),
        ("max_addition_percent: must be >= 0", {"max_addition_percent": -1}),
        (
            "max_addition_percent: must be of type integer, not text",
            {"max_addition_percent": "10%"},
        ),
        ("on_reject: must be one of fail, skip", {"on_reject": "ignore"}),
        ("on_reject: skip needs rejects_path, so that no row is lost", {"on_reject": "skip"}),
        ("partner: must not be blank", {"partner": " "}),
        ("partner: holds characters that are no text", {"partner": "\ud800"}),
        ("rejects_path: holds characters that are no text", {"rejects_path": "a\0b"}),
        ("workspace_id: must be ASCII without spaces or a colon", {"workspace_id": "a:b"}),
        ("workspace_id: must be of type text, not integer", {"workspace_id": 12}),
        ("data_api_key: must be ASCII without spaces", {"data_api_key": "clé"}),
        ("data_api_key: must be of type text, not array", {"data_api_key": ["k"]}),
        ("dry_run: must be of type boolean, not text", {"dry_run": "maybe"}),
        ("stream_maps: must be of type object, not text", {"stream_maps": "{"}),
        ("flattening_enabled: needs flattening_max_depth", {"flattening_enabled": True}),
        ("cohorts: must be an object: stream → mapping", {"cohorts": ["vip"]}),
        ("cohorts.vip: must be an object", {"cohorts": {"vip": "x"}}),
        (
            "report_path: is the file of rejects_path, whose rows the report would replace",
            {"report_path": "./x/../f", "rejects_path": str(Path.cwd() / "f")},
        ),
    ],
    ids=lambda value: str(value)[:40],
)
def test_rules_of_the_top_level(fault, extra):
    """Each rule has an error that names the setting and the rule."""
    assert (fault,) == faults(**extra)


@pytest.mark.parametrize(
    ("fault", "mapping"),
    [
        ("cohort_name: must not contain ':'; MoEngage may drop", {"cohort_name": "a:b"}),
        ("cohort_id: must not be blank", {"cohort_id": " ", "cohort_name": "n"}),
        ("cohort_id: must be of type text, not integer", {"cohort_id": 5}),
        ("cohort_id: cannot stand beside", {"cohort_id_column": "c", "cohort_id": "x"}),
        ("cohort_name: cannot stand beside", {"cohort_id_column": "c", "cohort_name": "x"}),
        ("cohort_name_column: needs cohort_id_column", {"cohort_name_column": "n"}),
        (
            "sync_mode: must be one of incremental, add, remove, mirror, one_time",
            {"sync_mode": "append"},
        ),
        ("uid_col: is no key of a cohort's mapping; did you mean uid_column?", {"uid_col": "x"}),
        ("zzzz: is no key of a cohort's mapping; known are anonymous_id_column, ", {"zzzz": "x"}),
    ],
    ids=lambda value: str(value)[:40],
)
def test_rules_of_a_mapping(fault, mapping):
    """Each rule of a cohort's mapping names the stream, the key and the rule."""
    (found,) = faults(cohorts={"vip": mapping})
    assert found.startswith(f"cohorts.vip.{fault}")


@pytest.mark.parametrize("key", ["membership_column", "expected_count_column"])
def test_two_roles_of_one_column_are_refused(key):
    """A column that is two things at once is a mistake."""
    what = f"cohorts.vip: uid_column and {key} name the same column 'uid'; change one of them"
    assert (what,) == faults(cohorts={"vip": {key: "uid", "sync_mode": "mirror"}})


@pytest.mark.parametrize(
    ("fault", "first", "second"),
    [
        ("feed one cohort 'x'", {"cohort_id": "x"}, {"cohort_id": "x", "cohort_name": "n"}),
        ("feed one cohort 'one'", {}, {"cohort_id": "one", "cohort_name": "n"}),
        ("give two cohorts one name 'n'", {"cohort_name": "n"}, {"cohort_name": "n"}),
    ],
    ids=["id", "default id", "name"],
)
def test_no_two_streams_share_a_cohort(fault, first, second):
    """Two streams of one cohort, or of one name, are told before anything is read."""
    (found,) = faults(cohorts={"one": first, "two": second})
    assert found.startswith(f"cohorts: the streams 'one' and 'two' {fault}; ")


def test_without_cohorts_every_stream_is_one_by_its_name():
    """No `cohorts`: a stream feeds the cohort of its own name, with the top level's columns."""
    mapping = load(BASE | {"uid_column": "id", "sync_mode": "remove"}).mapping("public-vip")
    assert ("public-vip", "public-vip") == (mapping.cohort.cohort_id, mapping.cohort.name)
    assert ("id", True, "remove") == (mapping.uid_column, mapping.uid_required, mapping.sync_mode)


def test_a_stream_s_own_name_must_be_fit_for_a_cohort():
    """A stream whose name MoEngage would drop needs a cohort_name."""
    with pytest.raises(SettingsError, match=r"a:b\.cohort_name: must not contain ':'"):
        load(BASE).mapping("a:b")


def test_a_stream_that_is_not_listed_is_an_error():
    """With `cohorts`, another stream is refused, and the error names those that are listed."""
    with pytest.raises(SettingsError, match=r"the stream 'b' is not listed \(a are\)"):
        load(BASE | {"cohorts": {"a": {}}}).mapping("b")


@pytest.mark.parametrize(
    ("required", "top", "mapping"),
    [
        (True, {}, {}),
        (False, {"anonymous_id_column": "a"}, {}),
        (False, {}, {"anonymous_id_column": "a"}),
        (True, {"anonymous_id_column": "a", "uid_column": "uid"}, {}),
        (True, {"anonymous_id_column": "a"}, {"uid_column": "uid"}),
    ],
    ids=["default", "anonymous", "anonymous in mapping", "by hand", "by hand in mapping"],
)
def test_when_the_uid_column_must_exist(required, top, mapping):
    """The uid column must be there if set by hand, or if nothing else identifies a member."""
    loaded = load(BASE | top | {"cohorts": {"s": mapping}})
    assert required is loaded.mapping("s").uid_required


def test_unknown_settings_are_told_with_the_nearest_name():
    """A name that is no setting is handed on for a warning, without its value."""
    loaded = load(BASE | {"data_api_kye": "x", "zzzzzz": 1})
    assert {"data_api_kye": "data_api_key", "zzzzzz": None} == loaded.unknown
    assert None is nearest("zzzzzz", ["partner"])
