"""A ledger's file in use: attached, locked, read and changed."""

from __future__ import annotations

import contextlib
import typing as t

import msgspec

from target_moengage_cohort.core.errors import LedgerError, SettingsError
from target_moengage_cohort.core.membership import Member
from target_moengage_cohort.ledger.duckdb.catalog import newer
from target_moengage_cohort.ledger.duckdb.instance import EMPTY_SCHEMA, translated
from target_moengage_cohort.ledger.records import FORMAT, CohortEntry

if t.TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from target_moengage_cohort.core.files import Lock
    from target_moengage_cohort.ledger.duckdb.catalog import Catalog
    from target_moengage_cohort.ledger.duckdb.instance import Cursor, DatabaseFile, Engine

CHUNK = 10_000
"""The most members in a list that an iterator yields."""


class LedgerParts(msgspec.Struct, frozen=True, kw_only=True):
    """The dependencies of a ledger."""

    engine: Engine
    catalog: Catalog
    file: DatabaseFile
    lock: Lock | None
    entry: CohortEntry
    created: bool
    closed: Callable[[], object]


class Connection:
    """The file, and its values in memory; see `CohortLedger` for the attributes."""

    def __init__(self, parts: LedgerParts) -> None:
        self._engine = parts.engine
        self._catalog = parts.catalog
        self._file = parts.file
        self._file_lock = parts.lock
        self._read_only = parts.catalog.read_only
        self._step = parts.catalog.step
        self._closed = parts.closed
        self._is_closed = False
        self._failure: LedgerError | None = None
        self.entry = parts.entry
        self.created = parts.created
        self.is_sealed = False
        self.last_timestamp = 0
        self.revision = 0
        self.exists = not self._read_only or self._file.path.exists()
        self._tables = self._file.name if self.exists else EMPTY_SCHEMA
        self._folded = f"memory.f{self._file.name}"
        self._cursor = self._engine.cursor()

    # Reading and writing

    @contextlib.contextmanager
    def _using(self) -> Iterator[Cursor]:
        """Attach the file, keep it attached and lock other threads out."""
        with self._file.lock:
            if self._failure is not None:
                raise self._failure
            if self._is_closed:
                msg = f"the ledger {self._file.path} was closed; run again"
                raise LedgerError("ledger_unusable", msg)
            self._file.pins += 1
            try:
                with self._failing():
                    if self.exists:
                        self._engine.attach(self._file)
                    yield self._cursor
            finally:
                self._file.pins -= 1

    @contextlib.contextmanager
    def _failing(self) -> Iterator[None]:
        """Abandon the ledger at an error: afterwards it is unknown what was recorded."""
        try:
            with translated(self._file.path):
                yield
        except LedgerError as error:
            self._failure = error  # later calls raise it again
            raise

    @contextlib.contextmanager
    def _change(self, name: str) -> Iterator[Cursor]:
        """Change the tables in one transaction, durable when this ends."""
        with self._using() as cursor:
            cursor.execute("BEGIN")
            try:
                yield cursor
                self._step(f"{name}: before commit")
                cursor.execute("COMMIT")
            except BaseException:
                msg = f"the ledger {self._file.path} was abandoned after an error; run again"
                self._failure = LedgerError("ledger_unusable", msg)
                with contextlib.suppress(Exception):
                    cursor.execute("ROLLBACK")
                raise
            self._step(f"{name}: committed")

    def _checkpoint(self) -> None:
        """Free what DuckDB keeps for deleted rows; this file must have no half-read result."""
        self._cursor.execute(f"CHECKPOINT {self._tables}")

    def _run(self, statement: str, parameters: Sequence[object] = ()) -> None:
        """Execute a statement that names the tables' schema ``{s}`` and the folded one ``{v}``."""
        self._cursor.execute(statement.format(s=self._tables, v=self._folded), parameters)

    def _deleted(self, statement: str, parameters: Sequence[object] = ()) -> int:
        """Execute a DELETE likewise; return the number of deleted rows."""
        self._run(statement, parameters)
        return int(self._cursor.fetchall()[0][0])

    def _run_all(self, statements: Iterable[str]) -> None:
        for statement in statements:
            self._run(statement)

    def _value(self, query: str) -> int:
        rows = self._cursor.execute(query).fetchall()  # all: a half-read result keeps its file open
        return int(rows[0][0])

    def _members_sql(self, members: Sequence[Member]) -> tuple[str, list[object]]:
        """Return SQL for a table of members (h, uid, anonymous_id, i), and its parameters."""
        h = self._engine.hash_sql("uid", "anonymous_id")
        rows_sql = (
            f"(SELECT {h} AS h, * FROM (SELECT unnest(?::VARCHAR[]) AS uid, "
            "unnest(?::VARCHAR[]) AS anonymous_id, unnest(range(?)) AS i))"
        )
        uids = [member.uid for member in members]
        return rows_sql, [uids, [member.anonymous_id for member in members], len(members)]

    def _rows(self, select: str, parameters: Sequence[object] = ()) -> Iterator[list[t.Any]]:
        """Yield a query's rows as of now, in chunks; later changes do not show."""
        with self._using():
            cursor = self._engine.cursor()
            cursor.execute(f"CREATE TEMP TABLE rows AS {select}", parameters)
            cursor.execute("FROM rows")

        def chunks() -> Iterator[list[t.Any]]:
            with contextlib.closing(cursor), translated(self._file.path):
                while rows := cursor.fetchmany(CHUNK):
                    yield rows

        return chunks()

    def _members(self, select: str, parameters: Sequence[object] = ()) -> Iterator[list[Member]]:
        """Yield the members of a query for uid and anonymous_id, in chunks."""
        rows = self._rows(select, parameters)
        return ([Member(uid, anonymous_id) for uid, anonymous_id in chunk] for chunk in rows)

    # The one row of meta, and the catalog

    def _write_meta(self, **values: object) -> None:
        names = ", ".join(f"{name} = ?" for name in values)
        self._run(f"UPDATE {{s}}.meta SET {names}", list(values.values()))

    def _outdate(self) -> None:
        """Raise the revision within a transaction: plans made before are outdated."""
        self.revision += 1
        self._write_meta(revision=self.revision)

    def _list(self, **changes: object) -> None:
        """Change the entry in the catalog."""
        self.entry = msgspec.structs.replace(self.entry, **changes)
        with self._failing():
            self._catalog.write_entry(self.entry)

    def _unsettle(self) -> None:
        """Mark the entry in the catalog before the first request is unconfirmed."""
        if self.entry.is_settled:
            self._list(is_settled=False)

    def load(self) -> None:
        """Read meta, which wins over the catalog; check whose file this is."""
        if not self.exists:
            return
        with self._using() as cursor:
            if self._value(f"SELECT format FROM {self._tables}.meta") > FORMAT:
                raise newer(self._file.path)
            (row,) = cursor.execute(f"FROM {self._tables}.meta").fetchall()
        (_, destination, partner, cohort_id, name, description, stream, *numbers) = row
        self.last_timestamp, self.revision, self.is_sealed, self._is_rewritten = numbers
        mine = (self._catalog.identity, self.entry.partner, self.entry.cohort_id)
        if mine != (destination, partner, cohort_id):
            msg = (
                f"ledger_uri: the ledger {self._file.path} belongs to another destination or "
                "cohort, or the destination.json in its directory was replaced; restore all files "
                "from one backup, or use another ledger_uri"
            )
            raise SettingsError("ledger_mismatch", msg)
        facts = {"name": name, "description": description, "stream": stream}
        if any(getattr(self.entry, field) != value for field, value in facts.items()):
            self.entry = msgspec.structs.replace(self.entry, **facts)
            if not self._read_only:
                self._list()

    def abandon(self) -> None:
        """Release the file in whatever state it is."""
        with self._file.lock:
            if self._is_closed:
                return
            self._is_closed = True
            try:
                self._cursor.close()
                with translated(self._file.path):
                    self._engine.detach(self._file)
            except LedgerError:
                if self._failure is None:  # else the caller has had the first error
                    raise
            finally:
                if self._file_lock is not None:
                    self._file_lock.release()
                self._closed()
