"""The target as a process: input, output, settings, signals, exit codes."""

import json
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from importlib import metadata, resources

import pytest
from singer_sdk.testing import target_test_streams

from target_moengage_cohort.emulator import Emulator
from target_moengage_cohort.settings.about import json_schema
from target_moengage_cohort.target import TargetMoEngageCohort
from tests.support.singer import (
    config,
    environment,
    finish,
    lines,
    record,
    schema,
    start,
    state,
)


def sync(home, settings, data, *arguments, **variables):
    return finish(start(home, settings, *arguments, **variables), data)


def uids(emulator: Emulator, cohort: str = "users") -> set[str]:
    return {member.uid for member in emulator.members(cohort)}


def test_a_first_sync(tmp_path, emulator):
    """Rows go to the cohort of their stream, and STATE comes out, and nothing else."""
    data = lines(schema(), record(uid="u1"), record(uid=7), state({"a": 1.50}))
    ended = sync(tmp_path, config(emulator), data)
    assert (0, [{"a": 1.5}]) == (ended.code, ended.states)
    assert {"u1", "7"} == uids(emulator)


def test_floats_in_state_survive_to_the_byte(tmp_path, emulator):
    """STATE comes out as it went in, byte for byte."""
    process = start(tmp_path, config(emulator))
    value = b'{"a": 1.10, "b": 12345678901234567890.5, "c": 1e400, "\\u00e9": null}'
    out, _ = process.communicate(b'{"type": "STATE", "value": ' + value + b"}\n", timeout=60)
    assert value + b"\n" == out


@pytest.mark.parametrize("data", [b"", lines(schema())], ids=["nothing", "schema only"])
def test_an_empty_input_is_a_good_run(tmp_path, emulator, data):
    """An input without records exits 0 and sends nothing."""
    report = tmp_path / "report.json"
    ended = sync(tmp_path, config(emulator, report_path=str(report)), data)
    assert (0, []) == (ended.code, ended.states)
    assert [] == emulator.requests()
    assert "succeeded" == json.loads(report.read_text())["status"]


@pytest.mark.parametrize("value", [{}, None], ids=["object", "null"])
def test_an_empty_state_is_never_emitted(tmp_path, emulator, value):
    """An empty STATE would make the next run start over, so it does not come out."""
    data = lines(schema(), record(uid="u"), state({"a": 1}), record(uid="v"), state(value))
    assert [{"a": 1}] == sync(tmp_path, config(emulator), data).states


BAD_LINES = {
    "no JSON": (b'{"type": "RECORD", secret-id', "line 4 of the input: not valid JSON"),
    "broken UTF-8": (b'{"type": "STATE\xff"}', "line 4 of the input: not valid JSON"),
    "no object": (b'["secret-id"]', "line 4 of the input: not a Singer message"),
    "no type": (b'{"stream": "secret-id"}', "line 4 of the input: not a Singer message"),
    "unknown type": (b'{"type": "secret-id"}', "line 4 of the input: unknown message type"),
    "no record": (b'{"type": "RECORD", "stream": "users"}', "line 4 of the input: a RECORD"),
    "no schema yet": (
        lines(record("other", uid="secret-id")).strip(),
        "line 4 of the input: a RECORD of the stream 'other' came before its SCHEMA",
    ),
    "no identifier": (
        lines(record(other="secret-id")).strip(),
        "line 4 of the input: a row of the stream 'users' cannot be delivered: no identifier",
    ),
    "wrong type": (
        lines(record(uid=["secret-id"])).strip(),
        "the column 'uid' is neither text nor a whole number",
    ),
    "too large": (
        lines(record(uid="secret-id" * 20_000)).strip(),
        "the member takes 180010 bytes, and a request has room for",
    ),
    "lacks column": (
        lines(schema(columns=["id"]) | {"stream": "u"}, record("u", id="secret-id")).strip(),
        "uid_column: the stream 'u' has no column 'uid'; it has 'id' (in its SCHEMA and 1 row)",
    ),
}


