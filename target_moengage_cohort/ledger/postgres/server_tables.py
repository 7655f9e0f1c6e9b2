"""The tables of a store on a server, in addition to those of control."""

from __future__ import annotations

import hashlib

from target_moengage_cohort.ledger.control.tables import TABLES as CONTROL

MEMBERS = {
    "accepted": "cohort INTEGER NOT NULL, h UUID NOT NULL, uid TEXT, anonymous_id TEXT",
    "doubts": "cohort INTEGER NOT NULL, h UUID NOT NULL, uid TEXT, anonymous_id TEXT, action TEXT",
    "removed": "cohort INTEGER NOT NULL, h UUID NOT NULL",
    "aliases": "cohort INTEGER NOT NULL, h UUID NOT NULL, uid TEXT, anonymous_id TEXT",
    "marks": (
        "cohort INTEGER NOT NULL, mark BIGINT, accepted BIGINT, digest TEXT, in_doubt BIGINT,"
        " base BIGINT"
    ),
    "plan_members": (
        "cohort INTEGER NOT NULL, plan_id TEXT NOT NULL, action TEXT, uid TEXT, anonymous_id TEXT"
    ),
    "kept_removals": (
        "cohort INTEGER NOT NULL, h UUID NOT NULL, uid TEXT, anonymous_id TEXT, number BIGINT"
    ),
    "dropped_removals": "cohort INTEGER NOT NULL, number BIGINT",
}
"""The columns of the tables that DuckDB has, too, in the same order; `h` as sixteen bytes."""

_KEYS = {
    "accepted": ("cohort", "h"),
    "doubts": ("cohort", "h"),
    "removed": ("cohort", "h"),
    "aliases": ("cohort", "h", "uid"),
    "marks": ("cohort",),
    "plan_members": ("cohort", "plan_id", "action", "uid", "anonymous_id"),
    "kept_removals": ("cohort", "h"),
    "dropped_removals": ("cohort",),
}
# By default cohort and hash.
_INDEXED = {
    "plan_members": "cohort, plan_id",
    "marks": "cohort",
    "dropped_removals": "cohort",
}

LEASES = (
    # `fence` rises with each holder, `counter` with each change that it makes, and each renewal. A
    # free lease has no `holder`. `seconds` is how long it lasts; `renewed_at`, by the server's
    # clock, is for display only.
    "CREATE TABLE leases (partner TEXT NOT NULL, stream TEXT NOT NULL, holder TEXT NOT NULL,"
    " fence BIGINT NOT NULL, counter BIGINT NOT NULL, seconds DOUBLE PRECISION NOT NULL,"
    " renewed_at DOUBLE PRECISION NOT NULL, run_id TEXT NOT NULL, pid BIGINT NOT NULL,"
    " host TEXT NOT NULL, since TEXT NOT NULL, PRIMARY KEY (partner, stream))"
)

PACE = (
    # A start or a hold counts `until` a time of the server's clock, in seconds since 1970; a row of
    # the future, as from before the clock was set back, for its `seconds` from now on.
    """CREATE TABLE pace (
        kind TEXT NOT NULL, seconds DOUBLE PRECISION NOT NULL, until DOUBLE PRECISION NOT NULL)""",
    "CREATE INDEX pace_by_time ON pace (kind, until)",
)

TABLES = (
    LEASES,
    *PACE,
    *(f"CREATE TABLE {name} ({columns})" for name, columns in MEMBERS.items()),
    *(
        f"CREATE INDEX {name}_by_cohort ON {name} ({_INDEXED.get(name, 'cohort, h')})"
        for name in MEMBERS
    ),
)
"""The tables of a new store, in addition to those of control."""

NAMES = tuple(
    statement.split()[2]
    for statement in (*CONTROL, *TABLES)
    if statement.startswith("CREATE TABLE")
)
"""The tables that every store has."""

