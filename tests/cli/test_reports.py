"""A report for every outcome of the target, and by every command that sends."""

import json
import signal
import subprocess
import time

import pytest

from target_moengage_cohort import package_version
from target_moengage_cohort.core.text import utc_now
from tests.cli.conftest import people
from tests.support.project import program
from tests.support.reports import REPORT_FIELDS
from tests.support.singer import config, environment, finish, lines, record, schema, start


def read(path):
    """Return a report, after a check of what every one has."""
    written = json.loads(path.read_text(encoding="utf-8"))
    assert REPORT_FIELDS == [*written]
    assert written["version"] == package_version()
    assert written["started_at"] <= written["finished_at"] <= utc_now()
    assert (written["status"] == "failed") == (written["exit_code"] not in {0, 3})
    return written


@pytest.fixture
def target(emulator, tmp_path):
    """Runs the target's process; returns its end and its report."""
    path = tmp_path / "report.json"

    def go(*messages, variables=None, **settings):
        path.unlink(missing_ok=True)
        raw = config(emulator, report_path=str(path), **settings)
        done = finish(start(tmp_path / "home", raw, **variables or {}), lines(*messages))
        return done, read(path)

    return go


def test_a_success_names_where_it_went(target, emulator):
    """Destination, partner and exit code are those of the run, and warnings have their codes."""
    done, written = target(schema(), record(uid="a"), settings_="x")
    assert (0, 0, "succeeded") == (done.code, written["exit_code"], written["status"])
    expected = {"api_url": emulator.url, "workspace_id": emulator.workspace_id}
    assert ("acme", expected, None) == (
        written["partner"],
        written["destination"],
        written["error"],
    )
    assert "unknown_setting" in [each["code"] for each in written["warnings"]]
    for warning in written["warnings"]:
        assert ["code", "message", "stream", "cohort_id"] == [*warning]
    assert ["succeeded"] == [each["status"] for each in written["cohorts"]]


@pytest.mark.parametrize(
    ("settings", "code"),
    [
        ({"sync_mode": "mirrored"}, "invalid_value"),
        ({"workspace_id": None}, "required"),
        ({"cohorts": {}}, "empty_cohorts"),
        ({"on_reject": "skip"}, "conflicting_settings"),
        ({"partner": " ", "sync_mode": "x"}, "invalid_value"),
    ],
    ids=["value", "missing", "empty cohorts", "conflict", "several"],
)
def test_refused_settings_are_reported(target, emulator, settings, code):
    """The report says which setting was refused, and shows no key."""
    done, written = target(schema(), record(uid="a"), unknwn=1, **settings)
    assert (1, "failed", 1) == (done.code, written["status"], written["exit_code"])
    assert code == written["error"]["code"]
    assert (None, None, []) == (written["destination"], written["partner"], written["cohorts"])
    assert emulator.data_api_key not in json.dumps(written)


def test_refused_settings_of_the_environment_are_reported(emulator, tmp_path):
    """The path may come from the environment, as in Meltano."""
    path = tmp_path / "report.json"
    prefix = "TARGET_MOENGAGE_COHORT_"
    variables = {f"{prefix}REPORT_PATH": str(path), f"{prefix}SYNC_MODE": "no"}
    process = start(tmp_path / "home", config(emulator), "--config=ENV", **variables)
    assert 1 == finish(process, lines(schema())).code
    assert "invalid_value" == read(path)["error"]["code"]


@pytest.mark.parametrize(
    ("settings", "code"),
    [
        ({"ledger_uri": "/dev/null/ledger", "sync_mode": "mirror"}, None),
        ({"ledger_create": False}, "ledger_missing"),
        ({"stream_maps": {"users": {"uid": "no("}}}, "invalid_stream_map"),
        ({"rejects_path": "/no/such/folder/rejects", "on_reject": "skip"}, None),
    ],
    ids=["ledger", "no ledger", "stream map", "rejects"],
)
def test_a_run_that_cannot_begin_is_reported(target, settings, code):
    """Whatever stops the run before or at its first row is the report's error."""
    done, written = target(schema(), record(uid="a"), **settings)
    assert (1, "failed") == (done.code, written["status"])
    assert code in {None, written["error"]["code"]}
    assert written["destination"]