@pytest.mark.parametrize(("bad", "message"), BAD_LINES.values(), ids=BAD_LINES)
def test_bad_input_is_a_clear_error_and_nothing_is_lost(tmp_path, emulator, bad, message):
    """A bad line ends the run with 1 and a message that names it and none of its values; what
    came before it is delivered and covered, and what comes after it is not."""
    good = (schema(), record(uid="u1"), state({"a": 1}))
    data = lines(*good, bad, record(uid="u2"), state({"a": 2}))
    ended = sync(tmp_path, config(emulator), data)
    assert (1, [{"a": 1}]) == (ended.code, ended.states)
    assert message in ended.stderr
    assert "secret-id" not in ended.stderr
    assert "Traceback" not in ended.stderr
    assert {"u1"} == uids(emulator)


def test_a_schema_that_changes_in_mid_stream_keeps_the_order(tmp_path, emulator):
    """The last change of a member wins across a change of schema, mapped columns included."""
    columns = ("uid", "member")
    data = lines(
        schema(columns=columns),
        record(uid="u1", member=True),
        record(uid="u2", member=False),
        schema(columns=(*columns, "more")),
        record(uid="u1", member=False, more=1),
        record(uid="u2", member=True, more=1),
    )
    settings = config(emulator, cohorts={"users": {"membership_column": "member"}})
    assert 0 == sync(tmp_path, settings, data).code
    assert {"u2"} == uids(emulator)


def test_members_leave_by_deletion_and_by_column(tmp_path, emulator):
    """A deleted row and a row that says no remove their members; sync mode add skips deletions,
    and sync mode remove removes whatever comes."""
    emulator_rows = [
        record(uid="deleted", _sdc_deleted_at="2026-11-22T00:00:00Z"),
        record(uid="stays"),
    ]
    first = lines(schema(), record(uid="deleted"), record(uid="stays"))
    assert 0 == sync(tmp_path, config(emulator), first).code
    assert (
        0 == sync(tmp_path, config(emulator, sync_mode="add"), lines(schema(), *emulator_rows)).code
    )
    assert {"deleted", "stays"} == uids(emulator)
    assert 0 == sync(tmp_path, config(emulator), lines(schema(), *emulator_rows)).code
    assert {"stays"} == uids(emulator)
    mode = config(emulator, sync_mode="remove")
    assert 0 == sync(tmp_path, mode, lines(schema(), record(uid="stays"))).code
    assert set() == uids(emulator)


def test_one_stream_feeds_many_cohorts(tmp_path, emulator):
    """With cohort_id_column each row goes to the cohort it names, by the name it gives."""
    rows = [
        record(cohort="vip", title="VIP users", uid="u1"),
        record(cohort="new", title="New users", uid="u1"),
        record(cohort="vip", title="VIP users", uid="u2"),
    ]
    mapping = {"cohort_id_column": "cohort", "cohort_name_column": "title"}
    data = lines(schema(columns=("cohort", "title", "uid")), *rows)
    assert 0 == sync(tmp_path, config(emulator, cohorts={"users": mapping}), data).code
    names = {cohort.cohort_id: cohort.name for cohort in emulator.cohorts()}
    assert {"vip": "VIP users", "new": "New users"} == names
    assert ({"u1", "u2"}, {"u1"}) == (uids(emulator, "vip"), uids(emulator, "new"))


def test_both_identifiers_go_where_both_are_there(tmp_path, emulator):
    """A member has its uid, its anonymous id, or both, as the row has them."""
    rows = [record(uid="u", anon="a"), record(uid=None, anon="b"), record(uid="v", anon="")]
    settings = config(emulator, anonymous_id_column="anon")
    assert 0 == sync(tmp_path, settings, lines(schema(columns=("uid", "anon")), *rows)).code
    assert {("u", "a"), (None, "b"), ("v", None)} == emulator.members("users")


