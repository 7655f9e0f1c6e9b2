"""The tests that docs/promises.md names."""

import ast
import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
PROMISES = (TESTS.parent / "docs" / "promises.md").read_text()
SECTIONS = re.split(r"^## ", PROMISES, flags=re.MULTILINE)[1:]


def named(text: str) -> list[tuple[str, str]]:
    """Return the tests that a text names, each as its file below tests/ and its function."""
    return re.findall(r"`([\w/]+\.py)::(\w+)`", text)


def test_every_test_that_holds_a_promise_is_there():
    """Each test that docs/promises.md names is a function of the named file."""
    missing = []
    for file, name in named(PROMISES):
        path = TESTS / file
        module = ast.parse(path.read_text() if path.is_file() else "")
        if name not in {node.name for node in module.body if isinstance(node, ast.FunctionDef)}:
            missing.append(f"{file}::{name}")
    assert [] == missing


def test_each_promise_is_held_by_a_test():
    """Each of the nine promises has a section, and each of its rows names a test, what the test
    injects, and how it was broken on purpose."""
    promises = [section for section in SECTIONS if re.match(r"\d\. ", section)]
    assert [str(number) for number in range(1, 10)] == [section[0] for section in promises]
    for section in promises:
        rows = [line for line in section.splitlines() if line.startswith("|")][2:]
        assert rows
        assert [] == [row for row in rows if not named(row)]
        cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
        assert [] == [row for row in cells if len(row) != 3 or not all(row)]
