"""The engine: one DuckDB instance in the process, to which a few ledgers at a time are attached."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import resource
import threading
import typing as t
from collections import OrderedDict

from target_moengage_cohort.core.files import unusable
from target_moengage_cohort.ledger.records import MemberSet
from target_moengage_cohort.ledger.repairs import damaged, restore_members

if t.TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import duckdb

    Cursor: t.TypeAlias = duckdb.DuckDBPyConnection
    Row: t.TypeAlias = tuple[t.Any, ...]

_MEMORY_LIMIT = "256MB"
_THREADS = 2
_ATTACHED = 256
_SHARE = 4  # of the descriptors that the process may open, one in so many is for ledgers


_numbers = itertools.count(1)
_OF_FILE = re.compile(r'(Could not|Cannot) [a-z ]+ file "')
_DAMAGES = (
    "not a valid DuckDB database file",
    "Could not read enough bytes",
    "Corrupt database file",
    "Table with name",  # that does not exist
)


@contextlib.contextmanager
def translated(path: Path, stream: str | None = None) -> Iterator[None]:
    """Turn an error of DuckDB or the disk into a `LedgerError` without any identifier.

    The path is that of a stream's members, or a directory for temporary files.
    """
    import duckdb  # noqa: PLC0415 - as in `Engine`

    try:
        yield
    except (duckdb.Error, OSError) as error:
        detail = type(error).__name__
        text = next(iter(str(error).splitlines()), "")
        # These are about files and sizes, never about values; a COMMIT wraps them into others.
        plain = (duckdb.IOException, duckdb.OutOfMemoryException, OSError)
        if text and (isinstance(error, plain) or _OF_FILE.search(text)):
            detail = f"{detail}: {text}"
        if stream is not None and any(damage in str(error) for damage in _DAMAGES):
            raise damaged(path, restore_members(path, stream)) from None
        raise unusable(path, "used", detail) from None


def quoted(text: str) -> str:
    """Return a string as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"


class DatabaseFile:
    """A ledger's file in the engine, and its name there."""

    options = "TYPE duckdb"  # of its ATTACH

    def __init__(self, path: Path, place: str) -> None:
        self.path = path
        self.place = place  # of the ledger, for messages
        self.name = f"c{next(_numbers)}"
        self.lock = threading.RLock()  # locked while the tables are in use
        self.pins = 0  # the uses under way; while there are any, the file stays attached


class Engine:
    """A DuckDB instance, which spills to a directory when its memory is full.

    DuckDB is imported for the first one, because many runs need none.
    """

    def __init__(self, hash_key: str, spill: Path, *, read_only: bool) -> None:
        self._hash_key = hash_key
        self._spill = spill
        self.read_only = read_only
        self._lock = threading.Lock()
        self._attached: OrderedDict[DatabaseFile, None] = OrderedDict()
        import duckdb  # noqa: PLC0415

        # DuckDB has no setting for its files' modes, and makes logs and spilled blocks anytime.
        os.umask(0o077)
        with translated(spill):
            self._connection = duckdb.connect(
                ":memory:",
                config={
                    "memory_limit": _MEMORY_LIMIT,
                    "threads": _THREADS,
                    "temp_directory": str(spill),
                    "autoinstall_known_extensions": False,
                    "autoload_known_extensions": False,
                },
            )

    def cursor(self) -> Cursor:
        """Return a new cursor, for use by one thread at a time."""
        return self._connection.cursor()

    def hash_sql(self, uid: str, anonymous_id: str) -> str:
        """Return the SQL expression (UHUGEINT) of a member's hash, given those of its identifiers.

        The anonymous id counts if the uid is null.
        """
        of_uid, of_anonymous_id = (quoted(self._hash_key + kind) for kind in "ua")
        return f"md5_number(coalesce({of_uid} || {uid}, {of_anonymous_id} || {anonymous_id}))"

    def attach(self, file: DatabaseFile) -> None:
        """Attach a file whose lock the caller holds, and detach others that are not in use."""
        with self._lock:
            if file in self._attached:
                self._attached.move_to_end(file)
                return
            soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
            most = _ATTACHED if soft == resource.RLIM_INFINITY else min(_ATTACHED, soft // _SHARE)
            idle = list(self._attached)[: max(len(self._attached) - most + 1, 0)]
        for other in idle:
            if other.lock.acquire(blocking=False):  # never wait for another ledger
                try:
                    if not other.pins:
                        self.detach(other)
                finally:
                    other.lock.release()
        options = file.options + (", READ_ONLY" if self.read_only else "")
        self.cursor().execute(f"ATTACH {quoted(str(file.path))} AS {file.name} ({options})")
        with self._lock:
            self._attached[file] = None

    def detach(self, file: DatabaseFile) -> None:
        """Write everything to a file whose lock the caller holds, and close it."""
        with self._lock:
            if file not in self._attached:
                return
            del self._attached[file]
        self.cursor().execute(f"DETACH {file.name}")

    def close(self) -> None:
        """Close the instance."""
        with translated(self._spill):
            self._connection.close()


def sums_sql(h: str) -> str:
    """Return the SQL expressions of the two sums that `digest` takes."""
    return (
        f"coalesce(sum(({h} >> 64)::HUGEINT), 0), "
        f"coalesce(sum(({h} & 18446744073709551615::UHUGEINT)::HUGEINT), 0)"
    )


def grown(members: MemberSet, count: int, sums: Sequence[int]) -> MemberSet:
    """Return a set of members that differs by a number and by the two sums of hashes."""
    high, low = sums
    return MemberSet(members.count + count, digest(high, low + int(members.digest, 16)))


def digest(high: int, low: int) -> str:
    """Return the digest of a set of members: the sum of their hashes modulo 2**128."""
    return f"{((high << 64) + low) % 2**128:032x}"
