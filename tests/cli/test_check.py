"""`moengage-cohort check` against an emulator, prepared answers, and real folders."""

import contextlib
import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from target_moengage_cohort.core.membership import Action
from tests.cli.conftest import people
from tests.cli.test_status import contents


@contextlib.contextmanager
def answering(status, body=b"{}"):
    """A server that answers everything alike, and keeps what it was asked."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            data = self.rfile.read(int(self.headers["Content-Length"]))
            asked.append((self.path, dict(self.headers), data))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.url = f"http://127.0.0.1:{server.server_address[1]}"
        server.asked = asked
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def said(result):
    """What a command says, without the places where lines break."""
    return " ".join(result.stdout.split())


def errors(result):
    return [line for line in result.stderr.splitlines() if line.startswith("Error: ")]


def test_all_is_well(desk):
    """A good configuration exits with 0, and no member was sent, nor a cohort changed."""
    result = desk.run("check")
    assert (0, "") == (result.exit_code, result.stderr)
    assert f"credentials: the workspace 'MoEngage emulator' at {desk.emulator.url}" in said(result)
    assert "mend" not in said(result)
    assert 0 == desk.emulator.totals().requests


def test_nothing_is_made(desk):
    """Neither the ledger's folder nor any other file is there after it that was not before."""
    desk.raw |= {
        "sync_mode": "mirror",
        "on_reject": "skip",
        "rejects_path": str(desk.folder / "rejects"),
        "report_path": str(desk.folder / "report"),
    }
    result = desk.run("check")
    assert 0 == result.exit_code
    assert "(the first run makes it)" in said(result)
    assert [desk.folder / "config.json"] == list(desk.folder.rglob("*"))


def test_a_ledger_stays_as_it_is(desk):
    """check reads the ledgers that are there, and leaves every file as it is."""
    desk.raw["cohorts"] = {"vip": {"sync_mode": "mirror"}}
    desk.fill("vip", people(*range(50)))
    before = contents(desk.folder / "ledger")
    assert 0 == desk.run("check").exit_code
    assert before == contents(desk.folder / "ledger")


def test_all_that_is_wrong_is_told_at_once(desk):
    """Every fault is told, one to a line, each with what to do, and the exit code is 1."""
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
    told = errors(result)
    expected = (
        "MoEngage refused the credentials (HTTP 401 Authentication Mismatch",
        "stream_maps: ",
        f"rejects_path: {missing / 'rejects'} cannot be opened",
        f"report_path: {missing / 'report'} cannot be written",
        f"the ledger's {desk.folder / 'file' / 'ledger'}",
    )
    assert len(expected) == len(told)
    for what, line in zip(expected, told, strict=True):
        assert line.startswith(f"Error: {what}")
    assert [*before, desk.folder / "config.json"] == sorted(
        desk.folder.rglob("*"), key=lambda path: path.name == "config.json"
    )


def test_broken_settings_are_all_told(desk):
    """What breaks a rule of the settings is told in the same way, and MoEngage is not asked."""
    with answering(200) as server:
        desk.raw |= {"api_url": server.url, "data_center": "99", "max_concurrency": 0}
        result = desk.run("check")
        assert [] == server.asked
    assert 1 == result.exit_code
    assert ["Error: data_center", "Error: max_concurrency"] == sorted(
        line.rpartition(": must")[0] for line in errors(result)
    )


@pytest.mark.parametrize(
    ("status", "what", "next_step"),
    [
        (401, "MoEngage refused the credentials (HTTP 401", "check workspace_id, data_api_key"),
        (403, "MoEngage refused the credentials (HTTP 403", "the key may use Cohort Sync"),
        (400, "MoEngage refused to check the credentials: HTTP 400", "check workspace_id"),
        (404, "unexpected answer to the request to check the credentials: HTTP 404", "api_url"),
        (302, "unexpected answer to the request to check the credentials: HTTP 302", "api_url"),
        (415, "MoEngage takes the request to check the credentials for malf", "please report it"),
        (429, "MoEngage could not check the credentials: HTTP 429", "try again in a minute"),
        (500, "MoEngage could not check the credentials: HTTP 500", "try again in a minute"),
        (503, "MoEngage could not check the credentials: HTTP 503", "try again in a minute"),
    ],
)
def test_what_moengage_answers(desk, status, what, next_step):
    """Each answer is told as what it means and what to do, and MoEngage is asked only once."""
    with answering(status, b'{"status":"fail"}') as server:
        desk.raw["api_url"] = server.url
        result = desk.run("check")
    assert (1, 1) == (result.exit_code, len(server.asked))
    (told,) = errors(result)
    assert what in told
    assert next_step in told
    assert "credentials: see below" in result.stdout


