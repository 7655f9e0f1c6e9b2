"""One stream's way into its cohorts, whatever its sync mode."""

from __future__ import annotations

import typing as t

from target_moengage_cohort.singer.columns import NotPlainError
from target_moengage_cohort.sync.mirror.completeness import Proof

if t.TYPE_CHECKING:
    from collections.abc import Sequence

    from target_moengage_cohort.core.errors import RowError
    from target_moengage_cohort.singer.batches.columnar import Relation
    from target_moengage_cohort.singer.columns import Columns
    from target_moengage_cohort.sync.rows import RowMapper


class Sink:
    """One stream's way into its cohorts."""

    def __init__(self, rows: RowMapper, source: str) -> None:
        self.rows = rows  # replaced when the stream's schema changes
        self.source = source  # the tap's stream that it comes from, before stream maps
        self.proof = Proof.NO  # that the input was complete; known once it has ended
        self.versions: dict[int | None, bool] = {}  # each with whether no earlier run has seen it

    def take(self, row: t.Any) -> None:
        """Take one row; raise a `RowError` if it cannot be delivered."""
        raise NotImplementedError

    def take_columns(self, columns: Columns) -> None:
        """Take many plain rows; raise a `NotPlainError` if they must be taken one by one."""
        raise NotImplementedError

    def take_relation(self, relation: Relation) -> int:
        """Take all rows of a columnar file, and return how many there are.

        Raise a `NotPlainError` if they must be taken in chunks.
        """
        del relation  # of no use to changes
        raise NotPlainError

    def count(self, version: t.Any, rows: int) -> None:
        """Note that the tap's stream has sent rows of one version."""

    def count_reject(self, errors: Sequence[RowError]) -> None:
        """Note that a row of the tap's stream cannot be delivered, for these reasons."""

    def activate(self, version: t.Any) -> None:
        """Note an ACTIVATE_VERSION of the tap's stream."""

    def pause(self) -> None:
        """Use the time while another stream is read."""

    def check(self) -> None:
        """Check an input that has ended; raise an `InputError` if rows are missing."""

    def prove(self, *, tap_succeeded: bool) -> None:
        """Find the proof that an input which has ended without a fault was complete."""
        self.proof = Proof.TAP_EXIT if tap_succeeded else Proof.END_OF_INPUT

    def settle(self) -> bool:
        """Submit what only the end of the input decides; return ``False`` if interrupted."""
        raise NotImplementedError
