"""Batch files of JSON lines, plain or compressed with gzip: each line is a row and nothing else."""

from __future__ import annotations

import contextlib
import gzip
import typing as t
import zlib
from concurrent.futures import ThreadPoolExecutor

import msgspec

from target_moengage_cohort.core.errors import InputError
from target_moengage_cohort.singer.batches.storage import INCOMPLETE
from target_moengage_cohort.singer.decoding import (
    LONGEST_LINE,
    UNDECODABLE,
    blocks,
    decode_plain,
    decode_record,
    mended,
    pieces,
)

if t.TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from target_moengage_cohort.singer.columns import Columns, PlainRows

_CHUNK_BYTES = 1 << 20
_GZIP = b"\x1f\x8b"


class Lines:
    """The rows of one file, many at a time.

    Args:
        path: The file.
        where: Names the file in messages.
        decode: Decodes a row into a struct with one attribute for each role.
        plain: Decodes many plain rows at once, if the stream has any.
    """

    def __init__(
        self, path: Path, where: str, decode: t.Callable[[bytes], t.Any], plain: PlainRows | None
    ) -> None:
        self._path = path
        self._where = where
        self._decode = decode
        self._plain = plain
        self._decode_plain = None if plain is None else msgspec.json.Decoder(plain.row).decode_lines
        self._piece = b""
        self._number_before = self._number = 0
        self._line = b""

    def chunks(self) -> Iterator[Columns | None]:
        """Yield plain rows as columns; ``None`` for a chunk whose rows `rows` gives one by one.

        Raises:
            InputError: The file cannot be read to its end.
        """
        for block in blocks(_ahead(self._read()), self._too_long):
            for piece in pieces(block):
                self._piece, self._number_before = piece, self._number
                columns = None
                if self._plain is not None and self._decode_plain is not None:
                    rows = decode_plain(self._decode_plain, piece)
                    columns = None if rows is None else self._plain.take(rows)
                self._number += piece.count(b"\n") + (not piece.endswith(b"\n"))
                yield columns

    def _too_long(self) -> InputError:
        self._number += 1
        what = f"longer than {LONGEST_LINE >> 20} MiB, which no row is, {INCOMPLETE}"
        return InputError(self.where(what))

    def rows(self) -> Iterator[t.Any]:
        """Yield the rows of the latest chunk.

        Raises:
            InputError: A line that is no row.
        """
        self._number = self._number_before
        for line in self._piece.removesuffix(b"\n").split(b"\n"):
            self._number += 1
            self._line = line
            if line.strip():
                yield self._row()

    def record(self) -> dict[str, t.Any]:
        """The whole of the latest row.

        Raises:
            InputError: It cannot be read.
        """
        try:
            return decode_record(self._line)
        except UNDECODABLE:
            raise self._broken() from None

    def where(self, what: str) -> str:
        """A message that names the latest row."""
        return f"row {self._number} of {self._where}: {what}"

    def _row(self) -> t.Any:
        with contextlib.suppress(*UNDECODABLE):
            return self._decode(self._line)
        if (line := mended(self._line)) is None:
            raise self._broken()
        self._line = line
        try:
            return self._decode(line)
        except UNDECODABLE:
            raise self._broken() from None

    def _broken(self) -> InputError:
        return InputError(self.where(f"not valid JSON, or no object, {INCOMPLETE}"))

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
                f"{self._where} breaks off or is damaged after row {self._number} "
                f"({type(error).__name__}), {INCOMPLETE}"
            )
            raise InputError(msg) from None


def _ahead(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Have the next chunk decompressed while the latest one is worked on."""
    with ThreadPoolExecutor(1, thread_name_prefix="decompress") as pool:
        coming = pool.submit(next, chunks, b"")
        while chunk := coming.result():
            coming = pool.submit(next, chunks, b"")
            yield chunk
