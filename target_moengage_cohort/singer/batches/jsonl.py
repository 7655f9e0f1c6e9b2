"""Batch files of JSON lines, plain or gzip: each line is a row, not a message."""

from __future__ import annotations

import contextlib
import functools
import gzip
import typing as t
import zlib
from concurrent.futures import ThreadPoolExecutor

from target_moengage_cohort.core.column_files import INCOMPLETE
from target_moengage_cohort.core.errors import InputError
from target_moengage_cohort.singer import lines
from target_moengage_cohort.singer.columns import Columns, NotPlainError, PlainRows, decode_all
from target_moengage_cohort.singer.decoding import UNDECODABLE, decode_record, repair
from target_moengage_cohort.singer.messages import Chunk

if t.TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

Decode: t.TypeAlias = "Callable[[bytes], t.Any]"

_CHUNK_BYTES = 1 << 20
_GZIP = b"\x1f\x8b"


class JsonLines:
    """The rows of one file, which ``where`` names in messages."""

    def __init__(self, path: Path, where: str, decode_row: Decode, plain: PlainRows | None) -> None:
        self._path = path
        self._where = where
        self._decode_row = decode_row  # into a struct with an attribute for each role
        self._plain = plain
        self._number = 0  # of the latest row
        self._line = b""

    def chunks(self) -> Iterator[Chunk]:
        """Yield the rows, some of them at a time."""
        for block in lines.blocks(_read_ahead(self._read()), self._line_too_long):
            for piece in lines.pieces(block):
                number, self._number = self._number, self._number + lines.count_lines(piece)
                yield Chunk(
                    functools.partial(self._columns, piece),
                    functools.partial(self._rows, piece, number),
                )

    def record(self) -> dict[str, t.Any]:
        """Return the whole of the latest row."""
        record: dict[str, t.Any] = self._decoded(decode_record)
        return record

    def where(self, what: str) -> str:
        """Return a message that names the latest row."""
        return f"row {self._number} of {self._where}: {what}"

    def _columns(self, piece: bytes) -> Columns:
        if self._plain is None:
            raise NotPlainError
        return self._plain.take(decode_all(self._plain.decode_lines, self._plain.corrected(piece)))

    def _rows(self, piece: bytes, number: int) -> Iterator[t.Any]:
        self._number = number
        for line in lines.split_lines(piece):
            self._number += 1
            self._line = line
            if line.strip():
                yield self._row()

    def _row(self) -> t.Any:
        with contextlib.suppress(*UNDECODABLE):
            return self._decode_row(self._line)
        self._line = repair(self._line) or self._line
        return self._decoded(self._decode_row)

    def _decoded(self, decode: Decode) -> t.Any:
        try:
            return decode(self._line)
        except UNDECODABLE:
            what = f"not a valid JSON object, {INCOMPLETE}"
            raise InputError("invalid_json", self.where(what)) from None

    def _line_too_long(self) -> InputError:
        self._number += 1
        what = f"the line exceeds {lines.LONGEST_LINE >> 20} MiB, {INCOMPLETE}"
        return InputError("line_too_long", self.where(what))

    def _read(self) -> Iterator[bytes]:
        try:
            with self._path.open("rb") as raw:
                is_gzip = raw.read(len(_GZIP)) == _GZIP
                raw.seek(0)
                file = t.cast("t.IO[bytes]", gzip.GzipFile(fileobj=raw)) if is_gzip else raw
                while chunk := file.read(_CHUNK_BYTES):
                    yield chunk
        except (OSError, EOFError, zlib.error) as error:
            msg = (
                f"{self._where} is truncated or damaged after row {self._number} "
                f"({type(error).__name__}), {INCOMPLETE}"
            )
            raise InputError("batch_file_unreadable", msg) from None


def _read_ahead(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield chunks while another thread reads and decompresses the next one."""
    with ThreadPoolExecutor(1, thread_name_prefix="decompress") as pool:
        coming = pool.submit(next, chunks, b"")
        while chunk := coming.result():
            coming = pool.submit(next, chunks, b"")
            yield chunk
