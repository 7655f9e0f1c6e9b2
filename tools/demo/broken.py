"""A mirror whose tap is killed halfway, in a plain Unix pipe."""

import json
import shlex

from tests.support.processes import run_guarded
from tests.support.project import MeltanoProject, program

STREAM = "public-cohort_members"
ROWS = 2_000
RUN_SECONDS = 60


class Broken:
    """`tap-postgres … | head … | target-moengage-cohort …`, after a run of Meltano.

    It uses Meltano's catalog and the ledger in the project's home folder.
    """

    def __init__(self, project: MeltanoProject) -> None:
        self._folder = project.folder
        self._report = project.folder / "broken.json"
        (demo,) = [each for each in project.settings["environments"] if each["name"] == "demo"]
        cohorts = demo["config"]["plugins"]["loaders"][0]["config"]["cohorts"]
        self._environment = (
            project.environment
            | demo["env"]
            | {
                "TARGET_MOENGAGE_COHORT_COHORTS": json.dumps({STREAM: cohorts[STREAM]}),
                "TARGET_MOENGAGE_COHORT_REPORT_PATH": str(self._report),
            }
        )
        catalog = project.folder / ".meltano" / "run" / "tap-postgres" / "tap.properties.json"
        streams = json.loads(catalog.read_text())["streams"]
        mirrored = [stream for stream in streams if stream["tap_stream_id"] == STREAM]
        self._catalog = project.folder / "catalog.json"
        self._catalog.write_text(json.dumps({"streams": mirrored}))

    def run(self) -> tuple[int, str, dict]:
        """Run it once; return the target's exit code, its last error, and its report."""
        tap = [program("tap-postgres"), "--config=ENV", f"--catalog={self._catalog}"]
        target = [program("target-moengage-cohort"), "--config=ENV"]
        line = f"{shlex.join(tap)} 2> tap.log | head -n {ROWS} | {shlex.join(target)}"
        done = run_guarded(
            ["sh", "-c", line], cwd=self._folder, env=self._environment, timeout=RUN_SECONDS
        )
        errors = [text for text in done.stderr.splitlines() if "| ERROR" in text]
        last = errors[-1].rpartition(" | ")[2] if errors else done.stderr
        return done.returncode, last, json.loads(self._report.read_text())
