"""`moengage-cohort verify` against the emulator, whose clock the command's waits turn."""

import contextlib
import csv
import json
import os
import random
import re
import stat
import time

import pytest

from target_moengage_cohort.cli.operator_delivery import OperatorDelivery
from target_moengage_cohort.cli.session import Session, SessionTiming
from target_moengage_cohort.core.membership import Action, Cohort, Member
from target_moengage_cohort.emulator import Emulator, ManualClock
from target_moengage_cohort.settings import load
from tests.cli.conftest import PLANTED, Desk, people, person
from tests.support.ledger_places import ServerPlace
from tests.support.peak import measured
from tests.support.singer import UNLIMITED, lines, record, run, schema

REQUIRED = "in the dashboard, Test & Debug > Segment Payload"


class Office(Desk):
    """A desk with an emulator whose clock is turned by waits."""

    def __init__(self, emulator, folder):
        super().__init__(emulator, folder)
        self.raw |= {"id_attribute": "uid", "max_retry_seconds": 3_600}
        self.clock, self.seed, self.waits = emulator.clock, random.Random(1), []
        self.before_wait = lambda: None

    def run(self, *arguments, **timing):
        turned = {"clock": self.clock.wall, "wait": self.wait, "random": self.seed.random}
        return super().run(*arguments, **(turned | timing))

    def wait(self, _interrupt, seconds):
        if not seconds:  # it only asks whether the command was stopped
            return False
        self.before_wait()
        self.waits.append(seconds)
        self.clock.advance(seconds)
        return False

    def verify(self, *arguments):
        """Run `verify`; return its exit code and its results by cohort."""
        result = self.run("verify", *arguments, "--json")
        found = json.loads(result.stdout) if result.stdout else []
        return result.exit_code, {each["cohort_id"]: each for each in found}

    def one(self, *arguments):
        """Likewise for one cohort; return also the codes of its findings."""
        code, results = self.verify(*arguments)
        (result,) = results.values()
        return code, result, [each["code"] for each in result["findings"]]

    def change(self, cohort_id, *changes):
        """Have changes accepted, each an action with its members."""
        session = Session(load(self.raw), SessionTiming(clock=self.clock.wall))
        with session.ledgers() as ledgers:
            order = (ledgers.open_known(cohort_id), changes)
            assert OperatorDelivery(session).deliver([order])
        session.interrupt.close()

    def lose(self, action, *numbers):
        """Let MoEngage have lost changes of the cohort `vip`."""
        undone = "remove_members" if action is Action.ADD else "add_members"
        self.emulator.apis.put_members("vip", undone, [person(each).uid for each in numbers])

    def know(self, *numbers):
        self.emulator.apis.know([person(each).uid for each in numbers])

    def actions(self):
        """Return the actions in the history, each with its details."""
        with self.ledgers(read_only=True) as ledgers:
            assert ledgers.entries()
            rows = ledgers._control.database.rows(  # noqa: SLF001 - no command shows them yet
                "SELECT kind, details FROM operator_actions ORDER BY number"
            )
        return [(kind, json.loads(details)) for kind, details in rows]


@pytest.fixture
def start(tmp_path):
    """Return a function that starts an office; at the end, it has shown no identifier."""
    with contextlib.ExitStack() as stack:

        def started(**options):
            clock = ManualClock(wall=time.time())
            emulator = Emulator(requests_per_minute=UNLIMITED, clock=clock, **options)
            made.append(Office(stack.enter_context(emulator), tmp_path))
            return made[-1]

        made = []
        yield started
        for each in made:
            assert PLANTED not in each.output
            assert "Traceback" not in each.output


@pytest.fixture
def office(start):
    return start()


