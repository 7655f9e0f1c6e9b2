"""Checks whether a mirror's input is complete; pure.

When a tap crashes, standard input ends just as it does when an audience has shrunk. So removals
need an input without any fault, and without proof that it is complete they stay within the guard
(promise 4 of the design).
"""

from __future__ import annotations

import enum
import typing as t
from decimal import Decimal

from msgspec import UNSET

from target_moengage_cohort.core.errors import InputError

MOST_VERSIONS = 100  # more of them in one run prove nothing anyway
_MOST_DIGITS = 18  # of a row count


class Proof(enum.StrEnum):
    """The proof that an input was complete; the values are those of the report."""

    COUNT = "count"
    ACTIVATE_VERSION = "activate_version"
    TAP_EXIT = "tap_exit"
    END_OF_INPUT = "end_of_input"
    NO = "no"

    @property
    def is_proof(self) -> bool:
        """Whether it is more than an input that ended like any other."""
        return self not in {Proof.END_OF_INPUT, Proof.NO}


class Completeness:
    """The evidence in a stream's messages that all of it has arrived.

    Args:
        stream: The stream's name.
        count_column: The column with the number of rows that the warehouse counted, if any.

    Attributes:
        records: Records read.
        rejected: Records among them that cannot be used, so that a member may be missing.
    """

    def __init__(self, stream: str, count_column: str | None) -> None:
        self._stream = stream
        self._count_column = count_column
        self._raw_count: object = UNSET  # as the rows have it
        self._expected: int | None = None
        self._versions: set[int | None] = set()
        self._latest_version: t.Any = UNSET
        self._activated: t.Any = None
        self.records = 0
        self.rejected = 0

    @property
    def version(self) -> int | None:
        """The table version of all records, if they have one and the same."""
        if len(self._versions) != 1:
            return None
        (version,) = self._versions
        return version

    def count(self, version: t.Any, rows: int) -> None:
        """Note records of one version."""
        if not rows:
            return
        self.records += rows
        self._activated = None
        if version == self._latest_version and type(version) is type(self._latest_version):
            return
        self._latest_version = version
        if len(self._versions) < MOST_VERSIONS:
            self._versions.add(version if type(version) is int else None)

    def activate(self, version: t.Any) -> None:
        """Note an ACTIVATE_VERSION; one that comes before the records proves nothing."""
        self._activated = version if type(version) is int else None

    def expect(self, value: object) -> None:
        """Note the row count that a row contains.

        Raises:
            InputError: It has no row count, or another one than the rows before it.
        """
        is_same = value == self._raw_count and type(value) is type(self._raw_count)
        if is_same and self._expected is not None:
            return
        expected = whole_number(value)
        where = f"expected_count_column {self._count_column!r} of the stream {self._stream!r}"
        if expected is None:
            msg = f"{where}: a row contains no row count; select count(*) over () as that column"
            raise InputError("no_row_count", msg)
        if self._expected not in {None, expected}:
            msg = (
                f"{where}: rows contain both {self._expected} and {expected}, so the tap did not "
                "read a single snapshot. No members are removed. Make the tap read the stream "
                "with one statement"
            )
            raise InputError("count_mismatch", msg)
        self._raw_count, self._expected = value, expected

    def expect_nothing(self) -> None:
        """Note a row which states that there are none; it was counted, but is not one itself.

        Raises:
            InputError: Other rows have another row count.
        """
        self.expect(0)
        self.records -= 1

    def check(self) -> None:
        """Compare the row count in the rows with the number of rows read.

        Raises:
            InputError: Rows are missing, or there are too many.
        """
        if self._expected is not None and self._expected != self.records:
            msg = (
                f"expected_count_column {self._count_column!r}: the stream {self._stream!r} "
                f"should have {self._expected} rows, but {self.records} were read, so its input "
                "is not complete. No members are removed. Find out what stopped the tap, then "
                "run again"
            )
            raise InputError("count_mismatch", msg)

    def proof(self, *, tap_succeeded: bool, version_is_fresh: bool) -> Proof:
        """Return what proves that an input is complete which has ended without a fault.

        Args:
            tap_succeeded: Whether we started the tap ourselves, and it exited with 0.
            version_is_fresh: Whether no earlier run has seen the `version`: a tap that resumes
                where it stopped gives the same version to the rest of the rows.
        """
        if self.rejected:
            return Proof.NO
        if self._expected is not None:
            return Proof.COUNT
        if self.version is not None and self._activated == self.version and version_is_fresh:
            return Proof.ACTIVATE_VERSION
        return Proof.TAP_EXIT if tap_succeeded else Proof.END_OF_INPUT


def check_tap_exit(code: int) -> None:
    """Check the exit code of a tap that we started ourselves.

    Args:
        code: Its exit code; negative after a signal.

    Raises:
        InputError: The tap has failed.
    """
    if code:
        how = f"with exit code {code}" if code > 0 else f"by signal {-code}"
        msg = f"the tap ended {how}, so no members are removed. Check the tap's log, then run again"
        raise InputError("tap_failed", msg)


def whole_number(value: object) -> int | None:
    """Return a row count as a tap may write it, a number or its digits; else ``None``."""
    if isinstance(value, Decimal) and value.is_finite() and value.adjusted() < _MOST_DIGITS:
        value = int(value) if value == value.to_integral_value() else None
    elif isinstance(value, str):
        is_number = value.isascii() and value.isdigit() and len(value) <= _MOST_DIGITS
        value = int(value) if is_number else None
    return value if type(value) is int and abs(value) < 10**_MOST_DIGITS else None
