"""When each cohort was last synced successfully."""

from __future__ import annotations

import typing as t

if t.TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from target_moengage_cohort.ledger.control.owner import Owner

_SYNCED = "UPDATE cohorts SET synced_at = ? WHERE partner = ?"


class Freshness:
    """The times of the store's partner; only a later one replaces what is there."""

    def __init__(self, control: Owner) -> None:
        self._control = control
        self._database = control.database

    def note_streams(self, streams: Mapping[str, Collection[str]]) -> None:
        """Record that streams were synced now, each with the cohorts that were not, by their ids.

        A cohort without rows is synced, too: its stream has no news of it.
        """
        partner, now = self._control.partner, self._control.clock()
        query = "SELECT cohort_id FROM cohorts WHERE partner = ? AND stream = ? AND is_retired = 0"
        with self._database.change("note synced") as transaction:
            for stream, others in streams.items():
                if not others:
                    key = [now, partner, stream]
                    transaction.run(f"{_SYNCED} AND stream = ? AND is_retired = 0", key)
                    continue
                known = {name for (name,) in transaction.run(query, [partner, stream])}
                synced = sorted(known.difference(others))
                transaction.run_many(
                    f"{_SYNCED} AND cohort_id = ?", [(now, partner, name) for name in synced]
                )

    def note_cohort(self, cohort_id: str, at: float) -> None:
        """Record that a cohort is synced by now with what was read at a time."""
        with self._database.change("note synced") as transaction:
            transaction.run(
                f"{_SYNCED} AND cohort_id = ? AND coalesce(synced_at, 0) < ?",
                [at, self._control.partner, cohort_id, at],
            )