def test_a_segment_as_it_should_be(office):
    """If MoEngage knows all members and has them in the segment, nothing is wrong."""
    office.fill("vip", people(*range(10)))
    office.know(*range(10))
    office.change("vip", (Action.REMOVE, people(8, 9)))
    code, result, findings = office.one("vip")
    assert (0, "fine", []) == (code, result["status"], findings)
    assert (8, 8) == (result["accepted"], result["size"])
    assert {"sampled": 8, "known": 8, "in_segment": 8} == result["members"]
    assert {"value": 100, "low": 100, "high": 100} == result["match_percent"]
    assert {"sampled": 2, "known": 2, "in_segment": 0} == result["removed"]
    assert ["query", "status", "results"] == [
        each.endpoint for each in office.emulator.apis.calls()
    ][1:]


def test_users_whom_moengage_does_not_know_are_counted(office):
    """The match rate counts unknown users, which is not wrong in itself."""
    office.fill("vip", people(*range(10)))
    office.know(*range(7))
    code, result, findings = office.one("vip")
    assert (0, [], 70) == (code, findings, result["match_percent"]["value"])
    assert 0 == result["missing"]["high"]
    assert 7 == result["size"]


def test_members_whose_additions_are_not_processed_yet_are_known(start):
    """Where every user exists, the first members of a cohort are missing, not unknown."""
    office = start(processing_seconds=300)
    office.fill("vip", people(*range(10)))
    code, _, findings = office.one("vip")
    assert (6, ["missing"]) == (code, findings)


def test_a_cohort_of_100_000(start):
    """Of 100,000 members 3 % are unknown to MoEngage, 500 additions are not processed, and 200 of
    500 removals were lost: the figures are right within their intervals, and --wait sees all
    additions processed, while the lost removals stay until they are sent again."""
    office = start(processing_seconds=300)
    everyone = [Member(f"planted-{number:06d}") for number in range(100_500)]
    before, new, removed = everyone[:99_500], everyone[99_500:100_000], everyone[100_000:]
    office.fill("vip", before + removed)
    office.clock.advance(300)
    office.change("vip", (Action.REMOVE, removed))
    office.clock.advance(300)
    office.emulator.apis.put_members("vip", "add_members", [each.uid for each in removed[:200]])
    unknown = {*everyone[10:100_000:33]}
    office.emulator.apis.know([each.uid for each in everyone if each not in unknown])
    office.change("vip", (Action.ADD, new))
    truths = {
        "match_percent": 100 - len(unknown) / 1_000,
        "missing": len({*new} - unknown),
    }
    right = dict.fromkeys(truths, 0)
    for _ in range(8):  # each with samples of its own; an interval is wrong once in twenty
        code, result, findings = office.one("vip")
        assert (6, 100_000) == (code, result["accepted"])
        assert "removed_still_in" in findings
        assert "strangers" not in findings
        assert {"sampled": 500, "known": 500, "in_segment": 200} == result["removed"]
        assert len({*before} - unknown) + 200 == result["size"]
        for name, truth in truths.items():
            right[name] += result[name]["low"] <= truth <= result[name]["high"]
        assert 1.5 < result["match_percent"]["high"] - result["match_percent"]["low"] < 3
    assert 5 <= min(right.values()), right
    began = office.clock.wall()
    code, result, findings = office.one("vip", "--wait", "10")
    assert (6, ["removed_still_in"]) == (code, findings)
    assert 600 <= office.clock.wall() - began <= 700
    sent = office.run("resync", "--removals", "vip")
    assert 0 == sent.exit_code
    assert "500 removals accepted" in sent.stdout
    code, result, findings = office.one("vip", "--wait", "10")
    assert (0, []) == (code, findings)
    assert 300 <= result["settled_seconds"] <= 500
    assert 0 == result["missing"]["value"]


