"""README and docs/ for tests: their blocks, and the comments in front of them."""

import ast
import re
from dataclasses import dataclass
from pathlib import Path

import target_moengage_cohort

PACKAGE = Path(target_moengage_cohort.__file__).parent  # perhaps not in this tree
ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
_FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>\w*)\n(?P<text>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL
)
_NOT_RUN = re.compile(r"<!-- not run: (.+) -->\s*$")


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        place: The page and the line.
        language: Its label.
        text: Its content, without the indentation of a list around it.
        reason: Why it is not run, if a comment in front of it says so.
    """

    place: str
    language: str
    text: str
    reason: str | None


def name(page: Path) -> str:
    """Return a page's path in the repository."""
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path, *languages: str) -> list[Block]:
    """Return the blocks of a page, or those of some languages."""
    text = page.read_text()
    found = []
    for match in _FENCE.finditer(text):
        reason = _NOT_RUN.search(text[: match.start()])
        indent = match["indent"]
        lines = [line.removeprefix(indent) for line in match["text"].splitlines(keepends=True)]
        block = Block(
            place=f"{name(page)}:{text.count(chr(10), 0, match.start()) + 1}",
            language=match["language"],
            text="".join(lines),
            reason=reason[1] if reason else None,
        )
        if not languages or block.language in languages:
            found.append(block)
    return found


def prose(page: Path) -> str:
    """Return a page without its blocks."""
    return _FENCE.sub("", page.read_text())


def messages() -> list[tuple[str, str]]:
    """Return each text in the package's sources with its place, and … for inserted values."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            place = f"{path.relative_to(PACKAGE)}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.JoinedStr):
                parts = (p.value if isinstance(p, ast.Constant) else "…" for p in node.values)
                found.append((place, "".join(parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append((place, re.sub(r"%(?:d|s)|\{\}|%r", "…", node.value)))
    return found
