"""What all commands of `moengage-cohort` share, mostly as processes of their own."""

import contextlib
import json
import signal
import stat
import subprocess
import sys
import threading

import click
import pytest
from click.testing import CliRunner

from target_moengage_cohort import version
from target_moengage_cohort.cli import cli
from tests.cli.conftest import PLANTED, people
from tests.support.singer import environment

# As at a terminal: whoever started us in the background may have had SIGINT ignored.
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
    """Wait for a process's end; return its exit code, output and errors."""
    out, err = (part.decode() for part in process.communicate(text, timeout=30))
    desk.said += out + err
    return process.returncode, out, err


def test_the_configuration_comes_from_the_environment(desk, launch):
    """--config=ENV reads the target's variables, as a utility in Meltano has nothing else, and
    a mapping flattened to dotted keys."""
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
    """Several configuration files are one, as for the target."""
    desk.fill("vip", people(1))
    other = desk.folder / "other.json"
    other.write_text(json.dumps({"workspace_id": "another", "workspce": 1}))
    files = [str(desk.folder / "config.json"), str(other)]
    result = desk.run("status", config_files=files)
    assert 0 == result.exit_code
    assert "No cohort of this partner has one." in result.stdout
    assert "workspce: is no setting of the target; did you mean workspace_id?" in result.stderr


@pytest.mark.parametrize(
    ("files", "text"),
    [
        ([], "Missing option '--config'"),
        (["nowhere.json"], "nowhere.json cannot be read (No such file or directory)"),
    ],
)
def test_a_missing_configuration_is_wrong_usage(desk, files, text):
    """Without a configuration that can be read, a command exits with 2."""
    result = desk.run("status", config_files=files)
    assert 2 == result.exit_code
    assert text in result.stderr


@pytest.mark.parametrize("content", ["{", "[]"])
def test_a_broken_configuration_file_is_wrong_usage(desk, content):
    """A file that holds no JSON object is told without its content."""
    path = desk.folder / "broken.json"
    path.write_text(content)
    result = desk.run("status", config_files=[str(path)])
    assert 2 == result.exit_code
    assert f"{path} " in result.stderr


def test_each_fault_of_the_settings_has_a_line(desk):
    """All faults are told at once, each on a line of its own, and none shows a value."""
    desk.raw |= {"data_center": "09", "max_concurrency": 99}
    result = desk.run("status")
    assert 1 == result.exit_code
    faults = sorted(line.split(" must be")[0] for line in result.stderr.splitlines())
    assert ["Error: data_center:", "Error: max_concurrency:"] == faults


def test_what_a_command_makes_is_its_owners_alone(desk, launch):
    """Whatever the umask, the folders that a command makes are 0700 and its files 0600."""
    (desk.folder / "members.csv").write_text(f"uid\n{PLANTED}1\n")
    process = launch("adopt", "vip", "--csv", "members.csv", "--config", "config.json")
    assert 0 == end(desk, process)[0]
    for path in (desk.folder / "ledger").rglob("*"):
        assert (0o700 if path.is_dir() else 0o600) == stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_a_command_after_the_request_under_way(desk, launch, number, code):
    """A signal lets the request under way be answered and recorded, and no other one start."""
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


def test_a_killed_command_can_be_repeated(desk, launch):
    """After a SIGKILL in the middle of its requests, the same command does what was left."""
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


def test_an_interrupt_at_a_question_ends_the_command(desk, launch):
    """Ctrl-C at a question exits with 130, and nothing was done."""
    desk.fill("vip", people(1))
    process = launch("empty", "vip", "--config", "config.json")
    asked = b""
    while b"[y/N]" not in asked:
        asked += process.stderr.read1()
    for _ in range(60):  # Python misses one just before it begins to read
        if process.poll() is not None:
            break
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=0.5)
    assert 130 == process.returncode
    assert set(people(1)) == desk.there("vip")


def test_an_interrupt_while_a_ledger_is_busy_ends_the_wait(desk, launch):
    """A command that waits for another run ends at a signal, not after its half minute."""
    desk.fill("vip", people(1))
    with desk.ledger("vip"):
        process = launch("resync", "vip", "--config", "config.json")
        while len(list((desk.folder / "ledger").rglob("spill-*"))) < 2:  # ours and its
            assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        code, _, err = end(desk, process)
    assert 143 == code
    assert "Error: stopped by SIGTERM\n" == err


def test_names_that_a_terminal_cannot_show_are_escaped(desk, launch):
    """Where standard output is Latin-1, a name in another script does not end a command."""
    desk.fill("vip", people(1), name="Größe Ω")
    process = launch("status", "--config", "config.json", PYTHONIOENCODING="latin-1")
    out, _ = process.communicate(timeout=30)
    assert 0 == process.returncode
    assert b"name: Gr\xf6\xdfe \\u03a9" in out


def test_a_name_that_is_no_text_is_wrong_usage(desk, launch):
    """Bytes that are no UTF-8 cannot name a cohort."""
    process = launch("empty", b"vip\xff", "--config", "config.json")
    code, _, err = end(desk, process)
    assert 2 == code
    assert "holds characters that are no text" in err


def test_help_lists_every_command(desk):
    """The help of the whole has all commands, each with a line."""
    result = desk.run("--help", config_files=[])
    assert 0 == result.exit_code
    for name in cli.list_commands(click.Context(cli)):
        assert f"  {name} " in result.stdout


def test_an_unreadable_ledger_says_what_to_do(desk):
    """A ledger's file that is broken ends a command with a message and 1, not a traceback."""
    desk.fill("vip", people(1))
    (database,) = (desk.folder / "ledger").rglob("*.duckdb")
    database.write_bytes(b"broken" * 5_000)
    result = desk.run("resync", "vip")
    assert 1 == result.exit_code
    assert str(database) in result.stderr


def test_the_version_is_the_targets():
    """moengage-cohort --version says what target-moengage-cohort --version says."""
    result = CliRunner().invoke(cli, ["--version"])
    assert (0, f"{version()}\n") == (result.exit_code, result.output)
