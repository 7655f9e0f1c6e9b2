"""The store's identity, and its streams and cohorts."""

from __future__ import annotations

import hashlib
import secrets
import threading
import time
import typing as t

import msgspec

from target_moengage_cohort.core.commands import suggest
from target_moengage_cohort.core.errors import LedgerError, RowError, SettingsError
from target_moengage_cohort.ledger.control.tables import TABLES
from target_moengage_cohort.ledger.records import (
    EMPTY_SET,
    FORMAT,
    CohortEntry,
    LedgerCounts,
    MemberSet,
    RunEntry,
)

if t.TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from target_moengage_cohort.core.membership import Cohort
    from target_moengage_cohort.ledger.control.sqlite import SQLiteDatabase, Transaction
    from target_moengage_cohort.settings import Settings

_KEY_BYTES = 12  # 16 characters: with them and a UUID, MD5 has one block to work on, not two
_NUMBERS = 64  # of cohorts to reserve at a time

_ENTRY = (
    "c.number, c.partner, c.cohort_id, c.name, c.description, c.stream, c.last_timestamp,"
    " c.revision, c.mark, c.accepted, c.digest, c.in_doubt, c.base, c.is_sealed, c.is_retired,"
    " c.last_run, (SELECT count(*) FROM requests r WHERE r.cohort = c.number)"
)
_INSERT = (
    "INSERT INTO cohorts (number, partner, cohort_id, name, description, stream, created_at,"
    " last_timestamp, revision, mark, accepted, digest, in_doubt, base, is_sealed, is_retired)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, 0, 0, 0, 0, ?, 0, 0, 0, 0)"
)
_decode_run = msgspec.json.Decoder(RunEntry).decode


