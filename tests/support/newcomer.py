"""A newcomer's directory: the steps of the pages, with the real programs."""

import json
import shlex
from pathlib import Path

import yaml

from target_moengage_cohort.emulator import Emulator
from tests.support.documents import ROOT, blocks
from tests.support.postgres import Postgres
from tests.support.processes import run_guarded
from tests.support.project import PLUGINS, plain_environment, program, tap_settings

PROGRAMS = ("tap-postgres", "target-moengage-cohort", "moengage-cohort", "meltano")
EXAMPLES = ROOT / "docs" / "examples"
SECONDS = 120
USERS = """
create table users as
select id as user_id, id * 10 as lifetime_value, id % 2 = 0 as subscribed,
       timestamptz '2026-01-01' + id * interval '1 second' as updated_at
from generate_series(1, 200) id
"""
READER = "reader"  # to whom README grants the views of the tap
MAKE_READER = f"""
do $$ begin create role {READER} login; exception when duplicate_object then null; end $$
"""
WANTED = {
    "vip": "select uid from vip_users where is_member",
    "newsletter": "select uid from newsletter",
}


class Newcomer:
    """The project of README's five minutes, with a database and an emulator.

    Its plugins are the installed ones; nothing else of the example differs. The emulator accepts
    the example credentials of README.
    """

    def __init__(self, folder: Path, postgres: Postgres, moengage: Emulator) -> None:
        self.folder = folder
        self.postgres = postgres
        self.moengage = moengage
        self.report = folder / "report.json"
        programs = folder / "bin"
        programs.mkdir()
        for name in PROGRAMS:
            (programs / name).write_text(f'#!/bin/sh\nexec {shlex.quote(program(name))} "$@"\n')
            (programs / name).chmod(0o700)
        self.environment = plain_environment(folder / "home")
        self.environment |= {
            "PATH": f"{programs}:{self.environment['PATH']}",
            "MELTANO_CLI_DISABLE_VERSION_CHECK": "true",
            "TARGET_MOENGAGE_COHORT_API_URL": moengage.url,
            "TARGET_MOENGAGE_COHORT_REPORT_PATH": str(self.report),
        }
        self.tap = tap_settings(postgres) | {"user": READER}
        for name, value in self.tap.items():
            self.environment[f"TAP_POSTGRES_{name.upper()}"] = str(value)
        project = yaml.safe_load((EXAMPLES / "postgres" / "meltano.yml").read_text())
        for kind, name in PLUGINS.items():
            for plugin in project["plugins"][kind]:
                del plugin["pip_url"]
                plugin["executable"] = program(name)
        (folder / "meltano.yml").write_text(yaml.safe_dump(project, sort_keys=False))
        postgres.execute(USERS)
        postgres.execute(MAKE_READER)

    def follow_readme(self) -> None:
        """Create README's views and files, and run nothing."""
        readme = ROOT / "README.md"
        for sql in blocks(readme, "sql"):
            self.postgres.execute(sql.text)
        (env,) = [block for block in blocks(readme, "sh") if "> .env" in block.text]
        self.run(env.text)
        (target,) = blocks(readme, "json")
        self.write("target.json", json.loads(target.text) | {"api_url": self.moengage.url})
        self.write("tap.json", self.tap | {"filter_schemas": ["public"]})
        self.write("catalog.json", self._catalog("public-newsletter"))

    def configure(self, name: str, mapping: dict, **settings: object) -> None:
        """Rewrite README's target.json with other settings and keys of its mapping."""
        (target,) = blocks(ROOT / "README.md", "json")
        config = json.loads(target.text)
        (stream,) = config["cohorts"]
        merged = config["cohorts"][stream] | mapping
        config["cohorts"][stream] = {key: value for key, value in merged.items() if value}
        config |= {"api_url": self.moengage.url, "report_path": str(self.report)}
        self.write(name, config | settings)

    def run(self, text: str) -> str:
        """Run a block in bash, as typed; return its output."""
        done = run_guarded(
            ["bash", "-e", "-c", text], cwd=self.folder, env=self.environment, timeout=SECONDS
        )
        if done.returncode:
            message = f"exit code {done.returncode} of:\n{text}\n{done.stdout}{done.stderr}"
            raise AssertionError(message)
        return done.stdout + done.stderr

    def write(self, name: str, value: object) -> None:
        """Write a file as JSON."""
        (self.folder / name).write_text(json.dumps(value))

    def reported(self, cohort_id: str) -> dict:
        """Return the results of the latest run for a cohort."""
        cohorts = json.loads(self.report.read_text())["cohorts"]
        (found,) = [cohort for cohort in cohorts if cohort["cohort_id"] == cohort_id]
        return found

    def accepted(self, cohort_id: str) -> set[str]:
        """Return the accepted members of a cohort in the emulator."""
        return {member.uid for member in self.moengage.members(cohort_id)}

    def wanted(self, cohort_id: str) -> set[str]:
        """Return the desired members of a cohort, by SQL."""
        return {uid for (uid,) in self.postgres.query(WANTED[cohort_id])}

    def unsubscribe(self, count: int) -> None:
        """Let so many users leave the newsletter."""
        self.postgres.execute(
            "update users set subscribed = false where user_id in "
            "(select user_id from users where subscribed order by user_id limit %s)",
            (count,),
        )

    def _catalog(self, stream: str) -> dict:
        """Return the catalog of the tap, with one stream selected as a whole."""
        done = run_guarded(
            [program("tap-postgres"), "--config", "tap.json", "--discover"],
            cwd=self.folder,
            env=self.environment,
            timeout=SECONDS,
        )
        (found,) = [s for s in json.loads(done.stdout)["streams"] if s["tap_stream_id"] == stream]
        for entry in found["metadata"]:
            entry["metadata"]["selected"] = True
            if not entry["breadcrumb"]:
                entry["metadata"]["replication-method"] = "FULL_TABLE"
        return {"streams": [found]}
