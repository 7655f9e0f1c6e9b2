"""`moengage-cohort forget` against the emulator."""

import pytest

from target_moengage_cohort.cli.operator_delivery import OperatorDelivery
from target_moengage_cohort.cli.session import Session, SessionTiming
from target_moengage_cohort.core.membership import Action, Cohort, Member
from target_moengage_cohort.ledger.records import PlanKind
from target_moengage_cohort.settings import load
from tests.cli.conftest import PLANTED, people

BOTH = Member(f"{PLANTED}both", f"{PLANTED}anonymous")
GONE = f"{PLANTED}0001"


def bytes_below(folder):
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


def test_users_are_removed_everywhere_and_erased(desk):
    """forget removes users from every cohort and erases all their identifiers from every file of
    the ledger."""
    desk.fill("a", [*people(1, 2), BOTH])
    desk.fill("b", people(1))
    desk.fill("c", people(3))
    desk.plan("c", people(1, 3), kind=PlanKind.WITHHELD, additions=True)
    assert GONE.encode() in bytes_below(desk.folder / "ledger")
    result = desk.run("forget", "-", text=f"{GONE}\n{PLANTED}both\r\n\n")
    assert 0 == result.exit_code
    assert [
        "cohort 'a': 2 removals accepted",
        "cohort 'b': 2 removals accepted",
        "cohort 'c': 2 removals accepted",
        (
            "Read 2 identifiers. MoEngage accepted the removals from 3 of 3 cohorts; it does not "
            "report whether it knew the users."
        ),
        "Erased from 3 of 3 ledgers; none of the ledgers contains them now.",
        "If the warehouse still contains these users, the next run adds them again.",
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
    assert [
        "Erased from 0 of 3 ledgers; none of the ledgers contains them now.",
        "None of these identifiers was found in any ledger; check that they match exactly.",
    ] == again.stdout.splitlines()[-3:-1]


@pytest.mark.parametrize("given", ["uid", "anonymous_id", "former"])
def test_aliases_are_removed_and_erased_with_their_uid(desk, given):
    """A uid, its anonymous id and a former one are the same user: each of them reaches all."""
    device, former = f"{PLANTED}device", f"{PLANTED}former"
    desk.fill("a", [Member(None, device), Member(None, former), *people(2)])
    desk.fill("a", [Member(BOTH.uid, former)])
    desk.fill("a", [Member(BOTH.uid, device)])
    file = desk.folder / "ids.csv"
    column, value = {
        "uid": ("uid", BOTH.uid),
        "anonymous_id": ("anonymous_id", device),
        "former": ("anonymous_id", former),
    }[given]
    file.write_text(f"{column}\n{value}\n")
    assert 0 == desk.run("forget", str(file)).exit_code
    assert set(people(2)) == desk.there("a") == desk.accepted("a")
    kept = bytes_below(desk.folder / "ledger")
    for identifier in (BOTH.uid, device, former):
        assert identifier.encode() not in kept


def test_a_csv_names_both_kinds_of_identifiers(desk):
    """In a CSV, the columns uid and anonymous_id are read, in any position."""
    desk.fill("a", [*people(1, 2), BOTH])
    file = desk.folder / "ids.csv"
    file.write_text(f"email,anonymous_id,uid\nx,,{GONE}\ny,{BOTH.anonymous_id},\n")
    assert 0 == desk.run("forget", str(file)).exit_code
    assert set(people(2)) == desk.there("a") == desk.accepted("a")


def test_without_a_file_forget_prompts_and_hides_the_input(desk):
    """Without a file, forget prompts for either identifier, needs one, and hides the input."""
    desk.fill("a", [*people(1, 2), BOTH])
    result = desk.run("forget", text=f"{GONE}\n\n")
    assert 0 == result.exit_code
    assert "User ID (hidden; leave empty if there is none)" in result.stderr
    assert {*people(2), BOTH} == desk.there("a")
    assert 0 == desk.run("forget", text=f"\n{BOTH.anonymous_id}\n").exit_code
    assert set(people(2)) == desk.there("a")
    neither = desk.run("forget", text="\n\n")
    assert 1 == neither.exit_code
    assert "neither a user ID nor an anonymous ID was entered" in neither.stderr


def test_a_rejected_removal_is_to_be_repeated_for_its_cohort(desk):
    """If MoEngage rejects the removal in one cohort, the others are done, and that one is named."""
    for cohort in ("a", "b", "c"):
        desk.fill(cohort, people(1, 2))
    desk.emulator.fail_next(400, cohort_id="b")
    result = desk.run("forget", "-", text=GONE)
    assert 1 == result.exit_code
    assert "Erased from 2 of 3 ledgers; 1 may still contain them now.\n" in result.stdout
    assert "None of these" not in result.stdout
    _, error = result.stderr.splitlines()
    assert error.startswith("Error: cohort 'b': MoEngage rejected 1 member of cohort 'b' (")
    assert "); all others were sent; " in error
    assert set(people(2)) == desk.accepted("a") == desk.accepted("c")
    assert set(people(1, 2)) == desk.accepted("b")
    assert 0 == desk.run("forget", "-", text=GONE).exit_code
    assert set(people(2)) == desk.there("b") == desk.accepted("b")


def test_refused_credentials_stop_forget(desk):
    """Refused credentials stop forget immediately; every unfinished cohort is named."""
    for cohort in ("a", "b", "c"):
        desk.fill(cohort, people(1))
    desk.emulator.fail_next(401, 3)
    result = desk.run("forget", "-", text=GONE)
    assert 1 == result.exit_code
    general, first, *others = result.stderr.splitlines()
    assert general.startswith("Error: no cohorts are configured, ")
    assert first.startswith("Error: cohort 'a': ")
    assert ["Error: cohort 'b'", "Error: cohort 'c'"] == [
        each.partition(": not ")[0] for each in others
    ]
    assert 1 == len(desk.removals())
    assert set(people(1)) == desk.accepted("a") == desk.accepted("c")


def test_a_busy_cohort_is_to_be_repeated(desk):
    """If a run has one of the ledgers open, the others are done, and the exit code is 4."""
    desk.fill("a", people(1))
    desk.fill("b", people(1))
    with desk.ledger("a"):
        result = desk.run("forget", "-", text=GONE)
    assert 4 == result.exit_code
    assert "Error: cohort 'a': " in result.stderr
    assert set() == desk.there("b")
    assert set(people(1)) == desk.there("a")


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (f"user_id,email\n{GONE},x\n", "the first line must name the columns"),
        ("", "contains no identifiers; put one on each line"),
        ("\n\n", "contains no identifiers; put one on each line"),
    ],
)
def test_a_file_without_identifiers_is_an_error(desk, text, error):
    """A file without identifiers is an error, and nothing is sent."""
    desk.fill("a", people(1))
    result = desk.run("forget", "-", text=text)
    assert 1 == result.exit_code
    assert f"standard input: {error}" in result.stderr
    assert [] == desk.removals()


