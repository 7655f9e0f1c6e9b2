"""The paused streams, for all hosts."""

from __future__ import annotations

import typing as t

from target_moengage_cohort.ledger.control.history import origin
from target_moengage_cohort.ledger.records import Pause

if t.TYPE_CHECKING:
    from target_moengage_cohort.ledger.control.history import History
    from target_moengage_cohort.ledger.control.owner import Owner

_ALL = ""  # instead of a stream's name


class Pauses:
    """The pauses of the store's partner; a pause without a stream is one of all streams."""

    def __init__(self, control: Owner, history: History) -> None:
        self._control, self._history = control, history
        self._database = control.database

    def listed(self) -> list[Pause]:
        """Return all pauses, that of all streams first."""
        query = (
            "SELECT stream, paused_at, paused_by, host FROM pauses WHERE partner = ?"
            " ORDER BY stream"
        )
        rows = self._database.rows(query, [self._control.partner])
        return [Pause(stream or None, *rest) for stream, *rest in rows]

    def of(self, stream: str) -> Pause | None:
        """Return why a stream is paused, if it is."""
        return next((each for each in self.listed() if each.stream in {None, stream}), None)

    def begin(self, stream: str | None) -> bool:
        """Pause a stream, or all; record who did that. Return `False` if it was paused before."""
        row = [self._control.partner, stream or _ALL]
        with self._database.change("pause") as transaction:
            is_new = not transaction.run(
                "SELECT 1 FROM pauses WHERE partner = ? AND stream = ?", row
            )
            if is_new:
                transaction.run(
                    "INSERT INTO pauses (partner, stream, paused_at, paused_by, host)"
                    " VALUES (?, ?, ?, ?, ?)",
                    [*row, self._control.clock(), *origin()],
                )
                self._history.add_action(transaction, "pause", None, {}, stream=stream)
        return is_new

    def end(self, stream: str | None) -> list[str | None]:
        """End the pause of a stream, or all pauses; return whose they were, `None` for all."""
        values = [self._control.partner] + ([stream] if stream else [])
        only = " AND stream = ?" if stream else ""
        query = f"DELETE FROM pauses WHERE partner = ?{only} RETURNING stream"
        with self._database.change("resume") as transaction:
            ended = [name or None for (name,) in transaction.run(query, values)]
            for name in ended:
                self._history.add_action(transaction, "resume", None, {}, stream=name)
        return sorted(ended, key=lambda name: name or _ALL)
