"""`moengage-cohort resync`, `empty`, `adopt`, `ledger reassign` and `ledger rename`."""

import pytest

from target_moengage_cohort.core.membership import Cohort, Member
from target_moengage_cohort.ledger import PlanKind
from tests.cli.conftest import people


def numbers(desk, cohort_id):
    with desk.ledger(cohort_id) as ledger:
        found = ledger.numbers()
    return found.accepted.count, found.in_doubt


def test_resync_doubts_the_named_cohorts(desk):
    """resync puts all members of the named cohorts in doubt, voids their plans and no others."""
    desk.fill("vip", people(1, 2))
    desk.fill("other", people(1))
    desk.plan("vip", people(1), kind=PlanKind.WITHHELD)
    result = desk.run("resync", "vip")
    assert (0, "cohort 'vip': 2 members to be sent again\n") == (result.exit_code, result.stdout)
    assert (2, 2) == numbers(desk, "vip")
    assert (1, 0) == numbers(desk, "other")
    assert "changed since" in desk.run("confirm", "--withheld", "plan-withheld-vip").stderr


def test_resync_of_all_asks_first(desk):
    """Without a name resync takes all cohorts, but only after a yes to how many they are."""
    desk.fill("vip", people(1, 2))
    desk.fill("other", people(1))
    refused = desk.run("resync", text="n\n")
    assert 1 == refused.exit_code
    assert "Send all members of 2 cohorts again" in refused.stderr
    assert (2, 0) == numbers(desk, "vip")
    assert 0 == desk.run("resync", text="y\n").exit_code
    assert (2, 2) == numbers(desk, "vip")
    assert (1, 1) == numbers(desk, "other")
    assert 0 == desk.run("resync", "--yes").exit_code


def test_resync_lifts_the_seal_of_a_cohort(desk):
    """A sealed one_time cohort is sent again, too, by the next run of its stream."""
    desk.fill("vip", people(1))
    with desk.ledger("vip") as ledger:
        ledger.seal()
    assert "1 members to be sent again" in desk.run("resync", "vip").stdout
    with desk.ledger("vip") as ledger:
        assert not ledger.is_sealed


def test_resync_touches_nothing_if_a_cohort_is_unknown(desk):
    """If one name is mistyped, resync says which it may have been, and does nothing."""
    desk.fill("customers", people(1))
    result = desk.run("resync", "customers", "custmers")
    assert 1 == result.exit_code
    assert "'custmers'" in result.stderr
    assert "did you mean 'customers'?" in result.stderr
    assert (1, 0) == numbers(desk, "customers")


def test_empty_removes_everybody_after_a_yes(desk):
    """empty tells how many will go, removes them if they may, and voids the cohort's plans."""
    desk.fill("vip", people(*range(50)))
    desk.plan("vip", people(1), kind=PlanKind.WITHHELD)
    refused = desk.run("empty", "vip", text="n\n")
    assert 1 == refused.exit_code
    assert "Remove 50 members from the cohort 'vip'?" in refused.stderr
    assert 50 == len(desk.there("vip"))
    result = desk.run("empty", "vip", "--yes")
    assert (0, "cohort 'vip': 50 of 50 removals accepted\n") == (result.exit_code, result.stdout)
    assert set() == desk.there("vip") == desk.accepted("vip")
    with desk.ledger("vip") as ledger:
        assert [] == ledger.plans()
    assert "0 of 0 removals accepted" in desk.run("empty", "vip").stdout


def test_empty_removes_who_is_in_doubt_in_a_small_body(desk):
    """Members in doubt are removed, too, in bodies within the limit."""
    desk.raw["max_payload_bytes"] = 1_000
    desk.fill("vip", people(*range(100)))
    desk.run("resync", "vip")
    assert "100 of 100 removals accepted" in desk.run("empty", "vip", "--yes").stdout
    assert set() == desk.there("vip") == desk.accepted("vip")
    assert 1_000 >= max(request.bytes for request in desk.removals())


