"""The ledgers of one destination on a PostgreSQL server: one schema, for all hosts."""

from __future__ import annotations

import contextlib
import tempfile
import typing as t
from pathlib import Path

from target_moengage_cohort.core import files
from target_moengage_cohort.core.errors import SettingsError
from target_moengage_cohort.core.files import stem
from target_moengage_cohort.ledger.control.control import Control
from target_moengage_cohort.ledger.duckdb.duckdb_store import DuckDBStore
from target_moengage_cohort.ledger.duckdb.instance import Engine
from target_moengage_cohort.ledger.movable import Part
from target_moengage_cohort.ledger.postgres import part_schema, server_tables
from target_moengage_cohort.ledger.postgres.bulk import Bulk
from target_moengage_cohort.ledger.postgres.lease_rows import LeaseRows, boot_clock
from target_moengage_cohort.ledger.postgres.ledger_server import Server
from target_moengage_cohort.ledger.postgres.mirrored_members import MirroredMembers
from target_moengage_cohort.ledger.postgres.postgres_control import PostgresDatabase
from target_moengage_cohort.ledger.postgres.server_window import ServerWindow

if t.TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from target_moengage_cohort.core.files import Step
    from target_moengage_cohort.core.interrupts import Patience
    from target_moengage_cohort.core.rate_limits import RateLimit
    from target_moengage_cohort.ledger.duckdb.members_file import Owner
    from target_moengage_cohort.ledger.records import Fault, Holder
    from target_moengage_cohort.settings import Settings

_SCHEMA = "moengage_cohort_"


class PostgresStore(DuckDBStore):
    """A `LedgerStore` on a server; for the arguments see `open_store`.

    `lease_clock` returns the seconds by which this process counts its leases.
    """

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
        uri, _, suffix = t.cast("str", settings.ledger_uri).partition(part_schema.MARK)
        schema = _SCHEMA + stem(settings.base_url, settings.workspace_id)
        self._server = Server(uri, schema + suffix, patience)
        self.leases = LeaseRows(
            self._server,
            settings.partner,
            settings.request_timeout_seconds,
            is_optional=read_only,
            clock=self.lease_clock,
        )
        self._database = PostgresDatabase(self._server, self.leases, read_only=read_only, step=step)
        control = Control(settings, self._database, clock)
        place = self._server.place
        super().__init__(settings, control, place, run_id=run_id, step=step, patience=patience)
        self._bulk = Bulk(self._server, self.leases, step, read_only=read_only)
        self._directory = Path(tempfile.gettempdir())

    lease_clock = staticmethod(boot_clock)

    @property
    def exists(self) -> bool:
        """Whether a cohort may have a ledger: there is a store, or should be one."""
        return self._database.exists or self._witness.exists

    def check(self) -> None:
        """See `LedgerStore.check`."""
        self._prepare()
        self._database.check_rights()
        self._ready()

    def shared_window(self, limit: RateLimit) -> ServerWindow:
        """See `LedgerStore.shared_window`."""
        self._ready()
        return ServerWindow(self._server, limit)

    def unknown_files(self) -> list[Fault]:
        """See `LedgerStore.unknown_files`."""
        return []

    def _prepare(self) -> None:
        if not (self._settings.ledger_create or self._database.exists):
            msg = (
                f"ledger_create: is false, and there is no ledger in {self.place}. Check that "
                "ledger_uri is right, or set ledger_create to true"
            )
            raise SettingsError("ledger_missing", msg)

    # Moving

    @property
    def uri(self) -> str:
        """See `MovableStore.uri`."""
        return self._server.uri

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Path]:
        """See `MovableStore.scratch`."""
        with contextlib.closing(files.Scratch()) as scratch:
            yield scratch.path

    @contextlib.contextmanager
    def part(self) -> Iterator[Part]:
        """See `MovableStore.part`."""
        if self._database.exists:
            raise part_schema.occupied(self.place)
        schema = part_schema.PartSchema(self._server, self._step)
        with self.scratch() as directory, schema:
            yield Part(schema.settings(self._settings), directory, schema.put_in_place)

    def prove_leases(self) -> None:
        """See `MovableStore.prove_leases`."""
        self.leases.renew()

    def _start(self, spill: Path) -> Engine:
        self._directory = spill
        return Engine(self._control.hash_key, spill, read_only=False)  # the copies of members

    def _members(self, engine: Engine, owner: Owner) -> MirroredMembers:
        return MirroredMembers(engine, self._directory, owner, self._step, self._bulk)

    def _lock_stream(self, stream: str, me: Holder) -> None:
        self.leases.take(stream, me, self._patience)

    def _unlock_stream(self, stream: str, *, expires: bool) -> None:
        self.leases.release(stream, expires=expires)

    def _holding(self) -> Iterable[str]:
        return [run_id for (run_id,) in self._database.rows(server_tables.HELD)]

    def end_requests(self) -> None:
        """See `LedgerStore.end_requests`."""
        self.leases.end()  # first, so that every request that may still leave is in flight
        super().end_requests()

    def _close_place(self) -> None:
        self._bulk.close()
        self.leases.close()
