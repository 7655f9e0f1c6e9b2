"""One stream's records → changes of membership, by the stream's mapping."""

from __future__ import annotations

import typing as t
from types import SimpleNamespace

from msgspec import UNSET

from target_moengage_cohort.destinations import fitting
from target_moengage_cohort.errors import MissingKeyRowError, RowError, SettingsError
from target_moengage_cohort.membership import (
    Action,
    Change,
    Cohort,
    Member,
    SyncMode,
    identifier,
    membership,
)
from target_moengage_cohort.reader import DELETED_AT

if t.TYPE_CHECKING:
    from collections.abc import Mapping as AbstractMapping
    from collections.abc import Sequence

    from target_moengage_cohort.destinations import Destination, Destinations
    from target_moengage_cohort.settings import Mapping

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
            payload = fitting(member.encode(), destination.capacity)
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


def _missing_column(
    stream: str, setting: str, column: str, properties: AbstractMapping[str, t.Any]
) -> SettingsError:
    columns = ", ".join(sorted(properties)) or "none"
    return SettingsError(
        f"{setting}: the stream {stream!r} has no column {column!r}; it has {columns}"
    )
