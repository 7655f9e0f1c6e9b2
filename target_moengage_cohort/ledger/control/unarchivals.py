"""When the cohorts of a store were unarchived in MoEngage."""

from __future__ import annotations

import typing as t

if t.TYPE_CHECKING:
    from collections.abc import Iterable

    from target_moengage_cohort.ledger.control.database import Database

# The age in MoEngage of one without a request, which was adopted, is unknown.
_SINCE = "coalesce(u.done_at, CASE WHEN c.last_timestamp > 0 THEN c.created_at END, 0)"
# Those that were tried last come last, so that one that always fails holds up no other.
_DUE = (
    f"SELECT c.number, {_SINCE} FROM cohorts c"
    " LEFT JOIN unarchivals u ON u.cohort = c.number"
    " WHERE c.partner = ? AND c.stream = ? AND c.is_retired = 0"
    f" AND {_SINCE} <= ?"
    " ORDER BY coalesce(u.tried_at, c.created_at, 0), c.number"
)
_NOTE = (
    "INSERT INTO unarchivals (cohort, tried_at, done_at) VALUES (?, ?, ?)"
    " ON CONFLICT (cohort) DO UPDATE SET tried_at = excluded.tried_at,"
    " done_at = coalesce(excluded.done_at, unarchivals.done_at)"
)


class Unarchivals:
    """The latest attempt to unarchive each cohort; times are in seconds since 1970."""

    def __init__(self, database: Database, partner: str) -> None:
        self._database = database
        self._partner = partner

    def due(self, stream: str, until: float) -> dict[int, float]:
        """Return when cohorts of a stream were unarchived, or else created, up to a time.

        They are named by their numbers, in the order in which to try them; retired ones are left
        out.
        """
        rows = self._database.rows(_DUE, [self._partner, stream, until])
        return dict(t.cast("list[tuple[int, float]]", rows))

    def note(self, cohorts: Iterable[int], now: float, *, done: bool) -> None:
        """Record that cohorts were tried now, and whether they are unarchived."""
        if rows := [(number, now, now if done else None) for number in cohorts]:
            with self._database.change("unarchivals") as transaction:
                transaction.run_many(_NOTE, rows)
