"""The engine: one DuckDB instance in the process, to which a few ledgers at a time are attached."""

from __future__ import annotations

import contextlib
import threading
import typing as t
from collections import OrderedDict

from target_moengage_cohort.core.errors import LedgerError

if t.TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import duckdb

    Cursor: t.TypeAlias = duckdb.DuckDBPyConnection

EMPTY_SCHEMA = "memory.nothing"
"""The schema with the tables of a cohort that has no ledger, for whoever may not make one."""

_MEMORY_LIMIT = "256MB"
_THREADS = 2
_ATTACHED = 64


@contextlib.contextmanager
def translated(path: Path | str) -> Iterator[None]:
    """Turn what DuckDB or the disk says into a `LedgerError` without any member's id."""
    import duckdb  # noqa: PLC0415 - as in `Engine`

    try:
        yield
    except (duckdb.Error, OSError) as error:
        detail = type(error).__name__
        text = next(iter(str(error).splitlines()), "")
        # These are about files, never about values; a COMMIT wraps them into another class.
        if text and (isinstance(error, (duckdb.IOException, OSError)) or "IO Error: " in text):
            detail = f"{detail}: {text}"
        msg = (
            f"the ledger {path} cannot be used ({detail}); its folder must be writable and its "
            "disk have room. Nothing more is sent; mend it, then run again"
        )
        raise LedgerError(msg) from None


def quoted(text: str) -> str:
    """A string as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"


class DatabaseFile:
    """A ledger's file, as the engine sees it.

    Args:
        path: The file.
        number: Which one; its tables are in the database ``c<number>``.

    Attributes:
        lock: Whoever uses the tables holds it.
        pins: How many uses are under way; while there are any, the file stays attached.
    """

    def __init__(self, path: Path, number: int) -> None:
        self.path = path
        self.name = f"c{number}"
        self.lock = threading.RLock()
        self.pins = 0


class Engine:
    """A DuckDB instance; DuckDB is imported for the first one, since many runs need none.

    Args:
        hash_key: What members' hashes are keyed with.
        spill: A folder for what does not fit into memory.
        read_only: Whether files are attached for reading only.

    Raises:
        LedgerError: DuckDB refuses it.
    """

    def __init__(self, hash_key: str, spill: Path, *, read_only: bool) -> None:
        self._hash_key = hash_key
        self._read_only = read_only
        self._lock = threading.Lock()
        self._attached: OrderedDict[DatabaseFile, None] = OrderedDict()
        import duckdb  # noqa: PLC0415

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
        """A new cursor: one thread at a time may use it."""
        return self._connection.cursor()

    def hash_sql(self, uid: str, anonymous_id: str) -> str:
        """The SQL expression (UHUGEINT) of a member's hash.

        Args:
            uid: The SQL expression of the uid.
            anonymous_id: That of the anonymous id, which counts where there is no uid.
        """
        key = quoted(self._hash_key)
        return f"md5_number({key} || coalesce('u' || {uid}, 'a' || {anonymous_id}))"

    def attach(self, file: DatabaseFile) -> None:
        """Attach a ledger's file if it is not, and detach others that are not in use.

        The caller holds the file's lock.

        Raises:
            duckdb.Error: DuckDB refuses it.
        """
        with self._lock:
            if file in self._attached:
                self._attached.move_to_end(file)
                return
            idle = list(self._attached)[: max(len(self._attached) - _ATTACHED + 1, 0)]
        for other in idle:
            if other.lock.acquire(blocking=False):  # never wait for another ledger
                try:
                    if not other.pins:
                        self.detach(other)
                finally:
                    other.lock.release()
        mode = " (READ_ONLY)" if self._read_only else ""
        self.cursor().execute(f"ATTACH {quoted(str(file.path))} AS {file.name}{mode}")
        with self._lock:
            self._attached[file] = None

    def detach(self, file: DatabaseFile) -> None:
        """Write everything to a ledger's file and close it.

        The caller holds the file's lock.

        Raises:
            duckdb.Error: DuckDB refuses it.
        """
        with self._lock:
            if file not in self._attached:
                return
            del self._attached[file]
        self.cursor().execute(f"DETACH {file.name}")

    def close(self) -> None:
        """Close the instance."""
        self._connection.close()


def sums_sql(h: str) -> str:
    """The SQL expressions of the two sums that `digest` takes."""
    return (
        f"coalesce(sum(({h} >> 64)::HUGEINT), 0), "
        f"coalesce(sum(({h} & 18446744073709551615::UHUGEINT)::HUGEINT), 0)"
    )


def digest(high: int, low: int) -> str:
    """The digest of a set of members: the sum of their hashes modulo 2**128."""
    return f"{((high << 64) + low) % 2**128:032x}"
