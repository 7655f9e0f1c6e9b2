"""One stream's records → changes of membership, by the stream's mapping."""

from __future__ import annotations

import typing as t
from collections import Counter
from types import SimpleNamespace

import msgspec
from msgspec import UNSET

from target_moengage_cohort.delivery.packing import Envelope
from target_moengage_cohort.errors import (
    InputError,
    MissingKeyRowError,
    RowError,
    SettingsError,
)
from target_moengage_cohort.membership import (
    Action,
    Change,
    Cohort,
    Member,
    SyncMode,
    cohort_name_fault,
    identifier,
    membership,
)
from target_moengage_cohort.reader import DELETED_AT

if t.TYPE_CHECKING:
    from collections.abc import Mapping as AbstractMapping
    from collections.abc import Sequence

    from target_moengage_cohort.ledger import Ledger
    from target_moengage_cohort.ledger.records import CohortEntry, Differs
    from target_moengage_cohort.settings import Mapping, Settings

_SMALLEST_MEMBER_BYTES = len(b'{"uid":"1"}')
_ADD, _REMOVE = Action.ADD, Action.REMOVE
_NOBODY = Member()


class Settlement(msgspec.Struct):
    """What became of a snapshot's plan for one cohort, for the report.

    Attributes:
        differs: The snapshot compared with the ledger.
        removals_waiting: Removals that wait for `confirm`.
        removals_withheld: Removals that are held back.
        additions_withheld: Additions that are held back.
        plan_id: What a person confirms.
        reason: Why not everything was delivered.
        is_sealed: Whether the cohort is finished with: nothing is sent.
    """

    differs: Differs | None = None
    removals_waiting: int = 0
    removals_withheld: int = 0
    additions_withheld: int = 0
    plan_id: str | None = None
    reason: str | None = None
    is_sealed: bool = False


class Destination(msgspec.Struct, eq=False):
    """A cohort that a stream feeds, and what was read of it.

    Attributes:
        cohort: The cohort.
        mapping: The stream's mapping.
        capacity: The largest encoded member that fits into a request, in bytes.
        number: Which of the stream's cohorts it is, from 0.
        ledger: The cohort's ledger, if it has one.
        records: Records read.
        rejected: Records among them that could not be delivered.
        skipped: Records among them that asked for no change.
        settlement: What became of a snapshot's plan.
    """

    cohort: Cohort
    mapping: Mapping
    capacity: int
    number: int
    ledger: Ledger | None
    records: int = 0
    rejected: int = 0
    skipped: int = 0
    settlement: Settlement = msgspec.field(default_factory=Settlement)

    def change(self, action: Action, member: Member) -> Change:
        """A change of this cohort, of a member whom a ledger or a staging has kept.

        Raises:
            InputError: A request has no room for the member any more.
        """
        try:
            payload = _fitting(member.encode(), self.capacity)
        except RowError as error:
            msg = (
                f"the cohort {self.cohort.cohort_id!r}: {error.reason}; it was accepted when there "
                "was more room, so raise max_payload_bytes again"
            )
            raise InputError(msg) from None
        return Change(self.cohort, action, member.key, payload, member.anonymous_id)


