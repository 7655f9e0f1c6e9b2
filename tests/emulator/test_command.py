from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
import time

import pytest
import requests

from target_moengage_cohort.cli.emulator_command import emulator as command
from target_moengage_cohort.emulator import Options, Order

RUN = "from target_moengage_cohort.cli import main; main()"
WITHOUT_EXTRA = "import sys; sys.modules['{}'] = None; " + RUN


@pytest.fixture
def launch():
    """Return a function that starts `moengage-cohort` as a process."""
    processes = []

    def start(*arguments, code=RUN):
        process = subprocess.Popen(
            [sys.executable, "-c", code, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_starts_and_stops(launch, number):
    """It prints its address on loopback, serves the page there, and exits with 0 on a signal."""
    process = launch("emulator", "--port", "0")
    line = process.stdout.readline()
    url = line.split()[-1]
    page = requests.get(url, timeout=10)
    process.send_signal(number)
    out, error = process.communicate(timeout=5)

    assert "browser" in line
    assert url.startswith("http://127.0.0.1:")
    assert (200, "text/html; charset=utf-8") == (page.status_code, page.headers["Content-Type"])
    assert (0, "", "") == (process.returncode, out, error)


def test_ends_with_requests_unanswered(launch, payload):
    """A signal stops it immediately, even while a request is unanswered."""
    process = launch("emulator", "--port", "0", "--workspace-id", "w", "--data-api-key", "k")
    url = process.stdout.readline().split()[-1]
    requests.post(f"{url}/_emulator/faults/latency", json={"seconds": 100}, timeout=10)
    failures = []

    def send():
        try:
            requests.post(
                f"{url}/v1/integrations/cohortsync",
                json=payload("u1"),
                auth=("w", "k"),
                headers={"MOE-APPKEY": "w"},
                timeout=10,
            )
        except requests.ConnectionError as failure:
            failures.append(failure)

    thread = threading.Thread(target=send)
    thread.start()
    while not requests.get(f"{url}/_emulator/cohorts", timeout=10).json()["cohorts"]:
        time.sleep(0.01)
    process.terminate()
    out, error = process.communicate(timeout=5)
    thread.join()

    assert (0, "", "") == (process.returncode, out, error)
    assert 1 == len(failures)


def test_options_reach_it(launch, payload):
    """Order, credentials and limit come from the options."""
    process = launch(
        *("emulator", "--port", "0", "--order", "drop-older", "--requests-per-minute", "3"),
    )
    url = process.stdout.readline().split()[-1]
    answers = [
        requests.post(
            f"{url}/v1/integrations/cohortsync",
            json=payload("u1", timestamp=f"2026-11-22T04:00:0{second}Z"),
            auth=("demo-workspace", "demo-key"),
            headers={"MOE-APPKEY": "demo-workspace"},
            timeout=10,
        ).status_code
        for second in (2, 1, 3, 4)
    ]
    log = requests.get(f"{url}/_emulator/requests", timeout=10).json()["requests"]

    assert [200, 200, 200, 429] == answers
    assert [None, "older", None, None] == [record["dropped"] for record in log]


def test_each_api_may_have_a_key_of_its_own(launch):
    """With a key for the Segments API, it refuses the Data API key."""
    process = launch("emulator", "--port", "0", "--segments-api-key", "own")
    url = process.stdout.readline().split()[-1]
    headers = {"MOE-APPKEY": "demo-workspace", "Content-Type": "application/json"}
    answers = [
        requests.get(
            f"{url}/v3/custom-segments", auth=("demo-workspace", key), headers=headers, timeout=10
        ).status_code
        for key in ("demo-key", "own")
    ]
    assert [403, 200] == answers


@pytest.mark.parametrize("module", ["starlette", "uvicorn"])
def test_without_extra(launch, module):
    """Without the extra it prints in one line how to install it, and exits with 1."""
    process = launch("emulator", "--port", "0", code=WITHOUT_EXTRA.format(module))
    out, error = process.communicate(timeout=10)

    assert (1, "") == (process.returncode, out)
    assert 1 == len(error.splitlines())
    assert "pip install 'target-moengage-cohort[emulator]'" in error


def test_port_in_use(launch):
    """A port in use is a one-line error with exit code 1."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        process = launch("emulator", "--port", str(port))
        out, error = process.communicate(timeout=10)

    assert (1, "", 1) == (process.returncode, out, len(error.splitlines()))
    assert f"cannot listen on 127.0.0.1 port {port}" in error


def test_help(launch):
    """The help names the default credentials."""
    out, _ = launch("emulator", "--help").communicate(timeout=10)

    words = "".join(out.split())  # lines break at hyphens
    assert "[default:demo-workspace]" in words
    assert "[default:demo-key]" in words


def test_defaults_agree():
    """The command has the choices and defaults of the emulator's options."""
    options = Options()
    defaults = {option.name: option.default for option in command.params}
    (order,) = (option for option in command.params if option.name == "order")

    assert [order.value for order in Order] == list(order.type.choices)
    assert {
        "workspace_id": options.workspace_id,
        "data_api_key": options.data_api_key,
        "order": options.order.value,
        "requests_per_minute": options.requests_per_minute,
    } == {
        name: defaults[name]
        for name in ("workspace_id", "data_api_key", "order", "requests_per_minute")
    }
