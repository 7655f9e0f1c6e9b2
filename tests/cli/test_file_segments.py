"""`moengage-cohort segments file` against the emulator, which fetches the files over loopback."""

import contextlib
import fcntl
import functools
import http.server
import json
import re
import signal
import socket
import stat
import subprocess
import termios
import threading
import time

import pytest
import requests

from target_moengage_cohort.cli.segments import segment_parts, segment_users
from target_moengage_cohort.cli.segments.segment_callbacks import Callback, CallbackListener
from target_moengage_cohort.cli.segments.segment_storage import SegmentStorage
from target_moengage_cohort.cli.segments.segment_users import FileUsers
from target_moengage_cohort.core.errors import TryAgainError
from target_moengage_cohort.core.interrupts import Interrupt
from target_moengage_cohort.core.membership import Action, Member
from target_moengage_cohort.core.rate_limits import rate_limit
from target_moengage_cohort.ledger.records import RequestState
from target_moengage_cohort.moengage.calls import MOST_USERS
from tests.cli.conftest import PLANTED, people, person
from tests.support.project import program
from tests.support.servers import free_port
from tests.support.singer import environment

NAME = re.compile(r"moengage-segment-[0-9a-f]{32}\.csv")


class Site:
    """A folder that a web server on loopback shows, as the storage of uploads."""

    def __init__(self, folder):
        self.folder = folder
        folder.mkdir(mode=0o700)
        self.fetched = []
        self.removes = False  # whether a file is gone once it is fetched
        outer = self

        class Handler(http.server.SimpleHTTPRequestHandler):
            def copyfile(self, source, target):
                if outer.removes:
                    (folder / self.path[1:]).unlink()
                super().copyfile(source, target)

            def log_message(self, *_):
                outer.fetched.append(self.path)

        serves = functools.partial(Handler, directory=str(folder))
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), serves)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self.options = ("--upload", str(folder), "--public-url", self.url)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def files(self):
        return sorted(path.name for path in self.folder.iterdir())


@pytest.fixture
def site(tmp_path):
    with Site(tmp_path / "site") as running:
        yield running


@pytest.fixture
def desk(desk):
    """A desk whose values are those of the attribute that holds a user's uid."""
    desk.raw["id_attribute"] = "uid"
    return desk


@pytest.fixture
def waiting():
    """The options of a command that waits for its callbacks."""
    port = free_port()
    return (
        *("--wait", "1", "--callback-url", f"http://127.0.0.1:{port}"),
        *("--callback-listen", f"127.0.0.1:{port}"),
    )


@pytest.fixture
def send(desk):
    """Return a function that runs a command, and returns its JSON; without any it is None."""

    def run(*words, code=0, text=None):
        if words[0] == "create":
            words = (*words, "--expiry-days", "30")
        result = desk.run("segments", "file", *words, "--json", text=text)
        assert code == result.exit_code, result.output
        return json.loads(result.stdout) if result.stdout else None

    return run


def csv(desk, *values, end="\n"):
    """Return a file with planted values."""
    path = desk.folder / "users.csv"
    path.write_text("".join(f"{PLANTED}{value}{end}" for value in values))
    return str(path)


def users(desk, name):
    """Return how many users a segment of the emulator has."""
    (found,) = [each.users for each in desk.emulator.apis.segments() if each.name == name]
    return found


def calls(desk):
    """Return the calls of the API that the emulator has got."""
    return [call.endpoint for call in desk.emulator.apis.calls()]


def test_a_csv_becomes_a_segment(desk, site, send, waiting):
    """A file is uploaded, fetched, and deleted after the callback, whose numbers are shown: found,
    processed, and matched."""
    desk.emulator.apis.know([f"{PLANTED}{each}" for each in "ab"])
    result = send("create", "Staff", "--csv", csv(desk, *"abc"), *site.options, *waiting)
    (file,) = result["files"]
    assert (3, 3, 3, 2) == tuple(file[each] for each in ("users", "found", "processed", "matched"))
    assert ("processed", True, 0) == (file["state"], file["deleted"], result["unsent"])
    assert 2 == users(desk, "Staff")
    assert [f"/{file['name']}"] == [re.search("/[^ ]+", each)[0] for each in site.fetched]
    assert [] == site.files