def test_lost_additions_are_sent_again(office):
    """Members whom MoEngage knows and does not have are missing; `resync` is named for them."""
    office.fill("vip", people(*range(10)))
    office.know(*range(10))
    office.lose(Action.ADD, 1, 2)
    code, result, findings = office.one("vip")
    assert (6, ["missing"]) == (code, findings)
    assert {"value": 2, "low": 2, "high": 2} == result["missing"]
    command = result["findings"][0]["command"]
    assert command == f"moengage-cohort resync vip --config {office.folder / 'config.json'}"
    assert 0 == office.run(*command.split()[1:3]).exit_code
    assert (10, 10) == office.counts("vip")


def test_a_lost_removal_is_sent_again(office):
    """A member who was removed and is still in the segment is removed by the command that is
    named; a member who is back meanwhile stays."""
    office.fill("vip", people(*range(10)))
    office.change("vip", (Action.REMOVE, people(1, 2, 3)), (Action.ADD, people(3)))
    office.lose(Action.REMOVE, 1, 2)
    code, result, findings = office.one("vip")
    assert (6, ["removed_still_in"]) == (code, findings)
    assert {"sampled": 2, "known": 2, "in_segment": 2} == result["removed"]
    command = result["findings"][0]["command"].split()
    assert ["resync", "--removals", "vip"] == command[1:4]
    assert 0 == office.run(*command[1:4]).exit_code
    assert {person(n) for n in range(10)} - {*people(1, 2)} == office.there("vip")
    assert (8, 0) == office.counts("vip")
    assert (0, []) == office.one("vip")[::2]
    assert ("resync_removals", {"removals_resent": 2}) in office.actions()


def test_strangers_are_found_by_the_size(office):
    """If the segment has more users than the ledger can explain, they are strangers."""
    office.fill("vip", people(*range(10)))
    office.emulator.apis.put_members("vip", "add_members", ["s1", "s2"])
    code, result, findings = office.one("vip")
    assert (6, ["strangers"], 12) == (code, findings, result["size"])
    assert "--observed" in result["findings"][0]["command"]


def test_members_in_no_sample_are_no_strangers(office):
    """Members without a uid, and unconfirmed ones, may be in the segment."""
    office.fill("vip", [*people(1, 2, 3), person(4, "anonymous_id")])
    office.run("resync", "vip")
    code, result, findings = office.one("vip")
    assert (1, [], 4, 3) == (code, findings, result["size"], result["in_doubt"] - 1)
    assert None is result["members"]


def test_nobody_is_known(office):
    """If MoEngage knows nobody and the segment is empty, the uids are the wrong ones."""
    office.fill("vip", people(1, 2))
    office.know(7)
    assert (6, ["none_known"]) == office.one("vip")[::2]


def test_an_attribute_that_knows_nobody_is_no_finding(start):
    """If the segment has users and the sample is unknown, the attribute is, so nothing is said."""
    office = start(id_attribute="uid")
    office.fill("vip", people(1, 2))
    office.know(7, 8)
    office.emulator.apis.put_members("vip", "add_members", [person(7).uid, person(8).uid])
    code, result, findings = office.one("vip")
    assert (1, "unknown", []) == (code, result["status"], findings)
    assert "id_attribute_unmatched" == result["unknown"]["code"]


def test_without_the_attribute_no_query_is_made(office):
    """Without id_attribute, verify fails and says where it is found."""
    del office.raw["id_attribute"]
    office.fill("vip", people(1))
    result = office.run("verify", "vip")
    assert 1 == result.exit_code
    assert REQUIRED in result.stderr
    assert [] == office.emulator.apis.calls()


@pytest.mark.parametrize("minutes", ["0", "30"])
def test_a_used_up_quota_stops(start, minutes):
    """A used-up quota leaves all cohorts unknown, with the reason, and nothing is asked again."""
    office = start(monthly_queries=1)
    for name in ("a", "b", "c"):
        office.fill(name, people(1))
    code, results = office.verify("--wait", minutes)
    assert 1 == code
    assert ["fine", "unknown", "unknown"] == [each["status"] for each in results.values()]
    assert {"quota_exceeded"} == {results[each]["unknown"]["code"] for each in ("b", "c")}
    assert 2 == [each.endpoint for each in office.emulator.apis.calls()].count("query")


