from __future__ import annotations

import re

import pytest
from playwright.sync_api import Error, expect

from tests.emulator.conftest import rows

SCRIPT = "<script>document.title = 'hacked'</script>"
IMAGE = "<img src=x onerror=\"document.title = 'hacked'\">"
ALL_USERS = {"filter_type": "custom_segments", "id": "moe_all_users", "name": "All Users"}
FOREIGN = """() => {
    window.violated = new Set();
    document.addEventListener("securitypolicyviolation", (event) => {
        window.violated.add(event.effectiveDirective);
    });
    const add = (tag, properties) => {
        document.body.append(Object.assign(document.createElement(tag), properties));
    };
    add("style", { textContent: "body { color: red }" });
    add("img", { src: "/x.png" });
    add("iframe", { src: "/" });
    fetch("http://127.0.0.1:9/").catch(() => {});
}"""


def test_shows_cohorts(client, page):
    """The page updates cohorts and their sizes as requests arrive, without being reloaded."""
    page.evaluate("document.body.dataset.mark = 'the same document'")
    expect(rows(page, "Cohorts")).to_have_text(["None yet."])
    client.add(*(f"u{number}" for number in range(1_200)))
    client.add("u1", {"anonymous_id": "a1"}, cohort_id="new")

    expect(rows(page, "Cohorts")).to_have_text(["VIP acme / vip1,200", "VIP newacme / new2"])
    client.remove("u1")
    expect(rows(page, "Cohorts").first).to_have_text("VIP acme / vip1,199")
    assert "the same document" == page.evaluate("document.body.dataset.mark")


def test_shows_segments_of_all_kinds(client, emulator, page):
    """Segments of each kind are shown with their size, and the archived ones as such; so are the
    calls, with the reason of those that were refused."""
    client.add("u1")
    fields = {"name": "File", "attribute_name": "uid", "attribute_type": "string"}
    fields |= {"file_url": "http://127.0.0.1:9/", "expiry_time": 30}
    client.post(fields, path="/v2/custom-segments/file-segment")
    filters = {"filter_operator": "and", "filters": [ALL_USERS]}
    client.post({"name": SCRIPT, "included_filters": filters}, path="/v3/custom-segments")
    client.post({"included_filters": filters}, path="/v3/custom-segments")
    expect(rows(page, "Segments").filter(has_text="archived")).to_have_count(0)
    first, second, third = emulator.apis.segments()

    assert ("cohort", "file", "filter") == (first.kind, second.kind, third.kind)
    expect(rows(page, "Segments")).to_have_text(
        [f"VIP {first.id}cohort1", f"File{second.id}file0", f"{SCRIPT}{third.id}filter\u2013"]
    )
    expect(rows(page, "Calls").first).to_contain_text("createInvalid request400")
    emulator.clock.advance(61 * 86_400)
    expect(rows(page, "Segments").filter(has_text="archived")).to_have_count(3)


def test_keeps_what_is_there(client, page):
    """A refresh changes texts and keeps rows: nothing flashes, and selections are kept."""
    client.add("u1")
    expect(rows(page, "Cohorts")).to_have_text(["VIP acme / vip1"])
    row = rows(page, "Cohorts").first.element_handle()
    client.add("u2")

    expect(rows(page, "Cohorts")).to_have_text(["VIP acme / vip2"])
    assert row.evaluate("row => row.isConnected")
    client.control("POST", "reset")
    expect(rows(page, "Cohorts")).to_have_text(["None yet."])


def test_shows_size(client, page, payload):
    """Each request is shown with its share of the size limit, as a number and as a bar."""
    client.add("u1")
    client.post(payload("u1"), headers={"Content-Type": "text/plain"})
    body = client.add(*("x" * 32 + str(number) for number in range(1_500))).request.body
    client.post(b" " * 192_000)

    expect(rows(page, "Requests")).to_have_count(4)
    over, large = rows(page, "Requests").nth(0), rows(page, "Requests").nth(1)
    share = len(body) / 128_000
    expect(page.get_by_role("columnheader", name="Size of 128,000 bytes")).to_be_visible()
    expect(over).to_contain_text("192,000150.0%413")
    expect(large).to_contain_text(f"{len(body):,}{share:.1%}200")
    track, filled = large.locator(".size .bar").evaluate(
        "bar => [bar.clientWidth, parseFloat(getComputedStyle(bar, '::before').width)]"
    )
    assert share == pytest.approx(filled / track, abs=0.01)
    assert re.search(r"\bover\b", over.locator(".size .bar").get_attribute("class"))


