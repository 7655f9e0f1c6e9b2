"""`exclude_path`: members that belong to no cohort, whatever the rows say."""

import json
import os
import threading
import time

import fsspec
import pytest
from click.testing import CliRunner

from target_moengage_cohort.cli import cli
from target_moengage_cohort.core import member_lists
from target_moengage_cohort.core.errors import InputError
from target_moengage_cohort.sync import early_removals, exclusions
from tests.support.singer import Outcomes, config, lines, record, run, schema, state

MODES = {
    "mirror": {"sync_mode": "mirror"},
    "one_time": {"sync_mode": "one_time"},
    "incremental": {},
    "add": {"sync_mode": "add"},
    "fan_out": {"cohorts": {"users": {"cohort_id_column": "cohort", "sync_mode": "mirror"}}},
    "exclusive": {"cohorts": {"users": {"cohort_id_column": "cohort", "exclusive": True}}},
}
BROKEN = {
    "missing": (None, "unreadable_file"),
    "empty": (b"", "no_header"),
    "without users": (b"uid\n", "no_identifiers"),
    "without a header": (b"u1\nu2\n", "no_header"),
    "not text": (b"uid\n\xff\n", "not_utf8"),
    "an open quote": (b'uid\nu1\n"u2\n', "not_csv"),
    "cut within a line": (b"uid\nu1\nu2", "unfinished_file"),
    "an empty line": (b"uid,anonymous_id\nu1,\n,\n", "no_identifier"),
    "another table": (b"<html>\n<body>\n", "no_header"),
}


@pytest.fixture
def listed(tmp_path):
    """Writes the file, and returns its path."""

    def write(*rows, header="uid"):
        path = tmp_path / "excluded.csv"
        path.write_text("\n".join((header, *rows, "")))
        return str(path)

    return write


def rows(*uids: str) -> bytes:
    columns = ("uid", "anonymous_id", "cohort")
    return lines(schema(columns=columns), *(record(uid=uid, cohort="users") for uid in uids))


def uids(emulator) -> set[str | None]:
    return {uid for uid, _ in emulator.members("users")}


def actions(seen: Outcomes) -> list[tuple[str, set[str]]]:
    return [
        (each.body["action"], {member.get("uid") for member in each.body["parameters"]["members"]})
        for each in seen.attempts
    ]


@pytest.mark.parametrize("mode", MODES)
def test_excluded_members_are_removed_and_never_added(emulator, place, listed, mode):
    """In every mode, with both engines: an excluded member with a row is not added, one who was
    accepted is removed before anything else, rows are counted, and a second run sends nothing."""
    options = {"ledger_uri": place.uri, **MODES[mode]}
    everybody = [f"u{number:02d}" for number in range(40)]
    sealing = {} if mode != "one_time" else {"max_removal_percent": 10}
    assert run(emulator, rows(*everybody[1:21]), **options, **sealing).error is None
    path = listed("u00", "u01", "u02", "stranger")
    seen = run(emulator, rows(*everybody) + lines(state(1)), **options, exclude_path=path)
    assert (None, "succeeded", [1]) == (seen.error, seen.report.status, seen.states)
    assert {*everybody[3:]} == uids(emulator)
    first, gone = actions(seen)[0]
    assert "remove" in first
    assert {"u01", "u02"} <= gone
    assert 3 == sum(each.excluded for each in seen.report.cohorts)
    again = run(emulator, rows(*everybody), **options, exclude_path=path)
    assert (None, [], {*everybody[3:]}) == (again.error, actions(again), uids(emulator))


def test_a_member_without_a_row_is_removed(emulator, tmp_path, listed):
    """An incremental stream without a row of an excluded member removes it; so a person who was
    forgotten by the file stays out of the cohort while the warehouse is late."""
    options = {"ledger_uri": str(tmp_path / "ledger")}
    run(emulator, rows("a", "b"), **options)
    path = listed("a,", ",anon", header="uid,anonymous_id")
    seen = run(emulator, rows("b"), **options, exclude_path=path)
    assert (None, {"b"}) == (seen.error, uids(emulator))
    late = run(emulator, rows("a", "b"), **options, exclude_path=path)
    assert ({"b"}, []) == (uids(emulator), actions(late))


