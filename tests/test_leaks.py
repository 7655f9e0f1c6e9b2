"""Promise 7: nothing leaks. A key and members' ids are planted, and every failure is provoked."""

import json
import os
import stat
from pathlib import Path

import pytest

from target_moengage_cohort.emulator import Emulator
from tests.support.singer import config, finish, lines, record, schema, start, state

KEY = "planted-key-7f3a9c"
MEMBER = 'planted-member-é"x@example.com'
ANONYMOUS = "planted-anonymous-51d2"
SECRETS = (KEY, MEMBER, ANONYMOUS, "planted-member", "planted-anonymous", "example.com")
ROW = {"uid": MEMBER, "anon": ANONYMOUS}
GOOD = (schema(columns=("uid", "anon")), record(**ROW), state({"position": 1}))


def nothing(_emulator):
    """Arrange no fault."""


def echo(emulator, status):
    """Have MoEngage's error quote the request's member in several forms."""
    forms = [MEMBER, json.dumps(MEMBER), MEMBER.upper(), MEMBER[:14], ANONYMOUS, KEY]
    emulator.fail_next(status, message=f"No such users: {'; '.join(forms)}", error_type=MEMBER)


def typed_schema():
    message = schema(columns=("uid", "anon", "age"))
    message["schema"]["properties"]["age"] = {"type": "integer"}
    return message


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
}


@pytest.fixture
def emulator():
    with Emulator(data_api_key=KEY) as running:
        yield running


@pytest.mark.parametrize("name", SCENES)
def test_no_log_error_or_report_shows_a_key_or_an_id(name, tmp_path, emulator):
    """At DEBUG, whatever goes wrong, neither standard error nor output nor the report nor the
    state directory holds a planted key or identifier; what we made is our owner's alone."""
    arrange, messages, extra = SCENES[name]
    arrange(emulator)
    home, report = tmp_path / "home", tmp_path / "report.json"
    paths = {"report_path": str(report)}
    if "on_reject" in extra:
        paths["rejects_path"] = str(tmp_path / "rejects.singer")
    settings = config(emulator, anonymous_id_column="anon") | extra | paths
    process = start(home, settings, TARGET_MOENGAGE_COHORT_LOGLEVEL="DEBUG", LOGLEVEL="DEBUG")
    command = Path(f"/proc/{process.pid}/cmdline")
    arguments = command.read_text() if command.exists() else ""
    out, err = process.communicate(lines(*messages), timeout=60)
    seen = out.decode() + err.decode() + arguments
    seen += report.read_text() if report.exists() else ""
    for path in (home / "state").rglob("*"):
        if path.is_file():
            seen += path.read_bytes().decode(errors="replace")
            assert 0o600 == stat.S_IMODE(path.stat().st_mode)
    assert "| DEBUG " in seen or "Config validation failed" in seen
    assert [] == [secret for secret in SECRETS if secret.lower() in seen.lower()]
    assert "Traceback" not in seen


def test_a_proxy_from_the_environment_never_sees_credentials_for_loopback(tmp_path, emulator):
    """Plain http is for loopback alone, so a proxy for http is not used there."""
    proxy = "http://127.0.0.1:9"  # the discard port: a request that went there would fail
    variables = dict.fromkeys(("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"), proxy)
    process = start(tmp_path / "home", config(emulator), **variables, NO_PROXY="", no_proxy="")
    assert 0 == finish(process, lines(schema(), record(uid="u"))).code
    assert os.environ.get("HTTP_PROXY") != proxy