def test_a_failure_in_the_middle_is_reported(target):
    """A broken line is the error; the cohort before it has failed."""
    done, written = target(schema(), record(uid="a"), b"{broken")
    assert (1, "invalid_json") == (done.code, written["error"]["code"])
    assert ["failed"] == [each["status"] for each in written["cohorts"]]


def test_a_withheld_run_is_reported_with_its_exit_code(target, tmp_path):
    """Exit code 3, or 0 with on_withheld: warn; the status of run and cohort are withheld."""
    mirror = {"sync_mode": "mirror", "ledger_uri": str(tmp_path / "ledger")}
    rows = [record(uid=str(number)) for number in range(10)]
    target(schema(), *rows, **mirror)
    for choice, code in (("fail", 3), ("warn", 0)):
        done, written = target(schema(), *rows[:5], **mirror, on_withheld=choice)
        assert (code, code, "withheld") == (done.code, written["exit_code"], written["status"])
        assert ["withheld"] == [each["status"] for each in written["cohorts"]]
        assert "plan_withheld" in [each["code"] for each in written["warnings"]]


def test_a_signal_is_reported_without_an_error(emulator, tmp_path):
    """The exit code is the signal's; a person's signal is no error."""
    path = tmp_path / "report.json"
    process = start(tmp_path / "home", config(emulator, report_path=str(path), flush_seconds=1))
    process.stdin.write(lines(schema(), record(uid="a")))
    process.stdin.flush()
    while not emulator.members("users"):
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert 143 == process.wait(timeout=30)
    process.communicate()
    written = read(path)
    assert ("failed", 143, None) == (written["status"], written["exit_code"], written["error"])


# Commands


@pytest.fixture
def reporting(desk):
    """A desk whose commands write a report."""
    desk.raw["report_path"] = str(desk.folder / "report.json")
    return desk


def report(desk):
    return read(desk.folder / "report.json")


def test_empty_reports_what_it_removed(reporting):
    """The cohort's numbers, the requests and the destination are there."""
    reporting.fill("vip", people(1, 2, 3))
    assert 0 == reporting.run("empty", "vip", "--yes").exit_code
    written = report(reporting)
    (cohort,) = written["cohorts"]
    assert ("vip", 3, "succeeded", 0) == (
        cohort["cohort_id"],
        cohort["removed"],
        cohort["status"],
        cohort["accepted"]["count"],
    )
    assert (1, 1, "opened") == (written["requests"], cohort["requests"], cohort["ledger"])
    assert reporting.emulator.url == written["destination"]["api_url"]


def test_an_error_of_a_command_is_reported(reporting):
    """An unknown cohort is the error, with the command's exit code."""
    reporting.fill("vip", people(1))
    assert 1 == reporting.run("empty", "vpi", "--yes").exit_code
    written = report(reporting)
    assert ("failed", 1) == (written["status"], written["exit_code"])
    assert written["error"]["code"]
    assert [] == written["cohorts"]


@pytest.mark.parametrize(
    "arguments", [("empty", "vip", "--yes"), ("confirm", "vip"), ("resync", "vip"), ("forget", "-")]
)
def test_refused_settings_are_reported_by_commands(reporting, arguments):
    """Settings that are refused are reported by each command, as by the target."""
    reporting.raw["sync_mode"] = "mirrored"
    assert 1 == reporting.run(*arguments, text="uid\nx\n").exit_code
    assert "invalid_value" == report(reporting)["error"]["code"]


def test_a_rejected_removal_is_a_failed_cohort(reporting):
    """A member that MoEngage refuses makes its cohort fail."""
    reporting.fill("vip", people(1, 2))
    reporting.emulator.fail_next(400, 2)  # the request, and a half of it
    assert 1 == reporting.run("empty", "vip", "--yes").exit_code
    written = report(reporting)
    assert ("failed", "member_rejected") == (written["status"], written["error"]["code"])
    (cohort,) = written["cohorts"]
    assert ("failed", 1, 1) == (cohort["status"], cohort["removed"], cohort["rejected"])


