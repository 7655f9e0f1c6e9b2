"""From bytes to typed Singer messages, fast: only the mapped columns of a record are decoded.

The input is read in large chunks and cut into lines. A line of the stream that the line before
it belonged to is decoded in one step, into a struct that holds the mapped columns and nothing
else; any other line is looked at generically first. Errors name the line, never its content.
"""

from __future__ import annotations

import json
import os
import re
import select
import typing as t
from decimal import Decimal

import msgspec
from msgspec import UNSET, Raw, UnsetType

from target_moengage_cohort.errors import InputError

if t.TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from target_moengage_cohort.interrupts import Interrupt

CHUNK_BYTES = 1 << 20
DELETED_AT = "_sdc_deleted_at"


class Record(msgspec.Struct):
    """A RECORD message.

    Attributes:
        type: ``RECORD``.
        stream: The stream's name.
        record: A struct with one attribute for each role given to `Reader.expect`; a column that
            the record lacks is ``UNSET``. Numbers with a fraction or an exponent are `Decimal`.
        version: The table version that it belongs to, where the tap says so.
    """

    type: str
    stream: str
    record: t.Any
    version: t.Any = None


class Schema(msgspec.Struct, frozen=True):
    """A SCHEMA message; ``schema`` is as the tap sent it, with its ``properties``."""

    stream: str
    schema: dict[str, t.Any]
    key_properties: list[str]


class State(msgspec.Struct, frozen=True):
    """A STATE message; ``value`` is its value byte for byte, so that nothing in it changes."""

    value: bytes


class ActivateVersion(msgspec.Struct, frozen=True):
    """An ACTIVATE_VERSION message: the stream's records of other versions are out of date."""

    stream: str
    version: t.Any


Message: t.TypeAlias = "Record | Schema | State | ActivateVersion"


class _Envelope(msgspec.Struct):
    """What any message may hold; the parts stay raw until its type is known."""

    type: str
    stream: str | UnsetType = UNSET
    record: Raw = Raw()
    schema: Raw = Raw()
    key_properties: list[str] | None = None
    value: Raw = Raw()
    version: t.Any = None


def _number(digits: str) -> Decimal | None:
    """A number with a fraction or an exponent, exactly; ``None`` beyond all bounds."""
    try:
        return Decimal(digits)
    except ArithmeticError:
        return None


def _texts_only(value: t.Any) -> t.Any:
    """A JSON value with ``[]``, which is no identifier, for each text that UTF-8 cannot carry."""
    if isinstance(value, str):
        return value if value.encode(errors="replace").decode() == value else []
    if isinstance(value, list):
        return [_texts_only(item) for item in value]
    if isinstance(value, dict):
        items = ((_texts_only(key), _texts_only(item)) for key, item in value.items())
        return {key: item for key, item in items if key != []}
    return value


_encode = msgspec.json.Encoder(decimal_format="number").encode
_decode_envelope = msgspec.json.Decoder(_Envelope).decode
_decode_object = msgspec.json.Decoder(dict[str, t.Any], float_hook=_number).decode
_Decode: t.TypeAlias = t.Callable[[bytes], Record]
_NOT_THIS = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
_UNREADABLE = "has no 'record', or it is no object, or a number or a text in it cannot be read"


