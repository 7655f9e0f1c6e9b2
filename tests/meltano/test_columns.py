"""`moengage-cohort check --columns` with the catalog that Meltano makes of the real tap's."""

import json

from tests.meltano.test_run import COHORTS, VIP, fill
from tests.support.postgres import Postgres
from tests.support.project import MeltanoProject


def test_the_columns_of_meltanos_catalog(postgres: Postgres, project: MeltanoProject) -> None:
    """A column and a stream are found if Meltano selects them, and missing if it does not."""
    fill(postgres, VIP)
    project.environment["TARGET_MOENGAGE_COHORT_COHORTS"] = json.dumps(COHORTS)
    assert codes(project) == [None]
    project.configure("extractors", select=["public-cohort_*.*", "!public-cohort_*.is_member"])
    assert codes(project) == ["missing_column"]
    project.configure("extractors", select=["public-users.*"])
    assert codes(project) == ["stream_not_found"]


def codes(project: MeltanoProject) -> list[str | None]:
    """Return the code of each stream whose columns were tried."""
    dumped = project.meltano("invoke", "--dump=catalog", "tap-postgres")
    assert dumped.returncode == 0, dumped.stderr
    (project.folder / "catalog.json").write_text(dumped.stdout)
    options = ("--config=ENV", "--json", "--columns", "catalog.json")
    done = project.meltano("invoke", "moengage-cohort", "check", *options)
    return [each["code"] for each in json.loads(done.stdout)["columns"]]