def test_unknown_results_are_in_the_history(start):
    """What a query did not tell is recorded of its cohort, with the reason; what was never asked is
    recorded once for all cohorts, of which it makes none the last one to be asked next time."""
    office = start(monthly_queries=2)
    for name in ("a", "b", "c"):
        office.fill(name, people(1))
    office.emulator.apis.fail_queries(1, "out of memory")
    office.verify()
    office.verify()
    found = json.loads(office.run("history", "--json").stdout)
    results = [
        (each["cohort_id"], each["status"], each["error"], each["counts"].get("cohorts"))
        for each in found
        if each["kind"] == "verify"
    ]
    assert [
        (None, "unknown", "quota_exceeded", 3),
        (None, "unknown", "quota_exceeded", 1),
        ("b", "fine", None, None),
        ("a", "unknown", "query_failed", None),
    ] == results
    with office.ledgers() as ledgers:
        assert {"a", "b"} == ledgers.last_actions("verify").keys()


def test_a_failed_query_is_unknown(office):
    """A query that fails says nothing of its cohort, and the next cohort is asked about."""
    for name in ("a", "b"):
        office.fill(name, people(1))
    office.emulator.apis.fail_queries(1, "out of memory")
    code, results = office.verify()
    assert (1, "unknown", "fine") == (code, results["a"]["status"], results["b"]["status"])
    assert "query_failed" == results["a"]["unknown"]["code"]
    office.emulator.apis.fail_queries()
    assert 0 == office.verify("a", "--wait", "5")[0]


def test_a_slow_query_is_waited_for(start):
    """A query that takes seconds is waited for, ever more patiently."""
    office = start(query_seconds=20)
    office.fill("vip", people(1))
    assert 0 == office.one("vip")[0]
    assert [2, 4, 8, 16] == office.waits


def test_a_query_without_an_end_is_unknown(start):
    """A query that has no answer after three minutes is unknown, and --wait starts another one."""
    office = start(query_seconds=100_000)
    office.fill("vip", people(1))
    code, result, findings = office.one("vip", "--wait", "5")
    assert (1, [], "query_pending") == (code, findings, result["unknown"]["code"])
    assert 1 < [each.endpoint for each in office.emulator.apis.calls()].count("query")


def test_a_cohort_that_changes_is_unknown(start):
    """If the cohort is changed while MoEngage counts, the answer says nothing."""
    office = start(query_seconds=3)
    office.fill("vip", people(1, 2))
    office.before_wait = lambda: office.change("vip", (Action.ADD, people(3)))
    code, result, findings = office.one("vip", "--wait", "30")
    assert (1, [], "cohort_changed") == (code, findings, result["unknown"]["code"])


def test_a_segment_that_is_not_listed_is_unknown(start):
    """If MoEngage lists filter segments only, nothing is known of a cohort."""
    office = start(list_shows="filter")
    office.fill("vip", people(1))
    code, result, _ = office.one("vip")
    assert (1, "segment_not_listed") == (code, result["unknown"]["code"])


def test_refused_credentials_are_unknown(start):
    """A key without the scope of the Analytics API leaves all unknown."""
    office = start(analytics_api_key="another")
    office.fill("vip", people(1))
    code, result, _ = office.one("vip")
    assert (1, "scope_missing") == (code, result["unknown"]["code"])


def test_a_busy_stream_is_unknown(office):
    """While a run holds the stream, its cohort is unknown, and the others are asked about."""
    office.fill("a", people(1))
    office.fill("b", people(1))
    with office.ledger("a"):
        code, results = office.verify("a", "b")
    assert (4, "unknown", "fine") == (code, results["a"]["status"], results["b"]["status"])


