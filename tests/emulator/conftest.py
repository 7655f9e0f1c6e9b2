from __future__ import annotations

import contextlib
import json

import pytest
import requests
from playwright.sync_api import expect

from target_moengage_cohort.emulator import Emulator, ManualClock
from tests.support.browser import open_browser

COHORTSYNC = "/v1/integrations/cohortsync"


class Client:
    """A client of an emulator over one connection."""

    def __init__(self, emulator):
        self.emulator = emulator
        self.session = requests.Session()
        self.session.trust_env = False

    def post(self, data, *, path=COHORTSYNC, auth="right", headers=None):
        workspace = self.emulator.workspace_id
        return self.session.post(
            self.emulator.url + path,
            data=data if isinstance(data, bytes) else json.dumps(data),
            auth=(workspace, self.emulator.data_api_key) if auth == "right" else auth,
            headers={"MOE-APPKEY": workspace, "Content-Type": "application/json"} | (headers or {}),
            timeout=10,
        )

    def sync(self, *uids, action="add_members", timestamp=None, **parameters):
        return self.post(payload(*uids, action=action, timestamp=timestamp, **parameters))

    def add(self, *uids, **fields):
        return self.sync(*uids, **fields)

    def remove(self, *uids, **fields):
        return self.sync(*uids, action="remove_members", **fields)

    def control(self, method, path, **fields):
        return self.session.request(method, f"{self.emulator.url}/_emulator/{path}", **fields)


def payload(*uids, action="add_members", timestamp=None, partner="acme", **parameters):
    members = [{"uid": uid} if isinstance(uid, str) else uid for uid in uids]
    parameters = {
        "cohort_name": "VIP " + parameters.get("cohort_id", ""),
        "cohort_id": "vip",
        "members": members,
    } | parameters
    whole = {"action": action, "partner": partner, "parameters": parameters}
    return whole | ({"timestamp": timestamp} if timestamp else {})


@pytest.fixture(scope="session", name="payload")
def payload_fixture():
    return payload


@pytest.fixture(scope="session")
def shared_emulator():
    with Emulator(clock=ManualClock()) as emulator:
        yield emulator


@pytest.fixture
def emulator(shared_emulator):
    shared_emulator.reset()
    return shared_emulator


@pytest.fixture
def client(emulator):
    client = Client(emulator)
    with client.session:
        yield client


@pytest.fixture
def start():
    """Return a function that starts an emulator with options and returns a client."""
    with contextlib.ExitStack() as stack:
        yield lambda **options: Client(stack.enter_context(Emulator(**options)))


@pytest.fixture(scope="module")  # one process cannot have two browsers
def browser(tmp_path_factory):
    """Yield a real browser with a profile of its own."""
    with open_browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture
def page(browser, emulator):
    """Open the page; check at the end that it had no errors and contacted only the emulator."""
    page = browser.new_page()
    page.set_default_timeout(5_000)
    errors, requested = [], set()
    page.on("console", lambda message: errors.append(message.text))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("request", lambda request: requested.add(request.url.partition("?")[0]))
    page.goto(emulator.url)
    expect(page.get_by_role("status")).to_have_text("Live")
    yield page
    page.close()
    assert [] == errors
    paths = {url.removeprefix(emulator.url) for url in requested if not url.startswith("data:")}
    others = paths - {"/", "/_emulator/overview"}
    assert [] == [path for path in others if not path.startswith("/_emulator/faults")]


def rows(page, title):
    """Return the rows of a table by its title, without the head."""
    return page.get_by_role("table", name=title).locator("tbody").get_by_role("row")
