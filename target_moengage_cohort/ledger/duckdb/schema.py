"""The tables of a stream's members, and the SQL that folds its requests into them."""

from __future__ import annotations

from target_moengage_cohort.core.membership import Action

_ADD, _REMOVE = (f"'{action.value}'" for action in (Action.ADD, Action.REMOVE))

MOST_KEPT = 3_000
"""The removals to keep for each cohort: about as many UUIDs as the largest request has."""

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
    # Anonymous ids that came with a uid, and may be in the cohort as members of their own; `h`
    # is the hash of such a member. One that is accepted, too, was added on its own before.
    "CREATE TABLE {s}.aliases (cohort INTEGER, h UHUGEINT, uid VARCHAR, anonymous_id VARCHAR)",
    # The last request folded for each cohort, and the numbers since.
    (
        "CREATE TABLE {s}.marks (cohort INTEGER, mark BIGINT, accepted BIGINT, digest VARCHAR,"
        " in_doubt BIGINT, base BIGINT)"
    ),
    (
        "CREATE TABLE {s}.plan_members (cohort INTEGER, plan_id VARCHAR, action VARCHAR,"
        " uid VARCHAR, anonymous_id VARCHAR)"
    ),
    # Members that left last, for `verify` and `resync --removals`, with the request of each.
    (
        "CREATE TABLE {s}.kept_removals"
        " (cohort INTEGER, h UHUGEINT, uid VARCHAR, anonymous_id VARCHAR, number BIGINT)"
    ),
    # How many removals of a cohort are no longer kept, or never were.
    "CREATE TABLE {s}.dropped_removals (cohort INTEGER, number BIGINT)",
)
"""No indexes: those of DuckDB do not spill. The cohorts are control's numbers of them."""

GIVEN_PLANS = "SELECT unnest(?::INTEGER[]) AS cohort, unnest(?::VARCHAR[]) AS plan_id"
MEMBER_TABLES = ("accepted", "doubts", "removed", "aliases")
COHORT_TABLES = (*MEMBER_TABLES, "marks", "plan_members", "kept_removals", "dropped_removals")
"""Every table that has rows of cohorts."""

_LINK = "'link'"  # the action of rows of the journal by which a member becomes an alias
_HAS_BOTH = "uid IS NOT NULL AND anonymous_id IS NOT NULL"

CONCERNED = (
    "SELECT h FROM {v}.journal",
    f"SELECT {{former}} AS h FROM {{v}}.journal WHERE {_HAS_BOTH}",
    # The rows that the first one has fetched.
    "SELECT {former} AS h FROM {s}.accepted SEMI JOIN {v}.journal USING (h) WHERE " + _HAS_BOTH,
)
"""The hashes of the members that a fold may change, or must know."""

SUMMARY = (
    # Per member: the last request that was accepted, and the last one after it without an answer.
    "CREATE OR REPLACE TABLE {v}.summary AS SELECT cohort, h, accepted, is_repeated, "
    "CASE WHEN settled IS NULL OR asked > settled THEN asked END AS asked FROM ("
    "SELECT cohort, h, max(number) FILTER (state = 'a') AS settled, "
    f"max(number) FILTER (state = 'a' AND action <> {_LINK}) AS accepted, "
    "count(*) FILTER (state = 'a') > 1 AS is_repeated, "
    "max(number) FILTER (state <> 'a') AS asked FROM {v}.journal GROUP BY cohort, h)"
)
"""Sums up the requests in the table ``{v}.journal``, which has none that were refused."""