def test_a_stream_that_is_not_mapped_is_an_error(tmp_path, emulator):
    """With cohorts mapped, another stream ends the run before any of its rows is read."""
    settings = config(emulator, cohorts={"vip": {}})
    ended = sync(tmp_path, settings, lines(schema("users"), record(uid="u")))
    assert 1 == ended.code
    assert "stream 'users' is not mapped under cohorts (mapped: vip)" in ended.stderr
    assert [] == emulator.requests()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"data_center": "07"}, "data_center: must be one of 01, 02"),
        ({"cohorts": {"s": {"cohort_name": "a:b"}}}, "cohorts.s.cohort_name: must not contain ':'"),
        ({"api_url": "http://192.0.2.1"}, "api_url: must be https"),
        ({"max_payload_bytes": 999}, "max_payload_bytes: must be at least 1000"),
        ({"on_reject": "skip"}, "on_reject: skip requires rejects_path"),
        ({"cohorts": {"s": {"uid_colum": "x"}}}, "did you mean 'uid_column'?"),
        (
            {"cohorts": {"s": {"cohort_id": "c"}, "r": {"cohort_id": "c"}}},
            "populate the same cohort 'c'",
        ),
        ({"data_api_key": 12345}, "data_api_key: must be text, not an integer"),
        ({"data_api_key": None}, "data_api_key: is required"),
        ({"rejects_path": "/nowhere/at/all"}, "rejects_path: /nowhere/at/all cannot be opened"),
        ({"report_path": "/nowhere/at/all"}, "report_path: /nowhere/at/all cannot be written"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_wrong_settings_end_the_run_before_a_byte_is_read(tmp_path, emulator, settings, message):
    """A fault in the settings ends the run: no row of its input is looked at."""
    process = start(tmp_path, config(emulator, **settings))
    out, err = process.communicate(b"not JSON\n", timeout=60)
    assert (1, b"") == (process.returncode, out)
    assert message in err.decode()
    assert b"Traceback" not in err
    assert b"not valid JSON" not in err
    assert b"12345" not in err


def test_wrong_settings_end_the_run_although_its_input_never_ends(tmp_path, emulator):
    """After a fault in the settings the tap has some seconds to end, and no more."""
    began = time.monotonic()
    process = start(tmp_path, config(emulator, data_center="07"))
    out, err = process.stdout.read(), process.stderr.read()
    assert (1, b"") == (process.wait(timeout=30), out)
    process.stdin.close()
    assert b"data_center: " in err
    assert time.monotonic() - began < 20


def test_settings_come_from_several_files_and_the_environment(tmp_path, emulator):
    """Later files win over earlier ones, and the environment over both, with cohorts flattened
    as Meltano hands objects over."""
    base = config(emulator, partner="file", flush_seconds=1)
    (tmp_path / "more.json").write_text(json.dumps({"partner": "second", "uid_column": "id"}))
    cohorts = {"public.users.cohort_id": "vip", "public.users.cohort_name": "VIP"}
    ended = sync(
        tmp_path,
        base,
        lines(schema("public.users", ("id",)), record("public.users", id="u")),
        "--config",
        str(tmp_path / "more.json"),
        "--config=ENV",
        TARGET_MOENGAGE_COHORT_COHORTS=json.dumps(cohorts),
        TARGET_MOENGAGE_COHORT_MAX_CONCURRENCY="2",
        TARGET_MOENGAGE_COHORT_SEND_TIMESTAMP="false",
    )
    assert 0 == ended.code, ended.stderr
    (request,) = emulator.requests()
    assert ("second", "vip", "VIP", None) == (
        request.partner,
        request.cohort_id,
        request.cohort_name,
        request.timestamp,
    )


def test_everything_can_come_from_the_environment(tmp_path, emulator):
    """Each setting that takes text in the environment gets its type."""
    variables = {
        f"TARGET_MOENGAGE_COHORT_{name.upper()}": str(value)
        for name, value in config(emulator, dry_run=True).items()
    }
    process = subprocess.run(
        [sys.executable, "-m", "target_moengage_cohort", "--config=ENV"],
        input=lines(schema(), record(uid="u"), state({"a": 1})),
        env=environment(tmp_path, **variables),
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert (0, b"") == (process.returncode, process.stdout)
    assert b"Dry run, nothing sent: a real run would take 1 request " in process.stderr


@pytest.mark.parametrize("content", [b"{no json", b"[]", None], ids=["broken", "list", "missing"])
def test_a_configuration_file_that_cannot_be_used_is_wrong_usage(tmp_path, content):
    """A file that is not a configuration ends with 2; the error names it and shows none of it."""
    path = tmp_path / "settings.json"
    if content is not None:
        path.write_bytes(content)
    command = [sys.executable, "-m", "target_moengage_cohort", "--config", str(path)]
    process = subprocess.run(
        command, input=b"", capture_output=True, timeout=60, check=False, env=environment(tmp_path)
    )
    assert 2 == process.returncode
    assert b"settings.json" in process.stderr
    assert b"Traceback" not in process.stderr
    assert b"no json" not in process.stderr


def test_a_dry_run_tells_the_cost_and_does_nothing(tmp_path, emulator):
    """A dry run sends no request, writes no STATE and no rejects, and reports what it would."""
    report, rejects = tmp_path / "report.json", tmp_path / "rejects.singer"
    settings = config(
        emulator,
        dry_run=True,
        report_path=str(report),
        rejects_path=str(rejects),
        on_reject="skip",
        requests_per_minute=2,
    )
    rows = [record(uid=f"u{number}") for number in range(10)]
    ended = sync(tmp_path, settings, lines(schema(), *rows, record(uid=None), state({"a": 1})))
    assert (0, []) == (ended.code, ended.states)
    assert [] == emulator.requests()
    assert not rejects.exists()
    written = json.loads(report.read_text())
    (cohort,) = written["cohorts"]
    assert ("dry_run", 10, 1, 1) == (
        written["status"],
        cohort["added"],
        cohort["rejected"],
        cohort["requests"],
    )
    assert "less than a minute" in ended.stderr


def test_the_report_has_the_fields_of_the_contract(tmp_path, emulator):
    """The report's names are the design's, and its counts are what happened."""
    report = tmp_path / "report.json"
    emulator.fail_next(500, applied=True)
    rows = [record(uid="u1"), record(uid="u1"), record(uid="u2", _sdc_deleted_at="2026-01-01")]
    data = lines(schema(), *rows, record(uid=None))
    settings = config(
        emulator,
        report_path=str(report),
        on_reject="skip",
        rejects_path=str(tmp_path / "rejects.singer"),
    )
    assert 0 == sync(tmp_path, settings, data).code
    written = json.loads(report.read_text())
    assert 0o600 == stat.S_IMODE(report.stat().st_mode)
    assert {
        "run_id", "version", "started_at", "finished_at", "status", "exit_code", "error",
        "warnings", "destination", "partner", "requests", "retries", "throttled_seconds",
        "alerts", "cohorts",
    } == written.keys()  # fmt: skip
    assert ("succeeded", 3, 1) == (written["status"], written["requests"], written["retries"])
    (cohort,) = written["cohorts"]
    sizes = [request.bytes for request in emulator.requests()]
    assert {
        "cohort_id": "users", "cohort_name": "users", "stream": "users",
        "sync_mode": "incremental", "status": "succeeded", "records": 4, "added": 1,
        "removed": 1, "unchanged": 1, "rejected": 1, "excluded": 0,
        "removals_waiting": 0, "removals_withheld": 0, "plan_id": None,
        "in_doubt": 0, "requests": 3, "bytes": sum(sizes), "complete": "end_of_input",
        "ledger": "none", "desired": None, "accepted": None,
    } == cohort  # fmt: skip


def test_rejected_rows_can_be_replayed(tmp_path, emulator):
    """The rejects file is Singer messages: once the fault is mended, it can be read as it is."""
    rejects = tmp_path / "rejects.singer"
    settings = config(emulator, on_reject="skip", rejects_path=str(rejects))
    data = lines(schema(columns=("uid", "id")), record(uid=None, id="u1"), record(uid="u2", id="x"))
    assert 0 == sync(tmp_path, settings, data).code
    message = json.loads(rejects.read_bytes().splitlines()[1])["record"]
    assert {"uid", "id", "_reject_reason", "_reject_run_id", "_reject_at"} == message.keys()
    assert 0o600 == stat.S_IMODE(rejects.stat().st_mode)
    assert 0 == sync(tmp_path, config(emulator, uid_column="id"), rejects.read_bytes()).code
    assert {"u1", "u2"} == uids(emulator)


def test_the_rejects_file_is_not_read_while_it_is_written(tmp_path, emulator):
    """Replaying the file that rejected rows are appended to would have no end, so it is refused."""
    rejects = tmp_path / "rejects.singer"
    rejects.write_bytes(lines(schema(), record(uid=None)))
    settings = config(emulator, on_reject="skip", rejects_path=str(rejects))
    ended = sync(tmp_path, settings, None, "--input", str(rejects))
    assert 1 == ended.code
    assert "Rename that file" in ended.stderr


def test_a_part_full_body_leaves_though_the_tap_is_silent(tmp_path, emulator):
    """After flush_seconds a part-full body leaves and its STATE comes, with the input open."""
    process = start(tmp_path, config(emulator, flush_seconds=1))
    process.stdin.write(lines(schema(), record(uid="u1"), state({"a": 1})))
    process.stdin.flush()
    assert b'{"a": 1}\n' == process.stdout.readline()
    assert {"u1"} == uids(emulator)
    assert 0 == finish(process).code


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_a_signal_ends_the_run_with_what_is_under_way(tmp_path, emulator, number):
    """A signal lets the request under way end, starts no other, emits the STATE that is covered,
    and exits with 128 + its number."""
    report = tmp_path / "report.json"
    settings = config(emulator, flush_seconds=1, report_path=str(report), max_concurrency=1)
    process = start(tmp_path, settings)
    emulator.hold()
    process.stdin.write(lines(schema(), record(uid="u1"), state({"a": 1})))
    process.stdin.flush()
    emulator.wait_until(lambda totals: totals.most_unanswered == 1)
    process.stdin.write(lines(record(uid="u2"), state({"a": 2})))
    process.stdin.flush()
    process.send_signal(number)
    threading.Timer(0.5, emulator.release).start()
    out, err = process.communicate(timeout=30)
    assert (128 + number, b'{"a": 1}\n') == (process.returncode, out)
    assert b"Traceback" not in err
    assert {"u1"} == uids(emulator)
    written = json.loads(report.read_text())
    assert ("failed", "no") == (written["status"], written["cohorts"][0]["complete"])


def test_an_answer_that_does_not_come_holds_up_a_signal_for_8_seconds(tmp_path, emulator):
    """A request that is not answered is given up after 8 s; its members are reported in doubt."""
    report = tmp_path / "report.json"
    process = start(tmp_path, config(emulator, flush_seconds=1, report_path=str(report)))
    emulator.hold()
    process.stdin.write(lines(schema(), record(uid="u1"), state({"a": 1})))
    process.stdin.flush()
    emulator.wait_until(lambda totals: totals.most_unanswered == 1)
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=30)
    assert (143, b"") == (process.returncode, out)
    assert 1 == json.loads(report.read_text())["cohorts"][0]["in_doubt"]


def test_a_second_signal_ends_the_process(tmp_path, emulator):
    """Whoever sends a second signal does not want to wait for an answer."""
    process = start(tmp_path, config(emulator, flush_seconds=1))
    emulator.hold()
    process.stdin.write(lines(schema(), record(uid="u1")))
    process.stdin.flush()
    emulator.wait_until(lambda totals: totals.most_unanswered == 1)
    began = time.monotonic()
    while process.poll() is None and time.monotonic() - began < 5:
        process.send_signal(signal.SIGTERM)  # the kernel merges those that come too fast
    out, err = process.communicate(timeout=5)
    assert (143, b"") == (process.returncode, out)
    assert b"Traceback" not in err


@pytest.mark.parametrize("fault", ["pace", "429", "503"])
def test_every_wait_ends_at_a_signal(tmp_path, emulator, fault):
    """A signal ends a wait for the rate limit and for a retry at once."""
    limit = 1 if fault == "pace" else 1_000_000
    process = start(tmp_path, config(emulator, flush_seconds=1, requests_per_minute=limit))
    if fault != "pace":
        emulator.fail_next(int(fault), 1_000, headers={"Retry-After": "100"})
    process.stdin.write(lines(schema(), schema("b"), record(uid="u1"), record("b", uid="u1")))
    process.stdin.flush()
    emulator.wait_until(lambda totals: totals.requests >= 1)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=6)
    assert 143 == process.returncode


