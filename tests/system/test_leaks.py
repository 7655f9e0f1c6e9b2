"""Promise 7: no failure leaks a planted key or the members' planted IDs."""

import gzip
import json
import logging
import os

import pytest

from target_moengage_cohort.core.errors import InternalError, SettingsError
from target_moengage_cohort.emulator import Emulator
from target_moengage_cohort.settings import Settings, load
from tests.support.batches import ARROW, GZIP, JSONL, PARQUET, batch
from tests.support.leaks import ANONYMOUS, KEY, MEMBER, Watched
from tests.support.singer import config, finish, lines, record, run, schema, start, state

ROW = {"uid": MEMBER, "anon": ANONYMOUS}
GOOD = (schema(columns=("uid", "anon")), record(**ROW), state({"position": 1}))


def nothing(_emulator):
    """Inject no fault."""


def echo(emulator, status, count=1, **more):
    """Have MoEngage's error quote the request's member in several forms."""
    forms = [MEMBER, json.dumps(MEMBER), MEMBER.upper(), MEMBER[:14], ANONYMOUS, KEY]
    said = f"No such users: {'; '.join(forms)}"
    emulator.fail_next(status, count, message=said, error_type=MEMBER, **more)


def always(status, **more):
    """Have every request fail so."""
    return lambda emulator: echo(emulator, status, 1_000, **more)


def typed_schema():
    message = schema(columns=("uid", "anon", "age"))
    message["schema"]["properties"]["age"] = {"type": "integer"}
    return message


STOP = {"max_retry_seconds": 0}
MANY = [record(uid=f"{MEMBER}{number}", anon=f"{ANONYMOUS}{number}") for number in range(9)]

