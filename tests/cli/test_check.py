"""`moengage-cohort check` against the emulator, prepared responses and real directories."""

import contextlib
import json
import socket
import sqlite3
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import msgspec
import pytest

from target_moengage_cohort.core.membership import Action
from tests.cli.conftest import people
from tests.cli.test_status import contents


@contextlib.contextmanager
def answering(status, body=b"{}"):
    """Run a server that gives every request the same response, and records the requests."""
    requests = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            data = self.rfile.read(int(self.headers["Content-Length"]))
            requests.append((self.path, dict(self.headers), data))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.url = f"http://127.0.0.1:{server.server_address[1]}"
        server.requests = requests
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def output(result):
    """Return the standard output of a command without its line breaks."""
    return " ".join(result.stdout.split())


def errors(result):
    """Return the errors on standard error."""
    return [line for line in result.stderr.splitlines() if line.startswith("Error: ")]


def test_a_valid_configuration_passes(desk):
    """With a valid configuration, check exits with 0 and sends no member."""
    result = desk.run("check")
    assert (0, "") == (result.exit_code, result.stderr)
    assert f"credentials: workspace 'MoEngage emulator' at {desk.emulator.url}" in output(result)
    assert "FAIL" not in output(result)
    assert 0 == desk.emulator.totals().requests


def test_no_file_is_created(desk):
    """check creates neither the ledger's directory nor any other file."""
    desk.raw |= {
        "sync_mode": "mirror",
        "on_reject": "skip",
        "rejects_path": str(desk.folder / "rejects"),
        "report_path": str(desk.folder / "report"),
    }
    result = desk.run("check")
    assert 0 == result.exit_code
    assert "(will be created by the first run)" in output(result)
    assert [desk.folder / "config.json"] == list(desk.folder.rglob("*"))


def test_a_ledger_is_found_or_will_be_created(desk):
    """check tells a ledger that is there from one that the first run creates, and fails if that
    must not be created."""
    assert "(will be created by the first run)" in output(desk.run("check"))
    desk.raw["ledger_create"] = False
    result = desk.run("check")
    assert 1 == result.exit_code
    assert "FAIL ledger: ledger_create: is false" in output(result)
    del desk.raw["ledger_create"]
    desk.fill("vip", people(1))
    desk.raw["ledger_create"] = False
    result = desk.run("check")
    assert 0 == result.exit_code
    assert "(found)" in output(result)


def test_ledgers_are_unchanged(desk):
    """check reads existing ledgers without changing any file."""
    desk.raw["cohorts"] = {"vip": {"sync_mode": "mirror"}}
    desk.fill("vip", people(*range(50)))
    before = contents(desk.folder / "ledger")
    assert 0 == desk.run("check").exit_code
    assert before == contents(desk.folder / "ledger")


def test_all_faults_are_reported_in_one_pass(desk):
    """Every fault has a line of its own, in the list of checks and on standard error."""
    (desk.folder / "file").write_text("")
    missing = desk.folder / "missing"
    desk.raw |= {
        "data_api_key": "wrong-key",
        "ledger_uri": str(desk.folder / "file" / "ledger"),
        "rejects_path": str(missing / "rejects"),
        "report_path": str(missing / "report"),
        "stream_maps": {"users": {"uid": "1 +"}, "__else__": 7},
    }
    before = sorted(desk.folder.rglob("*"))
    result = desk.run("check")
    assert 1 == result.exit_code
    failed = [line.split(":")[0] for line in result.stdout.splitlines() if "FAIL" in line]
    assert ["credentials", "stream maps", "rejects_path", "report_path", "ledger"] == [
        line.removeprefix("FAIL  ") for line in failed
    ]
    expected = (
        "MoEngage refused the credentials (HTTP 401 Authentication Mismatch",
        "stream_maps: ",
        f"rejects_path: {missing / 'rejects'} cannot be opened",
        f"report_path: {missing / 'report'} cannot be written",
        f"the ledger {desk.folder / 'file' / 'ledger'}",
    )
    for start, line in zip(expected, errors(result), strict=True):
        assert line.startswith(f"Error: {start}")
    assert [*before, desk.folder / "config.json"] == sorted(
        desk.folder.rglob("*"), key=lambda path: path.name == "config.json"
    )


