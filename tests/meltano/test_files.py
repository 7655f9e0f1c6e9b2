"""meltano.yml and .env.example, compared with the target's --about."""

import json
import re
import subprocess
from pathlib import Path

import pytest

from target_moengage_cohort.settings import load
from tests.support.project import ROOT, MeltanoProject, plain_environment, program

PREFIX = "TARGET_MOENGAGE_COHORT_"
# Set by hand this one means more than its default does, so Meltano must not always set it.
WITHOUT_VALUE = {"uid_column"}
UNKNOWN_TO_MELTANO = {"validate-records"}  # to the JSON schema of 4.4.1, that is


@pytest.fixture(scope="module")
def about(tmp_path_factory: pytest.TempPathFactory) -> dict:
    done = subprocess.run(
        [program("target-moengage-cohort"), "--about", "--format=json"],
        env=plain_environment(tmp_path_factory.mktemp("home")),
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def settings(about: dict) -> dict[str, dict]:
    return about["settings"]["properties"]


@pytest.fixture(scope="session")
def loader(meltano_yml: dict) -> dict:
    return meltano_yml["plugins"]["loaders"][0]


def test_meltano_yml_is_valid() -> None:
    """Meltano's own JSON schema accepts meltano.yml."""
    folder = Path(program("meltano")).resolve().parent.parent
    (schema,) = folder.glob("lib/python*/site-packages/meltano/schemas/meltano.schema.json")
    command = [program("check-jsonschema"), "--schemafile", str(schema), "meltano.yml"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_meltano_leaves_meltano_yml_as_it_is(project: MeltanoProject) -> None:
    """meltano.yml is in the style in which Meltano writes it, so a clone stays clean."""
    ours = (ROOT / "meltano.yml").read_text()
    written = project.folder / "meltano.yml"

    def config(text: str, verb: str, *values: str) -> str:
        names = ("config", verb, "target-moengage-cohort", *values)
        assert project.meltano_with(text, *names, environment="").returncode == 0
        return written.read_text()

    changed = config(ours, "set", "partner", "acme")
    assert "partner: acme" in changed
    assert config(changed, "unset", "partner") == ours


def test_meltano_yml_has_the_settings_of_the_target(loader: dict, settings: dict) -> None:
    """meltano.yml declares every setting of --about, with its text, secrecy and default."""
    declared = {setting["name"]: setting for setting in loader["settings"]}
    assert list(declared) == list(settings)
    for name, setting in declared.items():
        assert setting["label"] == settings[name]["title"]
        assert setting["description"] == settings[name]["description"]
        assert setting.get("sensitive", False) == settings[name].get("secret", False)
        choices = {option["value"] for option in setting.get("options", [])}
        assert choices == set(settings[name].get("enum", []))
        if name not in WITHOUT_VALUE and settings[name].get("default") != {}:
            assert setting.get("value") == settings[name].get("default")


def test_meltano_yml_requires_what_the_target_requires(loader: dict, about: dict) -> None:
    """Meltano requires exactly the settings that the target requires."""
    assert loader["settings_group_validation"] == [about["settings"]["required"]]
    assert set(loader["capabilities"]) == set(about["capabilities"]) - UNKNOWN_TO_MELTANO


def test_utility_shares_the_settings_of_the_loader(meltano_yml: dict, loader: dict) -> None:
    """The utility takes its settings from the variables of the loader."""
    (utility,) = meltano_yml["plugins"]["utilities"]
    declared = {setting["name"]: setting for setting in loader["settings"]}
    for setting in utility["settings"]:
        same = declared[setting["name"]]
        assert setting["env"] == PREFIX + setting["name"].upper()
        assert {**same, "env": setting["env"]} == setting


def test_each_mirror_of_the_demo_can_be_confirmed(meltano_yml: dict) -> None:
    """Each mirrored stream of the demo is read whole and has its own confirm command."""
    (utility,) = meltano_yml["plugins"]["utilities"]
    (demo,) = [one for one in meltano_yml["environments"] if one["name"] == "demo"]
    plugins = demo["config"]["plugins"]
    cohorts = plugins["loaders"][0]["config"]["cohorts"]
    mirrors = {
        stream for stream, mapping in cohorts.items() if mapping.get("sync_mode") == "mirror"
    }
    assert mirrors
    commands = {n: c["args"] for n, c in utility["commands"].items() if n.startswith("confirm-")}
    assert commands == {
        f"confirm-{stream.removeprefix('public-')}": f"confirm {stream} --config=ENV"
        for stream in mirrors
    }
    for stream in mirrors:
        metadata = plugins["extractors"][0]["metadata"][stream]
        assert metadata == {"replication-method": "FULL_TABLE", "replication-key": None}


def test_the_utility_sees_where_the_loader_sends(
    project: MeltanoProject,
) -> None:
    """Through Meltano, confirm receives the demo's destination and ledger in its environment."""
    for name in ("WORKSPACE_ID", "DATA_CENTER", "PARTNER"):
        project.environment.pop(PREFIX + name)
    project.environment[PREFIX + "LEDGER_URI"] = "file:///ledger"
    script = project.folder / "utility"
    script.write_text('#!/bin/sh\necho "$*" > arguments\nexec env -0 > seen\n')
    script.chmod(0o700)
    project.configure("utilities", executable=str(script))
    done = project.meltano("invoke", "moengage-cohort:confirm-cohort_members", environment="demo")
    assert done.returncode == 0, done.stderr
    arguments = (project.folder / "arguments").read_text()
    assert arguments == "confirm public-cohort_members --config=ENV\n"
    seen = dict(
        line.split("=", 1) for line in (project.folder / "seen").read_text().split("\0")[:-1]
    )
    given = {n.removeprefix(PREFIX).lower(): v for n, v in seen.items() if n.startswith(PREFIX)}
    settings = load(given).settings
    assert (settings.workspace_id, settings.partner) == ("demo-workspace", "demo")
    assert settings.ledger_uri == "file:///ledger"


def test_env_example_has_the_settings_of_the_target(about: dict, settings: dict) -> None:
    """.env.example has every setting: the required ones empty, the others with their default."""
    text = (ROOT / ".env.example").read_text()
    found = re.findall(rf"# (.+)\n(# )?{PREFIX}(\w+)=(.*)\n", text)
    assert [name.lower() for _, _, name, _ in found] == list(settings)
    for words, off, name, value in found:
        setting = settings[name.lower()]
        secret = " (secret)" if setting.get("secret") else ""
        assert words == setting["description"] + secret
        assert bool(off) == (name.lower() not in about["settings"]["required"])
        default = setting.get("default", "")
        assert value == (default if isinstance(default, str) else json.dumps(default))
