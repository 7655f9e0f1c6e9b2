"""The part of an engine's interface by which `moving` moves a whole store to another place."""

from __future__ import annotations

import typing as t

from target_moengage_cohort.core.commands import suggest
from target_moengage_cohort.core.errors import BusyError, LedgerError, SettingsError
from target_moengage_cohort.ledger.control import contents

if t.TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from contextlib import AbstractContextManager
    from pathlib import Path

    from target_moengage_cohort.ledger.control.control import Control
    from target_moengage_cohort.ledger.control.database import Transaction
    from target_moengage_cohort.ledger.store_facts import StoreFacts
    from target_moengage_cohort.settings import Settings


class Part(t.NamedTuple):
    """An empty place for a store that is not whole yet.

    Attributes:
        settings: The settings of the store there.
        directory: A private directory for temporary files as large as a stream's members.
        put_in_place: Makes what is there, with all of its files closed, the store of the place.
            After an error it is not that, and never will be; an `UnconfirmedError` is raised if it
            may be.
    """

    settings: Settings
    directory: Path
    put_in_place: Callable[[], None]


class UnconfirmedError(LedgerError):
    """A copy may be in its place already, or may not be; only the user can find out."""

    def __init__(self, uri: str, cause: object) -> None:
        msg = (
            f"{cause}. It is unknown whether {uri} has the new ledger. To find out, set "
            f"ledger_uri to it, then run: {suggest('status')}"
        )
        super().__init__("ledger_copy_unconfirmed", msg)


class MovableStore(t.Protocol):
    """A store that can be moved. Its leases are held meanwhile, those of all partners."""

    place: str
    _control: Control

    def _ready(self) -> Control:
        """See `LedgerStore`."""

    # Each engine's

    @property
    def uri(self) -> str:
        """The value of `ledger_uri` for this place, without a password."""

    def scratch(self) -> AbstractContextManager[Path]:
        """Return a private directory, which is deleted at the end, as `Part.directory` is."""

    def part(self) -> AbstractContextManager[Part]:
        """Return a place for a store that is to be put into this one, which must have none.

        Unless it was put in place nothing is left of it at the end. What a dead process has left is
        deleted by a later one that uses the place; on a server, once it is an hour old.
        """

    def prove_leases(self) -> None:
        """Raise a `LedgerError` if a lease was lost since it was taken; local ones never are."""

    def restore(self, stream: str, paths: Iterable[Path]) -> None:
        """Fill a stream's members, of which control knows, from what `StreamLedger.dump` wrote."""

    # Control's

    def require(self) -> None:
        """Raise a `SettingsError` unless there is a store."""
        if not self._control.database.exists:
            msg = (
                f"there is no ledger in {self.place}; set ledger_uri to the place of an "
                "existing ledger"
            )
            raise SettingsError("no_ledger", msg)

    def facts(self) -> StoreFacts:
        """Return what the store is."""
        return contents.facts(self._ready().database.rows)

    def dump_control(self, path: Path) -> StoreFacts:
        """Write all of control to a file; return what the store is at that moment."""
        with self._ready().database.change("dump") as transaction:
            contents.dump(transaction.run, path)
            return contents.facts(transaction.run)

    def create(self, path: Path, kind: str) -> StoreFacts:
        """Create the store with the control that a file has; record the kind of command."""

        def load(transaction: Transaction) -> None:
            contents.load(transaction, path)
            self._control.history.add_action(transaction, kind, None, {})

        self._control.load = load
        return self.facts()

    def mark_moved(self, facts: StoreFacts, uri: str, prove: Callable[[], None]) -> None:
        """Mark the store as moved to a place; `reopen` deletes the mark.

        Raise a `BusyError` instead if the store has changed. `prove` is called when
        no other process can change the store, and may raise an error, too.
        """
        with self._ready().database.change("move") as transaction:
            if contents.facts(transaction.run) != facts:
                msg = f"the ledger {self.place} was changed while it was copied; run again"
                raise BusyError("ledger_busy", msg)
            prove()
            transaction.run("UPDATE store SET moved_to = ?", [uri])

    def ignore_move(self) -> None:
        """Use the store even if it is marked as moved."""
        self._control.ignores_move = True

    def moved_to(self) -> str | None:
        """Return where the store was moved to, if it was."""
        self.ignore_move()
        ((uri,),) = self._ready().database.rows("SELECT moved_to FROM store")
        return t.cast("str | None", uri)

    def reopen(self) -> None:
        """Delete the mark of `mark_moved`, if there is one."""
        self.ignore_move()
        with self._ready().database.change("reopen") as transaction:
            transaction.run("UPDATE store SET moved_to = NULL")
