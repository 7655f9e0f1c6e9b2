"""The tables of a stream's members, and the SQL that folds its requests into them."""

from __future__ import annotations

from target_moengage_cohort.core.membership import Action

_ADD, _REMOVE = (f"'{action.value}'" for action in (Action.ADD, Action.REMOVE))

FILE_TABLES = (
    (
        "CREATE TABLE {s}.meta (format INTEGER, store VARCHAR, partner VARCHAR, stream VARCHAR,"
        " is_rewritten BOOLEAN)"
    ),
    "CREATE TABLE {s}.accepted (cohort INTEGER, h UHUGEINT, uid VARCHAR, anonymous_id VARCHAR)",
    (
        "CREATE TABLE {s}.doubts"
        " (cohort INTEGER, h UHUGEINT, uid VARCHAR, anonymous_id VARCHAR, action VARCHAR)"
    ),
    "CREATE TABLE {s}.removed (cohort INTEGER, h UHUGEINT)",
    # The last request folded for each cohort, and the numbers since.
    (
        "CREATE TABLE {s}.marks (cohort INTEGER, mark BIGINT, accepted BIGINT, digest VARCHAR,"
        " in_doubt BIGINT, base BIGINT)"
    ),
    (
        "CREATE TABLE {s}.plan_members (cohort INTEGER, plan_id VARCHAR, action VARCHAR,"
        " uid VARCHAR, anonymous_id VARCHAR)"
    ),
)
"""No indexes: those of DuckDB do not spill. The cohorts are control's numbers of them."""

MEMBER_TABLES = ("accepted", "doubts", "removed")
COHORT_TABLES = (*MEMBER_TABLES, "marks", "plan_members")
"""Every table that has rows of cohorts."""

SUMMARY = (
    # Per member: the last request that was accepted, and the last one after it without an answer.
    "CREATE OR REPLACE TABLE {v}.summary AS SELECT cohort, h, accepted, "
    "CASE WHEN accepted IS NULL OR asked > accepted THEN asked END AS asked FROM ("
    "SELECT cohort, h, max(number) FILTER (state = 'a') AS accepted, "
    "max(number) FILTER (state <> 'a') AS asked FROM {v}.journal GROUP BY cohort, h)"
)
"""Sums up the requests in the table ``{v}.journal``, which has none that were refused."""

_LAST = "FROM {v}.journal AS j JOIN {v}.summary AS v ON v.h = j.h AND v.%s = j.number"
_NEWLY_ACCEPTED = "SELECT j.cohort, j.h, j.uid, j.anonymous_id " + _LAST.replace("%s", "accepted")
_NEWLY_ACCEPTED += f" WHERE j.action = {_ADD}"
_NEWLY_REMOVED = "SELECT j.cohort, j.h " + _LAST.replace("%s", "accepted")
_NEWLY_REMOVED += f" WHERE j.action = {_REMOVE}"
_NEWLY_DOUBTED = "SELECT j.cohort, j.h, j.uid, j.anonymous_id, j.action "
_NEWLY_DOUBTED += _LAST.replace("%s", "asked")

_SETTLED = "v.accepted IS NOT NULL"
FOLDED_AWAY = {"accepted": _SETTLED, "removed": _SETTLED, "doubts": "TRUE"}
"""For each table, the members in the summary whose rows a fold replaces."""

DELETE = (
    "DELETE FROM {s}.%s AS old USING {v}.summary AS v"
    " WHERE v.cohort = old.cohort AND v.h = old.h AND %s"
)
INSERTS = (
    "INSERT INTO {s}.accepted " + _NEWLY_ACCEPTED,
    "INSERT INTO {s}.removed " + _NEWLY_REMOVED,
    "INSERT INTO {s}.doubts " + _NEWLY_DOUBTED,
)

VIEWS = tuple(
    f"CREATE OR REPLACE VIEW {{v}}.{table} AS SELECT * FROM {{s}}.{table} AS old"
    f" ANTI JOIN {{v}}.summary AS v ON v.cohort = old.cohort AND v.h = old.h AND {replaced}"
    f" UNION ALL {new}"
    for (table, replaced), new in zip(
        FOLDED_AWAY.items(), (_NEWLY_ACCEPTED, _NEWLY_REMOVED, _NEWLY_DOUBTED), strict=True
    )
)
"""The tables as they would be after a fold, for stores that must not change anything."""
