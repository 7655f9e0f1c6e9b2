"""Singer messages and rows, as the reader hands them on, and any message read generically; pure.

The errors describe the fault only: the reader adds the line's number.
"""

from __future__ import annotations

import typing as t

import msgspec
from msgspec import UNSET, Raw, UnsetType

from target_moengage_cohort.core.column_names import quote_all
from target_moengage_cohort.core.deletions import MARKS
from target_moengage_cohort.core.errors import InputError
from target_moengage_cohort.singer.decoding import UNDECODABLE, decode_record, repair

if t.TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from target_moengage_cohort.singer.columns import Columns

DELETED_AT = MARKS[0]  # the mark that we write
RawRecord: t.TypeAlias = dict[str, t.Any]


class RowOrigin(t.Protocol):
    """The origin of the latest row: the tap's output, or a batch file."""

    def record(self) -> dict[str, t.Any]:
        """Return the whole row."""

    def where(self, what: str) -> str:
        """Return a message that names the row's place."""


class Record(msgspec.Struct):
    """A RECORD message.

    Its record is a struct with an attribute for each role of the stream's `RowLayout`; a column
    that it lacks is ``UNSET``. Numbers with a fraction or an exponent are `Decimal`.
    """

    type: str
    stream: str
    record: t.Any
    version: t.Any = None  # the table version that it belongs to, if the tap sends one


class Chunk(msgspec.Struct, frozen=True):
    """Consecutive rows of one stream, to be taken as columns or else row by row."""

    columns: Callable[[], Columns]  # all rows; raises `NotPlainError` if it cannot
    rows: Callable[[], Iterator[t.Any]]  # each with an attribute for each role; see `RowOrigin`


class Rows(msgspec.Struct, frozen=True):
    """Consecutive RECORDs of one stream and version, all of them plain."""

    stream: str
    version: int | None
    chunk: Chunk
    count: int


class Schema(msgspec.Struct, frozen=True):
    """A SCHEMA message."""

    stream: str
    schema: dict[str, t.Any]  # as the tap sent it, with its ``properties``
    key_properties: list[str]
    bookmark_properties: t.Any = None  # columns in whose order the tap reads on, if it names any


class State(msgspec.Struct, frozen=True):
    """A STATE message; ``value`` keeps every byte, so that nothing in it changes."""

    value: bytes


class ActivateVersion(msgspec.Struct, frozen=True):
    """An ACTIVATE_VERSION message: the stream's records of other versions are out of date."""

    stream: str
    version: t.Any


class Encoding(msgspec.Struct, frozen=True):
    """The encoding of a BATCH message's files."""

    format: str  # jsonl, parquet or arrow if it is supported
    compression: str | None = None  # gzip, none or null if it is supported


class Batch(msgspec.Struct, frozen=True):
    """A BATCH message: the files in its manifest contain rows of the stream, not messages."""

    stream: str
    encoding: Encoding
    manifest: list[str]
    version: t.Any = None


Message: t.TypeAlias = "Record | Rows | Schema | State | ActivateVersion | Batch"

_MOST_NAMES = 20
_SCHEMA_KEYWORDS = {
    "additionalItems",
    "additionalProperties",
    "const",
    "contains",
    "contentSchema",
    "default",
    "definitions",
    "$defs",
    "dependencies",
    "dependentRequired",
    "dependentSchemas",
    "else",
    "if",
    "items",
    "not",
    "patternProperties",
    "properties",
    "propertyNames",
    "then",
    "unevaluatedItems",
    "unevaluatedProperties",
    "$vocabulary",
}
"""Whose values may be objects."""

TYPES = ("RECORD", "SCHEMA", "STATE", "ACTIVATE_VERSION", "BATCH")


