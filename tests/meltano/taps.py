"""The real tap-postgres: in a Unix pipe, and one that can be killed halfway."""

import copy
import json
import shlex
import subprocess
from pathlib import Path

from target_moengage_cohort.emulator import Emulator
from tests.support.postgres import Postgres
from tests.support.processes import run_guarded
from tests.support.project import destination, plain_environment, program, tap_settings

STREAM = "public-vip"
PROGRAMS = ("tap-postgres", "target-moengage-cohort", "moengage-cohort")
MORTAL = """#!/bin/sh
case "$*" in *--discover*) exec {tap} "$@" ;; esac
[ -e {limit} ] || exec {tap} "$@"
rm -f {pipe}
mkfifo {pipe}
{tap} "$@" > {pipe} &
head -n "$(cat {limit})" {pipe}
kill -KILL $!
wait $!
exit 137  # also if it was done before the kill
"""


class MortalTap:
    """A program that runs tap-postgres, and kills it after some lines if `limit` is set."""

    def __init__(self, folder: Path) -> None:
        self._limit = folder / "limit"
        self.program = folder / "mortal-tap"
        names = {"tap": program("tap-postgres"), "limit": self._limit, "pipe": folder / "pipe"}
        quoted = {name: shlex.quote(str(value)) for name, value in names.items()}
        self.program.write_text(MORTAL.format(**quoted))
        self.program.chmod(0o700)

    def limit(self, lines: int | None) -> None:
        """Kill it after this many lines from now on; `None` removes the limit."""
        self._limit.unlink(missing_ok=True)
        if lines is not None:
            self._limit.write_text(str(lines))


class Pipe:
    """Commands in bash, with the configuration of tap and target in the files of a folder."""

    def __init__(self, folder: Path, postgres: Postgres, moengage: Emulator) -> None:
        self.folder = folder
        self.report = folder / "report.json"
        self.environment = plain_environment(folder / "home")
        self._target = destination(moengage) | {"report_path": str(self.report)}
        self.write("tap.json", tap_settings(postgres) | {"filter_schemas": ["public"]})
        self.configure()

    def configure(self, **mapping: object) -> None:
        """Map the one stream to the cohort `vip`."""
        cohort = {"cohort_id": "vip", "cohort_name": "VIP", **mapping}
        self.write("target.json", self._target | {"cohorts": {STREAM: cohort}})

    def write(self, name: str, value: object) -> None:
        (self.folder / name).write_text(json.dumps(value))

    def bash(self, command: str) -> subprocess.CompletedProcess:
        """Run a command; our programs' names stand for the installed programs."""
        words = (shlex.quote(program(w)) if w in PROGRAMS else w for w in command.split(" "))
        return run_guarded(
            ["bash", "-c", f"set -o pipefail; {' '.join(words)}"],
            cwd=self.folder,
            env=self.environment,
            timeout=120,
        )

    def discover(self) -> list[dict]:
        """Return the streams of the database, as the tap discovers them."""
        done = self.bash("tap-postgres --config tap.json --discover")
        return json.loads(done.stdout)["streams"]

    def select(self, streams: list[dict], **metadata: str) -> None:
        """Select the one view, with this metadata; underscores stand for hyphens."""
        (stream,) = copy.deepcopy([s for s in streams if s["tap_stream_id"] == STREAM])
        for entry in stream["metadata"]:
            entry["metadata"]["selected"] = True
            if not entry["breadcrumb"]:
                entry["metadata"] |= {n.replace("_", "-"): v for n, v in metadata.items()}
        self.write("catalog.json", {"streams": [stream]})
