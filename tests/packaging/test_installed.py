"""The built wheel in clean environments, for each Python on this machine."""

import json
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from target_moengage_cohort.emulator import Emulator
from tests.packaging.conftest import MINORS, Release, fetch, install, interpreter
from tests.support.postgres import Postgres
from tests.support.processes import run_guarded
from tests.support.project import ROOT, destination, plain_environment, program, tap_settings
from tools.demo.shop import WANTED, open_shop, wanted

TARGET = "target-moengage-cohort"
CLI = "moengage-cohort"


class Shop:
    """The demo's database, and the demo's sync in a pipe, without Meltano."""

    def __init__(self, postgres: Postgres, folder: Path) -> None:
        self.postgres = postgres
        environments = yaml.safe_load((ROOT / "meltano.yml").read_text())["environments"]
        (demo,) = [each for each in environments if each["name"] == "demo"]
        (self._extractor,), (self._loader,) = demo["config"]["plugins"].values()
        settings = tap_settings(postgres) | self._extractor["config"]
        (folder / "tap.json").write_text(json.dumps(settings))
        self._tap = [program("tap-postgres"), "--config", str(folder / "tap.json")]
        found = subprocess.run([*self._tap, "--discover"], capture_output=True, check=True)
        catalog = {"streams": [*map(self._selected, json.loads(found.stdout)["streams"])]}
        (folder / "catalog.json").write_text(json.dumps(catalog))
        self._tap += ["--catalog", str(folder / "catalog.json")]

    def _selected(self, stream: dict) -> dict:
        """A stream of the catalog as the demo reads it."""
        name, rules = stream["tap_stream_id"], self._extractor["metadata"]
        rule = rules.get(name, rules["public-cohort_*"])
        for entry in stream["metadata"]:
            entry["metadata"]["selected"] = name.startswith("public-cohort_")
            if not entry["breadcrumb"]:
                entry["metadata"] |= rule
        return stream

    def sync(self, target: Path, folder: Path, moengage: Emulator) -> subprocess.CompletedProcess:
        """Run tap and target in a pipe; the target's configuration comes into the folder."""
        settings = destination(moengage) | self._loader["config"]
        (folder / "target.json").write_text(json.dumps(settings))
        pipe = f"{shlex.join(self._tap)} | {shlex.quote(str(target))} --config target.json"
        return run_guarded(
            ["bash", "-c", f"set -o pipefail; {pipe}"],
            cwd=folder,
            env=plain_environment(folder / "home"),
            timeout=120,
        )


@pytest.fixture(scope="module")
def shop(server: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Shop:
    postgres = server.new_database("shop")
    open_shop(postgres)
    return Shop(postgres, tmp_path_factory.mktemp("shop"))


@pytest.fixture
def moengage() -> Iterator[Emulator]:
    with Emulator() as running:
        yield running


def run(programs: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [programs / CLI, *arguments],
        cwd=folder,
        env=plain_environment(folder / "home"),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize("minor", MINORS, ids="3.{}".format)
def test_the_wheel_syncs_the_demo_on_each_python(
    release: Release, shop: Shop, moengage: Emulator, tmp_path: Path, minor: int
) -> None:
    """Installed into a clean environment, the target syncs the demo's four cohorts in a pipe, and
    the command line shows the mirror among them."""
    environment = tmp_path / "environment"
    programs = install(release.wheel, interpreter(minor), environment)
    assert (environment / "lib" / f"python3.{minor}").is_dir()
    done = shop.sync(programs / TARGET, tmp_path, moengage)
    assert 0 == done.returncode, done.stderr
    assert "bookmarks" in json.loads(done.stdout.splitlines()[-1])
    for cohort_id in WANTED:
        members = {(member.uid, member.anonymous_id) for member in moengage.members(cohort_id)}
        assert wanted(shop.postgres, cohort_id) == members

    status = run(programs, tmp_path, "status", "--config", "target.json", "--json")
    assert 0 == status.returncode, status.stderr
    accepted = {one["cohort_id"]: one["accepted"] for one in json.loads(status.stdout)["cohorts"]}
    assert len(wanted(shop.postgres, "members")) == accepted["members"]


def test_without_extras_each_command_starts_or_says_what_to_install(
    release: Release, tmp_path: Path
) -> None:
    """Without extras all commands start except the emulator, which names the extra to install."""
    programs = install(release.wheel, sys.executable, tmp_path / "environment")
    listed = run(programs, tmp_path, "--help").stdout.partition("Commands:\n")[2]
    commands = [line.split()[0] for line in listed.partition("\n\n")[0].splitlines()]
    assert "emulator" in commands
    for command in commands:
        assert 0 == run(programs, tmp_path, command, "--help").returncode
    emulator = run(programs, tmp_path, "emulator", "--port=0")
    assert 1 == emulator.returncode
    assert f"pip install '{TARGET}[emulator]'" in emulator.stderr


@pytest.mark.parametrize("runner", ["uvx --from", "pipx run --spec"])
def test_the_wheel_runs_without_being_installed(
    release: Release, tmp_path: Path, runner: str
) -> None:
    """uvx and pipx run both programs from the wheel."""
    variables = {
        "PIPX_HOME": str(tmp_path / "pipx"),
        "UV_CONSTRAINT": str(ROOT / "constraints.txt"),
    }
    shown = fetch(*runner.split(), release.wheel, TARGET, "--version", **variables).stdout
    assert shown.startswith(f"{TARGET} v{release.wheel.name.split('-')[1]}")
    listed = fetch(*runner.split(), release.wheel, CLI, "--help", **variables).stdout
    assert f"Usage: {CLI} " in listed
