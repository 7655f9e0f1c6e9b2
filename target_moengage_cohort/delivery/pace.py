"""The rate limits: permits to start a request, which all processes of a workspace share.

MoEngage counts requests per minute. The window of Cohort Sync counts starts per 62 seconds, because
requests that start within more than 60 s may arrive within 60 s. Its times are those of the
machine's monotonic clock. The other APIs have limits per hour and per day, too, which must outlive
a boot, so theirs are those of the wall clock.
"""

from __future__ import annotations

import logging
import time
import typing as t
from pathlib import Path

from target_moengage_cohort.core.errors import SettingsError
from target_moengage_cohort.core.files import stem
from target_moengage_cohort.core.rate_limits import COHORT_SYNC, RateLimit, rate_limit
from target_moengage_cohort.delivery.local_window import BootClock, LocalWindow, Taken
from target_moengage_cohort.settings.addresses import state_path

if t.TYPE_CHECKING:
    from target_moengage_cohort.core.rate_limits import SharedWindow
    from target_moengage_cohort.ledger.interface import LedgerStore
    from target_moengage_cohort.settings import Settings

logger = logging.getLogger(__name__)

WINDOW_SECONDS = 62.0
_LONGEST_POLL_SECONDS = 1.0  # meanwhile another process may have got a 429, or ended
_SHORTEST_HOLD_SECONDS = 1.0
_ANY_BOOT = "wall"


def _state_directory() -> Path:
    path = state_path()
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        msg = (
            f"cannot create the state directory {path} ({error.strerror}); make it writable, or "
            "set XDG_STATE_HOME to another directory"
        )
        raise SettingsError("state_directory_unusable", msg) from None
    return path


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:  # not Linux: when the monotonic clock started, to ten minutes
        return str(round((time.time() - time.monotonic()) / 600))


def _path(settings: Settings, directory: Path | None, suffix: str = "") -> Path:
    name = stem(settings.base_url, settings.workspace_id)
    return (directory or _state_directory()) / f"pace-{name}{suffix}.sqlite3"


def cohort_sync_limit(settings: Settings) -> RateLimit:
    """Return the limit of requests to Cohort Sync."""
    return rate_limit(COHORT_SYNC, minute=settings.requests_per_minute)


def seconds_left(requests: int, started: int, limit: int, wait: float) -> float:
    """Return about how many seconds some requests take at a limit per window.

    Args:
        requests: How many are left.
        started: How many the run has started.
        limit: How many a window has.
        wait: Seconds until the next permit; 0 if nothing waits.
    """
    free = 0 if wait else limit - started % limit  # of this window
    windows = max(0, -(-(requests - free) // limit))  # to wait for
    if wait:
        windows -= 1  # the first one begins when the wait ends
    rest = min(requests, limit) * 60 / limit
    return max(wait + max(0, windows) * WINDOW_SECONDS, rest)


class Permits:
    """Permits to start a request, shared by all processes of a workspace.

    ``wait`` waits for so many seconds, and returns whether the run is to end instead. With a
    `window` of several hosts a permit is one of this machine and one of theirs; an error of the
    window ends the run.
    """

    def __init__(
        self,
        local: LocalWindow,
        wait: t.Callable[[float], bool],
        clock: t.Callable[[], float],
        window: SharedWindow | None = None,
    ) -> None:
        self._local = local
        self._wait = wait
        self._clock = clock
        self._window = window
        self._blocked_until = 0.0  # while a request waits for its permit
        self._last = Taken(0)  # the last permits that were taken and not given back
        self._known_hold = 0.0  # until when the latest hold lasts of which the log says why

    @property
    def seconds_to_permit(self) -> float:
        """How long a request still waits for its permit; 0 if none waits."""
        return max(0.0, self._blocked_until - self._clock())

    def acquire(self) -> bool:
        """Wait for a permit; return ``False`` if the run is to end instead."""
        while (seconds := self.take()) is not None:
            if not seconds:
                self._blocked_until = 0.0
                return True
            self._blocked_until = self._clock() + seconds
            if self._wait(min(seconds, _LONGEST_POLL_SECONDS)):
                break
        return False

    def take(self, count: int = 1) -> float | None:
        """Take so many permits and return 0, or return the seconds until there may be as many.

        It returns ``None`` if the run is to end instead.
        """
        if (taken := self._local.take(count)) is None:
            return None
        if not taken.number:
            self._explain_hold(taken.held_seconds)
            return taken.seconds
        if self._window is None or not (seconds := self._window.acquire(count)):
            self._last = taken
            return 0.0
        self._local.give_back(taken, count)
        return seconds

    def give_back(self, count: int) -> None:
        """Give back so many of the permits that were taken last, by this thread alone."""
        self._local.give_back(self._last, count)
        self._last = self._last._replace(number=self._last.number - count)
        if self._window is not None:
            self._window.give_back(count)

    def hold(self, seconds: float) -> None:
        """Let no process start a request for so long, as a 429 asks."""
        seconds = max(seconds, _SHORTEST_HOLD_SECONDS)
        self._local.hold(seconds)
        self._known_hold = max(self._known_hold, self._clock() + seconds)
        if self._window is not None:
            self._window.hold(seconds)

    def _explain_hold(self, held_seconds: float) -> None:
        """Log once why requests wait, if that is for a 429 that another run was answered."""
        now = self._clock()
        if now + held_seconds > max(now, self._known_hold):
            self._known_hold = now + held_seconds
            logger.info(
                "waiting for %.0f s before the next request, because MoEngage answered 429 to "
                "another run of this workspace",
                held_seconds,
                extra={"code": "waiting_for_rate_limit"},
            )

    def close(self) -> None:
        """Close the windows; there are no permits from then on."""
        self._local.close()
        if self._window is not None:
            self._window.close()


class Pace(Permits):
    """The permits of Cohort Sync.

    The clock is monotonic, in seconds, and the same for all processes of a boot. ``boot`` is that
    boot's id, by default the one that the system gives.
    """

    def __init__(
        self,
        settings: Settings,
        wait: t.Callable[[float], bool],
        directory: Path | None = None,
        clock: t.Callable[[], float] = time.monotonic,
        boot: str | None = None,
        window: SharedWindow | None = None,
    ) -> None:
        boot_clock = BootClock(clock, boot or _boot_id())
        path, limit = _path(settings, directory), cohort_sync_limit(settings)
        super().__init__(LocalWindow(path, limit, boot_clock, wait), wait, clock, window)


def api_permits(
    settings: Settings,
    wait: t.Callable[[float], bool],
    store: LedgerStore | None,
    clock: t.Callable[[], float],
    limit: RateLimit,
) -> Permits:
    """Return the permits of another API's limit; the clock is a wall clock."""
    window = None if store is None else store.shared_window(limit)
    path = _path(settings, None, f"-{limit.name}")
    local = LocalWindow(path, limit, BootClock(clock, _ANY_BOOT), wait)
    return Permits(local, wait, clock, window)
