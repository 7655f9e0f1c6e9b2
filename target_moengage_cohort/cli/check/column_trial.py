"""Tries the columns of the mappings on a tap's catalog, or on a row; sends nothing."""

from __future__ import annotations

import itertools
import json
import typing as t
from types import SimpleNamespace

import click
import msgspec

from target_moengage_cohort.core.errors import InputError, RowError, SettingsError, TargetError
from target_moengage_cohort.singer.decoding import UNDECODABLE, decode_record
from target_moengage_cohort.singer.messages import TYPES, Schema, open_envelope
from target_moengage_cohort.sync.rows import RowMapper
from target_moengage_cohort.sync.synced_cohort import SyncedCohort

if t.TYPE_CHECKING:
    from collections.abc import Iterator

    from target_moengage_cohort.core.membership import Cohort
    from target_moengage_cohort.settings import Config, StreamMapping
    from target_moengage_cohort.singer.stream_maps import StreamMaps
    from target_moengage_cohort.sync.cohorts import Cohorts

_MOST_LINES = 10_000  # of a tap's output; a row of each stream will be among them
_MOST_BYTES = 64 * 1024 * 1024
_OF_STREAM_OR_COLUMN = (0, 2)  # lengths of a breadcrumb, which is longer for a nested property

Row: t.TypeAlias = dict[str, t.Any]


class Sample(msgspec.Struct):
    """A stream before stream maps: its columns, and a row if the input has one."""

    stream: str
    properties: Row
    keys: list[str] = []
    row: Row | None = None
    aliases: tuple[str, ...] = ()  # other names that the tap may send it by


def read_samples(path: str, config: Config) -> list[Sample]:
    """Read a catalog, a tap's messages or one row as a JSON object; - is standard input.

    Of messages it reads no more than it takes to have a row of each mapped stream. Raise an
    `InputError` that quotes nothing of the content.
    """
    name = "standard input" if path == "-" else path
    try:
        with click.open_file(path, "rb") as file:
            first = file.readline(_MOST_BYTES).removeprefix(b"\xef\xbb\xbf")
            if _is_message(first):
                lines = itertools.islice(itertools.chain([first], file), _MOST_LINES)
                return _of_messages(lines, set(config.mappings))
            content = decode_record(first + file.read(_MOST_BYTES))
    except OSError as error:
        msg = f"--columns: {name} cannot be read ({error.strerror}); choose another file"
        raise InputError("unreadable_file", msg) from None
    except UNDECODABLE:
        content = None
    if isinstance(content, dict) and isinstance(content.get("streams"), list):
        return [sample for each in content["streams"] if (sample := _of_catalog(each))]
    if not content:
        msg = (
            f"--columns: {name} is neither a catalog, nor a tap's output, nor a row; pass what the "
            "tap writes with --discover, its output, or one row as a JSON object"
        )
        raise InputError("invalid_sample", msg)
    if content.get("type") == "RECORD" and isinstance(row := content.get("record"), dict):
        return [Sample(str(content.get("stream")), {name: {} for name in row}, row=row)]
    if len(config.mappings) != 1:
        msg = (
            f'--columns: {name} has a row without its stream; pass it as {{"type": "RECORD", '
            '"stream": …, "record": …}'
        )
        raise InputError("row_without_stream", msg)
    return [Sample(next(iter(config.mappings)), {name: {} for name in content}, row=content)]


def _is_message(line: bytes) -> bool:
    try:
        content = json.loads(line)
    except (ValueError, RecursionError):
        return False
    return (
        isinstance(content, dict)
        and content.get("type") in TYPES
        and not content.keys().isdisjoint(("stream", "value"))  # else it is a row with a type
    )


def _of_messages(lines: Iterator[bytes], wanted: set[str]) -> list[Sample]:
    samples: dict[str, Sample] = {}
    for line in lines:
        envelope, _ = open_envelope(line)
        if envelope.type == "SCHEMA":
            message = t.cast("Schema", envelope.message())
            sample = Sample(message.stream, message.schema["properties"], message.key_properties)
            samples.setdefault(message.stream, sample)
        elif envelope.type == "RECORD":
            stream = envelope.stream_name()
            sample = samples.setdefault(stream, Sample(stream, {}))
            if sample.row is None:
                sample.row = envelope.whole_record()
                sample.properties = {name: {} for name in sample.row} | sample.properties
        with_row = {stream for stream, each in samples.items() if each.row is not None}
        if wanted and wanted <= with_row:
            break
    return [*samples.values()]


