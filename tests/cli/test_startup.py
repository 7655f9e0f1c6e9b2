"""The modules that the target's command imports, and its likeness to the SDK's command."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import click
import pytest

from target_moengage_cohort import NAME, version
from target_moengage_cohort.cli import target_command
from target_moengage_cohort.target import TargetMoEngageCohort
from tests.support.singer import config, environment, finish, lines, record, schema, start, state

SLOW = {"singer_sdk", "duckdb", "requests"}
PREFIX = "TARGET_MOENGAGE_COHORT_"
# A process that is started in the background may ignore SIGINT.
AT_A_TERMINAL = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "from target_moengage_cohort.__main__ import main; main()"
)


def command(home, *arguments, python=(), data=b"", cwd=None, **variables):
    return subprocess.run(
        [sys.executable, *python, "-m", "target_moengage_cohort", *arguments],
        input=data,
        capture_output=True,
        env=environment(home, **variables),
        cwd=cwd,
        timeout=60,
        check=False,
    )


def imported(home, *arguments, **kwargs) -> set[str]:
    """Return the top-level packages that a successful run of the command imports."""
    done = command(home, *arguments, python=("-X", "importtime"), **kwargs)
    assert 0 == done.returncode, done.stderr
    timings = [line for line in done.stderr.decode().splitlines() if line.startswith("import time")]
    return {line.rpartition("|")[2].strip().partition(".")[0] for line in timings}


def written(home, emulator, **settings) -> str:
    path = home / "config.json"
    path.write_text(json.dumps(config(emulator, **settings)))
    return str(path)


@pytest.mark.parametrize("option", ["--version", "--help"])
def test_metadata_options_import_no_settings(tmp_path, option):
    """--version and --help import click, but neither the SDK nor the modules of a run."""
    found = imported(tmp_path, option)
    assert "click" in found
    assert set() == found & (SLOW | {"msgspec", "sqlite3", "jsonschema", "rich"})


def test_a_run_without_records_imports_no_more_than_it_needs(tmp_path, emulator):
    """A run with nothing to send imports neither the SDK, DuckDB nor requests."""
    path = written(tmp_path, emulator)
    found = imported(tmp_path, "--config", path, data=lines(schema(), state({"a": 1})))
    assert "msgspec" in found
    assert set() == found & SLOW


@pytest.mark.parametrize("form", [(), ("--format=json",), ("--format=markdown",)], ids=str)
def test_about_imports_no_run(tmp_path, form):
    """--about imports the SDK for its formats, but no module that reads, stores or sends."""
    assert set() == imported(tmp_path, "--about", *form) & {"duckdb", "sqlite3"}


def test_settings_in_the_environment_need_no_sdk(tmp_path, emulator):
    """--config=ENV is read without the SDK."""
    variables = {PREFIX + name.upper(): str(value) for name, value in config(emulator).items()}
    assert set() == imported(tmp_path, "--config=ENV", **variables) & SLOW


@pytest.mark.parametrize(
    ("settings", "needed"),
    [
        ({}, {"requests"}),
        ({"sync_mode": "mirror"}, {"requests", "duckdb"}),
        ({"validate_records": True}, {"requests", "singer_sdk"}),
        ({"stream_maps": {"users": {"uid": "uid"}}}, {"requests", "singer_sdk"}),
    ],
    ids=["records", "mirror", "validation", "stream maps"],
)
def test_a_run_imports_what_it_needs(tmp_path, emulator, settings, needed):
    """Records import requests, a mirror imports DuckDB, and stream maps and validation import the
    SDK."""
    path = written(tmp_path, emulator, **settings)
    data = lines(schema(), record(uid="u"))
    assert needed <= imported(tmp_path, "--config", path, data=data)
    assert {"u"} == {member.uid for member in emulator.members("users")}


def test_about_is_what_the_class_says(tmp_path):
    """--about gives the version, the capabilities and the settings of the SDK's class."""
    about = json.loads(command(tmp_path, "--about", "--format=json").stdout)
    assert NAME == about["name"]
    assert TargetMoEngageCohort.plugin_version == about["version"]
    assert [item.value for item in TargetMoEngageCohort.capabilities] == about["capabilities"]
    assert TargetMoEngageCohort.config_jsonschema == about["settings"]