def test_shows_refusals(client, emulator, page):
    """Refused, silently dropped and failed requests are listed with a reason."""
    client.post(b"{")
    client.post(b"", auth=None)
    client.add("u1", cohort_name="a: b")
    emulator.poison(["u1"], "No such user: {id}")
    client.add("u1")
    emulator.clear_faults()
    emulator.fail_next(503, message="u1 made trouble", applied=True)
    client.add("u1")
    client.add("u2")

    expect(rows(page, "Refused or not applied")).to_contain_text(
        [
            "503appliedInjected faultServer Error",
            "400refusedInjected fault: the request lists a poison memberMissingAttributeError",
            "200droppedSilently dropped: the cohort's name breaks a rule",
            "401refusedAuthentication is requiredAuthentication required",
            "400refusedThe body is not valid JSONMalformed JSON",
        ]
    )
    expect(rows(page, "Requests")).to_have_count(6)


def test_shows_faults(emulator, page):
    """Pending faults are shown until they are removed."""
    emulator.fail_next(503, 2, cohort_id="vip")
    emulator.drop_next(when="after")
    emulator.fail_share(0.05, statuses=(500, 503))
    emulator.latency(0.2)
    emulator.poison(["u1"])
    emulator.hold()

    expect(page.get_by_role("listitem")).to_have_text(
        [
            "Next 2 requests of cohort vip: answer 503",
            "Next 1 request: connection reset after the change",
            "5.0% of requests: answer 500, 503",
            "Answers are delayed by 0.2 s",
            "Requests that list 1 poison member: answer 400",
            "All answers are held back",
        ]
    )
    emulator.clear_faults()
    expect(page.get_by_role("list", name="Active faults")).to_be_hidden()


def test_shows_the_limit(client, emulator, page):
    """The limit per minute is shown with its use, other integrations' requests included."""
    client.add("u1")
    emulator.use_up(99)

    expect(page.get_by_text("100 of 300")).to_be_visible()


def test_names_the_peak(client, page):
    """The peak is named in words, each of its own color: within, close to, or over the limit."""
    colors = []
    for peak, words in ((1, "within the limit"), (271, "close to the limit"), (301, "over")):
        while client.control("GET", "totals").json()["largest_window"] < peak:
            client.add("u1")
        word = page.get_by_text(words)
        expect(word).to_be_visible()
        colors.append(word.evaluate("word => getComputedStyle(word).color"))

    assert 3 == len(set(colors))


def test_shows_both_names(client, page):
    """A cohort is shown as the segment that MoEngage made of it, and as it is sent now."""
    client.add("u1", cohort_name="First")
    client.add("u1", cohort_name="Second")

    expect(rows(page, "Cohorts")).to_have_text(["Firstacme / vipnow named Second1"])
    expect(rows(page, "Requests")).to_contain_text(["Secondacme / vip", "Firstacme / vip"])


def test_groups_repeated_rows(client, emulator, page):
    """The same bytes with the same answer are one row with a count, and so are equal failures and
    equal calls; other bytes are another request, of whatever size."""
    emulator.fail_next(503, 3)
    for uid in ("u1", "u1", "u2", "u1", "u1", "u1"):
        client.add(uid)
    for _ in range(2):
        client.post({}, path="/v3/custom-segments")

    numbers = rows(page, "Requests").locator("th")
    expect(numbers).to_have_text(["62 times", "4", "3", "22 times"])
    expect(rows(page, "Refused or not applied").locator("th")).to_have_text(["33 times"])
    expect(rows(page, "Calls").locator("th")).to_have_text(["22 times"])


def test_refusals_scroll(client, page):
    """Many refused requests scroll inside their card, by the keyboard, below the table's head."""
    for number in range(50):
        client.add("u1", cohort_name=":", cohort_id=f"c{number}")
    expect(rows(page, "Refused or not applied")).to_have_count(50)
    card = page.get_by_role("region", name="Refused or not applied")
    card.focus()
    page.keyboard.press("End")

    expect(rows(page, "Refused or not applied").last).to_be_in_viewport()
    tops = card.evaluate(
        "card => [card, card.querySelector('thead th')].map(e => e.getBoundingClientRect().y)"
    )
    assert tops[0] == pytest.approx(tops[1], abs=2)


@pytest.mark.parametrize("name", ["vip", "a/b?c&d=%25#e", IMAGE])
def test_opens_requests_of_a_cohort(client, page, name):
    """The Enter key on a cohort shows its requests, older than the last 50 too; Back shows all."""
    client.add("u1", cohort_id=name, cohort_name="Mine", partner=name)
    for _ in range(51):
        client.add("u2", cohort_id="other")
    expect(rows(page, "Requests")).to_have_text([re.compile("50 times")])
    page.get_by_role("table", name="Cohorts").get_by_role("link", name="Mine").press("Enter")

    expect(rows(page, "Requests")).to_contain_text([f"Mine{name} / {name}+1"])
    expect(page.get_by_text("the last 50 of Mine")).to_be_visible()
    expect(page.get_by_role("region", name="Requests")).to_be_focused()
    page.get_by_role("link", name="Show all cohorts").press("Enter")
    expect(rows(page, "Requests")).to_have_text([re.compile("50 times")])
    page.go_back()
    expect(rows(page, "Requests")).to_contain_text(["Mine"])


