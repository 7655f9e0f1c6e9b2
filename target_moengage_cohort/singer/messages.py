"""What a tap says: the Singer messages, as the reader hands them on."""

from __future__ import annotations

import typing as t

import msgspec

if t.TYPE_CHECKING:
    from target_moengage_cohort.singer.columns import Columns

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


class Rows(msgspec.Struct, frozen=True):
    """Consecutive RECORDs of one stream and version, all of them plain.

    `Reader.again` gives them one by one.
    """

    stream: str
    version: int | None
    columns: Columns


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


class Encoding(msgspec.Struct, frozen=True):
    """How the files of a BATCH message are written.

    Attributes:
        format: ``jsonl``, ``parquet`` or ``arrow``, if we can read them.
        compression: ``gzip``, or ``none`` or ``None``.
    """

    format: str
    compression: str | None = None


class Batch(msgspec.Struct, frozen=True):
    """A BATCH message: the files in its manifest hold rows of the stream, and nothing else."""

    stream: str
    encoding: Encoding
    manifest: list[str]
    version: t.Any = None


Message: t.TypeAlias = "Record | Rows | Schema | State | ActivateVersion | Batch"