NO_LINKS = (
    "CREATE OR REPLACE TABLE {v}.links (number BIGINT, cohort INTEGER, h UHUGEINT, uid VARCHAR,"
    " anonymous_id VARCHAR, is_former BOOLEAN)"
)
HAS_PAIRS = (
    f"SELECT EXISTS (FROM {{v}}.journal WHERE {_HAS_BOTH})"
    f" OR EXISTS (FROM {{s}}.accepted WHERE {_HAS_BOTH})"
)
LINKS = (
    # An anonymous id becomes an alias when its uid is accepted with another one, or none; unless
    # it was added, or removed, as a member of its own.
    (
        "CREATE OR REPLACE TABLE {v}.changed AS SELECT cohort, h FROM {v}.journal AS j"
        " JOIN {s}.accepted AS a USING (cohort, h) WHERE a.uid IS NOT NULL"
        " AND a.anonymous_id IS NOT NULL AND a.anonymous_id IS DISTINCT FROM j.anonymous_id"
        " UNION ALL SELECT cohort, h FROM {v}.summary WHERE is_repeated"
    ),
    (
        "CREATE OR REPLACE TABLE {v}.turns AS SELECT * FROM (SELECT number, cohort, h, uid,"
        " anonymous_id, action FROM {v}.journal WHERE state = 'a'"
        f" UNION ALL SELECT 0, cohort, h, uid, anonymous_id, {_ADD} FROM {{s}}.accepted"
        ") SEMI JOIN {v}.changed USING (cohort, h) WHERE uid IS NOT NULL"
    ),
    (
        "INSERT INTO {v}.links SELECT number, cohort, {former}, uid, anonymous_id, TRUE FROM"
        " (SELECT lead(number) OVER turn AS number, cohort, uid, anonymous_id, action,"
        " lead(anonymous_id) OVER turn AS later, lead(action) OVER turn AS next FROM {v}.turns"
        " WINDOW turn AS (PARTITION BY cohort, h ORDER BY number))"
        f" WHERE anonymous_id IS NOT NULL AND action = {_ADD} AND next = {_ADD}"
        " AND later IS DISTINCT FROM anonymous_id"
    ),
    # So does an anonymous member when a uid is accepted with its id, unless it was removed before.
    (
        "CREATE OR REPLACE TABLE {v}.pairs AS SELECT number, cohort, {former} AS h, uid,"
        f" anonymous_id FROM {{v}}.journal WHERE state = 'a' AND action = {_ADD} AND {_HAS_BOTH}"
    ),
    (
        "CREATE OR REPLACE TABLE {v}.there AS SELECT * FROM (SELECT number, cohort, h"
        f" FROM {{v}}.journal WHERE uid IS NULL AND (state <> 'a' OR action = {_ADD})"
        " UNION ALL SELECT number, cohort, h FROM {v}.links"
        " UNION ALL SELECT 0, cohort, h FROM {s}.aliases"
        " UNION ALL SELECT 0, cohort, h FROM {s}.accepted WHERE uid IS NULL"
        " UNION ALL SELECT 0, cohort, h FROM {s}.doubts WHERE uid IS NULL"
        ") SEMI JOIN {v}.pairs USING (cohort, h)"
    ),
    (
        "INSERT INTO {v}.links SELECT DISTINCT p.*, FALSE FROM {v}.there AS t JOIN {v}.pairs AS p"
        " ON p.cohort = t.cohort AND p.h = t.h AND p.number > t.number"
        " LEFT JOIN {v}.summary AS v ON v.cohort = t.cohort AND v.h = t.h"
        " WHERE t.number >= coalesce(v.accepted, 0)"
    ),
    # Such a member is no longer in doubt.
    (
        "INSERT INTO {v}.journal SELECT number, cohort, 'a',"
        f" {_LINK}, h, uid, anonymous_id FROM {{v}}.links WHERE NOT is_former"
    ),
    SUMMARY,
)
"""Fills the table ``{v}.links`` if any member has both identifiers."""

_LAST = "FROM {v}.journal AS j JOIN {v}.summary AS v ON v.h = j.h AND v.%s = j.number"
_NEWLY_ACCEPTED = "SELECT j.cohort, j.h, j.uid, j.anonymous_id " + _LAST.replace("%s", "accepted")
_NEWLY_ACCEPTED += f" WHERE j.action = {_ADD}"
_NEWLY_REMOVED = "SELECT j.cohort, j.h " + _LAST.replace("%s", "accepted")
_NEWLY_REMOVED += f" WHERE j.action = {_REMOVE}"
_NEWLY_DOUBTED = "SELECT j.cohort, j.h, j.uid, j.anonymous_id, j.action "
_NEWLY_DOUBTED += _LAST.replace("%s", "asked")
_NEWLY_ALIASED = (
    "SELECT DISTINCT l.cohort, l.h, l.uid, l.anonymous_id FROM {v}.links AS l"
    " LEFT JOIN {v}.summary AS v ON v.cohort = l.cohort AND v.h = l.h"
    " LEFT JOIN (SELECT cohort, h FROM %s.accepted UNION ALL SELECT cohort, h FROM %s.removed) AS o"
    " ON o.cohort = l.cohort AND o.h = l.h"
    " WHERE l.number > coalesce(v.accepted, 0) AND (o.h IS NULL OR NOT l.is_former)"
)

