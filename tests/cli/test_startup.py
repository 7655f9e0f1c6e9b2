"""The modules that the target's command imports, and its likeness to the SDK's command."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import click
import pytest

from target_moengage_cohort import NAME
from target_moengage_cohort.cli import target_command
from target_moengage_cohort.target import TargetMoEngageCohort
from tests.support.project import program
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
        ({"LOGLEVEL": "ERROR", f"{PREFIX}LOGLEVEL": "debug"}, "DEBUG"),
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


@pytest.fixture
def logs(tmp_path):
    """The SDK's configuration of logs as Meltano makes it, with every level."""
    content = {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"json": {"()": "singer_sdk.logging.StructuredFormatter"}},
        "handlers": {"err": {"class": "logging.StreamHandler", "formatter": "json"}},
        "root": {"level": "DEBUG", "handlers": ["err"]},
    }
    path = tmp_path / "logs.yaml"
    path.write_text(json.dumps(content))
    return {"SINGER_SDK_LOG_CONFIG": str(path)}


def structured(process, data=None):
    """Return the records of a process, whose standard error has nothing but JSON."""
    ended = finish(process, data)
    return [json.loads(line) for line in ended.stderr.splitlines()]


def test_the_sdks_file_for_logs_is_honoured(tmp_path, emulator, logs):
    """SINGER_SDK_LOG_CONFIG names a logging configuration, as for every Singer target."""
    messages = structured(start(tmp_path, config(emulator), **logs), lines())
    assert {"INFO"} == {message["level"].upper() for message in messages}
    assert messages[0]["message"].startswith(f"{NAME} ")


def test_structured_logs_have_names_and_metrics(tmp_path, emulator, logs):
    """In structured logs a cohort's row has its stream and id, and the SDK's points have the
    records of each stream, the requests and the time; a plain log has no points."""
    settings = config(emulator, cohorts={"a": {"cohort_id": "x"}, "b": {}})
    rows = [record(stream, uid=f"u{number}") for stream in "ab" for number in range(3)]
    data = lines(schema("a"), schema("b"), *rows, record("a", uid="u9"))
    messages = structured(start(tmp_path, settings, **logs), data)
    rows = [each["extra"] for each in messages if each["extra"].get("code") == "summary"]
    named = {(row["stream"], row["cohort_id"]) for row in rows if "stream" in row}
    assert {("a", "x"), ("b", "b")} == named
    points = [each["metric_info"] for each in messages if "metric_info" in each]
    found = {(point["metric"], point["tags"].get("stream")): point for point in points}
    assert (4, 3) == tuple(found["record_count", stream]["value"] for stream in "ab")
    assert 2 == found["http_request_count", None]["value"]
    timer = found["sync_duration", None]
    assert ("timer", "succeeded") == (timer["type"], timer["tags"]["status"])
    assert 0 < timer["value"] < 60
    assert 4 == len(points)
    assert "METRIC" not in finish(start(tmp_path, settings), data).stderr


@pytest.mark.parametrize("change", [{"data_center": "no"}, {"max_retry_seconds": 0}])
def test_failures_are_structured_too(tmp_path, emulator, logs, change):
    """Refused settings and a failed run log nothing but JSON, and the point says that it failed."""
    emulator.fail_next(503, 100)
    data = lines(schema("a"), record("a", uid="u1"))
    messages = structured(start(tmp_path, config(emulator) | change, **logs), data)
    assert "ERROR" == messages[-1]["level"].upper()
    states = [
        each["metric_info"]["tags"]["status"]
        for each in messages
        if each.get("metric_info", {}).get("metric") == "sync_duration"
    ]
    assert ([] if "data_center" in change else ["failed"]) == states


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
    """A directory to start in, for a `.env` above it."""
    folder = tmp_path / "project" / "below"
    folder.mkdir(parents=True)
    return folder


def variables_of(emulator, **settings):
    """Return the variables of a configuration without a partner."""
    raw = config(emulator, **settings)
    return {PREFIX + name.upper(): str(value) for name, value in raw.items() if name != "partner"}


def test_a_file_named_env_adds_to_the_environment(tmp_path, folder, emulator):
    """The nearest `.env` above the current directory sets what the environment does not."""
    (tmp_path / ".env").write_text(f"{PREFIX}PARTNER=from-far\n")
    (folder.parent / ".env").write_text(f"{PREFIX}PARTNER=from-file\n")
    data = lines(schema(), record(uid="u"))
    variables = variables_of(emulator)
    done = command(tmp_path, "--config=ENV", cwd=folder, data=data, **variables)
    assert 0 == done.returncode, done.stderr
    assert ["from-file"] == [request.partner for request in emulator.requests()]
    variables[f"{PREFIX}PARTNER"] = "from-environment"
    data = lines(schema("other"), record("other", uid="v"))
    done = command(tmp_path, "--config=ENV", cwd=folder, data=data, **variables)
    assert 0 == done.returncode, done.stderr
    assert "from-environment" == emulator.requests()[-1].partner