def test_all_grants_are_in_the_list_of_checks(desk, server):
    """A role without privileges reads every `GRANT` in each form of the result."""
    there = server.new_database("grants")
    desk.raw["ledger_uri"] = there.uri
    desk.fill("vip", people(1))
    server.execute("CREATE ROLE without_grants LOGIN; REVOKE ALL ON DATABASE grants FROM PUBLIC")
    server.execute("GRANT CONNECT ON DATABASE grants TO without_grants")
    desk.raw["ledger_uri"] = there.uri.replace(f"{there.user}@", "without_grants@")
    (found,) = (
        each for each in json.loads(desk.run("check", "--json").stdout)["checks"] if not each["ok"]
    )
    assert ["ledger_forbidden"] == [each["code"] for each in found["errors"]]
    shown = desk.run("check")
    for text in (found["message"], output(shown), *errors(shown)):
        assert 3 == text.count("GRANT ")


def test_invalid_settings_are_all_reported(desk):
    """Each invalid setting has a line, and no request is made to MoEngage."""
    with answering(200) as server:
        desk.raw |= {"api_url": server.url, "data_center": "99", "max_concurrency": 0}
        result = desk.run("check")
        assert [] == server.requests
    assert 1 == result.exit_code
    assert ["Error: data_center", "Error: max_concurrency"] == sorted(
        line.rpartition(": must")[0] for line in errors(result)
    )


@pytest.mark.parametrize(
    ("status", "next_step"),
    [
        (401, "data_api_key"),
        (403, "Cohort Sync"),
        (400, "partner"),
        (404, "api_url"),
        (302, "api_url"),
        (415, "report it"),
        (429, "network"),
        (500, "network"),
        (503, "network"),
    ],
)
def test_a_rejected_login_is_one_fault(desk, status, next_step):
    """Each response but success is a fault that says what to check, after a single request."""
    with answering(status, b'{"status":"fail"}') as server:
        desk.raw["api_url"] = server.url
        result = desk.run("check")
    assert (1, 1) == (result.exit_code, len(server.requests))
    (error,) = errors(result)
    assert f"HTTP {status}" in error
    assert next_step in error
    assert "FAIL  credentials: " in result.stdout


def test_an_unreachable_server_is_a_fault(desk):
    """If no server can be reached, the fault is reported and everything else is checked."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        desk.raw["api_url"] = f"http://127.0.0.1:{free.getsockname()[1]}"
    result = desk.run("check")
    assert 1 == result.exit_code
    assert 1 == len(errors(result))
    assert "FAIL  credentials: " in result.stdout
    assert "Each stream populates" in result.stdout


def test_the_login_request_is_the_documented_one(desk, monkeypatch):
    """The key is in the body and in no header, even if ~/.netrc has credentials."""
    netrc = desk.folder / "netrc"
    netrc.write_text("machine 127.0.0.1 login other password planted-key\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    with answering(200, b'{"status":"success","app_name":"Shop"}') as server:
        desk.raw["api_url"] = server.url
        assert "workspace 'Shop' at" in output(desk.run("check"))
    ((path, headers, body),) = server.requests
    assert "/v1/integrations/authentication" == path
    assert {
        "app_id": desk.raw["workspace_id"],
        "app_secret": desk.raw["data_api_key"],
        "source": "acme",
        "region": "01",
    } == json.loads(body)
    assert desk.raw["workspace_id"] == headers["MOE-APPKEY"]
    assert "Authorization" not in headers


@pytest.mark.parametrize("status", [200, 400, 401, 500])
def test_an_answer_that_quotes_the_key(desk, status):
    """A key that MoEngage's response quotes is redacted; see the fixture."""
    key = desk.raw["data_api_key"]
    answer = {"status": "success" if status == 200 else "fail", "app_name": f"Shop {key}"}
    answer["error"] = {"message": f"the key {key} is bad", "type": key}
    with answering(status, json.dumps(answer).encode()) as server:
        desk.raw["api_url"] = server.url
        result = desk.run("check")
    assert "[redacted]" in result.output


