"""BATCH files of the real tap-postgres, in a real pipe into the target."""

import json
from pathlib import Path

import pytest

from target_moengage_cohort.emulator import Emulator
from tests.meltano.taps import STREAM, Pipe
from tests.support.postgres import Postgres

USERS = 250
BATCH_SIZE = 100  # so that there are three files
TABLE = f"""
create table users as
select id, id % 5 > 0 as vip, timestamptz '2026-01-01' + id * interval '1 second' as updated_at
from generate_series(1, {USERS}) id;
create view vip as
select 'ü' || id as uid, id::bigint as number, vip as is_member, updated_at,
       count(*) over () as row_count
from users
"""
GONE = 15
ENCODINGS = {
    "jsonl": {"format": "jsonl", "compression": "gzip"},
    "parquet": {"format": "parquet", "compression": "gzip"},
    "parquet uncompressed": {"format": "parquet", "compression": "none"},
}
PIPE = (
    "tap-postgres --config tap.json --catalog catalog.json {state} | tee messages "
    "| target-moengage-cohort --config target.json"
)


@pytest.fixture(params=ENCODINGS.values(), ids=ENCODINGS)
def pipe(tmp_path: Path, postgres: Postgres, moengage: Emulator, request) -> Pipe:
    """A pipe whose tap writes files of one encoding into a folder `batches`."""
    made = Pipe(tmp_path, postgres, moengage)
    tap = json.loads((tmp_path / "tap.json").read_text())
    storage = {"root": f"file://{tmp_path / 'batches'}", "prefix": "vip-"}
    config = {"encoding": request.param, "storage": storage, "batch_size": BATCH_SIZE}
    made.write("tap.json", tap | {"batch_config": config})
    fill(postgres)
    return made


def fill(postgres: Postgres) -> None:
    for statement in TABLE.split(";"):
        postgres.execute(statement)


@pytest.fixture(scope="module")
def streams(server: Postgres, tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    """The streams of TABLE, discovered once."""
    postgres = server.new_database("discovered")
    fill(postgres)
    with Emulator() as moengage:
        return Pipe(tmp_path_factory.mktemp("discovered"), postgres, moengage).discover()


def sync(pipe: Pipe, state: str = "") -> list[dict]:
    """Run the pipe, and return its STATE messages."""
    done = pipe.bash(PIPE.format(state=state))
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def kinds(pipe: Pipe) -> list[str]:
    """Return the types of the tap's latest messages."""
    messages = (pipe.folder / "messages").read_text().splitlines()
    return [json.loads(message)["type"] for message in messages]


def cohort(pipe: Pipe) -> dict:
    (one,) = json.loads(pipe.report.read_text())["cohorts"]
    return one


def vips(postgres: Postgres) -> set[str]:
    return {uid for (uid,) in postgres.query("select uid from vip where is_member")}


def members(moengage: Emulator) -> set[str | None]:
    return {member.uid for member in moengage.members("vip")}


def test_an_incremental_stream_in_files(
    postgres: Postgres, moengage: Emulator, pipe: Pipe, streams: list[dict]
) -> None:
    """All rows of the tap's files arrive, STATE follows, and the next run resumes from there."""
    pipe.configure(membership_column="is_member")
    pipe.select(streams, replication_method="INCREMENTAL", replication_key="updated_at")
    state = sync(pipe)[-1]
    assert (3, 0) == (kinds(pipe).count("BATCH"), kinds(pipe).count("RECORD"))
    assert USERS == cohort(pipe)["records"]
    assert vips(postgres) == members(moengage)
    assert state["bookmarks"][STREAM]["replication_key_value"].startswith("2026-01-01T00:04:10")
    assert 3 == len(list((pipe.folder / "batches").iterdir()))

    postgres.execute("update users set vip = not vip, updated_at = '2026-01-02' where id <= 10")
    pipe.write("state.json", state)
    sync(pipe, "--state state.json")
    at_the_bookmark = 1
    assert 10 + at_the_bookmark == cohort(pipe)["records"]
    assert vips(postgres) == members(moengage)


def test_a_mirror_in_files(
    postgres: Postgres, moengage: Emulator, pipe: Pipe, streams: list[dict]
) -> None:
    """A mirror of the tap's files, proven complete by the count in their rows, removes missing
    members. The identifier may be a column of integers."""
    pipe.configure(
        sync_mode="mirror",
        uid_column="number",
        expected_count_column="row_count",
        max_removal_percent=100,
    )
    pipe.select(streams, replication_method="FULL_TABLE")
    sync(pipe)
    assert {str(number) for number in range(1, USERS + 1)} == members(moengage)

    postgres.execute(f"delete from users where id <= {GONE}")
    sync(pipe)
    assert ("count", GONE) == (cohort(pipe)["complete"], cohort(pipe)["removed"])
    assert "RECORD" not in kinds(pipe)
    assert {str(number) for number in range(GONE + 1, USERS + 1)} == members(moengage)


def test_a_mirror_whose_file_is_gone_removes_nobody(
    postgres: Postgres, moengage: Emulator, pipe: Pipe, streams: list[dict]
) -> None:
    """If a file is deleted before the target reads it, the run fails and removes no members."""
    pipe.configure(sync_mode="mirror", max_removal_percent=100)
    pipe.select(streams, replication_method="FULL_TABLE")
    sync(pipe)
    everybody = members(moengage)
    assert USERS == len(everybody)

    postgres.execute(f"delete from users where id <= {GONE}")
    done = pipe.bash("tap-postgres --config tap.json --catalog catalog.json > messages")
    assert done.returncode == 0, done.stderr
    newest = max((pipe.folder / "batches").iterdir(), key=lambda path: path.stat().st_mtime_ns)
    newest.unlink()
    failed = pipe.bash("target-moengage-cohort --config target.json < messages")
    assert 1 == failed.returncode
    assert newest.name in failed.stderr
    assert "" == failed.stdout
    assert everybody == members(moengage)
