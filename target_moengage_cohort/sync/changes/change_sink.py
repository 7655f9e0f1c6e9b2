"""Streams whose rows are changes: each row adds or removes one member."""

from __future__ import annotations

import typing as t

from target_moengage_cohort.core.membership import Change
from target_moengage_cohort.singer.columns import NotPlainError
from target_moengage_cohort.sync.mirror.completeness import Proof
from target_moengage_cohort.sync.sink import Sink

if t.TYPE_CHECKING:
    from target_moengage_cohort.singer.columns import Columns
    from target_moengage_cohort.sync.changes.outbox import Outbox
    from target_moengage_cohort.sync.rows import RowMapper


class ChangeSink(Sink):
    """The way of a stream in the sync modes incremental, add and remove."""

    def __init__(self, rows: RowMapper, source: str, outbox: Outbox) -> None:
        super().__init__(rows, source)
        self._outbox = outbox

    def take(self, row: t.Any) -> None:
        """Turn a row into a change; see `Sink`."""
        cohort, action, member = self.rows.read(row)
        if action is None:
            cohort.skipped += 1
        elif cohort.error is None:
            self._outbox.put(Change(cohort.cohort, action, member))

    def take_columns(self, columns: Columns) -> None:
        """Turn many plain rows into changes; see `Sink`."""
        cohorts = self.rows.cohorts_of(columns)
        if any(cohort.error for cohort in cohorts):
            raise NotPlainError
        self._outbox.put(*self.rows.changes(columns, cohorts))

    def settle(self) -> bool:
        """Send what earlier changes have left to do, if the input has ended."""
        if self.proof is not Proof.NO:
            self._outbox.settle(self.rows.mapping)
        return True