@pytest.mark.parametrize("mode", ["mirror", "incremental"])
def test_an_anonymous_id_excludes_the_member_who_has_it(emulator, place, listed, mode):
    """With both engines: a member with a uid who is listed by the anonymous id is removed first,
    with or without a row, and the guard of a mirror does not count that."""
    keys = {"anonymous_id_column": "anonymous_id", "removals": "proven"}
    options = {"ledger_uri": place.uri, "sync_mode": mode, **keys}
    columns = schema(columns=("uid", "anonymous_id"))
    first, second, third = (record(uid=f"u{each}", anonymous_id=f"a{each}") for each in "123")
    run(emulator, lines(columns, first, second, third), **options)
    path = listed(",a1", "u2,a2", header="uid,anonymous_id")
    for data in (lines(columns, third), lines(columns, first, second, third)):
        seen = run(emulator, data, **options, exclude_path=path)
        assert (None, 0) == (seen.error, seen.report.exit_code)
        assert {("u3", "a3")} == emulator.members("users")
    assert [] == seen.attempts


def test_either_identifier_excludes_a_member(emulator, tmp_path, listed):
    """A row is excluded by its uid or by its anonymous_id, in rows and in the columns of files."""
    options = {"ledger_uri": str(tmp_path / "ledger"), "anonymous_id_column": "anonymous_id"}
    path = listed("u1,", ",a2", header="uid,anonymous_id")
    data = lines(
        schema(columns=("uid", "anonymous_id")),
        record(uid="u1", anonymous_id="a1"),
        record(uid="u2", anonymous_id="a2"),
        record(uid="a2", anonymous_id="u1"),
        record(uid=None, anonymous_id="a2"),
    )
    for mode in ("mirror", "incremental"):
        emulator.reset()
        ledger = {"ledger_uri": str(tmp_path / mode)}
        for piecemeal in (False, True):
            run(
                emulator,
                data,
                **options | ledger,
                sync_mode=mode,
                exclude_path=path,
                piecemeal=piecemeal,
            )
            assert {("a2", "u1")} == emulator.members("users")


def test_a_stream_without_members_removes_by_its_rows(emulator, listed):
    """Where no members are kept, a row of an excluded member is sent as its removal."""
    run(emulator, rows("a", "b"))
    seen = run(emulator, rows("a", "b"), exclude_path=listed("a"))
    assert (None, {"b"}) == (seen.error, uids(emulator))


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_file_stops_a_run_before_anything_is_sent(emulator, tmp_path, fault):
    """A file that is missing, empty, cut or no list of users never counts as nobody, and no message
    has what it contains."""
    content, code = BROKEN[fault]
    path = tmp_path / "secret-name.csv"
    if content is not None:
        path.write_bytes(content)
    seen = run(emulator, rows("a") + lines(state(1)), exclude_path=str(path))
    assert isinstance(seen.error, InputError)
    assert (code, 1) == (seen.error.code, seen.error.exit_code)
    assert ([], [], []) == (seen.attempts, seen.states, emulator.requests())
    assert str(seen.error).startswith("exclude_path: ")
    for secret in ("secret-name", "u1", "<html"):
        assert secret not in str(seen.error)


