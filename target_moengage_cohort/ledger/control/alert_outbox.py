"""What was last reported of each stream, and the events that were not sent yet."""

from __future__ import annotations

import typing as t

if t.TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from target_moengage_cohort.ledger.control.database import Rows
    from target_moengage_cohort.ledger.control.owner import Owner

    States: t.TypeAlias = Mapping[str, str | None]
    Decide: t.TypeAlias = Callable[[States], tuple[Mapping[str, str], Mapping[str, str]]]

_MOST = 1_000  # events that wait: a webhook may be gone for ever


class AlertOutbox:
    """The alerts of the store's partner, to be sent by any host."""

    def __init__(self, control: Owner) -> None:
        self._control = control
        self._database = control.database

    def advance(self, streams: Collection[str], decide: Decide) -> None:
        """Change what was reported of streams, and add events, in one transaction.

        `decide` takes what was reported of them so far, and returns what is to be recorded instead,
        by stream, and the bodies of the events, by their ids.
        """
        if not any(decide(self._reported(self._database.rows, streams))):
            return
        with self._database.change("alerts") as transaction:
            states, events = decide(self._reported(transaction.run, streams))
            partner = self._control.partner
            transaction.run_many(
                "INSERT INTO streams (partner, stream, has_members, alert_state)"
                " VALUES (?, ?, 0, ?) ON CONFLICT (partner, stream)"
                " DO UPDATE SET alert_state = excluded.alert_state",
                [(partner, stream, state) for stream, state in states.items()],
            )
            for event_id, body in events.items():
                transaction.run(
                    "INSERT INTO alerts (number, event_id, partner, created_at, body)"
                    " SELECT coalesce(max(number), 0) + 1, ?, ?, ?, ? FROM alerts",
                    [event_id, partner, self._control.clock(), body],
                )
            transaction.run(
                "DELETE FROM alerts WHERE number <= (SELECT max(number) FROM alerts) - ?", [_MOST]
            )

    def _reported(
        self, run: Callable[..., Rows], streams: Collection[str]
    ) -> dict[str, str | None]:
        query = "SELECT stream, alert_state FROM streams WHERE partner = ?"
        known = dict(t.cast("list[tuple[str, str | None]]", run(query, [self._control.partner])))
        return {stream: known.get(stream) for stream in streams}

    def waiting(self) -> list[tuple[str, str]]:
        """Return the ids and bodies of the events that were not sent yet, the oldest first."""
        query = "SELECT event_id, body FROM alerts WHERE partner = ? ORDER BY number"
        return t.cast("list[tuple[str, str]]", self._database.rows(query, [self._control.partner]))

    def note_sent(self, event_id: str) -> None:
        """Delete an event that was sent."""
        with self._database.change("alert sent") as transaction:
            transaction.run("DELETE FROM alerts WHERE event_id = ?", [event_id])
