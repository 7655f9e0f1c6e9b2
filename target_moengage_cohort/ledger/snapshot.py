"""The interface between an engine and streams whose rows are a snapshot of their cohorts."""

from __future__ import annotations

import typing as t

import msgspec

if t.TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from target_moengage_cohort.core.column_files import ColumnarRows
    from target_moengage_cohort.core.membership import Member
    from target_moengage_cohort.ledger.records import DiffCounts
    from target_moengage_cohort.ledger.samples import ObservedCounts

CohortMembers: t.TypeAlias = "tuple[int, list[Member]]"
"""Members of one cohort, by its number."""


Part: t.TypeAlias = t.Literal["additions", "removals", "approved", "resent"]
"""A part of the changes that a difference consists of."""

DifferenceKind: t.TypeAlias = t.Literal["missing", "removed", "stranger"]
"""How a member of an observed membership differs from the ledger; see `ObservedCounts`."""


class ColumnarFacts(msgspec.Struct, frozen=True):
    """The facts that decide whether rows in columns can be taken in one step."""

    types: Mapping[str, str]  # of the columns
    can_be_read_again: bool  # whether the identifiers of single rows can be found later
    version: list[tuple[int, int]]  # of the files that have these facts
    count: int  # rows
    nameless: int  # rows without an identifier
    longest: int  # bytes of the longest identifier
    undecided: int  # rows that do not state whether they are a member
    absent: int  # rows that are not a member
    pairs: int  # rows with both identifiers
    padded: int  # rows whose identifiers begin or end with white space
    counted: int  # rows with a row count
    least: int | None  # the smallest row count
    most: int | None  # the largest row count


class Difference(t.Protocol):
    """The changes that turn the ledgers of a stream's cohorts into its snapshot.

    It is valid while its staging is open. `counts` has an item for every cohort that was compared,
    by its number. `outvoted` is the number of rows whose member a later row has in another cohort,
    if each member belongs to one only.
    """

    counts: Mapping[int, DiffCounts]
    outvoted: int

    def changes(self, part: Part) -> Iterator[CohortMembers]:
        """Yield the members of a part, by rising numbers of cohorts, in chunks.

        - ``additions``: to add, in stream order.
        - ``removals``: to remove, with the identifiers that were accepted.
        - ``approved``: likewise, those whose removal is approved; ``removals`` has the
          others. It is empty if the comparison defers them.
        - ``resent``: to add again after the removals, which may take them along. They are not part
          of the additions, unless these have the same rows.
        """

    def digest(self, cohort: int, *, additions: bool, removals: bool) -> str:
        """Return a digest of a cohort's changes; the same changes have the same digest."""

    def close(self) -> None:
        """Free the memory that the difference takes."""


class Observation(t.Protocol):
    """A cohort's ledger compared with a membership that was observed elsewhere."""

    counts: ObservedCounts

    def uids(self, kind: DifferenceKind) -> Iterator[list[str]]:
        """Yield the members that differ in one way, in chunks."""


class Staging(t.Protocol):
    """The rows of a snapshot, in stream order; for use by one thread."""

    rows: int
    has_absent: bool  # whether any row marks its member as a non-member

    def append(
        self,
        cohorts: Sequence[int] | int,
        uids: Sequence[str | None],
        anonymous_ids: Sequence[str | None] | None,
        present: Sequence[bool] | None,
    ) -> None:
        """Append rows, column by column; chunks of some 100,000 rows are fastest.

        Every row has a uid or an anonymous id. `cohorts` is the number of each row's cohort, or of
        all of them. Without `anonymous_ids` no row has one, and without `present` all are members'
        rows. The caller must not change the lists afterwards. A later call may raise this one's
        error.
        """

    def facts(self, rows: ColumnarRows) -> ColumnarFacts | None:
        """Read the facts of rows in columns; ``None`` if these are of types that no plain row has.

        Raise an `InputError` if they cannot be read.
        """

    def append_columnar(self, rows: ColumnarRows, facts: ColumnarFacts, cohort: int) -> None:
        """Append all rows with these facts, which are one cohort's.

        This, or a later call, raises an `InputError` if they cannot be read or have changed.
        """

    def sample(self, cohort: int, most: int) -> list[Member]:
        """Return some members that rows of a cohort add, in an order that their keys do not have.

        Raise an `InputError` if rows in columns cannot be read again.
        """

    def wait(self) -> None:
        """Wait until all rows are staged; raise their error if they could not be read."""

    def close(self) -> None:
        """Free the memory that the rows take; differences of this staging end with it."""
