"""Projects that `moengage-cohort init` has written, in the real Meltano."""

import os
import shlex
from pathlib import Path

import pytest
import yaml

from target_moengage_cohort.emulator import Emulator
from tests.support.newcomer import USERS
from tests.support.postgres import Postgres
from tests.support.processes import run_guarded
from tests.support.project import PLUGINS, plain_environment, program, tap_settings

PREFIX = "TARGET_MOENGAGE_COHORT_"
VIEWS = """
create view vip_users as
select user_id::text as uid, lifetime_value > 1000 as is_member, updated_at from users;
create view newsletter as
select user_id::text as uid, count(*) over () as row_count from users where subscribed
"""
VIP = (
    'public-vip_users cohort_id=vip cohort_name="VIP users" membership_column=is_member '
    "replication_key=updated_at"
)
NEWSLETTER = (
    "public-newsletter cohort_id=newsletter cohort_name=Newsletter sync_mode=mirror "
    "expected_count_column=row_count"
)
SECONDS = 120
# As Meltano leaves it, with the tap, and a second plugin that is not to be touched.
EXISTING = """\
default_environment: dev
project_id: 01a22f18-2d3b-7ce3-951e-897aedc635ce
environments:
- name: dev
plugins:
  extractors:
  - name: tap-postgres # the shop
    namespace: tap_postgres
    executable: {tap}
    capabilities: [catalog, discover, state]
    config:
      filter_schemas: [public]
    select: [public-users.*]
    settings:
    - {{name: host}}
    - {{name: port, kind: integer}}
    - {{name: user}}
    - {{name: password, sensitive: true}}
    - {{name: database}}
  loaders:
  - name: target-jsonl
    namespace: target_jsonl
    executable: {tap}
"""


class InitProject:
    """A directory with a database and an emulator, and the commands that a person types there."""

    def __init__(self, folder: Path, postgres: Postgres, moengage: Emulator) -> None:
        self.folder, self.tap = folder / "project", tap_settings(postgres)
        self.folder.mkdir()
        self.moengage = moengage
        postgres.execute(USERS)
        postgres.execute(VIEWS)
        names = ("meltano", "moengage-cohort")
        paths = [str(Path(program(each)).parent) for each in names]
        self.environment = plain_environment(folder / "home") | {
            "PATH": os.pathsep.join([*paths, os.environ["PATH"]]),
            "MELTANO_CLI_DISABLE_VERSION_CHECK": "true",
        }

    def init(self, *words: str) -> str:
        """Run the command with the secret in the environment, which later commands lack."""
        command = ["moengage-cohort", "init", *words, "--partner", "acme"]
        command += ["--emulator", self.moengage.url]
        password = f"TAP_POSTGRES_PASSWORD={self.tap['password'] or 'unused'}"
        return self.run(f"{password} {shlex.join(command)} < /dev/null")

    def tap_options(self) -> list[str]:
        names = ("host", "port", "user", "database")
        return [word for name in names for word in ("--tap-setting", f"{name}={self.tap[name]}")]

    def use_installed(self) -> None:
        """Let the plugins be the installed programs, so that Meltano downloads nothing."""
        path = self.folder / "meltano.yml"
        project = yaml.safe_load(path.read_text())
        for kind, name in PLUGINS.items():
            for plugin in project["plugins"][kind]:
                if plugin["name"] == name:
                    plugin.pop("pip_url", None)
                    plugin["executable"] = program(name)
        path.write_text(yaml.safe_dump(project, sort_keys=False))

    def run(self, text: str) -> str:
        done = run_guarded(
            ["bash", "-e", "-c", text], cwd=self.folder, env=self.environment, timeout=SECONDS
        )
        assert 0 == done.returncode, f"{text}\n{done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    def members(self, cohort_id: str) -> int:
        return len(list(self.moengage.members(cohort_id)))


@pytest.fixture
def project(tmp_path: Path, postgres: Postgres, moengage: Emulator) -> InitProject:
    return InitProject(tmp_path, postgres, moengage)


def test_a_new_project_syncs(project: InitProject) -> None:
    """Meltano takes what init has written: `check` passes, the job runs, and the cohorts are the
    views'. The tap reads a cohort that was added later, too."""
    words = ("--warehouse", "postgres", *project.tap_options())
    assert "not tried" in project.init(*words, "--stream", VIP)  # the tap is not installed
    project.init("--stream", NEWSLETTER)
    project.use_installed()
    project.run("meltano invoke moengage-cohort:check")
    project.run("meltano run sync-cohorts")
    assert (100, 100) == (project.members("vip"), project.members("newsletter"))
    assert (project.folder / "ledger").is_dir()


def test_an_existing_project_syncs(project: InitProject) -> None:
    """In a project whose tap selects other streams for another loader, the tap is tried and found
    to have the streams; the job reads only these, with the variables of .env."""
    tap = "\n".join(f"TAP_POSTGRES_{key.upper()}={value}" for key, value in project.tap.items())
    (project.folder / ".env").write_text(f"{tap}\n")
    text = EXISTING.format(tap=program("tap-postgres"))
    (project.folder / "meltano.yml").write_text(text)
    said = project.init("--warehouse", "postgres", "--stream", VIP, "--stream", NEWSLETTER)
    assert "ok    tap:" in said
    project.use_installed()
    project.run(f"{PREFIX}REMOVALS=deferred meltano run sync-and-confirm")
    assert (100, 100) == (project.members("vip"), project.members("newsletter"))


def test_a_tap_that_fails_is_reported(project: InitProject) -> None:
    """A tap that cannot reach its database, or does not have a stream, makes the command fail; the
    files are there."""
    text = EXISTING.format(tap=program("tap-postgres"))
    (project.folder / "meltano.yml").write_text(text)
    words = ("--warehouse", "postgres", "--stream", VIP)
    with pytest.raises(AssertionError, match=r"FAIL +tap"):
        project.init(*words)
    assert (project.folder / ".env").exists()
    tap = "\n".join(f"TAP_POSTGRES_{key.upper()}={value}" for key, value in project.tap.items())
    (project.folder / ".env").write_text(f"{tap}\n")
    with pytest.raises(AssertionError, match=r"FAIL +tap(?s:.*)public-nothing"):
        project.init("--stream", "public-nothing cohort_id=n cohort_name=N")