SCENES = {
    "good run": (nothing, GOOD, {}),
    "400 that quotes": (lambda emulator: echo(emulator, 400), GOOD, {}),
    "401 that quotes": (lambda emulator: echo(emulator, 401), GOOD, {}),
    "500 that quotes": (lambda emulator: echo(emulator, 500), GOOD, {}),
    "404 that quotes": (lambda emulator: echo(emulator, 404), GOOD, {}),
    "413 of one member": (lambda emulator: echo(emulator, 413), GOOD, {}),
    "dropped connection": (lambda emulator: emulator.drop_next(), GOOD, {}),
    "line that is no JSON": (nothing, (*GOOD, f"{MEMBER} {KEY}".encode()), {}),
    "message of unknown type": (nothing, (*GOOD, {"type": MEMBER}), {}),
    "id of a wrong type": (nothing, (*GOOD, record(uid=[MEMBER])), {}),
    "record that lacks a key": (
        nothing,
        (schema(columns=("uid", "id"), keys=("id",)), record(uid=MEMBER)),
        {"anonymous_id_column": None},
    ),
    "rejected and skipped": (
        nothing,
        (*GOOD, record(uid=[MEMBER], anon=ANONYMOUS)),
        {"on_reject": "skip"},
    ),
    "too large": (nothing, (*GOOD, record(uid=MEMBER * 10_000)), {}),
    "schema broken": (
        nothing,
        (typed_schema(), record(**ROW, age=MEMBER)),
        {"validate_records": True},
    ),
    "stream map that fails": (
        nothing,
        (*GOOD[:1], record(**ROW)),
        {"stream_maps": {"users": {"uid": "int(uid)"}}},
    ),
    "stream map that works": (
        nothing,
        GOOD,
        {"stream_maps": {"users": {"uid": "uid.lower()", "__filter__": "uid != 'x'"}}},
    ),
    "key of a wrong type": (nothing, GOOD, {"data_api_key": [KEY]}),
    "key in the URL": (nothing, GOOD, {"api_url": f"https://w:{KEY}@host"}),
    "403 that quotes": (always(403), GOOD, {}),
    "415 that quotes": (always(415), GOOD, {}),
    "429 that quotes": (always(429, headers={"Retry-After": "1"}), GOOD, STOP),
    "429 with odd headers": (always(429, headers={"Retry-After": MEMBER}), GOOD, STOP),
    "500 for good": (always(500), GOOD, STOP),
    "503 for good": (always(503), GOOD, STOP),
    "413 for good": (always(413), (*GOOD[:1], *MANY), {}),
    "400 for good": (always(400), (*GOOD[:1], *MANY), {}),
    "an answer that is no JSON": (always(400, body=f"<p>{MEMBER} {KEY}"), GOOD, {}),
    "redirected to an id": (always(302, headers={"Location": f"/{KEY}"}), GOOD, {}),
    "dropped for good": (lambda emulator: emulator.drop_next(1_000, when="after"), GOOD, STOP),
    "ledger at a file": (nothing, GOOD, {"ledger_uri": "{folder}/config.json"}),
    "ledger below a file": (nothing, GOOD, {"ledger_uri": "{folder}/config.json/x"}),
    "mirror": (nothing, GOOD, {"sync_mode": "mirror"}),
    "mirror that fails": (always(500), GOOD, {"sync_mode": "mirror", **STOP}),
    "mirror cut off": (nothing, (*GOOD, f"{MEMBER}".encode()), {"sync_mode": "mirror"}),
    "bookmark": (
        nothing,
        (*GOOD, state({"bookmarks": {"users": {"replication_key_value": MEMBER}}})),
        {"sync_mode": "mirror"},
    ),
    "row count that is an id": (
        nothing,
        (*GOOD[:1], record(**ROW | {"anon": "x"})),
        {
            "anonymous_id_column": None,
            "cohorts": {"users": {"sync_mode": "mirror", "expected_count_column": "anon"}},
        },
    ),
    "membership that is an id": (
        nothing,
        GOOD[:2],
        {"anonymous_id_column": None, "cohorts": {"users": {"membership_column": "anon"}}},
    ),
    "rejects on a full disk": (
        nothing,
        (*GOOD, record(uid=[MEMBER], anon=ANONYMOUS * 5_000)),
        {"on_reject": "skip"},
    ),
    "stream map with an expression that quotes": (
        nothing,
        GOOD,
        {"stream_maps": {"users": {"uid": "config['x'] + uid + str(1/0)"}}},
    ),
    "stream map's configuration": (
        nothing,
        GOOD,
        {
            "stream_maps": {"users": {"x": "int(config['hash_seed'])"}},
            "stream_map_config": {"hash_seed": KEY},
        },
    ),
    "flattened": (
        nothing,
        (*GOOD[:1], record(uid={"a": MEMBER}, anon=[ANONYMOUS])),
        {"flattening_enabled": True, "flattening_max_depth": 2},
    ),
    "validation of all": (
        nothing,
        (
            {**typed_schema(), "schema": {"properties": {"uid": {"enum": [1]}, "anon": {}}}},
            record(**ROW),
        ),
        {"validate_records": True, "on_reject": "skip"},
    ),
    "batch of broken lines": (nothing, (*GOOD[:1], batch(JSONL, "{folder}/broken.json")), {}),
    "batch of bad rows": (
        nothing,
        (*GOOD[:1], batch(JSONL, "{folder}/rows.json")),
        {"on_reject": "skip"},
    ),
    "batch cut off": (nothing, (*GOOD[:1], batch(GZIP, "{folder}/cut.gz")), {}),
    "batch that is no parquet": (nothing, (*GOOD[:1], batch(PARQUET, "{folder}/broken.json")), {}),
    "batch that is no arrow": (nothing, (*GOOD[:1], batch(ARROW, "{folder}/broken.json")), {}),
    "batch in a storage with a key": (
        nothing,
        (*GOOD[:1], batch(JSONL, "x.json")),
        {"batch_config": {"storage": {"root": f"nope://u:{KEY}@h", "params": {"key": KEY}}}},
    ),
    "batch with signed URLs": (
        nothing,
        (*GOOD[:1], batch(JSONL, f"nope://u:{KEY}@h/x?s={KEY}")),
        {},
    ),
    "two names for a cohort": (
        nothing,
        (
            schema(columns=("uid", "anon", "c")),
            record(uid=MEMBER, anon="A", c="c"),
            record(uid=MEMBER, anon="B", c="c"),
        ),
        {
            "anonymous_id_column": None,
            "cohorts": {"users": {"cohort_id_column": "c", "cohort_name_column": "anon"}},
        },
    ),
    "alert that nobody takes": (
        always(401),
        GOOD,
        {"notify_url": f"http://127.0.0.1:9/{KEY}", "notify_headers": {"Authorization": KEY}},
    ),
    "alert of a plan": (
        nothing,
        (*GOOD[:1], *MANY[:1]),
        {
            "notify_url": f"http://127.0.0.1:9/{KEY}",
            "cohorts": {"users": {"sync_mode": "mirror", "anonymous_id_column": "anon"}},
            "on_missing_stream": "fail",
        },
    ),
    "excluded members": (nothing, GOOD, {"exclude_path": "{folder}/excluded.csv"}),
    "excluded members that are broken": (nothing, GOOD, {"exclude_path": "{folder}/broken.json"}),
    "excluded members that are nowhere": (nothing, GOOD, {"exclude_path": f"/{KEY}/x.csv"}),
    "excluded members with a signed URL": (
        nothing,
        GOOD,
        {"exclude_path": f"http://127.0.0.1:9/x?s={KEY}"},
    ),
    "every setting of a wrong type": (
        nothing,
        GOOD,
        {name: [KEY, {"x": KEY}] for name in Settings.__struct_fields__ if "_path" not in name},
    ),
}
SDKS = (
    "400 that quotes",
    "500 for good",
    "dropped for good",
    "mirror",
    "schema broken",
    "stream map that fails",
    "stream map's configuration",
    "key of a wrong type",
    "batch of bad rows",
)
"""Scenes that are played with the SDK's logging set up, too."""


