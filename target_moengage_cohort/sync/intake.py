"""Routes each of a tap's messages to a stream's sink or to the rejections."""

from __future__ import annotations

import typing as t
from collections import Counter
from functools import partial

from target_moengage_cohort.core.errors import InputError, RowError
from target_moengage_cohort.settings.declared import OnReject
from target_moengage_cohort.singer.columns import NotPlainError
from target_moengage_cohort.singer.messages import (
    ActivateVersion,
    Batch,
    Record,
    Rows,
    Schema,
    State,
)
from target_moengage_cohort.singer.reader import Reader
from target_moengage_cohort.singer.writer import MAPPED
from target_moengage_cohort.sync.mapped_columns import UndeclaredColumns, misspelled_key

if t.TYPE_CHECKING:
    from collections.abc import Callable

    from target_moengage_cohort.core.interrupts import Interrupt
    from target_moengage_cohort.singer.batches.batch_files import BatchFiles
    from target_moengage_cohort.singer.messages import Chunk, Message, RawRecord, RowOrigin
    from target_moengage_cohort.singer.stream_maps import StreamMaps
    from target_moengage_cohort.sync.context import RunContext
    from target_moengage_cohort.sync.rejections import Rejections
    from target_moengage_cohort.sync.streams import Streams


class Intake:
    """The intake of a tap's messages."""

    def __init__(
        self,
        context: RunContext,
        streams: Streams,
        rejections: Rejections,
        record_mapper: StreamMaps | None,
    ) -> None:
        self._settings = context.settings
        self._interrupt: Interrupt = context.interrupt
        self._streams = streams
        self._rejections = rejections
        self._record_mapper = record_mapper
        self._reader = Reader()
        self._schemas: dict[str, Schema] = {}
        self._undeclared = UndeclaredColumns(
            streams.hold_state,
            streams.release_state,
            fails=self._settings.on_reject is OnReject.FAIL,
        )
        self._batch_files: BatchFiles | None = None
        self.counts: Counter[str] = Counter()  # of messages of each type

    @property
    def lines(self) -> int:
        """The number of lines read."""
        return self._reader.number

    def read(self, source: t.IO[t.Any]) -> None:
        """Read an input to its end, or until interrupted."""
        for message in self._reader.messages(source, self._interrupt):
            if message is None:
                self._streams.submit()
            elif not self._take(message):
                return  # a STATE that follows would cover rows which were not read
        if not self._interrupt.is_set():
            self._check_columns()

    def _check_columns(self) -> None:
        """Raise an error if the input, which has ended, does not show the mapped columns."""
        self._undeclared.check()
        if self.counts.keys() <= {"SCHEMA"}:
            for schema in self._schemas.values():
                if not schema.schema["properties"]:
                    msg = (
                        f"the SCHEMA of the stream {schema.stream!r} names no columns, and the "
                        "input ends without a row or a STATE. Check the tap's log"
                    )
                    raise InputError("invalid_schema", msg)

    def close(self) -> None:
        """Release the files, of which rows may be read again until the run has ended."""
        if self._batch_files is not None:
            self._batch_files.close()

    def _take(self, message: Message) -> bool:
        """Take a message; return ``False`` if interrupted in the middle of it."""
        match message:
            case Rows():
                self.counts["RECORD"] += message.count
                self._take_chunk(message.stream, message.version, message.chunk, self._reader)
            case Record():
                self.counts["RECORD"] += 1
                self._take_record(message)
            case State():
                self.counts["STATE"] += 1
                self._streams.take_state(message.value, self._reader.where)
            case Schema():
                self.counts["SCHEMA"] += 1
                self._take_schema(message)
            case ActivateVersion():
                self.counts["ACTIVATE_VERSION"] += 1
                self._streams.activate(message.stream, message.version)
            case Batch():
                self.counts["BATCH"] += 1
                return self._take_batch(message)
        return True

    def _take_schema(self, message: Schema) -> None:
        if self._schemas.get(message.stream) == message:
            return
        self._schemas[message.stream] = message
        mapper = self._mapper_of(message)
        if mapper is not None:
            self._reader.read_whole(message.stream)
        for schema in [message] if mapper is None else mapper.schema(message):
            sink = self._streams.meet(schema, message, self._reader.where)
            if sink is None:
                continue
            rows = sink.rows
            self._undeclared.expect(schema.stream, rows.undeclared, schema.schema["properties"])
            if mapper is None:  # else its rows need no decoding
                self._reader.expect(schema.stream, rows.layout)
            else:
                mapper.exempt(schema.stream, rows.record_proves_emptiness)

    def _mapper_of(self, schema: Schema) -> StreamMaps | None:
        """Return the stream maps for a stream; rejected rows that are replayed were mapped."""
        return None if MAPPED in schema.schema["properties"] else self._record_mapper

    def _take_chunk(self, stream: str, version: t.Any, chunk: Chunk, origin: RowOrigin) -> None:
        """Take consecutive rows as columns, or else individually."""
        sink = self._streams.by_name[stream]
        try:
            columns = chunk.columns()
            sink.take_columns(columns)
        except NotPlainError:
            for row in chunk.rows():
                self._take_row(stream, version, row, origin)
        else:
            self._count_plain(stream, version, columns.count)
            sink.rows.count_padded(columns.padded)

    def _count_plain(self, stream: str, version: t.Any, rows: int) -> None:
        self._streams.count(stream, version, rows)
        if rows:
            self._undeclared.see_all(stream)

    def _take_batch(self, message: Batch) -> bool:
        """Take the rows of a message's files; return ``False`` if interrupted before their end."""
        from target_moengage_cohort.singer.batches.columnar import Relation  # noqa: PLC0415 - slow

        stream, version = message.stream, message.version
        where = self._reader.where(f"a BATCH of the stream {stream!r}")
        if self._record_mapper is not None:
            msg = (
                f"{where}: stream maps, flattening and validate_records work on RECORD messages "
                "only. Remove batch_config from the tap, or these settings from the target"
            )
            raise InputError("batch_with_stream_maps", msg)
        self._require_schema(stream, "BATCH")
        if stream in self._streams.failed:
            return True
        sink = self._streams.by_name[stream]
        for part in self._files.parts(message, sink.rows.layout, where):
            if self._interrupt.is_set():
                return False
            try:
                if not isinstance(part, Relation):
                    raise NotPlainError  # noqa: TRY301 - only a columnar file can be one piece
                rows = sink.take_relation(part)
            except NotPlainError:
                for chunk in part.chunks():
                    self._take_chunk(stream, version, chunk, part)
                    if self._interrupt.is_set():
                        return False
            else:
                self._count_plain(stream, version, rows)
        return True

    @property
    def _files(self) -> BatchFiles:
        if self._batch_files is None:
            # Slow to import, and few inputs need it.
            from target_moengage_cohort.singer.batches.batch_files import (  # noqa: PLC0415
                BatchFiles,
            )

            self._batch_files = BatchFiles(self._settings.batch_storage)
        return self._batch_files

    def _take_record(self, message: Record) -> None:
        stream = message.stream
        self._require_schema(stream, "RECORD")
        mapper = self._mapper_of(self._schemas[stream])
        if mapper is None:
            if stream not in self._streams.failed:
                self._take_row(stream, message.version, message.record, self._reader)
            return
        self._streams.count(stream, message.version)
        errors = []
        for name, record in mapper.record(stream, self._reader.record()):
            if name in self._streams.failed:
                continue
            rows = self._streams.by_name[name].rows
            if isinstance(record, RowError):
                rows.count_rejected(record)
                self._rejections.count_unplaced(name, record)
                errors.append(record)
            elif (
                error := self._sink_row(name, rows.row(record), partial(dict, record))
            ) is not None:
                errors.append(error)
        self._reject(stream, errors, self._reader)

    def _take_row(self, stream: str, version: t.Any, row: t.Any, origin: RowOrigin) -> None:
        self._streams.count(stream, version)
        error = self._sink_row(stream, row, origin.record)
        if error is not None:
            self._reject(stream, [error], origin)

    def _sink_row(
        self, stream: str, row: t.Any, record: Callable[[], RawRecord]
    ) -> RowError | None:
        """Have a stream's sink take a row; return why it cannot be delivered, if it cannot."""
        sink = self._streams.by_name[stream]
        self._undeclared.see(stream, row, record, sink.rows.proves_emptiness)
        try:
            sink.take(row)
        except RowError as error:
            self._undeclared.blame(stream, error)
            if error.code == "missing_key":
                rows = sink.rows
                key = misspelled_key(rows.mapping, rows.schema.key_properties, record())
                if key is not None:
                    raise key from None
            self._rejections.count_unplaced(stream, error)
            return error
        return None

    def _reject(self, stream: str, errors: list[RowError], origin: RowOrigin) -> None:
        if errors:
            self._rejections.reject_row(self._schemas[stream], errors, origin)
            for sink in self._streams.of_source(stream):
                sink.count_reject(errors)

    def _require_schema(self, stream: str, kind: str) -> None:
        if stream not in self._schemas:
            msg = self._reader.where(f"a {kind} of the stream {stream!r} came before its SCHEMA")
            raise InputError("record_before_schema", msg)
