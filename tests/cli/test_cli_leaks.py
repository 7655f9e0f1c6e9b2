"""Promise 7 for `moengage-cohort`: no command shows an identifier or a key."""

import json

import pytest

from target_moengage_cohort.emulator import Emulator
from tests.support.apis import filters_on
from tests.support.leaks import ANONYMOUS, KEY, MEMBER, Watched
from tests.support.singer import config, lines, record, schema, state

CSV = f'uid,anonymous_id\n"{MEMBER.replace(chr(34), chr(34) * 2)}",{ANONYMOUS}\n'.encode()
ROW = {"uid": MEMBER, "anon": ANONYMOUS}
INPUT = lines(schema(columns=("uid", "anon")), record(**ROW), state({"a": 1}))
MODE = {
    "sync_mode": "mirror",
    "anonymous_id_column": "anon",
    "max_retry_seconds": 0,
    "id_attribute": "uid",
}


@pytest.fixture
def emulator():
    with Emulator(data_api_key=KEY) as running:
        yield running


def refuse(emulator, status):
    said = f"No such users: {MEMBER}, {ANONYMOUS.upper()}, {json.dumps(MEMBER)}, {KEY}"
    emulator.fail_next(status, 100, message=said, error_type=MEMBER)


COMMANDS = {
    "plan": (("plan",), INPUT, 0),
    "plan --json": (("plan", "--json"), INPUT, 0),
    "plan of a broken line": (("plan",), INPUT + f"{MEMBER}\n".encode(), 1),
    "plan of a bad row": (("plan",), INPUT + lines(record(uid=[MEMBER])), 1),
    "check": (("check",), b"", 0),
    "run": (("run", "--", "cat", "{data}"), INPUT, 0),
    "status": (("status",), b"", 0),
    "status --json": (("status", "--json"), b"", 0),
    "history": (("history",), b"", 0),
    "history --json": (("history", "--json"), b"", 0),
    "history --singer": (("history", "--singer"), b"", 0),
    "verify": (("verify", "--report", "{data}.verified"), b"", 0),
    "verify --observed": (("verify", "users", "--observed", "{data}"), b"uid\nx\n", 6),
    "verify of a broken file": (("verify", "users", "--observed", "{data}"), CSV + b'"', 1),
    "adopt": (("adopt", "users", "--csv", "{data}"), CSV, 0),
    "adopt of a broken file": (("adopt", "new", "--csv", "{data}"), CSV + f'"{MEMBER}'.encode(), 1),
    "adopt anew": (("adopt", "new", "--csv", "{data}", "--stream", "new"), CSV, 0),
    "confirm": (("confirm", "users"), b"", 1),
    "confirm --withheld": (("confirm", "--withheld", "none"), b"", 1),
    "forget": (("forget", "-"), CSV, 0),
    "forget of a broken file": (("forget", "-"), f'uid\n"{MEMBER}'.encode(), 1),
    "forget without a column": (("forget", "-"), f"name,x\n{MEMBER},y\n".encode(), 1),
    "empty": (("empty", "users", "--yes"), b"", 0),
    "verify of removals": (("verify", "users", "--json"), b"", 0),
    "resync --removals": (("resync", "--removals", "--yes"), b"", 0),
    "resync": (("resync", "--yes"), b"", 0),
}


@pytest.fixture
def watched(tmp_path, emulator):
    """A `Watched` whose first run has created a ledger with planted IDs."""
    made = Watched(tmp_path)
    assert 0 == made.run(config(emulator, **MODE), INPUT)
    return made


def test_no_command_shows_a_key_or_an_id(watched, emulator):
    """However commands end, only the ledger contains identifiers afterwards."""
    # The two `verify` have more requests than MoEngage takes in a second.
    settings = config(emulator, **MODE | {"max_retry_seconds": 10})
    for name, (command, data, code) in COMMANDS.items():
        assert (name, code) == (name, watched.run(settings, data, *command)), watched.seen
    watched.check()


@pytest.mark.parametrize("status", [400, 401, 500])
def test_no_command_shows_what_an_answer_quotes(watched, emulator, status):
    """Identifiers and keys that MoEngage's error messages quote are not shown."""
    refuse(emulator, status)
    settings = config(emulator, **MODE)
    more = INPUT + lines(record(uid=f"{MEMBER}2"))
    assert 1 == watched.run(settings, more, "run", "--", "cat", "{data}")
    assert 1 == watched.run(settings, CSV, "forget", "-")
    assert 1 == watched.run(settings, b"", "empty", "users", "--yes")
    watched.check()


