"""What a tap's messages mean: rows become changes or snapshots, or are rejected."""

from __future__ import annotations

import typing as t
from collections import Counter

from target_moengage_cohort.errors import (
    InputError,
    MissingKeyError,
    MissingKeyRowError,
    RecordBeforeSchemaError,
    RowError,
)
from target_moengage_cohort.mirror import bookmarked_stream
from target_moengage_cohort.reader import ActivateVersion, Reader, Record, Schema, State
from target_moengage_cohort.settings.declared import OnReject
from target_moengage_cohort.sinks import Sink

if t.TYPE_CHECKING:
    from collections.abc import Sequence

    from target_moengage_cohort.changes import Changes
    from target_moengage_cohort.delivery.dispatcher import Dispatcher
    from target_moengage_cohort.destinations import Destinations
    from target_moengage_cohort.interrupts import Interrupt
    from target_moengage_cohort.reader import Message
    from target_moengage_cohort.rejects import Rejections
    from target_moengage_cohort.settings import Loaded, Mapping
    from target_moengage_cohort.snapshots import Snapshots


class Transform(t.Protocol):
    """What happens to streams and whole records before they are mapped to cohorts."""

    def schema(self, message: Schema) -> Sequence[Schema]:
        """The streams that a stream becomes."""

    def record(
        self, stream: str, record: dict[str, t.Any]
    ) -> Sequence[tuple[str, dict[str, t.Any] | RowError]]:
        """The records that a record becomes, each with its stream, or why it cannot."""


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
        loaded: Loaded,
        transform: Transform | None,
        *,
        destinations: Destinations,
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
        self._reader = Reader()
        self._schemas: dict[str, Schema] = {}
        self.sinks: dict[str, Sink] = {}
        self.counts: Counter[str] = Counter()

    @property
    def lines(self) -> int:
        """The number of lines read."""
        return self._reader.number

    def read(self, source: t.IO[t.Any], interrupt: Interrupt) -> None:
        """Read an input to its end, or until interrupted.

        Raises:
            TargetError: It cannot be read on, or what it asks for has failed.
        """
        self._rejections.refuse_own_file(source)
        for message in self._reader.messages(source, interrupt):
            if message is None:
                self._changes.submit()
            else:
                self._take(message)

    def _take(self, message: Message) -> None:
        if isinstance(message, Record):
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
        streams = [message] if self._transform is None else self._transform.schema(message)
        for stream in streams:
            mapping = self._loaded.mapping(stream.stream)
            if stream.stream not in self.sinks:
                self._begin(mapping)
            sink = Sink(
                mapping,
                stream.schema["properties"],
                stream.key_properties,
                self._destinations,
            )
            self.sinks[stream.stream] = sink
            if sink.mapping.is_snapshot:
                self._changes.submit()  # what came before is not held
                self._snapshots.of(sink.mapping, message.stream)
                self._dispatcher.hold(stream.stream)
            if self._transform is None:
                self._reader.expect(stream.stream, sink.columns, sink.keys)

    def _take_record(self, message: Record) -> None:
        stream = message.stream
        if stream not in self._schemas:
            what = f"a RECORD of the stream {stream!r} came before its SCHEMA"
            raise RecordBeforeSchemaError(self._reader.where(what))
        if self._snapshots.by_stream:
            self._snapshots.read(stream, message.version)
        if self._transform is None:
            faults = [self._change(stream, message.record)]
        else:
            outputs = self._transform.record(stream, self._reader.record())
            faults = [self._change_whole(alias, record) for alias, record in outputs]
        if found := [fault for fault in faults if fault is not None]:
            self._reject(stream, found)

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

    def _reject(self, stream: str, faults: Sequence[RowError]) -> None:
        """Reject the latest row, once, whatever number of streams it became."""
        reason = "; ".join(dict.fromkeys(fault.reason for fault in faults))
        if self._loaded.settings.on_reject is OnReject.FAIL:
            what = f"a row of the stream {stream!r} cannot be delivered: {reason}"
            advice = "; mend it, or set on_reject to skip and give a rejects_path"
            lacks_key = any(isinstance(fault, MissingKeyRowError) for fault in faults)
            kind = MissingKeyError if lacks_key else InputError
            raise kind(self._reader.where(what + advice))
        for snapshot in self._snapshots.of_source(stream):
            snapshot.completeness.rejected += 1
        self._rejections.append(
            self._schemas[stream], self._reader.record(), self._reader.number, reason
        )

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
