"""Anonymous IDs that go with a uid now, or did: whole runs against the emulator."""

import pytest

from target_moengage_cohort.core.membership import Member
from tests.support.look import held, members
from tests.support.singer import lines, record, run, schema

ADD, REMOVE = "add_members", "remove_members"
OTHERS = [Member(f"other-{number}") for number in range(30)]


@pytest.fixture
def folder(tmp_path):
    return str(tmp_path / "ledger")


@pytest.fixture
def mirror(emulator, folder):
    """Runs a mirror that has some members beside 30 others; returns the requests."""

    def sync(*whom, percent=100, proof=True, **options):
        rows = [
            record(uid=member.uid, anonymous_id=member.anonymous_id) for member in (*OTHERS, *whom)
        ]
        options = {"sync_mode": "mirror", "ledger_uri": folder, **options}
        return run(
            emulator,
            lines(schema(columns=("uid", "anonymous_id")), *rows),
            tap_exit=(lambda: 0) if proof else None,
            anonymous_id_column="anonymous_id",
            max_removal_percent=percent,
            **options,
        )

    return sync


def sent(seen):
    return [(each.body["action"], each.body["parameters"]["members"]) for each in seen.attempts]


def test_a_member_that_got_a_uid_leaves_with_it(emulator, mirror):
    """While a uid has the anonymous ID of a former member, nothing is sent for that; when the uid
    leaves, both are removed."""
    mirror(Member(None, "a"))
    with_uid = {"uid": "u", "anonymous_id": "a"}
    assert [(ADD, [with_uid])] == sent(mirror(Member("u", "a")))
    assert [] == sent(mirror(Member("u", "a")))
    assert {"u", ("a",)} < members(emulator, "users")
    seen = mirror()
    assert [(REMOVE, [with_uid, {"anonymous_id": "a"}])] == sent(seen)
    assert 2 == seen.report.cohorts[0].removed
    assert {member.uid for member in OTHERS} == members(emulator, "users")


def test_an_alias_that_no_row_has_is_removed_before_its_uid_is_sent_again(emulator, mirror):
    """The removal of an alias may be that of its uid, which is therefore added afterwards."""
    mirror(Member(None, "a"))
    mirror(Member("u", "a"))
    assert [(REMOVE, [{"anonymous_id": "a"}]), (ADD, [{"uid": "u"}])] == sent(mirror(Member("u")))
    assert [] == sent(mirror(Member("u")))
    assert ("a",) not in members(emulator, "users")


def test_a_uid_whose_alias_is_removed_stays_in_doubt_until_it_is_sent_again(
    emulator, folder, mirror
):
    """After a run that ends between the two, the next run sends the uid again."""
    mirror(Member("u", "a"))
    mirror(Member("u", "b"))

    def stop(_seen, interrupt):
        interrupt.set()  # the request that is about to leave is the last one

    rows = [record(uid=each.uid) for each in OTHERS] + [record(uid="u", anonymous_id="b")]
    ended = run(
        emulator,
        lines(schema(columns=("uid", "anonymous_id")), *rows),
        before=stop,
        tap_exit=lambda: 0,
        anonymous_id_column="anonymous_id",
        max_removal_percent=100,
        sync_mode="mirror",
        ledger_uri=folder,
    )
    assert [(REMOVE, [{"anonymous_id": "a"}])] == sent(ended)
    assert {"u": ADD} == held(emulator, folder)["users"].doubts
    assert [(ADD, [{"uid": "u", "anonymous_id": "b"}])] == sent(mirror(Member("u", "b")))


def test_a_refused_addition_moves_nothing(emulator, mirror, tmp_path):
    """An anonymous member stays one while its uid is refused, and leaves by itself."""
    mirror(Member(None, "a"))
    emulator.poison(["u"])
    rejects = {"on_reject": "skip", "rejects_path": str(tmp_path / "rejects.singer")}
    mirror(Member("u", "a"), **rejects)
    assert ("a",) in members(emulator, "users")
    assert [(REMOVE, [{"anonymous_id": "a"}])] == sent(mirror())


def test_a_member_that_loses_an_alias_counts_for_the_guard(emulator, mirror):
    """Aliases evade no guard: who stays but loses one counts like who leaves, and each once."""
    pairs = [Member(f"u{number}", f"a{number}") for number in range(10)]
    mirror(*[Member(None, each.anonymous_id) for each in pairs])
    mirror(*pairs)
    seen = mirror(*[Member(each.uid) for each in pairs], percent=20, proof=False)
    assert "withheld" == seen.report.status
    assert 10 == seen.report.cohorts[0].removals_withheld
    assert {(each.anonymous_id,) for each in pairs} < members(emulator, "users")


@pytest.mark.parametrize("mode", ["incremental", "remove"])
def test_the_removal_of_a_uid_removes_its_aliases(emulator, folder, mirror, mode):
    """In the modes of single changes, too, the aliases of a uid leave with it."""
    mirror(Member(None, "a"))
    mirror(Member("u", "a"))
    mapping = {"users": {"sync_mode": mode, "membership_column": "member"}}
    if mode == "remove":
        del mapping["users"]["membership_column"]
    gone = lines(schema(columns=("uid", "member")), record(uid="u", member=False))
    seen = run(emulator, gone, ledger_uri=folder, cohorts=mapping)
    assert seen.error is None
    assert {member.uid for member in OTHERS} == members(emulator, "users")