def test_version_is_what_the_class_says(tmp_path, capsys):
    """--version prints the SDK's own line."""
    TargetMoEngageCohort.print_version()
    assert capsys.readouterr().out == command(tmp_path, "--version").stdout.decode()


def test_the_options_are_the_sdks():
    """Our command has the options of the SDK's command for targets, with the same help."""
    sdks = super(TargetMoEngageCohort, TargetMoEngageCohort).get_singer_command()

    def shown(of: click.Command) -> str:
        text = of.get_help(click.Context(of, info_name="target"))
        return text.partition("Options:")[2].partition("\n\n")[0].rstrip()

    assert shown(sdks) == shown(target_command.command)


def test_the_class_has_the_same_command():
    """The class's command line is that of the process."""
    assert target_command.command is TargetMoEngageCohort.get_singer_command()


@pytest.mark.parametrize("valid", [True, False])
def test_invoke_runs_as_the_command_does(tmp_path, emulator, valid):
    """`TargetMoEngageCohort.invoke` emits STATE, and exits with a run's code."""
    settings = config(emulator) if valid else {}
    code = (
        "from singer_sdk.plugin_base import _ConfigInput as Given\n"
        "from target_moengage_cohort.target import TargetMoEngageCohort as Target\n"
        f"Target.invoke(config=Given({settings!r}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=lines(schema(), record(uid="u"), state({"a": 1})),
        capture_output=True,
        env=environment(tmp_path),
        timeout=60,
        check=False,
    )
    expected = (0, b'{"a": 1}\n') if valid else (1, b"")
    assert expected == (done.returncode, done.stdout), done.stderr


@pytest.mark.parametrize(
    ("variables", "lowest"),
    [
        ({}, "INFO"),
        ({"LOGLEVEL": "error"}, None),
        ({"LOGLEVEL": "ERROR", f"{PREFIX}LOGLEVEL": "debug"}, "INFO"),
    ],
    ids=["default", "all programs", "this one"],
)
def test_the_log_has_the_sdks_format_and_levels(tmp_path, emulator, variables, lowest):
    """Log lines have the SDK's format; the target's own variable takes precedence over LOGLEVEL."""
    data = lines(schema(), record(uid="u"))
    for _ in range(2):  # the first run warns of its new ledger
        ended = finish(start(tmp_path, config(emulator), **variables), data)
    levels = [line.split(" | ")[1].strip() for line in ended.stderr.splitlines() if " | " in line]
    assert 0 == ended.code
    assert ([] if lowest is None else sorted({"INFO", lowest})) == sorted(set(levels))


@pytest.mark.parametrize("variables", [{}, {"SINGER_SDK_LOG_CONFIG": "logs.yaml"}], ids=str)
def test_an_unknown_log_level_is_an_error(tmp_path, variables):
    """An unknown level exits with 1 and a message that names the variable."""
    done = command(tmp_path, "--version", LOGLEVEL="loud", **variables)
    assert 1 == done.returncode
    assert b"LOGLEVEL: must be one of DEBUG, " in done.stderr
    assert b"Traceback" not in done.stderr


def test_the_sdks_file_for_logs_is_honoured(tmp_path, emulator):
    """SINGER_SDK_LOG_CONFIG names a logging configuration, as for every Singer target."""
    logs = {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"json": {"()": "singer_sdk.logging.StructuredFormatter"}},
        "handlers": {"err": {"class": "logging.StreamHandler", "formatter": "json"}},
        "root": {"level": "INFO", "handlers": ["err"]},
    }
    path = tmp_path / "logs.yaml"
    path.write_text(json.dumps(logs))
    ended = finish(start(tmp_path, config(emulator), SINGER_SDK_LOG_CONFIG=str(path)), lines())
    messages = [json.loads(line) for line in ended.stderr.splitlines()]
    assert version() in [message["message"] for message in messages]


def test_ctrl_c_while_starting_is_no_failure_of_its_own(tmp_path):
    """SIGINT before the run handles signals exits with 130 and prints nothing."""
    path = tmp_path / "config.json"
    os.mkfifo(path)
    process = subprocess.Popen(
        [sys.executable, "-c", AT_A_TERMINAL, "--config", str(path)],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=environment(tmp_path),
    )
    with path.open("wb"):  # which waits until the process opens it, too
        process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert (130, b"") == (process.returncode, err)


