"""The recipes of docs/examples: stream maps, and batch files here and in an object store."""

from __future__ import annotations

import hashlib
import json
import typing as t

import pytest

from target_moengage_cohort.emulator import Emulator
from tests.examples.conftest import EXAMPLES
from tests.support.objects import object_store
from tests.support.processes import run_guarded
from tests.support.project import plain_environment, program

if t.TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SECONDS = 60
BUCKET = "acme-batches"


@pytest.fixture
def moengage() -> Iterator[Emulator]:
    with Emulator(workspace_id="your-workspace-id", data_api_key="your-key") as running:
        yield running


def settings(example: str, name: str, **more: t.Any) -> dict[str, t.Any]:
    return json.loads((EXAMPLES / example / name).read_text()) | more


def test_stream_maps(tmp_path, moengage):
    """The map renames the stream, hashes the normalized address, computes membership and drops rows
    without an address."""
    target = settings("stream_maps", "target.json", api_url=moengage.url)
    (tmp_path / "target.json").write_text(json.dumps(target))
    rows = EXAMPLES / "stream_maps" / "contacts.singer"
    done = run_guarded(
        ["bash", "-c", f'{program("target-moengage-cohort")} --config target.json < "{rows}"'],
        cwd=tmp_path,
        env=plain_environment(tmp_path / "home"),
        timeout=SECONDS,
    )
    assert 0 == done.returncode, done.stderr
    addresses = ("ada@example.com", "bob@example.com")
    hashes = {hashlib.sha256(address.encode()).hexdigest() for address in addresses}
    assert hashes == {member.uid for member in moengage.members("gold")}
    assert 4 == sum(request.members for request in moengage.requests() if request.members)


def batch_files(newcomer, folder: Path) -> None:
    """Let the tap write its batch files into a directory."""
    tap = settings("batch", "tap.json", **newcomer.tap)
    tap["batch_config"]["storage"]["root"] = folder.as_uri()
    newcomer.write("tap.json", tap)
    newcomer.write("target.json", settings("batch", "target.json", api_url=newcomer.moengage.url))
    tap_command = "tap-postgres --config tap.json --catalog catalog.json"
    newcomer.run(f"{tap_command} > messages; grep -q BATCH messages; ! grep -q RECORD messages")


def test_batch_files(newcomer, tmp_path):
    """A mirror reads the Parquet files that the real tap has written."""
    batch_files(newcomer, tmp_path / "batches")
    newcomer.run("target-moengage-cohort --config target.json < messages")
    assert newcomer.wanted("newsletter") == newcomer.accepted("newsletter")


def test_batch_files_on_s3(newcomer, tmp_path):
    """With the other configuration in addition, the same files are read from an S3 bucket."""
    batch_files(newcomer, tmp_path / "batches")
    newcomer.write("on-s3.json", settings("batch", "on-s3.json"))
    with object_store(BUCKET) as store:
        for path in (tmp_path / "batches").iterdir():
            store.files.put(str(path), f"{BUCKET}/cohorts/{path.name}")
            path.unlink()
        newcomer.environment |= store.variables | {"NO_PROXY": "127.0.0.1"}
        newcomer.run("target-moengage-cohort --config target.json --config on-s3.json < messages")
    assert newcomer.wanted("newsletter") == newcomer.accepted("newsletter")
