"""File segments through an object store: a real S3 server on loopback, which signs addresses."""

import json
import os
import subprocess

import pytest

from target_moengage_cohort.core.membership import Cohort, Member
from tests.support.objects import SECRET, object_store
from tests.support.peak import measured
from tests.support.project import program
from tests.support.servers import free_port
from tests.support.singer import environment

BUCKET = "acme-segments"
CREATE = ("segments", "file", "create")
MEMBERS = int(os.environ.get("SEGMENT_MEMBERS", "100_000"))
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


def test_a_large_cohort_becomes_a_segment(desk, store):
    """Many accepted members are put into a store within bounded memory, fetched by the signed
    address, and matched; the object is deleted after the callback."""
    variables, files = store.variables, store.files
    desk.raw["id_attribute"] = "uid"
    adopt(desk, MEMBERS)
    desk.emulator.apis.know(map(uid, range(MEMBERS // 2)))
    port = free_port()
    code, output, megabytes = measured(
        *(desk, *CREATE, "VIP copy", "--expiry-days", "30", "--cohort", "vip"),
        *("--upload", f"s3://{BUCKET}/segments", "--wait", "2"),
        *("--callback-url", f"http://127.0.0.1:{port}/moengage"),
        *("--callback-listen", f"127.0.0.1:{port}"),
        **variables,
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


def test_a_large_csv_takes_little_memory(desk, store):
    """A CSV is checked and uploaded without holding its values in memory."""
    desk.raw["id_attribute"] = "uid"
    path = desk.folder / "users.csv"
    path.write_text("".join(f"{uid(number)}\n" for number in range(MEMBERS)))
    code, output, megabytes = measured(
        *(desk, *CREATE, "Users", "--expiry-days", "30", "--csv", str(path)),
        *("--upload", f"s3://{BUCKET}/segments"),
        **store.variables,
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
    code, output, _ = measured(
        *(desk, *CREATE, "VIP copy", "--expiry-days", "1", "--cohort", "vip"),
        *("--upload", folder),
        **variables,
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
