"""The warning that a workspace is about to have more segments than MoEngage takes."""

from __future__ import annotations

import logging

logger = logging.getLogger(__name__)

MOST_SEGMENTS = 1_000  # of a workspace; MoEngage drops those beyond without an error
WARN_FROM = 900


def warn_of_segments(cohorts: int) -> None:
    """Warn if the store has so many cohorts that MoEngage may drop new ones."""
    if cohorts >= WARN_FROM:
        logger.warning(
            "the ledger has %s cohorts, and MoEngage takes at most %s segments for a workspace: it "
            "drops those beyond without an error, and other tools' segments count, too. Archive "
            "segments in MoEngage, ask its support for more, or lower max_new_cohorts",
            f"{cohorts:,}",
            f"{MOST_SEGMENTS:,}",
            extra={"code": "segment_limit"},
        )
