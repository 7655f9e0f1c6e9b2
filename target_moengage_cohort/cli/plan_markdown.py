"""A plan as Markdown, for a comment; pure."""

from __future__ import annotations

import re
import typing as t

from target_moengage_cohort.core.text import format_count, shorten

if t.TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_MOST_BYTES = 60_000  # GitHub takes 65,536 characters
_NAME_WIDTH, _TEXT_WIDTH = 60, 300
_JOINER = "\N{WORD JOINER}"  # invisible; GitHub links no @name and no #1 with it
_COLUMNS = ("cohort", "members now", "after", "add", "remove", "unchanged", "requests", "guard")
_NUMBERS = ("accepted", "desired", "to_add", "to_remove", "unchanged", "requests")
_HEAD = (
    f"| {' | '.join(_COLUMNS)} |",
    f"|---|{'---:|' * len(_NUMBERS)}---|",
)


def markdown(plans: Sequence[dict[str, t.Any]], warnings: Sequence[str], effort: str) -> str:
    """Return a table of the cohorts, those with the most changes first, and the warnings.

    Rows and warnings that do not fit into a comment are left out, and counted.
    """
    additions, removals = (sum(each[name] for each in plans) for name in ("to_add", "to_remove"))
    summary = (
        f"**{format_count(additions, 'addition')}, {format_count(removals, 'removal')}** in "
        f"{format_count(len(plans), 'cohort')}: {effort}. Nothing was sent."
    )
    lines = ["### Plan for the cohorts in MoEngage", "", summary]
    budget = _MOST_BYTES - sum(map(len, lines))
    busiest = sorted(plans, key=lambda each: -each["to_add"] - each["to_remove"])
    rows, budget = _fitting([_row(each) for each in busiest], budget)
    if rows:
        lines += ["", *_HEAD, *rows]
    if left := len(plans) - len(rows):
        lines += ["", f"{format_count(left, 'more cohort')}, with fewer changes."]
    notes, _ = _fitting([f"- {_text(each, _TEXT_WIDTH)}" for each in warnings], budget)
    if notes:
        lines += ["", "Warnings:", "", *notes]
    if left := len(warnings) - len(notes):
        lines += ["", f"{format_count(left, 'more warning')}: see the log."]
    return "\n".join(lines)


def _fitting(lines: Sequence[str], budget: int) -> tuple[list[str], int]:
    """Return the first lines that fit into a number of bytes, and the bytes left."""
    taken: list[str] = []
    for line in lines:
        if (size := len(line.encode()) + 1) > budget:
            break
        taken.append(line)
        budget -= size
    return taken, budget


def _row(plan: dict[str, t.Any]) -> str:
    return f"| {' | '.join(_cells(plan))} |"


def _cells(plan: dict[str, t.Any]) -> Iterator[str]:
    yield _text(plan["cohort_id"], _NAME_WIDTH)
    for name in _NUMBERS:
        yield "–" if plan[name] is None else f"{plan[name]:,}"  # noqa: RUF001 - in a table
    yield _text(plan["verdict"], _TEXT_WIDTH)


def _text(text: str, width: int) -> str:
    """Return text that Markdown, HTML and GitHub show as it is: no link, name or format in it."""
    text = re.sub(r"(?<=[@#])(?=\w)", _JOINER, shorten(text, width))
    return re.sub(r"[^\w ,;:'-]|_", lambda match: f"&#{ord(match[0])};", text)
