"""`moengage-cohort forget` against the emulator."""

import pytest

from target_moengage_cohort.core.membership import Member
from target_moengage_cohort.ledger import PlanKind
from tests.cli.conftest import PLANTED, people

BOTH = Member(f"{PLANTED}both", f"{PLANTED}anonymous")
GONE = f"{PLANTED}0001"


def bytes_below(folder):
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


def test_a_person_is_removed_everywhere_and_erased(desk):
    """Whoever is named leaves every cohort, with the identifiers that were accepted, and no
    file of the ledger holds any of them afterwards."""
    desk.fill("a", [*people(1, 2), BOTH])
    desk.fill("b", people(1))
    desk.fill("c", people(3))
    desk.plan("c", people(1, 3), kind=PlanKind.WITHHELD, additions=True)
    assert GONE.encode() in bytes_below(desk.folder / "ledger")
    result = desk.run("forget", "-", text=f"{GONE}\n{PLANTED}both\r\n\n")
    assert 0 == result.exit_code
    assert [
        "cohort 'a': 2 removals accepted",
        "cohort 'b': 1 removal accepted",
        "2 identifiers read; erased from 3 ledgers; 3 of 3 hold nothing of them any more",
    ] == result.stdout.splitlines()
    assert set(people(2)) == desk.there("a") == desk.accepted("a")
    assert set() == desk.there("b") == desk.accepted("b")
    assert set(people(3)) == desk.there("c")
    kept = bytes_below(desk.folder / "ledger")
    for identifier in (GONE, BOTH.uid, BOTH.anonymous_id):
        assert identifier.encode() not in kept
    assert f"{PLANTED}0002".encode() in kept
    again = desk.run("forget", "-", text=f"{GONE}\n")
    assert 0 == again.exit_code
    assert "1 identifier read; erased from 0 ledgers" in again.stdout
    assert "nobody of them was known in any ledger; compare the identifiers" in again.stdout


def test_a_csv_names_both_kinds_of_identifiers(desk):
    """In a CSV the columns uid and anonymous_id count, wherever they stand."""
    desk.fill("a", [*people(1, 2), BOTH])
    file = desk.folder / "ids.csv"
    file.write_text(f"email,anonymous_id,uid\nx,,{GONE}\ny,{BOTH.anonymous_id},\n")
    assert 0 == desk.run("forget", str(file)).exit_code
    assert set(people(2)) == desk.there("a") == desk.accepted("a")


def test_without_a_file_a_person_is_asked_and_nothing_is_shown(desk):
    """The prompt takes either identifier, and needs one of them."""
    desk.fill("a", [*people(1, 2), BOTH])
    result = desk.run("forget", text=f"{GONE}\n\n")
    assert 0 == result.exit_code
    assert "User ID (not shown" in result.stderr
    assert {*people(2), BOTH} == desk.there("a")
    assert 0 == desk.run("forget", text=f"\n{BOTH.anonymous_id}\n").exit_code
    assert set(people(2)) == desk.there("a")
    neither = desk.run("forget", text="\n\n")
    assert 1 == neither.exit_code
    assert "neither a user ID nor an anonymous ID" in neither.stderr


def test_a_refused_removal_leaves_its_cohort_to_be_repeated(desk):
    """If one cohort's removal is refused, the others are done, and it is named."""
    for cohort in ("a", "b", "c"):
        desk.fill(cohort, people(1, 2))
    desk.emulator.fail_next(400, cohort_id="b")
    result = desk.run("forget", "-", text=GONE)
    assert 1 == result.exit_code
    assert "erased from 2 ledgers; 2 of 3 hold nothing of them any more" in result.stdout
    assert "nobody of them" not in result.stdout
    assert "cohort 'b': MoEngage refused" in result.stderr
    assert "repeat this command for it" in result.stderr
    assert set(people(2)) == desk.accepted("a") == desk.accepted("c")
    assert set(people(1, 2)) == desk.accepted("b")
    assert 0 == desk.run("forget", "-", text=GONE).exit_code
    assert set(people(2)) == desk.there("b") == desk.accepted("b")


def test_after_an_error_of_all_nothing_more_is_sent(desk):
    """Refused credentials end forget at once; every cohort that was not done is named."""
    for cohort in ("a", "b", "c"):
        desk.fill(cohort, people(1))
    desk.emulator.fail_next(401, 3)
    result = desk.run("forget", "-", text=GONE)
    assert 1 == result.exit_code
    assert "cohort 'a': MoEngage refused the credentials" in result.stderr
    assert "cohort 'b': not reached" in result.stderr
    assert "cohort 'c': not reached" in result.stderr
    assert 1 == len(desk.removals())
    assert set(people(1)) == desk.accepted("a") == desk.accepted("c")