class Reader:
    """Turns a tap's output into messages, line by line.

    Attributes:
        line: The line of the latest message.
        number: Its number, from 1.
    """

    def __init__(self) -> None:
        self._decoders: dict[str, _Decode] = {}
        self._stream: str | None = None
        self._decode: _Decode = msgspec.json.Decoder(Record).decode  # of no stream yet
        self.line = b""
        self.number = 0

    def expect(self, stream: str, columns: Mapping[str, str], keys: Sequence[str]) -> None:
        """Say what to decode of a stream's records from now on.

        Args:
            stream: The stream's name.
            columns: Role → column; no two roles may share a column.
            keys: Columns that must be there, as attributes ``key_0``, ``key_1`` and so on;
                those that have a role are left to it.

        Raises:
            InputError: A column's name cannot be looked for.
        """
        roles = {**columns}
        mapped = set(columns.values())
        roles |= {f"key_{n}": key for n, key in enumerate(keys) if key not in mapped}
        for column in roles.values():
            if re.search(r'["\\\x00-\x1f]', column):
                what = (
                    f"the column {column!r} of the stream {stream!r} has a quote, a backslash or "
                    "a control character in its name; rename it with a stream map"
                )
                raise InputError(self.where(what))
        row = msgspec.defstruct(
            "Row", [(role, t.Any, UNSET) for role in roles], rename=roles, gc=False
        )
        record = msgspec.defstruct("StreamRecord", [("record", row)], bases=(Record,))
        decoder = msgspec.json.Decoder(t.cast("type[Record]", record), float_hook=_number)
        self._decoders[stream] = decoder.decode
        self._stream = None

    def messages(self, source: t.IO[t.Any], interrupt: Interrupt) -> Iterator[Message | None]:
        """Yield the messages of an input, until its end or until interrupted.

        ``None`` comes before a wait for more input.

        Args:
            source: A file of bytes or text; read through its descriptor where it has one.
            interrupt: Ends the wait for more input.

        Raises:
            InputError: A line that is no Singer message.
        """
        for lines in _lines(source, interrupt):
            if lines is None:
                yield None
                continue
            for line in lines:
                self.number += 1
                self.line = line
                try:
                    message: Message | None = self._decode(line)
                except _NOT_THIS:
                    message = self._any_message(line)
                else:
                    if message.type != "RECORD" or message.stream != self._stream:  # type: ignore[union-attr]
                        message = self._any_message(line)
                if message is not None:  # as for a blank line
                    yield message
            if interrupt.is_set():
                return

    def record(self) -> dict[str, t.Any]:
        """The whole record of the latest line, which is a RECORD.

        Raises:
            InputError: It cannot be read.
        """
        envelope = _decode_envelope(self.line)
        try:
            return _decode_object(envelope.record)
        except _NOT_THIS:
            what = f"a RECORD of the stream {envelope.stream!r} {_UNREADABLE}"
            raise InputError(self.where(what)) from None

    def where(self, what: str) -> str:
        """A message that names the latest line."""
        return f"line {self.number} of the input: {what}"

    def _any_message(self, line: bytes) -> Message | None:
        if not line.strip():
            return None
        try:
            envelope = _decode_envelope(line)
        except msgspec.ValidationError:
            what = "not a Singer message: 'type', 'stream' or 'key_properties' is missing or wrong"
            raise InputError(self.where(what)) from None
        except _NOT_THIS:
            self._mend()
            return self._any_message(self.line)
        parse = _PARSERS.get(envelope.type)
        if parse is None:
            what = "unknown message type; known are RECORD, SCHEMA, STATE and ACTIVATE_VERSION"
            if envelope.type == "BATCH":
                what = "BATCH messages are not supported; take batch_config out of the tap"
            raise InputError(self.where(what))
        return parse(self, envelope)

    def _mend(self) -> None:
        """Turn the latest line into JSON as the standard has it.

        Python's `json` writes ``NaN`` and halves of surrogate pairs, which are no JSON or no
        text. A number that is none becomes null, as in taps that know of it; a text that is none
        becomes something that no column may hold.
        """
        try:
            value = json.loads(self.line, parse_float=_number, parse_constant=lambda _name: None)
            mended = _encode(_texts_only(value))
        except (ValueError, RecursionError):
            mended = self.line
        if mended == self.line or (isinstance(value, dict) and value.get("type") == "STATE"):
            what = "not valid JSON; the tap may have failed, or something else wrote to its output"
            raise InputError(self.where(what))
        self.line = mended

    def _parse_record(self, envelope: _Envelope) -> Message:
        stream = self._stream_of(envelope)
        decode = self._decoders.get(stream)
        if decode is None:
            return Record("RECORD", stream, None, envelope.version)
        try:
            record = decode(self.line)
        except _NOT_THIS:
            what = f"a RECORD of the stream {stream!r} {_UNREADABLE}"
            raise InputError(self.where(what)) from None
        self._stream, self._decode = stream, decode
        return record

    def _parse_schema(self, envelope: _Envelope) -> Message:
        stream = self._stream_of(envelope)
        try:
            schema = _decode_object(envelope.schema)
        except _NOT_THIS:
            schema = {}
        if not isinstance(schema.get("properties"), dict):
            what = f"the SCHEMA of the stream {stream!r} has no 'properties'"
            raise InputError(self.where(what))
        return Schema(stream, schema, envelope.key_properties or [])

    def _parse_state(self, envelope: _Envelope) -> Message:
        value = bytes(envelope.value)
        if not value:
            what = "a STATE has no 'value'"
            raise InputError(self.where(what))
        try:
            value.decode()  # nothing has looked into it yet
        except UnicodeDecodeError:
            what = "the 'value' of a STATE is not UTF-8"
            raise InputError(self.where(what)) from None
        return State(value)

    def _parse_activate_version(self, envelope: _Envelope) -> Message:
        return ActivateVersion(self._stream_of(envelope), envelope.version)

    def _stream_of(self, envelope: _Envelope) -> str:
        if isinstance(envelope.stream, UnsetType):
            what = f"a message of type {envelope.type} names no 'stream'"
            raise InputError(self.where(what))
        return envelope.stream


_PARSERS: dict[str, t.Callable[[Reader, _Envelope], Message]] = {
    "RECORD": Reader._parse_record,  # noqa: SLF001 - the table belongs to the class above
    "SCHEMA": Reader._parse_schema,  # noqa: SLF001
    "STATE": Reader._parse_state,  # noqa: SLF001
    "ACTIVATE_VERSION": Reader._parse_activate_version,  # noqa: SLF001
}


def _lines(source: t.IO[t.Any], interrupt: Interrupt) -> Iterator[list[bytes] | None]:
    """Yield complete lines, many at once; the last one may lack its line break.

    ``None`` comes before a wait, as in `_chunks`.
    """
    parts: list[bytes] = []
    for chunk in _chunks(source, interrupt):
        if chunk is None:
            yield None
            continue
        head, newline, rest = chunk.rpartition(b"\n")
        if newline:
            lines = head.split(b"\n")
            lines[0] = b"".join([*parts, lines[0]])
            parts = []
            yield lines
        if rest:
            parts.append(rest)
    if parts and not interrupt.is_set():
        yield [b"".join(parts)]


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
