"""Commands that messages suggest."""

import ast
import shlex
from pathlib import Path

from click.testing import CliRunner

from target_moengage_cohort.cli import cli
from target_moengage_cohort.core import commands
from target_moengage_cohort.core.commands import how_to_clear_state, note_configs, suggest


def test_a_command_has_the_configuration_of_this_process():
    """A suggested command repeats each --config of the process and quotes what needs it."""
    note_configs(["my config.json", "ENV"])
    command = suggest("ledger", "rename", "vip", "VIP users")
    words = ["moengage-cohort", "ledger", "rename", "vip", "VIP users"]
    assert [*words, "--config", "my config.json", "--config", "ENV"] == shlex.split(command)


def test_meltano_runs_the_command(monkeypatch):
    """Under Meltano a command is one of its own, in the same environment, because the file that
    Meltano made for the configuration is gone by then."""
    note_configs(["/project/.meltano/run/target.1234.config.json"])
    monkeypatch.setenv("MELTANO_PROJECT_ROOT", "/project")
    monkeypatch.delenv("MELTANO_ENVIRONMENT", raising=False)
    words = ["invoke", "moengage-cohort", "confirm", "users", "--config=ENV"]
    assert ["meltano", *words] == shlex.split(suggest("confirm", "users"))
    monkeypatch.setenv("MELTANO_ENVIRONMENT", "prod")
    command = shlex.split(suggest("confirm", "users"))
    assert ["meltano", "--environment", "prod", *words] == command


def test_every_command_can_be_pasted():
    """Without a configuration the documented name stands for it. A name that looks like an option
    is told from one, and what is empty is left out."""
    note_configs([])
    assert "moengage-cohort status --config config.json" == suggest("status")
    assert "moengage-cohort ledger accept-older --config config.json" == suggest(
        "ledger", "accept-older", ""
    )
    command = suggest("adopt", "-5", "--csv", "members.csv")
    assert "moengage-cohort adopt --csv members.csv --config config.json -- -5" == command
    result = CliRunner().invoke(cli, shlex.split(suggest("ledger", "retire", "-5"))[1:])
    assert "config.json" in result.output
    assert "No such option" not in result.output


def test_the_state_to_clear_is_the_pipelines(monkeypatch):
    """The state ID is that of `meltano run`; where it is unknown, and without Meltano, the advice
    names no command that could not be pasted."""
    names = {"ENVIRONMENT": "my env", "EXTRACTOR_NAME": "tap-x", "LOADER_NAME": "target-y"}
    for name in ("PROJECT_ROOT", *names):
        monkeypatch.delenv(f"MELTANO_{name}", raising=False)
    assert "meltano" not in how_to_clear_state().lower()
    monkeypatch.setenv("MELTANO_PROJECT_ROOT", "/project")
    assert "--full-refresh" in how_to_clear_state()
    for name, value in names.items():
        assert "state clear" not in how_to_clear_state()
        monkeypatch.setenv(f"MELTANO_{name}", value)
    assert "meltano state clear 'my env:tap-x-to-target-y' (" in how_to_clear_state()


def placeholders(path):
    """Return the words in upper case that calls of `suggest` and `release_command` have."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "suggest":
            for each in node.args:
                if isinstance(each, ast.Constant) and (each.value.isupper() or "…" in each.value):
                    yield each.value


def test_no_suggested_command_has_a_placeholder():
    """A reader can paste each command: it names the real cohort, stream and plan."""
    package = Path(commands.__file__).parents[1]
    assert [] == [each for path in package.rglob("*.py") for each in placeholders(path)]
