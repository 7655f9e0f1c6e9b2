"""The streams of a run, each with the sink of its sync mode."""

from __future__ import annotations

import logging
import typing as t
from collections import defaultdict

import msgspec

from target_moengage_cohort.core.errors import BusyError, CohortError, InputError, SettingsError
from target_moengage_cohort.core.membership import SyncMode
from target_moengage_cohort.singer.writer import REASON
from target_moengage_cohort.sync.changes.change_sink import ChangeSink
from target_moengage_cohort.sync.changes.outbox import Outbox
from target_moengage_cohort.sync.mirror.completeness import Proof, check_bookmarks
from target_moengage_cohort.sync.mirror.mirror_sink import MirrorSink
from target_moengage_cohort.sync.mirror.settlement import Settlement
from target_moengage_cohort.sync.rows import RowMapper

if t.TYPE_CHECKING:
    from target_moengage_cohort.core.errors import TargetError
    from target_moengage_cohort.delivery.delivery import Delivery
    from target_moengage_cohort.settings import StreamMapping
    from target_moengage_cohort.singer.messages import Schema
    from target_moengage_cohort.sync.cohorts import Cohorts
    from target_moengage_cohort.sync.context import Endpoints, RunContext
    from target_moengage_cohort.sync.sink import Sink

logger = logging.getLogger(__name__)

_MOST_VERSIONS = 100  # of a stream; more of them in one run prove nothing anyway
_EMPTY_STATES = (b"{}", b"null")