def test_a_closed_standard_output_is_no_traceback(tmp_path, emulator):
    """When nobody reads STATE any more, the run ends with 1 and a message."""
    process = start(tmp_path, config(emulator))
    process.stdout.close()
    process.stdin.write(lines(schema(), record(uid="u1"), state({"a": 1})))
    process.stdin.close()
    err = process.stderr.read()
    assert 1 == process.wait(timeout=30)
    assert b"standard output was closed" in err
    assert b"Traceback" not in err


@pytest.mark.parametrize("limit", [1_000, 128_000], ids=["small bodies", "full bodies"])
def test_the_sdks_multiple_state_messages(tmp_path, emulator, limit):
    """Every STATE is one of the file's, in its order, covered when written, and the last is the
    file's last (the SDK's own test of this file expects one way of draining)."""
    data = (resources.files(target_test_streams) / "multiple_state_messages.singer").read_bytes()
    settings = config(emulator, uid_column="id", max_payload_bytes=limit)
    ended = sync(tmp_path, settings, data)
    messages = [json.loads(line) for line in data.splitlines()]
    wanted = [message["value"] for message in messages if message["type"] == "STATE"]
    positions = [wanted.index(value) for value in ended.states]
    assert 0 == ended.code
    assert positions == sorted(set(positions))
    assert wanted[-1] == ended.states[-1]
    for letter in "ab":
        cohort = f"test_multiple_state_messages_{letter}"
        assert {str(number) for number in range(1, 7)} == uids(emulator, cohort)


