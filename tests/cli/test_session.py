"""The parts that all commands of `moengage-cohort` share, mostly as separate processes."""

import contextlib
import json
import signal
import stat
import subprocess
import sys
import threading
import time

import click
import pytest
from click.testing import CliRunner

from target_moengage_cohort import version
from target_moengage_cohort.cli import cli
from target_moengage_cohort.emulator import Emulator
from target_moengage_cohort.emulator.faults import Latency
from tests.cli.conftest import PLANTED, people
from tests.support.project import program
from tests.support.singer import UNLIMITED, config, environment, lines, record, schema

# As at a terminal: in the background, SIGINT may be ignored.
RUN = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "from target_moengage_cohort.cli import main; main()"
)
PREFIX = "TARGET_MOENGAGE_COHORT_"


@pytest.fixture
def launch(desk):
    """Start `moengage-cohort` as a process, with the desk's configuration in a file."""
    processes = []

    def start(*arguments, **variables):
        path = desk.folder / "config.json"
        path.write_text(json.dumps(desk.raw))
        process = subprocess.Popen(
            [sys.executable, "-c", RUN, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(desk.folder, **variables),
            cwd=desk.folder,
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def end(desk, process, text=b""):
    """Wait for a process to exit; return its exit code, output and errors."""
    out, err = (part.decode() for part in process.communicate(text, timeout=30))
    desk.output += out + err
    return process.returncode, out, err


def test_the_configuration_comes_from_the_environment(desk, launch):
    """--config=ENV reads the target's variables, also a mapping flattened to dotted keys."""
    desk.fill("vip", people(1), stream="public-users")
    cohorts = json.dumps({"public-users.cohort_id": "vip"})
    variables = {f"{PREFIX}{name.upper()}": str(value) for name, value in desk.raw.items()}
    process = launch(
        "status", "--config=ENV", "--json", **variables, **{f"{PREFIX}COHORTS": cohorts}
    )
    code, out, _ = end(desk, process)
    assert 0 == code
    assert [("vip", True)] == [
        (cohort["cohort_id"], cohort["fed"]) for cohort in json.loads(out)["cohorts"]
    ]


def test_a_later_file_wins(desk):
    """Several configuration files are merged, and later values win."""
    desk.fill("vip", people(1))
    other = desk.folder / "other.json"
    other.write_text(json.dumps({"workspace_id": "another", "load_method": 1}))
    files = [str(desk.folder / "config.json"), str(other)]
    result = desk.run("status", config_files=files)
    assert 0 == result.exit_code
    assert "No ledgers for partner 'acme'.\n" in result.stdout
    assert "load_method" in result.stderr


@pytest.mark.parametrize(("files", "name"), [([], "--config"), (["missing.json"], "missing.json")])
def test_a_missing_configuration_is_wrong_usage(desk, files, name):
    """Without a readable configuration, a command exits with 2."""
    result = desk.run("status", config_files=files)
    assert 2 == result.exit_code
    assert name in result.stderr


@pytest.mark.parametrize("content", ["{", "[]"])
def test_a_broken_configuration_file_is_wrong_usage(desk, content):
    """A file that is not a JSON object is named, without its content."""
    path = desk.folder / "broken.json"
    path.write_text(content)
    result = desk.run("status", config_files=[str(path)])
    assert 2 == result.exit_code
    assert f"{path} " in result.stderr


def test_each_fault_of_the_settings_has_a_line(desk):
    """All invalid settings are reported in one pass, one per line, without their values."""
    desk.raw |= {"data_center": "09", "max_concurrency": 99}
    result = desk.run("status")
    assert 1 == result.exit_code
    faults = sorted(line.split(" must be")[0] for line in result.stderr.splitlines())
    assert ["Error: data_center:", "Error: max_concurrency:"] == faults


def test_files_are_private(desk, launch):
    """Directories that a command creates are 0700 and files 0600, whatever the umask."""
    (desk.folder / "members.csv").write_text(f"uid\n{PLANTED}1\n")
    process = launch("adopt", "vip", "--csv", "members.csv", "--config", "config.json")
    assert 0 == end(desk, process)[0]
    for path in (desk.folder / "ledger").rglob("*"):
        assert (0o700 if path.is_dir() else 0o600) == stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_stops_a_command_after_the_current_request(desk, launch, number, code):
    """After a signal, the current request is answered and recorded, and no other is started."""
    desk.raw |= {"max_payload_bytes": 1_000, "max_concurrency": 1}
    desk.fill("vip", people(*range(100)))
    before = desk.emulator.totals().requests
    desk.emulator.hold()
    process = launch("empty", "vip", "--yes", "--config", "config.json")
    desk.emulator.wait_until(lambda totals: totals.requests > before)
    process.send_signal(number)
    threading.Timer(0.5, desk.emulator.release).start()
    found, _, err = end(desk, process)
    assert code == found
    assert f"stopped by {number.name}" in err
    assert 1 == len(desk.removals())
    left = desk.accepted("vip")
    assert 0 < len(left) < 100
    assert left == desk.there("vip")
    assert 0 == desk.run("empty", "vip", "--yes").exit_code
    assert set() == desk.there("vip") == desk.accepted("vip")


@pytest.mark.parametrize(
    ("waits_for", "number", "code"),
    [("query", signal.SIGTERM, 143), ("processing", signal.SIGINT, 130)],
)
def test_a_signal_ends_the_wait_of_verify(desk, launch, waits_for, number, code):
    """A signal ends `verify --wait` immediately, whether it waits for a query or to ask again;
    nothing more is asked, and the result is unknown or the last one."""
    options = {"query_seconds": 600} if waits_for == "query" else {"processing_seconds": 600}
    with Emulator(requests_per_minute=UNLIMITED, **options) as desk.emulator:
        uri = desk.raw["ledger_uri"]
        desk.raw = config(desk.emulator, ledger_uri=uri, id_attribute="uid")
        desk.fill("vip", people(1, 2))
        desk.emulator.apis.know([each.uid for each in people(1, 2)])
        process = launch("verify", "vip", "--wait", "30", "--json", "--config", "config.json")
        # The waits to come are 8 seconds and 30.
        last, times = ("status", 3) if waits_for == "query" else ("results", 1)
        apis = desk.emulator.apis
        assert apis.wait_until(
            lambda: times == [each.endpoint for each in apis.calls()].count(last), 30
        )
        began = time.monotonic()
        process.send_signal(number)
        found, out, err = end(desk, process)
        assert code == found
        assert time.monotonic() - began < 5
        assert f"stopped by {number.name}" in err
        assert last == apis.calls()[-1].endpoint
        (result,) = json.loads(out)
        if waits_for == "query":
            assert "interrupted" == result["unknown"]["code"]
        else:
            assert ["missing"] == [each["code"] for each in result["findings"]]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_verify_while_an_answer_hangs(desk, launch, number, code):
    """A signal ends `verify` within seconds while an answer hangs; the report is whole and says
    that all cohorts are unknown, no other file is left, and the next command has the lease."""
    desk.raw |= {"id_attribute": "uid", "request_timeout_seconds": 60}
    for name in ("a", "b"):
        desk.fill(name, people(1, 2))
    desk.emulator.apis.change_faults(lambda faults: faults.slow_down(Latency(3_600)))
    (desk.folder / "report.json").write_text("old")
    before = {*desk.folder.iterdir()}
    words = ("verify", "--json", "--report", "report.json", "--config", "config.json")
    process = launch(*words)
    assert desk.emulator.apis.wait_until(lambda: desk.emulator.apis.calls() != [], 30)
    began = time.monotonic()
    process.send_signal(number)
    found, out, _ = end(desk, process)
    assert code == found
    assert time.monotonic() - began < 15
    results = json.loads((desk.folder / "report.json").read_text())
    assert results == json.loads(out)
    facts = {(each["cohort_id"], each["status"], each["unknown"]["code"]) for each in results}
    assert {("a", "unknown", "interrupted"), ("b", "unknown", "interrupted")} == facts
    assert {path.name for path in {*desk.folder.iterdir()} - before} <= {"config.json", "home"}
    assert (2, 0) == desk.counts("a")


def test_a_stopped_forget_keeps_the_users_that_are_left(desk, launch):
    """If a signal stops forget before all removals are accepted, the ledger keeps the others."""
    desk.raw |= {"max_payload_bytes": 1_000, "max_concurrency": 1}
    users = people(*range(100))
    desk.fill("vip", users)
    (desk.folder / "users.csv").write_text("uid\n" + "".join(f"{each.uid}\n" for each in users))
    before = desk.emulator.totals().requests
    desk.emulator.hold()
    process = launch("forget", "users.csv", "--config", "config.json")
    desk.emulator.wait_until(lambda totals: totals.requests > before)
    process.send_signal(signal.SIGTERM)
    threading.Timer(0.5, desk.emulator.release).start()
    code, _, err = end(desk, process)
    assert 143 == code
    assert "cohort 'vip': the removal was not accepted before the command was stopped" in err
    left = desk.accepted("vip")
    assert 0 < len(left) < 100
    assert left == desk.there("vip")


def test_a_killed_command_can_be_repeated(desk, launch):
    """After a SIGKILL during its requests, the same command completes the rest."""
    desk.raw |= {"max_payload_bytes": 1_000}
    desk.fill("vip", people(*range(100)))
    before = desk.emulator.totals().requests
    desk.emulator.hold()
    process = launch("empty", "vip", "--yes", "--config", "config.json")
    desk.emulator.wait_until(lambda totals: totals.requests > before)
    process.kill()
    process.wait()
    desk.emulator.release()
    assert set(people(*range(100))) == desk.accepted("vip")
    assert 0 == desk.run("empty", "vip", "--yes").exit_code
    assert set() == desk.there("vip") == desk.accepted("vip")


def test_an_interrupt_at_a_prompt_stops_the_command(desk, launch):
    """Ctrl-C at a prompt exits with 130 and changes nothing."""
    desk.fill("vip", people(1))
    process = launch("empty", "vip", "--config", "config.json")
    asked = b""
    while b"[y/N]" not in asked:
        asked += process.stderr.read1()
    for _ in range(60):  # Python misses one that arrives just before it reads
        if process.poll() is not None:
            break
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=5)
    assert 130 == process.returncode
    assert set(people(1)) == desk.there("vip")


def test_an_interrupt_while_a_ledger_is_busy_ends_the_wait(desk, launch):
    """A command that waits for another run says so, and stops at a signal before it gives up."""
    desk.fill("vip", people(1))
    with desk.ledger("vip"):
        process = launch("resync", "vip", "--config", "config.json")
        while len(list((desk.folder / "ledger").rglob("spill-*"))) < 2:  # ours and its
            assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        code, _, err = end(desk, process)
    assert 143 == code
    waiting, last = err.splitlines()
    assert "waiting for it" in waiting
    assert "Error: stopped by SIGTERM" == last


def test_names_that_a_terminal_cannot_show_are_escaped(desk, launch):
    """A name that the encoding of standard output lacks is escaped."""
    desk.fill("vip", people(1), name="Größe Ω")
    process = launch("status", "--config", "config.json", PYTHONIOENCODING="latin-1")
    out, _ = process.communicate(timeout=30)
    assert 0 == process.returncode
    assert b"name: Gr\xf6\xdfe \\u03a9" in out


def test_a_name_that_is_not_utf8_is_wrong_usage(desk, launch):
    """Bytes that are not UTF-8 cannot name a cohort."""
    process = launch("empty", b"vip\xff", "--config", "config.json")
    code, _, err = end(desk, process)
    assert 2 == code
    assert "contains invalid characters" in err


def test_help_lists_every_command(desk):
    """The help of the group lists every command."""
    result = desk.run("--help", config_files=[])
    assert 0 == result.exit_code
    for name in cli.list_commands(click.Context(cli)):
        assert f"  {name} " in result.stdout


def test_a_broken_ledger_is_named(desk):
    """A broken ledger file is named in an error, without a traceback; the exit code is 1."""
    desk.fill("vip", people(1))
    (database,) = (desk.folder / "ledger").rglob("*.duckdb")
    database.write_bytes(b"broken" * 5_000)
    result = desk.run("resync", "vip")
    assert 1 == result.exit_code
    assert str(database) in result.stderr


def test_the_version_is_the_targets():
    """moengage-cohort and target-moengage-cohort print the same version."""
    result = CliRunner().invoke(cli, ["--version"])
    assert (0, f"{version()}\n") == (result.exit_code, result.output)


@pytest.mark.parametrize(
    "arguments",
    [
        ("resync", "--yes"),
        ("empty", "vip", "--yes"),
        ("forget", "-"),
        ("adopt", "vip", "--csv", "config.json"),
        ("ledger", "reassign", "vip", "x"),
        ("ledger", "rename", "vip", "x"),
        ("ledger", "retire", "vip", "--yes"),
        ("ledger", "accept-older"),
        ("ledger", "export", "x.zip"),
        ("ledger", "import", "x.zip"),
        ("ledger", "copy", "x", "y"),
        ("ledger", "reopen", "--yes"),
    ],
)
def test_a_dry_run_changes_nothing(desk, monkeypatch, arguments):
    """With dry_run, every command that makes changes refuses to."""
    monkeypatch.chdir(desk.folder)
    desk.raw["dry_run"] = True
    result = desk.run(*arguments, text="planted-1\n")
    assert 1 == result.exit_code
    assert "dry_run is set, but this command makes changes; unset dry_run first" in result.stderr
    assert not (desk.folder / "ledger").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ("resync", "vip"),
        ("empty", "vip", "--yes"),
        ("ledger", "rename", "vip", "x"),
        ("ledger", "retire", "vip", "--yes"),
        ("ledger", "accept-older", "vip"),
        ("ledger", "check"),
    ],
)
def test_a_busy_ledger_is_left_alone(desk, arguments):
    """While another run has the ledger open, a command that would change it exits with 4."""
    desk.fill("vip", people(1))
    with desk.ledger("vip"):
        assert 4 == desk.run(*arguments).exit_code
    assert (1, 0) == desk.counts("vip")