def test_the_limits_are_kept(office):
    """However many cohorts there are, no more than 15 calls a minute and 100 an hour are made."""
    for number in range(40):
        office.fill(f"c{number}", people(1))
    assert 0 == office.verify()[0]
    moments = [each.arrived for each in office.emulator.apis.calls() if each.limit == "analytics"]
    assert 120 == len(moments)
    for start, most in ((60, 15), (3_600, 100)):
        assert most >= max(sum(a <= b < a + start for b in moments) for a in moments)
    assert {200} == {each.status for each in office.emulator.apis.calls()}


def test_a_sample_fits_into_a_query(office):
    """Long identifiers make the sample smaller, not the query longer than MoEngage takes."""
    office.fill("vip", [Member(f"{number:0300d}") for number in range(1_000)])
    code, result, _ = office.one("vip")
    assert 0 == code
    assert 150 < result["members"]["sampled"] < 200


def test_the_size_of_a_sample(office):
    """`--sample` is how many members are asked for."""
    office.fill("vip", people(*range(50)))
    result = office.one("vip", "--sample", "20")[1]
    assert 20 == result["members"]["sampled"]
    assert 2 == office.run("verify", "vip", "--sample", "0").exit_code


def test_results_are_kept(office):
    """The numbers are in the history, and in the file that `--report` names, without a uid."""
    office.fill("vip", people(*range(10)))
    office.know(*range(10))
    office.lose(Action.ADD, 1)
    path = office.folder / "report.json"
    path.write_text("old")
    assert 6 == office.one("vip", "--report", str(path))[0]
    (result,) = json.loads(path.read_text())
    assert ("wrong", 10, 9) == (result["status"], result["accepted"], result["size"])
    assert "planted-" not in path.read_text()
    kind, details = office.actions()[-1]
    assert ("verify", 10, 9, 1) == (kind, details["known"], details["in_segment"], details["wrong"])
    missing = office.folder / "missing" / "report.json"
    assert 1 == office.run("verify", "vip", "--report", str(missing)).exit_code


def test_text_for_people(office):
    """Without --json the numbers, the findings and their commands are lines of text."""
    office.fill("vip", people(*range(10)))
    office.know(*range(10))
    office.lose(Action.ADD, 1)
    shown = office.run("verify", "vip").stdout
    for part in ("cohort 'vip': wrong", "accepted: 10", "segment: 9 users", "resync vip --config"):
        assert part in shown


@pytest.mark.parametrize(
    ("options", "command"),
    [
        ({"monthly_queries": 0}, "verify --observed export.csv vip --config"),
        ({"query_seconds": 100_000}, "verify --wait 30 vip --config"),
        ({"list_shows": "filter"}, "verify --wait 30 vip --config"),
        ({"analytics_api_key": "another"}, "check --probe --config"),
    ],
)
def test_what_is_unknown_names_the_next_command(start, options, command):
    """If MoEngage does not say how a cohort is, the text ends with the command to type next."""
    office = start(**options)
    office.fill("vip", people(1))
    last = office.run("verify", "vip").stdout.splitlines()[-1]
    assert last.endswith(f"{command} {office.folder / 'config.json'}")


def test_a_wait_says_what_it_waits_for(office):
    """Before each pause a line says how long it is, and for how many cohorts."""
    office.fill("vip", people(1, 2))
    office.lose(Action.ADD, 1)
    office.know(1, 2)
    shown = office.run("verify", "vip", "--wait", "2").stderr
    assert [30, 60, 30] == [int(each) for each in re.findall(r"again in (\d+) s", shown)]
    assert 3 == shown.count("1 cohort not settled")


