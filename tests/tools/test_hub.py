"""docs/meltano-hub.yml, the definition for the Meltano Hub."""

import subprocess
from pathlib import Path

import pytest
import yaml

from tests.support.processes import run_guarded
from tests.support.project import ROOT, plain_environment, program
from tools import hub

NAME = "target-moengage-cohort"
QUIET = {"MELTANO_SEND_ANONYMOUS_USAGE_STATS": "false", "MELTANO_CLI_DISABLE_VERSION_CHECK": "true"}


@pytest.fixture
def meltano_yml() -> dict:
    return yaml.safe_load((ROOT / "meltano.yml").read_text())


@pytest.fixture
def definition() -> dict:
    return yaml.safe_load(hub.DEFINITION.read_text())


def meltano(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    environment = plain_environment(folder / "home") | QUIET
    command = [program("meltano"), "--no-environment", *arguments]
    return run_guarded(command, cwd=folder, env=environment, timeout=120)


def test_the_definition_follows_about() -> None:
    """docs/meltano-hub.yml is the output of `make hub`."""
    assert hub.text() == hub.DEFINITION.read_text(), "make hub"


def test_meltano_adds_the_loader_by_the_definition(
    tmp_path: Path, definition: dict, meltano_yml: dict
) -> None:
    """From the definition Meltano creates a loader with the settings of meltano.yml, requires the
    required ones, sets the defaults and hides the secrets."""
    (tmp_path / "meltano.yml").write_text("project_id: hub\n")
    options = ("--plugin-type=loader", f"--from-ref={hub.DEFINITION}", "--no-install")
    added = meltano(tmp_path, "add", *options, NAME)
    assert 0 == added.returncode, added.stderr
    (loader,) = yaml.safe_load((tmp_path / "meltano.yml").read_text())["plugins"]["loaders"]
    (ours,) = meltano_yml["plugins"]["loaders"]
    assert comparable(ours) == comparable(loader)
    assert definition["capabilities"] == loader["capabilities"]

    assert 0 == meltano(tmp_path, "config", "set", NAME, "data_api_key", "very-secret").returncode
    listed = meltano(tmp_path, "config", "list", "--all", NAME)
    assert 0 == listed.returncode, listed.stderr
    required = ", ".join(sorted(definition["settings_group_validation"][0]))
    assert f"Required settings: {required}\n" in listed.stdout
    for setting in definition["settings"]:
        name, value = setting["name"], setting.get("value")
        shown = "" if name == "data_api_key" else f" current value: {value!r} (default)"
        assert f"\n{name} [env: {NAME.replace('-', '_').upper()}_{name.upper()}]{shown}" in (
            listed.stdout
        )
    assert "very-secret" not in listed.stdout


def comparable(loader: dict) -> dict:
    """Return what two declarations of the loader have in common, with options in any order."""
    keys = ("namespace", "label", "executable", "settings_group_validation")
    settings = {
        setting["name"]: setting
        | {"options": sorted(option["value"] for option in setting.get("options", []))}
        | {"placeholder": None}
        for setting in loader["settings"]
    }
    return {key: loader[key] for key in keys} | settings