CALLED_BACK = """
import importlib, signal, sys, weakref
from importlib.abc import MetaPathFinder

program, late = sys.argv.pop(1), sys.argv.pop(1)

class Finder(MetaPathFinder):
    def find_spec(self, name, *_):
        if name == late:
            gone = type("Gone", (), {})()
            callback = weakref.ref(gone, lambda _: signal.raise_signal(signal.SIGINT))
            del gone

sys.meta_path.insert(0, Finder())
signal.signal(signal.SIGINT, signal.default_int_handler)
importlib.import_module(program).main()
"""


@pytest.mark.parametrize(
    ("program", "late", "arguments"),
    [
        ("__main__", "cli.target_command", ["--version"]),
        ("cli", "cli.status_command", ["status", "--help"]),
    ],
)
def test_ctrl_c_in_a_callback_of_the_import_system_is_not_lost(tmp_path, program, late, arguments):
    """SIGINT also ends the process while Python runs a callback whose exceptions it drops."""
    modules = [f"target_moengage_cohort.{module}" for module in (program, late)]
    done = subprocess.run(
        [sys.executable, "-c", CALLED_BACK, *modules, *arguments],
        capture_output=True,
        env=environment(tmp_path),
        timeout=60,
        check=False,
    )
    assert (130, b"", b"") == (done.returncode, done.stdout, done.stderr)


@pytest.fixture
def folder(tmp_path):
    """The directory that the package seems to be installed in, for a `.env` above it."""
    package = tmp_path / "lib" / "target_moengage_cohort"
    package.parent.mkdir()
    package.symlink_to(Path(target_command.__file__).parents[1], target_is_directory=True)
    return package.parent


def test_a_file_named_env_counts_as_environment(tmp_path, folder, emulator):
    """A `.env` above the package wins over the environment, as the SDK has it."""
    variables = {PREFIX + name.upper(): str(value) for name, value in config(emulator).items()}
    (tmp_path / ".env").write_text(f"{PREFIX}PARTNER=from-file\n")
    data = lines(schema(), record(uid="u"))
    done = command(tmp_path, "--config=ENV", cwd=folder, data=data, **variables)
    assert 0 == done.returncode, done.stderr
    assert ["from-file"] == [request.partner for request in emulator.requests()]


def test_a_file_named_env_may_begin_with_a_byte_order_mark(tmp_path, folder, emulator):
    """The first variable of a `.env` that an editor on Windows saved is read, too."""
    variables = {PREFIX + name.upper(): str(value) for name, value in config(emulator).items()}
    (tmp_path / ".env").write_bytes(f"\ufeff{PREFIX}PARTNER=from-file\r\n".encode())
    data = lines(schema(), record(uid="u"))
    done = command(tmp_path, "--config=ENV", cwd=folder, data=data, **variables)
    assert 0 == done.returncode, done.stderr
    assert ["from-file"] == [request.partner for request in emulator.requests()]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le"])
def test_a_configuration_may_begin_with_a_byte_order_mark(tmp_path, emulator, encoding):
    """Configuration and input as editors and shells on Windows write them are read."""
    path = tmp_path / "config.json"
    path.write_bytes(json.dumps(config(emulator, partner="caf\u00e9")).encode(encoding))
    data = b"\xef\xbb\xbf" + lines(schema(), record(uid="u"))
    done = command(tmp_path, "--config", str(path), data=data)
    assert 0 == done.returncode, done.stderr
    assert ["caf\u00e9"] == [request.partner for request in emulator.requests()]


def test_a_file_named_env_that_is_no_text_is_wrong_usage(tmp_path, folder):
    """An unreadable `.env` exits with 2 and a message that names it, without a traceback."""
    (tmp_path / ".env").write_bytes(b"A=\xff\n")
    done = command(tmp_path, "--config=ENV", cwd=folder)
    assert 2 == done.returncode
    assert b".env cannot be read" in done.stderr
    assert b"Traceback" not in done.stderr
