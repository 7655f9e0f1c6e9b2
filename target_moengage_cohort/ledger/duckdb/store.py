"""The ledgers of one destination on one machine: a directory with control and members' files."""

from __future__ import annotations

import contextlib
import typing as t

from target_moengage_cohort.core import files
from target_moengage_cohort.core.files import stem
from target_moengage_cohort.ledger.control.control import Control
from target_moengage_cohort.ledger.control.sqlite import SQLiteDatabase
from target_moengage_cohort.ledger.duckdb import location
from target_moengage_cohort.ledger.duckdb.duckdb_store import DuckDBStore
from target_moengage_cohort.ledger.duckdb.leases import Leases
from target_moengage_cohort.ledger.duckdb.members import Members
from target_moengage_cohort.ledger.records import Fault

if t.TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from target_moengage_cohort.core.files import Step
    from target_moengage_cohort.core.interrupts import Patience
    from target_moengage_cohort.ledger.duckdb.instance import Engine
    from target_moengage_cohort.ledger.duckdb.members_file import Owner
    from target_moengage_cohort.ledger.movable import Part
    from target_moengage_cohort.ledger.records import Holder
    from target_moengage_cohort.settings import Settings


class LocalStore(DuckDBStore):
    """A `LedgerStore` in a directory; for the arguments see `open_store`."""

    _advice = ". In a container, keep this directory on a volume (ledger_uri)"

    def __init__(
        self,
        settings: Settings,
        *,
        run_id: str,
        read_only: bool,
        step: Step,
        clock: Callable[[], float],
        patience: Patience,
    ) -> None:
        self.directory = self._directory = location.store_directory(settings)
        self._database = SQLiteDatabase(
            self.directory, read_only=read_only, step=step, patience=patience
        )
        control = Control(settings, self._database, clock)
        place = str(self.directory)
        super().__init__(settings, control, place, run_id=run_id, step=step, patience=patience)
        self._leases = Leases(self.directory, is_optional=read_only)

    @property
    def exists(self) -> bool:
        """Whether a cohort may have a ledger: there is a directory, or should be one."""
        return files.exists(self.directory) or self._witness.exists

    def check(self) -> None:
        """See `LedgerStore.check`."""
        location.check_place(self.directory, self._settings)
        with files.as_ledger_error(self.directory, "used"):
            files.try_out(self.directory)
        self._ready()

    def accept_older(self) -> bool:
        """See `LedgerStore.accept_older`."""
        self._database.trusts_host = True
        return super().accept_older()

    def unknown_files(self) -> list[Fault]:
        """See `LedgerStore.unknown_files`."""
        known = self._ready().all_streams() if self.exists else []
        stems = {stem(*names) for names in known}
        paths = {
            path: path.stem.removeprefix("members-")
            for path in self.directory.glob("members-*.duckdb")
        }
        message = "this file of members belongs to no stream"
        with contextlib.closing(Leases(self.directory, is_optional=True)) as leases:
            return [
                Fault(code="unknown_file", message=message, path=str(path))
                for path, base in sorted(paths.items())
                if base not in stems and leases.is_free(base)
            ]

    def _refuse_remains(self) -> None:
        location.refuse_old_format(self.directory)
        location.refuse_remains(self.directory)

    def _prepare(self) -> None:
        location.check_place(self.directory, self._settings)
        files.make_directory(self.directory)
        self._step("create directory")
        files.remove_dead(self.directory.glob("spill-*"))
        location.remove_dead_parts(self.directory)

    def _spill(self) -> Path | None:
        return None if self._read_only else self.directory / f"spill-{self.run_id}"

    def _members(self, engine: Engine, owner: Owner) -> Members:
        path = self.directory / f"members-{self._base(owner.stream)}.duckdb"
        return Members(engine, path, owner, self._step)

    def _base(self, stream: str) -> str:
        return stem(self._settings.partner, stream)

    def _lock_stream(self, stream: str, me: Holder) -> None:
        self._leases.take(stream, self._base(stream), me, self._patience)

    def _unlock_stream(self, stream: str, *, expires: bool) -> None:
        del expires  # the lock is the process's, and goes with it
        self._leases.release(self._base(stream))

    def _holding(self) -> Iterable[str]:
        with contextlib.closing(Leases(self.directory, is_optional=True)) as leases:
            for path in self.directory.glob("stream-*.lock"):
                base = path.stem.removeprefix("stream-")
                if (holder := leases.holder(base)) is not None and not leases.is_free(base):
                    yield holder.run_id

    # Moving

    @property
    def uri(self) -> str:
        """See `MovableStore.uri`."""
        return str(self.directory.parent)

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Path]:
        """See `MovableStore.scratch`."""
        scratch = files.Scratch(self.directory / f"spill-{self.run_id}-pieces")
        with contextlib.closing(scratch):
            yield scratch.path

    def part(self) -> AbstractContextManager[Part]:
        """See `MovableStore.part`."""
        return location.part(self.directory, self._settings, self.run_id, self._step)

    # The end

    def _close_place(self) -> None:
        self._leases.close()
