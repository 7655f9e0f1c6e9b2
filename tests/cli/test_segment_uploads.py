"""File segments through an object store: a real S3 server on loopback, which signs addresses."""

import json
import os
import subprocess
import sys

import pytest

from target_moengage_cohort.core.membership import Cohort, Member
from tests.support.objects import SECRET, object_store
from tests.support.project import program
from tests.support.servers import free_port
from tests.support.singer import environment

BUCKET = "acme-segments"
MEMBERS = int(os.environ.get("SEGMENT_MEMBERS", "1_000_000"))
MOST_MEGABYTES = 350  # mostly DuckDB's, which has a limit of its own
MOST_MEGABYTES_OF_A_CSV = 150


@pytest.fixture
def store():
    with object_store(BUCKET) as running:
        yield running


def uid(number):
    return f"{number:08x}-5d0c-4c1b-9c2e-0242ac120002"


def adopt(desk, count):
    """Record so many members as accepted."""
    chunks = (
        [Member(uid(number)) for number in range(first, min(first + 50_000, count))]
        for first in range(0, count, 50_000)
    )
    with desk.ledgers() as ledgers:
        ledgers.open(Cohort("vip", "VIP users"), "users").adopt(chunks)


_MEASURED = """
import atexit, os, re, resource, sys
from pathlib import Path
from target_moengage_cohort.cli import main

def peak():
    if sys.platform == "linux":  # where ru_maxrss counts the memory of the process that started it
        text = re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]
    else:
        text = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1_024
    Path(os.environ["PEAK"]).write_text(str(text))

atexit.register(peak)
main()
"""


def run(desk, variables, *words):
    """Run a command in a process of its own; return its exit code, output and peak memory in MB."""
    (desk.folder / "config.json").write_text(json.dumps(desk.raw))
    peak = desk.folder / "peak"
    config = ("--json", "--config", str(desk.folder / "config.json"))
    done = subprocess.run(
        [sys.executable, "-c", _MEASURED, "segments", "file", *words, *config],
        env=environment(desk.folder / "home", **variables, PEAK=str(peak)),
        capture_output=True,
        check=False,
        text=True,
        timeout=300,
    )
    desk.output += done.stdout + done.stderr
    return done.returncode, done.stdout, int(peak.read_text()) // 1_000


def test_a_cohort_of_a_million_becomes_a_segment(desk, store):
    """A million accepted members are put into a store within bounded memory, fetched by the signed
    address, and matched; the object is deleted after the callback."""
    variables, files = store.variables, store.files
    desk.raw["id_attribute"] = "uid"
    adopt(desk, MEMBERS)
    desk.emulator.apis.know(map(uid, range(MEMBERS // 2)))
    port = free_port()
    code, output, megabytes = run(
        *(desk, variables, "create", "VIP copy", "--expiry-days", "30", "--cohort", "vip"),
        *("--upload", f"s3://{BUCKET}/segments", "--wait", "2"),
        *("--callback-url", f"http://127.0.0.1:{port}/moengage"),
        *("--callback-listen", f"127.0.0.1:{port}"),
    )
    assert 0 == code, desk.output
    (file,) = json.loads(output)["files"]
    numbers = (file["users"], file["found"], file["processed"], file["matched"])
    assert (MEMBERS, MEMBERS, MEMBERS, MEMBERS // 2) == numbers
    assert ("processed", True) == (file["state"], file["deleted"])
    assert [] == files.find(BUCKET)
    assert megabytes < MOST_MEGABYTES
    (segment,) = [each for each in desk.emulator.apis.segments() if each.kind == "file"]
    assert MEMBERS // 2 == segment.users


def test_a_csv_of_a_million_takes_little_memory(desk, store):
    """A CSV is checked and uploaded without holding its values in memory."""
    desk.raw["id_attribute"] = "uid"
    path = desk.folder / "users.csv"
    path.write_text("".join(f"{uid(number)}\n" for number in range(MEMBERS)))
    code, output, megabytes = run(
        *(desk, store.variables, "create", "Users", "--expiry-days", "30", "--csv", str(path)),
        *("--upload", f"s3://{BUCKET}/segments"),
    )
    assert (0, MEMBERS) == (code, json.loads(output)["files"][0]["users"]), desk.output
    assert megabytes < MOST_MEGABYTES_OF_A_CSV


def test_an_object_stays_until_it_is_discarded(desk, store):
    """Without --wait the object is there for MoEngage, by a signed address, until
    it is discarded by its name. Neither its address nor a key is in any output."""
    variables, files = store.variables, store.files
    desk.raw["id_attribute"] = "uid"
    adopt(desk, 3)
    folder = f"s3://{BUCKET}/segments"
    code, output, _ = run(
        *(desk, variables, "create", "VIP copy", "--expiry-days", "1", "--cohort", "vip"),
        *("--upload", folder),
    )
    assert 0 == code, desk.output
    name = json.loads(output)["files"][0]["name"]
    assert [f"{BUCKET}/segments/{name}"] == files.find(BUCKET)
    segments = desk.emulator.apis.segments
    assert desk.emulator.apis.wait_until(lambda: segments()[-1].users == 3, timeout=30)
    words = ("segments", "file", "discard", name, "--upload", folder)
    done = subprocess.run(
        [program("moengage-cohort"), *words, "--config", str(desk.folder / "config.json")],
        env=environment(desk.folder / "home", **variables),
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert 0 == done.returncode, done.stderr
    assert [] == files.find(BUCKET)
    desk.output += done.stdout + done.stderr
    for secret in ("Signature", SECRET):
        assert secret not in desk.output
