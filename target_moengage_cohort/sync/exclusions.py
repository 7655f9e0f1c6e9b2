"""The members that belong to no cohort (`exclude_path`), whatever rows say of them."""

from __future__ import annotations

import contextlib
import io
import os
import stat
import typing as t
from pathlib import Path

import msgspec

from target_moengage_cohort.core.errors import InputError
from target_moengage_cohort.core.membership import Member

if t.TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_MEMORY = "512MB"
_IN_MEMORY: dict[str, t.Any] = {
    "temp_directory": "",  # else identifiers would spill to the directory of the process
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
}
_PAGE = 50_000  # members to look up in a ledger at a time
_INSERTED = 100_000  # values to insert at a time, so that few of them wait, and each once
_NAME = "exclude_path"  # for errors: the value may be a secret
_COLUMNS = ("uid", "anonymous_id")
_LIST = """from_json($1, '["VARCHAR"]')"""
_LISTED = f"SELECT unnest({_LIST}) AS value, unnest(range($2)) AS i"


class Exclusions:
    """The identifiers of a file, in memory; none without a file.

    It is read when it is needed first, which is before anything is sent. Then, raise an
    `InputError` if it cannot be read to its end, or has no identifiers.
    """

    def __init__(self, path: str | None) -> None:
        self._path = path
        self._cursor: t.Any = None

    @property
    def is_active(self) -> bool:
        """Whether there is a file."""
        return self._path is not None

    def load(self) -> None:
        """Read the file, unless that is done, or there is none."""
        if self._path is None or self._cursor is not None:
            return
        # Slow to import, and few runs need them.
        import duckdb  # noqa: PLC0415

        from target_moengage_cohort.core.member_lists import members_in  # noqa: PLC0415

        cursor = duckdb.connect(":memory:", config=_IN_MEMORY | {"memory_limit": _MEMORY})
        for column in _COLUMNS:
            cursor.execute(f"CREATE TABLE {column} (value VARCHAR)")
        waiting: dict[str, list[str]] = {column: [] for column in _COLUMNS}
        try:
            for members in members_in(self._open, _NAME, needs_header=True):
                for column, values in waiting.items():
                    values.extend(filter(None, (getattr(member, column) for member in members)))
                    if len(values) >= _INSERTED:
                        _insert(cursor, column, values)
            for column, values in waiting.items():
                _insert(cursor, column, values)
        except duckdb.OutOfMemoryException:
            msg = f"{_NAME}: lists more users than fit into {_MEMORY}; list fewer"
            raise InputError("too_many_identifiers", msg) from None
        self._cursor = cursor

    def find(self, uids: Sequence[str | None], anonymous_ids: Sequence[str | None]) -> list[int]:
        """Return the positions of the members that are excluded, by either identifier."""
        if not (self.is_active and uids):
            return []
        self.load()
        found: set[int] = set()
        for column, values in zip(_COLUMNS, (uids, anonymous_ids), strict=True):
            if any(values):
                query = f"SELECT i FROM ({_LISTED}) SEMI JOIN {column} USING (value)"
                rows = self._cursor.execute(query, [_text(values), len(values)]).fetchall()
                found.update(i for (i,) in rows)
        return sorted(found)

    def without(self, members: Sequence[Member]) -> list[Member]:
        """Return the members that are not excluded."""
        uids = [member.uid for member in members]
        excluded = {*self.find(uids, [member.anonymous_id for member in members])}
        return [member for index, member in enumerate(members) if index not in excluded]

    def pages(self) -> Iterator[list[Member]]:
        """Yield a member for each identifier."""
        self.load()
        for place, column in enumerate(_COLUMNS):
            ((count,),) = self._cursor.execute(f"SELECT count(*) FROM {column}").fetchall()
            for first in range(0, count, _PAGE):
                where = f"rowid BETWEEN {first} AND {first + _PAGE - 1}"
                rows = self._cursor.execute(f"SELECT value FROM {column} WHERE {where}").fetchall()
                yield [Member(None, value) if place else Member(value) for (value,) in rows]

    @contextlib.contextmanager
    def _open(self) -> Iterator[t.IO[bytes]]:
        """Open the file; raise an `InputError` in the end if it may be half-written."""
        path = str(self._path)
        if "://" not in path:
            with Path(path).open("rb") as file:
                before, watched = _version(file), _Watched(file)
                yield t.cast("t.IO[bytes]", io.BufferedReader(watched))
                watched.check(is_same=_version(file) == before)
            return
        from target_moengage_cohort.core.remote_files import open_storage  # noqa: PLC0415 - likewise

        files, place = open_storage(path, _NAME, InputError)
        try:
            with files.open(place, "rb") as file:
                watched = _Watched(file)
                yield t.cast("t.IO[bytes]", io.BufferedReader(watched))
                watched.check()
        except (InputError, UnicodeError):
            raise
        except Exception as fault:  # noqa: BLE001 - each storage has its own, which quote URLs
            msg = f"cannot be read ({type(fault).__name__}); check the URL and the credentials"
            raise InputError("unreadable_file", msg) from None


class _Watched(io.RawIOBase):
    """A file to read, whose last line must be a whole one."""

    def __init__(self, file: t.IO[bytes]) -> None:
        self._file, self._last = file, b""

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: t.Any) -> int:
        """Read some bytes into a buffer."""
        data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        self._last = data[-1:] or self._last
        return len(data)

    def check(self, *, is_same: bool = True) -> None:
        """Raise an `InputError` if the file ends within a line, or has changed."""
        if is_same and self._last in {b"\n", b"\r"}:
            return
        what = "its last line has no line break" if is_same else "it changed while it was read"
        msg = (
            f"may be half-written, because {what}; write the list to a temporary file with a "
            "line break after each line, then rename the file"
        )
        raise InputError("unfinished_file", msg)


def _version(file: t.IO[bytes]) -> tuple[int, int] | None:
    """Return what a change of a file changes; nothing of a pipe, which ends when it is written."""
    facts = os.fstat(file.fileno())
    return (facts.st_mtime_ns, facts.st_size) if stat.S_ISREG(facts.st_mode) else None


def _text(values: Sequence[str | None]) -> str:
    return msgspec.json.encode(values).decode()


def _insert(cursor: t.Any, table: str, values: list[str]) -> None:
    """Insert the values that the table does not have, and clear the list."""
    new = f"SELECT DISTINCT value FROM (SELECT unnest({_LIST}) AS value)"
    cursor.execute(f"INSERT INTO {table} {new} ANTI JOIN {table} USING (value)", [_text(values)])
    values.clear()
