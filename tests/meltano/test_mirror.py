"""A mirror in Meltano whose removals wait until Meltano knows that the tap has succeeded."""

import json
from pathlib import Path

from target_moengage_cohort.emulator import Emulator
from tests.meltano.taps import MortalTap
from tests.support.postgres import Postgres
from tests.support.project import MeltanoProject

USERS = 500
TABLE = f"create table users as select id from generate_series(1, {USERS}) id"
VIEW = "create view cohort_members as select 'u' || id as uid from users order by id desc"
MIRROR = {
    "cohort_id": "members",
    "sync_mode": "mirror",
    "removals": "deferred",
    "max_removal_percent": 100,  # the guard must not withhold anything here
}
STEPS = ("tap-postgres", "target-moengage-cohort", "moengage-cohort:confirm-cohort_members")


def wanted(postgres: Postgres) -> set[str]:
    return {uid for (uid,) in postgres.query("select uid from cohort_members")}


def members(moengage: Emulator) -> set[str]:
    return {member.uid for member in moengage.members("members")}


def cohort(project: MeltanoProject) -> dict:
    """Return the results of the latest run for the cohort."""
    (one,) = json.loads(project.report.read_text())["cohorts"]
    return one


def test_removals_wait_until_meltano_knows_that_the_tap_has_succeeded(
    tmp_path: Path, postgres: Postgres, moengage: Emulator, project: MeltanoProject
) -> None:
    """If a tap crashes, `meltano run` skips the confirm step: new members are added and none are
    removed. The next successful run removes the missing members."""
    tap = MortalTap(tmp_path)
    project.configure(
        "extractors",
        executable=str(tap.program),
        metadata={"public-cohort_*": {"replication-method": "FULL_TABLE"}},
    )
    project.configure("loaders", config={"cohorts": {"public-cohort_members": MIRROR}})
    postgres.execute(TABLE)
    postgres.execute(VIEW)
    done = project.meltano("run", *STEPS)
    assert done.returncode == 0, done.stderr
    everybody = wanted(postgres)
    assert members(moengage) == everybody

    postgres.execute("delete from users where id <= 7")
    postgres.execute(f"insert into users select {USERS} + id from generate_series(1, 3) id")
    tap.limit(100)
    died = project.meltano("run", *STEPS)
    assert died.returncode != 0
    assert cohort(project)["added"] == 3
    assert cohort(project)["removals_waiting"] > 400
    assert members(moengage) == everybody | wanted(postgres)

    tap.limit(None)
    done = project.meltano("run", *STEPS)
    assert done.returncode == 0, done.stderr
    assert (cohort(project)["removed"], cohort(project)["removals_waiting"]) == (7, 0)
    assert members(moengage) == wanted(postgres)
