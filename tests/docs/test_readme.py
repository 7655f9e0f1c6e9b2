"""README and docs/, compared with the program."""

import ast
import json
import re
from pathlib import Path

import click
import pytest
import yaml

from target_moengage_cohort.cli import cli
from target_moengage_cohort.core.membership import COHORT_NAME_FORBIDDEN, COHORT_NAME_MAX_LENGTH
from target_moengage_cohort.settings.about import json_schema
from tests.support.documents import PAGES, blocks, name

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
CONFIGURATION = (ROOT / "docs" / "configuration.md").read_text()
OPERATIONS = (ROOT / "docs" / "operations.md").read_text()
SETTINGS = json_schema()
MAPPING = SETTINGS["properties"]["cohorts"]["additionalProperties"]["properties"]


def table(page: str, head: str) -> list[list[str]]:
    """Return the cells of a page's table whose first line starts with `head`."""
    lines = page[page.index(f"\n{head}") + 1 :].splitlines()[2:]
    rows = lines[: next(n for n, line in enumerate(lines) if not line.startswith("|"))]
    return [[cell.strip().strip("`") for cell in row.strip("|").split("|")] for row in rows]


def default(name: str) -> str:
    if name in SETTINGS["required"]:
        return "required"
    value = SETTINGS["properties"][name].get("default")
    return "\N{EN DASH}" if value is None else json.dumps(value).strip('"')


def test_the_settings_table_is_that_of_about():
    """configuration.md's settings table has the names, defaults and descriptions of --about."""
    expected = [
        [name, default(name), setting["description"]]
        for name, setting in SETTINGS["properties"].items()
    ]
    assert expected == table(CONFIGURATION, "| setting | default |")


def test_the_mapping_table_is_that_of_about():
    """configuration.md's table of a mapping's keys has the names and descriptions of --about."""
    expected = [[name, key["description"]] for name, key in MAPPING.items()]
    assert expected == table(CONFIGURATION, "| key |")


def test_the_name_rules_are_those_that_are_checked():
    """configuration.md's rules for cohort names match the code."""
    listed = re.search(r"none of `` (.*?) ``", CONFIGURATION).group(1).split()
    assert sorted(COHORT_NAME_FORBIDDEN) == sorted(listed)
    assert f"at most {COHORT_NAME_MAX_LENGTH} characters" in CONFIGURATION


def test_the_table_of_commands_is_complete():
    """operations.md's table names exactly the commands of moengage-cohort."""
    described = [command for command, _ in table(OPERATIONS, "| command |")]
    assert cli.list_commands(click.Context(cli)) == sorted(described)


@pytest.mark.parametrize("target", ["demo", "build"])
def test_the_commands_are_there(target):
    """The README's make commands are targets of the Makefile."""
    assert f"make {target}" in README
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_the_lines_to_replace_are_there():
    """README names the line of the examples that it replaces: one of the loader, one of the
    utility."""
    line = "pip_url: target-moengage-cohort"
    assert f"s|{line}|" in README
    assert f"`{line}`" in README
    for example in (ROOT / "docs" / "examples").glob("*/meltano.yml"):
        assert 2 == example.read_text().split("\n").count(f"    {line}")


def test_an_existing_project_takes_the_two_entries():
    """The example's loader and utility, copied as text into a project with a tap, have the same
    configuration and settings, the second by reference to the first."""
    example = (ROOT / "docs" / "examples" / "postgres" / "meltano.yml").read_text()
    entries = re.search(r"^  loaders:\n.*?(?=^\w)", example, re.DOTALL | re.MULTILINE)[0]
    mine = "plugins:\n  extractors:\n  - name: tap-mysql\n"
    plugins = yaml.safe_load(mine + entries)["plugins"]
    assert ["extractors", "loaders", "utilities"] == list(plugins)
    (loader,), (utility,) = plugins["loaders"], plugins["utilities"]
    for shared in ("config", "settings", "namespace"):
        assert loader[shared] == utility[shared]


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_recipes_by_exit_code_do_without_meltano(page):
    """A recipe that tells exit codes apart does not run Meltano, which turns all of them into 1."""
    for block in blocks(page, "yaml", "python"):
        if "ExitCodes" in block.text or "exit_code" in block.text:
            assert "meltano" not in block.text, block.place


def test_the_picture_is_small():
    """README's picture is there, and small enough for a clone and a page."""
    (picture,) = re.findall(r"!\[[^]]+\]\((\S+)\)", README)
    assert 0 < (ROOT / picture).stat().st_size < 150_000


def test_every_test_states_its_behaviour():
    """Each test of the project has a docstring."""
    silent = []
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        module = ast.parse(path.read_text())
        silent += [
            f"{path.name}::{node.name}"
            for node in ast.walk(module)
            if isinstance(node, ast.FunctionDef)
            and node.name.startswith("test_")
            and not ast.get_docstring(node)
        ]
    assert [] == silent
