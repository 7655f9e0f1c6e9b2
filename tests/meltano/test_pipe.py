"""A plain Unix pipe, without Meltano."""

import json
import subprocess
from pathlib import Path

import pytest

from target_moengage_cohort.emulator import Emulator
from tests.support.postgres import Postgres
from tests.support.processes import run_guarded
from tests.support.project import destination, plain_environment, program, tap_settings

USERS = 200
STREAM = "public-vip"
TABLE = """
create view vip as
select 'u' || id as uid, 100 / (id - {bad}) as score,
       timestamptz '2026-01-01' + id * interval '1 second' as updated_at
from generate_series(1, {users}) id
"""


@pytest.fixture
def pipe(tmp_path: Path, postgres: Postgres, moengage: Emulator) -> "Pipe":
    return Pipe(tmp_path, postgres, moengage)


class Pipe:
    """`tap-postgres … | target-moengage-cohort …` in bash, with its files in a folder."""

    def __init__(self, folder: Path, postgres: Postgres, moengage: Emulator) -> None:
        self.folder = folder
        self.environment = plain_environment(folder / "home")
        self.write("tap.json", tap_settings(postgres) | {"filter_schemas": ["public"]})
        cohort = {"cohort_id": "vip", "cohort_name": "VIP"}
        self.write("target.json", destination(moengage) | {"cohorts": {STREAM: cohort}})

    def write(self, name: str, value: object) -> None:
        (self.folder / name).write_text(json.dumps(value))

    def bash(self, command: str) -> subprocess.CompletedProcess:
        line = command.replace("tap-postgres ", f"'{program('tap-postgres')}' ")
        line = line.replace("target-moengage-cohort ", f"'{program('target-moengage-cohort')}' ")
        return run_guarded(
            ["bash", "-c", f"set -o pipefail; {line}"],
            cwd=self.folder,
            env=self.environment,
            timeout=120,
        )

    def select(self) -> None:
        """Discover, and select the one view, with a replication key."""
        found = self.bash("tap-postgres --config tap.json --discover")
        catalog = json.loads(found.stdout)
        (stream,) = [s for s in catalog["streams"] if s["tap_stream_id"] == STREAM]
        for entry in stream["metadata"]:
            entry["metadata"]["selected"] = True
            if not entry["breadcrumb"]:
                entry["metadata"]["replication-method"] = "INCREMENTAL"
                entry["metadata"]["replication-key"] = "updated_at"
        self.write("catalog.json", {"streams": [stream]})

    def run(self, state: str = "") -> subprocess.CompletedProcess:
        return self.bash(
            f"tap-postgres --config tap.json --catalog catalog.json {state} "
            "| target-moengage-cohort --config target.json"
        )


def test_a_pipe_delivers_and_its_state_starts_the_next_run(
    postgres: Postgres, moengage: Emulator, pipe: Pipe
) -> None:
    """Through a pipe everybody arrives, and the last line written is a state for the next run."""
    postgres.execute(TABLE.format(users=USERS, bad=0))
    pipe.select()
    done = pipe.run()
    assert done.returncode == 0, done.stderr
    assert {m.uid for m in moengage.members("vip")} == {f"u{n}" for n in range(1, USERS + 1)}

    state = json.loads(done.stdout.splitlines()[-1])
    assert state["bookmarks"][STREAM]["replication_key_value"].startswith("2026-01-01T00:03:20")
    pipe.write("state.json", state)
    moengage.reset()
    again = pipe.run("--state state.json")
    assert again.returncode == 0, again.stderr
    assert {m.uid for m in moengage.members("vip")} == {f"u{USERS}"}


def test_a_pipe_fails_when_the_tap_fails(
    postgres: Postgres, moengage: Emulator, pipe: Pipe
) -> None:
    """With pipefail a tap that breaks off fails the pipe, and no state passes what is missing."""
    postgres.execute(TABLE.format(users=USERS, bad=USERS))
    pipe.select()
    done = pipe.run()
    assert done.returncode != 0
    assert f"u{USERS}" not in {m.uid for m in moengage.members("vip")}
    for line in done.stdout.splitlines():
        assert "2026-01-01T00:03:20" not in line
