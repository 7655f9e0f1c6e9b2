"""Batch files: what a BATCH message stands for, whatever their format and wherever they are.

They are the tap's: they are read, and neither changed nor removed.
"""

from __future__ import annotations

import functools
import typing as t

from target_moengage_cohort.core.errors import InputError
from target_moengage_cohort.core.scratch import temporary_scratch
from target_moengage_cohort.ledger.duckdb.engine import Engine, quoted
from target_moengage_cohort.singer.batches.columnar import Relation
from target_moengage_cohort.singer.batches.jsonl import Lines
from target_moengage_cohort.singer.batches.storage import INCOMPLETE, local_file, shown

if t.TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from target_moengage_cohort.core.scratch import Scratch
    from target_moengage_cohort.ledger.duckdb.engine import Cursor
    from target_moengage_cohort.settings.batch_config import BatchStorage
    from target_moengage_cohort.singer.messages import Batch
    from target_moengage_cohort.sync.rows import Sink

__all__ = ["Batches", "Relation"]

Part: t.TypeAlias = "Lines | Relation"

_ARROW_ROWS = 1_000_000  # of a table that DuckDB sees at once
_COMPRESSIONS = (None, "none", "gzip")


class Batches:
    """Opens the batch files of one run.

    Args:
        storage: The target's own storage, if it is set.
    """

    def __init__(self, storage: BatchStorage | None) -> None:
        self._storage = storage
        self._spill: Scratch | None = None
        self._engine: Engine | None = None

    def parts(
        self, message: Batch, sink: Sink, where: str, cursor: Callable[[], Cursor] | None
    ) -> Iterator[Part]:
        """Yield what a message's files hold, one after the other.

        Args:
            message: The message.
            sink: Says what to read of a row.
            where: Names the message in errors.
            cursor: Makes a cursor of the DuckDB instance that is to see the rows; ``None``: any.

        Raises:
            InputError: A file is missing, cannot be read, or is of a format that is not known.
        """
        encoding = message.encoding
        if encoding.format == "jsonl" and encoding.compression not in _COMPRESSIONS:
            msg = (
                f"{where}: files compressed with {encoding.compression!r} cannot be read; "
                "set batch_config.encoding.compression of the tap to gzip"
            )
            raise InputError(msg)
        opened = _FORMATS.get(encoding.format)
        if opened is None:
            msg = (
                f"{where}: files of the format {encoding.format!r} cannot be read; set "
                f"batch_config.encoding.format of the tap to one of {', '.join(_FORMATS)}"
            )
            raise InputError(msg)
        for url in message.manifest:
            named = f"the batch file {shown(url)} ({where})"
            path = local_file(url, self._storage, self._folder)
            if encoding.compression == "gzip" and not path.stat().st_size:
                msg = f"{named} is empty, which no gzip file is, {INCOMPLETE}"
                raise InputError(msg)
            try:
                yield from opened(self, path, named, sink, cursor or self._cursor)
            finally:
                if path.parent == self._folder:
                    path.unlink()

    def close(self) -> None:
        """Give back what was needed to read files."""
        if self._engine is not None:
            self._engine.close()
        if self._spill is not None:
            self._spill.close()

    @property
    def _folder(self) -> Path:
        if self._spill is None:
            self._spill = temporary_scratch()
        return self._spill.path

    def _cursor(self) -> Cursor:
        if self._engine is None:
            self._engine = Engine("", self._folder, read_only=True)
        return self._engine.cursor()

    def _lines(
        self, path: Path, where: str, sink: Sink, _cursor: Callable[[], Cursor]
    ) -> Iterator[Part]:
        yield Lines(path, where, sink.decode_row, sink.plain)

    def _parquet(
        self, path: Path, where: str, sink: Sink, cursor: Callable[[], Cursor]
    ) -> Iterator[Part]:
        # A name of ours: in one from elsewhere DuckDB would see wildcards, or Hive's partitions.
        link = self._folder / "link.parquet"
        link.symlink_to(path.absolute())
        source = f"read_parquet({quoted(str(link))}, hive_partitioning = false)"
        try:
            yield from _closing(
                Relation(cursor, source, where, whole=cursor, columns=sink.columns, keys=sink.keys)
            )
        finally:
            link.unlink()

    def _arrow(
        self, path: Path, where: str, sink: Sink, cursor: Callable[[], Cursor]
    ) -> Iterator[Part]:
        try:
            import pyarrow as pa  # noqa: PLC0415 - an extra
        except ImportError:
            msg = f"{where} needs pyarrow; install target-moengage-cohort[arrow]"
            raise InputError(msg) from None

        first = 0
        try:
            with pa.memory_map(str(path)) as mapped, pa.ipc.open_file(mapped) as whole:
                names = {*sink.columns.values(), *sink.keys}
                wanted = [n for n, name in enumerate(whole.schema.names) if name in names]
                options = pa.ipc.IpcReadOptions(included_fields=wanted or None)
                file = pa.ipc.open_file(mapped, options=options)
                for number in range(file.num_record_batches):
                    rows = file.get_batch(number).num_rows
                    for offset in range(0, rows, _ARROW_ROWS):
                        mapped_rows, whole_rows = (
                            functools.partial(_registered, cursor, each, number, offset)
                            for each in (file, whole)
                        )
                        yield from _closing(
                            Relation(
                                mapped_rows,
                                "rows",
                                where,
                                whole=whole_rows,
                                columns=sink.columns,
                                keys=sink.keys,
                                first=first + offset,
                            )
                        )
                    first += rows
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:  # the last: of a name
            msg = f"{where} cannot be read ({type(error).__name__}), {INCOMPLETE}"
            raise InputError(msg) from None


def _registered(cursor: Callable[[], Cursor], file: t.Any, number: int, offset: int) -> Cursor:
    """A cursor that knows some rows of a record batch of an Arrow file as ``rows``."""
    batch = file.get_batch(number)
    batch.validate(full=True)  # DuckDB believes offsets, and would read beyond
    return cursor().register("rows", batch.slice(offset, _ARROW_ROWS))


def _closing(relation: Relation) -> Iterator[Relation]:
    try:
        yield relation
    finally:
        relation.close()


_FORMATS: dict[str, Callable[..., Iterator[Part]]] = {
    "jsonl": Batches._lines,  # noqa: SLF001 - the table belongs to the class above
    "parquet": Batches._parquet,  # noqa: SLF001
    "arrow": Batches._arrow,  # noqa: SLF001
}