def test_a_question_that_nobody_can_answer_is_wrong_usage(desk):
    """Without anybody at standard input, a command that asks says how to answer."""
    desk.fill("vip", people(1))
    result = desk.run("empty", "vip", text="")
    assert 2 == result.exit_code
    assert "--yes" in result.stderr
    assert set(people(1)) == desk.there("vip")


def test_empty_says_whom_moengage_refuses_and_removes_the_others(desk):
    """A removal that MoEngage refuses ends empty with 1, the ledger keeps who was not removed, and
    all others are removed."""
    whom = people(*range(20))
    desk.fill("vip", whom)
    desk.emulator.poison([whom[3].uid])
    result = desk.run("empty", "vip", "--yes")
    assert 1 == result.exit_code
    assert "MoEngage refused 1 of the cohort 'vip' (MoEngage refuses it: HTTP 400" in result.stderr
    assert "all others were sent" in result.stderr
    assert {whom[3]} == desk.accepted("vip") == desk.there("vip")


def test_adopt_takes_members_as_accepted(desk):
    """adopt notes members from a file with exactly their identifiers, and sends nothing."""
    file = desk.folder / "members.csv"
    file.write_text('\ufeffname,anonymous_id,uid\nx,planted-a1,planted-1\n"x,y",planted-a2,\n')
    desk.raw["cohorts"] = {"users": {"cohort_id": "vip", "cohort_name": "VIP users"}}
    result = desk.run("adopt", "vip", "--csv", str(file))
    assert 0 == result.exit_code
    assert "made a ledger for it): 2 members read, 2 of them new" in result.stdout
    assert {
        Member("planted-1", "planted-a1"),
        Member(None, "planted-a2"),
    } == desk.accepted("vip")
    with desk.ledger("vip") as ledger:
        assert ("VIP users", "users") == (ledger.entry.name, ledger.entry.stream)
    assert [] == desk.emulator.requests()
    again = desk.run("adopt", "vip", "--csv", str(file))
    assert "(stream 'users'): 2 members read, 0 of them new" in again.stdout


def test_adopt_needs_to_know_the_stream_and_the_name(desk):
    """For a cohort of a fan-out, the stream and the name are options; both are checked."""
    file = desk.folder / "members.csv"
    file.write_text("uid\nplanted-1\n")
    desk.raw["cohorts"] = {"fan": {"cohort_id_column": "c"}, "one": {}}

    def said(*options):
        return desk.run("adopt", "vip", "--csv", str(file), *options)

    for options, text in (
        ((), "no stream's cohort_id is 'vip'; give --stream"),
        (("--stream", "mistyped"), "the stream 'mistyped' is not listed"),
        (("--stream", "one"), "feeds the cohort 'one', not 'vip'"),
        (("--stream", "fan", "--name", "a:b"), "--name: must not contain ':'"),
    ):
        result = said(*options)
        assert 1 == result.exit_code
        assert text in result.stderr
    assert 0 == said("--stream", "fan", "--name", "VIP").exit_code
    with desk.ledger("vip") as ledger:
        assert ("VIP", "fan") == (ledger.entry.name, ledger.entry.stream)
    assert "ledger rename" in said("--stream", "fan", "--name", "Other").stderr


def test_adopt_refuses_another_name_than_the_configuration_has(desk):
    """A name that contradicts the configuration is refused before a ledger is made."""
    file = desk.folder / "members.csv"
    file.write_text("uid\nplanted-1\n")
    desk.raw["cohorts"] = {"vip": {}}
    result = desk.run("adopt", "vip", "--csv", str(file), "--name", "Other")
    assert 1 == result.exit_code
    assert "names the cohort 'vip' 'vip'" in result.stderr
    with desk.ledgers() as ledgers:
        assert [] == ledgers.entries()


