"""Maps one stream's rows to changes of its cohorts."""

from __future__ import annotations

import itertools
import math
import typing as t
from collections import Counter
from types import SimpleNamespace

from msgspec import UNSET

from target_moengage_cohort.core.deletions import (
    WHOLE_ROWS,
    in_any_case,
    is_deletion,
    is_deletion_role,
)
from target_moengage_cohort.core.errors import RowError, SettingsError
from target_moengage_cohort.core.membership import (
    Action,
    Change,
    Cohort,
    Member,
    SyncMode,
    identifier,
    is_padded,
    membership,
)
from target_moengage_cohort.singer.columns import NotPlainError, RowLayout, plain_rows
from target_moengage_cohort.sync.mapped_columns import mapped_columns
from target_moengage_cohort.sync.mirror.completeness import whole_number

if t.TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from target_moengage_cohort.settings import StreamMapping
    from target_moengage_cohort.singer.columns import Columns
    from target_moengage_cohort.singer.messages import Schema
    from target_moengage_cohort.sync.cohorts import Cohorts
    from target_moengage_cohort.sync.synced_cohort import SyncedCohort

_ADD, _REMOVE = Action.ADD, Action.REMOVE
_NO_MEMBER = Member()


class RowMapper:
    """A mapper from one stream's rows to members and their cohorts.

    Raise a `SettingsError` if no row can have a mapped column or the cohort of all rows cannot be
    used, and a `CohortError` if nothing can be sent for it.
    """

    def __init__(self, mapping: StreamMapping, schema: Schema, cohorts: Cohorts) -> None:
        self.mapping = mapping
        self.schema = schema
        self._cohorts = cohorts
        columns, self.undeclared = mapped_columns(mapping, schema)
        self._columns = columns
        self._marks = [role for role in columns if is_deletion_role(role)]
        keys = list(dict.fromkeys(schema.key_properties))
        roles = {column: role for role, column in columns.items()}
        self._key_roles = [(key, roles.get(key, f"key_{n}")) for n, key in enumerate(keys)]
        # With a membership column, rows of non-members are skipped one by one in sync mode add.
        skips = "membership" in columns and mapping.sync_mode is SyncMode.ADD
        plain, properties = None, schema.schema["properties"]
        if not skips:
            plain = plain_rows(columns, keys, properties, self.undeclared)
        uid_is_optional = not (mapping.uid_required or mapping.uid_column in properties)
        optional = frozenset({"uid"} if uid_is_optional else ())
        self.layout = RowLayout(columns, keys, plain, optional)  # the columns to decode of a row
        self.cohort = self._fixed_cohort()  # of all rows; none if each row names its own
        self._by_name: dict[tuple[t.Any, t.Any], SyncedCohort] = {}
        self._least_capacity = math.inf

    def _fixed_cohort(self) -> SyncedCohort | None:
        cohort, mapping = self.mapping.cohort, self.mapping
        if cohort is None:
            return None
        try:
            synced = self._cohorts.meet(cohort, mapping)
        except RowError as error:
            msg = f"cohorts.{mapping.stream}: {error.reason}"
            raise SettingsError(error.code, msg) from None
        if synced.error is not None:
            raise synced.error
        return synced

    def row(self, record: Mapping[str, t.Any]) -> SimpleNamespace:
        """Return a whole record in the form that the reader decodes: an attribute for each role."""
        row = SimpleNamespace(
            **{role: record.get(column, UNSET) for role, column in self._columns.items()}
        )
        for role in self._marks:
            name = in_any_case(self._columns[role], role, record)
            setattr(row, role, UNSET if name is None else record[name])
        for key, role in self._key_roles:
            setattr(row, role, record.get(key, UNSET))
        return row

    def count_rejected(self, error: RowError) -> None:
        """Count a record that was rejected before `read`, for its cohort if that is fixed."""
        if self.cohort is not None:
            self.cohort.records += 1
            self.cohort.rejected += 1
            error.cohort_id = self.cohort.cohort.cohort_id

    def read(self, row: t.Any) -> tuple[SyncedCohort, Action | None, Member]:
        """Return a row's cohort, what the row asks for (``None``: nothing), and the member.

        A row has an attribute for each role of the layout, and ``key_N`` for other keys.
        """
        cohort = self.cohort or self._named_by_row(row)
        cohort.records += 1
        try:
            self._require_keys(row)
            action = self._action(row)
            if action is None:
                return cohort, None, _NO_MEMBER
            member = self._member(row)
            member.check_size(cohort.capacity)
        except RowError as error:
            cohort.rejected += 1
            error.cohort_id = cohort.cohort.cohort_id
            raise
        return cohort, action, member

    def proves_emptiness(self, row: t.Any) -> bool:
        """Return whether a row states that there are none: no identifier, and a row count of 0."""
        roles = self._columns.keys() & {"uid", "anonymous_id"}
        return (
            "expected_count" in self._columns
            and all(getattr(row, role) in (None, UNSET, "") for role in roles)
            and whole_number(row.expected_count) == 0
        )

    def record_proves_emptiness(self, record: Mapping[str, t.Any]) -> bool:
        """Return the same of a whole record."""
        return "expected_count" in self._columns and self.proves_emptiness(self.row(record))

    def count_padded(self, rows: int) -> None:
        """Count rows whose identifiers begin or end with white space."""
        self._cohorts.row_warnings.count("padded_identifiers", self.mapping.stream, rows)

    def _require_keys(self, row: t.Any) -> None:
        for key, role in self._key_roles:
            if getattr(row, role) is UNSET:
                raise RowError("missing_key", f"it lacks the key property {key!r}")

    def cohorts_of(self, columns: Columns) -> list[SyncedCohort]:
        """Return the cohort of each of many plain rows, or a single one for all of them.

        Raise a `NotPlainError` if the rows must be read one by one.
        """
        if self.cohort is not None:
            if not columns.fit(self.cohort.capacity):
                raise NotPlainError
            return [self.cohort]
        names = t.cast("list[tuple[str, str | None]]", columns.cohorts)
        cohorts = [*map(self._by_name.get, names)]
        if None in cohorts:  # met for the first time
            try:
                by_name = {name: self._named(name) for name in dict.fromkeys(names)}
            except RowError:
                raise NotPlainError from None
            cohorts = [*map(by_name.get, names)]
        found = t.cast("list[SyncedCohort]", cohorts)
        if not columns.fit(self._least_capacity):
            raise NotPlainError
        return found

    def changes(self, columns: Columns, cohorts: Sequence[SyncedCohort]) -> Iterable[Change]:
        """Turn many plain rows into changes of their cohorts, which `cohorts_of` has found."""
        for cohort, count in count_records(columns, cohorts).items():
            cohort.records += count
        per_row = [cohort.cohort for cohort in cohorts]
        if len(per_row) == 1:
            per_row *= columns.count
        anonymous_ids = columns.anonymous_ids or itertools.repeat(None)
        members = map(Member, columns.uids, anonymous_ids)
        return map(Change, per_row, _actions(columns, self.mapping.sync_mode), members)

    def _action(self, row: t.Any) -> Action | None:
        mode = self.mapping.sync_mode
        if mode is SyncMode.REMOVE:
            return _REMOVE
        if self._is_deleted(row):
            return None if mode is SyncMode.ADD else _REMOVE
        if "membership" not in self._columns:
            return _ADD
        try:
            action = membership(row.membership)
        except RowError as error:
            raise self._in_column(error, "membership") from None
        return None if action is _REMOVE and mode is SyncMode.ADD else action

    def _is_deleted(self, row: t.Any) -> bool:
        is_deleted = False
        for role in self._marks:
            try:
                is_deleted |= is_deletion(getattr(row, role))
            except RowError as error:
                raise self._in_column(error, role) from None
        return is_deleted

    def _member(self, row: t.Any) -> Member:
        uid = row.uid if "uid" in self._columns else None
        if type(uid) is not str or not uid or not uid.isascii():
            uid = self._identifier(uid, "uid")
        anonymous_id = None
        if "anonymous_id" in self._columns:
            anonymous_id = self._identifier(row.anonymous_id, "anonymous_id")
        if uid is None and anonymous_id is None:
            roles = [role for role in ("uid", "anonymous_id") if role in self._columns]
            names = " and ".join(repr(self._columns[role]) for role in roles)
            why = f"{names} {'is' if len(roles) == 1 else 'are'} null, empty or absent"
            if self._is_deleted(row):
                raise _lost_deletion(why)
            raise RowError("no_identifier", f"no identifier: {why}")
        if is_padded(uid or "") or is_padded(anonymous_id or ""):
            self.count_padded(1)
        return Member(uid, anonymous_id)

    def _named_by_row(self, row: t.Any) -> SyncedCohort:
        """Return the cohort that a row of a stream with many cohorts names."""
        has_name = self.mapping.cohort_name_column is not None
        try:
            return self._named((row.cohort_id, row.cohort_name if has_name else None))
        except RowError as error:
            if error.code == "no_cohort" and self._is_deleted(row):
                raise _lost_deletion(error.reason) from None
            cohort = self._cohorts.by_id.get(error.cohort_id) if error.cohort_id else None
            if cohort is not None:
                cohort.records += 1
                cohort.rejected += 1
            raise

    def _named(self, raw: tuple[t.Any, t.Any]) -> SyncedCohort:
        """Return the cohort of an id and a name as the columns have them; count nothing."""
        try:
            if (cohort := self._by_name.get(raw)) is not None:
                return cohort
        except TypeError:  # a list or an object, which `identifier` will refuse
            pass
        mapping = self.mapping
        cohort_id = self._required(raw[0], "cohort_id")
        if mapping.cohort_name_column is None:
            name = self._cohorts.name_of(cohort_id, mapping)
        else:
            name = self._required(raw[1], "cohort_name")
        cohort = self._cohorts.meet(Cohort(cohort_id, name, mapping.cohort_description), mapping)
        # Without a limit on new cohorts there may be any number of them with an error.
        if cohort.error is None and all(part is None or type(part) is str for part in raw):
            self._least_capacity = min(self._least_capacity, cohort.capacity)
            self._by_name[raw] = cohort  # 1, 1.0 and True are equal keys, but not equal ids
        return cohort

    def _required(self, value: object, role: str) -> str:
        text = self._identifier(value, role)
        if text is None or not text.strip():
            raise RowError(
                "no_cohort", f"the column {self._columns[role]!r} is null, empty or blank"
            )
        return text

    def _identifier(self, value: object, role: str) -> str | None:
        try:
            return identifier(value)
        except RowError as error:
            raise self._in_column(error, role) from None

    def _in_column(self, error: RowError, role: str) -> RowError:
        return RowError(error.code, f"the column {self._columns[role]!r} {error.reason}")


def _lost_deletion(why: str) -> RowError:
    """Return the error of a deletion whose key is not the deleted user's uid."""
    reason = (
        f"it is a deletion without an identifier ({why}). The log may contain only the keys of "
        f"deleted rows. {WHOLE_ROWS}"
    )
    return RowError("deletion_without_identifier", reason)


def count_records(columns: Columns, cohorts: Sequence[SyncedCohort]) -> Mapping[SyncedCohort, int]:
    """Return how many of many plain rows each cohort has; `RowMapper.cohorts_of` found these."""
    return {cohorts[0]: columns.count} if len(cohorts) == 1 else Counter(cohorts)


def _actions(columns: Columns, mode: SyncMode) -> Iterable[Action]:
    """Return what plain rows ask for: they are not deleted, but may be of a non-member."""
    if mode is SyncMode.REMOVE:
        return itertools.repeat(_REMOVE, columns.count)
    if columns.present is None:
        return itertools.repeat(_ADD, columns.count)
    return [_ADD if present else _REMOVE for present in columns.present]
