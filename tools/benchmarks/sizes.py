"""How much each benchmark measures."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Sizes:
    """The sizes of a run of the benchmarks.

    Attributes:
        members: How many members the cohorts have; some are ten times as large.
        long: Whether everything is measured, cohorts fifty times as large included.
        rounds: How often what is short is repeated, for a median.
    """

    members: int = 1_000_000
    long: bool = False
    rounds: int = 3

    @property
    def sdk_records(self) -> int:
        """How many records the SDK's sink gets, which takes long for each."""
        return self.members // (5 if self.long else 10)

    @property
    def files(self) -> tuple[int, int]:
        """How many rows each batch file has: many, and as many as by the SDK's default."""
        return self.members // 10, self.members // 100

    def rounds_of(self, members: int) -> int:
        """How often a run with so many members is repeated."""
        return self.rounds if members <= self.members else 1
