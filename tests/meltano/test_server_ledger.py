"""Meltano with a ledger in the database of the tap, from an empty directory each time."""

import shutil

from tests.meltano.test_mirror import TABLE, USERS, VIEW, members, wanted
from tests.support.project import MeltanoProject

MIRROR = {"cohort_id": "members", "sync_mode": "mirror", "max_removal_percent": 100}


def test_a_container_without_a_disk_sends_the_difference_only(
    tmp_path, postgres, moengage, project
):
    """Each run starts with an empty home and an empty project, as a new container does: the ledger
    in the database of the tap knows who was accepted, so the second run sends the difference."""
    postgres.execute(TABLE)
    postgres.execute(VIEW)
    uri = f"postgresql://{postgres.user}@{postgres.host}:{postgres.port}/{postgres.database}"
    counts = []
    for number in range(2):
        folder = tmp_path / f"container-{number}"
        folder.mkdir()
        fresh = MeltanoProject(folder, postgres, moengage.url)
        fresh.settings = project.settings
        names = {name: value for name, value in project.environment.items() if "COHORT" in name}
        fresh.environment |= names | {
            "TARGET_MOENGAGE_COHORT_LEDGER_URI": uri,
            "TARGET_MOENGAGE_COHORT_REPORT_PATH": str(fresh.report),
        }
        fresh.configure(
            "extractors", metadata={"public-cohort_*": {"replication-method": "FULL_TABLE"}}
        )
        fresh.configure("loaders", config={"cohorts": {"public-cohort_members": MIRROR}})
        (cohort,) = fresh.sync()["cohorts"]
        counts.append((cohort["added"], cohort["removed"]))
        assert members(moengage) == wanted(postgres)
        shutil.rmtree(folder)
        postgres.execute("delete from users where id <= 7")
        postgres.execute(f"insert into users select {USERS} + id from generate_series(1, 3) id")
    assert [(USERS, 0), (3, 7)] == counts
