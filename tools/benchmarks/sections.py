"""What a benchmark has found: a table, and figures with what they must be."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Figure:
    """A figure that has an aim.

    Attributes:
        name: What it is, and of how many.
        value: As measured; ``None`` where it could not be.
        aim: What it should be.
        unit: What follows it.
        at_most: Whether it should be the aim or less, and not the aim or more.
    """

    name: str
    value: float | None
    aim: float
    unit: str = ""
    at_most: bool = False

    @property
    def is_met(self) -> bool:
        """Whether it is what it should be."""
        if self.value is None:
            return False
        return self.value <= self.aim if self.at_most else self.value >= self.aim

    def cells(self) -> list[str]:
        """The figure as a row of a table."""
        digits = 3 if self.aim < 2 else 1
        bound = "at most" if self.at_most else "at least"
        value, verdict = "\N{EN DASH}", "not measured"
        if self.value is not None:
            value = f"{self.value:,.{digits}f}{self.unit}"
            verdict = "met" if self.is_met else "**not met**"
        return [self.name, value, f"{bound} {self.aim:,.10g}{self.unit}", verdict]


@dataclass(frozen=True)
class Section:
    """What one benchmark has found.

    Attributes:
        title: What it is about.
        columns: The heads of its table.
        rows: The cells of its table.
        note: What is compared with what.
        name: The name of the benchmark.
        figures: Those that have an aim.
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
        """The section in Markdown, without its figures."""
        parts = [f"## {self.title}"]
        if self.rows:
            parts.append(table(self.columns, self.rows))
        parts += [f"Not measured: {failure}" for failure in self.failures]
        parts.append(f"{self.note} To repeat it: `make bench ONLY={self.name}`.".strip())
        return "\n\n".join(parts)


def table(columns: list[str], rows: list[list[str]]) -> str:
    """A table in Markdown that can be read as it is, too; figures stand on the right."""
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
    """A whole number, with commas."""
    return f"{number:,.0f}"
