"""From bytes to typed Singer messages, fast: only the mapped columns of a record are decoded.

The input is read in large chunks and cut into pieces of whole lines. A piece in which every line
is a plain RECORD (see `columns`) of the stream and version that came last is decoded in one step.
Any other piece is read line by line: a line of the same stream as the one before it into a struct
of the mapped columns, and any other line is looked at generically first. Errors name the line,
never its content.
"""

from __future__ import annotations

import os
import select
import typing as t

import msgspec
from msgspec import UNSET, Raw, UnsetType

from target_moengage_cohort.core.errors import InputError
from target_moengage_cohort.singer.decoding import (
    LONGEST_LINE,
    UNDECODABLE,
    blocks,
    can_be_looked_for,
    decode_plain,
    decode_record,
    decoder,
    mended,
    pieces,
    row_type,
)
from target_moengage_cohort.singer.messages import (
    ActivateVersion,
    Batch,
    Encoding,
    Message,
    Record,
    Rows,
    Schema,
    State,
)

if t.TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from target_moengage_cohort.core.interrupts import Interrupt
    from target_moengage_cohort.singer.columns import PlainRows

CHUNK_BYTES = 1 << 20


class _Envelope(msgspec.Struct):
    """What any message may hold; the parts stay raw until its type is known."""

    type: str
    stream: str | UnsetType = UNSET
    record: Raw = Raw()
    schema: Raw = Raw()
    key_properties: list[str] | None = None
    value: Raw = Raw()
    version: t.Any = None
    encoding: Raw = Raw()
    manifest: Raw = Raw()


_decode_envelope = msgspec.json.Decoder(_Envelope).decode
_decode_encoding = msgspec.json.Decoder(Encoding).decode
_decode_manifest = msgspec.json.Decoder(list[str]).decode
_Decode: t.TypeAlias = t.Callable[[bytes], Record]
_LARGEST_LITERAL = 2**63 - 1  # of msgspec
_UNREADABLE = "has no 'record', or it is no object, or a number or a text in it cannot be read"


class _Like(msgspec.Struct, frozen=True):
    """How to decode plain records that are like the latest one."""

    stream: str
    version: int | None
    plain: PlainRows
    decode: t.Callable[[bytes], list[t.Any]]