class Envelope(msgspec.Struct):
    """The parts of any message; they stay raw until its type is known."""

    type: str
    stream: str | UnsetType = UNSET
    record: Raw = Raw()
    schema: Raw = Raw()
    key_properties: list[str] | None = None
    bookmark_properties: t.Any = None
    value: Raw = Raw()
    version: t.Any = None
    encoding: Raw = Raw()
    manifest: Raw = Raw()

    def message(self) -> Schema | State | ActivateVersion | Batch:
        """Return the message, which is not a RECORD."""
        match self.type:
            case "SCHEMA":
                stream, keys = self.stream_name(), self.key_properties or []
                schema = _schema(stream, self.schema)
                return Schema(stream, schema, keys, self.bookmark_properties)
            case "STATE":
                if not (value := bytes(self.value)):
                    raise _violation("invalid_state", "a STATE has no 'value'")
                try:
                    value.decode()  # msgspec has not validated it
                except UnicodeDecodeError:
                    what = "the 'value' of a STATE is not UTF-8"
                    raise _violation("invalid_state", what) from None
                return State(value)
            case "ACTIVATE_VERSION":
                return ActivateVersion(self.stream_name(), self.version)
            case "BATCH":
                stream = self.stream_name()
                try:
                    encoding = _decode_encoding(self.encoding)
                    return Batch(stream, encoding, _decode_manifest(self.manifest), self.version)
                except UNDECODABLE:
                    what = f"a BATCH of the stream {stream!r} has no 'encoding' or no 'manifest'"
                    raise _violation("invalid_batch", what) from None
        what = f"unknown message type; the supported types are {', '.join(TYPES)}"
        raise _violation("unknown_message_type", what)

    def stream_name(self) -> str:
        """Return the stream that the message names."""
        if isinstance(self.stream, UnsetType):
            what = f"a message of type {self.type} has no 'stream'"
            raise _violation("not_a_singer_message", what)
        return self.stream

    def whole_record(self) -> dict[str, t.Any]:
        """Return all columns of a RECORD."""
        try:
            return decode_record(self.record)
        except UNDECODABLE:
            raise invalid_record(self.stream_name()) from None


def _schema(stream: str, raw: Raw) -> dict[str, t.Any]:
    """Return a stream's JSON schema with its ``properties``, which it need not have."""
    where = f"the SCHEMA of the stream {stream!r}"
    try:
        schema = decode_record(raw)
    except UNDECODABLE:
        raise _violation("invalid_schema", f"{where} has no 'schema' object") from None
    if not isinstance(schema.setdefault("properties", {}), dict):
        raise _violation("invalid_schema", f"{where} has 'properties' that are not an object")
    astray = [
        name
        for name, value in schema.items()
        if name not in _SCHEMA_KEYWORDS and isinstance(value, dict)
    ]
    says_what = isinstance(schema.get("type"), str | list)  # so that the rest are annotations
    if astray and not (says_what or schema["properties"]):
        names = quote_all(astray[:_MOST_NAMES])
        what = (
            f"{where} has its columns ({names}) directly in 'schema' instead of in its 'properties'"
        )
        raise _violation("invalid_schema", what)
    return schema


_decode_envelope = msgspec.json.Decoder(Envelope).decode
_decode_encoding = msgspec.json.Decoder(Encoding).decode
_decode_manifest = msgspec.json.Decoder(list[str]).decode


def open_envelope(line: bytes) -> tuple[Envelope, bytes]:
    """Return the parts of a message, and its line: repaired if it was not standard JSON."""
    try:
        return _decode_envelope(line), line
    except msgspec.ValidationError:
        what = "not a Singer message: 'type', 'stream' or 'key_properties' is missing or wrong"
        raise _violation("not_a_singer_message", what) from None
    except UNDECODABLE:
        repaired = repair(line)
    if repaired is None:
        what = (
            "not valid JSON; the tap may have failed, or another program wrote to its "
            "output. Check the tap's log, then run again"
        )
        raise InputError("invalid_json", what)
    return open_envelope(repaired)


def invalid_record(stream: str) -> InputError:
    """Return the error for a RECORD without a readable record."""
    what = f"a RECORD of the stream {stream!r} has no 'record' object, or a number or text in it"
    return _violation("invalid_record", f"{what} cannot be read")


def _violation(code: str, what: str) -> InputError:
    msg = f"{what}. The tap violates the Singer specification; try a newer version"
    return InputError(code, msg)
