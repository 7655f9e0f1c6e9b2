"""The part of an engine's interface that keeps the history: runs and commands."""

from __future__ import annotations

import typing as t

from target_moengage_cohort.ledger.control.history_reader import HistoryReader

if t.TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from target_moengage_cohort.core.membership import Member
    from target_moengage_cohort.ledger.control.control import Control
    from target_moengage_cohort.ledger.records import (
        CohortEntry,
        HistoryEntry,
        MemberChange,
        RunEntry,
        RunProgress,
    )


class RecordedStore(t.Protocol):
    """A store that knows what was done to it."""

    _control: Control
    _read_only: bool

    def _ready(self) -> Control:
        """See `LedgerStore`."""

    def write_progress(self, progress: RunProgress) -> None:
        """Show other processes how far this run is, until the store is closed; not if read-only."""
        if not self._read_only:
            self._ready().history.write_progress(progress)

    def runs_under_way(self) -> list[RunProgress]:
        """Return the progress of the runs whose process is alive, the oldest first."""

    def note_run(
        self,
        run: HistoryEntry,
        cohorts: Iterable[HistoryEntry],
        entries: Mapping[int, RunEntry],
    ) -> None:
        """Record the outcome of this run: its own, for some cohorts, and by the cohorts' numbers.

        Nothing is recorded in a store that does not exist.
        """
        if not self._read_only and (entries or self._control.database.exists):
            self._ready().history.finish(run, cohorts, entries)

    def note_action(
        self,
        kind: str,
        entry: CohortEntry | None = None,
        *,
        status: str = "succeeded",
        error: str | None = None,
        **counts: int,
    ) -> None:
        """Record a command on a cohort, or on all, with its numbers, or the code of its error."""
        self._ready().history.note_action(kind, entry, counts, status, error)

    def last_actions(self, kind: str) -> dict[str, int]:
        """Return the rising number of a command's latest record, by the cohort's id."""
        return self._ready().history.last_actions(kind)

    def history(self, since: str = "", cohort_id: str | None = None) -> list[HistoryEntry]:
        """Return runs and commands since a time in UTC, the newest first; never waits.

        Of a cohort, a run has what it did to it, and is left out if it did nothing to one of many.
        """
        return self.history_reader().latest_first(since, cohort_id)

    def changes_after(self, number: int) -> Iterator[MemberChange]:
        """Yield the accepted changes of members that are kept, after that of a number."""
        return self._ready().changes.after(number)

    def erase_changes(self, stream: str, members: Sequence[Member]) -> None:
        """Erase members from the changes that are kept of a stream's cohorts."""
        self._ready().changes.erase(stream, members)

    def history_reader(self) -> HistoryReader:
        """Return what reads the history, which never waits."""
        control = self._ready()
        alive = {each.run_id for each in self.runs_under_way()}
        return HistoryReader(control.database, control.partner, alive)