@pytest.fixture
def emulator():
    with Emulator(data_api_key=KEY) as running:
        yield running


def put_files(folder):
    """Write files with planted IDs, for BATCH messages."""
    (folder / "broken.json").write_text(f'{{"uid": {MEMBER} "{KEY}"\n' * 9)
    (folder / "excluded.csv").write_text(f"uid,anonymous_id\n{MEMBER},{ANONYMOUS}\n")
    rows = ({"uid": [MEMBER], "anon": ANONYMOUS}, {"uid": MEMBER, "anon": {"a": ANONYMOUS}})
    (folder / "rows.json").write_bytes(lines(*rows))
    packed = gzip.compress(lines(*({"uid": f"{MEMBER}{n}"} for n in range(500))))
    (folder / "cut.gz").write_bytes(packed[:-40])


@pytest.mark.parametrize(
    ("name", "has_sdk_log"),
    [*((name, False) for name in SCENES), *((name, True) for name in SDKS)],
)
def test_no_log_error_or_report_shows_a_key_or_an_id(name, has_sdk_log, tmp_path, emulator):
    """At DEBUG and after any failure, only ledger and rejects contain a planted key or identifier,
    and all created files are private."""
    arrange, messages, extra = SCENES[name]
    arrange(emulator)
    watched = Watched(tmp_path)
    put_files(watched.inputs)
    settings = config(emulator, anonymous_id_column="anon") | extra
    settings |= {"report_path": str(watched.report)}
    if "skip" in extra.values():
        settings["rejects_path"] = str(watched.rejects)
    text = json.dumps(
        [settings, [each if isinstance(each, dict) else each.decode() for each in messages]]
    )
    settings, messages = json.loads(text.replace("{folder}", str(watched.inputs)))
    data = lines(*(each if isinstance(each, dict) else each.encode() for each in messages))
    watched.run(
        settings, data, sdk_log=has_sdk_log, largest_file=64 if "full disk" in name else None
    )
    assert "INFO" in watched.seen or "ERROR" in watched.seen
    watched.check()


@pytest.mark.parametrize("status", [200, 400, 500])
def test_the_debug_line_of_a_request_shows_no_key_or_id(status, tmp_path, emulator):
    """At DEBUG each request has a line with its status, and none shows what the body contains."""
    if status != 200:
        always(status)(emulator)
    watched = Watched(tmp_path)
    data = lines(schema(columns=("uid", "anon")), record(uid=MEMBER, anon=ANONYMOUS))
    watched.run(config(emulator, anonymous_id_column="anon", max_retry_seconds=0), data)
    assert f"POST /v1/integrations/cohortsync: {status}, " in watched.seen
    watched.check()


def test_a_proxy_from_the_environment_never_sees_credentials_for_loopback(tmp_path, emulator):
    """Plain http is for loopback alone, so a proxy for http is not used there."""
    proxy = "http://127.0.0.1:9"  # the discard port: a request to it would fail
    variables = dict.fromkeys(("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"), proxy)
    process = start(tmp_path / "home", config(emulator), **variables, NO_PROXY="", no_proxy="")
    assert 0 == finish(process, lines(schema(), record(uid="u"))).code
    assert os.environ.get("HTTP_PROXY") != proxy


@pytest.mark.parametrize("odd", [KEY, [KEY], {"x": KEY}], ids=["text", "list", "object"])
@pytest.mark.parametrize("name", Settings.__struct_fields__)
def test_a_key_in_another_setting_is_not_shown(name, odd):
    """A key in the wrong setting appears in no error."""
    raw = {"workspace_id": "w", "data_api_key": "k", "data_center": "01", "partner": "p"}
    try:
        shown = repr(load(raw | {name: odd}).unknown)
    except SettingsError as error:
        shown = str(error)
    assert KEY not in shown


def test_an_internal_error_shows_nothing_of_what_it_quotes(emulator, caplog, capfd):
    """An unexpected error, wherever it is raised, shows only its place."""

    def fail(*_: object) -> None:
        raise ValueError(MEMBER, KEY)

    with caplog.at_level(logging.DEBUG):
        for step in (
            {"write_state": fail},
            {"before": fail},
            {"step": fail, "sync_mode": "mirror"},
        ):
            seen = run(emulator, lines(*GOOD), anonymous_id_column="anon", **step)
            assert isinstance(seen.error, InternalError)
            assert "ValueError: this is a bug in target-moengage-cohort" in str(seen.error)
            assert "planted" not in str(seen.error)
    shown = caplog.text + "".join(capfd.readouterr())
    assert "planted" not in shown
