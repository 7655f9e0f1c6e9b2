"""The errors of the program, grouped by their remedy.

Every message says what failed, where (stream, cohort, setting) and what to do next. No message
contains a credential or a member's identifier. Every error has a stable code for programs: a
message may be reworded, a code never changes its meaning.
"""

from __future__ import annotations

import traceback
import typing as t


class TargetError(Exception):
    """Root of all errors that end a run with a message instead of a traceback.

    Attributes:
        code: Stable name of what went wrong, such as `count_mismatch`.
        exit_code: The exit code of the process.
        faults: One error for each fault; an error of a single fault is its own.
    """

    exit_code: t.ClassVar[int] = 1

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.faults: tuple[TargetError, ...] = (self,)

    @classmethod
    def raise_any(cls, faults: t.Iterable[TargetError]) -> None:
        """Raise one error for all faults, if there are any, with the code of the first one."""
        if faults := tuple(faults):
            error = cls(faults[0].code, "; ".join(map(str, faults)))
            error.faults = faults
            raise error


class SettingsError(TargetError):
    """Fix the settings. Nothing was lost, and a retry without a fix fails again."""


class InputError(TargetError):
    """Fix what the tap sends: a line, a message or a row that cannot be used."""


class CohortError(TargetError):
    """One cohort cannot be populated; the others are. No STATE covers its rows."""


class WithheldError(CohortError):
    """One cohort of many is withheld until someone decides; the others are populated."""

    exit_code = 3


class MismatchError(SettingsError):
    """The mapping and the ledger name another stream, or another name, for a cohort.

    Attributes:
        reason: The mismatch and its repair, as a clause without the setting.
    """

    def __init__(self, code: str, setting: str, reason: str) -> None:
        super().__init__(code, f"{setting}: {reason}")
        self.reason = reason


class TryAgainError(TargetError):
    """MoEngage or the network failed for too long. The next run resumes from STATE."""


class BusyError(TryAgainError):
    """Another run holds the cohort's ledger. Try again when it has ended."""

    exit_code = 4


class LedgerError(TargetError):
    """The ledger cannot be read or written. Fix its directory or disk, then run again.

    The error never proves that something was *not* recorded, so nothing more is sent after it.
    """

    def again(self) -> LedgerError:
        """Return the same error for another raise, with a traceback and a context of its own."""
        return LedgerError(self.code, str(self))


class InternalError(TargetError):
    """A bug in this program. The message says how to report it."""


class RowError(Exception):
    """One row cannot be delivered.

    Attributes:
        code: Stable name of the reason.
        reason: The fault of the row, without any of its values; for logs and the rejects file.
        cohort_id: The cohort that the row belongs to, if known.
    """

    def __init__(self, code: str, reason: str, cohort_id: str | None = None) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason
        self.cohort_id = cohort_id


def anonymous_traceback(error: BaseException) -> str:
    """Return where an error came from, without its text, which may quote an identifier."""
    frames = "".join(traceback.format_tb(error.__traceback__))
    return (
        f"{type(error).__name__}: this is a bug in target-moengage-cohort; please report these "
        f"lines:\n{frames}"
    )


def known_error(error: Exception) -> TargetError:
    """Return an error that may be shown: a bug of ours without what it quotes."""
    if isinstance(error, TargetError):
        return error
    return InternalError("internal_error", anonymous_traceback(error))
