"""`moengage-cohort check` lists MoEngage's segments, and probes what is assumed of its APIs."""

import contextlib
import json
import re
import time

import pytest

from target_moengage_cohort.cli.check.probe import STATEMENTS
from target_moengage_cohort.delivery.delivery import live_calls
from target_moengage_cohort.emulator import Emulator
from target_moengage_cohort.moengage.calls import ANALYTICS, GET, LIST
from target_moengage_cohort.moengage.filters import all_of
from target_moengage_cohort.moengage.segments import Segments
from target_moengage_cohort.settings import load
from tests.cli.conftest import Desk, people, person
from tests.cli.test_verify import start as start  # noqa: PLC0414 - a fixture
from tests.support.apis import all_users
from tests.support.singer import UNLIMITED, lines, record, schema

KEYS = {"segments_api_key": "demo-key", "id_attribute": "uid"}


@pytest.fixture
def opened(tmp_path):
    """A desk at an emulator with some options, and a cohort with five members."""
    running = []

    def start(settings=None, **options):
        emulator = Emulator(requests_per_minute=UNLIMITED, **options)
        emulator.start()
        running.append(emulator)
        desk = Desk(emulator, tmp_path)
        desk.raw |= {"cohorts": {"vip": {"sync_mode": "mirror"}}} | KEYS | (settings or {})
        desk.fill("vip", people(*range(5)))
        return desk

    yield start
    for each in running:
        each.stop()


def probed(desk):
    """Return what check --probe finds, by name, and the lines to paste."""
    result = desk.run("check", "--probe", "--json")
    found = json.loads(result.stdout)["probe"]
    assert [*STATEMENTS] == [each["name"] for each in found["assumptions"]]
    assert all(each["note"] for each in found["assumptions"])
    return {each["name"]: each["holds"] for each in found["assumptions"]}, found["paste"]


MISSED = dict.fromkeys(("list_shows_cohorts", "name_finds_cohorts"), "unknown")
ALL = dict.fromkeys(STATEMENTS, "yes") | {"db_name_needed": "no", "anonymous_id_exists": "no"}


@pytest.mark.parametrize(
    ("settings", "options", "expected"),
    [
        ({}, {}, {}),
        ({}, {"list_shows": "filter"}, MISSED),
        ({"db_name": "demo-db"}, {}, {}),
        ({"db_name": "demo-db"}, {"requires_db_name": True}, {"db_name_needed": "yes"}),
        ({"db_name": "other"}, {}, {"db_name_needed": "unknown", "segments_scope": "unknown"}),
        ({}, {"requires_db_name": True}, {"db_name_needed": "yes", "segments_scope": "unknown"}),
        ({}, {"segments_api_key": "own"}, {"segments_scope": "no", "db_name_needed": "unknown"}),
        ({}, {"analytics_api_key": "own"}, {"analytics_scope": "no"}),
        ({"segments_api_key": "wrong"}, {}, {"segments_scope": "unknown"}),
        ({"analytics_api_key": "wrong"}, {}, {"analytics_scope": "unknown"}),
        ({"id_attribute": None}, {}, {"id_attribute_exists": "unknown"}),
        ({"id_attribute": "other"}, {}, {"id_attribute_exists": "unknown"}),
        ({}, {"monthly_queries": 0}, {"id_attribute_exists": "unknown"}),
        ({}, {"monthly_queries": 1}, {"cohort_is_counted": "unknown"}),
        ({}, {"processing_seconds": 3_600}, {"cohort_is_counted": "unknown"}),
    ],
)
def test_each_assumption_is_answered(opened, settings, options, expected):
    """What the workspace does is found out, and what depends on something that cannot be asked is
    unknown."""
    found, paste = probed(opened(settings, **options))
    assert expected.items() <= found.items()
    if not expected:
        assert ALL == found
    for name, holds in found.items():
        assert f"\n{name}: {holds}" in paste


