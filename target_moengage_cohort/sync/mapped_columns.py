"""The columns that a mapping names, in a stream's SCHEMA and in its rows.

A SCHEMA need not name every column, or any. One that it does not name is taken from the rows; only
if no row has it, either, do the settings name the wrong column.
"""

from __future__ import annotations

import typing as t
from collections import defaultdict

from msgspec import UNSET

from target_moengage_cohort.core.column_names import differs_how, quote_all
from target_moengage_cohort.core.deletions import (
    MARKS,
    UNDECLARED_OWN,
    deletion_columns,
    is_deletion_role,
)
from target_moengage_cohort.core.errors import InputError, RowError, SettingsError
from target_moengage_cohort.core.text import format_count

if t.TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from target_moengage_cohort.settings import StreamMapping
    from target_moengage_cohort.singer.messages import RawRecord, Schema

_MOST_ROWS = 1_000  # without a column that all rows should have
_NAMED_ROWS = 20  # whose columns an error names
_MOST_NAMES = 100


def mapped_columns(mapping: StreamMapping, schema: Schema) -> tuple[dict[str, str], dict[str, str]]:
    """Return role → column for what must be decoded of a row; and for what rows must show.

    The latter are the columns that some row must have, because the SCHEMA does not name them. Raise
    a `SettingsError` if the SCHEMA permits no other columns than its own, or a column is reserved.
    """
    properties = schema.schema["properties"]
    columns = {**mapping.columns}
    own = columns.pop("deleted_at", None)
    undeclared = {role: column for role, column in columns.items() if column not in properties}
    is_closed = schema.schema.get("additionalProperties") is False
    if not mapping.uid_required and "uid" in undeclared:
        del undeclared["uid"]
        if is_closed:
            del columns["uid"]
    for role, column in columns.items():
        if column.lower() in MARKS:
            msg = f"{role}_column: {column} always marks deletions; choose another column"
            raise SettingsError("reserved_column", msg)
    columns |= (deletions := deletion_columns(own, properties))
    if UNDECLARED_OWN in deletions:
        undeclared[UNDECLARED_OWN] = deletions[UNDECLARED_OWN]
    if undeclared and is_closed:
        raise missing_column(mapping.stream, undeclared, properties)
    return columns, undeclared


def missing_column(
    stream: str, missing: Mapping[str, str], available: Iterable[str], rows: int | None = None
) -> SettingsError:
    """Return the error for mapped columns, by their roles, that neither SCHEMA nor rows have.

    Without the number of `rows`, the SCHEMA alone shows it.
    """
    role, column = next(iter(missing.items()))
    setting, names = f"{'deleted_at' if is_deletion_role(role) else role}_column", sorted(available)
    where = "" if rows is None else f" (in its SCHEMA and {format_count(rows, 'row')})"
    remedy = f"Set {setting} to one of these, or select the column in the tap"
    if (similar := differs_how(column, names)) is not None:
        remedy = similar.remedy(setting)
    msg = (
        f"{setting}: the stream {stream!r} has no column {quote_all([column])}; it has "
        f"{quote_all(names[:_MOST_NAMES]) or 'none'}{where}. {remedy}"
    )
    return SettingsError("missing_column", msg)


def misspelled_key(
    mapping: StreamMapping, keys: Iterable[str], names: Iterable[str]
) -> InputError | None:
    """Return the error for a key that a row has under a similar name; ``None`` if it has none."""
    names = list(names)
    for key in keys:
        similar = None if key in names else differs_how(key, names)
        if similar is not None:
            how = "differs only in case" if similar.differs_in_case else "looks the same"
            remedy = f"{{{mapping.stream}: {{__key_properties__: [{mapping.uid_column}]}}}}"
            msg = (
                f"the SCHEMA of the stream {mapping.stream!r} has the key property "
                f"{quote_all([key])}, which its rows lack; their column "
                f"{quote_all([similar.name])} {how}. Set the tap's key properties, or set "
                f"stream_maps: {remedy}"
            )
            return InputError("missing_key", msg)
    return None


class UndeclaredColumns:
    """Watches the rows of a run for mapped columns that no SCHEMA has named.

    Until a row has shown them, no STATE covers its stream's rows: `hold` and `release` get the name
    of the stream. Rows that lack them are rejected meanwhile, like any other.
    """

    def __init__(
        self, hold: Callable[[str], None], release: Callable[[str], None], *, fails: bool
    ) -> None:
        self._hold, self._release = hold, release
        self._fails = fails  # whether a rejected row ends the run
        self._seen: defaultdict[str, set[str]] = defaultdict(set)  # columns of each stream
        self._missing: dict[str, dict[str, str]] = {}  # stream → role → column
        self._rows: defaultdict[str, int] = defaultdict(int)  # without one of them
        self._names: defaultdict[str, set[str]] = defaultdict(set)  # that the streams have

    def expect(self, stream: str, undeclared: Mapping[str, str], declared: Iterable[str]) -> None:
        """Watch for what a stream's latest SCHEMA does not name."""
        seen = self._seen[stream]
        missing = {role: column for role, column in undeclared.items() if column not in seen}
        self._names[stream].update(declared)
        if missing:
            self._missing[stream] = missing
        elif self._missing.pop(stream, None) is not None:
            self._release(stream)

    def see_all(self, stream: str) -> None:
        """Note that many plain rows had all columns, as they must have."""
        if (missing := self._missing.pop(stream, None)) is not None:
            self._seen[stream].update(missing.values())
            self._release(stream)

    def see(
        self,
        stream: str,
        row: t.Any,
        record: Callable[[], RawRecord],
        proves_emptiness: Callable[[t.Any], bool],
    ) -> None:
        """Note the columns of a row, of which `record` returns all.

        One that proves that there are no members need not have them.

        Raise a `SettingsError` if so many rows have lacked one that it is not there.
        """
        if (missing := self._missing.get(stream)) is None or proves_emptiness(row):
            return
        for role, column in [*missing.items()]:
            if getattr(row, role) is not UNSET:
                self._seen[stream].add(column)
                del missing[role]
        if not missing:
            self.see_all(stream)
            return
        self._rows[stream] += 1
        if self._rows[stream] == 1:
            self._hold(stream)
        if self._rows[stream] <= _NAMED_ROWS:
            self._names[stream].update(record())
        is_certain = self._rows[stream] > _MOST_ROWS and not all(map(is_deletion_role, missing))
        if is_certain or "expected_count" in missing:
            raise self._error(stream)

    def blame(self, stream: str, error: RowError) -> None:
        """Raise a `SettingsError` for a row whose rejection would end the run, if that is why."""
        missing = self._missing.get(stream, {})
        if missing and error.code == "deletion_without_identifier":
            self._rows[stream] -= 1  # it has its key only, which shows nothing
        if self._fails and not all(map(is_deletion_role, missing)) and error.code in _CAUSED:
            raise self._error(stream)

    def check(self) -> None:
        """Raise a `SettingsError` if rows were read, and all of them lacked a column."""
        SettingsError.raise_any(
            self._error(stream) for stream in self._missing if self._rows[stream]
        )

    def _error(self, stream: str) -> SettingsError:
        return missing_column(
            stream, self._missing[stream], self._names[stream], self._rows[stream]
        )


_CAUSED = {"no_identifier", "invalid_membership", "no_cohort"}
"""Codes of what an absent column does to a row."""