class Destinations:
    """All cohorts of a run: no two streams feed one, and no two share a name.

    Args:
        settings: The run's settings.
        ledger: Opens a cohort's ledger, if it has one or needs one.

    Attributes:
        by_id: The destinations, by the cohort's id.
        ledgers: Their ledgers, by the cohort's id.
    """

    def __init__(
        self, settings: Settings, ledger: t.Callable[[Cohort, Mapping], Ledger | None]
    ) -> None:
        self._settings = settings
        self._ledger = ledger
        self._names: dict[str, str] = {}
        self._numbers: Counter[str] = Counter()
        self.by_id: dict[str, Destination] = {}
        self.ledgers: dict[str, Ledger] = {}

    def of_entry(self, entry: CohortEntry, mapping: Mapping) -> Destination:
        """The destination for a cohort that a stream has fed before.

        Raises:
            SettingsError: It cannot be the same cohort any more.
        """
        cohort = Cohort(entry.cohort_id, entry.name, entry.description)
        try:
            return self.of(cohort, mapping)
        except RowError as error:
            msg = (
                f"cohorts: the stream {mapping.stream!r} has fed the cohort {entry.cohort_id!r} "
                f"before, and now {error.reason}; give it back what it had, or use "
                "moengage-cohort ledger rename or reassign"
            )
            raise SettingsError(msg) from None

    def of_stream(self, stream: str) -> list[Destination]:
        """The destinations that a stream feeds, as far as they were met."""
        return [known for known in self.by_id.values() if known.mapping.stream == stream]

    def of(self, cohort: Cohort, mapping: Mapping) -> Destination:
        """The destination for a stream's cohort, made when it is met first.

        Raises:
            SettingsError: Another stream feeds the cohort.
            RowError: The cohort's name is not fit for MoEngage, or not the one it had.
        """
        known = self.by_id.get(cohort.cohort_id)
        if known is None:
            return self._new(cohort, mapping)
        if known.mapping.stream != mapping.stream:
            msg = (
                f"cohorts: the streams {known.mapping.stream!r} and {mapping.stream!r} both feed "
                f"the cohort {cohort.cohort_id!r}; make them one stream, or give each its own"
            )
            raise SettingsError(msg)
        if known.cohort.name != cohort.name:
            reason = f"cohort {cohort.cohort_id!r} had another name in this run"
            raise RowError(reason, cohort.cohort_id)
        return known

    def _new(self, cohort: Cohort, mapping: Mapping) -> Destination:
        if fault := cohort_name_fault(cohort.name):
            reason = f"the name of the cohort {cohort.cohort_id!r} {fault}"
            raise RowError(reason)
        if (other := self._names.get(cohort.name)) is not None:
            reason = f"the cohort {cohort.cohort_id!r} has the name of the cohort {other!r}"
            raise RowError(reason)
        settings = self._settings
        envelope = Envelope(cohort, settings.partner, settings.send_timestamp)
        capacity = settings.max_payload_bytes - max(envelope.overhead(action) for action in Action)
        if capacity < _SMALLEST_MEMBER_BYTES:
            reason = (
                f"the name and description of the cohort {cohort.cohort_id!r} leave no room for "
                "members (max_payload_bytes)"
            )
            raise RowError(reason)
        ledger = self._ledger(cohort, mapping)
        if ledger is not None:
            self.ledgers[cohort.cohort_id] = ledger
        self._names[cohort.name] = cohort.cohort_id
        number = self._numbers[mapping.stream]
        self._numbers[mapping.stream] += 1
        destination = Destination(cohort, mapping, capacity, number, ledger)
        if mapping.sync_mode is SyncMode.ONE_TIME and ledger is not None:
            destination.settlement.is_sealed = ledger.is_sealed
        self.by_id[cohort.cohort_id] = destination
        return destination


