"""The context that all parts of a run share, and the endpoints for its results."""

from __future__ import annotations

import typing as t

import msgspec

from target_moengage_cohort.sync.segments.match_guard import MatchGuard
from target_moengage_cohort.sync.segments.segment_directory import SegmentDirectory

if t.TYPE_CHECKING:
    from target_moengage_cohort.core.interrupts import Interrupt
    from target_moengage_cohort.delivery.ports import Link, Timing
    from target_moengage_cohort.ledger.interface import LedgerStore
    from target_moengage_cohort.settings import Config, Settings, StreamMapping
    from target_moengage_cohort.singer.stream_maps import StreamMaps
    from target_moengage_cohort.singer.writer import RejectsWriter
    from target_moengage_cohort.sync.mirror.recorder import Recorder
    from target_moengage_cohort.sync.reporting.report import ReportHead


class RunContext(msgspec.Struct, frozen=True):
    """The values that all parts of a run share."""

    head: ReportHead
    config: Config
    interrupt: Interrupt
    timing: Timing

    @property
    def run_id(self) -> str:
        """The id of the run."""
        return self.head.run_id

    @property
    def started_at(self) -> str:
        """When it began, as ISO 8601 in UTC."""
        return self.head.started_at

    @property
    def settings(self) -> Settings:
        """The settings in the configuration."""
        return self.config.settings


class ApiEndpoints(msgspec.Struct, frozen=True, kw_only=True):
    """What a run asks of the Segments and the Analytics API; by default nothing."""

    directory: SegmentDirectory = msgspec.field(default_factory=SegmentDirectory)
    match_guard: MatchGuard = msgspec.field(default_factory=MatchGuard)
    unarchive: t.Callable[[StreamMapping], None] = lambda _mapping: None


class Endpoints(msgspec.Struct, frozen=True, kw_only=True):
    """The destinations of a run's results. A dry run has endpoints that keep nothing.

    Without a ``record_mapper`` (the SDK's stream maps), records are read the fast way.
    """

    store: LedgerStore
    recorder: Recorder
    link: Link
    write_state: t.Callable[[bytes], None]
    rejects: RejectsWriter
    record_mapper: StreamMaps | None = None
    apis: ApiEndpoints = msgspec.field(default_factory=ApiEndpoints)
