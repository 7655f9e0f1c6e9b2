"""Commands that messages suggest."""

import ast
import shlex
from pathlib import Path

from click.testing import CliRunner

from target_moengage_cohort.cli import cli
from target_moengage_cohort.core import commands
from target_moengage_cohort.core.commands import note_configs, suggest


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