def test_without_waiting_the_file_stays(desk, site):
    """Without --wait a file stays until it is discarded by the command that the output shows; it is
    its owner's alone, and its name cannot be guessed."""
    words = ("segments", "file", "create", "Staff", "--expiry-days", "30", "--csv")
    result = desk.run(*words, csv(desk, "a", "b", end="\r\n"), *site.options)
    assert 0 == result.exit_code, result.output
    (name,) = site.files
    assert NAME.fullmatch(name)
    assert f"{PLANTED}a\n{PLANTED}b\n" == (site.folder / name).read_text()
    shown = re.search(r"discard (\S+) --upload (\S+)", result.stdout)
    desk.raw["dry_run"] = True
    assert 1 == desk.run("segments", "file", "discard", shown[1], "--upload", shown[2]).exit_code
    desk.raw["dry_run"] = False
    assert 0 == desk.run("segments", "file", "discard", shown[1], "--upload", shown[2]).exit_code
    assert [] == site.files
    assert 1 == desk.run("segments", "file", "discard", shown[1], "--upload", shown[2]).exit_code


@pytest.mark.parametrize("minutes", ["0", "-1", "inf", "nan", "1e9"])
def test_a_wait_without_an_end_is_wrong_usage(desk, site, minutes, waiting):
    """A time that no command can wait for is refused before anything is uploaded."""
    path = desk.folder / "staff.csv"
    path.write_text("a\n")
    given = ("--csv", str(path), "--upload", str(site.folder), "--public-url", site.url)
    options = (*waiting[2:], "--wait", minutes)
    assert 2 == desk.run("segments", "file", "add", "Staff", *given, *options).exit_code
    assert [] == site.files


def test_no_other_file_is_discarded(desk, site):
    """Only files that such a command has uploaded are deleted."""
    (site.folder / "other.csv").write_text("x")
    for name in ("other.csv", "../site/other.csv", f"moengage-segment-{'0' * 32}.csv"):
        result = desk.run("segments", "file", "discard", name, "--upload", str(site.folder))
        assert 1 == result.exit_code
    assert ["other.csv"] == site.files


def test_users_are_added_removed_and_replaced(desk, site, send, waiting):
    """Each command does with the users of its file what its name says."""
    options = (*site.options, *waiting)
    send("create", "Staff", "--csv", csv(desk, *"abc"), *options)
    for command, values, count in (("add", "cd", 4), ("remove", "ax", 3), ("replace", "ef", 2)):
        send(command, "Staff", "--csv", csv(desk, *values), *options)
        assert count == users(desk, "Staff")


def test_a_file_that_is_somewhere_already(desk, site, send, waiting):
    """--url takes the address of a file, or reads it from standard input, as it may be signed."""
    (site.folder / "users.csv").write_text("a\nb\n")
    url = f"{site.url}/users.csv"
    (file,) = send("create", "Staff", "--url", f"{url}?sig=x", *waiting)["files"]
    assert (None, "processed", 2) == (file["name"], file["state"], file["matched"])
    send("add", "Staff", "--url", "-", text=f"{url}\n")
    assert ["users.csv"] == site.files
    assert 1 == desk.run("segments", "file", "add", "S", "--url", "-", text="no\n").exit_code


def test_the_accepted_members_of_a_cohort(desk, site, send, caplog):
    """A cohort's file has the uids of its accepted members; not those who may have been removed,
    and not those that no file can have, which are counted in a warning."""
    odd = [person(5, "anonymous_id"), Member(f"{PLANTED}o'6"), Member(f'{PLANTED}"7')]
    desk.fill("vip", [*people(1, 2, 3, 4), *odd])
    with desk.ledger("vip") as ledger:
        number = ledger.sent(Action.REMOVE, person(4).encode().join((b"[", b"]")), 1, 1)
        ledger.answered(number, RequestState.UNANSWERED)
        number = ledger.sent(Action.ADD, person(3).encode().join((b"[", b"]")), 1, 2)
        ledger.answered(number, RequestState.UNANSWERED)
    result = send("create", "Staff", "--cohort", "vip", *site.options)
    assert {"no_uid": 1, "quote": 1} == result["left_out"]
    assert "members_left_out" == caplog.records[-1].code
    (name,) = site.files
    uids = {each.uid for each in people(1, 2, 3)} | {f"{PLANTED}o'6"}
    assert uids == {*(site.folder / name).read_text().split()}
    assert (7, 2) == desk.counts("vip")  # and nothing in the ledger has changed


