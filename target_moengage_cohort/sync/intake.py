"""What a tap's messages mean: rows become changes or snapshots, or are rejected."""

from __future__ import annotations

import typing as t
from collections import Counter

import msgspec

from target_moengage_cohort.core.errors import (
    InputError,
    MissingKeyError,
    MissingKeyRowError,
    RecordBeforeSchemaError,
    RowError,
)
from target_moengage_cohort.core.membership import SyncMode
from target_moengage_cohort.settings.declared import OnReject
from target_moengage_cohort.singer.messages import (
    ActivateVersion,
    Batch,
    Record,
    Rows,
    Schema,
    State,
)
from target_moengage_cohort.singer.reader import Reader
from target_moengage_cohort.sync.mirror.guard import bookmarked_stream
from target_moengage_cohort.sync.rejections import MAPPED, REASON
from target_moengage_cohort.sync.rows import Sink

if t.TYPE_CHECKING:
    from collections.abc import Sequence

    from target_moengage_cohort.core.interrupts import Interrupt
    from target_moengage_cohort.delivery.dispatcher import Dispatcher
    from target_moengage_cohort.settings import Config, Mapping
    from target_moengage_cohort.singer.batches.batch_files import Batches, Relation
    from target_moengage_cohort.singer.columns import Columns
    from target_moengage_cohort.singer.messages import Message
    from target_moengage_cohort.sync.changes.outbox import Changes
    from target_moengage_cohort.sync.cohorts import Cohorts
    from target_moengage_cohort.sync.mirror.settlement import Snapshots
    from target_moengage_cohort.sync.rejections import Rejections


class Transform(t.Protocol):
    """What happens to streams and whole records before they are mapped to cohorts."""

    def schema(self, message: Schema) -> Sequence[Schema]:
        """The streams that a stream becomes."""

    def record(
        self, stream: str, record: dict[str, t.Any]
    ) -> Sequence[tuple[str, dict[str, t.Any] | RowError]]:
        """The records that a record becomes, each with its stream, or why it cannot."""


class Origin(t.Protocol):
    """Where the latest row came from: the tap's output, or a batch file."""

    def record(self) -> dict[str, t.Any]:
        """The whole row."""

    def where(self, what: str) -> str:
        """A message that names the row's place."""