def test_a_network_that_is_down(desk):
    """Where nobody listens, that is told, as something to try again; all else is checked."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        desk.raw["api_url"] = f"http://127.0.0.1:{free.getsockname()[1]}"
    result = desk.run("check")
    assert 1 == result.exit_code
    (told,) = errors(result)
    assert "could not check the credentials: the connection failed" in told
    assert "check the network, data_center and api_url" in told
    assert "feeds the cohort of its own name" in said(result)


def test_what_moengage_is_asked(desk, monkeypatch):
    """The request is the documented one: the key is in the body, and in no header, even where
    ~/.netrc has another."""
    netrc = desk.folder / "netrc"
    netrc.write_text("machine 127.0.0.1 login other password planted-key\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    with answering(200, b'{"status":"success","app_name":"Shop"}') as server:
        desk.raw["api_url"] = server.url
        assert "the workspace 'Shop' at" in said(desk.run("check"))
    ((path, headers, body),) = server.asked
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
    """Whatever MoEngage's answer quotes, the key is not shown; see the fixture."""
    key = desk.raw["data_api_key"]
    answer = {"status": "success" if status == 200 else "fail", "app_name": f"Shop {key}"}
    answer["error"] = {"message": f"the key {key} is bad", "type": key}
    with answering(status, json.dumps(answer).encode()) as server:
        desk.raw["api_url"] = server.url
        result = desk.run("check")
    assert "[redacted]" in result.output


def test_each_mode_is_told_in_words(desk):
    """For each stream it is told what it feeds, how, what proves it, and what is sent when."""
    desk.raw["cohorts"] = {
        "a": {"cohort_id": "vip", "cohort_name": "VIP users", "membership_column": "is_vip"},
        "b": {"sync_mode": "add"},
        "c": {"sync_mode": "remove", "uid_column": "user", "anonymous_id_column": "device"},
        "d": {"sync_mode": "mirror", "expected_count_column": "n", "max_addition_percent": 50},
        "e": {"sync_mode": "mirror", "removals": "deferred", "cohort_id_column": "segment"},
        "f": {"sync_mode": "one_time", "membership_column": "is_in"},
    }
    desk.raw["dry_run"] = True
    told = said(desk.run("check"))
    for text in (
        "Stream 'a' feeds the cohort 'VIP users', id 'vip'",
        "each row adds or removes its member, as 'is_vip' says",
        "Stream 'b' feeds the cohort 'b' mode add: each row adds its member, and nobody is removed",
        "remove: each row removes its member, and nobody is added. members 'user' has the user ID",
        "'user' has the user ID, 'device' the anonymous ID.",
        "proof as many rows as the column 'n' says; with more or fewer, nobody is removed",
        "at most 10 percent of a cohort may leave in one run (max_removal_percent), or 20 members",
        "at most 50 percent may join one that is not new",
        "Stream 'e' feeds many cohorts: the column 'segment' has the id, the id is the name, too",
        "proof an ACTIVATE_VERSION from the tap, or the tap's exit code under moengage-cohort run",
        "Removals wait, for an hour, for: moengage-cohort confirm e",
        "one_time: the stream is the whole cohort; its members are added and nobody is removed",
        "A row that says no in 'is_in' counts as absent",
        "whenever a request is full or its oldest change has waited for 60 s (flush_seconds)",
        "dry_run is set: a run sends nothing, and writes no STATE",
    ):
        assert text in told


def test_the_guards_numbers_come_from_the_ledger(desk):
    """A mirror's members are counted, those in doubt, too, and it is told how many may leave."""
    desk.raw["cohorts"] = {"vip": {"sync_mode": "mirror"}, "gold": {"sync_mode": "mirror"}}
    desk.fill("vip", people(*range(50)))
    desk.fill("gold", people(*range(300)))
    with desk.ledger("vip") as ledger:
        ledger.sent(Action.ADD, people(*range(50, 60)), 1)
    told = said(desk.run("check"))
    assert "60 members now, of whom 6 may leave in one run, or 20 with proof." in told
    assert "300 members now, of whom 30 may leave in one run. sent" in told


def test_removals_that_wait_are_judged_as_proven(desk):
    """With removals that wait, what may leave is what one confirm lets go."""
    desk.raw["cohorts"] = {"vip": {"sync_mode": "mirror", "removals": "deferred"}}
    desk.fill("vip", people(*range(50)))
    assert "50 members now, of whom 20 may leave by one confirm." in said(desk.run("check"))