def test_the_package_directory_has_no_say(tmp_path, folder, emulator):
    """A `.env` above the package, but not above the current directory, is not read."""
    package = tmp_path / "lib" / "target_moengage_cohort"
    package.parent.mkdir()
    package.symlink_to(Path(target_command.__file__).parents[1], target_is_directory=True)
    (package.parent / ".env").write_text(f"{PREFIX}PARTNER=from-package\n")
    variables = variables_of(emulator) | {"PYTHONPATH": str(package.parent)}
    done = command(tmp_path, "--config=ENV", cwd=folder, **variables)
    assert 1 == done.returncode
    assert b"partner: is required" in done.stderr


def test_commands_read_the_same_file_named_env(tmp_path, folder, emulator):
    """`moengage-cohort` takes the same values from the same places."""
    (folder.parent / ".env").write_text(f"{PREFIX}PARTNER=from-file\n{PREFIX}DATA_CENTER=77\n")
    done = subprocess.run(
        [program("moengage-cohort"), "check", "--config=ENV"],
        capture_output=True,
        env=environment(tmp_path, **variables_of(emulator)),
        cwd=folder,
        timeout=60,
        check=False,
    )
    assert 0 == done.returncode, done.stderr


def test_a_plain_configuration_file_reads_no_file_named_env(tmp_path, folder, emulator):
    """Only `--config=ENV` has a `.env` read."""
    (folder.parent / ".env").write_bytes(b"A=\xff\n")
    path = written(tmp_path, emulator)
    done = command(tmp_path, "--config", path, cwd=folder, data=lines(schema(), record(uid="u")))
    assert 0 == done.returncode, done.stderr


def test_a_file_named_env_may_begin_with_a_byte_order_mark(tmp_path, folder, emulator):
    """The first variable of a `.env` that an editor on Windows saved is read, too."""
    (folder.parent / ".env").write_bytes(f"\ufeff{PREFIX}PARTNER=from-file\r\n".encode())
    data = lines(schema(), record(uid="u"))
    done = command(tmp_path, "--config=ENV", cwd=folder, data=data, **variables_of(emulator))
    assert 0 == done.returncode, done.stderr
    assert ["from-file"] == [request.partner for request in emulator.requests()]


@pytest.mark.parametrize("arguments", [("--config=ENV",), ("--config", "FILE")], ids=str)
def test_a_misspelled_variable_ends_a_run_before_anything_is_sent(tmp_path, emulator, arguments):
    """It is an error with ENV; and without it under Meltano, which has dropped it."""
    path = written(tmp_path, emulator)
    arguments = [each.replace("FILE", path) for each in arguments]
    variables = variables_of(emulator) | {
        f"{PREFIX}PARTNER": "acme",
        f"{PREFIX}MAX_REMOVAL_PERCENTAGE": "5",
        "MELTANO_PROJECT_ROOT": str(tmp_path),
    }
    done = command(tmp_path, *arguments, data=lines(schema(), record(uid="u")), **variables)
    assert 1 == done.returncode
    assert f"did you mean '{PREFIX}MAX_REMOVAL_PERCENT'?".encode() in done.stderr
    assert 0 == emulator.totals().requests


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


def test_a_quiet_run_has_two_lines(tmp_path, emulator):
    """A run that changes nothing logs where it sends, without the key, and the total."""
    settings = config(
        emulator, ledger_uri=str(tmp_path / "ledger"), report_path=str(tmp_path / "r")
    )
    data = lines(schema(), record(uid="u"))
    assert 0 == finish(start(tmp_path, settings), data).code
    ended = finish(start(tmp_path, settings), data)
    assert 0 == ended.code
    first, total = ended.stderr.splitlines()
    run_id = json.loads((tmp_path / "r").read_text())["run_id"]
    place = str(tmp_path / "ledger")
    for part in (emulator.workspace_id, emulator.url, "'acme'", place, run_id):
        assert part in first
    assert emulator.data_api_key not in ended.stderr
    assert "0 requests" in total


def test_a_changed_cohort_has_a_row_of_its_own(tmp_path, emulator):
    """Each cohort that changed is one record between the start and the total; others have none."""
    messages = [each for name in "abc" for each in (schema(name), record(name, uid="u"))]
    settings = config(emulator, ledger_uri=str(tmp_path / "ledger"))
    assert 0 == finish(start(tmp_path, settings), lines(*messages)).code
    ended = finish(start(tmp_path, settings), lines(*messages, record("b", uid="v")))
    _, row, total = ended.stderr.splitlines()
    assert row.split(" | ")[-1].startswith("b ")
    assert "1 request," in total
