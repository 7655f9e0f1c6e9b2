"""What can go wrong, grouped by what can be done about it.

Every message says what failed, where (stream, cohort, setting) and what to do. No message
holds a credential or a member's identifier.
"""

from __future__ import annotations

import traceback


class TargetError(Exception):
    """The root of all errors that end a run with a message instead of a traceback.

    Attributes:
        exit_code: What the process ends with.
    """

    exit_code = 1


class SettingsError(TargetError):
    """Fix the settings; nothing was lost, and trying again as it is cannot help.

    Attributes:
        faults: One message for each fault, each naming the setting and the rule.
    """

    def __init__(self, *faults: str) -> None:
        """Take one message for each fault."""
        super().__init__("; ".join(faults))
        self.faults = faults


class InputError(TargetError):
    """Fix what the tap sends: a line, a message or a row that cannot be used."""


class RecordBeforeSchemaError(InputError):
    """A RECORD of a stream that sent no SCHEMA."""


class MissingKeyError(InputError):
    """A RECORD that lacks one of its stream's key properties."""


class TryAgainError(TargetError):
    """MoEngage or the network did not take it in time; the next run goes on from STATE."""


class BusyError(TryAgainError):
    """Another run has the cohort's ledger; try again when it has ended."""

    exit_code = 4


class LedgerError(TargetError):
    """The ledger cannot be read or written; mend its folder or its disk, then run again.

    It never proves that something was *not* recorded, so nothing more is sent after it.
    """


class InternalError(TargetError):
    """A fault of this program; the message says how to report it."""


class RowError(Exception):
    """One row cannot be delivered; ``reason`` is fit for a log and for the rejects file.

    Attributes:
        reason: What is wrong with the row, without any of its values.
        cohort_id: The cohort that the row belongs to, where that is known.
    """

    def __init__(self, reason: str, cohort_id: str | None = None) -> None:
        """Take the reason."""
        super().__init__(reason)
        self.reason = reason
        self.cohort_id = cohort_id


class MissingKeyRowError(RowError):
    """The row lacks one of its stream's key properties, against the Singer specification."""


def anonymous_traceback(error: BaseException) -> str:
    """Where an unforeseen error came from, without its text, which may quote an identifier."""
    frames = "".join(traceback.format_tb(error.__traceback__))
    return f"{type(error).__name__}, a fault of this program; please report these lines:\n{frames}"