PLAIN = "planted-member-2"  # a file of a segment can have it
FILTERS = json.dumps(filters_on("uid", MEMBER)).encode()
UPLOAD = ("--upload", "{site}", "--public-url", "http://127.0.0.1:9/planted-member")
STAFF = ("Staff", "--csv", "{data}", *UPLOAD)
LISTEN = ("--wait", "0.01", "--callback-listen", "127.0.0.1:0", "--callback-url", "http://[::1]:9")
SEGMENTS = {
    "create": (("segments create", "Berlin", "-"), FILTERS, 0),
    "create again": (("segments create", "Berlin", "-"), FILTERS, 1),
    "create of other json": (("segments create", "B", "-"), FILTERS[:-1] + PLAIN.encode(), 1),
    "list": (("segments list",), b"", 0),
    "update": (("segments update", "Berlin", "-"), FILTERS.replace(b"true", b"false"), 0),
    "archive": (("segments archive", "Berlin"), b"", 0),
    "update of an archived one": (("segments update", "Berlin", "-"), FILTERS, 1),
    "get of none": (("segments get", "None"), b"", 1),
    "file of a csv": (("segments file create", *STAFF, "--expiry-days", "1"), PLAIN.encode(), 0),
    "file of a broken csv": (("segments file add", *STAFF), CSV, 1),
    "file with a duplicate": (("segments file add", *STAFF), f"{PLAIN}\n{PLAIN}\n".encode(), 1),
    "file of a cohort": (("segments file add", "Staff", "--cohort", "users", *UPLOAD), b"", 0),
    "file that fails": (
        ("segments file add", *STAFF, "--wait", "0.01", *LISTEN),
        PLAIN.encode(),
        1,
    ),
    "file at an address": (
        ("segments file add", "Staff", "--url", "-"),
        b"http://127.0.0.1:9/?sig=planted-member",
        0,
    ),
    "file at no address": (("segments file add", "Staff", "--url", "-"), PLAIN.encode(), 1),
    "file of no segment": (("segments file add", "None", "--cohort", "users", *UPLOAD), b"", 1),
}


def test_no_segment_command_shows_a_key_or_an_id(watched, emulator):
    """However commands of segments end, neither keys nor identifiers are shown, nor ids of
    segments, unless JSON is asked for; no file but the uploaded ones has identifiers."""
    settings = config(emulator, **MODE)
    assert 0 == watched.run(settings, INPUT + lines(record(uid=PLAIN)))
    site = watched.inputs / "site"
    site.mkdir(mode=0o700)
    for name, (words, data, code) in SEGMENTS.items():
        command = [word.replace("{site}", str(site)) for word in words]
        ended = watched.run(settings, data, *command)
        assert (name, code) == (name, ended), watched.seen
    assert all(PLAIN in path.read_text() for path in site.iterdir())
    assert 3 == len([*site.iterdir()])
    ids = [each.id for each in emulator.apis.segments()]
    assert 3 == len(ids)
    assert [] == [each for each in ids if each in watched.seen]
    watched.seen = watched.seen.replace("http://127.0.0.1:9/planted-member", "")  # the argument
    watched.check()


@pytest.mark.parametrize("status", [400, 401, 403, 428, 500])
def test_verify_shows_nothing_that_an_answer_quotes(watched, emulator, status):
    """Identifiers and keys that an answer about a query quotes are not shown."""
    said = f"No such users: {MEMBER}, {json.dumps(MEMBER)}, {KEY}"
    settings = config(emulator, **MODE)
    assert 0 == watched.run(settings, b"", "verify")
    emulator.apis.fail_next(status, 100, message=said, error_type=MEMBER)
    report = watched.home / "verified.json"
    assert 1 == watched.run(settings, b"", "verify", "--json", "--report", str(report))
    emulator.apis.clear_faults()
    emulator.apis.fail_queries(1, said)
    assert 1 == watched.run(settings, b"", "verify")
    watched.check()


def test_differences_are_written_where_asked_alone(watched, emulator):
    """Only the file that --differences names has identifiers of an observed membership."""
    path = watched.inputs / "differences.csv"
    command = ("verify", "users", "--observed", "{data}", "--differences", str(path))
    data = f"uid\n{MEMBER.partition('x@')[0].strip(chr(34))}\n".encode()
    assert 6 == watched.run(config(emulator, **MODE), data, *command)
    assert "planted-member" in path.read_text()
    watched.check()


def test_no_command_shows_what_is_in_a_broken_ledger(watched, emulator):
    """A broken ledger file is named, without its content."""
    settings = config(emulator, **MODE)
    files = [*(watched.home / "state").rglob("*.duckdb")]
    assert files
    for path in files:
        path.write_bytes(f"{MEMBER} {KEY}".encode() * 100)
    assert 1 == watched.run(settings, INPUT)
    for command in (("plan",), ("forget", "-"), ("empty", "users", "--yes"), ("confirm", "users")):
        data = CSV if command[0] == "forget" else INPUT
        assert 1 == watched.run(settings, data, *command), watched.seen
    watched.run(settings, b"", "status")
    for path in files:
        path.unlink()
    watched.check()
