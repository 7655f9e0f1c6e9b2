"""The results of a benchmark: a table, and figures with their goals."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Figure:
    """A figure with a goal.

    Attributes:
        name: What was measured, and at which size.
        value: The measured value; ``None`` if it could not be measured.
        aim: The goal.
        unit: The unit, with a leading space.
        at_most: Whether the goal is an upper bound, not a lower one.
    """

    name: str
    value: float | None
    aim: float
    unit: str = ""
    at_most: bool = False

    @property
    def is_met(self) -> bool:
        """Whether the goal is met."""
        if self.value is None:
            return False
        return self.value <= self.aim if self.at_most else self.value >= self.aim

    def cells(self) -> list[str]:
        """Return the figure as a row of a table."""
        digits = 3 if self.aim < 2 else 1
        bound = "at most" if self.at_most else "at least"
        value, result = "\N{EN DASH}", "not measured"
        if self.value is not None:
            value = f"{self.value:,.{digits}f}{self.unit}"
            result = "met" if self.is_met else "**not met**"
        return [self.name, value, f"{bound} {self.aim:,.10g}{self.unit}", result]


@dataclass(frozen=True)
class Section:
    """The results of one benchmark.

    Attributes:
        title: Its heading.
        columns: The heads of its table.
        rows: The cells of its table.
        note: A description of the comparison.
        name: The name of the benchmark.
        figures: The figures with a goal.
        failures: What could not be measured, and why.
    """

    title: str
    columns: list[str]
    rows: list[list[str]]
    note: str
    name: str
    figures: list[Figure] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def text(self) -> str:
        """Return the section in Markdown, without its figures."""
        parts = [f"## {self.title}"]
        if self.rows:
            parts.append(table(self.columns, self.rows))
        parts += [f"Not measured: {failure}" for failure in self.failures]
        parts.append(f"{self.note} To repeat: `make bench ONLY={self.name}`.".strip())
        return "\n\n".join(parts)


def table(columns: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table that is also readable as text, with figures aligned to the right."""
    widths = [max(map(len, each)) for each in zip(columns, *rows, strict=True)]

    def line(cells: list[str]) -> str:
        padded = [
            cell.rjust(width) if place else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return f"| {' | '.join(padded)} |"

    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join(map(line, [columns, rule, *rows]))


def count(number: float) -> str:
    """Return a whole number, with commas."""
    return f"{number:,.0f}"
