"""`moengage-cohort segments` against the emulator: segments of all kinds, and filter segments."""

import json
import signal
import socket
import subprocess

import pytest

from target_moengage_cohort.emulator import Emulator
from tests.cli.conftest import PLANTED, people
from tests.support.apis import filters_on
from tests.support.project import program
from tests.support.singer import UNLIMITED, environment

BERLIN = filters_on("uid", "u-1")


@pytest.fixture
def segments(desk):
    """Return a function that runs a command of `segments`, and returns its JSON."""

    def run(*words, text=None, code=0):
        result = desk.run("segments", *words, "--json", text=text)
        assert code == result.exit_code, result.output
        return json.loads(result.stdout) if code == 0 else result.stderr

    return run


def without_case(filters):
    """Return other filters."""
    changed = json.loads(json.dumps(filters))
    changed["included_filters"]["filters"][0]["case_sensitive"] = False
    return changed


def test_a_filter_segment_is_created_listed_shown_and_updated(segments):
    """What is created is listed under its name, shown with its filters, and updated by its name."""
    created = segments("create", "Berlin", "-", text=json.dumps(BERLIN))
    assert [created["id"]] == [each["id"] for each in segments("list", "--name", "Berlin")]
    shown = segments("get", "Berlin")
    assert BERLIN["included_filters"] == shown["included_filters"]
    changed = json.dumps(shown | without_case(BERLIN))
    updated = segments("update", "Berlin", "-", "--rename", "Hamburg", text=changed)
    assert (created["id"], "Hamburg") == (updated["id"], updated["name"])
    assert (
        without_case(BERLIN)["included_filters"] == segments("get", "Hamburg")["included_filters"]
    )


def test_the_list_has_cohorts_and_shows_them_as_text(desk, segments):
    """The text has a line for each segment, with its kind and its name."""
    desk.fill("vip", people(1), name="VIP users")
    segments("create", "Berlin", "-", text=json.dumps(BERLIN))
    shown = desk.run("segments", "list").stdout.splitlines()
    assert [line.split()[2:4] for line in shown[1:]] == [
        ["cohort", "cohort_sync"],
        ["filter", "api"],
    ]
    assert shown[1].endswith(" VIP users")
    assert "no segment" in desk.run("segments", "list", "--name", "None").stdout


def test_no_command_waits_for_a_run(desk, segments):
    """While a run is at work, segments are listed and changed all the same."""
    desk.fill("vip", people(1), name="VIP users")
    with desk.ledger("vip"):
        assert 1 == len(segments("list"))
        segments("archive", "VIP users")


def test_a_segment_is_archived_and_unarchived(desk, segments):
    """A cohort that is archived, by its name, is unarchived likewise."""
    desk.fill("vip", people(1), name="VIP users")
    for command, is_archived in (("archive", True), ("unarchive", False)):
        assert is_archived is segments(command, "VIP users")["archived"]
        assert [is_archived] == [each.is_archived for each in desk.emulator.apis.segments()]


def test_filters_that_another_segment_has(segments):
    """The error names the segment that has the filters already."""
    segments("create", "Berlin", "-", text=json.dumps(BERLIN))
    error = segments("create", "Other", "-", text=json.dumps(BERLIN), code=1)
    assert "'Berlin'" in error


def test_a_doubted_attempt_is_told(desk, segments):
    """A conflict after an attempt without an answer may be that attempt's; the error says so."""
    desk.emulator.apis.drop_next(when="after")
    desk.raw["max_retry_seconds"] = 100
    assert "may have been applied" in segments(
        "create", "Berlin", "-", text=json.dumps(BERLIN), code=1
    )


def changed(**fields):
    """Return filters with other fields of their group."""
    return json.dumps({"included_filters": BERLIN["included_filters"] | fields})


WRONG_FILTERS = {
    "nothing": ("", "is empty"),
    "a list": ("[]", "the file: must be an object, not a list"),
    "an end": ("{", "line 1, column 2: "),
    "a comma": ('{\n  "included_filters": {,\n', "line 2, column 24: "),
    "more": ("{}\n{}", "line 2, column 1: "),
    "no JSON's number": ('{"included_filters": NaN}', "NaN"),
    "another encoding": ("\udcff", "UTF-8"),
    "UTF-16": ("{\0}\0", "UTF-8"),
    "a mark of UTF-16": ("\udcff\udcfe{\0}\0", "UTF-8"),
    "depth": ("[" * 100_000, "nested too deeply"),
    "size": (" " * (1 << 20) + "{}", "1,048,576 bytes"),
    "no filters": ("{}", "included_filters: is missing"),
    "no operator": ('{"included_filters": {}}', "included_filters.filter_operator: is missing"),
    "no list": ('{"included_filters": {}}', "included_filters.filters: is missing"),
    "operator": (changed(filter_operator=f"{PLANTED}or"), '.filter_operator: must be "and" or'),
    "an odd operator": (changed(filter_operator=["and"]), '.filter_operator: must be "and" or'),
    "filters": (changed(filters={}), "included_filters.filters: must be a list, not an object"),
    "filter": (changed(filters=[{}, PLANTED]), "included_filters.filters, item 2: must be an obj"),
    "field": ('{"filters": []}', "unknown field 'filters'; did you mean 'included_filters'?"),
    "value as a field": (json.dumps({f"{PLANTED}2": 1} | BERLIN), "unknown field; remove all but"),
    "excluded": (
        json.dumps(BERLIN | {"excluded_filters": [f"{PLANTED}0002"]}),
        "excluded_filters: must be an object, not a list",
    ),
}