@pytest.mark.parametrize("setting", ["segments_api_key", "analytics_api_key"])
def test_a_wrong_key_fails_the_probe(opened, setting):
    """A key that MoEngage refuses is an error, once, which names its setting; what depends on it is
    unknown, and the rest is answered."""
    result = opened({setting: "wrong"}).run("check", "--probe", "--json")
    checks = json.loads(result.stdout)["checks"]
    (error,) = (error for each in checks for error in each["errors"])
    assert (1, "credentials_refused") == (result.exit_code, error["code"])
    assert f"the key in {setting}" in error["message"]
    assert 1 == result.stderr.count(f"Error: {error['message']}")


@pytest.mark.parametrize("query_seconds", [0, 20])
def test_times_are_without_our_own_waits(start, query_seconds):
    """If the limit of the Analytics API has no room for a while, that wait is not MoEngage's time;
    the pauses while it counts are."""
    office = start(query_seconds=query_seconds)
    office.raw |= KEYS | {"cohorts": {"vip": {"sync_mode": "mirror"}}}
    office.fill("vip", people(1))
    naps = [] if query_seconds else [2]  # the first wait, which is for a permit, takes real time
    office.before_wait = lambda: naps and time.sleep(naps.pop())
    for _ in range(4):
        office.run("check", "--probe")
    assert sum(office.waits) > 60
    found = {int(each) for each in re.findall(r"counted\s+within\s+(\d+)\s+s", office.output)}
    assert {30 if query_seconds else 1} == found


def test_what_depends_on_an_answer_is_unknown(opened):
    """Without the Segments API no cohort is looked for there, and without the Analytics API no
    users are counted."""
    keys = {"segments_api_key": "s", "analytics_api_key": "a"}
    found, _ = probed(opened(**keys))
    known = {name for name, holds in found.items() if holds != "unknown"}
    assert {"segments_scope", "analytics_scope"} == known


def test_without_a_ledger_the_rest_is_asked(opened):
    """With no cohort in the ledger yet, what needs one is unknown."""
    desk = opened()
    desk.raw["ledger_uri"] = str(desk.folder / "new")
    found, _ = probed(desk)
    assert ("yes", "yes") == (found["segments_scope"], found["analytics_scope"])
    assert ("unknown", "unknown") == (found["list_shows_cohorts"], found["id_attribute_matches"])


def test_a_filter_segment_is_not_taken_for_a_cohort(opened):
    """If a filter segment has the name of a cohort, nothing is known of cohorts."""
    desk = opened()
    desk.emulator.reset()
    _create(desk, "vip")
    found, _ = probed(desk)
    names = {*MISSED, "get_shows_cohorts", "cohort_is_counted"}
    assert {"unknown"} == {found[each] for each in names}
    assert "yes" == found["segments_scope"]


def test_a_cohort_that_is_listed_is_looked_for_by_its_name(opened):
    """With one of two cohorts in MoEngage, that one is looked for."""
    desk = opened()
    desk.emulator.reset()
    desk.fill("zed", people(1))
    assert ALL == probed(desk)[0]


def test_more_users_than_were_asked_for_are_unknown(opened):
    """If MoEngage counts more users than the sample has user IDs, could not check whether they are
    found by them."""
    desk = opened({"segments_api_key": None})
    answers = (
        {"data": {"request_id": "q"}},
        {"data": {"status": "SUCCESSFUL"}},
        {"data": [{"metric": 9, "cseq": 0}, {"metric": 6, "cseq": 1}]},
    )
    desk.emulator.apis.fail_next(404, 2)  # no list of segments, and no such query
    for answer in answers:
        desk.emulator.apis.fail_next(200, body=json.dumps(answer))
    found, _ = probed(desk)
    assert ("yes", "unknown") == (found["id_attribute_exists"], found["id_attribute_matches"])


def test_hosts_with_one_ledger_share_the_limits(opened, server):
    """If MoEngage has told another host with the ledger to wait, nothing is asked."""
    there = server.new_database("probe")
    where = f"{there.user}@{there.host}:{there.port}/{there.database}"
    desk = opened({"ledger_uri": f"postgresql://{where}", "max_retry_seconds": 0})
    with desk.ledgers() as ledgers:
        for limit in (LIST, GET, ANALYTICS):
            with contextlib.closing(ledgers.shared_window(limit)) as window:
                window.hold(600)
    found, _ = probed(desk)
    assert ([], {"unknown"}) == (desk.emulator.apis.calls(), {*found.values()})