_SETTLED = "v.accepted IS NOT NULL"
FOLDED_AWAY = {"accepted": _SETTLED, "removed": _SETTLED, "doubts": "TRUE", "aliases": _SETTLED}
"""For each table, the members in the summary whose rows a fold replaces."""
REPLACED = FOLDED_AWAY | {"kept_removals": _SETTLED}
"""Likewise, of all tables; no view shows kept removals."""

DELETE = (
    "DELETE FROM {s}.%s AS old USING {v}.summary AS v"
    " WHERE v.cohort = old.cohort AND v.h = old.h AND %s"
)
INSERTS = (
    "INSERT INTO {s}.accepted " + _NEWLY_ACCEPTED,
    "INSERT INTO {s}.removed " + _NEWLY_REMOVED,
    "INSERT INTO {s}.doubts " + _NEWLY_DOUBTED,
    (
        f"INSERT INTO {{s}}.aliases FROM ({_NEWLY_ALIASED.replace('%s', '{s}')})"
        " ANTI JOIN {s}.aliases USING (cohort, h, uid)"
    ),
)
NEWLY_DROPPED = (
    f"SELECT cohort, count(*) - {MOST_KEPT} AS number FROM (SELECT cohort FROM {{s}}.kept_removals"
    f" UNION ALL SELECT cohort FROM ({_NEWLY_REMOVED})) GROUP BY cohort"
    f" HAVING count(*) > {MOST_KEPT}"
)
"""Counts the removals that are not kept once the new ones are, before that."""
KEEP_REMOVALS = (
    "INSERT INTO {s}.kept_removals SELECT j.cohort, j.h, j.uid, j.anonymous_id, j.number "
    + _LAST.replace("%s", "accepted")
    + f" WHERE j.action = {_REMOVE} QUALIFY row_number()"
    + f" OVER (PARTITION BY j.cohort ORDER BY j.number DESC, j.h) <= {MOST_KEPT}"
)
"""Keeps the latest removals; of one request those whose hashes, which are random, are lowest."""
TRIM_REMOVALS = (
    "DELETE FROM {s}.kept_removals AS old USING (SELECT cohort AS c, h AS k FROM {s}.kept_removals"
    " QUALIFY row_number() OVER (PARTITION BY cohort ORDER BY number DESC, h)"
    f" > {MOST_KEPT}) AS o WHERE o.c = old.cohort AND o.k = old.h"
)
DROP_REMOVALS = (
    (
        "CREATE OR REPLACE TEMP TABLE dropped AS SELECT cohort,"
        " new.number + coalesce(old.number, 0) AS number"
        " FROM (%s) AS new LEFT JOIN {s}.dropped_removals AS old USING (cohort)"
    ),
    "DELETE FROM {s}.dropped_removals AS old USING dropped AS d WHERE d.cohort = old.cohort",
    "INSERT INTO {s}.dropped_removals SELECT cohort, number FROM dropped",
)
"""Adds to the number of removals that are no longer kept."""

VIEWS = tuple(
    f"CREATE OR REPLACE VIEW {{v}}.{table} AS SELECT * FROM {{s}}.{table} AS old"
    f" ANTI JOIN {{v}}.summary AS v ON v.cohort = old.cohort AND v.h = old.h AND {replaced}"
    f" UNION {'' if table == 'aliases' else 'ALL '}{new}"
    for (table, replaced), new in zip(
        FOLDED_AWAY.items(),
        (_NEWLY_ACCEPTED, _NEWLY_REMOVED, _NEWLY_DOUBTED, _NEWLY_ALIASED.replace("%s", "{v}")),
        strict=True,
    )
)
"""The tables as they would be after a fold, for stores that must not change anything."""