class Intake:
    """Takes messages in, each to where it belongs.

    Attributes:
        counts: How many messages of each type were read.
        sinks: By its stream, what turns records into changes.
        lines: The number of lines read.

    Args:
        loaded: The configuration.
        transform: What the SDK does to records; ``None`` reads them the fast way.
        destinations: The cohorts of the run.
        dispatcher: Takes STATE.
        changes: Takes changes.
        snapshots: Takes the rows of snapshots.
        rejections: Takes rows that cannot be delivered.
        begin: Called with a stream's mapping when its first SCHEMA has come.
    """

    def __init__(
        self,
        loaded: Config,
        transform: Transform | None,
        *,
        destinations: Cohorts,
        dispatcher: Dispatcher,
        changes: Changes,
        snapshots: Snapshots,
        rejections: Rejections,
        begin: t.Callable[[Mapping], None],
    ) -> None:
        self._loaded = loaded
        self._transform = transform
        self._destinations = destinations
        self._dispatcher = dispatcher
        self._changes = changes
        self._snapshots = snapshots
        self._rejections = rejections
        self._begin = begin
        self._batches: Batches | None = None
        self._reader = Reader()
        self._schemas: dict[str, Schema] = {}
        self._is_mapped: dict[str, bool] = {}  # whether stream maps are of no concern to a stream
        self.sinks: dict[str, Sink] = {}
        self.counts: Counter[str] = Counter()

    @property
    def lines(self) -> int:
        """The number of lines read."""
        return self._reader.number

    @property
    def absent(self) -> list[str]:
        """The configured streams of which the input had no SCHEMA; none for replayed rejects."""
        if any(REASON in schema.schema["properties"] for schema in self._schemas.values()):
            return []
        return sorted(self._loaded.mappings.keys() - self.sinks.keys())

    def read(self, source: t.IO[t.Any], interrupt: Interrupt) -> None:
        """Read an input to its end, or until interrupted.

        Raises:
            TargetError: It cannot be read on, or what it asks for has failed.
        """
        self._rejections.refuse_own_file(source)
        try:
            for message in self._reader.messages(source, interrupt):
                if message is None:
                    self._changes.submit()
                    self._snapshots.pause()
                elif not isinstance(message, Batch):
                    self._take(message)
                elif not self._take_batch(message, interrupt):
                    return  # a STATE that follows would cover rows which were not read
        finally:
            if self._batches is not None:
                self._batches.close()

    def _take(self, message: Message) -> None:
        if isinstance(message, Rows):
            if self._take_rows(message.stream, message.version, message.columns):
                self.counts["RECORD"] += message.columns.count
            else:
                for record in self._reader.again():
                    self._take(record)
        elif isinstance(message, Record):
            self.counts["RECORD"] += 1
            self._take_record(message)
        elif isinstance(message, State):
            self.counts["STATE"] += 1
            self._refuse_bookmarks(message.value)
            if message.value.translate(None, b" \t\r\n") not in {b"{}", b"null"}:
                self._changes.state(message.value)
        elif isinstance(message, Schema):
            self.counts["SCHEMA"] += 1
            self._take_schema(message)
        elif isinstance(message, ActivateVersion):
            self.counts["ACTIVATE_VERSION"] += 1
            for snapshot in self._snapshots.of_source(message.stream):
                snapshot.completeness.activate(message.version)

    def _take_schema(self, message: Schema) -> None:
        if self._schemas.get(message.stream) == message:
            return
        self._schemas[message.stream] = message
        properties = message.schema["properties"]
        transform = None if MAPPED in properties else self._transform
        self._is_mapped[message.stream] = transform is None
        if transform is not None:
            self._reader.forget(message.stream)
        streams = [message] if transform is None else transform.schema(message)
        for stream in streams:
            mapping = self._loaded.mapping(stream.stream)
            if stream.stream not in self.sinks:
                self._begin(mapping)
            sink = Sink(
                self._mapping_of(mapping, is_replay=REASON in properties),
                stream.schema["properties"],
                stream.key_properties,
                self._destinations,
            )
            self.sinks[stream.stream] = sink
            if sink.mapping.is_snapshot:
                self._changes.submit()  # what came before is not held
                self._snapshots.of(sink.mapping, message.stream)
                self._snapshots.give_head_start(sink.mapping, stream.schema["properties"])
                self._dispatcher.hold(stream.stream)
            if transform is None:
                self._reader.expect(stream.stream, sink.columns, sink.keys, sink.plain)

    def _mapping_of(self, mapping: Mapping, *, is_replay: bool) -> Mapping:
        """How rows are mapped; those that were rejected once are never a whole cohort.

        Raises:
            InputError: The stream has both kinds, and they cannot be told apart in the end.
        """
        if not mapping.is_snapshot:
            return mapping
        known = self.sinks.get(mapping.stream)
        if known is not None and known.mapping.is_snapshot is is_replay:
            what = (
                f"the stream {mapping.stream!r} has rows that were rejected once and rows that are "
                "not; replay the rejected ones by themselves"
            )
            raise InputError(self._reader.where(what))
        if not is_replay:
            return mapping
        return msgspec.structs.replace(mapping, sync_mode=SyncMode.ADD, expected_count_column=None)

    def _take_rows(self, stream: str, version: t.Any, columns: Columns) -> bool:
        """Take many plain rows at once; ``False`` if they must be taken one by one."""
        sink = self.sinks[stream]
        if (places := sink.place(columns)) is None:
            return False
        snapshot = self._snapshots.by_stream.get(stream)
        if snapshot is None:
            self._changes.put(*sink.changes(columns, places))
        elif not snapshot.take_all(columns, places):
            return False
        self._snapshots.read(stream, version, columns.count)
        return True

    def _take_batch(self, message: Batch, interrupt: Interrupt) -> bool:
        """Take the rows of a message's files; ``False`` if interrupted before their end.

        Raises:
            InputError: One is missing or cannot be read, or has a row that cannot be delivered.
        """
        from target_moengage_cohort.singer.batches.batch_files import (  # noqa: PLC0415 - slow, and few inputs need it
            Batches,
            Relation,
        )

        self.counts["BATCH"] += 1
        stream, version = message.stream, message.version
        where = self._reader.where(f"a BATCH of the stream {stream!r}")
        if self._transform is not None:
            what = (
                f"{where}: stream maps, flattening and validate_records work on RECORD messages "
                "only; take batch_config out of the tap, or these settings out of the target"
            )
            raise InputError(what)
        self._check_schema(stream, "BATCH")
        sink, snapshot = self.sinks[stream], self._snapshots.by_stream.get(stream)
        connect = None if snapshot is None else snapshot.staging.cursor
        if self._batches is None:
            self._batches = Batches(self._loaded.settings.batch_storage)
        for part in self._batches.parts(message, sink, where, connect):
            if interrupt.is_set():
                return False
            if isinstance(part, Relation) and self._take_relation(stream, version, part):
                continue
            for columns in part.chunks():
                if columns is None or not self._take_rows(stream, version, columns):
                    for row in part.rows():
                        self._take_row(stream, version, row, part)
                if interrupt.is_set():
                    return False
        return True

    def _take_relation(self, stream: str, version: t.Any, relation: Relation) -> bool:
        """Take all rows of a columnar file at once; ``False`` if they must be taken in chunks."""
        sink, snapshot = self.sinks[stream], self._snapshots.by_stream.get(stream)
        if snapshot is None or sink.fixed is None:
            return False
        before = sink.fixed.records
        if not snapshot.take_relation(relation, sink.fixed):
            return False
        self._snapshots.read(stream, version, sink.fixed.records - before)
        return True

    def _take_record(self, message: Record) -> None:
        stream = message.stream
        self._check_schema(stream, "RECORD")
        if self._transform is None or self._is_mapped[stream]:
            self._take_row(stream, message.version, message.record, self._reader)
            return
        self._snapshots.read(stream, message.version)
        outputs = self._transform.record(stream, self._reader.record())
        faults = [self._change_whole(alias, record) for alias, record in outputs]
        self._reject(stream, faults, self._reader)

    def _take_row(self, stream: str, version: t.Any, row: t.Any, origin: Origin) -> None:
        self._snapshots.read(stream, version)
        self._reject(stream, [self._change(stream, row)], origin)

    def _check_schema(self, stream: str, kind: str) -> None:
        if stream not in self._schemas:
            what = f"a {kind} of the stream {stream!r} came before its SCHEMA"
            raise RecordBeforeSchemaError(self._reader.where(what))

    def _change_whole(self, stream: str, record: dict[str, t.Any] | RowError) -> RowError | None:
        sink = self.sinks[stream]
        if isinstance(record, RowError):
            sink.count_rejected(record)
            self._rejections.place(stream, record)
            return record
        return self._change(stream, sink.row(record))

    def _change(self, stream: str, row: t.Any) -> RowError | None:
        """Turn a row into a change; return why it cannot be delivered, if it cannot."""
        sink = self.sinks[stream]
        try:
            if sink.mapping.is_snapshot:
                self._snapshots.by_stream[stream].take(sink, row)
                return None
            change = sink.change(row)
        except RowError as error:
            self._rejections.place(stream, error)
            return error
        if change is not None:
            self._changes.put(change)
        return None

    def _reject(self, stream: str, faults: Sequence[RowError | None], origin: Origin) -> None:
        """Reject the latest row, once, if any of the streams that it became cannot take it."""
        found = [fault for fault in faults if fault is not None]
        if not found:
            return
        reason = "; ".join(dict.fromkeys(fault.reason for fault in found))
        if self._loaded.settings.on_reject is OnReject.FAIL:
            what = f"a row of the stream {stream!r} cannot be delivered: {reason}"
            advice = "; mend it, or set on_reject to skip and give a rejects_path"
            lacks_key = any(isinstance(fault, MissingKeyRowError) for fault in found)
            kind = MissingKeyError if lacks_key else InputError
            raise kind(origin.where(what + advice))
        for snapshot in self._snapshots.of_source(stream):
            snapshot.completeness.rejected += 1
        self._rejections.append(self._schemas[stream], origin.record(), reason, origin.where)

    def _refuse_bookmarks(self, value: bytes) -> None:
        """Refuse STATE by which the tap will leave out rows of a snapshot.

        Raises:
            InputError: It has a bookmark for a snapshot stream.
        """
        names = {snapshot.source for snapshot in self._snapshots.by_stream.values()}
        names |= {name for name, said in self._loaded.mappings.items() if said.is_snapshot}
        if names and (stream := bookmarked_stream(value, names)) is not None:
            what = (
                f"the tap keeps a bookmark for the stream {stream!r}, so it leaves out rows, and "
                "whoever is left out would be removed; give the stream the replication method "
                "FULL_TABLE (sync_mode mirror and one_time need the whole query each time)"
            )
            raise InputError(self._reader.where(what))
