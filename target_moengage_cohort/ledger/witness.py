"""The witness: the newest run of a store that the state directory knows.

It is written after control has committed, so after a crash it is at most behind. A store that is
behind its witness is therefore an older one, as after a backup was restored.
"""

from __future__ import annotations

import typing as t

import msgspec

from target_moengage_cohort.core import files
from target_moengage_cohort.core.commands import suggest
from target_moengage_cohort.core.errors import LedgerError, SettingsError
from target_moengage_cohort.core.files import stem
from target_moengage_cohort.ledger.repairs import ADOPTION
from target_moengage_cohort.settings.addresses import state_path

if t.TYPE_CHECKING:
    from target_moengage_cohort.core.files import Step
    from target_moengage_cohort.ledger.control.control import Control


_NEWEST = "SELECT last_run, last_request FROM store"


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """The store at a place; `last_run` and `last_request` never fall."""

    place: str
    store_id: str
    last_run: int
    last_request: int


class Witness:
    """The witness of the store at a place."""

    def __init__(self, control: Control, place: str, step: Step) -> None:
        self._control = control
        self._place = place
        self._path = state_path() / f"ledger-{stem(place)}.json"
        self._step = step
        self._written: Seen | None = None

    @property
    def exists(self) -> bool:
        """Whether the state directory knows a store at the place."""
        return files.exists(self._path)

    def read(self) -> Seen | None:
        """Return what is known; read it before control, which another run may change meanwhile."""
        try:
            with files.as_ledger_error(self._path, "read"):
                is_there = files.exists(self._path)
                return msgspec.json.decode(self._path.read_bytes(), type=Seen) if is_there else None
        except msgspec.MsgspecError:
            command = suggest("ledger", "accept-older")
            msg = f"{self._path} is damaged; to replace it, run: {command}"
            raise LedgerError("ledger_corrupt", msg) from None

    def check(self, known: Seen | None) -> None:
        """Raise a `SettingsError` unless control is the store that is known, and as new."""
        control = self._control
        if known is None:
            return
        if not control.store_id:
            fault = "is missing, although the state directory has a record of it"
        elif control.store_id != known.store_id:
            fault = "is not the one that the state directory has a record of"
        else:
            ((run, request),) = control.database.rows(_NEWEST)
            if run >= known.last_run and request >= known.last_request:
                return
            fault = "is older than the state directory's record of it"
        go_on = "continue with this one" if control.store_id else "start with an empty one"
        msg = (
            f"ledger_uri: the ledger {self._place} {fault} ({self._path}), so nothing is sent. "
            "If it was moved, set ledger_uri to its new place; otherwise restore its newest copy. "
            f"To {go_on} instead, run: {suggest('ledger', 'accept-older')}. Then {ADOPTION}. "
            "To have the next run send all members again, in case MoEngage lacks some, run: "
            f"{suggest('resync')}"
        )
        raise SettingsError("ledger_older", msg)

    def write(self) -> None:
        """Record the store as it is; control's lock keeps other processes out."""
        with self._control.database.change("witness") as transaction:
            ((run, request),) = transaction.run(_NEWEST)
            store_id = self._control.store_id
            seen = Seen(place=self._place, store_id=store_id, last_run=run, last_request=request)
            if seen != self._written:
                self._replace(seen)

    def write_committed(self) -> None:
        """Record what this process has committed, which a store that has failed may have lost."""
        if self._written is None:  # nothing was changed
            return
        known = self.read() or self._written  # another process may have written a newer one
        facts = [(each.last_run, each.last_request) for each in (self._written, known)]
        run, request = map(max, zip(*facts, self._control.committed, strict=True))
        seen = msgspec.structs.replace(self._written, last_run=run, last_request=request)
        if seen != known:
            self._replace(seen)

    def _replace(self, seen: Seen) -> None:
        files.make_directory(self._path.parent)
        part = self._path.with_name(f"{self._path.name}.part")
        with files.as_ledger_error(self._path, "written"):
            files.replace(self._path, msgspec.json.encode(seen), part, self._step)
            files.sync(self._path.parent)
        self._written = seen

    def delete(self) -> None:
        """Delete the record."""
        with files.as_ledger_error(self._path, "deleted"):
            self._path.unlink(missing_ok=True)
