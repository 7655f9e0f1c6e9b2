"""Commands that messages suggest."""

import shlex

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
