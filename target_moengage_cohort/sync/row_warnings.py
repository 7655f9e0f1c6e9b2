"""Valid rows that may not be intended: counted, and warned about once."""

from __future__ import annotations

import logging
import typing as t
from collections import Counter

from target_moengage_cohort.core.deletions import WHOLE_ROWS
from target_moengage_cohort.core.text import format_count

if t.TYPE_CHECKING:
    from collections.abc import Mapping

logger = logging.getLogger(__name__)

_MESSAGES = {
    "padded_identifiers": (
        "stream %r: %s identifiers with leading or trailing white space. They are sent "
        "unchanged, and MoEngage does not match them to identifiers without the white space; "
        "trim the column in the query (PostgreSQL pads char(n))"
    ),
    "also_in_others": (
        "stream %r: %s a member to a cohort although the ledger has that member in another "
        "cohort of the stream, where the member stays. If a member belongs to only one cohort, "
        "set exclusive: true in the stream's mapping; otherwise set it to false"
    ),
    "outvoted": (
        "stream %r: %s a member that a later row puts in another cohort. The last row of a "
        "member counts (exclusive), so the query should return one row per member"
    ),
    "deletion_lost": (
        "stream %r: %s a deletion without an identifier, so the deleted members stay in their "
        f"cohorts. {WHOLE_ROWS}"
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
    "also_in_others": ("adds", "each add"),
    "outvoted": ("names", "each name"),
    "deletion_lost": ("is", "are each"),
}
