"""The tables of a ledger, and the SQL that folds its journal into them."""

from __future__ import annotations

from target_moengage_cohort.core.membership import Action

_ADD, _REMOVE = (f"'{action.value}'" for action in (Action.ADD, Action.REMOVE))

_JOURNAL = (
    "CREATE TABLE {s}.requests (number BIGINT, action VARCHAR, state VARCHAR)",
    "CREATE TABLE {s}.journal (number BIGINT, h UHUGEINT, uid VARCHAR, anonymous_id VARCHAR)",
)

TABLES = (
    (
        "CREATE TABLE {s}.meta (format INTEGER, destination VARCHAR, partner VARCHAR, "
        "cohort_id VARCHAR, name VARCHAR, description VARCHAR, stream VARCHAR, "
        "last_timestamp BIGINT, revision BIGINT, is_sealed BOOLEAN, is_rewritten BOOLEAN)"
    ),
    "CREATE TABLE {s}.accepted (h UHUGEINT, uid VARCHAR, anonymous_id VARCHAR)",
    "CREATE TABLE {s}.doubts (h UHUGEINT, uid VARCHAR, anonymous_id VARCHAR, action VARCHAR)",
    "CREATE TABLE {s}.removed (h UHUGEINT)",
    *_JOURNAL,
    "CREATE TABLE {s}.plans (plan_id VARCHAR, kind VARCHAR, plan VARCHAR)",
    (
        "CREATE TABLE {s}.plan_members "
        "(plan_id VARCHAR, action VARCHAR, uid VARCHAR, anonymous_id VARCHAR)"
    ),
    "CREATE TABLE {s}.runs (position BIGINT, run VARCHAR)",
)
"""No indexes: those of DuckDB do not spill."""

CLEAR_JOURNAL = ("DROP TABLE {s}.journal", "DROP TABLE {s}.requests", *_JOURNAL)
"""Cheaper than deleting rows, whatever their number."""

SUMMARY = (
    # Per member: the last request that was accepted, and the last one after it without an answer.
    "CREATE OR REPLACE TABLE {v}.summary AS SELECT h, accepted, "
    "CASE WHEN accepted IS NULL OR asked > accepted THEN asked END AS asked FROM ("
    "SELECT h, max(number) FILTER (state = 'accepted') AS accepted, "
    "max(number) FILTER (state = 'sent') AS asked "
    "FROM {s}.journal AS j JOIN {s}.requests AS r USING (number) "
    "WHERE state <> 'refused' AND number < ? GROUP BY h)"
)
"""Sums up the journal before a request's number, the parameter, in the schema ``{v}``."""

_LAST = (
    "FROM {s}.journal AS j JOIN {v}.summary AS v ON v.h = j.h AND v.%s = j.number "
    "JOIN {s}.requests AS r ON r.number = j.number"
)
_NEWLY_ACCEPTED = "SELECT j.h, j.uid, j.anonymous_id " + _LAST.replace("%s", "accepted")
_NEWLY_ACCEPTED += f" WHERE r.action = {_ADD}"
_NEWLY_REMOVED = "SELECT j.h " + _LAST.replace("%s", "accepted") + f" WHERE r.action = {_REMOVE}"
_NEWLY_DOUBTED = "SELECT j.h, j.uid, j.anonymous_id, r.action " + _LAST.replace("%s", "asked")
_SETTLED = "(SELECT h FROM {v}.summary WHERE accepted IS NOT NULL)"
_TOUCHED = "(SELECT h FROM {v}.summary WHERE accepted IS NOT NULL OR asked IS NOT NULL)"

FOLDED_AWAY = (
    ("accepted", "h IN " + _SETTLED),
    ("removed", "h IN " + _SETTLED),
    ("doubts", "h IN " + _TOUCHED),
)
"""Each table, and the condition of the rows that a fold replaces."""

FOLD = (
    *(f"DELETE FROM {{s}}.{table} WHERE {rows}" for table, rows in FOLDED_AWAY),
    "INSERT INTO {s}.accepted " + _NEWLY_ACCEPTED,
    "INSERT INTO {s}.removed " + _NEWLY_REMOVED,
    "INSERT INTO {s}.doubts " + _NEWLY_DOUBTED,
)

VIEWS = tuple(
    f"CREATE OR REPLACE VIEW {{v}}.{table} AS "
    f"SELECT * FROM {{s}}.{table} AS old ANTI JOIN {touched} AS v ON v.h = old.h "
    f"UNION ALL {new}"
    for table, touched, new in (
        ("accepted", _SETTLED, _NEWLY_ACCEPTED),
        ("removed", _SETTLED, _NEWLY_REMOVED),
        ("doubts", _TOUCHED, _NEWLY_DOUBTED),
    )
)
"""The tables as they would be after `FOLD`, for stores that must not fold (yet)."""