def test_each_mode_is_described(desk):
    """Each stream is described: cohort, mode, identifiers, proof, guard, and when it sends."""
    desk.raw["cohorts"] = {
        "a": {"cohort_id": "vip", "cohort_name": "VIP users", "membership_column": "is_vip"},
        "b": {"sync_mode": "add", "deleted_at_column": "gone"},
        "c": {"sync_mode": "remove", "uid_column": "user", "anonymous_id_column": "device"},
        "d": {"sync_mode": "mirror", "expected_count_column": "n", "max_addition_percent": 50},
        "e": {"sync_mode": "mirror", "removals": "deferred", "cohort_id_column": "segment"},
        "f": {"sync_mode": "one_time", "membership_column": "is_in", "deleted_at_column": "out"},
    }
    desk.raw["dry_run"] = True
    description = output(desk.run("check"))
    for text in (
        "Stream 'a' populates cohort 'VIP users', ID 'vip'",
        "'is_vip' defines whether a row adds or removes",
        "Stream 'b' populates cohort 'b' mode add: each row adds its member; a row with",
        "a row with _sdc_deleted_at or 'gone' is skipped",
        "as a non-member counts as absent. A row with a time in 'out' counts as absent",
        "remove: each row removes its member; no members are added. members 'user' has the user ID",
        "'user' has the user ID, 'device' the anonymous ID.",
        "proof the number of rows must equal column 'n'; otherwise no members are removed",
        "one run removes at most 10 percent of a cohort (max_removal_percent), or 20 members",
        "it grows an existing cohort by at most 50 percent",
        "Stream 'e' populates several cohorts: column 'segment' has the ID, the ID is also the",
        "proof an ACTIVATE_VERSION from the tap, or the tap's exit code under moengage-cohort run",
        "run: moengage-cohort confirm e",
        "one_time: the stream is the whole cohort; its members are added, and no members are",
        "A row that 'is_in' marks as a non-member counts as absent",
        "whenever a request is full or its oldest change is 60 s old (flush_seconds)",
        "dry_run is set: a run sends nothing and writes no STATE",
    ):
        assert text in description


def test_the_guards_numbers_come_from_the_ledger(desk):
    """A mirror's accepted and unconfirmed members are counted, and those a run may remove."""
    desk.raw["cohorts"] = {"vip": {"sync_mode": "mirror"}, "gold": {"sync_mode": "mirror"}}
    desk.fill("vip", people(*range(50)))
    desk.fill("gold", people(*range(300)))
    with desk.ledger("vip") as ledger:
        ledger.sent(Action.ADD, msgspec.json.encode(people(*range(50, 60))), 10, 1)
    description = output(desk.run("check"))
    assert "60 members now; one run may remove 6, or 20 with proof." in description
    assert "300 members now; one run may remove 30. sent" in description


def test_deferred_removals_count_as_proven(desk):
    """With deferred removals, the limit is that of one confirm."""
    desk.raw["cohorts"] = {"vip": {"sync_mode": "mirror", "removals": "deferred"}}
    desk.fill("vip", people(*range(50)))
    assert "50 members now; one confirm may remove 20." in output(desk.run("check"))


def test_the_largest_cohorts_of_a_fan_out_are_listed(desk):
    """For a stream with many cohorts, the ten largest are listed, and the rest is counted."""
    desk.raw["cohorts"] = {"users": {"cohort_id_column": "segment", "sync_mode": "mirror"}}
    for number in range(12):
        desk.fill(f"segment-{number}", people(*range(number + 1)), stream="users")
    description = output(desk.run("check"))
    assert "ledger 12 cohorts so far." in description
    assert "segment-11: 12 members now; one run may remove 1, or 11 with proof." in description
    assert "segment-1:" not in description
    assert "and 2 more; to see them all: moengage-cohort status --config" in description


def test_a_busy_cohort_is_not_a_fault(desk):
    """If another run has a cohort's ledger open, check passes with the numbers of the last fold."""
    desk.raw["cohorts"] = {"vip": {"sync_mode": "mirror"}}
    desk.fill("vip", people(1))
    with desk.ledger("vip"):
        result = desk.run("check", busy_seconds=1_000_000.0)
    assert (0, "") == (result.exit_code, result.stderr)
    assert "1 member now; one run may remove 0." in output(result)


def test_a_sealed_cohort_is_described(desk):
    """The description of a finished one_time cohort says that nothing more is sent."""
    desk.raw["cohorts"] = {"vip": {"sync_mode": "one_time"}}
    desk.fill("vip", people(1, 2))
    with desk.ledger("vip") as ledger:
        ledger.seal()
    assert "2 members now; it is finished, " in output(desk.run("check"))