def stem(*parts: str) -> str:
    """Return a file name for some names."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


class Control:
    """What the store knows of itself, its streams and its cohorts.

    Attributes:
        store_id: Identifies the store.
        hash_key: The key of the members' hashes.
    """

    def __init__(self, settings: Settings, database: SQLiteDatabase) -> None:
        self._settings = settings
        self.partner = settings.partner
        self.database = database
        self.store_id = self.hash_key = ""
        self._lock = threading.Lock()  # held for no transaction
        self._numbering = threading.Lock()
        self._new: list[CohortEntry] = []  # not written yet
        self._numbers: Iterator[int] = iter(())

    def open(self) -> None:
        """Open the store, or create it; check whose it is."""
        self.database.open(self._create)
        query = "SELECT format, store_id, base_url, workspace_id, hash_key FROM store"
        rows = self.database.rows(query)
        if not rows:  # a read-only store without a file
            self.hash_key = secrets.token_urlsafe(_KEY_BYTES)
            return
        ((number, self.store_id, base_url, workspace_id, self.hash_key),) = rows
        if number > FORMAT:
            raise newer(str(self.database.path))
        if (base_url, workspace_id) != (self._settings.base_url, self._settings.workspace_id):
            msg = (
                f"ledger_uri: {self.database.path} belongs to another destination (base URL and "
                "workspace_id); give its directory back its own name, or use another ledger_uri"
            )
            raise SettingsError("ledger_mismatch", msg)

    def _create(self, transaction: Transaction) -> None:
        for table in TABLES:
            transaction.run(table)
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

    # Cohorts

    def entries(self, stream: str | None = None) -> list[CohortEntry]:
        """Return the partner's cohorts, or only those of a stream, sorted by id."""
        self.write_new()
        query = f"SELECT {_ENTRY} FROM cohorts c WHERE partner = ?"
        values = [self.partner]
        if stream is not None:
            query += " AND stream = ?"
            values.append(stream)
        rows = self.database.rows(f"{query} ORDER BY cohort_id", values)
        return [_entry(row) for row in rows]

    def entry(self, cohort_id: str) -> CohortEntry | None:
        """Return a cohort of the partner, or ``None`` if it has no entry."""
        for entry in self._new:
            if entry.cohort_id == cohort_id:
                return entry
        query = f"SELECT {_ENTRY} FROM cohorts c WHERE partner = ? AND cohort_id = ?"
        rows = self.database.rows(query, [self.partner, cohort_id])
        return _entry(rows[0]) if rows else None

    def add(self, cohort: Cohort, stream: str) -> CohortEntry:
        """Return the entry of a new cohort, written with the next change that is made.

        Raises:
            RowError: Another cohort has had the name.
            SettingsError: Another partner has the cohort.
        """
        self.check_name(cohort)
        self._check_partner(cohort)
        with self._numbering:
            if self.database.read_only:
                number = -1 - len(self._new)  # unlike any that exists
            else:
                number = next(self._numbers, 0) or self._reserve()
        with self._lock:
            entry = _new_entry(number, self.partner, cohort, stream)
            self._new.append(entry)
        return entry

    def check_name(self, cohort: Cohort) -> None:
        """Raise a `RowError` if another cohort has had the name."""
        query = "SELECT partner, cohort_id FROM names WHERE name = ?"
        new = [(each.partner, each.cohort_id) for each in self._new if each.name == cohort.name]
        for partner, cohort_id in [*self.database.rows(query, [cohort.name]), *new]:
            if (partner, cohort_id) != (self.partner, cohort.cohort_id):
                whose = f"cohort {cohort_id!r}"
                if partner != self.partner:
                    whose += f" of partner {partner!r}"
                reason = (
                    f"the cohort {cohort.cohort_id!r} of partner {self.partner!r} has the name "
                    f"{cohort.name!r} that {whose} has had; MoEngage never frees a name, so "
                    "choose another one"
                )
                raise RowError("name_taken", reason)

    def _check_partner(self, cohort: Cohort) -> None:
        query = "SELECT partner FROM cohorts WHERE cohort_id = ? AND partner <> ?"
        for (partner,) in self.database.rows(query, [cohort.cohort_id, self.partner]):
            msg = (
                f"cohort {cohort.cohort_id!r} belongs to partner {partner!r} in this workspace, "
                f"not to {self.partner!r}; set partner, or use another cohort_id"
            )
            raise SettingsError("cohort_of_other_partner", msg)

    def _reserve(self) -> int:
        with self.database.change("reserve numbers") as transaction:
            query = "UPDATE store SET last_cohort = last_cohort + ? RETURNING last_cohort"
            ((last,),) = transaction.run(query, [_NUMBERS])
        self._numbers = iter(range(last - _NUMBERS + 2, last + 1))
        return int(last) - _NUMBERS + 1

    def write_new(self, transaction: Transaction | None = None) -> None:
        """Write the new cohorts, within a change or as one of its own."""
        if self.database.read_only or not self._new:
            return
        if transaction is None:
            with self.database.change("new cohorts") as own:
                self.write_new(own)
            return
        self._check_still_new(transaction)
        with self._lock:
            new, self._new = self._new, []
        now = time.time()
        transaction.run_many(
            _INSERT,
            [
                (
                    e.number,
                    e.partner,
                    e.cohort_id,
                    e.name,
                    e.description,
                    e.stream,
                    now,
                    e.counts.accepted.digest,
                )
                for e in new
            ],
        )
        self._reserve_names(transaction, new)

    def _check_still_new(self, transaction: Transaction) -> None:
        """Raise a `SettingsError` if another run has made a cohort since it was met here."""
        ids = {each.cohort_id for each in self._new}
        for cohort_id, stream in transaction.run("SELECT cohort_id, stream FROM cohorts"):
            if cohort_id in ids:
                msg = (
                    f"cohort {cohort_id!r} was created by another run meanwhile, for the stream "
                    f"{stream!r}; run again, after a look at: {suggest('status')}"
                )
                raise SettingsError("cohort_of_other_stream", msg)

    def _reserve_names(self, transaction: Transaction, entries: Iterable[CohortEntry]) -> None:
        insert = (
            "INSERT INTO names (name, partner, cohort_id) VALUES (?, ?, ?) ON CONFLICT DO NOTHING"
        )
        query = "SELECT 1 FROM names WHERE name = ? AND partner = ? AND cohort_id = ?"
        rows = [(entry.name, entry.partner, entry.cohort_id) for entry in entries]
        transaction.run_many(insert, rows)
        for row in rows:
            if not transaction.run(query, row):
                msg = (
                    f"the name {row[0]!r} of cohort {row[2]!r} was given to another cohort by a "
                    "run at the same time; nothing more is sent. Choose another one, then run again"
                )
                raise LedgerError("name_taken", msg)

    def describe(self, entry: CohortEntry, **facts: object) -> CohortEntry:
        """Change some of a cohort's facts; return its entry with them."""
        columns = ", ".join(f"{name} = ?" for name in facts)
        changed = msgspec.structs.replace(entry, **facts)
        with self.database.change("describe") as transaction:
            self.write_new(transaction)
            query = f"UPDATE cohorts SET {columns} WHERE number = ?"
            transaction.run(query, [*facts.values(), entry.number])
            self._reserve_names(transaction, [changed])
        return changed


def _entry(row: tuple[t.Any, ...]) -> CohortEntry:
    number, partner, cohort_id, name, description, stream, timestamp, revision, mark, *rest = row
    accepted, digest, in_doubt, base, is_sealed, is_retired, last_run, requests = rest
    return CohortEntry(
        number=number,
        partner=partner,
        cohort_id=cohort_id,
        name=name,
        description=description,
        stream=stream,
        last_timestamp=timestamp,
        revision=revision,
        mark=mark,
        counts=LedgerCounts(MemberSet(accepted, digest), in_doubt, base),
        is_sealed=bool(is_sealed),
        is_retired=bool(is_retired),
        last_run=None if last_run is None else _decode_run(last_run),
        unfolded=requests,
    )


def _new_entry(number: int, partner: str, cohort: Cohort, stream: str) -> CohortEntry:
    return CohortEntry(
        number=number,
        partner=partner,
        cohort_id=cohort.cohort_id,
        name=cohort.name,
        description=cohort.description,
        stream=stream,
        counts=LedgerCounts(EMPTY_SET, 0, 0),
    )


def newer(path: str) -> SettingsError:
    """Return the error for a file that a newer version of this program created."""
    msg = (
        f"the ledger {path} was created by a newer version of target-moengage-cohort; upgrade this "
        "installation"
    )
    return SettingsError("ledger_newer", msg)
