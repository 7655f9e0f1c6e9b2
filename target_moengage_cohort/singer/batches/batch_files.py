"""The files of BATCH messages, in any format and any storage.

They belong to the tap, so they are only read, never changed or removed.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import typing as t

import duckdb

from target_moengage_cohort.core.column_files import INCOMPLETE, ColumnarRows
from target_moengage_cohort.core.deletions import is_deletion_role
from target_moengage_cohort.core.errors import InputError
from target_moengage_cohort.core.files import Scratch
from target_moengage_cohort.singer.batches.columnar import Cursor, Relation
from target_moengage_cohort.singer.batches.jsonl import JsonLines
from target_moengage_cohort.singer.batches.storage import local_file, shown
from target_moengage_cohort.singer.decoding import row_decoder, row_type

if t.TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from target_moengage_cohort.settings.declared import BatchStorage
    from target_moengage_cohort.singer.columns import RowLayout
    from target_moengage_cohort.singer.messages import Batch

Part: t.TypeAlias = "JsonLines | Relation"

_FORMATS = ("jsonl", "parquet", "arrow")
_COMPRESSIONS = (None, "none", "gzip")
_ARROW_ROWS = 1_000_000  # that DuckDB gets as one table


class BatchFiles:
    """Opens the batch files of one run, perhaps in the target's own storage."""

    def __init__(self, storage: BatchStorage | None) -> None:
        self._storage = storage
        self._resources = contextlib.ExitStack()
        self._numbers = itertools.count(1)

    def parts(self, message: Batch, layout: RowLayout, where: str) -> Iterator[Part]:
        """Yield the contents of a message's files, one by one; ``where`` names it in errors."""
        _check_encoding(message, where)
        for url in message.manifest:
            named = f"the batch file {shown(url)} ({where})"
            path = local_file(url, self._storage, self._directory)
            if message.encoding.compression == "gzip" and not path.stat().st_size:
                msg = f"{named} is empty and therefore not a gzip file, {INCOMPLETE}"
                raise InputError("batch_file_unreadable", msg)
            try:
                match message.encoding.format:
                    case "jsonl":
                        yield JsonLines(path, named, _row_decoder(layout), layout.plain)
                    case "parquet":
                        yield from self._parquet(path, named, layout)
                    case "arrow":
                        yield from _arrow(path, named, layout, self._cursor)
            finally:
                if path.parent == self._directory:
                    path.unlink()

    def close(self) -> None:
        """Release what reading the files needed."""
        self._resources.close()

    @functools.cached_property
    def _directory(self) -> Path:
        return self._resources.enter_context(contextlib.closing(Scratch())).path

    @functools.cached_property
    def _connection(self) -> Cursor:
        """A DuckDB instance of our own."""
        config: dict[str, t.Any] = {
            "memory_limit": "256MB",
            "threads": 2,
            "temp_directory": str(self._directory),
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
        }
        return self._resources.enter_context(duckdb.connect(":memory:", config=config))

    def _cursor(self) -> Cursor:
        return self._connection.cursor()

    def _parquet(self, path: Path, where: str, layout: RowLayout) -> Iterator[Part]:
        # A name of our own: in any other, DuckDB might see wildcards, or partitions of Hive.
        link = self._directory / f"link-{next(self._numbers)}.parquet"
        stays = path.parent != self._directory and _is_linked(path, link)
        if not stays:
            link.symlink_to(path.absolute())
        columns = (layout.columns, layout.keys)
        source = ColumnarRows((link,), *columns, where, stays, layout.optional)
        try:
            yield Relation(self._cursor, source, whole=lambda: source)
        finally:
            if not stays:
                link.unlink()


def _is_linked(path: Path, link: Path) -> bool:
    """Link a file, so that it stays although its name may be removed; not all can be."""
    try:
        link.hardlink_to(path.resolve())
    except OSError:  # in another file system, or another user's
        return False
    return True


@functools.lru_cache(maxsize=64)  # files may be small and many
def _row_decoder(layout: RowLayout) -> Callable[[bytes], t.Any]:
    return row_decoder(row_type(layout.columns, layout.keys), layout.columns)


def _check_encoding(message: Batch, where: str) -> None:
    encoding = message.encoding
    if encoding.format == "jsonl" and encoding.compression not in _COMPRESSIONS:
        which, setting = (
            f"compressed with {encoding.compression!r}",
            "compression in the tap's settings to gzip",
        )
    elif encoding.format not in _FORMATS:
        which = f"of the format {encoding.format!r}"
        setting = f"format in the tap's settings to one of {', '.join(_FORMATS)}"
    else:
        return
    msg = f"{where}: files {which} are not supported; set batch_config.encoding.{setting}"
    raise InputError("unsupported_batch_format", msg)


def _arrow(
    path: Path, where: str, layout: RowLayout, cursor: Callable[[], Cursor]
) -> Iterator[Part]:
    try:
        import pyarrow as pa  # noqa: PLC0415 - an extra
    except ImportError:
        msg = f"{where} needs pyarrow; install target-moengage-cohort[arrow]"
        raise InputError("pyarrow_missing", msg) from None

    first = 0
    try:
        with pa.memory_map(str(path)) as mapped, pa.ipc.open_file(mapped) as whole:
            names = {*layout.columns.values(), *layout.keys}
            marks = {
                column.lower() for role, column in layout.columns.items() if is_deletion_role(role)
            }
            wanted = [
                n
                for n, name in enumerate(whole.schema.names)
                if name in names or name.lower() in marks
            ]
            options = pa.ipc.IpcReadOptions(included_fields=wanted or None)
            file = pa.ipc.open_file(mapped, options=options)
            for number in range(file.num_record_batches):
                rows = file.get_batch(number).num_rows
                for offset in range(0, rows, _ARROW_ROWS):
                    rows_of = functools.partial(_batch_rows, number, offset, layout, where)
                    all_of = functools.partial(rows_of, whole)
                    yield Relation(cursor, rows_of(file), whole=all_of, first=first + offset)
                first += rows
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:  # the last: in a name
        msg = f"{where} cannot be read ({type(error).__name__}), {INCOMPLETE}"
        raise InputError("batch_file_unreadable", msg) from None


def _batch_rows(
    number: int, offset: int, layout: RowLayout, where: str, file: t.Any
) -> ColumnarRows:
    """Return some rows of an Arrow file's record batch."""
    batch = file.get_batch(number)
    batch.validate(full=True)  # DuckDB trusts offsets, and would read beyond the file
    rows = batch.slice(offset, _ARROW_ROWS)
    return ColumnarRows(rows, layout.columns, layout.keys, where, optional=layout.optional)
