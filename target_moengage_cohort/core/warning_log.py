"""The warnings that a run or command logs, collected for its report."""

from __future__ import annotations

import logging

import msgspec

from target_moengage_cohort import NAME

_LOGGERS = ("target_moengage_cohort", NAME)
_MOST = 10_000  # so that memory is bounded


class LoggedWarning(msgspec.Struct, frozen=True):
    """A warning with its stable code, and its stream and cohort if it is about one."""

    code: str
    message: str
    stream: str | None = None
    cohort_id: str | None = None


class WarningLog(logging.Handler):
    """Collects the package's warnings from `start` to `stop`; for all threads.

    The level of the log does not matter, unless a logger of the package has one of its own.
    """

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._collected: list[LoggedWarning] = []

    @property
    def collected(self) -> tuple[LoggedWarning, ...]:
        """The warnings so far, in order."""
        return tuple(self._collected)

    def start(self) -> None:
        """Collect warnings from now on."""
        for name in _LOGGERS:
            logging.getLogger(name).addHandler(self)  # once only

    def stop(self) -> None:
        """Collect no more warnings."""
        for name in _LOGGERS:
            logging.getLogger(name).removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Collect a warning; errors are reported otherwise."""
        code = getattr(record, "code", None)
        if record.levelno == logging.WARNING and code and len(self._collected) < _MOST:
            stream, cohort_id = getattr(record, "stream", None), getattr(record, "cohort_id", None)
            self._collected.append(LoggedWarning(code, record.getMessage(), stream, cohort_id))
