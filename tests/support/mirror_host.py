"""A host whose runs mirror a stream, with a ledger on a server."""

import contextlib
import csv
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

from tests.support.look import held, members
from tests.support.project import program
from tests.support.singer import config, environment, finish, lines, record, schema, state


def people(*numbers):
    return [f"user-{number:04}" for number in numbers]


class MirrorHost:
    """A host with one state directory, whose runs mirror a stream into the cohort `users`."""

    def __init__(self, emulator, folder, uri, payload=1_000):
        self._emulator, self._folder = emulator, folder
        self._report = folder / "report.json"
        mirror = {"sync_mode": "mirror", "max_removal_percent": 100, "max_payload_bytes": payload}
        mirror["cohorts"] = {"users": {"expected_count_column": "n"}}
        settings = config(emulator, ledger_uri=uri, report_path=str(self._report), **mirror)
        (folder / "config.json").write_text(json.dumps(settings))

    def start(self, script="from target_moengage_cohort.__main__ import main; main()"):
        return subprocess.Popen(
            [sys.executable, "-c", script, "--config", str(self._folder / "config.json")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(self._folder),
        )

    def run(self, uids, **options):
        """Mirror members; return the code of the error, if any, and the number of requests."""
        before = len(self._emulator.requests())
        return self.end(self.start(**options), uids, before)

    def end(self, process, uids, before):
        rows = [record(uid=uid, n=len(uids)) for uid in uids]
        data = lines(schema(columns=("uid", "n")), *rows, state({"rows": len(uids)}))
        done = finish(process, data, timeout=120)
        assert "Traceback" not in done.stderr
        error = json.loads(self._report.read_text())["error"]
        assert (error is None) == (done.code == 0) == bool(done.states), done.stderr
        return error and error["code"], len(self._emulator.requests()) - before

    def command(self, *arguments):
        """Execute `moengage-cohort`; return its exit code and what it printed."""
        done = subprocess.run(
            [program("moengage-cohort"), *arguments, "--config", str(self._folder / "config.json")],
            env=environment(self._folder),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert "Traceback" not in done.stderr
        return done.returncode, done.stdout + done.stderr

    def repair(self, uids):
        """Do what the documentation says of a ledger that is older, given who may be a member."""
        path = self._folder / "members.csv"
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([["uid"], *([uid] for uid in uids)])
        for arguments in (
            ("ledger", "accept-older"),
            ("adopt", "users", "--csv", str(path)),
            ("resync", "--yes"),
        ):
            code, text = self.command(*arguments)
            assert 0 == code, text


@contextlib.contextmanager
def under_way(emulator, host, uids):
    """Yield the end of a run, which has a request under way until this context ends."""
    before = len(emulator.requests())
    emulator.hold()
    with ThreadPoolExecutor(1) as pool:
        ending = pool.submit(host.end, host.start(), uids, before)
        try:
            emulator.wait_until(lambda totals: totals.requests > before, 60.0)
            yield ending
        finally:
            emulator.release()


def assert_converges(emulator, uri, host, uids):
    """Check that a run makes the cohort and the ledger right, and the next one sends nothing."""
    assert host.run(uids)[0] is None
    assert (None, 0) == host.run(uids)
    assert {*uids} == members(emulator, "users") == held(emulator, uri)["users"].accepted