@pytest.mark.parametrize("command", ["create", "replace", "add", "remove"])
def test_a_large_file_is_split(desk, site, send, waiting, monkeypatch, command):
    """What does not fit into one file is sent in several: after `create` and `replace` the rest is
    added, once the first is processed; after the others it is more of the same."""
    if command != "create":
        send("create", "Staff", "--csv", csv(desk, *"az"), *site.options, *waiting)
    monkeypatch.setattr(segment_parts, "MOST_BYTES", 2 * len(f"{PLANTED}a\n"))
    before = len(calls(desk))
    result = send(command, "Staff", "--csv", csv(desk, *"abcde"), *site.options, *waiting)
    assert [2, 2, 1] == [each["users"] for each in result["files"]]
    assert {"create": 5, "replace": 5, "add": 6, "remove": 1}[command] == users(desk, "Staff")
    rest = "file_remove" if command == "remove" else "file_add"
    assert [f"file_{command}", rest, rest] == calls(desk)[before:]
    assert [] == site.files


@pytest.mark.parametrize(("command", "code"), [("create", 1), ("replace", 1), ("remove", 0)])
def test_a_split_whose_order_matters_waits(desk, site, send, waiting, monkeypatch, command, code):
    """Several files of `create` and `replace` are refused without --wait: MoEngage may process the
    rest first, and lose it."""
    send("create", "Staff", "--csv", csv(desk, *"az"), *site.options, *waiting)
    monkeypatch.setattr(segment_parts, "MOST_BYTES", 2 * len(f"{PLANTED}a\n"))
    before = len(calls(desk))
    send(command, "Staff", "--csv", csv(desk, *"abc"), *site.options, code=code)
    assert (0 if code else 2) == len(calls(desk)) - before


def test_a_file_that_moengage_cannot_process(desk, site, send, waiting, monkeypatch):
    """After a callback with an error the file is deleted, the rest is not sent, and the exit code
    is 1."""
    monkeypatch.setattr(segment_parts, "MOST_BYTES", 2 * len(f"{PLANTED}a\n"))
    options = ("--upload", str(site.folder), "--public-url", f"{site.url}/nowhere")
    result = send("create", "S", "--csv", csv(desk, *"abc"), *options, *waiting, code=1)
    (file,) = result["files"]
    assert ("failed", True, 1) == (file["state"], file["deleted"], result["unsent"])
    assert file["error"]
    assert [] == site.files


def test_a_callback_that_does_not_come(desk, site, send):
    """Without a callback in time the exit code is 1, and the file stays for MoEngage."""
    nowhere = ("--wait", "0.005", "--callback-url", f"http://127.0.0.1:{free_port()}")
    result = send(
        *("create", "S", "--csv", csv(desk, "a"), *site.options, *nowhere),
        *("--callback-listen", "127.0.0.1:0"),
        code=1,
    )
    (file,) = result["files"]
    assert ("unanswered", False) == (file["state"], file["deleted"])
    assert [file["name"]] == site.files


def test_a_file_that_cannot_be_deleted(desk, site, send, waiting):
    """If a file cannot be deleted after the callback, the exit code is 1; the result says so."""
    site.removes = True
    result = send("create", "S", "--csv", csv(desk, "a"), *site.options, *waiting, code=1)
    (file,) = result["files"]
    assert ("processed", False) == (file["state"], file["deleted"])


def test_a_refused_request_leaves_no_file(desk, site, send):
    """A file that MoEngage refuses to fetch is deleted immediately."""
    send("create", "Staff", "--csv", csv(desk, "a"), *site.options)
    before = site.files
    assert send("create", "Staff", "--csv", csv(desk, "b"), *site.options, code=1) is None
    assert before == site.files


