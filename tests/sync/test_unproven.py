"""Removals without proof that the input is complete: said, or withheld."""

import json
import logging

import pytest

from tests.support.logs import Warned, codes, warnings
from tests.support.singer import activate_version, config, finish, lines, record, run, schema, start

HUNDRED = [*map(str, range(100))]
CODE = "removals_without_proof"


@pytest.fixture
def mirror(emulator, tmp_path):
    """Runs a mirror of the stream `users` on a ledger of its own."""

    def go(*messages, **settings):
        options = {"ledger_uri": str(tmp_path / "ledger"), "sync_mode": "mirror", **settings}
        return run(emulator, lines(schema(columns=("uid", "n", "sid")), *messages), **options)

    return go


def users(*uids, **row):
    return [record(uid=uid, **row) for uid in uids]


def members(emulator, cohort="users"):
    return {member.uid for member in emulator.members(cohort)}


def test_removals_without_proof_are_a_warning(emulator, mirror, caplog):
    """They are made, and log, summary and report say so, with each way to proof."""
    caplog.set_level(logging.INFO)
    mirror(*users(*HUNDRED))
    assert CODE not in codes(caplog)
    seen = mirror(*users(*HUNDRED[5:]))
    assert members(emulator) == {*HUNDRED[5:]}
    assert Warned(CODE, "users", "users") in warnings(caplog)
    (reported,) = (each for each in seen.report.warnings if each.code == CODE)
    assert ("users", "users") == (reported.stream, reported.cohort_id)
    for way in (
        "expected_count_column",
        "moengage-cohort run",
        "ACTIVATE_VERSION",
        "moengage-cohort confirm",
        "removals: proven",
    ):
        assert way in reported.message
    assert "5 removals" in reported.message
    assert CODE in caplog.records[-1].getMessage().splitlines()[-1]  # the summary
    assert "succeeded" == seen.report.status


@pytest.mark.parametrize(
    ("messages", "settings", "options"),
    [
        (users(*HUNDRED[5:], n=95), {"cohorts": {"users": {"expected_count_column": "n"}}}, {}),
        (
            [{**each, "version": 7} for each in users(*HUNDRED[5:])] + [activate_version(7)],
            {},
            {},
        ),
        (users(*HUNDRED[5:]), {"removals": "deferred"}, {}),
        (users(*HUNDRED), {}, {}),
        (users(*HUNDRED[50:]), {}, {}),
        (users(*HUNDRED[5:]), {"sync_mode": "one_time"}, {}),
    ],
    ids=["count", "version", "deferred", "nothing to remove", "withheld", "one_time"],
)
def test_no_warning_if_there_is_proof_or_nothing_was_removed(
    mirror, caplog, messages, settings, options
):
    """With proof, or without a removal that was sent, nothing is said."""
    mirror(*users(*HUNDRED))
    seen = mirror(*messages, **settings, **options)
    assert seen.error is None
    assert CODE not in codes(caplog)
    assert CODE not in [each.code for each in seen.report.warnings]


def test_a_fan_out_is_warned_about_once(mirror, caplog):
    """One warning has the removals of all cohorts of a stream."""
    fan_out = {"cohorts": {"users": {"cohort_id_column": "sid"}}}
    mirror(*users(*HUNDRED, sid="a"), *users(*HUNDRED, sid="b"), **fan_out)
    mirror(*users(*HUNDRED[1:], sid="a"), *users(*HUNDRED[2:], sid="b"), **fan_out)
    assert [Warned(CODE, "users", None)] == [each for each in warnings(caplog) if each.code == CODE]


def test_a_dry_run_warns_likewise(emulator, mirror, caplog):
    """A dry run warns of the removals that a run would make."""
    mirror(*users(*HUNDRED))
    mirror(*users(*HUNDRED[5:]), dry_run=True)
    assert CODE in codes(caplog)
    assert members(emulator) == {*HUNDRED}


def test_proven_withholds_removals_without_proof(emulator, mirror, caplog):
    """With `removals: proven` not one member is removed without proof; additions are sent."""
    mirror(*users(*HUNDRED))
    seen = mirror(*users(*HUNDRED[1:], "new"), removals="proven")
    assert members(emulator) == {*HUNDRED, "new"}
    (cohort,) = seen.report.cohorts
    assert ("withheld", 3) == (seen.report.status, seen.report.exit_code)
    assert (1, 1) == (cohort.removals_withheld, cohort.added)
    assert cohort.plan_id
    assert "plan_withheld" in codes(caplog)
    assert CODE not in codes(caplog)
    (message,) = (each.message for each in seen.report.warnings if each.code == "plan_withheld")
    assert "expected_count_column" in message
    assert f"confirm --withheld {cohort.plan_id}" in message


@pytest.mark.parametrize("gone", [1, 20])
def test_proven_removes_with_proof(emulator, mirror, gone):
    """With proof `removals: proven` is as `immediate`: within the guard removals are sent."""
    mirror(*users(*HUNDRED))
    left = HUNDRED[gone:]
    cohorts = {"users": {"expected_count_column": "n", "removals": "proven"}}
    seen = mirror(*users(*left, n=len(left)), cohorts=cohorts)
    assert "succeeded" == seen.report.status
    assert members(emulator) == {*left}


def test_proven_and_without_removals_nothing_is_withheld(mirror):
    """An input without proof that has everybody succeeds."""
    mirror(*users(*HUNDRED))
    assert "succeeded" == mirror(*users(*HUNDRED, "new"), removals="proven").report.status


def test_the_report_has_warnings_that_the_log_leaves_out(emulator, tmp_path):
    """At the log level ERROR the report still has them, and standard error has not."""
    report = tmp_path / "report.json"
    settings = config(emulator, report_path=str(report), sync_mode="mirror")
    data = lines(schema(), *users(*HUNDRED))
    done = finish(start(tmp_path / "home", settings, LOGLEVEL="ERROR"), data)
    assert (0, "") == (done.code, done.stderr)
    written = json.loads(report.read_text(encoding="utf-8"))
    assert "ledger_created" in [each["code"] for each in written["warnings"]]