def test_unusable_ledgers_are_reported_with_the_usable_ones(desk):
    """Another stream's cohort, a changed name and a broken file are faults; others are listed."""
    for cohort in ("bad", "theirs", "renamed", "good"):
        desk.fill(cohort, people(1), stream="other" if cohort == "theirs" else cohort)
        if cohort == "bad":
            (database,) = (desk.folder / "ledger").rglob("*.duckdb")
    database.write_bytes(b"broken" * 5_000)
    names = ("bad", "theirs", "renamed", "good")
    desk.raw["cohorts"] = {name: {"sync_mode": "mirror"} for name in names}
    desk.raw["cohorts"]["renamed"]["cohort_name"] = "another name"
    result = desk.run("check")
    assert 1 == result.exit_code
    broken, theirs, renamed = errors(result)
    assert f"the ledger {database}" in broken
    assert "moengage-cohort ledger reassign" in theirs
    assert "moengage-cohort ledger rename" in renamed
    assert 3 == output(result).count("cannot be used, so the accepted members are unknown")
    assert "1 member now; one run may remove 0." in output(result)


def test_a_ledger_of_a_newer_version(desk):
    """A ledger of a later version is a fault."""
    desk.raw["cohorts"] = {"vip": {"sync_mode": "mirror"}}
    desk.fill("vip", people(1))
    (path,) = (desk.folder / "ledger").rglob("control.sqlite")
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE store SET format = 99")
    result = desk.run("check")
    assert 1 == result.exit_code
    assert 1 == len(errors(result))


def test_a_rejects_file_that_is_another_file(desk):
    """A rejects_path that is another kind of file is a fault, and the file is unchanged."""
    path = desk.folder / "notes.txt"
    path.write_text("mine, and without an end of line")
    desk.raw["rejects_path"] = str(path)
    result = desk.run("check")
    assert 1 == result.exit_code
    assert f"rejects_path: {path} " in result.stderr
    assert "mine, and without an end of line" == path.read_text()


def test_an_unusable_state_directory_is_a_fault(desk, monkeypatch):
    """If the state directory cannot be created, the error names it and what to set."""
    (desk.folder / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(desk.folder / "file"))
    result = desk.run("check")
    assert 1 == result.exit_code
    (error,) = errors(result)
    assert f"the state directory {desk.folder / 'file'}" in error
    assert "set XDG_STATE_HOME to another directory" in error


def test_the_ledger_is_checked_without_a_mirror(desk):
    """Without a mirror and without ledger_uri the ledger is checked, and no members are kept."""
    del desk.raw["ledger_uri"]
    desk.raw["cohorts"] = {"vip": {}}
    description = output(desk.run("check"))
    assert "ok ledger" in description
    assert "ledger none, so repeated rows are sent again (see ledger_uri)." in description


def test_without_cohorts_all_streams_are_described_once(desk):
    """If cohorts is empty, there is one description, with the ledgers of all cohorts."""
    desk.raw["sync_mode"] = "mirror"
    desk.fill("vip", people(1, 2))
    description = output(desk.run("check"))
    assert "Each stream populates a cohort of the same name" in description
    assert "1 cohort so far. vip: 2 members now" in description


def test_it_fits_a_terminal(desk):
    """Lines have at most 80 columns, however long names are; paths are not broken."""
    long = "n" * 150
    desk.raw["cohorts"] = {
        long: {"cohort_id": "c" * 150, "sync_mode": "mirror", "removals": "deferred"},
        "fan": {"cohort_id_column": "s" * 150, "cohort_name_column": "t", "sync_mode": "mirror"},
    }
    desk.fill("d" * 150, people(1), stream="fan")
    result = desk.run("check")
    assert 0 == result.exit_code
    assert [] == [line for line in result.stdout.splitlines() if len(line) > 80 and "/" not in line]
    assert f"\n      {desk.folder}/ledger/" in result.stdout


def test_control_characters_stay_out_of_the_terminal(desk):
    """Control characters of the workspace's name and of settings are not printed."""
    desk.raw["cohorts"] = {"a\x1b[2Jb": {"cohort_id": "x\x1b[2J", "cohort_name": "plain"}}
    with answering(200, b'{"status":"success","app_name":"A\\u001b[2JB"}') as server:
        desk.raw["api_url"] = server.url
        result = desk.run("check")
    assert "A [2JB" in result.stdout
    assert r"Stream 'a\x1b[2Jb' populates cohort 'plain', ID 'x\x1b[2J'" in result.stdout
    assert "\x1b" not in result.stdout
