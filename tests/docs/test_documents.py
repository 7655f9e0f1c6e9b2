"""Quotes, names and links in README and docs/."""

import ast
import json
import re
import shlex
from pathlib import Path
from urllib.parse import unquote

import click
import duckdb
import pytest
import yaml

from target_moengage_cohort.cli import cli
from target_moengage_cohort.cli import target_command as singer
from target_moengage_cohort.settings import load
from target_moengage_cohort.settings.about import json_schema
from tests.support.documents import PAGES, ROOT, blocks, messages, name, prose
from tests.support.singer import lines, record, run, schema

EXAMPLES = sorted((ROOT / "docs" / "examples").glob("*/meltano.yml"))
REQUIRED = {"workspace_id": "w", "data_api_key": "k", "data_center": "01", "partner": "acme"}
pages = pytest.mark.parametrize("page", PAGES, ids=name)


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub generates for a page's headings."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    plain = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {heading.replace(" ", "-") for heading in plain}


@pages
def test_links_lead_somewhere(page):
    """Each link within the repository leads to a file, and each anchor to a heading."""
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if target.startswith("http"):
            continue
        path, _, anchor = target.partition("#")
        place = (page.parent / unquote(path)).resolve() if path else page
        if not place.exists() or (anchor and anchor not in anchors(place)):
            broken.append(target)
    assert [] == broken


def test_each_page_is_linked_from_readme():
    """README links every page of docs/."""
    linked = set(re.findall(r"\]\(([^)#\s]+\.md)", (ROOT / "README.md").read_text()))
    assert {name(page) for page in PAGES} - {"README.md"} <= linked


@pages
def test_blocks_parse(page):
    """Each block of JSON, YAML, SQL and Python parses."""

    def sql(text: str) -> list:
        return duckdb.extract_statements(re.sub(r"^grant .*;$", "", text, flags=re.MULTILINE))

    parsers = {
        "json": json.loads,
        "yaml": yaml.safe_load,
        "sql": sql,  # DuckDB has no grants
        "python": ast.parse,
    }
    for block in blocks(page, *parsers):
        assert parsers[block.language](block.text), block.place


def mappings(value: object) -> list[dict]:
    """Return the values of `cohorts`, at any depth."""
    if isinstance(value, list):
        return [found for each in value for found in mappings(each)]
    if not isinstance(value, dict):
        return []
    own = [value["cohorts"]] if "cohorts" in value else []
    return own + [found for each in value.values() for found in mappings(each)]


@pages
def test_mappings_are_valid(page):
    """The target accepts each configuration and each mapping in the pages."""
    shown = [json.loads(block.text) for block in blocks(page, "json")]
    whole = [config for config in shown if "workspace_id" in config]
    found = [yaml.safe_load(block.text) for block in blocks(page, "yaml")]
    for config in [*whole, *(REQUIRED | {"cohorts": each} for each in mappings(found))]:
        loaded = load(config)
        assert not loaded.unknown


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.parent.name)
def test_examples_declare_all_settings(example):
    """Each example declares every setting of the target with meltano.yml's kind, because Meltano
    passes on no other from the environment; its utility has all of the loader's settings and their
    variables, or `check` would judge others than a run. Its cohorts are valid."""
    ours = yaml.safe_load((ROOT / "meltano.yml").read_text())["plugins"]
    theirs = yaml.safe_load(example.read_text())["plugins"]

    def declared(plugins: dict, kind: str) -> dict[str, tuple]:
        (plugin,) = plugins[kind]
        keys = ("kind", "sensitive", "env")
        return {each["name"]: tuple(map(each.get, keys)) for each in plugin["settings"]}

    assert declared(ours, "loaders") == declared(theirs, "loaders")
    assert set(json_schema()["properties"]) == set(declared(theirs, "loaders"))
    (loader,), (utility,) = theirs["loaders"], theirs["utilities"]
    for shared in ("settings", "config", "namespace"):
        assert loader[shared] == utility[shared]
    assert load(REQUIRED | {"cohorts": mappings(theirs["loaders"])[0]}).mappings


COMMAND = re.compile(
    r"(?:^|[|;&`\n(]\s*|! |-- |uvx --from \S+ )"
    r"((?:target-)?moengage-cohort(?= )[^|;&`<>#\n]*)"
)