@pytest.mark.parametrize(("text", "fault"), WRONG_FILTERS.values(), ids=WRONG_FILTERS)
def test_a_file_that_has_no_filters(desk, segments, text, fault):
    """A file that is not what MoEngage documents is refused here; the error names the file, and the
    line or the field that is wrong."""
    data = text.encode(errors="surrogateescape")
    error = segments("create", "Berlin", "-", text=data, code=1)
    assert all(line.startswith("Error: standard input: ") for line in error.splitlines())
    assert fault in error
    assert [] == desk.emulator.apis.calls()


@pytest.mark.parametrize("name", ["included_filters", "excluded_filters"])
def test_a_group_is_sent_with_all_of_its_fields(segments, name):
    """What a group has beyond the documented fields is MoEngage's to judge, not left out here."""
    group = BERLIN["included_filters"] | {"undocumented": True}
    text = json.dumps(BERLIN | {name: group})
    assert "undocumented" in segments("create", "Berlin", "-", text=text, code=1)
    assert [] == segments("list", "--name", "Berlin")


def test_filters_with_a_byte_order_mark(segments):
    """A file that an editor of Windows has saved is read."""
    segments(
        "create", "Berlin", "-", text="\ufeff" + json.dumps(BERLIN | {"excluded_filters": None})
    )


@pytest.mark.parametrize(
    "words",
    [("create", "B"), ("update", "B"), ("file", "add", "B", "--upload", "x", "--csv")],
)
def test_a_file_that_is_missing(desk, words):
    """A file that is not there is wrong usage, whatever it should have; the error names it."""
    for path in (desk.folder / "missing.json", desk.folder):
        result = desk.run("segments", *words, str(path))
        assert 2 == result.exit_code
        assert path.name in result.stderr


@pytest.mark.parametrize("command", ["archive", "unarchive"])
def test_a_segment_that_moengage_does_not_find(segments, command):
    """The error has a command that shows the names."""
    assert "segments list --config" in segments(command, "None", code=1)


@pytest.mark.parametrize("words", [("get", "None"), ("update", "None", "-")])
def test_a_name_that_is_not_listed(segments, words):
    """A segment that is looked up by its name and not listed is an error with a command that lists
    the segments."""
    assert "segments list --config" in segments(*words, text=json.dumps(BERLIN), code=1)


@pytest.mark.parametrize(
    "words",
    [("create", "Berlin", "-"), ("update", "Berlin", "-"), ("archive", "A"), ("unarchive", "A")],
)
def test_a_dry_run_changes_no_segment(desk, segments, words):
    """With dry_run a command that changes segments is refused, and sends nothing."""
    desk.raw["dry_run"] = True
    assert "dry_run" in segments(*words, text=json.dumps(BERLIN), code=1)
    assert [] == desk.emulator.apis.calls()


def test_hosts_with_one_ledger_share_the_limits(desk, server, tmp_path, monkeypatch):
    """Hosts that share a ledger on a server keep a limit together; without a ledger there yet, the
    commands work, too."""
    there = server.new_database("segments")
    where = f"{there.user}@{there.host}:{there.port}/{there.database}"
    desk.raw |= {"ledger_uri": f"postgresql://{where}", "id_attribute": "uid"}
    desk.raw["max_retry_seconds"] = 0
    assert 0 == desk.run("segments", "list").exit_code
    desk.fill("vip", people(1), name="VIP users")
    words = ("segments", "file", "add", "None", "--url", "https://files.example.com/x")
    for number in range(10):
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / f"host-{number % 2}"))
        assert "404" in desk.run(*words).stderr
    sent = len(desk.emulator.apis.calls())
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "host-0"))
    assert "limit" in desk.run(*words).stderr
    assert sent == len(desk.emulator.apis.calls())


def test_the_key_of_the_segments_api(desk, segments):
    """segments_api_key is used if it is set; a key without the scope is an error that names it."""
    with Emulator(requests_per_minute=UNLIMITED, segments_api_key="the-key") as emulator:
        desk.raw["api_url"] = emulator.url
        assert "segments_api_key" in segments("list", code=1)
        desk.raw["segments_api_key"] = "the-key"
        assert [] == segments("list")


STOPPED = {
    "list": ("segments", "list"),
    "archive": ("segments", "archive", "A"),
    "file": ("segments", "file", "add", "A", "--url", "https://files.example.com/x"),
}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("words", STOPPED.values(), ids=STOPPED)
def test_a_signal_ends_the_wait_for_an_answer(desk, words, number):
    """A command whose request gets no answer ends some seconds after the first signal, with the
    signal's exit code and without a traceback."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(60)
        desk.raw |= {"api_url": f"http://127.0.0.1:{silent.getsockname()[1]}", "id_attribute": "u"}
        desk.raw["request_timeout_seconds"] = 60
        (desk.folder / "config.json").write_text(json.dumps(desk.raw))
        process = subprocess.Popen(
            [program("moengage-cohort"), *words, "--config", str(desk.folder / "config.json")],
            env=environment(desk.folder / "home"),
            stderr=subprocess.PIPE,
            text=True,
        )
        with silent.accept()[0] as connection:
            assert connection.recv(10)
            process.send_signal(number)
            _, errors = process.communicate(timeout=30)
    assert 128 + number == process.returncode
    assert ("list" not in words) is ("may have been applied" in errors)
    assert "Traceback" not in errors
