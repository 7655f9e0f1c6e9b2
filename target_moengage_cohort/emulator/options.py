"""The options of one emulator: its credentials, limits, order of changes, and clock."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from enum import StrEnum

from .segment_options import SegmentOptions


class Order(StrEnum):
    """The rule that decides between two requests of one cohort; see the package docstring."""

    ARRIVAL = "arrival"
    LAST_WRITER_WINS = "last-writer-wins"
    DROP_OLDER = "drop-older"
    LATE = "late"


class Clock:
    """The emulator's source of time; a subclass may control it."""

    def monotonic(self) -> float:
        """Return the seconds of the monotonic clock."""
        return time.monotonic()

    def wall(self) -> float:
        """Return the seconds since the epoch, in UTC."""
        return time.time()


class ManualClock(Clock):
    """A clock that stands still until it is advanced.

    Args:
        monotonic: The first reading of the monotonic clock, in seconds.
        wall: The first reading of the wall clock, in seconds since the epoch.
    """

    def __init__(self, monotonic: float = 1_000.0, wall: float = 1_800_000_000.0) -> None:
        self._monotonic = monotonic
        self._wall = wall

    def monotonic(self) -> float:
        """Return the seconds of the monotonic clock."""
        return self._monotonic

    def wall(self) -> float:
        """Return the seconds since the epoch, in UTC."""
        return self._wall

    def advance(self, seconds: float) -> None:
        """Move both clocks forward."""
        self._monotonic += seconds
        self._wall += seconds


@dataclass(frozen=True)
class Options(SegmentOptions):
    """The options of one emulator, those of its Segments and Analytics APIs included.

    Attributes:
        workspace_id: The user of HTTP Basic, and `MOE-APPKEY`.
        data_api_key: The password of HTTP Basic.
        order: The rule that decides between two requests of one cohort.
        late_after: A change whose sender was cut off is applied after this many further requests
            of its cohort; 0 applies it immediately. The default is 1 with `Order.LATE`, else 0.
        requests_per_minute: The workspace's limit in any rolling 60 seconds.
        max_payload_bytes: The largest accepted body; a larger one is answered with 413.
        max_cohorts: The largest number of segments in the workspace.
        merges: Whether a uid and an anonymous id that come together are one user from then on.
        log_size: The number of requests in the log. Older ones are dropped; totals count them.
        clock: The source of time.
    """

    workspace_id: str = "demo-workspace"
    data_api_key: str = "demo-key"
    order: Order = Order.ARRIVAL
    late_after: int | None = None
    requests_per_minute: int = 300
    max_payload_bytes: int = 128_000
    max_cohorts: int = 1_000
    merges: bool = False
    log_size: int = 100_000
    clock: Clock = field(default_factory=Clock)

    def __post_init__(self) -> None:
        """Derive the defaults that depend on other options.

        Raises:
            ValueError: If a number is too small or the order is unknown.
        """
        object.__setattr__(self, "order", Order(self.order))
        if self.late_after is None:
            object.__setattr__(self, "late_after", int(self.order is Order.LATE))
        for name, least in (
            ("late_after", 0),
            ("requests_per_minute", 1),
            ("max_payload_bytes", 1),
            ("max_cohorts", 1),
            ("log_size", 1),
        ):
            if getattr(self, name) < least:
                msg = f"{name} must be at least {least}"
                raise ValueError(msg)
