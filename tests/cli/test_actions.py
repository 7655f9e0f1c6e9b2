"""The record of operators' actions."""

import json
import os
import pwd
import socket
from datetime import UTC, datetime, timedelta

from target_moengage_cohort.ledger.control.history import RETENTION
from target_moengage_cohort.ledger.records import PlanKind
from tests.cli.conftest import PLANTED, people


def rows(desk, query, *values):
    with desk.ledgers() as ledgers:
        ledgers.entries()
        with ledgers._control.database.change("test") as transaction:  # noqa: SLF001 - no reader yet
            return transaction.run(query, values)


def actions(desk):
    """Return the actions, each as its kind, cohort, stream and numbers."""
    found = rows(desk, "SELECT kind, cohort_id, stream, details FROM operator_actions")
    assert PLANTED not in str(found)
    return [(*facts, json.loads(counts)) for *facts, counts in found]


def test_each_command_that_changes_anything_is_recorded(desk):
    """Each command leaves one row for each cohort that it changed, with numbers and no identifier;
    one that was refused leaves none."""
    path = desk.folder / "some.csv"
    path.write_text(f"uid\n{PLANTED}0001\n{PLANTED}0009\n")
    desk.fill("vip", people(1, 2, 3), stream="users")
    plan = desk.plan("vip", people(1, 2), kind=PlanKind.WITHHELD)
    for command in (
        ("confirm", "--withheld", plan),
        ("adopt", "vip", "--csv", str(path)),
        ("resync", "vip"),
        ("forget", str(path)),
        ("ledger", "rename", "vip", "VIPs"),
        ("ledger", "rename", "vip", ".x"),
        ("ledger", "reassign", "vip", "others"),
        ("empty", "vip", "--yes"),
        ("ledger", "retire", "vip", "--yes"),
    ):
        assert desk.run(*command).exit_code == (".x" in command)
    assert [
        ("confirm", "vip", "users", {"additions": 0, "removals": 1}),
        ("adopt", "vip", "users", {"read": 2, "added": 1}),
        ("resync", "vip", "users", {"members": 3}),
        ("forget", None, None, {"identifiers": 2, "erased": 1, "removed": 2}),
        ("rename", "vip", "users", {}),
        ("reassign", "vip", "others", {"members": 1}),
        ("empty", "vip", "others", {"members": 1, "removed": 1}),
        ("retire", "vip", "others", {"members": 0, "removed": 0}),
    ] == actions(desk)


def test_an_action_names_who_did_it_and_where(desk):
    """A row has the time in UTC, the system's user, the host and the partner."""
    desk.fill("vip", people(1))
    desk.run("resync", "vip")
    ((done_at, *whose),) = rows(
        desk, "SELECT done_at, done_by, host, partner FROM operator_actions"
    )
    assert timedelta(minutes=1) > abs(datetime.now(UTC) - datetime.fromisoformat(done_at))
    user = pwd.getpwuid(os.getuid()).pw_name
    assert [user, socket.gethostname(), desk.raw["partner"]] == whose


def test_actions_are_kept_for_400_days(desk):
    """Recording an action deletes those of more than 400 days ago."""
    assert timedelta(days=400) == RETENTION
    desk.fill("vip", people(1))
    for days in (401, 399):
        desk.run("resync", "vip")
        then = (datetime.now(UTC) - timedelta(days=days)).isoformat(timespec="seconds")
        query = "UPDATE operator_actions SET done_at = ?, kind = ? WHERE kind = 'resync'"
        rows(desk, query, then, f"{days}")
    desk.run("resync", "vip")
    assert [("399",), ("resync",)] == rows(
        desk, "SELECT kind FROM operator_actions ORDER BY number"
    )