FACTS = (
    "SELECT current_setting('server_encoding'),"
    " pg_is_in_recovery() OR current_setting('default_transaction_read_only')::BOOLEAN"
)
"""The encoding, and whether the server takes no changes."""

# Not `to_regclass`, which does not see what others have made since the transaction began.
STORES = (
    "SELECT 1 FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
    " WHERE n.nspname = ? AND c.relname = 'store'"
)

GONE = (
    "CREATE TEMP TABLE IF NOT EXISTS gone (cohort INTEGER, h UUID, plan_id TEXT, action TEXT,"
    " uid TEXT, anonymous_id TEXT) ON COMMIT DROP; TRUNCATE gone"
)
"""The keys of rows that a statement deletes."""


def keys(table: str) -> tuple[str, ...]:
    """Return the columns that identify the rows of a table."""
    return _KEYS[table]


def delete_gone(table: str) -> str:
    """Return the statement that deletes the rows whose keys are in `gone`, and counts them."""
    same = " AND ".join(
        f"coalesce(t.{key}, '') = coalesce(g.{key}, '')"
        if key in {"uid", "anonymous_id", "action"}  # equality of nulls cannot be hashed
        else f"t.{key} = g.{key}"
        for key in keys(table)
    )
    delete = f"DELETE FROM {table} AS t USING gone AS g WHERE {same} RETURNING 1"
    return f"WITH deleted AS ({delete}) SELECT count(*) FROM deleted"


def lock_number(schema: str) -> int:
    """Return the number of the advisory lock under which a schema is created."""
    digest = hashlib.sha256(schema.encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)


# It fails while the holder is within a change, so that a waiting run keeps watching.
LOCK_LEASE = "SELECT 1 FROM leases WHERE partner = ? AND stream = ? FOR UPDATE NOWAIT"
TAKE_LEASE = (
    "INSERT INTO leases AS l (partner, stream, holder, seconds, run_id, pid, host, since, fence,"
    " counter, renewed_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, 1, 0, extract(epoch FROM"
    " clock_timestamp())) ON CONFLICT (partner, stream) DO UPDATE SET holder = excluded.holder,"
    " seconds = excluded.seconds, run_id = excluded.run_id, pid = excluded.pid,"
    " host = excluded.host, since = excluded.since, fence = l.fence + 1, counter = l.counter + 1,"
    " renewed_at = excluded.renewed_at"
    " WHERE l.holder IN ('', excluded.holder) OR (l.holder = ? AND l.fence = ? AND l.counter = ?)"
    " RETURNING fence, counter"
)
LEASES_OF_OTHERS = (
    "SELECT stream, holder, fence, counter, seconds, run_id, pid, host, since FROM leases"
    " WHERE partner = ? AND holder NOT IN ('', ?)"
)
LEASES_OF = (
    "SELECT stream, holder, fence, counter, run_id, pid, host, since FROM leases WHERE partner = ?"
)
COUNT_CHANGE = (
    "UPDATE leases AS l SET counter = l.counter + 1,"
    " renewed_at = extract(epoch FROM clock_timestamp())"
    # In one order, so that two threads of a process cannot wait for each other.
    " FROM (SELECT partner, stream FROM leases WHERE partner = {partner} AND holder = {holder}"
    " ORDER BY stream FOR NO KEY UPDATE) AS own"
    " WHERE l.partner = own.partner AND l.stream = own.stream"
    " RETURNING l.stream, l.fence, l.counter"
)
LOCK_OWN_LEASES = (
    "SELECT stream, fence, counter + 1 FROM leases WHERE partner = {partner} AND holder = {holder}"
    " FOR KEY SHARE"
)
FREE_LEASE = (
    "UPDATE leases SET holder = '', counter = counter + 1 WHERE partner = ? AND stream = ?"
    " AND holder = ?"
)
HELD = (
    "SELECT run_id FROM leases WHERE holder <> ''"
    " AND renewed_at + seconds > extract(epoch FROM clock_timestamp())"
)
