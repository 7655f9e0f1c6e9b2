"""A line at the bottom of a terminal, with the log above it."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import typing as t

if t.TYPE_CHECKING:
    from collections.abc import Iterator

_MOST_COLUMNS = 80
_ERASE = "\r\x1b[2K"


class StatusLine:
    """The one writer of a terminal: it draws a line, and takes the log's text above that.

    Handlers of the log use it as their stream. Without it, their lines would start where the line
    ends, and the next drawing would cut through them.
    """

    def __init__(self, stream: t.TextIO) -> None:
        self._stream = stream
        self._lock = threading.Lock()
        self._line = ""  # none if it is empty
        self._is_at_start = True  # whether the text above the line ended its own

    def show(self, line: str) -> None:
        """Draw a line in place of the previous one, as much of it as fits into one row."""
        with self._lock:
            self._line = line[: self._columns() - 1]  # a full row would wrap on some terminals
            if self._is_at_start:
                self._put(_ERASE + self._line)

    def clear(self) -> None:
        """Remove the line."""
        with self._lock:
            if self._line and self._is_at_start:
                self._put(_ERASE)
            self._line = ""

    def write(self, text: str) -> int:
        """Write text above the line, which is drawn again once the text has ended its own."""
        with self._lock:
            before = _ERASE if self._line and self._is_at_start else ""
            self._is_at_start = text.endswith("\n") if text else self._is_at_start
            self._put(before + text + (self._line if self._is_at_start else ""))
        return len(text)

    def flush(self) -> None:
        """Do nothing: every text is flushed when it is written."""

    def _put(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()

    def _columns(self) -> int:
        if (given := os.environ.get("COLUMNS", "")).isdecimal() and int(given) > 1:
            return min(int(given), _MOST_COLUMNS)
        try:
            columns = os.get_terminal_size(self._stream.fileno()).columns
        except (OSError, ValueError):
            columns = 0
        return min(columns, _MOST_COLUMNS) if columns > 1 else _MOST_COLUMNS


def can_show_on(stream: t.TextIO | None) -> bool:
    """Return whether a stream is a terminal on which a line can be erased."""
    return stream is not None and stream.isatty() and os.environ.get("TERM") != "dumb"


@contextlib.contextmanager
def status_line(stream: t.TextIO) -> Iterator[StatusLine]:
    """Own a terminal inside the block: the log's handlers write through the line."""
    line = StatusLine(stream)
    handlers = [each for each in _handlers() if each.stream is stream]
    for handler in handlers:
        handler.setStream(line)
    try:
        yield line
    finally:
        line.clear()
        for handler in handlers:
            handler.setStream(stream)


def _handlers() -> list[logging.StreamHandler[t.Any]]:
    """Return the handlers of all loggers that write to a stream."""
    named = logging.root.manager.loggerDict.values()
    loggers = [logging.root, *(each for each in list(named) if isinstance(each, logging.Logger))]
    handlers = {handler: None for each in loggers for handler in each.handlers}
    return [each for each in handlers if isinstance(each, logging.StreamHandler)]
