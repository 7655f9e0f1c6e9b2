"""The surroundings of a run: standard streams, special files, broken answers."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from target_moengage_cohort.core.errors import SettingsError
from target_moengage_cohort.settings import load
from target_moengage_cohort.sync.reporting.report import check
from tests.support.singer import config, environment, finish, lines, record, schema, start, state

GOOD = lines(schema(), record(uid="u1"), state({"a": 1}))


def shell(home, emulator, command, data=GOOD, **settings):
    """Run the target from a shell, as ``$TARGET --config config.json``."""
    home.mkdir(exist_ok=True)
    (home / "config.json").write_text(json.dumps(config(emulator, **settings)))
    variables = {"TARGET": f"{sys.executable} -m target_moengage_cohort"}
    return subprocess.run(
        ["bash", "-c", command],
        input=data,
        cwd=home,
        env=environment(home, **variables),
        capture_output=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    ("redirection", "message"),
    [
        (">&-", b"must be open"),
        ("<&-", b"must be open"),
        pytest.param(
            ">/dev/full",
            b"standard output fails (No space left on device)",
            marks=pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has it"),
        ),
    ],
)
def test_standard_streams_that_do_not_work_are_no_traceback(
    tmp_path, emulator, redirection, message
):
    """A closed or full standard stream ends the run with 1 and a message."""
    ended = shell(tmp_path, emulator, f"$TARGET --config config.json {redirection}")
    assert 1 == ended.returncode
    assert message in ended.stderr
    assert b"Traceback" not in ended.stderr
    assert b"fault of this program" not in ended.stderr


def test_a_configuration_may_be_a_pipe(tmp_path, emulator):
    """Process substitution keeps a key off the disk; the pipe can be read only once."""
    ended = shell(tmp_path, emulator, "$TARGET --config <(cat config.json)")
    assert (0, b'{"a": 1}\n') == (ended.returncode, ended.stdout)


def test_a_reader_of_state_that_stopped_reading_does_not_keep_the_process(tmp_path, emulator):
    """If standard output is full and not read, a signal ends the process all the same."""
    process = start(tmp_path / "home", config(emulator))
    events = [state({"position": number, "padding": "x" * 100_000}) for number in range(5)]
    process.stdin.write(lines(schema(), record(uid="u"), *events))
    process.stdin.close()
    emulator.wait_until(lambda totals: totals.answers.get("200") == 1)
    process.send_signal(signal.SIGTERM)
    assert 143 == process.wait(timeout=15)


def test_a_report_goes_where_a_link_leads(tmp_path, emulator):
    """The report replaces the target of a symbolic link, not the link."""
    (tmp_path / "link.json").symlink_to(tmp_path / "report.json")
    settings = config(emulator, report_path=str(tmp_path / "link.json"))
    assert 0 == finish(start(tmp_path / "home", settings), GOOD).code
    assert (tmp_path / "link.json").is_symlink()
    assert "succeeded" == json.loads((tmp_path / "report.json").read_text())["status"]


def test_a_report_replaces_no_device(tmp_path):
    """A path that is not a regular file is refused before anything is read."""
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(SettingsError) as refusal:
        check(str(tmp_path / "fifo"))
    assert "report_unwritable" == refusal.value.code


def test_a_broken_rate_limit_file_is_named(tmp_path, emulator):
    """A rate limit file that is not a database is an error that names the file to delete."""
    home = tmp_path / "home"
    assert 0 == finish(start(home, config(emulator)), GOOD).code
    (path,) = (home / "state").rglob("pace-*.sqlite3")
    path.write_bytes(b"no database " * 1_000)
    ended = finish(start(home, config(emulator)), GOOD)
    assert 1 == ended.code
    assert str(path) in ended.stderr
    assert "delete it" in ended.stderr


@pytest.mark.parametrize("level", ["INFO", "DEBUG"])
def test_a_header_that_cannot_be_parsed_is_not_logged(tmp_path, level):
    """The rest of a broken head, which urllib3 would log and which may quote the request, is not
    logged."""
    secret = "planted-in-header"
    head = f"HTTP/1.1 200 OK\r\nX: y\r\nbroken {secret}\r\nContent-Length: 2\r\n\r\n{{}}"
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65_536)
                connection.sendall(head.encode())

        thread = threading.Thread(target=answer)
        thread.start()
        settings = {
            "workspace_id": "w",
            "data_api_key": "k",
            "data_center": "01",
            "partner": "p",
            "api_url": f"http://127.0.0.1:{server.getsockname()[1]}",
            "max_retry_seconds": 0,
        }
        process = start(tmp_path / "home", settings, TARGET_MOENGAGE_COHORT_LOGLEVEL=level)
        ended = finish(process, GOOD)
        thread.join()
    assert 1 == ended.code
    assert secret not in ended.stderr


def test_with_skip_a_row_without_its_key_is_rejected(tmp_path, emulator):
    """With skip, a row without a key property is rejected."""
    rejects = tmp_path / "rejects.singer"
    settings = config(emulator, on_reject="skip", rejects_path=str(rejects))
    rows = [record(uid="a", id=1), record(uid="b"), record(uid="c", id=3)]
    data = lines(schema(columns=("uid", "id"), keys=("id",)), *rows)
    assert 0 == finish(start(tmp_path / "home", settings), data).code
    assert {"a", "c"} == {member.uid for member in emulator.members("users")}
    assert "lacks the key property 'id'" in rejects.read_text()


def test_what_one_stream_map_cannot_use_still_reaches_the_others(tmp_path, emulator):
    """A row that is rejected for one of its mapped streams is delivered for the others, and is in
    the rejects file once."""
    rejects, report = tmp_path / "rejects.singer", tmp_path / "report.json"
    settings = config(
        emulator,
        on_reject="skip",
        rejects_path=str(rejects),
        report_path=str(report),
        stream_maps={"users": {}, "others": {"__source__": "users", "uid": "other"}},
    )
    rows = [record(uid=None, other="x"), record(uid="u", other="y")]
    data = lines(schema(columns=("uid", "other")), *rows)
    assert 0 == finish(start(tmp_path / "home", settings), data).code
    assert {"u"} == {member.uid for member in emulator.members("users")}
    assert {"x", "y"} == {member.uid for member in emulator.members("others")}
    kinds = [json.loads(line)["type"] for line in rejects.read_bytes().splitlines()]
    assert ["SCHEMA", "RECORD"] == kinds
    rejected = {c["cohort_id"]: c["rejected"] for c in json.loads(report.read_text())["cohorts"]}
    assert {"users": 1, "others": 0} == rejected


def test_settings_flattened_all_the_way_up_are_gathered():
    """Dotted names at the top level also belong to their object."""
    base = {"workspace_id": "w", "data_api_key": "k", "data_center": "1", "partner": "p"}
    loaded = load({**base, "cohorts.vip.cohort_id": "v", "cohorts.vip.cohort_name": "VIP"})
    assert "v" == loaded.mappings["vip"].cohort.cohort_id
    assert {} == loaded.unknown


def test_a_connection_that_was_never_made_leaves_nothing_in_doubt(tmp_path, emulator):
    """Members of a request that never left are not in doubt; one that was sent is counted."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
    report = tmp_path / "report.json"
    settings = config(emulator, api_url=url, max_retry_seconds=0, report_path=str(report))
    assert 1 == finish(start(tmp_path / "home", settings), GOOD).code
    (cohort,) = json.loads(report.read_text())["cohorts"]
    assert (0, 1) == (cohort["in_doubt"], cohort["requests"])
