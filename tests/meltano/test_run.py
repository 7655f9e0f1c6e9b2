"""`meltano run tap-postgres target-moengage-cohort`: the real ones, from a real PostgreSQL."""

import json
import shlex
from pathlib import Path

from target_moengage_cohort.emulator import Emulator
from tests.support.postgres import Postgres
from tests.support.project import MeltanoProject, program

USERS = 500
TABLE = """
create table users (id int primary key, vip boolean, gone timestamptz, updated_at timestamptz);
insert into users
select id, id %% 5 > 0, null, timestamptz '2026-01-01' + id * interval '1 second'
from generate_series(1, %s) id
"""
VIP = """
create view cohort_vip as select 'u' || id as uid, vip as is_member, updated_at from users
"""
APP = """
create view cohort_app as select 'u' || id as uid, gone as _sdc_deleted_at, updated_at from users
"""
COHORTS = {
    "public-cohort_vip": {
        "cohort_id": "vip",
        "cohort_name": "VIP customers",
        "membership_column": "is_member",
    }
}
STATE_ID = "dev:tap-postgres-to-target-moengage-cohort"


def fill(postgres: Postgres, view: str) -> None:
    for statement in TABLE.split(";"):
        postgres.execute(statement, (USERS,) if "%s" in statement else None)
    postgres.execute(view)


def members(moengage: Emulator, cohort_id: str) -> set[str]:
    return {member.uid for member in moengage.members(cohort_id)}


def vips(postgres: Postgres) -> set[str]:
    return {uid for (uid,) in postgres.query("select uid from cohort_vip where is_member")}


def bookmark(project: MeltanoProject, stream: str) -> str:
    state = json.loads(project.meltano("state", "get", STATE_ID).stdout)
    return state["singer_state"]["bookmarks"][stream]["replication_key_value"]


def test_second_run_starts_at_the_bookmark_of_the_first(
    postgres: Postgres, moengage: Emulator, project: MeltanoProject
) -> None:
    """A second run resumes from the first one's bookmark, and the cohort equals the result of
    SQL."""
    fill(postgres, VIP)
    project.configure("loaders", config={"cohorts": COHORTS})

    first = project.sync()
    assert first["status"] == "succeeded"
    assert first["cohorts"][0]["records"] == USERS
    assert members(moengage, "vip") == vips(postgres)
    assert bookmark(project, "public-cohort_vip").startswith("2026-01-01T00:08:20")

    postgres.execute("update users set vip = not vip, updated_at = '2026-01-02' where id <= 10")
    second = project.sync()
    at_the_bookmark = 1  # tap-postgres reads rows that are not older than the bookmark
    assert second["cohorts"][0]["records"] == 10 + at_the_bookmark
    assert members(moengage, "vip") == vips(postgres)
    assert bookmark(project, "public-cohort_vip").startswith("2026-01-02T00:00:00")


def test_a_record_with_sdc_deleted_at_leaves_the_cohort(
    postgres: Postgres, moengage: Emulator, project: MeltanoProject
) -> None:
    """A record whose _sdc_deleted_at is set removes its user from the cohort."""
    fill(postgres, APP)
    project.configure(
        "loaders",
        config={"cohorts": {"public-cohort_app": {"cohort_id": "app", "cohort_name": "App"}}},
    )
    project.sync()
    assert len(members(moengage, "app")) == USERS

    postgres.execute(
        "update users set gone = '2026-01-02', updated_at = '2026-01-02' where id <= 7"
    )
    report = project.sync()
    assert report["cohorts"][0]["removed"] == 7
    assert members(moengage, "app") == {f"u{number}" for number in range(8, USERS + 1)}


def test_cohorts_arrive_through_the_environment_as_meltano_gives_them(
    postgres: Postgres, moengage: Emulator, project: MeltanoProject
) -> None:
    """With --config=ENV the target takes `cohorts` with dotted keys, as Meltano flattens them."""
    fill(postgres, VIP)
    project.configure(
        "loaders",
        config={"cohorts": COHORTS},
        executable=from_environment(project.folder),
    )
    project.sync()
    handed_over = json.loads((project.folder / "cohorts.json").read_text())
    assert handed_over["public-cohort_vip.membership_column"] == "is_member"
    assert members(moengage, "vip") == vips(postgres)


def test_cohorts_set_by_hand_in_the_environment(
    postgres: Postgres, moengage: Emulator, project: MeltanoProject
) -> None:
    """A person's JSON in TARGET_MOENGAGE_COHORT_COHORTS arrives with and without --config=ENV."""
    fill(postgres, VIP)
    project.environment["TARGET_MOENGAGE_COHORT_COHORTS"] = json.dumps(COHORTS)
    project.sync()
    assert members(moengage, "vip") == vips(postgres)

    moengage.reset()
    postgres.execute("update users set updated_at = '2026-01-02'")
    project.configure("loaders", executable=from_environment(project.folder))
    project.sync()
    assert members(moengage, "vip") == vips(postgres)


def test_a_paused_stream_holds_its_bookmark(
    postgres: Postgres, moengage: Emulator, project: MeltanoProject
) -> None:
    """A pipeline with a paused stream fails without a request and without a new bookmark; the
    command in its log ends the pause, and the next one makes up for all of it."""
    fill(postgres, VIP)
    project.configure("loaders", config={"cohorts": COHORTS})
    project.configure("utilities", config={"cohorts": COHORTS})
    project.sync()
    before, sent = bookmark(project, "public-cohort_vip"), len(moengage.requests())
    postgres.execute("update users set vip = not vip, updated_at = '2026-01-02' where id <= 10")
    invoke = ("invoke", "moengage-cohort", "pause", "public-cohort_vip", "--config=ENV")
    assert project.meltano(*invoke).returncode == 0

    done = project.meltano("run", "tap-postgres", "target-moengage-cohort")
    assert done.returncode != 0
    assert json.loads(project.report.read_text())["exit_code"] == 3
    assert (before, sent) == (bookmark(project, "public-cohort_vip"), len(moengage.requests()))
    resume = (
        "meltano --environment dev invoke moengage-cohort resume public-cohort_vip --config=ENV"
    )
    assert resume in done.stdout + done.stderr
    assert project.meltano(*shlex.split(resume)[3:]).returncode == 0
    project.sync()
    assert members(moengage, "vip") == vips(postgres)


def from_environment(folder: Path) -> str:
    """A program that runs the target with --config=ENV and records the value of `cohorts`."""
    script = folder / "target-from-environment"
    target = shlex.quote(program("target-moengage-cohort"))
    keep = shlex.quote(str(folder / "cohorts.json"))
    script.write_text(
        "#!/bin/sh\n"
        f'printf %s "$TARGET_MOENGAGE_COHORT_COHORTS" > {keep}\n'
        f"exec {target} --config=ENV\n"
    )
    script.chmod(0o700)
    return str(script)


def test_the_utility_runs_through_meltano(project: MeltanoProject) -> None:
    """`meltano invoke moengage-cohort` runs the target's utility."""
    done = project.meltano("invoke", "moengage-cohort", "emulator", "--help")
    assert done.returncode == 0, done.stderr
    assert "--port" in done.stdout
