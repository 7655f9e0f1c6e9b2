"""What rows have that is not wrong, but may not be meant: counted, and warned about once."""

from __future__ import annotations

import logging
import typing as t
from collections import Counter

from target_moengage_cohort.core.text import format_count

if t.TYPE_CHECKING:
    from collections.abc import Mapping

logger = logging.getLogger(__name__)

_MESSAGES = {
    "padded_identifiers": (
        "stream %r: %s identifiers with white space in front or at the end. They are sent as they "
        "are, and MoEngage finds no user by them if its own have none; trim the column in the "
        "query (PostgreSQL pads char(n))"
    ),
    "deletion_lost": (
        "stream %r: %s a deletion without an identifier, so the members in question stay in their "
        "cohort. Have the log carry whole rows (in PostgreSQL: REPLICA IDENTITY FULL), or make the "
        "stream a mirror"
    ),
}


class RowWarnings:
    """Counts of rows by the code of their warning and by stream."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, str]] = Counter()

    def count(self, code: str, stream: str, rows: int = 1) -> None:
        """Count rows of a stream."""
        if rows:
            self._counts[code, stream] += rows

    def log(self) -> None:
        """Log one warning for each kind and stream."""
        for (code, stream), rows in sorted(self._counts.items()):
            verb = _VERBS[code][rows != 1]
            what = f"{format_count(rows, 'row')} {verb}"
            logger.warning(_MESSAGES[code], stream, what, extra={"code": code, "stream": stream})
        self._counts.clear()


_VERBS: Mapping[str, tuple[str, str]] = {
    "padded_identifiers": ("has", "have"),
    "deletion_lost": ("is", "are each"),
}
