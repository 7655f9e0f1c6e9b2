"""The part of the interface for monitoring runs."""

from __future__ import annotations

import typing as t

if t.TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from target_moengage_cohort.ledger.control.alert_outbox import AlertOutbox
    from target_moengage_cohort.ledger.control.control import Control
    from target_moengage_cohort.ledger.records import Pause


class WatchedStore(t.Protocol):
    """What control knows of freshness and pauses; it never waits for a stream's lease."""

    _control: Control

    @property
    def exists(self) -> bool:
        """See `LedgerStore`."""

    def _ready(self) -> Control:
        """See `LedgerStore`."""

    @property
    def alerts(self) -> AlertOutbox:
        """What was reported of each stream."""
        return self._ready().alerts

    def note_synced(self, streams: Mapping[str, Collection[str]]) -> None:
        """Record that streams were synced now, each with the cohorts that were not, by their ids.

        All other cohorts of these streams were, even without rows.
        """
        if streams:
            self._ready().freshness.note_streams(streams)

    def note_confirmed(self, cohort_id: str, at: float) -> None:
        """Record that all that was read of a cohort at a time is accepted by now."""
        self._ready().freshness.note_cohort(cohort_id, at)

    def pauses(self) -> list[Pause]:
        """Return what is paused now, by any host."""
        return self._ready().pauses.listed() if self.exists else []

    def pause_of(self, stream: str) -> Pause | None:
        """Return the pause that holds for a stream now, if there is one; from any thread."""
        return self._ready().pauses.of(stream) if self.exists else None

    def pause(self, stream: str | None) -> bool:
        """Pause a stream, or all; return `False` if it was paused before."""
        return self._ready().pauses.begin(stream)

    def resume(self, stream: str | None) -> list[str | None]:
        """End the pause of a stream, or all pauses; return whose they were."""
        return self._ready().pauses.end(stream) if self.exists else []