def test_confirm_reports_what_it_sent(reporting):
    """The removals of a pending plan, with the plan's id."""
    reporting.raw |= {"sync_mode": "mirror", "removals": "deferred", "max_removal_percent": 100}
    reporting.fill("vip", people(1, 2, 3))
    reporting.plan("vip", people(1, 2))
    assert 0 == reporting.run("confirm", "vip").exit_code
    (cohort,) = report(reporting)["cohorts"]
    assert (1, "succeeded", "mirror") == (cohort["removed"], cohort["status"], cohort["sync_mode"])
    assert cohort["plan_id"]


@pytest.mark.parametrize(("choice", "code"), [("fail", 3), ("warn", 0)])
def test_confirm_reports_what_the_guard_withholds(reporting, choice, code):
    """A plan over the guard is withheld by confirm, too; on_withheld decides its exit code."""
    reporting.raw |= {"sync_mode": "mirror", "removals": "deferred", "on_withheld": choice}
    reporting.fill("vip", people(*range(100)))
    reporting.plan("vip", people(*range(10)))
    assert code == reporting.run("confirm", "vip").exit_code
    written = report(reporting)
    assert (code, "withheld") == (written["exit_code"], written["status"])
    assert [("withheld", 90)] == [
        (each["status"], each["removals_withheld"]) for each in written["cohorts"]
    ]


def test_resync_and_forget_report_their_cohorts(reporting):
    """resync has the members to be sent again, forget those that were removed."""
    reporting.fill("vip", people(1, 2, 3))
    reporting.fill("app", people(1))
    assert 0 == reporting.run("resync", "vip").exit_code
    assert [3] == [each["in_doubt"] for each in report(reporting)["cohorts"]]
    (uid,) = (member.uid for member in people(1))
    assert 0 == reporting.run("forget", "-", text=f"uid\n{uid}\n").exit_code
    written = report(reporting)
    assert {("vip", 1), ("app", 1)} == {
        (each["cohort_id"], each["removed"]) for each in written["cohorts"]
    }
    assert uid not in json.dumps(written)


def test_forget_reports_the_streams_whose_cohorts_are_unknown(reporting):
    """Exit code 1 because of a fan-out that the ledger does not know has an error with a code."""
    reporting.fill("vip", people(1))
    reporting.raw["cohorts"] = {"vip": {}, "fan": {"cohort_id_column": "c"}}
    assert 1 == reporting.run("forget", "-", text=f"{people(1)[0].uid}\n").exit_code
    written = report(reporting)
    assert ("failed", "cohorts_unknown") == (written["status"], written["error"]["code"])
    assert [("vip", "succeeded")] == [(c["cohort_id"], c["status"]) for c in written["cohorts"]]
    reporting.fill("gold", people(1), stream="fan")
    assert 0 == reporting.run("forget", "-", text=f"{people(1)[0].uid}\n").exit_code
    assert report(reporting)["error"] is None


@pytest.mark.parametrize("command", [("ledger", "retire", "vip", "--yes"), ("forget", "ids.csv")])
def test_a_signal_to_a_command_is_reported_without_an_error(reporting, command):
    """What a person's signal left undone is no error; the cohort has failed."""
    reporting.fill("vip", people(1, 2))
    (reporting.folder / "ids.csv").write_text(f"uid\n{people(1)[0].uid}\n")
    reporting.run("status")  # writes the configuration
    reporting.emulator.hold()
    process = subprocess.Popen(
        [program("moengage-cohort"), *command, "--config", "config.json"],
        cwd=reporting.folder,
        env=environment(reporting.folder),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    while len(reporting.removals()) < 1:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    code = process.wait(timeout=30)
    process.communicate()
    reporting.emulator.release()
    written = report(reporting)
    assert (143, 143, None) == (code, written["exit_code"], written["error"])
    assert ["failed"] == [each["status"] for each in written["cohorts"]]
    with reporting.ledger("vip") as ledger:
        assert not ledger.entry.is_retired


def test_commands_that_only_look_leave_the_report_alone(reporting):
    """check, plan and status do not replace the report of the last run."""
    reporting.fill("vip", people(1))
    (reporting.folder / "report.json").write_text("of the last run")
    for arguments in (("check",), ("status",), ("plan",)):
        reporting.run(*arguments, text="")
    assert "of the last run" == (reporting.folder / "report.json").read_text()