def test_names_are_text(client, page):
    """Cohort names are shown as text, whatever they contain."""
    client.add("u1", cohort_name="VIP", cohort_id=IMAGE, partner=SCRIPT)
    client.add("u1", cohort_name=SCRIPT)
    client.sync("u1", action=SCRIPT)

    expect(rows(page, "Cohorts")).to_contain_text([f"{SCRIPT} / {IMAGE}"])
    expect(rows(page, "Refused or not applied")).to_contain_text([SCRIPT, SCRIPT])
    expect(page).to_have_title("MoEngage emulator")
    assert [1, 0] == [page.locator(tag).count() for tag in ("script", "img")]


def test_policy(browser, emulator):
    """The page's policy allows only its own styles, images, frames, connections and scripts."""
    page = browser.new_page()
    page.goto(emulator.url)
    page.evaluate(FOREIGN)

    page.wait_for_function("window.violated.size === 4")
    assert {"style-src-elem", "img-src", "frame-src", "connect-src"} == set(
        page.evaluate("[...window.violated]")
    )
    for statement in (
        "document.body.innerHTML = '<b>bold</b>'",
        "document.createElement('script').textContent = 'document.title = 1'",
    ):
        with pytest.raises(Error, match=r"Trusted(HTML|Script)"):
            page.evaluate(statement)
    page.close()


def test_shows_no_member(client, emulator, page):
    """No member's identifier is on the page or in its data, however a request fails."""
    member = {"uid": "secret-uid", "anonymous_id": "secret-anonymous"}
    client.add(member)
    client.remove(member)
    client.add({"uid": 7_777_777}, member)
    client.add({"uid": "", "anonymous_id": "secret-anonymous"})
    emulator.poison(["secret-uid"], "No such user: {id}")
    client.add(member)

    expect(rows(page, "Requests")).to_have_count(5)
    shown = page.content() + client.control("GET", "overview").text
    assert "MissingAttributeError" in shown
    assert [] == re.findall(r"secret|7777777", shown)


def test_fits(client, page):
    """On a phone nothing overflows at the side, even with long names, large requests and counts of
    two digits, in dark and light mode."""
    client.add("u1", cohort_name="W" * 200, cohort_id="x" * 300)
    for _ in range(12):
        client.add("u1", cohort_name="W" * 201)
    client.post(b" " * 192_000)
    page.set_viewport_size({"width": 360, "height": 700})
    page.get_by_text("Inject a fault").click()
    colors = []
    for scheme in ("dark", "light"):
        page.emulate_media(color_scheme=scheme)
        expect(rows(page, "Requests")).to_have_count(3)
        assert 360 == page.evaluate("document.documentElement.scrollWidth")
        assert [0] * 5 == page.locator(".scroll").evaluate_all(
            "tables => tables.map(table => table.scrollWidth - table.clientWidth)"
        )
        colors.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))

    assert 2 == len(set(colors))


def test_emulator_ends(browser, start):
    """When the emulator has stopped, the page says so and keeps its last content."""
    client = start()
    client.add("u1")
    page = browser.new_page()
    page.goto(client.emulator.url)
    expect(rows(page, "Cohorts")).to_have_text(["VIP acme / vip1"])
    client.emulator.stop()

    expect(page.get_by_role("status")).to_contain_text("doesn't answer")
    expect(rows(page, "Cohorts")).to_have_text(["VIP acme / vip1"])
    page.get_by_text("Inject a fault").click()
    page.get_by_role("button", name="Inject").click()
    expect(page.get_by_role("alert")).to_contain_text("nothing has changed")
    page.close()


def test_overview_is_bounded(client, emulator):
    """The overview has the last 50 requests and the last 50 failed ones, newest first."""
    emulator.fail_next(500, 60)
    for _ in range(120):
        client.add("u1")
    answer = client.control("GET", "overview").json()

    assert [*range(120, 70, -1)] == [request["number"] for request in answer["requests"]]
    assert [*range(60, 10, -1)] == [request["number"] for request in answer["failed"]]
    assert (120, 300, 128_000) == tuple(
        answer[name] for name in ("used", "requests_per_minute", "max_payload_bytes")
    )