def test_cohorts_without_a_ledger_are_sent_the_removals(desk):
    """The removals are also sent to configured cohorts without a ledger."""
    desk.fill("a", people(1, 2))
    desk.raw["cohorts"] = {"a": {}, "b": {}}
    result = desk.run("forget", "-", text=f"{GONE}\n")
    assert 0 == result.exit_code
    assert "accepted the removals from 2 of 2 cohorts" in result.stdout
    assert "Erased from 1 of 1 ledger" in result.stdout
    (sent,) = desk.emulator.requests(cohort_id="b")
    assert ("remove_members", 1) == (sent.action, sent.members)


def test_cohorts_without_a_ledger_that_were_not_reached_are_named(desk):
    """If refused credentials stop forget, cohorts without a ledger are named as not reached."""
    desk.fill("a", people(1))
    desk.raw["cohorts"] = {"a": {}, "b": {}}
    desk.emulator.fail_next(401, 3)
    result = desk.run("forget", "-", text=f"{GONE}\n")
    assert 1 == result.exit_code
    assert "Error: cohort 'b': " in result.stderr
    assert "accepted the removals from 0 of 2 cohorts" in result.stdout
    assert [] == desk.emulator.requests(cohort_id="b")


def test_streams_of_unknown_cohorts_are_reported(desk):
    """A stream whose rows name its cohorts is an error if none of them has a ledger."""
    desk.raw["cohorts"] = {"fan": {"cohort_id_column": "c"}}
    result = desk.run("forget", "-", text=f"{GONE}\n")
    assert 1 == result.exit_code
    assert "'fan'" in result.stderr
    assert f"forget --config {desk.folder}" in result.stderr