def test_a_request_without_an_answer_leaves_the_file(desk, site, send):
    """A request that may have been accepted leaves its file, and the output says so."""
    desk.emulator.apis.drop_next(when="after")
    desk.raw["max_retry_seconds"] = 0
    result = send("create", "Staff", "--csv", csv(desk, "a"), *site.options, code=1)
    (file,) = result["files"]
    assert ("unknown", False) == (file["state"], file["deleted"])
    assert [file["name"]] == site.files


@pytest.mark.parametrize("body", ['{"cs_name": "Staff"}', "[]", '{"success": true}'])
def test_an_answer_that_is_not_understood_leaves_the_file(desk, site, send, body):
    """A request whose answer is not what MoEngage documents may have been accepted: its file
    stays, and the output says so."""
    desk.emulator.apis.fail_next(202, body=body, applied=True)
    result = send("create", "Staff", "--csv", csv(desk, "a"), *site.options, code=1)
    (file,) = result["files"]
    assert ("unknown", False) == (file["state"], file["deleted"])
    assert [file["name"]] == site.files


def test_a_conflict_with_an_own_attempt_leaves_the_file(desk, site, send):
    """If an attempt without an answer was applied, the next one is a conflict; the file stays."""
    desk.emulator.apis.drop_next(when="after")
    desk.raw["max_retry_seconds"] = 100
    result = send("create", "Staff", "--csv", csv(desk, "a"), *site.options, code=1)
    assert [result["files"][0]["name"]] == site.files


BROKEN = {
    "blank line": "a\n\nb\n",
    "spaces": "a\n  \n",
    "quoted": '"a"\n',
    "apostrophes": "'a'\n",
    "NUL byte": "a\0\n",
    "two columns": "a,b\n",
    "trailing comma": "a,\n",
    "duplicate": "a\nb\na\n",
    "carriage return": "a\rb\n",
    "header": "user_id\na\n",
    "empty": "",
    "long line": "a" * 70_000 + "\n",
}


def test_a_faulty_line_is_told_by_its_number(desk, site):
    """The error about a line has its number."""
    path = desk.folder / "users.csv"
    path.write_bytes(b"x\ny\n" + "z\n".encode("utf-16-le"))
    result = desk.run("segments", "file", "add", "Staff", "--csv", str(path), *site.options)
    assert (1, True) == (result.exit_code, "line 3 has a NUL byte" in result.stderr)


def test_an_apostrophe_is_no_quote(desk, site, send, waiting):
    """A value with an apostrophe is sent, and matches a user."""
    desk.emulator.apis.know([f"{PLANTED}o'brien"])
    send("create", "Staff", "--csv", csv(desk, "o'brien"), *site.options, *waiting)
    assert 1 == users(desk, "Staff")


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_a_file_that_moengage_would_refuse(desk, site, send, content):
    """A CSV that breaks a rule is refused before anything leaves; no message shows a value."""
    path = desk.folder / "users.csv"
    path.write_bytes(content.replace("a", f"{PLANTED}a").encode() if content != "" else b"")
    if content.startswith("user_id"):
        path.write_text("user_id\nx\n")
    send("create", "Staff", "--csv", str(path), *site.options, code=1)
    assert ([], []) == (site.files, calls(desk))


def test_other_bytes_than_utf8(desk, site, send):
    """A CSV in another encoding is refused."""
    path = desk.folder / "users.csv"
    path.write_bytes("café\n".encode("latin-1"))
    send("create", "Staff", "--csv", str(path), *site.options, code=1)
    assert [] == site.files


def test_numbers_must_be_numbers(site, send):
    """For an attribute of the type double, each value must be a number."""
    number = ("--type", "double", "--attribute", "points")
    send("create", "Staff", "--csv", "-", *number, *site.options, text="1\n-2.5\n")
    send("add", "Staff", "--csv", "-", *number, *site.options, text="1\nx\n", code=1)


def test_a_day_takes_so_many_users(desk, site, send, monkeypatch):
    """More users than MoEngage takes in a day are refused as a whole."""
    monkeypatch.setattr(segment_parts, "MOST_USERS", 2)
    send("create", "Staff", "--csv", csv(desk, *"abc"), *site.options, code=1)
    assert [] == site.files
    send("create", "Staff", "--csv", csv(desk, *"ab"), *site.options)