def test_a_busy_cohort_is_to_be_repeated(desk):
    """If a run has one of the ledgers, the others are done, and the exit code is 4."""
    desk.fill("a", people(1))
    desk.fill("b", people(1))
    with desk.ledger("a"):
        result = desk.run("forget", "-", text=GONE)
    assert 4 == result.exit_code
    assert "cohort 'a': the ledger of cohort 'a' is held by" in result.stderr
    assert set() == desk.there("b")
    assert set(people(1)) == desk.there("a")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"user_id,email\n{GONE},x\n", "the first line must name the columns"),
        ("", "holds no identifier"),
        ("\n\n", "holds no identifier"),
    ],
)
def test_a_list_that_names_nobody_is_an_error(desk, text, said):
    """A file in which no id can be found does not pass for one whose people were forgotten."""
    desk.fill("a", people(1))
    result = desk.run("forget", "-", text=text)
    assert 1 == result.exit_code
    assert f"standard input: {said}" in result.stderr
    assert [] == desk.removals()


def test_cohorts_without_a_ledger_are_told_to_remove_them(desk):
    """A cohort that the configuration names leaves nobody in it, though nobody knows who is."""
    desk.fill("a", people(1, 2))
    desk.raw["cohorts"] = {"a": {}, "b": {}}
    assert 0 == desk.run("forget", "-", text=f"{GONE}\n").exit_code
    (sent,) = desk.emulator.requests(cohort_id="b")
    assert ("remove_members", 1) == (sent.action, sent.members)


def test_cohorts_that_nobody_knows_are_told_of(desk):
    """A stream that names its cohorts itself, without a ledger, is left to the person: exit 1."""
    desk.raw["cohorts"] = {"fan": {"cohort_id_column": "c"}}
    result = desk.run("forget", "-", text=f"{GONE}\n")
    assert 1 == result.exit_code
    assert "stream 'fan': it names its cohorts itself" in result.stderr


def test_whoever_shares_an_identifier_with_them_is_forgotten_too(desk):
    """Named by the anonymous id, a person's uid is erased from wherever it stands."""
    desk.fill("a", [BOTH, *people(2)])
    desk.plan("a", [Member(BOTH.uid), *people(2)], kind=PlanKind.WITHHELD, additions=True)
    file = desk.folder / "ids.csv"
    file.write_text(f"anonymous_id\n{BOTH.anonymous_id}\n")
    assert 0 == desk.run("forget", str(file)).exit_code
    assert BOTH.uid.encode() not in bytes_below(desk.folder / "ledger")


@pytest.mark.parametrize(
    "header",
    [
        "user_id",
        "id",
        "UUID",
        "Email",
        "userId",
        "customer_uuid",
        "UID",
        "e-mail",
        "_id",
        "User ID",
        "email_address",
        "crm2_id",
        "phone",
    ],
)
def test_a_column_of_another_name_is_no_uid(desk, header):
    """A header that is neither uid nor anonymous_id is an error, not the uid of a person."""
    desk.fill("a", people(1))
    result = desk.run("forget", "-", text=f"{header}\n{GONE}\n")
    assert 1 == result.exit_code
    assert "name the column uid or anonymous_id" in result.stderr
    assert [] == desk.removals()


@pytest.mark.parametrize("uid", ["david", "id7", "ann@id", "4711", "x" * 100_000, "mail.ru"])
def test_a_uid_is_no_header(desk, uid):
    """A first line that names no column is a uid like all others, whatever letters it ends with."""
    desk.fill("a", [Member(uid), *people(1)])
    assert 0 == desk.run("forget", "-", text=f"{uid}\n").exit_code
    assert set(people(1)) == desk.there("a")


@pytest.mark.parametrize("separator", [";", "\t"])
def test_a_file_with_other_separators_is_refused(desk, separator):
    """Columns cut by anything but commas would read as uids that nobody has."""
    result = desk.run("forget", "-", text=f"uid{separator}anonymous_id\n{GONE}{separator}x\n")
    assert 1 == result.exit_code
    assert "with commas" in result.stderr


def test_nobody_else_of_a_shared_device_is_forgotten(desk):
    """Another person with the same anonymous id stays, unless that id itself is named."""
    other = Member(f"{PLANTED}other", BOTH.anonymous_id)
    desk.fill("a", [BOTH, other])
    assert 0 == desk.run("forget", "-", text=f"{BOTH.uid}\n").exit_code
    assert {other} == desk.there("a") == desk.accepted("a")


def test_whoever_is_in_a_plan_alone_was_known(desk):
    """A person who was never sent, and is erased from a plan that waits, was known there."""
    desk.fill("a", people(2))
    desk.plan("a", people(1, 2), kind=PlanKind.WITHHELD, additions=True)
    result = desk.run("forget", "-", text=f"{GONE}\n")
    assert 0 == result.exit_code
    assert "1 identifier read; erased from 1 ledger; 1 of 1 hold" in result.stdout
    assert "nobody of them" not in result.stdout


def test_nobody_known_is_told_though_another_cohort_refuses(desk):
    """What the ledgers know of the people is told whatever becomes of cohorts without a ledger."""
    desk.fill("a", people(2))
    desk.raw["cohorts"] = {"a": {}, "b": {}}
    desk.emulator.fail_next(400, cohort_id="b")
    result = desk.run("forget", "-", text=f"{GONE}\n")
    assert 1 == result.exit_code
    assert "nobody of them was known in any ledger" in result.stdout
    assert "cohort 'b': MoEngage refused" in result.stderr