def test_unknown_cohorts_decide_the_exit_code_over_a_busy_stream(desk):
    """A stream that is busy ends with 4, but not if other cohorts cannot be reached at all."""
    desk.fill("a", people(1))
    desk.raw["cohorts"] = {"a": {}}
    with desk.ledger("a"):
        assert 4 == desk.run("forget", "-", text=f"{GONE}\n").exit_code
        desk.raw["cohorts"]["fan"] = {"cohort_id_column": "c"}
        assert 1 == desk.run("forget", "-", text=f"{GONE}\n").exit_code


def test_all_identifiers_of_a_user_are_erased(desk):
    """A user named by the anonymous ID is erased with the uid, also from plans."""
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
def test_a_column_of_another_name_is_not_a_uid(desk, header):
    """A column name other than uid and anonymous_id is an error, not the uid of a user."""
    desk.fill("a", people(1))
    result = desk.run("forget", "-", text=f"{header}\n{GONE}\n")
    assert 1 == result.exit_code
    assert "name the column uid or anonymous_id" in result.stderr
    assert [] == desk.removals()


@pytest.mark.parametrize("uid", ["david", "id7", "ann@id", "4711", "x" * 100_000, "mail.ru"])
def test_a_uid_is_not_a_header(desk, uid):
    """A first line that is not a column name is a uid, even if it resembles one."""
    desk.fill("a", [Member(uid), *people(1)])
    assert 0 == desk.run("forget", "-", text=f"{uid}\n").exit_code
    assert set(people(1)) == desk.there("a")


@pytest.mark.parametrize("separator", [";", "\t"])
def test_a_file_with_other_separators_is_refused(desk, separator):
    """A file whose columns are not separated by commas is an error."""
    result = desk.run("forget", "-", text=f"uid{separator}anonymous_id\n{GONE}{separator}x\n")
    assert 1 == result.exit_code
    assert "the first line must name the columns, separated by commas" in result.stderr


def test_another_user_of_a_shared_device_is_kept(desk):
    """Another user with the same anonymous ID is kept, unless that ID itself is listed."""
    other = Member(f"{PLANTED}other", BOTH.anonymous_id)
    desk.fill("a", [BOTH, other])
    assert 0 == desk.run("forget", "-", text=f"{BOTH.uid}\n").exit_code
    assert {other} == desk.there("a") == desk.accepted("a")


def test_a_user_that_is_only_in_a_plan_is_found(desk):
    """A user that is only in a pending plan counts as found in that ledger."""
    desk.fill("a", people(2))
    desk.plan("a", people(1, 2), kind=PlanKind.WITHHELD, additions=True)
    result = desk.run("forget", "-", text=f"{GONE}\n")
    assert 0 == result.exit_code
    assert "Erased from 1 of 1 ledger; " in result.stdout
    assert "None of these" not in result.stdout


def test_unknown_identifiers_are_reported_despite_a_failure(desk):
    """Identifiers that no ledger has are reported even if a cohort without a ledger fails."""
    desk.fill("a", people(2))
    desk.raw["cohorts"] = {"a": {}, "b": {}}
    desk.emulator.fail_next(400, cohort_id="b")
    result = desk.run("forget", "-", text=f"{GONE}\n")
    assert 1 == result.exit_code
    assert "None of these identifiers was found" in result.stdout
    assert "cohort 'b': " in result.stderr


