"""A plain Unix pipe, without Meltano; and `moengage-cohort run`, which starts the tap itself."""

import json
import subprocess
from pathlib import Path

import pytest

from target_moengage_cohort.emulator import Emulator
from tests.meltano.taps import STREAM, MortalTap, Pipe
from tests.support.postgres import Postgres

USERS = 200
TABLE = """
create view vip as
select 'u' || id as uid, 100 / (id - {bad}) as score,
       timestamptz '2026-01-01' + id * interval '1 second' as updated_at
from generate_series(1, {users}) id
"""
SMALL_TABLE = """
create table users as select id from generate_series(1, 100) id;
create view vip as select 'u' || id as uid from users order by id
"""
GONE = 15
INCREMENTAL = {"replication_method": "INCREMENTAL", "replication_key": "updated_at"}


@pytest.fixture
def pipe(tmp_path: Path, postgres: Postgres, moengage: Emulator) -> Pipe:
    return Pipe(tmp_path, postgres, moengage)


def run(pipe: Pipe, state: str = "") -> subprocess.CompletedProcess:
    return pipe.bash(
        f"tap-postgres --config tap.json --catalog catalog.json {state} "
        "| target-moengage-cohort --config target.json"
    )


def test_a_pipe_delivers_and_its_state_starts_the_next_run(
    postgres: Postgres, moengage: Emulator, pipe: Pipe
) -> None:
    """A pipe delivers all members, and its last line is the state for the next run."""
    postgres.execute(TABLE.format(users=USERS, bad=0))
    pipe.select(pipe.discover(), **INCREMENTAL)
    done = run(pipe)
    assert done.returncode == 0, done.stderr
    assert {m.uid for m in moengage.members("vip")} == {f"u{n}" for n in range(1, USERS + 1)}

    state = json.loads(done.stdout.splitlines()[-1])
    assert state["bookmarks"][STREAM]["replication_key_value"].startswith("2026-01-01T00:03:20")
    pipe.write("state.json", state)
    moengage.reset()
    again = run(pipe, "--state state.json")
    assert again.returncode == 0, again.stderr
    assert {m.uid for m in moengage.members("vip")} == {f"u{USERS}"}


def test_a_pipe_fails_when_the_tap_fails(
    postgres: Postgres, moengage: Emulator, pipe: Pipe
) -> None:
    """With pipefail a failed tap fails the pipe, and no state passes the missing rows."""
    postgres.execute(TABLE.format(users=USERS, bad=USERS))
    pipe.select(pipe.discover(), **INCREMENTAL)
    done = run(pipe)
    assert done.returncode != 0
    assert f"u{USERS}" not in {m.uid for m in moengage.members("vip")}
    for line in done.stdout.splitlines():
        assert "2026-01-01T00:03:20" not in line


def test_removals_need_the_exit_code_of_the_tap(
    tmp_path: Path, postgres: Postgres, moengage: Emulator, pipe: Pipe
) -> None:
    """`moengage-cohort run` removes members only if the tap exits with 0."""
    tap = MortalTap(tmp_path)
    mirror = (
        "moengage-cohort run --config target.json -- "
        "./mortal-tap --config tap.json --catalog catalog.json"
    )
    for statement in SMALL_TABLE.split(";"):
        postgres.execute(statement)
    pipe.configure(sync_mode="mirror", max_removal_percent=100)  # the guard withholds nothing
    pipe.select(pipe.discover(), replication_method="FULL_TABLE")
    done = pipe.bash(mirror)
    assert done.returncode == 0, done.stderr
    everybody = {f"u{number}" for number in range(1, 101)}
    assert {m.uid for m in moengage.members("vip")} == everybody

    postgres.execute(f"delete from users where id <= {GONE}")
    tap.limit(50)
    died = pipe.bash(mirror)
    assert died.returncode == 1, died.stderr
    assert "exit code 137" in died.stderr
    assert {m.uid for m in moengage.members("vip")} == everybody

    tap.limit(None)
    done = pipe.bash(mirror)
    assert done.returncode == 0, done.stderr
    (cohort,) = json.loads(pipe.report.read_text())["cohorts"]
    assert (cohort["complete"], cohort["removed"]) == ("tap_exit", GONE)
    assert {m.uid for m in moengage.members("vip")} == {f"u{n}" for n in range(GONE + 1, 101)}