def commands(page: Path) -> list[list[str]]:
    """Return the invocations of our programs on a page, in blocks and in the text."""
    texts = [block.text.replace("\\\n", " ") for block in blocks(page, "sh", "text")]
    texts += [f"`{code}`" for code in re.findall(r"`([^`\n]+)`", prose(page))]
    found = [match[1] for text in texts for match in COMMAND.finditer(text)]
    return [shlex.split(command) for command in found]


@pages
def test_commands_exist_with_their_options(page):
    """Each invocation of our programs names an existing command and existing options."""
    for program, *arguments in commands(page):
        command = singer.command
        if program == "moengage-cohort":
            command = cli
            while isinstance(command, click.Group) and re.match("[a-z]", "".join(arguments)):
                chosen = command.get_command(click.Context(command), arguments.pop(0))
                assert chosen is not None, (page, arguments)
                command = chosen
        if isinstance(command, click.Group):
            continue
        words = [word for word in arguments if word != "…"]
        command.make_parser(click.Context(command)).parse_args(words)  # raises the error for users


def test_steps_of_meltano_are_commands_of_the_examples():
    """Each `moengage-cohort:NAME` of the pages is a command in the example for PostgreSQL."""
    (utility,) = yaml.safe_load((ROOT / "docs/examples/postgres/meltano.yml").read_text())[
        "plugins"
    ]["utilities"]
    named = {
        step for page in PAGES for step in re.findall(r"moengage-cohort:(\w+)", page.read_text())
    }
    assert named == set(utility["commands"])


def test_quoted_messages_are_those_of_the_code():
    """Each message that troubleshooting.md quotes is in the sources, word for word."""
    page = (ROOT / "docs" / "troubleshooting.md").read_text()
    tables = page[page.index("## By message") :]
    rows = [row for row in tables.splitlines() if row.startswith("| `")]
    quoted = [code for row in rows for code in re.findall(r"`([^`]+)`", row.split(" | ")[0])]
    known = [text for _, text in messages()]
    assert [] == [text for text in quoted if not any(text in message for message in known)]
    assert len(rows) > 30


def test_what_performance_says_in_short_was_measured():
    """Each figure at the head of performance.md is in a table written by `make bench-report`."""
    head, _, measured = (ROOT / "docs" / "performance.md").read_text().partition("<!-- measured")
    tables = measured.partition("<!-- measured: end")[0]
    figures = re.findall(r"\b(\d[\d.]*) (?:s|MB|requests)\b", head)
    cells = {cell.strip() for row in tables.splitlines() for cell in row.split("|")}
    assert len(figures) > 5
    assert [] == [figure for figure in figures if figure not in cells]


MODES = ("incremental", "add", "remove", "mirror", "one_time")
SNAPSHOTS = ("mirror", "one_time")


def fates() -> list[list[str]]:
    """Return the rows of sync-modes.md's table of users: user, acceptance, row, requests."""
    page = (ROOT / "docs" / "sync-modes.md").read_text()
    rows = [row for row in page.splitlines() if re.match(r"\| u\d", row)]
    return [[re.sub(r"[*¹²³]", "", cell).strip() for cell in row[1:-1].split("|")] for row in rows]


@pytest.mark.parametrize("mode", MODES)
def test_what_happens_to_whom(emulator, tmp_path, mode):
    """The second run of each mode sends the changes in sync-modes.md's table."""

    def sync(mode: str, rows: list[dict]) -> dict[str, str]:
        settings = {"sync_mode": mode, "max_removal_percent": 100}
        if mode in SNAPSHOTS:
            settings["ledger_uri"] = str(tmp_path / "ledger")
        head = schema(columns=("uid", "_sdc_deleted_at"))
        done = run(emulator, lines(head, *(record(**row) for row in rows)), **settings)
        assert done.error is None
        return {
            member["uid"]: attempt.body["action"].removesuffix("_members")
            for attempt in done.attempts
            for member in attempt.body["parameters"]["members"]
        }

    users = fates()
    accepted = [{"uid": user[0]} for user in users if user[1] == "yes"]
    assert len(accepted) == len(sync(mode if mode in SNAPSHOTS else "add", accepted))
    gone = {"is a member": None, "is not a member": "2026-01-01"}
    second = [{"uid": u[0], "_sdc_deleted_at": gone[u[2]]} for u in users if u[2] in gone]
    sent = sync(mode, second)
    assert {user[0]: user[3 + MODES.index(mode)] for user in users} == {
        user[0]: sent.get(user[0], "\N{EN DASH}") for user in users
    }
