"""Faults from the emulator's page, by the keyboard, and from nobody else's page."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from playwright.sync_api import expect

from tests.emulator.conftest import rows

FORM = {
    "status": ("Answer with an error", {"Status": "429", "Retry-After": "3", "Number": "2"}),
    "before": ("Reset the connection before", {"Number": "2", "cohort ID": "vip"}),
    "after": ("Reset the connection after", {}),
    "share": ("Fail a share", {"Percent": "12.5"}),
    "latency": ("Delay all answers", {"Seconds": "0.5"}),
    "poison": ("Refuse requests with certain members", {"Member IDs": "u-1\nu 2\n"}),
    "hold": ("Hold back all answers", {}),
}
SHOWN = {
    "status": "Next 2 requests: answer 429",
    "before": "Next 2 requests of cohort vip: connection reset, nothing applied",
    "after": "Next 1 request: connection reset after the change",
    "share": "12.5% of requests: answer 500, 502, 503, 504",
    "latency": "Answers are delayed by 0.5 s",
    "poison": "Requests that list 2 poison members: answer 400",
    "hold": "All answers are held back",
}
FOREIGN = """async (emulator) => {
    const send = (path, method, body) => fetch(`${emulator}/_emulator/${path}`, {
        method, body, mode: method === "DELETE" ? "cors" : "no-cors",
    }).catch(() => {});
    await send("faults/status", "POST", '{"status": 500}');
    await send("faults/hold", "POST", '{"held": true}');
    await send("reset", "POST");
    await send("faults", "DELETE");
    const frame = Object.assign(document.createElement("iframe"), { name: "frame" });
    document.body.append(frame);
    const form = document.body.appendChild(document.createElement("form"));
    Object.assign(form, { action: `${emulator}/_emulator/reset`, method: "post", target: "frame" });
    const loaded = () => new Promise((done) => {
        frame.addEventListener("load", done, { once: true });
    });
    form.submit();
    await loaded();
    frame.src = emulator;
    await loaded();
}"""


def inject(page, kind):
    """Fill in the form by its labels and submit it with the Enter key."""
    choice, fields = FORM[kind]
    page.get_by_text("Inject a fault").press("Enter")
    page.get_by_label("Fault", exact=True).press_sequentially(choice)
    for label, value in fields.items():
        page.locator("label:visible", has_text=label).locator("input, textarea").fill(value)
    page.get_by_role("button", name="Inject").press("Enter")


@pytest.mark.parametrize("kind", FORM)
def test_injects_each_fault(page, kind):
    """Each kind of fault is injected from the page by the keyboard alone, shown, and cleared."""
    inject(page, kind)

    expect(page.get_by_role("listitem")).to_have_text([SHOWN[kind]])
    page.get_by_role("button", name="Clear all faults").press("Enter")
    expect(page.get_by_role("list", name="Active faults")).to_be_hidden()
    expect(page.locator("summary")).to_be_focused()


def test_an_injected_fault_has_its_effect(client, page):
    """The next request gets the status and the header that were entered."""
    inject(page, "status")
    expect(page.get_by_role("listitem")).to_have_count(1)
    answer = client.add("u1")

    assert (429, "3") == (answer.status_code, answer.headers["Retry-After"])


def test_keeps_no_identifier(client, page):
    """Identifiers entered as poison are neither kept in the form nor shown."""
    inject(page, "poison")
    expect(page.get_by_role("listitem")).to_have_count(1)

    expect(page.get_by_label("Member IDs")).to_have_value("")
    assert 400 == client.add("u 2").status_code
    expect(rows(page, "Refused or not applied")).to_have_count(1)
    assert "u 2" not in page.content()


def test_only_valid_faults(page, emulator):
    """A status that no error has is refused before it is sent."""
    page.get_by_text("Inject a fault").click()
    page.get_by_label("Status").fill("200")
    page.get_by_role("button", name="Inject").click()

    assert page.get_by_label("Status").evaluate("field => !field.validity.valid")
    assert [] == emulator.state.faults().scripted


@pytest.fixture
def foreign_site():
    """Serve a page of another origin and return its address."""

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b"<!doctype html><link rel=icon href=data:,>")

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_foreign_pages_inject_nothing(browser, client, emulator, foreign_site):
    """Another site's page in the same browser can neither inject or clear faults nor reset, by
    script or by form, nor frame the page to have its buttons clicked."""
    client.add("u1")
    emulator.latency(0.0)
    page = browser.new_page()
    page.set_default_timeout(5_000)
    statuses = {}
    page.on("response", lambda answer: statuses.setdefault(answer.url, answer.status))
    page.goto(foreign_site)
    page.evaluate(FOREIGN, emulator.url)

    faults = emulator.state.faults()
    assert ([], False, True) == (faults.scripted, faults.held, faults.latency is not None)
    assert {("u1", None)} == emulator.members("vip")
    for path in ("faults/status", "faults/hold", "reset"):
        assert 403 == statuses[f"{emulator.url}/_emulator/{path}"]
    assert 0 == page.frame_locator("iframe").locator("#inject").count()
    page.close()
