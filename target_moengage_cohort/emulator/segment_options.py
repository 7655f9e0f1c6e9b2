"""The options of the Segments and the Analytics API; some are switches for open questions."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass

SIXTY_DAYS = 60 * 86_400.0


@dataclass(frozen=True)
class SegmentOptions:
    """The options of the Segments and the Analytics API.

    Attributes:
        segments_api_key: The key of the Segments API, if it is not the Data API key. The API
            answers every other key of the workspace with 403.
        analytics_api_key: The same for the Analytics API.
        db_name: The name of the database. Another one in `MOE-DBNAME` is answered with 400.
        archive_seconds: Seconds from a segment's last run, or creation, until it is archived.
        processing_seconds: Seconds until a cohort's change is counted, or a file is processed.
        query_seconds: Seconds until a query has results.
        monthly_queries: The quota of queries per calendar month (428 beyond); None for no quota.
        id_attribute: The internal name of the attribute that holds a user's uid.
        requires_db_name: (open) Whether the Segments API requires `MOE-DBNAME`.
        list_shows: (open) Whether v3 knows segments of all kinds, or filter segments only.
        details_in_list: (open) Whether v3 answers with one segment as a list of one.
        archives_cohorts: (open) Whether a cohort can be archived over the API.
        applies_to_archived: (open) Whether changes of an archived cohort are applied, or lost.
        counts_as_run: (open) Whether a query counts as a run of the segments in its filters.
        most_filter_values: (open) The maximum number of values in a filter; None for no limit.
    """

    segments_api_key: str | None = None
    analytics_api_key: str | None = None
    db_name: str = "demo-db"
    archive_seconds: float = SIXTY_DAYS
    processing_seconds: float = 0.0
    query_seconds: float = 0.0
    monthly_queries: int | None = None
    id_attribute: str = "uid"
    requires_db_name: bool = False
    list_shows: t.Literal["all", "filter"] = "all"
    details_in_list: bool = False
    archives_cohorts: bool = True
    applies_to_archived: bool = True
    counts_as_run: bool = False
    most_filter_values: int | None = None