def test_the_cohorts_of_a_fan_out_are_told_one_by_one(desk):
    """Of a stream that feeds many cohorts the ten largest are told, and how many more there are."""
    desk.raw["cohorts"] = {"users": {"cohort_id_column": "segment", "sync_mode": "mirror"}}
    for number in range(12):
        desk.fill(f"segment-{number}", people(*range(number + 1)), stream="users")
    told = said(desk.run("check"))
    assert "ledger 12 cohorts so far." in told
    assert "segment-11: 12 members now, of whom 1 may leave in one run, or 11 with proof." in told
    assert "segment-1:" not in told
    assert "and 2 more; moengage-cohort status has them all." in told


def test_a_cohort_that_is_busy_is_no_fault(desk):
    """A run at work on a cohort keeps its numbers from us, which is told, and nothing else."""
    desk.raw["cohorts"] = {"vip": {"sync_mode": "mirror"}}
    desk.fill("vip", people(1))
    with desk.ledger("vip"):
        result = desk.run("check", busy_seconds=1_000_000.0)
    assert (0, "") == (result.exit_code, result.stderr)
    assert "another run is at work on it" in said(result)


def test_a_sealed_cohort_is_told(desk):
    """Nothing more is sent to a one_time cohort that is done."""
    desk.raw["cohorts"] = {"vip": {"sync_mode": "one_time"}}
    desk.fill("vip", people(1, 2))
    with desk.ledger("vip") as ledger:
        ledger.seal()
    assert "2 members now; it is sealed, so nothing more is sent." in said(desk.run("check"))


def test_ledgers_that_a_run_would_be_refused(desk):
    """Another stream's cohort, a changed name and a broken file are all told, and no good one is
    hidden by them."""
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
    assert 3 == said(result).count("it cannot be used, so who is in the cohort is not known")
    assert "1 member now, of whom 0 may leave in one run." in said(result)


def test_a_ledger_of_a_newer_version(desk):
    """A folder that a later version made is a fault, and it says to upgrade."""
    desk.raw["cohorts"] = {"vip": {"sync_mode": "mirror"}}
    desk.fill("vip", people(1))
    (path,) = (desk.folder / "ledger").rglob("destination.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 99}))
    result = desk.run("check")
    assert 1 == result.exit_code
    (told,) = errors(result)
    assert "made by a newer version" in told


def test_a_rejects_file_that_is_another_file(desk):
    """A file that rejected rows cannot be appended to is told before any row needs it."""
    path = desk.folder / "notes.txt"
    path.write_text("mine, and without an end of line")
    desk.raw["rejects_path"] = str(path)
    result = desk.run("check")
    assert 1 == result.exit_code
    assert f"rejects_path: {path} is not a file of rejected rows" in result.stderr
    assert "mine, and without an end of line" == path.read_text()


def test_a_state_directory_that_cannot_be_made(desk, monkeypatch):
    """Where the rate limit's file has no place, no run can start: that is told, too."""
    (desk.folder / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(desk.folder / "file"))
    result = desk.run("check")
    assert 1 == result.exit_code
    (told,) = errors(result)
    assert "set XDG_STATE_HOME to another one" in told


def test_no_ledger_is_no_fault_where_none_is_needed(desk):
    """Without a mirror and without ledger_uri there is no ledger to check."""
    del desk.raw["ledger_uri"]
    desk.raw["cohorts"] = {"vip": {}}
    told = said(desk.run("check"))
    assert "ok ledger" not in told
    assert "ledger none, so that rows that come again are sent again (see ledger_uri)." in told


def test_without_cohorts_every_stream_is_one(desk):
    """Where no cohorts are set, that is told once, with what the ledger has of all of them."""
    desk.raw["sync_mode"] = "mirror"
    desk.fill("vip", people(1, 2))
    told = said(desk.run("check"))
    assert "Every stream feeds the cohort of its own name, since no cohorts are set" in told
    assert "1 cohort so far. vip: 2 members now" in told


def test_it_fits_a_terminal(desk):
    """Lines have at most 80 columns, however long names are; paths stay whole, to be copied."""
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
    """Neither MoEngage's name of the workspace nor a setting can steer the terminal."""
    desk.raw["cohorts"] = {"a\x1b[2Jb": {"cohort_id": "x\x1b[2J", "cohort_name": "plain"}}
    with answering(200, b'{"status":"success","app_name":"A\\u001b[2JB"}') as server:
        desk.raw["api_url"] = server.url
        result = desk.run("check")
    assert "A [2JB" in result.stdout
    assert r"Stream 'a\x1b[2Jb' feeds the cohort 'plain', id 'x\x1b[2J'" in result.stdout
    assert "\x1b" not in result.stdout