@pytest.fixture
def small_day(monkeypatch):
    """A day that takes five users, each of which counts."""
    monkeypatch.setattr(segment_users, "USERS_A_PERMIT", 1)
    monkeypatch.setattr(segment_users, "FILE_USERS", rate_limit("file_users", day=5))


@pytest.mark.usefixtures("small_day")
@pytest.mark.parametrize("ledger", ["files", "postgres"])
def test_all_commands_count_the_users_of_a_day(desk, site, send, request, ledger, monkeypatch):
    """Commands together send no more users than MoEngage takes in a day, on one machine, and on all
    hosts of a ledger on a server; those of a refused request do not count."""
    if ledger == "postgres":
        there = request.getfixturevalue("server").new_database("users")
        where = f"{there.user}@{there.host}:{there.port}/{there.database}"
        desk.raw["ledger_uri"] = f"postgresql://{where}"
        desk.fill("vip", people(1))

    def on_host(number):
        if ledger == "postgres":
            monkeypatch.setenv("XDG_STATE_HOME", str(desk.folder / f"host-{number}"))

    on_host(1)
    send("create", "Staff", "--csv", csv(desk, *"abc"), *site.options)
    send("create", "Staff", "--csv", csv(desk, *"de"), *site.options, code=1)  # the name is taken
    before = len(calls(desk))
    on_host(2)
    send("add", "Staff", "--csv", csv(desk, *"def"), *site.options, code=1)
    assert before == len(calls(desk))
    send("add", "Staff", "--csv", csv(desk, *"de"), *site.options)
    send("add", "Staff", "--csv", csv(desk, "f"), *site.options, code=1)


@pytest.mark.usefixtures("small_day")
def test_the_users_of_an_address_count_once_they_are_known(desk, site, send, waiting, caplog):
    """How many users a file at an address has is known from its callback, and counts from then on;
    the output speaks of it only if they are too many."""
    (site.folder / "users.csv").write_text("a\nb\nc\n")
    url = ("--url", f"{site.url}/users.csv")
    send("create", "S", *url)
    send("add", "S", *url, *waiting)
    send("add", "S", "--csv", csv(desk, *"abc"), *site.options, code=1)
    assert [] == [each for each in caplog.records if getattr(each, "code", "") == "too_many_users"]
    send("add", "S", *url, *waiting)
    assert "too_many_users" == caplog.records[-1].code


@pytest.mark.usefixtures("small_day")
def test_too_many_users_of_an_address_leave_no_room(desk, site, send, waiting):
    """Users whom MoEngage has fetched count though they are too many: then the day has no room."""
    (site.folder / "users.csv").write_text("a\nb\nc\n")
    url = ("--url", f"{site.url}/users.csv", *waiting)
    send("create", "S", *url)
    send("add", "S", *url)
    send("add", "S", "--csv", csv(desk, "d"), *site.options, code=1)


def test_a_file_in_which_no_user_was_found(site, send, waiting):
    """A callback that has found no users in a file at an address is told as any other."""
    (site.folder / "users.csv").write_text("a\n")
    with changed_callbacks(waiting, values_found=0) as options:
        result = send("create", "S", "--url", f"{site.url}/users.csv", *options)
    assert ("processed", 0) == (result["files"][0]["state"], result["files"][0]["found"])


def test_users_count_in_thousands():
    """A begun thousand of a command is a whole one; a file of a whole day's users fits into it."""
    taken, given = [], []
    users = FileUsers(
        lambda _limit, count: taken.append(count) or 0.0, lambda _limit, count: given.append(count)
    )
    for sent in (1, 1_000, 1_001, MOST_USERS):
        assert 0 == users.take(sent)
        users.keep(sent)
    assert ([1, 1, 2, 2_000], []) == (taken, given)
    users.take(5_500)
    users.keep(1_001)
    users.keep(0)
    assert [4, 6] == given