class Streams:
    """Finds a stream's sink, and settles all of them in the end."""

    def __init__(
        self, context: RunContext, cohorts: Cohorts, delivery: Delivery, endpoints: Endpoints
    ) -> None:
        self._config = context.config
        self._interrupt = context.interrupt
        self._cohorts = cohorts
        self._delivery = delivery
        self._store = endpoints.store
        self._outbox = Outbox(cohorts, delivery)
        self._settlement = Settlement(
            context, cohorts, delivery, endpoints.store, endpoints.recorder
        )
        self._by_source: defaultdict[str, list[Sink]] = defaultdict(list)
        self._has_replay = False
        self.by_name: dict[str, Sink] = {}  # by the stream's name after stream maps
        # Without a sink: another run holds the stream, or nothing can be sent for its cohort.
        self.failed: dict[str, TargetError] = {}

    def meet(self, schema: Schema, source: Schema, where: t.Callable[[str], str]) -> Sink | None:
        """Return the sink of a stream that has sent a SCHEMA; ``None`` if it has failed.

        `source` is the tap's SCHEMA that it comes from by stream maps; `where` puts the number of
        the input's line before a message.
        """
        is_replay = REASON in source.schema["properties"]
        self._has_replay |= is_replay
        mapping = self._config.mapping(schema.stream)
        sink = self.by_name.get(schema.stream)
        if sink is None:
            if not self._begin(mapping):
                return None
        elif mapping.is_snapshot and sink.rows.mapping.is_snapshot is is_replay:
            msg = (
                f"the stream {mapping.stream!r} has rows that were rejected before and rows that "
                "were not; replay the rejected rows by themselves"
            )
            raise InputError("replay_mixed_with_rows", where(msg))
        if is_replay and mapping.is_snapshot:  # rows that were rejected are never a whole cohort
            mapping = msgspec.structs.replace(
                mapping, sync_mode=SyncMode.ADD, expected_count_column=None
            )
        try:
            rows = RowMapper(mapping, schema, self._cohorts)
        except CohortError as error:
            self._drop(schema.stream, error)
            return None
        if rows.mapping.is_snapshot:
            return self._mirror(rows, source.stream)
        if sink is None:
            sink = self._add(ChangeSink(rows, source.stream, self._outbox))
        sink.rows = rows
        return sink

    def _begin(self, mapping: StreamMapping) -> bool:
        """Take a stream's lease, and expire its pending plans; return ``False`` if it failed."""
        stream = mapping.stream
        if stream in self.failed:
            return False
        try:
            self._cohorts.take_lease(stream)
        except BusyError as error:
            self._drop(stream, error)
            return False
        self._store.begin(stream)
        return True

    def _drop(self, stream: str, error: TargetError) -> None:
        """Let a failed stream's rows be dropped: no STATE from now on is written in this run."""
        self._outbox.submit()  # the changes before it are not held back
        self._delivery.hold(stream)
        self.failed[stream] = error
        if not self._interrupt.is_set():
            logger.warning(
                "%s. Its rows are dropped, and no STATE that covers them is written; the other "
                "streams go on",
                error,
                extra={"code": error.code, "stream": stream},
            )

    def _mirror(self, rows: RowMapper, source: str) -> MirrorSink:
        """Return the sink of a stream that is a whole cohort, made when it is met first."""
        mapping = rows.mapping
        self._outbox.submit()  # the changes before it are not held back
        sink = t.cast("MirrorSink | None", self.by_name.get(mapping.stream))
        if sink is None:
            sink = MirrorSink(rows, source, self._settlement)
            self._add(sink)
        elif sink.source != source:
            msg = (
                f"stream_maps: the streams {sink.source!r} and {source!r} both become "
                f"{mapping.stream!r}, whose sync mode is {mapping.sync_mode.value}: nothing could "
                "prove that all of it has arrived. Make them one query"
            )
            raise SettingsError("mirror_of_two_streams", msg)
        sink.rows = rows
        self._delivery.hold(mapping.stream)
        return sink

    def _add(self, sink: Sink) -> Sink:
        self.by_name[sink.rows.mapping.stream] = sink
        self._by_source[sink.source].append(sink)
        return sink

    def of_source(self, source: str) -> list[Sink]:
        """Return the sinks of one of the tap's streams."""
        return self._by_source[source]

    def count(self, source: str, version: t.Any, rows: int = 1) -> None:
        """Note that one of the tap's streams has sent rows of one version."""
        for sink in self._by_source[source]:
            self._see(sink, version)
            sink.count(version, rows)

    def activate(self, source: str, version: t.Any) -> None:
        """Note that one of the tap's streams has activated a version."""
        for sink in self._by_source[source]:
            self._see(sink, version)
            sink.activate(version)

    def _see(self, sink: Sink, version: t.Any) -> None:
        """Record a version that the run has not seen before, in whatever mode."""
        seen = sink.versions
        if type(version) is int and version not in seen and len(seen) < _MOST_VERSIONS:
            seen[version] = self._store.use_version(sink.rows.mapping.stream, version)

    def take_state(self, value: bytes, where: t.Callable[[str], str]) -> None:
        """Take the value of a STATE, unless that is empty; refuse a mirror's bookmark."""
        mirrors = (sink for sink in self.by_name.values() if isinstance(sink, MirrorSink))
        streams = {sink.source for sink in mirrors}
        streams |= {name for name, each in self._config.mappings.items() if each.is_snapshot}
        check_bookmarks(value, streams, where)
        if value.translate(None, b" \t\r\n") not in _EMPTY_STATES:
            self._outbox.state(value)

    def hold_state(self, stream: str) -> None:
        """Write no STATE from now on until a stream's columns are known to be there."""
        self._outbox.submit()  # the STATEs before it are not held back
        self._delivery.hold(f"columns of {stream}")

    def release_state(self, stream: str) -> None:
        """End `hold_state`."""
        self._outbox.submit()
        self._delivery.release(f"columns of {stream}")

    def pause(self) -> None:
        """Use the time while no input arrives: pass on the collected rows."""
        self._outbox.submit()

    def submit(self) -> None:
        """Pass on the changes that were collected."""
        self._outbox.submit()

    def prove(self, *, tap_succeeded: bool) -> None:
        """Find each stream's proof that it is complete; raise `InputError` if rows are missing."""
        for sink in self.by_name.values():
            sink.check()
        for sink in self.by_name.values():
            sink.prove(tap_succeeded=tap_succeeded)

    def settle(self) -> bool:
        """Have everything accepted, and the mirrors' plans settled; ``False`` if interrupted."""
        if self._interrupt.is_set():
            return False
        self._outbox.admit()
        if not all(sink.settle() for sink in self.by_name.values()):
            return False
        if not (self._settlement.finish() and self._delivery.drain()):
            return False
        failed = {each.mapping.stream for each in self._cohorts.by_id.values() if each.error}
        for stream, sink in self.by_name.items():
            if not (stream in failed or (isinstance(sink, MirrorSink) and sink.proof is Proof.NO)):
                self._delivery.release(stream)
        return self._delivery.drain()

    def absent(self) -> list[str]:
        """Return the configured streams without a SCHEMA; none if rejected rows are replayed."""
        if self._has_replay:
            return []
        return sorted(self._config.mappings.keys() - self.by_name.keys() - self.failed.keys())