def feed_without_ledger(desk, cohort_id, members):
    """Add members to a cohort in MoEngage, of whom the ledger knows nothing."""
    session = Session(load(desk.raw), SessionTiming())
    cohort = Cohort(cohort_id, cohort_id)
    assert OperatorDelivery(session).deliver([(cohort, [(Action.ADD, members)])])
    session.interrupt.close()


def test_users_whom_no_ledger_knows_are_removed_from_every_cohort(desk):
    """A user from before the ledger is removed from every cohort, whether the ledger of a cohort
    knows the user, other members only, or was begun anew; retired cohorts included."""
    for cohort_id in ("known", "others", "retired"):
        desk.fill(cohort_id, people(2), stream="s")
    assert 0 == desk.run("ledger", "retire", "retired", "--yes").exit_code
    desk.fill("known", people(1), stream="s")
    desk.raw["cohorts"] = {"s": {"cohort_id_column": "c"}, "never": {"cohort_id": "never"}}
    for cohort_id in ("others", "retired", "never"):
        feed_without_ledger(desk, cohort_id, [*people(1), BOTH])
    result = desk.run("forget", "-", text=f"{GONE}\n{BOTH.uid}\n")
    assert 0 == result.exit_code, result.output
    assert "accepted the removals from 4 of 4 cohorts" in result.stdout
    assert "Erased from 1 of 3 ledgers" in result.stdout
    assert set(people(2)) == desk.there("known") == desk.there("others")
    assert set() == desk.there("never") == desk.there("retired")
    for identifier in (GONE, BOTH.uid):
        assert identifier.encode() not in bytes_below(desk.folder / "ledger")


@pytest.mark.parametrize("is_known", [True, False])
@pytest.mark.parametrize("as_pair", [True, False])
def test_each_identifier_of_a_user_is_removed_by_itself(desk, is_known, as_pair):
    """A uid and an anonymous ID on one line reach the members that were added by either of them
    alone, and by both, whether the ledger knows them or not."""
    added = [BOTH] if as_pair else [Member(BOTH.uid), Member(None, BOTH.anonymous_id)]
    desk.fill("a", people(2))
    if is_known:
        desk.fill("a", added)
    else:
        feed_without_ledger(desk, "a", added)
    file = desk.folder / "ids.csv"
    file.write_text(f"uid,anonymous_id\n{BOTH.uid},{BOTH.anonymous_id}\n")
    result = desk.run("forget", str(file))
    assert 0 == result.exit_code
    assert "Read 2 identifiers." in result.stdout
    assert set(people(2)) == desk.there("a") == desk.accepted("a")


def test_a_removal_that_nobody_answers_is_no_success(desk):
    """If no answer says that a removal was accepted, the exit code is 1 and nothing is erased, even
    though no ledger knows the user."""
    desk.fill("a", people(2))
    desk.raw["cohorts"] = {"a": {}, "b": {}}
    desk.raw["max_retry_seconds"] = 1
    desk.emulator.fail_next(503, 50, cohort_id="a")
    result = desk.run("forget", "-", text=f"{GONE}\n")
    assert 1 == result.exit_code
    assert "accepted the removals from 0 of 2 cohorts" in result.stdout
    assert "Error: cohort 'a': " in result.stderr
    assert "Error: cohort 'b': " in result.stderr


def test_cohorts_whose_members_are_not_kept_are_sent_each_identifier(desk):
    """The cohorts of an incremental stream, whose members no ledger keeps, get them, too."""
    desk.raw["cohorts"] = {"s": {"cohort_id": "plain"}}
    with desk.ledgers() as ledgers:
        record = ledgers.open_without_members(Cohort("plain", "plain"), "s")
        session = Session(load(desk.raw), SessionTiming())
        assert OperatorDelivery(session).deliver([(record, [(Action.ADD, [BOTH, *people(2)])])])
        session.interrupt.close()
    file = desk.folder / "ids.csv"
    file.write_text(f"uid,anonymous_id\n{BOTH.uid},{BOTH.anonymous_id}\n")
    assert 0 == desk.run("forget", str(file)).exit_code
    assert set(people(2)) == desk.there("plain")
    (sent,) = desk.emulator.requests(cohort_id="plain", action="remove_members")
    assert 2 == sent.members
