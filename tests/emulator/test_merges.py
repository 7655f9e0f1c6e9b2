"""The option of the emulator to merge identifiers that come together."""

from target_moengage_cohort.emulator import Emulator
from tests.support.singer import lines, record, run, schema


def test_identifiers_that_come_together_are_one_user():
    """An anonymous member becomes the user with whose uid its id comes, in every cohort, and its
    removal is the user's from then on."""
    columns = ("uid", "anonymous_id", "member")
    with Emulator(merges=True) as emulator:
        for rows, expected in (
            ([record(anonymous_id="a"), record("b", anonymous_id="a")], {(None, "a")}),
            ([record(uid="u", anonymous_id="a")], {("u", "a")}),
            ([record(anonymous_id="a", member=False)], set()),
        ):
            mapping = {"membership_column": "member", "anonymous_id_column": "anonymous_id"}
            whole = [{**row, "record": {"member": True} | row["record"]} for row in rows]
            seen = run(
                emulator,
                lines(*(schema(name, columns=columns) for name in ("users", "b")), *whole),
                cohorts={"users": mapping, "b": mapping},
            )
            assert seen.error is None
            assert expected == emulator.members("users")
        assert {("u", "a")} == emulator.members("b")
        assert {"a": "u"} == emulator.state.users()
