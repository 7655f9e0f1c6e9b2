"""Where Meltano's settings, variables and extras arrive, and which of them are misspelled."""

import copy

import pytest

from target_moengage_cohort.emulator import Emulator
from tests.support.project import MeltanoProject

PREFIX = "TARGET_MOENGAGE_COHORT_"
LOADER, UTILITY = "target-moengage-cohort", "moengage-cohort"


def partners(project: MeltanoProject, *invoked: str) -> set[str]:
    """Return the words `partner…` in what a command shows of the settings."""
    done = project.meltano("invoke", *invoked)
    assert done.returncode == 0, done.stderr
    words = (done.stdout + done.stderr).replace("'", " ").replace(".", " ").split()
    return {word for word in words if word.startswith("partner-")}


def test_the_settings_of_other_targets_are_no_misspellings(project: MeltanoProject) -> None:
    """What Meltano and the SDK add to a loader's settings is at most a warning."""
    project.configure(
        "loaders",
        config={
            "add_record_metadata": True,
            "load_method": "append-only",
            "default_target_schema": "public",
            "batch_size_rows": 100,
            "faker_config": {"seed": "x"},
            "_load_schema": "public",
        },
        metadata=None,
    )
    project.settings["plugins"]["loaders"][0]["settings"] += [
        {"name": name} for name in ("add_record_metadata", "load_method", "batch_size_rows")
    ]
    done = project.meltano("invoke", LOADER)
    assert done.returncode == 0, done.stderr
    assert "did you mean" not in done.stderr


def test_an_inheriting_plugins_variables_are_no_misspellings(project: MeltanoProject) -> None:
    """A second loader that inherits from the first has variables with its own name in them."""
    del project.environment[f"{PREFIX}PARTNER"]
    project.environment[f"{PREFIX}EU_PARTNER"] = "partner-eu"
    loader = copy.deepcopy(project.settings["plugins"]["loaders"][0])
    kept = {"name": f"{LOADER}-eu", "inherit_from": LOADER, "executable": loader["executable"]}
    project.settings["plugins"]["loaders"].append(kept)
    done = project.meltano("invoke", f"{LOADER}-eu")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("in_file", [False, True], ids=["environment", ".env"])
def test_a_misspelled_variable_ends_a_run(
    moengage: Emulator, project: MeltanoProject, *, in_file: bool
) -> None:
    """Meltano passes no setting for it, but the target sees the variable; so does the utility."""
    name = f"{PREFIX}MAX_REMOVAL_PERCENTAGE"
    if in_file:
        (project.folder / ".env").write_text(f"{name}=5\n")
    else:
        project.environment[name] = "5"
    for invoked in ((LOADER,), (UTILITY, "check", "--config=ENV")):
        done = project.meltano("invoke", *invoked)
        assert done.returncode != 0
        assert f"{PREFIX}MAX_REMOVAL_PERCENT'" in done.stderr + done.stdout
    assert moengage.totals().requests == 0


def test_a_misspelled_setting_in_the_project_ends_a_run(project: MeltanoProject) -> None:
    """So it is in `config:`, which Meltano passes on whether it is declared or not."""
    project.configure("loaders", config={"max_removal_percentage": 5})
    done = project.meltano("invoke", LOADER)
    assert done.returncode != 0
    assert "'max_removal_percent'" in done.stderr + done.stdout


def test_the_environment_wins_over_the_projects_env_file(project: MeltanoProject) -> None:
    """`.env` adds what the environment lacks, for the utility as for Meltano's loaders."""
    del project.environment[f"{PREFIX}PARTNER"]
    (project.folder / ".env").write_text(f"{PREFIX}PARTNER=partner-file\n")
    status = (UTILITY, "status", "--config=ENV")
    assert partners(project, *status) == {"partner-file"}
    project.environment[f"{PREFIX}PARTNER"] = "partner-environment"
    assert partners(project, *status) == {"partner-environment"}