class Sink:
    """Turns one stream's records into changes.

    Args:
        mapping: The stream's mapping.
        properties: The columns of the stream's schema.
        key_properties: The stream's keys, which every record must have.
        destinations: The cohorts of the run.

    Attributes:
        columns: Role → column: what must be known of a record.
        keys: Columns that must be there; for `Reader.expect`.

    Raises:
        SettingsError: The schema lacks a mapped column.
    """

    def __init__(
        self,
        mapping: Mapping,
        properties: AbstractMapping[str, t.Any],
        key_properties: Sequence[str],
        destinations: Destinations,
    ) -> None:
        self.mapping = mapping
        self.columns = {**mapping.columns}
        if not mapping.uid_required and mapping.uid_column not in properties:
            del self.columns["uid"]
        for role, column in self.columns.items():
            if column not in properties:
                raise _missing_column(mapping.stream, f"{role}_column", column, properties)
            if column == DELETED_AT:
                msg = f"{role}_column: {DELETED_AT} always means a deletion; name another column"
                raise SettingsError(msg)
        self.columns["deleted_at"] = DELETED_AT
        self.keys = list(dict.fromkeys(key_properties))
        roles = {column: role for role, column in self.columns.items()}
        self._key_roles = [
            (key, roles.get(key, f"key_{number}")) for number, key in enumerate(self.keys)
        ]
        self._destinations = destinations
        self._fixed = None
        if mapping.cohort is not None:
            try:
                self._fixed = destinations.of(mapping.cohort, mapping)
            except RowError as error:
                msg = f"cohorts.{mapping.stream}: {error.reason}"
                raise SettingsError(msg) from None
        self._fan_out: dict[tuple[t.Any, t.Any], Destination] = {}
        self._has_uid = "uid" in self.columns
        self._has_anonymous_id = "anonymous_id" in self.columns
        self._has_membership = "membership" in self.columns

    def row(self, record: AbstractMapping[str, t.Any]) -> SimpleNamespace:
        """A whole record as the struct that the reader decodes: one attribute for each role."""
        row = SimpleNamespace(
            **{role: record.get(column, UNSET) for role, column in self.columns.items()}
        )
        for key, role in self._key_roles:
            setattr(row, role, record.get(key, UNSET))
        return row

    def count_rejected(self, error: RowError) -> None:
        """Count a record that did not get as far as `change`, for its cohort if that is fixed."""
        if self._fixed is not None:
            self._fixed.records += 1
            self._fixed.rejected += 1
            error.cohort_id = self._fixed.cohort.cohort_id

    def change(self, row: t.Any) -> Change | None:
        """Turn a record into a change.

        Args:
            row: One attribute for each role in `columns`, and ``key_N`` for other keys.

        Returns:
            The change, or ``None`` where the record asks for none.

        Raises:
            RowError: The record cannot be delivered.
        """
        destination, action, member, payload = self.read(row)
        if action is None:
            destination.skipped += 1
            return None
        return Change(destination.cohort, action, member.key, payload, member.anonymous_id)

    def read(self, row: t.Any) -> tuple[Destination, Action | None, Member, bytes]:
        """Read who a record is about, and what it says of the cohort.

        Args:
            row: As `change` has it.

        Returns:
            The cohort, what the record asks for, the member, and the member encoded.

        Raises:
            RowError: The record cannot be delivered.
        """
        destination = self._fixed or self._destination(row)
        destination.records += 1
        try:
            for key, role in self._key_roles:
                if getattr(row, role) is UNSET:
                    reason = f"it lacks the key property {key!r}"
                    raise MissingKeyRowError(reason)
            action = self._action(row)
            if action is None:
                return destination, None, _NOBODY, b""
            member = self._member(row)
            payload = _fitting(member.encode(), destination.capacity)
        except RowError as error:
            destination.rejected += 1
            error.cohort_id = destination.cohort.cohort_id
            raise
        return destination, action, member, payload

    def _action(self, row: t.Any) -> Action | None:
        mode = self.mapping.sync_mode
        if mode is SyncMode.REMOVE:
            return _REMOVE
        deleted = row.deleted_at
        if deleted is not UNSET and deleted is not None and deleted != "":
            return None if mode is SyncMode.ADD else _REMOVE
        if not self._has_membership:
            return _ADD
        try:
            return membership(row.membership)
        except RowError as error:
            raise self._in_column(error, "membership") from None

    def _member(self, row: t.Any) -> Member:
        uid = row.uid if self._has_uid else None
        if type(uid) is not str or not uid:
            uid = self._identifier(uid, "uid")
        anonymous_id = None
        if self._has_anonymous_id:
            anonymous_id = self._identifier(row.anonymous_id, "anonymous_id")
        if uid is None and anonymous_id is None:
            names = [self.columns[role] for role in ("uid", "anonymous_id") if role in self.columns]
            reason = f"no identifier: {' and '.join(map(repr, names))} is null, empty or absent"
            raise RowError(reason)
        return Member(uid, anonymous_id)

    def _destination(self, row: t.Any) -> Destination:
        """The cohort that a row of a stream with many cohorts names."""
        mapping = self.mapping
        named = mapping.cohort_name_column is not None
        raw = (row.cohort_id, row.cohort_name if named else None)
        try:
            if (known := self._fan_out.get(raw)) is not None:
                return known
        except TypeError:  # a list or an object, which `identifier` will refuse
            pass
        try:
            cohort_id = self._required(raw[0], "cohort_id")
            name = self._required(raw[1], "cohort_name") if named else cohort_id
            cohort = Cohort(cohort_id, name, mapping.cohort_description)
            destination = self._destinations.of(cohort, mapping)
        except RowError as error:
            known = self._destinations.by_id.get(error.cohort_id) if error.cohort_id else None
            if known is not None:
                known.records += 1
                known.rejected += 1
            raise
        if all(
            part is None or type(part) is str for part in raw
        ):  # 1 and True, or 1 and 1.0, are equal keys but not equal ids
            self._fan_out[raw] = destination
        return destination

    def _required(self, value: object, role: str) -> str:
        text = self._identifier(value, role)
        if text is None or not text.strip():
            reason = f"the column {self.columns[role]!r} names no cohort"
            raise RowError(reason)
        return text

    def _identifier(self, value: object, role: str) -> str | None:
        try:
            return identifier(value)
        except RowError as error:
            raise self._in_column(error, role) from None

    def _in_column(self, error: RowError, role: str) -> RowError:
        return RowError(f"the column {self.columns[role]!r} {error.reason}")


def _fitting(payload: bytes, capacity: int) -> bytes:
    """An encoded member, if a request has room for it.

    Raises:
        RowError: It has not.
    """
    if len(payload) > capacity:
        reason = (
            f"the member takes {len(payload)} bytes, and a request has room for {capacity} "
            "(max_payload_bytes)"
        )
        raise RowError(reason)
    return payload


def _missing_column(
    stream: str, setting: str, column: str, properties: AbstractMapping[str, t.Any]
) -> SettingsError:
    columns = ", ".join(sorted(properties)) or "none"
    return SettingsError(
        f"{setting}: the stream {stream!r} has no column {column!r}; it has {columns}"
    )