WRONG = {
    "no source": (),
    "two sources": ("--url", "https://h/x", "--cohort", "vip"),
    "no upload": ("--cohort", "vip"),
    "upload of a url": ("--url", "https://h/x", "--upload", "/tmp"),
    "no callback": ("--url", "https://h/x", "--wait", "1"),
    "no listener": ("--url", "https://h/x", "--wait", "1", "--callback-url", "https://h/c"),
    "no wait": ("--url", "https://h/x", "--callback-listen", "127.0.0.1:1"),
    "no port": ("--url", "https://h/x", "--callback-listen", "127.0.0.1"),
    "http": ("--url", "http://files.example.com/x"),
    "no host": ("--url", "https:///x"),
    "query": ("--cohort", "vip", "--upload", "/tmp", "--public-url", "https://h/?x"),
    "fragment": ("--cohort", "vip", "--upload", "/tmp", "--public-url", "https://h/#x"),
    "callback's query": (
        *("--url", "https://h/x", "--wait", "1", "--callback-url", "https://h/?x"),
        *("--callback-listen", "127.0.0.1:1"),
    ),
}


@pytest.mark.parametrize("options", WRONG.values(), ids=WRONG)
def test_options_that_do_not_go_together(desk, options):
    """Wrong usage ends with 2, before anything is sent."""
    assert 2 == desk.run("segments", "file", "add", "Staff", *options).exit_code
    assert [] == calls(desk)


def test_the_attribute_must_be_known(desk, site, send):
    """Without id_attribute and --attribute nothing is sent."""
    del desk.raw["id_attribute"]
    send("create", "Staff", "--csv", csv(desk, "a"), *site.options, code=1)
    assert ([], []) == (site.files, calls(desk))


@pytest.mark.parametrize(
    "upload",
    ["nope://bucket/x", "s3://PLANTED:planted-key@", "/proc/none", "memory://x", "http://["],
)
def test_a_storage_that_cannot_be_used(desk, send, upload):
    """A storage that is unknown, not writable or gives no address is an error without secrets."""
    send("create", "Staff", "--csv", csv(desk, "a"), "--upload", upload, code=1)
    assert [] == calls(desk)


def test_an_upload_that_is_stopped_leaves_nothing(site, tmp_path):
    """If the command is stopped while it uploads, nothing of the file stays."""
    path = tmp_path / "part"
    path.write_bytes(b"x\n")
    stopped = SegmentStorage(str(site.folder), site.url, lambda: True)
    with pytest.raises(TryAgainError):
        stopped.put(path)
    assert [] == site.files


def test_a_busy_stream(desk, site, send):
    """While a run works on the cohort's stream the exit code is 4, and nothing is sent."""
    desk.fill("vip", people(1))
    with desk.ledger("vip"):
        send("create", "Staff", "--cohort", "vip", *site.options, code=4)
    assert ([], []) == (site.files, calls(desk))


def test_a_cohort_without_members(desk, site, send):
    """A cohort of which no file can have a member is an error, and nothing is sent."""
    desk.fill("vip", [person(1, "anonymous_id")])
    send("create", "Staff", "--cohort", "vip", *site.options, code=1)
    send("create", "Staff", "--cohort", "other", *site.options, code=1)
    assert ([], []) == (site.files, calls(desk))


def test_users_that_moengage_has_not_found(desk, site, send, waiting, caplog):
    """If the callback counts other values than were sent, a warning says so."""
    with changed_callbacks(waiting, values_found=1) as options:
        result = send("create", "S", "--csv", csv(desk, *"ab"), *site.options, *options)
    assert 1 == result["files"][0]["found"]
    assert "users_missing" == caplog.records[-1].code


def test_what_a_callback_quotes_is_not_shown(desk, site, send, waiting):
    """An error of a callback is shown without what may be an identifier."""
    quoted = {"status": 400, "error_message": f"no user {PLANTED}a"}
    with changed_callbacks(waiting, **quoted) as options:
        result = send("create", "S", "--csv", csv(desk, "a"), *site.options, *options, code=1)
    assert result["files"][0]["error"].startswith("no user ")


@pytest.mark.parametrize("quoted", ["annaschmidt", "annasch...", "anna&amp;schmidt", "o'bri"])
def test_what_a_callback_quotes_in_part_is_not_shown(desk, site, send, waiting, quoted):
    """Parts of a file's values, and escaped ones, are not shown, though they are letters only; the
    values of a file at an address, which are unknown here, are not either."""
    (site.folder / "users.csv").write_text("x\n")
    for *words, kind in (
        (csv(desk, "annaschmidt", "anna&schmidt", "o'brien"), *site.options, "--csv"),
        (f"{site.url}/users.csv", "--url"),
    ):
        said = {"status": 400, "error_message": f"no user has the value {quoted} in the file"}
        with changed_callbacks(waiting, **said) as options:
            result = send(
                "replace" if kind == "--url" else "create", "S", kind, *words, *options, code=1
            )
        error = result["files"][0]["error"]
        assert error.startswith("no user has the value ")
        assert error.endswith(" in the file")
        assert not [part for part in ("ann", "schmidt", "bri") if part in error]


