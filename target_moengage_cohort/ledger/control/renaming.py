"""Renamed streams: what control knows of a stream becomes the other stream's."""

from __future__ import annotations

import typing as t

from msgspec.structs import replace

from target_moengage_cohort.ledger.control.plans import insert

if t.TYPE_CHECKING:
    from target_moengage_cohort.ledger.control.control import Control
    from target_moengage_cohort.ledger.control.database import Transaction
    from target_moengage_cohort.ledger.records import CohortEntry

_CALM = {None, "ok"}  # the alert states that nothing recovers from
_COPIED = {
    "versions": "version, run_id",
    "run_streams": "run_id",
    "pauses": "paused_at, paused_by, host",
}
_MERGED = ("latest_run", "is_whole", "alert_state", "last_timestamp")


def hand_over(control: Control, former: str, stream: str, entries: list[CohortEntry]) -> None:
    """Give all cohorts of a stream to another one, and record that, in one transaction.

    Of what is known of both streams, the more careful holds. Plans and approvals stay valid. Both
    leases must be held.
    """
    key, numbers = [control.partner, former], [entry.number for entry in entries]
    plans = control.plans.of_cohorts(numbers)
    with control.database.change("hand over") as transaction:
        control.write_new(transaction)
        _merge(transaction, control.partner, former, stream)
        for table, columns in _COPIED.items():
            transaction.run(
                f"INSERT INTO {table} (stream, partner, {columns}) SELECT ?, partner, {columns}"
                f" FROM {table} WHERE partner = ? AND stream = ? ON CONFLICT DO NOTHING",
                [stream, *key],
            )
        transaction.run("DELETE FROM pauses WHERE partner = ? AND stream = ?", key)
        renamed = [(each, replace(plan, stream=stream)) for each in plans for plan in plans[each]]
        insert(transaction, renamed)
        query = "UPDATE cohorts SET stream = ? WHERE partner = ? AND stream = ?"
        transaction.run(query, [stream, *key])
        counts = {"cohorts": len(entries), "members": sum(each.counts.base for each in entries)}
        control.history.add_action(transaction, "reassign", None, counts, stream=stream)


def _merge(transaction: Transaction, partner: str, former: str, stream: str) -> None:
    """Merge the facts of both streams; the previous stream's alert becomes the other's."""
    query = f"SELECT {', '.join(_MERGED)} FROM streams WHERE partner = ? AND stream = ?"
    old, new = (
        next(iter(transaction.run(query, [partner, name])), (None,) * len(_MERGED))
        for name in (former, stream)
    )
    wholes, timestamps = (
        [each for each in pair if each is not None] for pair in ((old[1], new[1]), (old[3], new[3]))
    )
    facts = [
        new[0] or old[0],
        min(wholes, default=None),
        (new[2] or old[2]) if old[2] in _CALM or new[2] not in _CALM else old[2],
        max(timestamps, default=None),
    ]
    updates = ", ".join(f"{name} = excluded.{name}" for name in _MERGED)
    transaction.run(
        f"INSERT INTO streams (partner, stream, has_members, {', '.join(_MERGED)})"
        f" VALUES (?, ?, 0, ?, ?, ?, ?) ON CONFLICT (partner, stream) DO UPDATE SET {updates}",
        [partner, stream, *facts],
    )
    query = "UPDATE streams SET alert_state = NULL WHERE partner = ? AND stream = ?"
    transaction.run(query, [partner, former])
