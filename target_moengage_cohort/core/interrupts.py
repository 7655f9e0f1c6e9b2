"""One way to end every wait: for input, for the rate limit, for a retry and for responses."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
import typing as t

if t.TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType


_SAME_REQUEST_SECONDS = 2.0


def end_at_sigint() -> None:
    """Let SIGINT end the process immediately, while no work is under way that could be lost.

    A KeyboardInterrupt would not do: Python drops an exception that is raised in a callback of its
    import system, and the process would continue.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end)


@contextlib.contextmanager
def raising_at_sigint() -> Iterator[None]:
    """Suspend `end_at_sigint`, so that a hidden prompt can switch the terminal's echo on again."""
    if signal.getsignal(signal.SIGINT) is not _end:
        yield
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, _end)


def _end(number: int, _frame: FrameType | None) -> t.NoReturn:
    os._exit(128 + number)


class Patience(t.NamedTuple):
    """The wait for what other processes hold.

    Attributes:
        wait: Waits for some seconds, and returns whether the run is to end instead.
        seconds: The longest wait.
    """

    wait: Callable[[float], bool]
    seconds: float

    def until(
        self, is_done: Callable[[], bool], poll_seconds: float, *, last_seconds: float = 0.0
    ) -> bool:
        """Wait until something is done; return ``False`` if that takes too long.

        A run that is to end waits no longer than `last_seconds` from then on.
        """
        waited = 0.0
        while not is_done():
            if waited >= self.seconds:
                return False
            if self.wait(poll_seconds):
                return Patience(threading.Event().wait, last_seconds).until(is_done, poll_seconds)
            waited += poll_seconds
        return True


class Interrupt(threading.Event):
    """An event that `select` can wait for, too; it is never unset."""

    def __init__(self) -> None:
        super().__init__()
        self.signal: int | None = None  # the signal that has set it, if one has
        self._lock = threading.Lock()
        self._callbacks: list[t.Callable[[], None]] = []
        self._read_fd, self._write_fd = os.pipe()

    def fileno(self) -> int:
        """Return a descriptor that is readable once the interrupt is set."""
        return self._read_fd

    def call_when_set(self, callback: t.Callable[[], None]) -> None:
        """Run a callback, in the thread that sets the interrupt, to end a wait for other things."""
        self._callbacks.append(callback)

    def set(self) -> None:
        """End every wait."""
        with self._lock:  # once waits end, the descriptors may be closed
            if self.is_set():
                return
            super().set()
            os.write(self._write_fd, b"\0")
        for callback in self._callbacks:
            callback()

    def close(self) -> None:
        """Close the descriptors."""
        with self._lock:
            os.close(self._read_fd)
            os.close(self._write_fd)


class TerminationSignals:
    """While active, SIGTERM and SIGINT set an interrupt, and a second one ends the process.

    Python runs a signal's handler in the main thread, perhaps while it holds the very lock that the
    handler needs. So the handler does nothing, and a thread acts on the byte that the interpreter
    writes to the wake-up descriptor. That thread never waits for anything else.

    Ctrl-C at a pipeline's runner sends SIGINT to all of its processes, and the runner may send
    SIGTERM right after it. Together they are one request to stop, not two.
    """

    SIGNALS = (signal.SIGTERM, signal.SIGINT)

    def __init__(self, interrupt: Interrupt) -> None:
        self._interrupt = interrupt
        self.received: int | None = None  # the first signal

    def __enter__(self) -> t.Self:
        self._read_fd, self._write_fd = os.pipe()
        os.set_blocking(self._write_fd, False)
        self._previous_fd = signal.set_wakeup_fd(self._write_fd, warn_on_full_buffer=False)
        self._previous = {each: signal.signal(each, lambda *_: None) for each in self.SIGNALS}
        self._watcher = threading.Thread(target=self._watch, name="signals", daemon=True)
        self._watcher.start()
        return self

    def __exit__(self, *_: object) -> None:
        signal.set_wakeup_fd(self._previous_fd)
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        os.close(self._write_fd)  # ends the watcher
        self._watcher.join()
        os.close(self._read_fd)

    def _watch(self) -> None:
        received_at = 0.0
        while byte := os.read(self._read_fd, 1):
            if byte[0] not in self.SIGNALS:
                continue  # another handler's
            now = time.monotonic()
            if self.received is None:
                self.received, received_at = byte[0], now
                self._interrupt.signal = byte[0]
                threading.Thread(target=self._interrupt.set, daemon=True).start()
            elif byte[0] == self.received or now - received_at > _SAME_REQUEST_SECONDS:
                os._exit(128 + byte[0])