class Reader:
    """Turns a tap's output into messages, line by line.

    Attributes:
        line: The line of the latest message.
        number: Its number, from 1.
    """

    def __init__(self) -> None:
        self._decoders: dict[str, _Decode] = {}
        self._plain: dict[str, PlainRows] = {}
        self._stream: str | None = None
        self._decode: _Decode = msgspec.json.Decoder(Record).decode  # of no stream yet
        self._version: t.Any = None  # of the latest record
        self._like: _Like | None = None
        self._piece = b""
        self._number_before = 0
        self.line = b""
        self.number = 0

    def expect(
        self,
        stream: str,
        columns: Mapping[str, str],
        keys: Sequence[str],
        plain: PlainRows | None = None,
    ) -> None:
        """Say what to decode of a stream's records from now on.

        Args:
            stream: The stream's name.
            columns: Role → column; no two roles may share a column.
            keys: Columns that must be there, as attributes ``key_0``, ``key_1`` and so on;
                those that have a role are left to it.
            plain: Decodes many plain rows at once; ``None``: each row is a `Record`.

        Raises:
            InputError: A column's name cannot be looked for.
        """
        for column in (*columns.values(), *keys):
            if not can_be_looked_for(column):
                what = (
                    f"the column {column!r} of the stream {stream!r} has a quote, a backslash or "
                    "a control character in its name; rename it with a stream map"
                )
                raise InputError(self.where(what))
        fields = [("record", row_type(columns, keys))]
        record = msgspec.defstruct("StreamRecord", fields, bases=(Record,))
        self._decoders[stream] = decoder(t.cast("type[Record]", record)).decode
        self._plain.pop(stream, None)
        if plain is not None:
            self._plain[stream] = plain
        self._stream = self._like = None

    def forget(self, stream: str) -> None:
        """Decode nothing of a stream's records from now on; `record` gives them whole."""
        self._decoders.pop(stream, None)
        self._plain.pop(stream, None)
        self._stream = self._like = None

    def messages(self, source: t.IO[t.Any], interrupt: Interrupt) -> Iterator[Message | None]:
        """Yield the messages of an input, until its end or until interrupted.

        ``None`` comes before a wait for more input.

        Args:
            source: A file of bytes or text; read through its descriptor where it has one.
            interrupt: Ends the wait for more input.

        Raises:
            InputError: A line that is no Singer message.
        """
        for block in blocks(_chunks(source, interrupt), self._too_long):
            if block is None:
                yield None
                continue
            if interrupt.is_set() and not block.endswith(b"\n"):
                return  # perhaps half a line
            for self._piece in pieces(block):
                self._number_before = self.number
                if (rows := self._plain_rows()) is not None:
                    yield rows
                else:
                    yield from self.again()
            if interrupt.is_set():
                return

    def _too_long(self) -> InputError:
        self.number += 1
        what = (
            f"longer than {LONGEST_LINE >> 20} MiB, which no message needs; the tap may have "
            "failed, or something else wrote to its output"
        )
        return InputError(self.where(what))

    def again(self) -> Iterator[Message]:
        """Yield what the latest `Rows` hold one by one, each as a `Record`."""
        self.number = self._number_before
        for line in self._piece.removesuffix(b"\n").split(b"\n"):
            self.number += 1
            self.line = line
            try:
                message: Message | None = self._decode(line)
            except UNDECODABLE:
                message = self._any_message(line)
            else:
                if message.type != "RECORD" or message.stream != self._stream:  # type: ignore[union-attr]
                    message = self._any_message(line)
            if message is not None:  # as for a blank line
                if isinstance(message, Record):
                    self._version = message.version
                yield message

    def _plain_rows(self) -> Rows | None:
        """The latest piece, if it is all plain records like the one before it."""
        like = self._expected_like()
        if like is None:
            return None
        records = decode_plain(like.decode, self._piece)
        if records is None:
            return None
        columns = like.plain.take([record.record for record in records])
        if columns is None:
            return None
        self.number += columns.count
        return Rows(like.stream, like.version, columns)

    def _expected_like(self) -> _Like | None:
        """What a plain record is decoded with that is of the latest one's stream and version."""
        stream, version = self._stream, self._version
        plain = self._plain.get(stream) if stream is not None else None
        if plain is None or not (
            version is None or (type(version) is int and abs(version) <= _LARGEST_LITERAL)
        ):
            return None
        known = self._like
        if known is None or (known.stream, known.version) != (stream, version):
            fields: list[t.Any] = [
                ("type", t.Literal["RECORD"]),
                ("stream", t.Literal[stream]),
                ("record", plain.row),
                ("version", None, None) if version is None else ("version", t.Literal[version]),
            ]
            message = msgspec.defstruct("PlainRecord", fields, gc=False)
            decode = msgspec.json.Decoder(message).decode_lines
            known = self._like = _Like(t.cast("str", stream), version, plain, decode)
        return known

    def record(self) -> dict[str, t.Any]:
        """The whole record of the latest line, which is a RECORD.

        Raises:
            InputError: It cannot be read.
        """
        envelope = _decode_envelope(self.line)
        try:
            return decode_record(envelope.record)
        except UNDECODABLE:
            what = f"a RECORD of the stream {envelope.stream!r} {_UNREADABLE}"
            raise self._against_singer(what) from None

    def where(self, what: str) -> str:
        """A message that names the latest line."""
        return f"line {self.number} of the input: {what}"

    def _against_singer(self, what: str) -> InputError:
        return InputError(
            self.where(f"{what}. The tap breaks the Singer specification; look for a newer version")
        )

    def _any_message(self, line: bytes) -> Message | None:
        if not line.strip():
            return None
        try:
            envelope = _decode_envelope(line)
        except msgspec.ValidationError:
            what = "not a Singer message: 'type', 'stream' or 'key_properties' is missing or wrong"
            raise self._against_singer(what) from None
        except UNDECODABLE:
            self._mend()
            return self._any_message(self.line)
        parse = _PARSERS.get(envelope.type)
        if parse is None:
            what = f"unknown message type; known are {', '.join(_PARSERS)}"
            raise self._against_singer(what)
        return parse(self, envelope)

    def _mend(self) -> None:
        """Turn the latest line into JSON as the standard has it, if it is no STATE."""
        line = mended(self.line)
        if line is None:
            what = "not valid JSON; the tap may have failed, or something else wrote to its output"
            raise InputError(self.where(what))
        self.line = line

    def _parse_record(self, envelope: _Envelope) -> Message:
        stream = self._stream_of(envelope)
        decode = self._decoders.get(stream)
        if decode is None:
            return Record("RECORD", stream, None, envelope.version)
        try:
            record = decode(self.line)
        except UNDECODABLE:
            what = f"a RECORD of the stream {stream!r} {_UNREADABLE}"
            raise self._against_singer(what) from None
        self._stream, self._decode = stream, decode
        return record

    def _parse_schema(self, envelope: _Envelope) -> Message:
        stream = self._stream_of(envelope)
        try:
            schema = decode_record(envelope.schema)
        except UNDECODABLE:
            schema = {}
        if not isinstance(schema.get("properties"), dict):
            what = f"the SCHEMA of the stream {stream!r} has no 'properties'"
            raise self._against_singer(what)
        return Schema(stream, schema, envelope.key_properties or [])

    def _parse_state(self, envelope: _Envelope) -> Message:
        value = bytes(envelope.value)
        if not value:
            what = "a STATE has no 'value'"
            raise self._against_singer(what)
        try:
            value.decode()  # nothing has looked into it yet
        except UnicodeDecodeError:
            what = "the 'value' of a STATE is not UTF-8"
            raise self._against_singer(what) from None
        return State(value)

    def _parse_activate_version(self, envelope: _Envelope) -> Message:
        return ActivateVersion(self._stream_of(envelope), envelope.version)

    def _parse_batch(self, envelope: _Envelope) -> Message:
        stream = self._stream_of(envelope)
        try:
            encoding = _decode_encoding(envelope.encoding)
            manifest = _decode_manifest(envelope.manifest)
        except UNDECODABLE:
            what = f"a BATCH of the stream {stream!r} has no 'encoding' or no 'manifest'"
            raise self._against_singer(what) from None
        return Batch(stream, encoding, manifest, envelope.version)

    def _stream_of(self, envelope: _Envelope) -> str:
        if isinstance(envelope.stream, UnsetType):
            what = f"a message of type {envelope.type} names no 'stream'"
            raise self._against_singer(what)
        return envelope.stream


_PARSERS: dict[str, t.Callable[[Reader, _Envelope], Message]] = {
    "RECORD": Reader._parse_record,  # noqa: SLF001 - the table belongs to the class above
    "SCHEMA": Reader._parse_schema,  # noqa: SLF001
    "STATE": Reader._parse_state,  # noqa: SLF001
    "ACTIVATE_VERSION": Reader._parse_activate_version,  # noqa: SLF001
    "BATCH": Reader._parse_batch,  # noqa: SLF001
}


def _chunks(source: t.IO[t.Any], interrupt: Interrupt) -> Iterator[bytes | None]:
    """Yield the input's bytes as they come, and ``None`` before a wait for more of them."""
    try:
        descriptor = source.fileno()
    except OSError:  # a file in memory
        text = source.read()
        yield text.encode() if isinstance(text, str) else text
        return
    watched = [descriptor, interrupt.fileno()]
    while True:
        readable, _, _ = select.select(watched, [], [], 0)
        if not readable:
            yield None
            readable, _, _ = select.select(watched, [], [])
        if interrupt.fileno() in readable:
            return
        chunk = os.read(descriptor, CHUNK_BYTES)
        if not chunk:
            return
        yield chunk
