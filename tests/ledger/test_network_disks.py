"""A store on a network file system: no write-ahead log, and one host at a time.

Linux says so in a file of each process, which a mount of the process's own replaces.
"""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.ledger.support import ROOT, place_of

UNSHARE = ["unshare", "-mu"] if os.getuid() == 0 else ["unshare", "-rmu"]
NFS = "1 0 0:1 / / rw - nfs4 server:/export rw\n"
RUN = """
import json, sys, time
from pathlib import Path
from target_moengage_cohort.core.errors import TargetError
from target_moengage_cohort.delivery.pace import Pace
from tests.ledger.support import *
folder, what = Path(sys.argv[1]), sys.argv[2]
told = {}
try:
    with ledgers(folder, read_only=what == "look", busy_seconds=5, wait=time.sleep) as store:
        if what == "accept":
            store.accept_older()
        elif what == "look":
            told["accepted"] = sum(entry.counts.accepted.count for entry in store.entries())
        else:
            ledger = store.open(COHORT, STREAM)
            accept(ledger, ADD, members(sys.argv[3]))
            ledger.stream.fold()
            if what == "hold":
                print("held", flush=True)
                sys.stdin.readline()
            told["uids"] = uids(ledger.members())
    pace = Pace(settings(folder, requests_per_minute=3), time.sleep, folder)
    pace.acquire()
    pace.close()
except TargetError as error:
    told |= {"code": error.code, "text": str(error)}
print(json.dumps(told))
"""


def on(host: str, tmp_path: Path, *arguments: str) -> subprocess.Popen:
    """Start a process on a host with a name, for which all of its disks are on NFS."""
    mounts = tmp_path / "mountinfo"
    mounts.write_text(NFS)
    script = (
        f"mount --bind {shlex.quote(str(mounts))} /proc/$$/mountinfo && hostname {host} && "
        f"exec {shlex.join([sys.executable, '-c', RUN, str(tmp_path / 'ledger'), *arguments])}"
    )
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    return subprocess.Popen([*UNSHARE, "sh", "-c", script], text=True, cwd=ROOT, **pipes)


def told(process: subprocess.Popen) -> dict:
    """Return what a process said at its end."""
    output, errors = process.communicate(timeout=60)
    assert 0 == process.returncode, errors
    return json.loads(output.splitlines()[-1])


@pytest.fixture(autouse=True)
def possible():
    try:
        subprocess.run(
            [*UNSHARE, "sh", "-c", "mount --bind /etc/hosts /proc/$$/mountinfo && hostname x"],
            check=True,
            capture_output=True,
        )
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("processes cannot have mounts and a host's name of their own here")


def test_there_is_no_write_ahead_log(tmp_path):
    """On a network file system neither control nor the rate limit's file has a log that needs
    shared memory; runs and looks follow each other as on a local disk."""
    (tmp_path / "ledger").mkdir()
    assert ["1"] == told(on("a", tmp_path, "run", "1"))["uids"]
    assert ["1", "2"] == told(on("b", tmp_path, "run", "2"))["uids"]
    assert {"accepted": 2} == told(on("c", tmp_path, "look"))
    databases = [place_of(tmp_path / "ledger") / "control.sqlite", *tmp_path.rglob("pace-*3")]
    assert 2 == len(databases)
    # The two bytes are 2 for a file in write-ahead mode.
    assert [b"\1\1", b"\1\1"] == [path.read_bytes()[18:20] for path in databases]
    assert [] == [*tmp_path.rglob("*-wal"), *tmp_path.rglob("*-shm")]


@pytest.mark.parametrize("end", ["closed", "killed"])
def test_a_second_host_is_refused(tmp_path, end):
    """While a host has the store open, another one is refused by name, but may look. It is free
    when it was closed; after a crash another host needs a person's word."""
    (tmp_path / "ledger").mkdir()
    first = on("first", tmp_path, "hold", "1")
    assert "held\n" == first.stdout.readline()
    refused = told(on("second", tmp_path, "run", "2"))
    assert "ledger_on_network_disk" == refused["code"]
    assert all(word in refused["text"] for word in ("'first'", "postgresql://", "accept-older"))
    assert {"accepted": 1} == told(on("second", tmp_path, "look"))
    if end == "closed":
        first.stdin.write("\n")
        assert ["1"] == told(first)["uids"]
    else:
        first.kill()
        first.communicate()
        assert refused == told(on("second", tmp_path, "run", "2"))
        assert {} == told(on("second", tmp_path, "accept"))
    assert ["1", "2"] == told(on("second", tmp_path, "run", "2"))["uids"]


def test_the_host_of_a_run_that_died_goes_on(tmp_path):
    """After a crash the next run on the same host needs nobody's word."""
    (tmp_path / "ledger").mkdir()
    first = on("first", tmp_path, "hold", "1")
    assert "held\n" == first.stdout.readline()
    first.kill()
    first.communicate()
    assert ["1", "2"] == told(on("first", tmp_path, "run", "2"))["uids"]
