"""One stream that is a whole cohort, or several: its rows on their way into the staging."""

from __future__ import annotations

import typing as t

from target_moengage_cohort.core.membership import Action, largest_size
from target_moengage_cohort.singer.columns import LONGEST, Columns
from target_moengage_cohort.sync.mirror.guard import Completeness, Proof

if t.TYPE_CHECKING:
    from collections.abc import Sequence

    from target_moengage_cohort.ledger.duckdb.staging import Staging
    from target_moengage_cohort.settings import Mapping
    from target_moengage_cohort.singer.batches.batch_files import Relation
    from target_moengage_cohort.sync.cohorts import SyncedCohort
    from target_moengage_cohort.sync.mirror.head_start import HeadStart
    from target_moengage_cohort.sync.rows import Sink

_ROWS_AT_ONCE = 100_000
_ROWS_WORTH_SENDING = 20_000


class Snapshot:
    """One stream's rows on their way into the staging, and what shows that all have come.

    Args:
        mapping: The stream's mapping.
        source: The tap's stream that it comes from.
        staging: Where its rows go.

    Attributes:
        mapping: The stream's mapping.
        source: The tap's stream that it comes from.
        staging: Where its rows are.
        completeness: What its messages say.
        head_start: Sends rows before all are there, where that is of use.
        is_fresh: Whether no unfinished run has used the version of its records.
        proof: What shows that it is complete; known once the input has ended.
    """

    def __init__(self, mapping: Mapping, source: str, staging: Staging) -> None:
        self.mapping = mapping
        self.source = source
        self.staging = staging
        self.completeness = Completeness(mapping.stream, mapping.expected_count_column)
        self.head_start: HeadStart | None = None
        self.is_fresh = True
        self.proof = Proof.NO
        self._counts = mapping.expected_count_column is not None
        self._fans_out = mapping.cohort is None
        self._start()

    def take(self, sink: Sink, row: t.Any) -> None:
        """Take one row.

        Raises:
            RowError: It cannot be used.
            InputError: Its row count is not that of the rows before it.
        """
        if self._counts:
            self.completeness.expect(row.expected_count)
        destination, action, member = sink.read(row)
        if destination.settlement.is_sealed:
            return
        self._uids.append(member.uid)
        self._anonymous_ids.append(member.anonymous_id)
        self._present.append(action is Action.ADD)
        if self._fans_out:
            self._cohorts.append(destination.number)
        self._flush_if_worth()

    def take_all(self, columns: Columns, places: Sequence[SyncedCohort]) -> bool:
        """Take many plain rows.

        Args:
            columns: The rows.
            places: Their cohorts, from `Sink.place`.

        Returns:
            Whether they were taken; if not, `take` them one by one.

        Raises:
            InputError: Their row count is not that of the rows before them.
        """
        sealed = {destination.settlement.is_sealed for destination in places}
        if len(sealed) > 1 or len(columns.expected_counts or ()) > 1:
            return False
        for expected in columns.expected_counts or ():
            self.completeness.expect(expected)
        if self._fans_out:
            for destination in places:
                destination.records += 1
        else:
            places[0].records += columns.count
        if True in sealed:
            return True
        self._uids += columns.uids
        self._anonymous_ids += columns.anonymous_ids or [None] * columns.count
        self._present += columns.present or [True] * columns.count
        if self._fans_out:
            self._cohorts += [destination.number for destination in places]
        self._flush_if_worth()
        return True

    def take_relation(self, relation: Relation, destination: SyncedCohort) -> bool:
        """Take all rows of a columnar file, which never become Python's.

        Args:
            relation: The rows.
            destination: The cohort that all of them are of.

        Returns:
            Whether they were taken; if not, take what it has chunk by chunk.

        Raises:
            InputError: The file cannot be read, or its row count is not that of the rows before.
        """
        if not relation.is_uniform:
            return False
        facts = relation.facts()
        largest = largest_size(facts.longest, has_both=facts.pairs > 0)
        disagree = self._counts and (facts.least != facts.most or facts.counted != facts.count)
        if (
            facts.nameless
            or facts.undecided
            or disagree
            or facts.longest > LONGEST
            or largest > destination.capacity
        ):
            return False
        if self._counts and facts.count:
            self.completeness.expect(facts.least)
        destination.records += facts.count
        if facts.count and not destination.settlement.is_sealed:
            self.flush()
            with relation.translated():
                self.staging.append_from(
                    relation.cursor,
                    relation.select(),
                    rows=facts.count,
                    has_absent=facts.absent > 0,
                    has_pairs=facts.pairs > 0,
                )
        return True

    def pause(self) -> None:
        """Make use of a time without input."""
        if self.head_start is not None:
            self._flush_if_worth()
            self.head_start.advance()

    def _flush_if_worth(self) -> None:
        """Have the staging take what was collected, if that is enough."""
        enough = _ROWS_AT_ONCE if self.head_start is None else _ROWS_WORTH_SENDING
        if len(self._uids) >= enough:
            self.flush()

    def flush(self) -> None:
        """Have the staging take what was collected; what it took before may be sent meanwhile.

        Raises:
            TargetError: It cannot, or a request has failed for good.
        """
        if self.head_start is not None:
            self.head_start.advance()
        if self._uids:
            self.staging.append(
                self._cohorts if self._fans_out else None,
                self._uids,
                self._anonymous_ids if any(self._anonymous_ids) else None,
                None if all(self._present) else self._present,
            )
            self._start()

    def _start(self) -> None:
        self._cohorts: list[int] = []
        self._uids: list[str | None] = []
        self._anonymous_ids: list[str | None] = []
        self._present: list[bool] = []
