"""`moengage-cohort adopt` with real ledgers."""

import os

import pytest

from target_moengage_cohort.core.membership import Member


def test_adopt_records_members_without_sending_them(desk):
    """adopt records members from a file, with their identifiers verbatim, and sends nothing."""
    file = desk.folder / "members.csv"
    file.write_text('\ufeffname,anonymous_id,uid\nx,planted-a1,planted-1\n"x,y",planted-a2,\n')
    desk.raw["cohorts"] = {"users": {"cohort_id": "vip", "cohort_name": "VIP users"}}
    result = desk.run("adopt", "vip", "--csv", str(file))
    assert 0 == result.exit_code
    assert "(new ledger): 2 members read, 2 added" in result.stdout
    assert {
        Member("planted-1", "planted-a1"),
        Member(None, "planted-a2"),
    } == desk.accepted("vip")
    with desk.ledger("vip") as ledger:
        assert ("VIP users", "users") == (ledger.entry.name, ledger.entry.stream)
    assert [] == desk.emulator.requests()
    again = desk.run("adopt", "vip", "--csv", str(file))
    assert "(stream 'users'): 2 members read, 0 added" in again.stdout


def test_only_the_strangers_of_a_file_of_differences_are_adopted(desk):
    """Members that were removed, or are missing, are not imported as if MoEngage should have them:
    the next mirror removes the strangers alone."""
    file = desk.folder / "differences.csv"
    file.write_text("uid,difference\nleft-1,removed\nnew-1,stranger\nlost-1,missing\n")
    desk.raw["cohorts"] = {"users": {"cohort_id": "vip"}}
    assert 0 == desk.run("adopt", "vip", "--csv", str(file)).exit_code
    assert {Member("new-1")} == desk.accepted("vip")


def test_the_stream_and_the_name_of_a_fan_out_are_options(desk):
    """For a cohort of a fan-out, the stream and the name are options; both are checked."""
    file = desk.folder / "members.csv"
    file.write_text("uid\nplanted-1\n")
    desk.raw["cohorts"] = {"fan": {"cohort_id_column": "c"}, "one": {}}

    def adopt(*options):
        return desk.run("adopt", "vip", "--csv", str(file), *options)

    for options, text in (
        ((), "no stream has cohort_id 'vip'; use --stream"),
        (("--stream", "mistyped"), "stream 'mistyped' is not "),
        (("--stream", "one"), "cohorts.one: "),
        (("--stream", "fan", "--name", "a:b"), "--name: "),
    ):
        result = adopt(*options)
        assert 1 == result.exit_code
        assert text in result.stderr
    assert 0 == adopt("--stream", "fan", "--name", "VIP").exit_code
    with desk.ledger("vip") as ledger:
        assert ("VIP", "fan") == (ledger.entry.name, ledger.entry.stream)
    assert 1 == adopt("--stream", "fan", "--name", "Other").exit_code


def test_a_name_must_not_contradict_the_configuration(desk):
    """A name that contradicts the configuration is an error, and no ledger is created."""
    file = desk.folder / "members.csv"
    file.write_text("uid\nplanted-1\n")
    desk.raw["cohorts"] = {"vip": {}}
    result = desk.run("adopt", "vip", "--csv", str(file), "--name", "Other")
    assert 1 == result.exit_code
    assert "Error: --name: " in result.stderr
    with desk.ledgers() as ledgers:
        assert [] == ledgers.entries()


def test_without_mappings_the_options_are_not_checked(desk):
    """Without mappings, as for a utility in Meltano, the options are used as they are, and a cohort
    without them is its own stream."""
    file = desk.folder / "members.csv"
    file.write_text("uid\nplanted-1\n")
    adopted = desk.run("adopt", "vip", "--csv", str(file), "--stream", "users", "--name", "VIP")
    assert 0 == adopted.exit_code
    assert 0 == desk.run("ledger", "reassign", "vip", "people").exit_code
    assert 0 == desk.run("adopt", "plain", "--csv", str(file)).exit_code
    with desk.ledgers() as ledgers:
        assert [("plain", "plain", "plain"), ("vip", "VIP", "people")] == [
            (entry.cohort_id, entry.name, entry.stream) for entry in ledgers.entries()
        ]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"planted-1\nplanted-2\n", "the first line must name the columns"),
        (b"uid\n", "contains no identifiers"),
        (b"uid,anonymous_id\nplanted-1,\n,\n", "line 3 has no identifier; delete it"),
        (b"uid\nplanted-1\n\xff\xfe\n", "is not valid UTF-8"),
        (b'uid\nplanted-1\n"planted-2\n', "is not valid CSV"),
        (b"uid\n" + b"planted-" * 20_000 + b"\n", "is not valid CSV"),
    ],
)
def test_a_faulty_file_is_not_adopted(desk, content, text):
    """A fault anywhere in the file is reported without its content, and no ledger is created."""
    file = desk.folder / "members.csv"
    file.write_bytes(content)
    result = desk.run("adopt", "vip", "--csv", str(file))
    assert 1 == result.exit_code
    assert f"{file}: {text}" in result.stderr
    with desk.ledgers() as ledgers:
        assert not ledgers.has("vip")


def test_a_pipe_is_not_adopted(desk):
    """The file is read twice, so it must be a regular file."""
    path = desk.folder / "members.csv"
    os.mkfifo(path)
    result = desk.run("adopt", "vip", "--csv", str(path))
    assert 1 == result.exit_code
    assert f"--csv: {path} must be a regular file" in result.stderr