def test_a_ledger_on_a_server(office, server):
    """With a ledger on a server, samples, kept removals, the pace and the history work, too."""
    place = ServerPlace(server)
    office.raw["ledger_uri"] = place.uri
    office.fill("vip", people(*range(10)))
    office.know(*range(10))
    office.change("vip", (Action.REMOVE, people(1, 2)))
    office.lose(Action.REMOVE, 1)
    office.lose(Action.ADD, 3)
    code, result, findings = office.one("vip")
    assert (6, ["missing", "removed_still_in"]) == (code, findings)
    assert {"sampled": 2, "known": 2, "in_segment": 1} == result["removed"]
    assert 0 == office.run("resync", "--removals", "vip").exit_code
    assert (6, ["missing"]) == office.one("vip")[::2]
    code, result, _ = observe(office, exported(*range(4, 10), 20))
    assert (2, 1) == (result["observed"]["missing"], result["observed"]["strangers"])
    assert 4 == len(office.actions())
    place.close()


# With a membership that a person has


def observe(office, content, *options, name="export.csv", cohort="vip"):
    path = office.folder / name
    path.write_text(content)
    return office.one(cohort, "--observed", str(path), *options)


def exported(*numbers, column="uid"):
    return "".join(f"x,{line}\n" for line in (column, *(person(each).uid for each in numbers)))


def test_an_export_is_compared(office):
    """An export of the segment tells exactly who is missing, removed or a stranger; nothing is
    asked, and no id_attribute needed."""
    del office.raw["id_attribute"]
    office.fill("vip", people(*range(10)))
    office.change("vip", (Action.REMOVE, people(8, 9)))
    assert (0, []) == observe(office, exported(*range(8), column="ID"))[::2]
    code, result, findings = observe(office, exported(*range(1, 9), 20, 21))
    assert (6, ["removed_still_in", "strangers"]) == (code, findings)
    expected = {
        "observed": 10,
        "population": 8,
        "missing": 1,
        "kept": 2,
        "removed": 1,
        "strangers": 2,
    }
    assert expected == result["observed"]
    assert [] == office.emulator.apis.calls()


def test_the_differences_are_written_and_adopted(office):
    """Who differs is in a new file for its owner alone; `adopt` takes it, as the command says."""
    office.fill("vip", people(*range(4)))
    path = office.folder / "differences.csv"
    os.umask(0o022)  # the command's own mode is what counts
    found = observe(office, exported(1, 2, 3, 7, 8), "--differences", str(path))
    assert 0o600 == stat.S_IMODE(path.stat().st_mode)
    rows = [*csv.DictReader(path.read_text().splitlines())]
    assert {
        (person(0).uid, "missing"),
        (person(7).uid, "stranger"),
        (person(8).uid, "stranger"),
    } == {(row["uid"], row["difference"]) for row in rows}
    command = found[1]["findings"][-1]["command"].split()
    assert ["adopt", "vip", "--csv", str(path)] == command[1:5]
    assert 0 == office.run(*command[1:5]).exit_code
    assert {*people(0, 1, 2, 3, 7, 8)} == office.accepted("vip")


def test_strangers_leave_by_adopt_and_a_run(office):
    """Strangers that verify has found are adopted by the command that it names, and the next run of
    the mirror removes them; then nothing is wrong."""
    office.fill("vip", people(*range(10)))
    office.emulator.apis.put_members("vip", "add_members", [person(20).uid, person(21).uid])
    assert (6, ["strangers"]) == office.one("vip")[::2]
    options = ("--differences", str(office.folder / "differences.csv"))
    result = observe(office, exported(*range(10), 20, 21), *options)[1]
    assert 0 == office.run(*result["findings"][0]["command"].split()[1:5]).exit_code
    rows = [record("vip", uid=person(each).uid, n=10) for each in range(10)]
    mapping = {"vip": {"sync_mode": "mirror", "expected_count_column": "n"}}
    place = office.raw["ledger_uri"]
    data = lines(schema("vip", columns=("uid", "n")), *rows)
    assert run(office.emulator, data, cohorts=mapping, ledger_uri=place).error is None
    assert {*people(*range(10))} == office.there("vip")
    assert (0, []) == office.one("vip")[::2]


