"""The store's identity, and its streams and cohorts."""

from __future__ import annotations

import secrets
import threading
import typing as t

import msgspec

from target_moengage_cohort.core.errors import LedgerError, SettingsError
from target_moengage_cohort.ledger.control.alert_outbox import AlertOutbox
from target_moengage_cohort.ledger.control.changes import Changes
from target_moengage_cohort.ledger.control.freshness import Freshness
from target_moengage_cohort.ledger.control.history import History
from target_moengage_cohort.ledger.control.new_cohorts import NewCohorts
from target_moengage_cohort.ledger.control.pauses import Pauses
from target_moengage_cohort.ledger.control.plans import Plans
from target_moengage_cohort.ledger.control.tables import TABLES
from target_moengage_cohort.ledger.control.unarchivals import Unarchivals
from target_moengage_cohort.ledger.records import (
    FORMAT,
    CohortEntry,
    LedgerCounts,
    MemberSet,
    RunEntry,
)
from target_moengage_cohort.ledger.repairs import moved

if t.TYPE_CHECKING:
    from collections.abc import Callable

    from target_moengage_cohort.ledger.control.database import Database, Transaction
    from target_moengage_cohort.settings import Settings

_KEY_BYTES = 12  # 16 characters: with them and a UUID, MD5 has one block to work on, not two

_ENTRY = (
    "c.number, c.cohort_id, c.name, c.description, c.stream, c.last_timestamp, s.last_timestamp,"
    " c.revision, c.mark, c.is_sealed, c.is_retired, c.is_partial, c.last_run, c.synced_at,"
    " (SELECT count(*) FROM requests r WHERE r.cohort = c.number), s.has_members, c.in_doubt,"
    " c.base, c.accepted, c.digest FROM cohorts c LEFT JOIN streams s USING (partner, stream)"
)
_decode_run = msgspec.json.Decoder(RunEntry).decode


