"""The stream and the name that a cohort must keep, and new cohorts with their names."""

from __future__ import annotations

import threading
import typing as t

from target_moengage_cohort.core.commands import suggest
from target_moengage_cohort.core.errors import LedgerError, MismatchError, RowError, SettingsError
from target_moengage_cohort.ledger.records import NO_MEMBERS, CohortEntry

if t.TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from target_moengage_cohort.core.membership import Cohort
    from target_moengage_cohort.ledger.control.database import Database, Transaction

_NUMBERS = 64  # of cohorts to reserve at a time
_RECENT_SECONDS = 7 * 24 * 3600

_INSERT = (
    "INSERT INTO cohorts (number, partner, cohort_id, name, description, stream, created_at,"
    " last_timestamp, revision, mark, accepted, digest, in_doubt, base, is_sealed, is_retired,"
    " is_partial) VALUES (?, ?, ?, ?, ?, ?, ?, 0, 0, 0, 0, ?, 0, 0, 0, 0, ?)"
)
_RESERVE = "INSERT INTO names (name, partner, cohort_id) VALUES (?, ?, ?) ON CONFLICT DO NOTHING"
_OWNER = "SELECT partner, cohort_id FROM names WHERE name = ?"


class NewCohorts:
    """The cohorts of a partner that this process adds."""

    def __init__(self, database: Database, partner: str, clock: Callable[[], float]) -> None:
        self._database = database
        self._clock = clock
        self._partner = partner
        self._lock = threading.Lock()  # held for no transaction
        self._numbering = threading.Lock()
        self._numbers: Iterator[int] = iter(())
        self._entries: dict[str, CohortEntry] = {}  # not written yet, by id
        self._held: set[str] = set()  # those among them that only `admit` writes
        self._names: dict[str, str] = {}  # the ids of all that were added, by name

    def count_recent(self) -> int:
        """Return how many cohorts of the store are from the last 7 days."""
        query = "SELECT count(*) FROM cohorts WHERE created_at > ?"
        rows = self._database.rows(query, [self._clock() - _RECENT_SECONDS])
        return int(rows[0][0]) if rows else 0

    def count_all(self) -> int:
        """Return how many cohorts the store has, of all partners, retired ones among them."""
        rows = self._database.rows("SELECT count(*) FROM cohorts")
        new = 0 if self._database.read_only else len(self._entries.keys() - self._held)
        return new + (int(rows[0][0]) if rows else 0)

    def get(self, cohort_id: str) -> CohortEntry | None:
        """Return a cohort that is not written yet."""
        return self._entries.get(cohort_id)

    def add(
        self, cohort: Cohort, stream: str, *, held: bool, is_partial: bool = False
    ) -> CohortEntry:
        """Return the entry of a new cohort, written with the next change, or if held by `admit`.

        Raise a `RowError` if another cohort has had the name, and a `SettingsError` if another
        partner has the cohort.
        """
        self.check(cohort)
        with self._numbering:
            if self._database.read_only:
                number = -1 - len(self._entries)  # unlike any that exists
            else:
                number = next(self._numbers, 0) or self._reserve()
        entry = CohortEntry(
            number=number,
            cohort_id=cohort.cohort_id,
            name=cohort.name,
            description=cohort.description,
            stream=stream,
            counts=NO_MEMBERS,
            is_partial=is_partial,
        )
        with self._lock:
            self._entries[cohort.cohort_id] = entry
            self._names[cohort.name] = cohort.cohort_id
            if held:
                self._held.add(cohort.cohort_id)
        return entry

    def check(self, cohort: Cohort) -> None:
        """Raise the error with which `add` would refuse a new cohort."""
        self._check_partner(cohort)
        self.check_name(cohort)

    def check_name(self, cohort: Cohort) -> None:
        """Raise a `RowError` if another cohort has had the name."""
        owners = self._database.rows(_OWNER, [cohort.name])
        if (new := self._names.get(cohort.name)) is not None:
            owners.append((self._partner, new))
        if error := self._taken(cohort, owners):
            raise error

    def _taken(self, cohort: Cohort, owners: Iterable[tuple[t.Any, ...]]) -> RowError | None:
        for partner, cohort_id in owners:
            if (partner, cohort_id) != (self._partner, cohort.cohort_id):
                whose = f"cohort {cohort_id!r}"
                if partner != self._partner:
                    whose += f" of partner {partner!r}"
                reason = (
                    f"the cohort {cohort.cohort_id!r} of partner {self._partner!r} has the name "
                    f"{cohort.name!r} that {whose} already used; MoEngage never frees a name, so "
                    "choose another one"
                )
                return RowError("name_taken", reason)
        return None

    def _check_partner(self, cohort: Cohort) -> None:
        query = "SELECT partner FROM cohorts WHERE cohort_id = ? AND partner <> ?"
        for (partner,) in self._database.rows(query, [cohort.cohort_id, self._partner]):
            msg = (
                f"cohort {cohort.cohort_id!r} belongs to partner {partner!r} in this workspace, "
                f"not to {self._partner!r}; set partner, or use another cohort_id"
            )
            raise SettingsError("cohort_of_other_partner", msg)

    def _reserve(self) -> int:
        with self._database.change("reserve numbers") as transaction:
            query = "UPDATE store SET last_cohort = last_cohort + ? RETURNING last_cohort"
            ((last,),) = transaction.run(query, [_NUMBERS])
        self._numbers = iter(range(last - _NUMBERS + 2, last + 1))
        return int(last) - _NUMBERS + 1

    @property
    def is_waiting(self) -> bool:
        """Whether there is a cohort for `write` to write."""
        return not self._database.read_only and len(self._entries) > len(self._held)

    def write(self, transaction: Transaction) -> None:
        """Write the new cohorts that are not held, within a change.

        Raise a `SettingsError` if another process was faster to create one, and a `LedgerError` if
        one was faster to use its name.
        """
        if not self.is_waiting:
            return
        with self._lock:
            new = [each for each in self._entries.values() if each.cohort_id not in self._held]
        for entry in new:
            if error := self._create(transaction, entry):
                kind = LedgerError if error.code == "name_taken" else SettingsError
                raise kind(error.code, f"{error}. Nothing more is sent; run again")
        with self._lock:
            for entry in new:
                del self._entries[entry.cohort_id]

    def admit(self, cohort_ids: Iterable[str]) -> dict[str, RowError]:
        """Write held cohorts; return why some of them, by id, cannot be."""
        with self._lock:
            chosen = [self._entries[cohort_id] for cohort_id in cohort_ids]
        errors: dict[str, RowError] = {}
        if self._database.read_only:
            return errors
        with self._database.change("new cohorts") as transaction:
            for entry in chosen:
                if error := self._create(transaction, entry):
                    errors[entry.cohort_id] = error
        with self._lock:
            for entry in chosen:
                self._held.discard(entry.cohort_id)
                del self._entries[entry.cohort_id]
        return errors

    def _create(self, transaction: Transaction, entry: CohortEntry) -> RowError | None:
        """Write a cohort and reserve its name, unless another process was faster: say why."""
        query = "SELECT partner, stream FROM cohorts WHERE cohort_id = ?"
        for partner, stream in transaction.run(query, [entry.cohort_id]):
            reason = (
                f"the cohort {entry.cohort_id!r} was created by another run in the meantime, for "
                f"the stream {stream!r} of partner {partner!r}; see {suggest('status')}"
            )
            return RowError("cohort_of_other_stream", reason)
        if error := self.reserve_name(transaction, entry):
            return error
        key = [entry.number, self._partner, entry.cohort_id]
        facts = [entry.name, entry.description, entry.stream, self._clock()]
        counted = [entry.counts.accepted.digest, entry.is_partial]
        transaction.run(_INSERT, [*key, *facts, *counted])
        return None

    def reserve_name(self, transaction: Transaction, entry: CohortEntry) -> RowError | None:
        """Reserve the name of a cohort, unless another one has it: say which."""
        transaction.run(_RESERVE, [entry.name, self._partner, entry.cohort_id])
        return self._taken(entry.cohort, transaction.run(_OWNER, [entry.name]))


def check_owner(entry: CohortEntry, cohort: Cohort, stream: str) -> None:
    """Raise the error for rows of a cohort by a stream or name that it does not have."""
    if entry.is_retired:
        reason = (
            f"the cohort {entry.cohort_id!r} was retired (moengage-cohort ledger retire); remove "
            "it from the input or the mapping, or use another cohort_id and cohort_name"
        )
        raise RowError("cohort_retired", reason, entry.cohort_id)
    if entry.stream != stream:
        reason = (
            f"the ledger of cohort {entry.cohort_id!r} belongs to stream "
            f"{entry.stream!r}; to let {stream!r} populate the cohort from now on, run: "
            f"{suggest('ledger', 'reassign', entry.cohort_id, stream)}"
        )
        raise MismatchError("cohort_of_other_stream", f"cohorts.{stream}", reason)
    if entry.name != cohort.name:
        reason = (
            f"the ledger of cohort {cohort.cohort_id!r} has the name "
            f"{entry.name!r}, not {cohort.name!r}; to rename the cohort, run: "
            f"{suggest('ledger', 'rename', cohort.cohort_id, cohort.name)}"
        )
        raise MismatchError("cohort_renamed", f"cohorts.{stream}.cohort_name", reason)