def test_without_mappings_a_persons_word_counts(desk):
    """Where the configuration has no mappings, as a utility's in Meltano, options are believed,
    and a cohort without any is its own stream."""
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
        (b"uid\n", "holds no identifier"),
        (b"uid,anonymous_id\nplanted-1,\n,\n", "line 3 names nobody"),
        (b"uid\nplanted-1\n\xff\xfe\n", "is not text in UTF-8"),
        (b'uid\nplanted-1\n"planted-2\n', "is not valid CSV"),
        (b"uid\n" + b"planted-" * 20_000 + b"\n", "is not valid CSV"),
    ],
)
def test_a_file_that_is_wrong_anywhere_is_not_adopted_at_all(desk, content, text):
    """A fault in a file is told without what it holds, and no ledger is made or changed."""
    file = desk.folder / "members.csv"
    file.write_bytes(content)
    result = desk.run("adopt", "vip", "--csv", str(file))
    assert 1 == result.exit_code
    assert f"{file}: {text}" in result.stderr
    with desk.ledgers() as ledgers:
        assert not ledgers.has("vip")


def test_a_cohort_goes_over_to_another_stream(desk):
    """ledger reassign lets another stream feed a cohort, and keeps what was accepted."""
    desk.fill("vip", people(1), stream="old")
    desk.raw["cohorts"] = {"new": {"cohort_id": "vip"}, "one": {}}
    assert "not listed" in desk.run("ledger", "reassign", "vip", "old").stderr
    assert "feeds the cohort 'one'" in desk.run("ledger", "reassign", "vip", "one").stderr
    result = desk.run("ledger", "reassign", "vip", "new")
    assert 0 == result.exit_code
    assert "fed by the stream 'new' from now on, not by 'old'" in result.stdout
    again = desk.run("ledger", "reassign", "vip", "new")
    assert (0, True) == (again.exit_code, "is already fed by the stream 'new'" in again.stdout)
    with desk.ledgers() as ledgers:
        ledger = ledgers.open(Cohort("vip", "vip"), "new")
        assert 1 == ledger.numbers().accepted.count


def test_a_cohort_gets_another_name(desk):
    """ledger rename checks the name by MoEngage's rules, and says what nobody knows."""
    desk.fill("vip", people(1))
    desk.fill("other", people(1), name="Others")
    assert "cohort_name: must not start with" in desk.run("ledger", "rename", "vip", ".x").stderr
    taken = desk.run("ledger", "rename", "vip", "Others")
    assert 1 == taken.exit_code
    assert "the cohort 'other' has the name 'Others'" in taken.stderr
    result = desk.run("ledger", "rename", "vip", "VIP users")
    assert 0 == result.exit_code
    assert "MoEngage does not document what becomes of a segment" in result.stdout
    with desk.ledger("vip") as ledger:
        assert "VIP users" == ledger.entry.name


@pytest.mark.parametrize(
    "arguments",
    [
        ("resync", "--yes"),
        ("empty", "vip", "--yes"),
        ("forget", "-"),
        ("adopt", "vip", "--csv", "config.json"),
        ("ledger", "reassign", "vip", "x"),
        ("ledger", "rename", "vip", "x"),
    ],
)
def test_a_dry_run_changes_nothing(desk, monkeypatch, arguments):
    """With dry_run every command that is there to change something refuses to."""
    monkeypatch.chdir(desk.folder)
    desk.raw["dry_run"] = True
    result = desk.run(*arguments, text="planted-1\n")
    assert 1 == result.exit_code
    assert "dry_run: is set" in result.stderr
    assert not (desk.folder / "ledger").exists()


@pytest.mark.parametrize(
    "arguments",
    [("resync", "vip"), ("empty", "vip", "--yes"), ("ledger", "rename", "vip", "x")],
)
def test_a_busy_ledger_is_left_alone(desk, arguments):
    """While another run has the ledger, a command that would change it exits with 4."""
    desk.fill("vip", people(1))
    with desk.ledger("vip"):
        assert 4 == desk.run(*arguments).exit_code
    assert (1, 0) == numbers(desk, "vip")
