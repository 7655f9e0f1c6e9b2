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
from target_moengage_cohort.sync.early_removals import EarlyRemovals
from target_moengage_cohort.sync.mirror import bookmarks
from target_moengage_cohort.sync.mirror.completeness import MOST_VERSIONS, Proof
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
        cohorts.submit = self._outbox.submit
        are_sent = endpoints.recorder.remembers
        self._early_removals = EarlyRemovals(cohorts, delivery, self._outbox, are_sent=are_sent)
        self._settlement = Settlement(context, cohorts, delivery, self._store, endpoints.recorder)
        self._by_source: defaultdict[str, list[Sink]] = defaultdict(list)
        self.has_replay = False  # whether rows are replayed that were rejected before
        self._tap_states = bookmarks.TapStates()
        self._are_all_mirrors = not self._config.mappings and self._config.default.is_snapshot
        self.drops_last_state = False  # whether the input's last STATE must not be written
        self._was_whole: dict[str, bool | None] = {}  # what the store has noted of each stream
        self.by_name: dict[str, Sink] = {}  # by the stream's name after stream maps
        # Without a sink: the stream is paused, another run holds it, or its cohort is refused.
        self.failed: dict[str, TargetError] = {}
        self.incomplete: dict[str, InputError] = {}  # mirrors of which the tap has not read all

    def meet(self, schema: Schema, source: Schema, where: t.Callable[[str], str]) -> Sink | None:
        """Return the sink of a stream that has sent a SCHEMA; ``None`` if it has failed.

        `source` is the tap's SCHEMA that it comes from by stream maps; `where` puts the number of
        the input's line before a message.
        """
        is_replay = REASON in source.schema["properties"]
        self.has_replay |= is_replay
        mapping = self._config.mapping(schema.stream)
        sink = self.by_name.get(schema.stream)
        if sink is None:
            if not self._begin(mapping):
                return None
        elif mapping.is_snapshot and sink.rows.mapping.is_snapshot is is_replay:
            msg = (
                f"the stream {mapping.stream!r} mixes rows that were rejected before with other "
                "rows; replay the rejected rows separately"
            )
            raise InputError("replay_mixed_with_rows", where(msg))
        if is_replay and mapping.is_snapshot:  # rows that were rejected are never a whole cohort
            mapping = msgspec.structs.replace(
                mapping, sync_mode=SyncMode.ADD, expected_count_column=None
            )
        if mapping.is_snapshot and not mapping.allow_bookmark:
            error = bookmarks.refuse_properties(source.stream, source.bookmark_properties)
            if error is not None:
                raise InputError(error.code, where(str(error)))
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
            self._early_removals.send(mapping)
        except (BusyError, CohortError) as error:
            self._drop(stream, error)
            return False
        self._store.begin(stream)
        self._was_whole[stream] = self._store.was_read_whole(stream)
        return True

    def _drop(self, stream: str, error: TargetError) -> None:
        """Let a failed stream's rows be dropped: no STATE from now on is written in this run."""
        self._outbox.submit()  # the changes before it are not held back
        self._delivery.hold(stream)
        self.failed[stream] = error
        if not self._interrupt.is_set():
            logger.warning(
                "skipping the rows of stream %r; no STATE covers them, other streams continue: %s",
                stream,
                error,
                extra={"code": error.code, "stream": stream},
            )

    def _mirror(self, rows: RowMapper, source: str) -> MirrorSink:
        """Return the sink of a stream that is a whole cohort, made when it is met first."""
        mapping = rows.mapping
        self._outbox.submit()  # the changes before it are not held back
        sink = t.cast("MirrorSink | None", self.by_name.get(mapping.stream))
        if sink is None:
            for other in self.by_name.values():
                other.pause()
            sink = MirrorSink(rows, source, self._settlement, self._cohorts)
            self._outbox.staged[mapping.stream] = sink.sample
            self._add(sink)
        elif sink.source != source:
            msg = (
                f"stream_maps: the streams {sink.source!r} and {source!r} both become "
                f"{mapping.stream!r}, whose sync mode is {mapping.sync_mode.value}: nothing "
                "could prove that all of its rows have arrived. Merge them into one query"
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
        if rows:
            self._tap_states.begin(source)
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
        if type(version) is int and version not in seen and len(seen) < MOST_VERSIONS:
            seen[version] = self._store.use_version(sink.rows.mapping.stream, version)

    def take_state(self, value: bytes, where: t.Callable[[str], str]) -> None:
        """Take the value of a STATE; refuse a mirror's replication method.

        One that is empty is not passed on, and neither is one from which the tap would not read
        all of a mirror's stream, or which names that as the one to resume with: a tap skips it.
        In every mode, one that came before the first row of the stream it resumes with has to wait.
        """
        state = bookmarks.read_state(value)
        self._tap_states.take(state)
        sources, is_whole = self._sources(), True
        for stream, mapping in self._mirrors():
            error = (
                None if mapping.allow_bookmark else bookmarks.refuse_method(state, stream, sources)
            )
            if error is not None:
                raise InputError(error.code, where(str(error)))
            # Another tap's streams may be configured, too: only their own entries are theirs.
            only_named = stream not in self._by_source
            is_whole &= state.is_whole(stream, sources, only_named=only_named)
            is_whole &= not state.is_reading(stream, sources)
        if self._are_all_mirrors:  # those that will be met later, too
            is_whole &= state.is_all_whole
        may_pass = is_whole and not self._tap_states.is_early(state)
        is_empty = value.translate(None, b" \t\r\n") in _EMPTY_STATES
        self.drops_last_state = not (is_empty or may_pass)
        if may_pass and not is_empty:
            self._outbox.state(value)

    def note_state(self, state: bookmarks.TapState, *, is_written: bool) -> None:
        """Note the streams that the tap reads as a whole after a STATE, or before it the others."""
        sources = self._sources()
        for stream, sink in list(self.by_name.items()):
            is_whole = state.is_whole(sink.source, sources)
            if is_whole is is_written and self._was_whole.get(stream) is not is_whole:
                self._store.note_read_whole(stream, whole=is_whole)
                self._was_whole[stream] = is_whole

    def _mirrors(self) -> list[tuple[str, StreamMapping]]:
        """Return the mirrors that were met or are configured, each with the tap's name of it."""
        met = [(sink.source, sink.rows.mapping) for sink in self.by_name.values()]
        unmet = [each for each in self._config.mappings.items() if each[0] not in self._by_source]
        return [each for each in [*met, *unmet] if each[1].is_snapshot]

    def _sources(self) -> set[str]:
        """Return all of the tap's streams that are known; for any thread."""
        return {*self._config.mappings, *self.failed, *list(self._by_source)}

    def hold_state(self, stream: str) -> None:
        """Write no STATE from now on until a stream's columns are known to be there."""
        self._outbox.submit()  # the STATEs before it are not held back
        self._delivery.hold(f"columns of {stream}")

    def release_state(self, stream: str) -> None:
        """End `hold_state`."""
        self._outbox.submit()
        self._delivery.release(f"columns of {stream}")

    def submit(self) -> None:
        """Pass on the changes that were collected, as when no input arrives."""
        self._outbox.submit()

    def prove(self, *, tap_succeeded: bool) -> None:
        """Find each stream's proof that it is complete; raise `InputError` if rows are missing."""
        for sink in self.by_name.values():
            sink.check()
        for stream, sink in self.by_name.items():
            sink.prove(tap_succeeded=tap_succeeded)
            if isinstance(sink, MirrorSink) and (error := self._fault(stream, sink)) is not None:
                self.incomplete[stream] = error
                sink.proof = Proof.NO

    def _fault(self, stream: str, sink: MirrorSink) -> InputError | None:
        """Return why the tap has not read all of a mirror's stream, if STATE says so."""
        allows_bookmark = sink.rows.mapping.allow_bookmark
        error = self._tap_states.fault(
            sink.source,
            self._sources(),
            allows_bookmark=allows_bookmark,
            is_proven=sink.proof.is_proof,
        )
        is_trusted = allows_bookmark or sink.proof in {Proof.COUNT, Proof.NO}
        if error is None and self._was_whole.get(stream) is False and not is_trusted:
            error = bookmarks.resumed(
                sink.source, "an earlier run wrote a STATE that was not whole"
            )
        return error

    def settle(self) -> bool:
        """Have everything accepted, and the mirrors' plans settled; ``False`` if interrupted."""
        if self._interrupt.is_set():
            return False
        self._outbox.admit()
        if not all(sink.settle() for sink in self.by_name.values()):
            return False
        if not (self._settlement.finish() and self._delivery.drain()):
            return False
        failed = self._cohorts.unsettled_streams
        for stream, sink in self.by_name.items():
            if stream not in failed and self._may_pass(stream, sink):
                self._delivery.release(stream)
        return self._delivery.drain()

    def _may_pass(self, stream: str, sink: Sink) -> bool:
        """Return whether STATE may pass a stream's rows: a mirror's if its input is complete.

        After a resumed read, too, because the next run reads everything then.
        """
        if not isinstance(sink, MirrorSink) or sink.proof is not Proof.NO:
            return True
        error = self.incomplete.get(stream)
        return (
            error is not None and error.code == bookmarks.RESUMED and not sink.completeness.rejected
        )

    def absent(self) -> list[str]:
        """Return the configured streams without a SCHEMA; none if rejected rows are replayed."""
        if self.has_replay:
            return []
        return sorted(self._config.mappings.keys() - self.by_name.keys() - self.failed.keys())
