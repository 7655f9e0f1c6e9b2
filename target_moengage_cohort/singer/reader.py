"""Bytes → typed Singer messages, fast: only the mapped columns of a record are decoded.

The input is read in large chunks and cut into pieces of whole lines. A piece in which every line
is a plain RECORD (see `columns`) of the latest stream and version is decoded in one step. Any other
piece is halved until it is short, and then read line by line: a line of the latest stream into a
struct of the mapped columns, and any other line generically. Errors name the line, never its
content.
"""

from __future__ import annotations

import functools
import typing as t

import msgspec

from target_moengage_cohort.core.errors import InputError
from target_moengage_cohort.singer import decoding
from target_moengage_cohort.singer.columns import NotPlainError, PlainRows, decode_all
from target_moengage_cohort.singer.lines import LONGEST_LINE, blocks, chunks, pieces, split_lines
from target_moengage_cohort.singer.messages import (
    Chunk,
    Envelope,
    Message,
    Record,
    Rows,
    invalid_record,
    open_envelope,
)

if t.TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from target_moengage_cohort.core.interrupts import Interrupt
    from target_moengage_cohort.singer.columns import RowLayout

_Decode: t.TypeAlias = "Callable[[bytes], Record]"
_SHORT_PIECE = 1_000  # bytes: shorter ones are read line by line if they are not plain
_LARGEST_LITERAL = 2**63 - 1  # with which msgspec can compare while it decodes


@functools.lru_cache(maxsize=64)
def _plain_decoder(
    plain: PlainRows, stream: str, version: int | None
) -> Callable[[bytes], list[t.Any]]:
    """Return a decoder for lines that are plain records of one stream and version."""
    fields: list[t.Any] = [
        ("type", t.Literal["RECORD"]),
        ("stream", t.Literal[stream]),
        ("record", plain.row),
        ("version", None, None) if version is None else ("version", t.Literal[version]),
    ]
    return msgspec.json.Decoder(msgspec.defstruct("PlainRecord", fields, gc=False)).decode_lines


class Reader:
    """Turns a tap's output into messages."""

    def __init__(self) -> None:
        self._decoders: dict[str, _Decode] = {}
        self._plain: dict[str | None, PlainRows | None] = {}
        self._stream: str | None = None  # of the latest record
        self._version: t.Any = None  # of the latest record
        self._decode: _Decode = msgspec.json.Decoder(Record).decode
        self.line = b""  # of the latest message
        self.number = 0  # of that line, from 1

    def expect(self, stream: str, layout: RowLayout) -> None:
        """Set what to decode of a stream's records from now on."""
        for column in (*layout.columns.values(), *layout.keys):
            if not decoding.is_decodable_column(column):
                what = (
                    f"the column {column!r} of the stream {stream!r} has a quote, a backslash or "
                    "a control character in its name; rename it with a stream map"
                )
                raise InputError("unsupported_column_name", self.where(what))
        fields = [("record", decoding.row_type(layout.columns, layout.keys))]
        type_ = msgspec.defstruct("StreamRecord", fields, bases=(Record,))
        type_ = t.cast("type[Record]", type_)
        self._decoders[stream] = decoding.row_decoder(type_, layout.columns)
        self._plain[stream] = layout.plain
        self._stream = None

    def read_whole(self, stream: str) -> None:
        """Decode nothing of a stream's records from now on: `record` returns them whole."""
        self._decoders.pop(stream, None)
        self._stream = None

    def messages(self, source: t.IO[t.Any], interrupt: Interrupt) -> Iterator[Message | None]:
        """Yield the messages of an input until its end, or until interrupted.

        ``None`` comes before a wait for more input. The source is a file of bytes or text; it is
        read through its descriptor if it has one.
        """
        for block in blocks(chunks(source, interrupt), self._line_too_long):
            if block is None:
                yield None
                continue
            if interrupt.is_set() and not block.endswith(b"\n"):
                return  # the last line may be half a line
            for piece in pieces(block):
                yield from self._read_piece(piece)
            if interrupt.is_set():
                return

    def record(self) -> dict[str, t.Any]:
        """Return the whole record of the latest line, which is a RECORD."""
        try:
            return open_envelope(self.line)[0].whole_record()
        except InputError as error:
            raise self._located(error) from None

    def where(self, what: str) -> str:
        """Return a message that names the latest line."""
        return f"line {self.number} of the input: {what}"

    def _located(self, error: InputError) -> InputError:
        return InputError(error.code, self.where(str(error)))

    def _line_too_long(self) -> InputError:
        self.number += 1
        what = (
            f"the line exceeds {LONGEST_LINE >> 20} MiB; the tap may have failed, or another "
            "program wrote to its output. Check the tap's log, then run again"
        )
        return InputError("line_too_long", self.where(what))

    def _read_piece(self, piece: bytes) -> Iterator[Message]:
        """Yield a piece's messages; halve it if need be, so that few lines are slow."""
        try:
            yield self._read_plain(piece)
        except NotPlainError:
            middle = piece.find(b"\n", len(piece) // 2) + 1
            if len(piece) < _SHORT_PIECE or middle in {0, len(piece)}:
                yield from self._read_lines(piece)
            else:
                yield from self._read_piece(piece[:middle])
                yield from self._read_piece(piece[middle:])

    def _read_plain(self, piece: bytes) -> Rows:
        """Decode plain records in one step; raise `NotPlainError` if a line is anything else."""
        stream, version = self._stream, self._version
        is_literal = version is None or (type(version) is int and abs(version) <= _LARGEST_LITERAL)
        plain = self._plain.get(stream)
        if stream is None or plain is None or not is_literal:
            raise NotPlainError
        records = decode_all(_plain_decoder(plain, stream, version), plain.corrected(piece))
        columns = plain.take([record.record for record in records])
        chunk = Chunk(lambda: columns, functools.partial(self._read_rows, piece, self.number))
        self.number += columns.count
        return Rows(stream, version, chunk, columns.count)

    def _read_rows(self, piece: bytes, number: int) -> Iterator[t.Any]:
        """Yield the rows of a piece whose lines are records of the latest stream."""
        self.number = number
        for message in self._read_lines(piece):
            yield t.cast("Record", message).record

    def _read_lines(self, piece: bytes) -> Iterator[Message]:
        for line in split_lines(piece):
            self.number += 1
            self.line = line
            try:
                record = self._decode(line)
                is_expected = record.type == "RECORD" and record.stream == self._stream
            except decoding.UNDECODABLE:
                is_expected = False
            message = record if is_expected else self._read_any(line)
            if message is not None:  # as for a blank line
                if isinstance(message, Record):
                    self._version = message.version
                yield message

    def _read_any(self, line: bytes) -> Message | None:
        if not line.strip():
            return None
        try:
            envelope, self.line = open_envelope(line)
            return self._read_record(envelope) if envelope.type == "RECORD" else envelope.message()
        except InputError as error:
            raise self._located(error) from None

    def _read_record(self, envelope: Envelope) -> Record:
        stream = envelope.stream_name()
        decode = self._decoders.get(stream)
        if decode is None:
            return Record("RECORD", stream, None, envelope.version)
        try:
            record = decode(self.line)
        except decoding.UNDECODABLE:
            raise invalid_record(stream) from None
        self._stream, self._decode = stream, decode
        return record
