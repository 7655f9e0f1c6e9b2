"""`moengage-cohort ledger export`, `import`, `copy` and `reopen`."""

import shlex

import pytest

from tests.cli.conftest import people, person
from tests.support.singer import lines, record, run, schema

VIP = {"cohorts": {"vip": {"cohort_id": "vip", "cohort_name": "vip"}}, "sync_mode": "mirror"}
VIP |= {"max_removal_percent": 60}


def sync(desk, *numbers):
    """Run a mirror of the cohort that is to have some members."""
    rows = [record("vip", uid=person(number).uid) for number in numbers]
    return run(desk.emulator, lines(schema("vip"), *rows), **desk.raw, **VIP)


@pytest.fixture
def place(desk):
    """Return the value of `ledger_uri` for another place."""
    return str(desk.folder / "new" / "ledger")


@pytest.fixture(autouse=True)
def filled(desk):
    (desk.folder / "new").mkdir()
    desk.fill("vip", people(1, 2))
    desk.fill("other", people(3))


def test_a_ledger_goes_to_another_machine(desk, place):
    """An exported ledger is imported elsewhere, where a mirror removes those who have left and
    sends nobody again."""
    archive = str(desk.folder / "ledger.zip")
    exported = desk.run("ledger", "export", archive)
    assert (0, True) == (exported.exit_code, "2 cohorts with 3 members" in exported.stdout)
    assert b"manifest.json" in (desk.folder / "ledger.zip").read_bytes()
    desk.raw["ledger_uri"] = place
    imported = desk.run("ledger", "import", archive)
    assert (0, "") == (imported.exit_code, imported.stderr)
    assert 0 == desk.run("ledger", "check").exit_code
    before = desk.emulator.totals().requests
    assert sync(desk, 1).error is None
    assert {person(1)} == desk.there("vip")
    assert before + 1 == desk.emulator.totals().requests


def test_an_older_archive_needs_a_person_s_word(desk):
    """After the import of an archive that is older than the newest run, commands and runs are
    refused until the command that the import names; then they work."""
    archive, ledger = str(desk.folder / "ledger.zip"), desk.folder / "ledger"
    assert 0 == desk.run("ledger", "export", archive).exit_code
    desk.fill("vip", people(4))
    refused = desk.run("ledger", "import", archive)
    assert 1 == refused.exit_code
    words = shlex.split(refused.stderr.strip().split("away: ")[-1])
    assert ["mv"] == words[:1]
    (ledger / words[1]).rename(words[2])
    imported = desk.run("ledger", "import", archive)
    assert 0 == imported.exit_code
    assert "accept-older" in imported.stderr
    assert "ledger_older" == sync(desk, 1).error.code
    assert 1 == desk.run("status").exit_code
    assert 0 == desk.run("ledger", "accept-older").exit_code
    assert 0 == desk.run("status").exit_code
    assert people(1, 2) == sorted(desk.accepted("vip"), key=lambda each: each.uid)
    assert sync(desk, 1, 2).error is None


def test_a_moved_ledger_is_refused_until_reopened(desk, place):
    """After a copy, runs and all commands with the former place are refused and name the new one,
    with which they work; a person can go back."""
    former = desk.raw["ledger_uri"]
    copied = desk.run("ledger", "copy", former, place)
    assert (0, True) == (copied.exit_code, place in copied.stdout)
    requests = desk.emulator.totals().requests
    for command in (
        ("status",),
        ("ledger", "check"),
        ("ledger", "export", str(desk.folder / "ledger.zip")),
        ("ledger", "copy", former, f"{place}-2"),
        ("ledger", "accept-older"),
        ("resync", "vip"),
        ("empty", "vip", "--yes"),
        ("check", "--json"),
    ):
        result = desk.run(*command)
        assert 1 == result.exit_code
        assert place in result.stderr
    assert "ledger_moved" == sync(desk, 1, 2).error.code
    assert requests == desk.emulator.totals().requests
    desk.raw["ledger_uri"] = place
    assert sync(desk, 1, 2).error is None
    assert 0 == desk.run("status").exit_code
    desk.raw["ledger_uri"] = former
    assert 1 == desk.run("ledger", "reopen", text="n\n").exit_code
    assert 1 == desk.run("status").exit_code
    assert 2 == desk.run("ledger", "reopen").exit_code
    command = desk.run("status").stderr.rpartition("run: ")[2].partition(" --config")[0]
    assert 0 == desk.run(*shlex.split(command)[1:], text="y\n").exit_code
    assert 0 == desk.run("status").exit_code
    assert sync(desk, 1, 2).error is None
    assert "is not marked as moved" in desk.run("ledger", "reopen", "--yes").stdout


def test_a_copy_does_not_depend_on_the_configured_place(desk, place):
    """The places are those of the arguments, whatever `ledger_uri` says, and may be relative."""
    former, desk.raw["ledger_uri"] = desk.raw["ledger_uri"], str(desk.folder / "nowhere")
    assert 0 == desk.run("ledger", "copy", former, place).exit_code
    assert not (desk.folder / "nowhere").exists()
    desk.raw["ledger_uri"] = place
    assert {person(1), person(2)} == desk.accepted("vip")


def test_ledger_create_is_about_runs(desk, place):
    """With `ledger_create: false` a copy and an import create the ledger: a person asks for it."""
    desk.raw["ledger_create"] = False
    archive, former = str(desk.folder / "ledger.zip"), desk.raw["ledger_uri"]
    assert 0 == desk.run("ledger", "export", archive).exit_code
    assert 0 == desk.run("ledger", "copy", former, place).exit_code
    desk.raw["ledger_uri"] = f"{place}-imported"
    assert 0 == desk.run("ledger", "import", archive).exit_code
    assert 0 == desk.run("ledger", "check").exit_code


@pytest.mark.parametrize("command", ["export", "copy"])
def test_a_busy_stream_ends_the_command(desk, place, command):
    """If a run has a stream, the command ends with 4, and names the stream."""
    former = desk.raw["ledger_uri"]
    arguments = {"export": [f"{place}.zip"], "copy": [former, place]}[command]
    with desk.ledger("other"):
        result = desk.run("ledger", command, *arguments)
    assert 4 == result.exit_code
    assert "'other'" in result.stderr
    assert [] == list((desk.folder / "new").iterdir())


def test_a_place_without_its_parent_is_refused(desk):
    """A new place whose parent directory is missing is refused, as for a run: its disk may not be
    mounted."""
    former = desk.raw["ledger_uri"]
    result = desk.run("ledger", "copy", former, str(desk.folder / "no" / "such"))
    assert 1 == result.exit_code
    assert not (desk.folder / "no").exists()
    assert 0 == desk.run("status").exit_code