def test_a_callback_s_words_are_told(send, waiting, site):
    """The words of a callback's error are shown, but nothing of the address that it quotes."""
    url = f"{site.url}/custom-file.csv?sig={PLANTED}secret"
    said = "The custom file of S 26 cannot be fetched with {} from {}"
    quoted = {"status": 400, "error_message": said.format(f"{PLANTED}secret", url)}
    with changed_callbacks(waiting, **quoted) as options:
        result = send("create", "S 26", "--url", url, *options, code=1)
    assert said.format("[redacted]", "[redacted]") == result["files"][0]["error"]
    with changed_callbacks(waiting, status=500, error_message=None) as options:
        result = send("add", "S 26", "--url", url, *options, code=1)
    assert "status 500, without a reason" == result["files"][0]["error"]


@contextlib.contextmanager
def changed_callbacks(waiting, **changes):
    """Pass callbacks on, through a proxy that changes them; yield the options for that."""
    listener = waiting[waiting.index("--callback-url") + 1]

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            answer = requests.post(listener + self.path, json=body | changes, timeout=10)
            self.send_response(answer.status_code)
            self.end_headers()

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as proxy:
        thread = threading.Thread(target=proxy.serve_forever, args=(0.01,))
        thread.start()
        url = f"http://127.0.0.1:{proxy.server_port}"
        yield [url if each == listener else each for each in waiting]
        proxy.shutdown()
        thread.join()


def test_a_dry_run_sends_no_file(desk, site, send):
    """With dry_run nothing is uploaded."""
    desk.raw["dry_run"] = True
    send("create", "Staff", "--csv", csv(desk, "a"), *site.options, code=1)
    assert [] == site.files