def test_the_abandoned_backoff_is_not_installed():
    """`backoff` is imported from python-backoff, and the abandoned package is not there."""
    with pytest.raises(metadata.PackageNotFoundError):
        metadata.distribution("backoff")
    assert metadata.version("python-backoff")


@pytest.mark.parametrize(
    "name", ["_validate_config", "_setup_signal_handlers", "_env_var_config", "process_lines"]
)
def test_the_sdks_private_hooks_are_still_there(name):
    """The names that `target.py` overrides exist in the SDK; a new SDK without them is noticed."""
    assert hasattr(TargetMoEngageCohort.__mro__[1], name) or any(
        name in vars(parent) for parent in TargetMoEngageCohort.__mro__[1:]
    )


@pytest.mark.parametrize("form", [(), ("--format=json",), ("--format=markdown",)], ids=str)
def test_about_gives_titles_and_descriptions_in_all_formats(form):
    """Each format of --about names every setting with its title and its description."""
    command = [sys.executable, "-m", "target_moengage_cohort", "--about", *form]
    about = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    for name, setting in json_schema()["properties"].items():
        assert name in about
        assert setting["title"] in about
        assert setting["description"] in about


def test_version_names_target_and_sdk():
    """--version shows both versions, and exits 0."""
    command = [sys.executable, "-m", "target_moengage_cohort", "--version"]
    version = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    assert f"target-moengage-cohort v{metadata.version('target-moengage-cohort')}" in version


def test_the_state_directory_is_its_owners_alone(tmp_path, emulator):
    """Promise 7: folders that the target makes are 0700, whatever the umask is."""
    previous = os.umask(0)
    try:
        assert 0 == sync(tmp_path / "home", config(emulator), lines(schema(), record(uid="u"))).code
    finally:
        os.umask(previous)
    folder = tmp_path / "home" / "state" / "target-moengage-cohort"
    assert 0o700 == stat.S_IMODE(folder.stat().st_mode)
    for path in folder.rglob("*"):
        assert (0o700 if path.is_dir() else 0o600) == stat.S_IMODE(path.stat().st_mode)
