"""Singer messages and rows, as the reader hands them on."""

from __future__ import annotations

import typing as t

import msgspec

if t.TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from target_moengage_cohort.singer.columns import Columns

DELETED_AT = "_sdc_deleted_at"
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