def test_a_port_that_is_taken(desk, site, send):
    """If the command cannot listen, nothing is uploaded."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        listen = ("--wait", "1", "--callback-listen", f"127.0.0.1:{port}")
        options = (*site.options, *listen, "--callback-url", "https://h/c")
        send("create", "Staff", "--csv", csv(desk, "a"), *options, code=1)
    assert [] == site.files


def test_only_moengage_can_call_back():
    """A request is taken only at an address that was given out, and only if it is a callback."""
    interrupt = Interrupt()
    with CallbackListener("127.0.0.1", 0, "http://x/hook", interrupt, 60) as listener:
        address = listener.expect()
        assert address.startswith("http://x/hook/")
        path = address.removeprefix("http://x")
        url = f"http://127.0.0.1:{listener.port}"
        body = json.dumps({"status": 201, "values_found": 3, "user_count": 2})
        for at, data, expected in (
            ("/hook/guessed", body, 404),
            ("/hook", body, 404),
            (path, "{}", 400),
            (path, "[", 400),
            (path, '{"status": 201, "values_found": -1}', 400),
            (path, "x" * 70_000, 413),
            (path, body, 200),
        ):
            answer = requests.post(url + at, data=data, timeout=5)
            assert (at, expected) == (at, answer.status_code)
        assert Callback(201, 3, None, 2) == listener.wait(address)
        assert requests.post(url + path, data=body, timeout=5).ok  # it may come twice
        threading.Timer(0.05, interrupt.set).start()
        began = time.monotonic()
        assert listener.wait(listener.expect()) is None
        assert listener.is_interrupted
        assert time.monotonic() - began < 30
    with CallbackListener("127.0.0.1", 0, "http://x/hook", interrupt, 60) as listener:
        assert listener.wait(listener.expect()) is None  # the signal came before
        assert time.monotonic() - began < 30
    interrupt.close()


def test_all_waits_together_end_in_time():
    """The time to wait is one for all callbacks; one that is there already needs none."""
    interrupt = Interrupt()
    with CallbackListener("127.0.0.1", 0, "http://x", interrupt, 0.2) as listener:
        addresses = [listener.expect() for _ in range(3)]
        assert listener.wait(addresses[0]) is None
        assert 0 == listener.seconds_left
        began = time.monotonic()
        assert listener.wait(addresses[1]) is None
        assert time.monotonic() - began < 0.15
        url = f"http://127.0.0.1:{listener.port}" + addresses[2].removeprefix("http://x")
        assert requests.post(url, data='{"status": 201}', timeout=5).ok
        assert Callback(201) == listener.wait(addresses[2])
    interrupt.close()


def test_a_wait_is_announced(desk, site, waiting, monkeypatch):
    """On standard error, once each: what is uploaded, what is waited for and until when, and that
    it came; nothing for a program that reads JSON, and nothing if the log is to be quiet."""
    words = ("segments", "file", "replace", "S", "--csv", csv(desk, "a"), *site.options, *waiting)
    created = desk.run(*words[:2], "create", *words[3:6], *site.options, "--expiry-days", "1")
    assert 0 == created.exit_code
    loud = desk.run(*words, clock=lambda: 1_800_000_000.0).stderr.splitlines()
    assert ["uploading the", "waiting for", "the callback"] == [
        " ".join(line.split()[:2]) for line in loud
    ]
    assert ["2027-01-15T08:01:00Z" in line for line in loud] == [False, True, False]
    assert "" == desk.run(*words, "--json").stderr
    monkeypatch.setenv("LOGLEVEL", "WARNING")
    assert "" == desk.run(*words).stderr


def test_no_user_has_a_value(desk, site, send, waiting, caplog):
    """A file that matches no user is a warning, because its attribute may be wrong."""
    desk.emulator.apis.know(["another"])
    send("create", "S", "--csv", csv(desk, "a"), *site.options, *waiting)
    assert "no_user_matched" == caplog.records[-1].code


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("option", ["--csv", "--url"])
def test_a_signal_ends_the_wait_for_standard_input(desk, site, option, number, tmp_path):
    """A command that waits for standard input ends at the first signal, and leaves no file."""
    (desk.folder / "config.json").write_text(json.dumps(desk.raw))
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    process = subprocess.Popen(
        [
            *(program("moengage-cohort"), "segments", "file", "add", "S", option, "-"),
            *(site.options if option == "--csv" else ()),
            *("--config", str(desk.folder / "config.json")),
        ],
        env=environment(desk.folder / "home", TMPDIR=str(temporary)),
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    process.stdin.write(b"a\n" * 100 if option == "--csv" else b"https://h/")
    process.stdin.flush()
    deadline = time.monotonic() + 30
    while any(fcntl.ioctl(process.stdin, termios.FIONREAD, bytes(4))):  # until it has taken all
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(number)
    assert process.wait(20) in {-number, 128 + number}
    process.stderr.close()
    with contextlib.suppress(BrokenPipeError):
        process.stdin.close()
    assert ([], [], []) == ([*temporary.iterdir()], site.files, calls(desk))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_wait(desk, site, number):
    """A signal ends a command that waits for a callback; its file stays, the output has its name,
    and says that the command was interrupted, not that no callback came in time."""
    (desk.folder / "config.json").write_text(json.dumps(desk.raw))
    port = free_port()
    process = subprocess.Popen(
        [
            *(program("moengage-cohort"), "segments", "file", "create", "S", "--expiry-days", "1"),
            *("--csv", csv(desk, "a"), *site.options, "--wait", "10", "--json"),
            *("--callback-url", f"http://127.0.0.1:{free_port()}"),
            *("--callback-listen", f"127.0.0.1:{port}"),
            *("--config", str(desk.folder / "config.json")),
        ],
        env=environment(desk.folder / "home"),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert desk.emulator.apis.wait_until(lambda: len(site.fetched) > 0, timeout=30)
    (name,) = site.files
    assert 0o600 == stat.S_IMODE((site.folder / name).stat().st_mode)
    process.send_signal(number)
    output, _ = process.communicate(timeout=30)
    assert 128 + number == process.returncode
    (file,) = json.loads(output)["files"]
    assert (name, "interrupted", False) == (file["name"], file["state"], file["deleted"])
    assert [name] == site.files
