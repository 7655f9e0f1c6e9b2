"""The sizes of the benchmarks."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Sizes:
    """The sizes of a run of the benchmarks.

    Attributes:
        members: The number of members of the cohorts; some are ten times as large.
        long: Whether everything is measured, including cohorts fifty times as large.
        rounds: How often short runs are repeated for a median.
    """

    members: int = 1_000_000
    long: bool = False
    rounds: int = 3

    @property
    def sdk_records(self) -> int:
        """The number of records for the SDK's sink, which is slow."""
        return self.members // (5 if self.long else 10)

    @property
    def files(self) -> tuple[int, int]:
        """The numbers of rows per batch file: many, and the SDK's default."""
        return self.members // 10, self.members // 100

    def rounds_of(self, members: int) -> int:
        """Return how often a run with this number of members is repeated."""
        return self.rounds if members <= self.members else 1
