"""The context that all parts of a run share, and the endpoints for its results."""

from __future__ import annotations

import typing as t

import msgspec

from target_moengage_cohort.core.text import utc_now
from target_moengage_cohort.core.warning_log import WarningLog

if t.TYPE_CHECKING:
    from target_moengage_cohort.core.interrupts import Interrupt
    from target_moengage_cohort.delivery.ports import Link, Timing
    from target_moengage_cohort.ledger.interface import LedgerStore
    from target_moengage_cohort.settings import Config, Settings
    from target_moengage_cohort.singer.stream_maps import StreamMaps
    from target_moengage_cohort.singer.writer import RejectsWriter
    from target_moengage_cohort.sync.mirror.recorder import Recorder


class RunContext(msgspec.Struct, frozen=True):
    """The values that all parts of a run share; ``started_at`` is ISO 8601 in UTC."""

    run_id: str
    config: Config
    interrupt: Interrupt
    timing: Timing
    started_at: str = msgspec.field(default_factory=utc_now)
    warnings: WarningLog = msgspec.field(default_factory=WarningLog)

    @property
    def settings(self) -> Settings:
        """The settings in the configuration."""
        return self.config.settings


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