def test_a_prompt_without_a_terminal_is_wrong_usage(desk):
    """If a command cannot prompt for confirmation, it says how to confirm."""
    desk.fill("vip", people(1))
    result = desk.run("empty", "vip", text="")
    assert 2 == result.exit_code
    assert "cannot prompt for confirmation (no terminal); use --yes" in result.stderr
    assert set(people(1)) == desk.there("vip")


@pytest.mark.parametrize(
    ("level", "logs"), [("debug", {"DEBUG", "INFO"}), ("info", {"INFO"}), ("error", set())]
)
def test_the_environment_sets_the_level_of_the_log(desk, level, logs):
    """LOGLEVEL counts for commands, too: a line for each request at DEBUG, and none at ERROR."""
    path = desk.folder / "config.json"
    path.write_text(json.dumps(desk.raw))
    messages = desk.folder / "messages"
    messages.write_bytes(lines(schema(), record(uid="u")))
    done = subprocess.run(
        [program("moengage-cohort"), "run", "--config", str(path), "--", "cat", str(messages)],
        capture_output=True,
        text=True,
        env=environment(desk.folder, LOGLEVEL=level),
        check=False,
        timeout=60,
    )
    assert 0 == done.returncode
    assert ("DEBUG" in logs) == ("cohortsync: 200, " in done.stderr)
    assert ("INFO" in logs) == ("Succeeded" in done.stderr)