def test_a_long_list_leaves_memory_for_no_file(tmp_path, monkeypatch):
    """A list that does not fit into its memory is an error, and nothing of it is spilled to the
    directory of the process, where a kill would leave it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(exclusions, "_MEMORY", "20MB")
    monkeypatch.setattr(exclusions, "_INSERTED", 10_000)
    path = tmp_path / "excluded.csv"
    path.write_text("uid\n" + "".join(f"user-{each:060d}\n" for each in range(400_000)))
    made = exclusions.Exclusions(str(path))
    with pytest.raises(InputError) as refused:
        made.load()
    assert "too_many_identifiers" == refused.value.code
    assert [path] == [*tmp_path.rglob("*")]


def test_a_file_that_is_written_meanwhile_stops_a_run(emulator, tmp_path, monkeypatch):
    """A file that grows while it is read does not count with the lines that it had."""
    path = tmp_path / "excluded.csv"
    path.write_bytes(b"uid\nu1\n")
    read = member_lists.members_in

    def slow(*arguments, **options):
        for members in read(*arguments, **options):
            with path.open("ab") as file:
                file.write(b"u2\n")
            yield members

    monkeypatch.setattr(member_lists, "members_in", slow)
    seen = run(emulator, rows("u1", "u2") + lines(state(1)), exclude_path=str(path))
    assert ("unfinished_file", []) == (seen.error.code, seen.attempts)


def test_a_pipe_is_read_to_its_end(emulator, tmp_path):
    """A named pipe counts as whole once its writer has closed it."""
    path = tmp_path / "excluded"
    os.mkfifo(path)

    def write():
        with path.open("wb") as file:
            for line in (b"uid\n", b"u1\n"):
                file.write(line)
                file.flush()
                time.sleep(0.02)

    writer = threading.Thread(target=write)
    writer.start()
    seen = run(emulator, rows("u1", "u2"), exclude_path=str(path))
    writer.join()
    assert (None, {"u2"}) == (seen.error, uids(emulator))


def test_a_file_in_a_storage(emulator):
    """The file may be in any storage that fsspec supports; one that is missing there stops the run
    without its URL, which may be signed."""
    fsspec.filesystem("memory").pipe("/excluded.csv", b"uid\na\n")
    assert run(emulator, rows("a", "b"), exclude_path="memory://excluded.csv").error is None
    assert {"b"} == uids(emulator)
    seen = run(emulator, rows("a", "b"), exclude_path="memory://signed-secret.csv")
    assert "unreadable_file" == seen.error.code
    assert "signed-secret" not in str(seen.error)


@pytest.mark.parametrize("mode", ["mirror", "incremental"])
def test_a_file_that_names_too_many_needs_a_person(emulator, tmp_path, listed, mode, monkeypatch):
    """A file with more of a cohort than the guard would let go sends nothing for its stream, exit
    code 3, and names forget; with few of them the guard counts none of the removals."""
    monkeypatch.setattr(early_removals, "ALWAYS_ALLOWED_REMOVALS", 2)
    monkeypatch.setattr(exclusions, "_PAGE", 2)
    options = {"ledger_uri": str(tmp_path / "ledger"), "sync_mode": mode}
    everybody = [f"u{number:02d}" for number in range(40)]
    run(emulator, rows(*everybody), **options)
    before = len(emulator.requests())
    path = listed(*everybody[:5])
    seen = run(emulator, rows(*everybody) + lines(state(1)), **options, exclude_path=path)
    assert (None, "withheld", 3) == (seen.error, seen.report.status, seen.report.exit_code)
    assert (before, []) == (len(emulator.requests()), seen.states)
    (warning,) = [each for each in seen.report.warnings if each.code == "too_many_excluded"]
    assert "moengage-cohort forget" in warning.message
    assert "u0" not in json.dumps(warning.message)
    left = run(emulator, rows(*everybody), **options, exclude_path=listed(*everybody[:4]))
    assert (None, 0) == (left.error, left.report.exit_code)
    assert {*everybody[4:]} == uids(emulator)


def test_a_dry_run_sends_and_changes_nothing(emulator, tmp_path, listed):
    """A dry run shows the removals, and leaves them to the run."""
    for mode in ("mirror", "incremental"):
        emulator.reset()
        options = {"ledger_uri": str(tmp_path / mode), "sync_mode": mode}
        run(emulator, rows("a", "b", "c"), **options, max_removal_percent=50)
        dry = run(emulator, rows("a", "b", "c"), **options, exclude_path=listed("a"), dry_run=True)
        (cohort,) = dry.report.cohorts
        assert (None, 1) == (dry.error, cohort.removed or cohort.removals_withheld)
        assert {"a", "b", "c"} == uids(emulator)


def test_check_reads_the_file(emulator, tmp_path, listed):
    """check tells of a file that would stop a run, with its code."""
    path = tmp_path / "config.json"
    for excluded, code in ((listed("a"), 0), (str(tmp_path / "nowhere"), 1)):
        path.write_text(json.dumps(config(emulator, exclude_path=excluded)))
        done = CliRunner().invoke(cli, ["check", "--json", "--config", str(path)])
        assert code == done.exit_code
        (found,) = [
            each for each in json.loads(done.stdout)["checks"] if each["name"] == "exclude_path"
        ]
        assert found["ok"] is (code == 0)