def _of_catalog(entry: t.Any) -> Sample | None:
    """Return a stream of a catalog, with the columns that the tap does not leave out."""
    try:
        stream, properties = entry["tap_stream_id"], entry["schema"]["properties"]
        left_out = {
            each["breadcrumb"][1] if each["breadcrumb"] else None
            for each in entry.get("metadata") or []
            if len(each["breadcrumb"]) in _OF_STREAM_OR_COLUMN and _is_left_out(each["metadata"])
        }
        if None in left_out:
            return None  # the whole stream
        names = (each for each in (entry.get("stream"), entry.get("table_name")) if each)
        kept = {name: each for name, each in properties.items() if name not in left_out}
        return Sample(str(stream), kept, aliases=tuple(names))
    except (AttributeError, IndexError, KeyError, TypeError):
        msg = (
            "--columns: the catalog has a stream without tap_stream_id, schema or metadata; run "
            "the tap with --discover again"
        )
        raise InputError("invalid_sample", msg) from None


def _is_left_out(metadata: Row) -> bool:
    inclusion = metadata.get("inclusion")
    is_deselected = metadata.get("selected") is False and inclusion != "automatic"
    return is_deselected or inclusion == "unsupported"


class Trial(msgspec.Struct, frozen=True):
    """The result of a stream."""

    stream: str  # after stream maps
    columns: dict[str, str]  # role → column
    had_row: bool
    error: TargetError | None = None

    def result(self) -> dict[str, t.Any]:
        """Return it for programs."""
        return {
            "stream": self.stream,
            "ok": self.error is None,
            "columns": self.columns,
            "row": self.had_row,
            "code": None if self.error is None else self.error.code,
        }


def try_columns(
    config: Config, samples: list[Sample], record_mapper: StreamMaps | None
) -> list[Trial]:
    """Try each mapped stream on its sample; a stream without one has failed if others are there."""
    trials: dict[str, Trial] = {}
    outputs = [output for sample in samples for output in _mapped(sample, config, record_mapper)]
    for stream, schema, row in outputs:
        if not config.mappings or stream in config.mappings:
            trials[stream] = _try(config.mapping(stream), schema, row)
    for stream in config.mappings.keys() - trials.keys():
        names = ", ".join(sorted({stream for stream, _, _ in outputs})) or "none"
        msg = (
            f"cohorts.{stream}: the --columns file has no selected stream of this name (it has: "
            f"{names}); check the name, and that the stream is selected in the tap"
        )
        error = SettingsError("stream_not_found", msg)
        trials[stream] = Trial(stream, {}, had_row=False, error=error)
    return [trials[stream] for stream in sorted(trials)]


def _mapped(
    sample: Sample, config: Config, record_mapper: StreamMaps | None
) -> Iterator[tuple[str, Schema, Row | RowError | None]]:
    """Yield the streams that a sample becomes, each with a row if there is one."""
    stream = sample.stream
    if stream not in config.mappings:  # some taps send a stream by its other name
        stream = next((each for each in sample.aliases if each in config.mappings), stream)
    source = Schema(stream, {"type": "object", "properties": sample.properties}, sample.keys)
    if record_mapper is None:
        yield stream, source, sample.row
        return
    schemas = record_mapper.schema(source)
    rows = dict([] if sample.row is None else record_mapper.record(stream, sample.row))
    for schema in schemas:
        yield schema.stream, schema, rows.get(schema.stream)


def _try(mapping: StreamMapping, schema: Schema, row: Row | RowError | None) -> Trial:
    """Map a row, or the columns alone, as a run would."""
    properties = schema.schema["properties"]
    closed = msgspec.structs.replace(schema, schema=schema.schema | {"additionalProperties": False})
    if row is not None and mapping.deleted_at_column not in properties:
        # Another row may have it.
        mapping = msgspec.structs.replace(mapping, deleted_at_column=None)
    try:
        mapper = RowMapper(mapping, closed, t.cast("Cohorts", _AnyCohorts()))
        if isinstance(row, RowError):
            raise row
        if row is not None and not mapper.record_proves_emptiness(row):
            mapper.read(mapper.row(row))
    except RowError as error:
        msg = f"cohorts.{mapping.stream}: the row would be rejected: {error.reason}"
        return Trial(mapping.stream, {}, had_row=True, error=SettingsError(error.code, msg))
    except TargetError as error:
        return Trial(mapping.stream, {}, row is not None, error)
    columns = {role: column for role, column in mapping.columns.items() if column in properties}
    return Trial(mapping.stream, columns, row is not None)


class _AnyCohorts:
    """Stands for the cohorts of a run, without a ledger."""

    by_id: t.ClassVar[dict[str, SyncedCohort]] = {}
    row_warnings = SimpleNamespace(count=lambda *_: None)

    def meet(self, cohort: Cohort, mapping: StreamMapping) -> SyncedCohort:
        """Take every cohort."""
        return SyncedCohort(cohort, mapping, _MOST_BYTES)