def test_no_file_is_overwritten(office):
    """A file that exists stays as it is, and none is left after an error."""
    office.fill("vip", people(1))
    (office.folder / "export.csv").write_text(exported(1))
    path = office.folder / "differences.csv"
    path.write_text("mine")
    options = ("--observed", str(office.folder / "export.csv"), "--differences", str(path))
    assert 1 == office.run("verify", "vip", *options).exit_code
    assert "mine" == path.read_text()
    path.unlink()
    (office.folder / "export.csv").write_text("planted-a\nplanted-b\n")
    assert 1 == office.run("verify", "vip", *options).exit_code
    assert not path.exists()


def test_payloads_are_compared(office):
    """Payloads of Outbound Segment Sync are a membership, the last one of a user counts."""
    office.fill("vip", people(1, 2))
    a, b, c = (person(number).uid for number in (1, 2, 3))
    lines = [
        {"type": "segment_sync", "data": {"add_users": [{"uid": a}, {"uid": b}, c]}},
        {"type": "segment_sync", "data": {"add_users": [], "remove_users": [{"uid": c}, a]}},
        {"type": "segment_sync", "data": {"add_users": [a]}},
    ]
    content = "\n".join(map(json.dumps, lines))
    assert (0, []) == observe(office, content, name="payloads.jsonl")[::2]
    code, result, findings = observe(office, content.rpartition("\n")[0], name="p.jsonl")
    assert (0, [], 1) == (code, findings, result["observed"]["missing"])


@pytest.mark.parametrize(
    "content",
    [
        b"planted-a\nplanted-b\n",
        b'uid\n"planted-',
        b"uid,x\n,planted-a\n",
        b"uid\nplanted-\xff\n",
        b'{"type": "planted-"}\n',
        b'{"type": "segment_sync", "data": {"add_users": [{"x": "planted-a"}]}}\n',
        b'{"type": "segment_sync", "data": {"add_users": [1.5]}}\n',
        b'{"planted-',
    ],
)
def test_a_broken_file_is_refused(office, content):
    """A file that cannot be used is refused, without a word of it."""
    office.fill("vip", people(1))
    path = office.folder / "export.csv"
    path.write_bytes(content)
    result = office.run("verify", "vip", "--observed", str(path))
    assert (1, "") == (result.exit_code, result.stdout)
    assert str(path) in result.stderr


def test_wrong_combinations_of_options(office):
    """Options that make no sense together are wrong usage."""
    path = office.folder / "export.csv"
    path.write_text("uid\n")
    for arguments in (
        ("vip", "--differences", "x.csv"),
        ("--observed", str(path)),
        ("vip", "other", "--observed", str(path)),
        ("vip", "--observed", str(path), "--wait", "1"),
    ):
        assert 2 == office.run("verify", *arguments).exit_code


def test_a_large_export_takes_little_memory(office):
    """Neither the observed members nor the differences, which are half of them, are in memory."""
    count = 400_000
    chunks = ([Member(f"{n:036d}") for n in range(s, s + 20_000)] for s in range(0, count, 20_000))
    with office.ledgers() as ledgers:
        ledgers.open(Cohort("vip", "vip"), "vip").adopt(chunks)
    path, differences = office.folder / "export.csv", office.folder / "differences.csv"
    path.write_text("uid\n" + "".join(f"{n:036d}\n" for n in range(count // 2, 3 * count // 2)))
    options = ("--observed", str(path), "--differences", str(differences))
    code, output, megabytes = measured(office, "verify", "vip", *options, LIMIT="64MB")
    (result,) = json.loads(output)
    numbers = (result["observed"]["missing"], result["observed"]["strangers"])
    assert (6, (count // 2, count // 2)) == (code, numbers)
    with differences.open() as file:
        assert count + 1 == sum(1 for _ in file)
    assert megabytes < 200