def test_the_lines_to_paste_are_anonymous(opened):
    """Neither names nor IDs nor keys nor numbers of users are in the lines to paste, and the text
    ends with them; nothing changes in MoEngage."""
    desk = opened({"partner": "acme"})
    desk.emulator.apis.know([person(number).uid for number in range(4)])
    before = [*desk.emulator.apis.segments()]
    requests = desk.emulator.totals().requests
    _, paste = probed(desk)
    assert "80 percent" in paste
    segment = before[0].id
    for private in ("vip", "acme", segment, "demo-workspace", "demo-key", "planted"):
        assert private not in paste
    last = desk.run("check", "--probe").stdout.rstrip().rpartition("\n")[2]
    assert last.startswith("cohort_is_counted: yes")
    assert (before, requests) == (desk.emulator.apis.segments(), desk.emulator.totals().requests)
    endpoints = {each.endpoint for each in desk.emulator.apis.calls()}
    assert {"list", "get", "query", "status", "results"} == endpoints


def test_a_source_with_the_partner_s_name_is_not_shown(opened):
    """MoEngage may call a cohort's source after the partner, whose name is left out then."""
    _, paste = probed(opened({"partner": "cohort"}))
    assert "type (has the partner), source (has the partner)" in paste
    _, paste = probed(opened())
    assert "type cohort, source cohort_sync" in paste


def test_without_the_option_nothing_is_probed(opened):
    """check alone lists the segments if the key is set, and asks nothing else."""
    desk = opened()
    result = desk.run("check", "--json")
    assert (0, None) == (result.exit_code, json.loads(result.stdout)["probe"])
    assert ["list"] == [each.endpoint for each in desk.emulator.apis.calls()]
    del desk.raw["segments_api_key"]
    desk.run("check")
    assert 1 == len(desk.emulator.apis.calls())


def _create(desk, name):
    calls = live_calls(load(desk.raw).settings, lambda _: False)
    Segments(calls.send).create(name, all_of(all_users()))
    calls.close()


def test_a_wrong_key_for_segments_fails_the_check(opened):
    """check fails if MoEngage refuses the key; an error that may pass fails nothing."""
    desk = opened()
    desk.emulator.apis.fail_next(503, 9)
    assert 0 == desk.run("check").exit_code
    desk.emulator.apis.clear_faults()
    desk.raw["segments_api_key"] = "wrong-key"
    result = desk.run("check", "--json")
    checks = json.loads(result.stdout)["checks"]
    errors = [error["code"] for each in checks for error in each["errors"]]
    assert (1, ["credentials_refused"]) == (result.exit_code, errors)


def test_check_and_plan_say_that_a_name_is_taken(opened):
    """For a new cohort with the name of a segment in MoEngage, check has a finding and plan fails;
    for a known cohort its own name is none."""
    desk = opened()
    desk.raw["cohorts"]["gold"] = {"cohort_name": "Gold"}
    assert 0 == desk.run("check").exit_code
    _create(desk, "Gold")
    result = desk.run("check", "--json")
    findings = json.loads(result.stdout)["cohorts"]
    assert [("name_taken", "gold", True)] == [
        (each["code"], each["cohort_id"], each["is_error"]) for each in findings
    ]
    assert 1 == result.exit_code
    rows = lines(schema("gold"), record("gold", uid="u")).decode()
    result = desk.run("plan", text=rows)
    assert (1, True) == (result.exit_code, "adopt gold" in result.output)
    rows = lines(schema("vip"), record("vip", uid="u")).decode()
    assert 0 == desk.run("plan", text=rows).exit_code


def test_a_list_that_cannot_be_had_fails_no_plan(opened):
    """If MoEngage cannot list the segments, plan warns, and succeeds."""
    desk = opened(segments_api_key="own")
    desk.raw["cohorts"]["gold"] = {}
    rows = lines(schema("gold"), record("gold", uid="u")).decode()
    result = desk.run("plan", text=rows)
    assert (0, True) == (result.exit_code, "could not check whether" in result.stderr)
