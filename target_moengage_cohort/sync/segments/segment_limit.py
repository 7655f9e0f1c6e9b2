"""The warning that a workspace is about to have more segments than MoEngage accepts."""

from __future__ import annotations

import logging

logger = logging.getLogger(__name__)

MOST_SEGMENTS = 1_000  # of a workspace; MoEngage drops those beyond without an error
WARN_FROM = 900


def warn_of_segments(cohorts: int, listed: int = 0) -> None:
    """Warn if there are so many segments that MoEngage may drop new ones.

    Args:
        cohorts: Those of the store.
        listed: The segments that MoEngage lists, and new cohorts; 0 if it was not asked.
    """
    if max(cohorts, listed) < WARN_FROM:
        return
    count = f"the ledger has {cohorts:,} cohorts"
    if listed > cohorts:
        count = f"MoEngage lists {listed:,} segments, new cohorts included"
    logger.warning(
        "%s, and a workspace can have at most %s segments. MoEngage drops further ones without "
        "an error, and segments of other tools count, too. Archive segments in MoEngage, ask "
        "its support for a higher limit, or lower max_new_cohorts",
        count,
        f"{MOST_SEGMENTS:,}",
        extra={"code": "segment_limit"},
    )
