"""Streams that are whole cohorts: their rows are staged until the input ends."""

from __future__ import annotations

import itertools
import typing as t
from operator import attrgetter

from target_moengage_cohort.core.membership import Action, largest_size
from target_moengage_cohort.singer.columns import LONGEST, NotPlainError
from target_moengage_cohort.sync.mirror.completeness import Completeness
from target_moengage_cohort.sync.mirror.settlement import Settlement, StagedStream
from target_moengage_cohort.sync.rows import count_records
from target_moengage_cohort.sync.sink import Sink

if t.TYPE_CHECKING:
    from collections.abc import Sequence

    from target_moengage_cohort.core.errors import RowError
    from target_moengage_cohort.core.membership import Member
    from target_moengage_cohort.ledger.snapshot import ColumnarFacts, Staging
    from target_moengage_cohort.singer.batches.columnar import Relation
    from target_moengage_cohort.singer.columns import Columns
    from target_moengage_cohort.sync.cohorts import Cohorts
    from target_moengage_cohort.sync.rows import RowMapper

_BATCH_ROWS = 50_000


class MirrorSink(Sink):
    """The way of a stream in the sync modes mirror and one_time.

    Attributes:
        staging: The rows.
        completeness: The evidence in the stream's messages that all of it has arrived.
    """

    def __init__(
        self, rows: RowMapper, source: str, settlement: Settlement, cohorts: Cohorts
    ) -> None:
        super().__init__(rows, source)
        self._cohorts = cohorts
        mapping = rows.mapping
        self.staging: Staging = settlement.store.staging()
        self.completeness = Completeness(mapping.stream, mapping.expected_count_column)
        self._settlement = settlement
        self._has_counts = mapping.expected_count_column is not None
        self._fans_out = mapping.cohort is None
        self._start_batch()

    def take(self, row: t.Any) -> None:
        """Take one row; see `Sink.take`."""
        if self._has_counts:
            if self.rows.proves_emptiness(row):
                self.completeness.expect_nothing()
                return
            self.completeness.expect(row.expected_count)
        cohort, action, member = self.rows.read(row)
        if cohort.is_closed:
            return
        self._rows.append([member.uid], [member.anonymous_id], [action is Action.ADD])
        if self._fans_out:
            self._numbers.append(cohort.number)
        self._flush_if_large()

    def take_columns(self, columns: Columns) -> None:
        """Take many plain rows; see `Sink.take_columns`."""
        cohorts = self.rows.cohorts_of(columns)
        counts = count_records(columns, cohorts)
        closed = {cohort.is_closed for cohort in counts}
        if len(closed) > 1 or len(columns.expected_counts or ()) > 1:
            raise NotPlainError
        for expected in columns.expected_counts or ():
            self.completeness.expect(expected)
        for cohort, count in counts.items():
            cohort.records += count
        if True in closed:
            return
        self._rows.append(columns.uids, columns.anonymous_ids, columns.present)
        if self._fans_out:
            self._numbers += map(attrgetter("number"), cohorts)
        self._flush_if_large()

    def take_relation(self, relation: Relation) -> int:
        """Take all rows of a columnar file, which never become Python's; see `Sink`."""
        cohort = self.rows.cohort
        if cohort is None or self._cohorts.exclusions.is_active:
            raise NotPlainError
        source = relation.source
        facts = self.staging.facts(source)
        if facts is None or self._has_unusual(facts):
            raise NotPlainError
        if largest_size(facts.longest, has_both=facts.pairs > 0) > cohort.capacity:
            raise NotPlainError
        if self._has_counts and facts.count:
            self.completeness.expect(facts.least)
        cohort.records += facts.count
        self.rows.count_padded(facts.padded)
        if facts.count and not cohort.is_closed:
            self.flush()
            self.staging.append_columnar(source, facts, cohort.number)
        return facts.count

    def _has_unusual(self, facts: ColumnarFacts) -> bool:
        """Whether some row of a columnar file must be looked at by itself."""
        counts_differ = facts.least != facts.most or facts.counted != facts.count
        return bool(
            facts.nameless
            or facts.undecided
            or (self._has_counts and counts_differ)
            or facts.longest > LONGEST
        )

    def count(self, version: t.Any, rows: int) -> None:
        """See `Sink`."""
        self.completeness.count(version, rows)

    def count_reject(self, errors: Sequence[RowError]) -> None:
        """See `Sink`; a member may be missing now, of one of many cohorts if that is known."""
        if not self._fans_out or any(error.cohort_id is None for error in errors):
            self.completeness.rejected += 1

    def activate(self, version: t.Any) -> None:
        """See `Sink`."""
        self.completeness.activate(version)

    def pause(self) -> None:
        """See `Sink`."""
        self.flush()

    def check(self) -> None:
        """See `Sink`."""
        self.flush()
        self.staging.wait()
        self.completeness.check()

    def prove(self, *, tap_succeeded: bool) -> None:
        """See `Sink`."""
        self.proof = self.completeness.proof(
            tap_succeeded=tap_succeeded,
            version_is_fresh=self.versions.get(self.completeness.version, False),
        )

    def settle(self) -> bool:
        """Have the plans of the stream's cohorts decided and begun; see `Sink`."""
        self.flush()
        stream = StagedStream(
            mapping=self.rows.mapping,
            staging=self.staging,
            completeness=self.completeness,
            proof=self.proof,
        )
        return self._settlement.begin(stream)

    def sample(self, cohort: int, most: int) -> list[Member]:
        """Return at most so many of the staged members of the cohort with a number."""
        self.flush()
        return self.staging.sample(cohort, most)

    def flush(self) -> None:
        """Stage the collected rows."""
        rows, cohort = self._rows, self.rows.cohort
        if rows.uids:
            self._withdraw_excluded()
            numbers = self._numbers if cohort is None else cohort.number
            self.staging.append(numbers, rows.uids, rows.anonymous_ids, rows.present)
            self._start_batch()

    def _withdraw_excluded(self) -> None:
        """Mark the collected rows of members as absent who belong to no cohort."""
        rows = self._rows
        found = self._cohorts.exclusions.find(rows.uids, rows.anonymous_ids or ())
        if not found:
            return
        stream = self.rows.mapping.stream
        by_number = {each.number: each for each in self._cohorts.of_stream(stream)}
        rows.present = rows.present or [True] * len(rows.uids)
        for index in found:
            if rows.present[index]:
                rows.present[index] = False
                (self.rows.cohort or by_number[self._numbers[index]]).excluded += 1

    def _flush_if_large(self) -> None:
        if len(self._rows.uids) >= _BATCH_ROWS:
            self.flush()

    def _start_batch(self) -> None:
        self._rows = _Rows()
        self._numbers: list[int] = []  # of each row's cohort


class _Rows:
    """Collected rows, with a column only if a row needs it: most streams need uids alone."""

    def __init__(self) -> None:
        self.uids: list[str | None] = []
        self.anonymous_ids: list[str | None] | None = None  # no row has one
        self.present: list[bool] | None = None  # every row is a member's

    def append(
        self,
        uids: list[str | None],
        anonymous_ids: list[str | None] | None,
        present: list[bool] | None,
    ) -> None:
        """Append rows, column by column."""
        before, count = len(self.uids), len(uids)
        self.uids += uids
        if self.anonymous_ids is not None:
            self.anonymous_ids += anonymous_ids or [None] * count
        elif anonymous_ids is not None and any(anonymous_ids):
            self.anonymous_ids = [*itertools.repeat(None, before), *anonymous_ids]
        if self.present is not None:
            self.present += present or [True] * count
        elif present is not None and not all(present):
            self.present = [True] * before + present
