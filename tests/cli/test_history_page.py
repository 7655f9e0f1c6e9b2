"""`moengage-cohort history --html`: a page with the history, for a browser without a network."""

import functools
import json
import os
import re
import stat
import sys
import tempfile
import threading
from pathlib import Path

import pytest
from playwright.sync_api import expect
from plotly.offline import get_plotlyjs

from target_moengage_cohort.cli.history.history_figures import DRAWN, LISTED, POINTS, figures
from target_moengage_cohort.core.membership import Cohort
from target_moengage_cohort.core.text import iso_utc
from target_moengage_cohort.delivery.ports import Timing
from target_moengage_cohort.ledger.engines import open_store
from target_moengage_cohort.settings import load
from tests.cli.conftest import person
from tests.support.browser import open_browser
from tests.support.reports import past_run
from tests.support.singer import lines, record, run, schema

NOW = 1_800_000_000.0  # 2027-01-15T08:00:00Z
HOSTILE = "<b>&amp;</b></script><script>document.title = 'hacked'</script><!--"
OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


@pytest.fixture
def quick(desk):
    """A ledger in memory, if the system has a folder there: many transactions wait for no disk."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        desk.raw["ledger_uri"] = f"{folder}/ledger"
        yield desk


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """Yield a real browser with a profile of its own."""
    with open_browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture
def view(browser):
    """Open a page; check at the end that it had no errors and asked for nothing but itself."""
    page = browser.new_page()
    errors, requested = [], set()
    page.on("console", lambda message: errors.append(message.text))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("request", lambda request: requested.add(request.url))
    opened = []

    def show(path):
        opened.append(path.as_uri())
        page.goto(opened[-1])
        return page

    yield show
    page.close()
    assert [] == errors
    assert {*opened} == {url for url in requested if not url.startswith("data:")}


def write(desk, *options):
    """Write the page; return it, and what it shows."""
    path = desk.folder / "page.html"
    desk.raw["requests_per_minute"] = 300
    result = desk.run("history", "--html", str(path), *options, clock=lambda: NOW)
    assert 0 == result.exit_code, result.output
    (data,) = re.findall(r'<script type="application/json" id="figures">(.*?)</script>', _own(path))
    return path, json.loads(data)


def _own(path):
    """Return the page without the library."""
    return path.read_text().replace(_library(), "")


@functools.cache
def _library():
    return get_plotlyjs()


def mirror(desk, numbers, at):
    rows = [record("users", uid=person(number).uid) for number in numbers]
    timing = Timing(jitter=lambda _seconds: 0.0, wall_clock=lambda: at)
    settings = {"ledger_uri": desk.raw["ledger_uri"], "sync_mode": "mirror"}
    return run(desk.emulator, lines(schema("users"), *rows), timing, **settings)


def keep(desk, names, runs, *, first=NOW - 86_400.0):
    """Let the ledger have past runs of some cohorts, each of which has one member more by each."""
    now = first
    wait = threading.Event().wait
    settings = load(desk.raw).settings
    with open_store(settings, run_id="keep", wait=wait, clock=lambda: now) as store:
        for name in names:
            store.open(Cohort(name, name), "users")
        for number in range(runs):
            now = first + number * 60
            facts = {"at": iso_utc(now), "run_id": f"run-{number}", "stream": "users", "added": 1}
            cohorts = [past_run(cohort_id=name, accepted=number, **facts) for name in names]
            whole = past_run(**facts | {"added": len(names)}, streams=("users",), requests=3)
            store.note_run(whole, cohorts, {})


@pytest.mark.usefixtures("place")
def test_numbers_of_runs_cohorts_and_commands(desk):
    """The page has what each run and command did, and the size of each cohort after it, from the
    ledger of each engine."""
    mirror(desk, range(10), NOW - 40)
    plan = mirror(desk, range(3), NOW - 30).report.cohorts[0].plan_id
    desk.run("confirm", "--withheld", plan, clock=lambda: NOW - 20)
    mirror(desk, range(4), NOW - 10)
    _, data = write(desk)
    points = data["points"]
    assert [(10, 0, 0), (0, 0, 7), (1, 0, 0)] == [
        (point["added"], point["removed"], point["withheld"]) for point in points
    ]
    assert [round(100 / 300, 1), 0.0, round(100 / 300, 1)] == [point["used"] for point in points]
    assert all(point["duration"] >= 0 for point in points)
    (cohort,) = data["cohorts"]
    assert ("users", 4, 11, 7) == tuple(
        cohort[name] for name in ("cohort_id", "members", "added", "removed")
    )
    sizes = [size for _, size in cohort["points"]]
    assert [10, 10, 3, 4, 4] == sizes
    assert ["confirm", "run", "run"] == [event["what"] for event in data["events"]]
    assert {"succeeded": 2, "withheld": 1} == data["statuses"]


@pytest.mark.parametrize("count", [1, 30, LISTED, LISTED + 1])
def test_any_number_of_cohorts(quick, view, count):
    """A page of one, 30, 1,000 and more cohorts draws the most changed ones, lists the others, and
    says what it leaves out; on a phone nothing overflows at the side, light and dark."""
    keep(quick, [f"segment-{number:04}-" + "W" * 90 for number in range(count)], runs=2)
    path, _ = write(quick)
    page = view(path)
    expect(page.locator("#sizes .scatterlayer .trace")).to_have_count(min(count, DRAWN))
    expect(page.locator("#cohorts tbody tr")).to_have_count(min(count, LISTED))
    expect(page.locator("#drawn")).to_have_text("" if count == 1 else re.compile(f"{count:,} coh"))
    expect(page.locator("#listed")).to_have_text(
        re.compile("1,000 most changed of 1,001") if count > LISTED else ""
    )
    colours = set()
    for scheme, width in (("dark", 390), ("light", 390), ("light", 1280)):
        page.set_viewport_size({"width": width, "height": 844})
        page.emulate_media(color_scheme=scheme)
        expect(page.locator("#durations svg.main-svg").first).to_be_visible()
        assert 0 == page.evaluate(OVERFLOW)
        overflow = "places => places.map(place => place.scrollWidth - place.clientWidth)"
        assert [0, 0] == page.locator(".scroll").evaluate_all(overflow)
        assert {0} == {*page.locator(".totals *, h1, h2, main p").evaluate_all(overflow)}
        colours.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        ink = page.locator("#changes .xtick text").first.evaluate("text => text.style.fill")
        colours.add(ink)
    assert 4 == len(colours)


@pytest.mark.parametrize("few", range(4))
def test_no_tick_is_repeated(quick, view, few):
    """The axes of whole numbers have no tick twice, however few there are."""
    keep(quick, [f"cohort-{number}" for number in range(few)] or ["a"], runs=2 if few else 0)
    if not few:
        mirror(quick, [], NOW - 40)
    page = view(write(quick)[0])
    for chart in ("changes", "troubles"):
        expect(page.locator(f"#{chart} svg.main-svg").first).to_be_visible()
        ticks = page.locator(f"#{chart} .ytick text").all_text_contents()
        assert 2 <= len(ticks)
        assert len({*ticks}) == len(ticks)
        assert all(tick.replace(",", "").lstrip("-\N{MINUS SIGN}").isdigit() for tick in ticks)


def test_names_are_text(quick, view):
    """Names of cohorts are shown as text, in the legend and the tables, whatever they contain."""
    keep(quick, [HOSTILE, "$a$"], runs=2)
    page = view(write(quick)[0])
    expect(page.locator("#cohorts tbody tr td:first-child span:first-child")).to_have_text(
        ["$a$", HOSTILE]
    )
    expect(page.locator("#sizes .legendtext")).to_have_text(["$a$", HOSTILE[:21] + "…"])
    expect(page).to_have_title("Cohorts in MoEngage")


@pytest.mark.parametrize(
    ("runs", "title"),
    [(2, "Added and removed by each run"), (POINTS + 1, "Added and removed by runs, each day")],
)
def test_the_changes_are_those_of_runs(quick, view, runs, title):
    """The heading of the chart, like the totals, says that it has the changes of runs only: the
    table of cohorts has those of commands, too."""
    keep(quick, ["a"], runs=runs)
    page = view(write(quick)[0])
    expect(page.locator("#changes-title")).to_have_text(title)
    names = page.locator(".totals dt").all_text_contents()
    assert {"Added by runs", "Removed by runs"} <= {*names}


def test_many_runs_are_drawn_by_the_day(quick):
    """More runs than can be told apart are drawn by the day, with their sums or highest number."""
    keep(quick, ["a"], runs=POINTS + 1, first=NOW - 2 * 86_400.0)
    _, data = write(quick)
    assert data["by_day"]
    assert POINTS + 1 == sum(point["runs"] for point in data["points"])
    assert POINTS + 1 == sum(point["added"] for point in data["points"])
    assert {1.0} == {point["used"] for point in data["points"]}
    assert 2 == len(data["points"])
    with quick.ledgers(read_only=True) as store:
        history, since = store.history_reader(), iso_utc(NOW - 2 * 86_400.0 + 60)
        later = figures(history, store.entries(), since, iso_utc(NOW), 300)
    assert (False, POINTS) == (later["by_day"], len(later["points"]))


def test_a_page_without_runs(desk, view):
    """Without any run, and without members in the ledger, the page says so."""
    desk.fill("vip", [person(1)])
    page = view(write(desk)[0])
    expect(page.locator("#period")).to_contain_text("no runs")
    expect(page.locator("#latest")).to_have_text("None.")


def test_a_new_file_for_its_owner(desk):
    """The page is for its owner alone and never replaces a file."""
    desk.fill("vip", [person(1)])
    mask = os.umask(0o022)
    try:
        path, _ = write(desk)
    finally:
        os.umask(mask)
    assert 0o600 == stat.S_IMODE(path.stat().st_mode)
    before = path.stat()
    again = desk.run("history", "--html", str(path))
    assert 1 == again.exit_code
    assert "choose another file" in again.stderr
    assert before.st_mtime_ns == path.stat().st_mtime_ns


def test_no_member_is_on_it(desk):
    """No identifier of a member and no key is in the page."""
    mirror(desk, range(10), NOW - 40)
    text = _own(write(desk)[0])
    assert "users" in text
    assert "planted" not in text
    assert desk.raw["data_api_key"] not in text


@pytest.mark.parametrize("others", [["--json"], ["--cohort", "vip"], ["--singer"]])
def test_it_goes_with_no_other_output(desk, others):
    """--html with another output is wrong usage."""
    assert 2 == desk.run("history", "--html", "page.html", *others).exit_code


def test_without_the_library(desk, monkeypatch):
    """Without the extra the error says what to install, and no file is left."""
    desk.fill("vip", [person(1)])
    for name in [*sys.modules]:
        if name.partition(".")[0] == "plotly":
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "plotly", None)
    result = desk.run("history", "--html", str(desk.folder / "page.html"))
    assert 1 == result.exit_code
    assert "pip install 'target-moengage-cohort[page]'" in result.stderr
    assert not (desk.folder / "page.html").exists()
