"""`moengage-cohort verify`, stopped by a signal while MoEngage owes it an answer."""

import json
import signal
import subprocess
import time

import pytest

from target_moengage_cohort.emulator import Emulator
from target_moengage_cohort.emulator.faults import Latency
from tests.cli.conftest import Desk, people
from tests.support.project import program
from tests.support.singer import UNLIMITED, environment

HANGING = {  # what does not come: the first answer, or the result of a query
    "answer": {"after": "list", "latency": 3_600, "query_seconds": 0},
    "result": {"after": "status", "latency": 0, "query_seconds": 3_600},
}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("hanging", HANGING.values(), ids=HANGING)
def test_a_signal_ends_verify(tmp_path, hanging, number):
    """While an answer hangs, the first signal ends the command within seconds, with the signal's
    exit code; the report is whole and says that all is unknown, and the next command has the
    stream's lease."""
    options = {"query_seconds": hanging["query_seconds"]}
    with Emulator(requests_per_minute=UNLIMITED, **options) as emulator:
        desk = Desk(emulator, tmp_path)
        desk.raw |= {"id_attribute": "uid", "request_timeout_seconds": 60}
        for name in ("a", "b"):
            desk.fill(name, people(1, 2))
        latency = Latency(hanging["latency"], None)
        emulator.apis.change_faults(lambda faults: faults.slow_down(latency))
        (tmp_path / "config.json").write_text(json.dumps(desk.raw))
        (tmp_path / "report.json").write_text("old")
        before = {*tmp_path.iterdir()}
        process = subprocess.Popen(
            [
                *(program("moengage-cohort"), "verify", "--json", "--wait", "60"),
                *("--report", str(tmp_path / "report.json")),
                *("--config", str(tmp_path / "config.json")),
            ],
            env=environment(tmp_path / "home"),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        asked = hanging["after"]
        assert emulator.apis.wait_until(
            lambda: any(each.endpoint == asked for each in emulator.apis.calls()), timeout=60
        )
        began = time.monotonic()
        process.send_signal(number)
        output, errors = process.communicate(timeout=60)
        assert time.monotonic() - began < 15
        assert 128 + number == process.returncode
        results = json.loads((tmp_path / "report.json").read_text())
        assert results == json.loads(output)
        found = {(each["cohort_id"], each["status"], each["unknown"]["code"]) for each in results}
        assert {("a", "unknown", "interrupted"), ("b", "unknown", "interrupted")} == found
        assert before == {*tmp_path.iterdir()} - {tmp_path / "home"}
        assert "Traceback" not in errors
        emulator.apis.change_faults(lambda faults: faults.clear())
        assert (2, 0) == desk.counts("a")
