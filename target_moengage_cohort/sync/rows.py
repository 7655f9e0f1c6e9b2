"""One stream's records → changes of membership, by the stream's mapping."""

from __future__ import annotations

import functools
import itertools
import typing as t
from types import SimpleNamespace

from msgspec import UNSET

from target_moengage_cohort.core.errors import MissingKeyRowError, RowError, SettingsError
from target_moengage_cohort.core.membership import (
    Action,
    Change,
    Cohort,
    Member,
    SyncMode,
    identifier,
    membership,
)
from target_moengage_cohort.singer.columns import Columns, PlainRows, kinds
from target_moengage_cohort.singer.decoding import can_be_looked_for, decoder, row_type
from target_moengage_cohort.singer.messages import DELETED_AT

if t.TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from collections.abc import Mapping as AbstractMapping

    from target_moengage_cohort.settings import Mapping
    from target_moengage_cohort.sync.cohorts import Cohorts, SyncedCohort

_ADD, _REMOVE = Action.ADD, Action.REMOVE
_NOBODY = Member()


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
        fixed: The cohort of all rows; ``None`` if each row names its own.
        plain: Decodes many rows at once, where they are plain; ``None`` where none would be.

    Raises:
        SettingsError: The schema lacks a mapped column.
    """

    def __init__(
        self,
        mapping: Mapping,
        properties: AbstractMapping[str, t.Any],
        key_properties: Sequence[str],
        destinations: Cohorts,
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
        self.fixed: SyncedCohort | None = None
        if mapping.cohort is not None:
            try:
                self.fixed = destinations.of(mapping.cohort, mapping)
            except RowError as error:
                msg = f"cohorts.{mapping.stream}: {error.reason}"
                raise SettingsError(msg) from None
        self._fan_out: dict[tuple[t.Any, t.Any], SyncedCohort] = {}
        self._has_uid = "uid" in self.columns
        self._has_anonymous_id = "anonymous_id" in self.columns
        self._has_membership = "membership" in self.columns
        named = all(map(can_be_looked_for, (*self.columns.values(), *self.keys)))
        expected = kinds(self.columns, properties) if named else None
        if self._has_membership and mapping.sync_mode is SyncMode.ADD:
            expected = None  # who is no member is passed over
        self.plain = None if expected is None else PlainRows(expected, self.columns, self.keys)

    @functools.cached_property
    def decode_row(self) -> t.Callable[[bytes], t.Any]:
        """Decodes a row in JSON, without a message around it, into what `change` takes."""
        return decoder(row_type(self.columns, self.keys)).decode

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
        if self.fixed is not None:
            self.fixed.records += 1
            self.fixed.rejected += 1
            error.cohort_id = self.fixed.cohort.cohort_id

    def change(self, row: t.Any) -> Change | None:
        """Turn a record into a change.

        Args:
            row: One attribute for each role in `columns`, and ``key_N`` for other keys.

        Returns:
            The change, or ``None`` where the record asks for none.

        Raises:
            RowError: The record cannot be delivered.
        """
        destination, action, member = self.read(row)
        if action is None:
            destination.skipped += 1
            return None
        return Change(destination.cohort, action, member)

    def read(self, row: t.Any) -> tuple[SyncedCohort, Action | None, Member]:
        """Read who a record is about, and what it says of the cohort.

        Args:
            row: As `change` has it.

        Returns:
            The cohort, what the record asks for, and the member.

        Raises:
            RowError: The record cannot be delivered.
        """
        destination = self.fixed or self._destination(row)
        destination.records += 1
        try:
            for key, role in self._key_roles:
                if getattr(row, role) is UNSET:
                    reason = f"it lacks the key property {key!r}"
                    raise MissingKeyRowError(reason)
            action = self._action(row)
            if action is None:
                return destination, None, _NOBODY
            member = self._member(row)
            member.check_size(destination.capacity)
        except RowError as error:
            destination.rejected += 1
            error.cohort_id = destination.cohort.cohort_id
            raise
        return destination, action, member

    def place(self, columns: Columns) -> list[SyncedCohort] | None:
        """Find the cohort of each of many plain rows.

        Returns:
            One cohort for each row, or a single one for all of them; ``None`` if they must be
            looked at one by one.
        """
        if self.fixed is not None:
            return [self.fixed] if columns.largest <= self.fixed.capacity else None
        cohorts = t.cast("list[tuple[str, str | None]]", columns.cohorts)
        try:
            found = {raw: self._named(raw) for raw in dict.fromkeys(cohorts)}
        except RowError:
            return None
        if any(columns.largest > destination.capacity for destination in found.values()):
            return None
        return [found[raw] for raw in cohorts]

    def changes(self, columns: Columns, places: Sequence[SyncedCohort]) -> list[Change]:
        """Turn many plain rows into changes.

        Args:
            columns: The rows.
            places: Their cohorts, from `place`.
        """
        count = columns.count
        if len(places) == 1:
            places[0].records += count
            cohorts = [places[0].cohort] * count
        else:
            for destination in places:
                destination.records += 1
            cohorts = [destination.cohort for destination in places]
        actions = _actions(columns, self.mapping.sync_mode)
        anonymous_ids = columns.anonymous_ids or [None] * count
        members = map(Member, columns.uids, anonymous_ids)
        return list(map(Change, cohorts, actions, members))

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
            action = membership(row.membership)
        except RowError as error:
            raise self._in_column(error, "membership") from None
        return None if action is _REMOVE and mode is SyncMode.ADD else action

    def _member(self, row: t.Any) -> Member:
        uid = row.uid if self._has_uid else None
        if type(uid) is not str or not uid or not uid.isascii():
            uid = self._identifier(uid, "uid")
        anonymous_id = None
        if self._has_anonymous_id:
            anonymous_id = self._identifier(row.anonymous_id, "anonymous_id")
        if uid is None and anonymous_id is None:
            names = [self.columns[role] for role in ("uid", "anonymous_id") if role in self.columns]
            reason = f"no identifier: {' and '.join(map(repr, names))} is null, empty or absent"
            raise RowError(reason)
        return Member(uid, anonymous_id)

    def _destination(self, row: t.Any) -> SyncedCohort:
        """The cohort that a row of a stream with many cohorts names."""
        named = self.mapping.cohort_name_column is not None
        try:
            return self._named((row.cohort_id, row.cohort_name if named else None))
        except RowError as error:
            known = self._destinations.by_id.get(error.cohort_id) if error.cohort_id else None
            if known is not None:
                known.records += 1
                known.rejected += 1
            raise

    def _named(self, raw: tuple[t.Any, t.Any]) -> SyncedCohort:
        """The cohort of an id and a name, as the columns have them; nothing is counted."""
        try:
            if (known := self._fan_out.get(raw)) is not None:
                return known
        except TypeError:  # a list or an object, which `identifier` will refuse
            pass
        mapping = self.mapping
        cohort_id = self._required(raw[0], "cohort_id")
        has_name = mapping.cohort_name_column is not None
        name = self._required(raw[1], "cohort_name") if has_name else cohort_id
        cohort = Cohort(cohort_id, name, mapping.cohort_description)
        destination = self._destinations.of(cohort, mapping)
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


def _actions(columns: Columns, mode: SyncMode) -> Iterable[Action]:
    """What plain rows ask for: they are not deleted, but may say that their member is none."""
    if mode is SyncMode.REMOVE:
        return itertools.repeat(_REMOVE, columns.count)
    if columns.present is None:
        return itertools.repeat(_ADD, columns.count)
    return [_ADD if present else _REMOVE for present in columns.present]


def _missing_column(
    stream: str, setting: str, column: str, properties: AbstractMapping[str, t.Any]
) -> SettingsError:
    columns = ", ".join(sorted(properties)) or "none"
    return SettingsError(
        f"{setting}: the stream {stream!r} has no column {column!r}; it has {columns}; "
        "name one of these, or select it in the tap"
    )