class Control:
    """What the store knows of itself, its streams and its cohorts."""

    def __init__(self, settings: Settings, database: Database, clock: Callable[[], float]) -> None:
        self._settings = settings
        self.clock = clock  # in seconds since 1970
        self.partner = settings.partner
        self.database = database
        self.run_id = ""  # of the run or command that uses the store
        self.store_id = self.hash_key = ""  # the latter is the key of the members' hashes
        self.was_created = False  # by this process
        self.committed = (0, 0)  # the highest numbers of a run and a request, by this process
        self._lock = threading.Lock()
        self.load: Callable[[Transaction], None] | None = None  # fills a new store with a copy
        self.ignores_move = False  # whether to use a store that is marked as moved
        database.guard = self._refuse_moved  # another process may mark it at any time
        self.new = NewCohorts(database, settings.partner, clock)
        self.plans = Plans(database, clock)
        self.changes = Changes(self, settings.keep_changes_days)
        self.history = History(self, self.changes)
        self.freshness = Freshness(self)
        self.alerts = AlertOutbox(self)
        self.pauses = Pauses(self, self.history)
        self.unarchivals = Unarchivals(database, settings.partner)

    def note_committed(self, *, run: int = 0, request: int = 0) -> None:
        """Keep the numbers of what this process has committed, in case the store loses it."""
        with self._lock:
            last_run, last_request = self.committed
            self.committed = (max(last_run, run), max(last_request, request))

    def open(self) -> None:
        """Open the store, or create it; check whose it is."""
        self.database.open(self._create)
        query = "SELECT store_id, base_url, workspace_id, hash_key, moved_to FROM store"
        rows = self.database.rows(query)
        if not rows:  # a read-only store without a file
            self.hash_key = secrets.token_urlsafe(_KEY_BYTES)
            return
        ((self.store_id, base_url, workspace_id, self.hash_key, moved_to),) = rows
        if (base_url, workspace_id) != (self._settings.base_url, self._settings.workspace_id):
            msg = (
                f"ledger_uri: {self.database.place} belongs to another destination (base URL and "
                "workspace_id); rename its directory back to its original name, or use another "
                "ledger_uri"
            )
            raise SettingsError("ledger_mismatch", msg)
        self._refuse(moved_to)

    def _refuse_moved(self, transaction: Transaction) -> None:
        ((moved_to,),) = transaction.run("SELECT moved_to FROM store")
        self._refuse(moved_to)

    def _refuse(self, moved_to: str | None) -> None:
        if moved_to is not None and not self.ignores_move:
            raise moved(self.database.place, moved_to)

    def _create(self, transaction: Transaction) -> None:
        for table in TABLES:
            transaction.run(table)
        if self.load is not None:
            self.load(transaction)
            return
        self.was_created = True
        settings = self._settings
        transaction.run(
            "INSERT INTO store (format, store_id, base_url, workspace_id, hash_key, is_open,"
            " last_request, last_cohort, last_run) VALUES (?, ?, ?, ?, ?, 0, 0, 0, 0)",
            [
                FORMAT,
                secrets.token_hex(16),
                settings.base_url,
                settings.workspace_id,
                secrets.token_urlsafe(_KEY_BYTES),
            ],
        )

    # Streams

    def streams(self) -> list[str]:
        """Return the partner's streams, sorted."""
        return sorted(stream for partner, stream in self.all_streams() if partner == self.partner)

    def all_streams(self) -> list[tuple[t.Any, ...]]:
        """Return all partners and streams."""
        query = "SELECT partner, stream FROM streams UNION SELECT partner, stream FROM cohorts"
        return self.database.rows(query)

    def fact(self, stream: str, column: str) -> t.Any:
        """Return a fact of a stream, or ``None``."""
        query = f"SELECT {column} FROM streams WHERE partner = ? AND stream = ?"
        rows = self.database.rows(query, [self.partner, stream])
        return rows[0][0] if rows else None

    def has_members(self, stream: str) -> bool:
        """Return whether the stream has a file of members."""
        return bool(self.fact(stream, "has_members"))

    def note_stream(self, stream: str, **facts: object) -> None:
        """Record facts of a stream."""
        with self.database.change("note stream") as transaction:
            transaction.run(
                "INSERT INTO streams (partner, stream, has_members) VALUES (?, ?, 0)"
                " ON CONFLICT DO NOTHING",
                [self.partner, stream],
            )
            columns = ", ".join(f"{name} = ?" for name in facts)
            query = f"UPDATE streams SET {columns} WHERE partner = ? AND stream = ?"
            transaction.run(query, [*facts.values(), self.partner, stream])

    def begin(self, stream: str, run_id: str) -> None:
        """Record that a run reads the stream, if it has not been recorded."""
        former, key = self.fact(stream, "latest_run"), [self.partner, stream]
        if former == run_id:
            return
        with self.database.change("note stream") as transaction:
            transaction.run(
                "INSERT INTO streams (partner, stream, has_members, latest_run)"
                " VALUES (?, ?, 0, ?) ON CONFLICT (partner, stream)"
                " DO UPDATE SET latest_run = excluded.latest_run",
                [*key, run_id],
            )
            transaction.run(
                "INSERT INTO run_streams (run_id, partner, stream) VALUES (?, ?, ?)",
                [run_id, *key],
            )
            transaction.run(
                "DELETE FROM run_streams WHERE run_id = ?"
                " AND NOT EXISTS (SELECT 1 FROM streams WHERE latest_run = ?)",
                [former, former],
            )

    def companions(self, stream: str) -> set[str]:
        """Return the streams of the run that has read the stream last; none if there was none."""
        query = "SELECT stream FROM run_streams WHERE partner = ? AND run_id = ?"
        rows = self.database.rows(query, [self.partner, self.fact(stream, "latest_run")])
        return {name for (name,) in rows}

    def use_version(self, stream: str, version: int, run_id: str) -> bool:
        """Record that a run has seen a version; return whether no other run has before."""
        key = [self.partner, stream, str(version)]  # text: it may have more than 64 bits
        query = "SELECT run_id FROM versions WHERE partner = ? AND stream = ? AND version = ?"
        if self.database.read_only:
            return not self.database.rows(query, key)
        with self.database.change("use version") as transaction:
            transaction.run(
                "INSERT INTO versions (partner, stream, version, run_id) VALUES (?, ?, ?, ?)"
                " ON CONFLICT DO NOTHING",
                [*key, run_id],
            )
            ((first,),) = transaction.run(query, key)
        return bool(first == run_id)

    # Cohorts

    def entries(self, stream: str | None = None) -> list[CohortEntry]:
        """Return the partner's cohorts, or only those of a stream, sorted by id."""
        self.write_new()
        query = f"SELECT {_ENTRY} WHERE partner = ?"
        values = [self.partner]
        if stream is not None:
            query += " AND stream = ?"
            values.append(stream)
        entries = map(_entry, self.database.rows(query, values))
        return sorted(entries, key=lambda entry: entry.cohort_id)  # databases sort text differently

    def entry(self, cohort_id: str) -> CohortEntry | None:
        """Return a cohort of the partner, or ``None`` if it has no entry."""
        if (new := self.new.get(cohort_id)) is not None:
            return new
        query = f"SELECT {_ENTRY} WHERE partner = ? AND cohort_id = ?"
        rows = self.database.rows(query, [self.partner, cohort_id])
        return _entry(rows[0]) if rows else None

    def write_new(self, transaction: Transaction | None = None) -> None:
        """Write the new cohorts, within a change or as one of its own."""
        if transaction is not None:
            self.new.write(transaction)
        elif self.new.is_waiting:
            with self.database.change("new cohorts") as own:
                self.new.write(own)

    def describe(self, entry: CohortEntry, **facts: object) -> CohortEntry:
        """Change some of a cohort's facts; return its entry with them."""
        columns = ", ".join(f"{name} = ?" for name in facts)
        changed = msgspec.structs.replace(entry, **facts)
        with self.database.change("describe") as transaction:
            self.write_new(transaction)
            query = f"UPDATE cohorts SET {columns} WHERE number = ?"
            transaction.run(query, [*facts.values(), entry.number])
            if error := self.new.reserve_name(transaction, changed):
                raise LedgerError(error.code, error.reason)
        return changed


def _entry(row: tuple[t.Any, ...]) -> CohortEntry:
    number, cohort_id, name, description, stream, timestamp, latest, revision, mark, *rest = row
    is_sealed, is_retired, is_partial, last_run, synced_at, *rest = rest
    requests, has_members, in_doubt, base, *accepted = rest
    return CohortEntry(
        number=number,
        cohort_id=cohort_id,
        name=name,
        description=description,
        stream=stream,
        last_timestamp=max(timestamp, latest or 0),
        revision=revision,
        mark=mark,
        counts=LedgerCounts(MemberSet(*accepted), in_doubt, base),
        is_sealed=bool(is_sealed),
        is_retired=bool(is_retired),
        is_partial=bool(is_partial),
        last_run=None if last_run is None else _decode_run(last_run),
        synced_at=synced_at,
        unfolded=requests,
        has_members=bool(has_members),
    )
