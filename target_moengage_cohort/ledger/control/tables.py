"""The tables of control, in SQL that SQLite and PostgreSQL both take.

Later versions only add tables and columns. Booleans are numbers, because SQLite has no others.
"""

from __future__ import annotations

TABLES = (
    # One row: whose store this is. `is_open` is set before the first change of a process, and
    # cleared after the last one has moved the log into the file; see `SQLiteDatabase`. `last_run`
    # rises with every process that changes anything, and with every run. `host` is
    # where the processes are that have it open, if it is on a network file system.
    """CREATE TABLE store (
        format BIGINT NOT NULL, store_id TEXT NOT NULL, base_url TEXT NOT NULL,
        workspace_id TEXT NOT NULL, hash_key TEXT NOT NULL, is_open BIGINT NOT NULL,
        last_request BIGINT NOT NULL, last_cohort BIGINT NOT NULL, last_run BIGINT NOT NULL,
        moved_to TEXT, host TEXT)""",
    # `is_whole` is whether the latest STATE had a whole entry for the stream; `alert_state` is what
    # the latest alert reported; no request without a row in `requests` is later than
    # `last_timestamp`.
    """CREATE TABLE streams (
        partner TEXT NOT NULL, stream TEXT NOT NULL, latest_run TEXT, has_members BIGINT NOT NULL,
        is_whole BIGINT, alert_state TEXT, last_timestamp BIGINT,
        PRIMARY KEY (partner, stream))""",
    # The streams of each run that is the `latest_run` of any.
    """CREATE TABLE run_streams (
        run_id TEXT NOT NULL, partner TEXT NOT NULL, stream TEXT NOT NULL,
        PRIMARY KEY (run_id, partner, stream))""",
    # `mark` is the last request that was folded into the members; the numbers are as of then.
    # `is_partial` is whether the cohort began in a stream whose members were not kept; `synced_at`
    # is when it was last synced successfully.
    """CREATE TABLE cohorts (
        number BIGINT PRIMARY KEY, partner TEXT NOT NULL, cohort_id TEXT NOT NULL,
        name TEXT NOT NULL, description TEXT, stream TEXT NOT NULL, created_at DOUBLE PRECISION,
        last_timestamp BIGINT NOT NULL, revision BIGINT NOT NULL, mark BIGINT NOT NULL,
        accepted BIGINT NOT NULL, digest TEXT NOT NULL, in_doubt BIGINT NOT NULL,
        base BIGINT NOT NULL, is_sealed BIGINT NOT NULL, is_retired BIGINT NOT NULL,
        is_partial BIGINT NOT NULL, last_run TEXT, synced_at DOUBLE PRECISION,
        UNIQUE (partner, cohort_id))""",
    "CREATE INDEX cohorts_of_stream ON cohorts (partner, stream)",
    # Every name that was ever sent, of all partners: MoEngage never frees one.
    """CREATE TABLE names (
        name TEXT PRIMARY KEY, partner TEXT NOT NULL, cohort_id TEXT NOT NULL)""",
    # `state` has one letter, so that an answer does not move the row.
    """CREATE TABLE requests (
        number BIGINT PRIMARY KEY, cohort BIGINT NOT NULL, state TEXT NOT NULL,
        action TEXT NOT NULL, count BIGINT NOT NULL, members TEXT NOT NULL)""",
    "CREATE INDEX requests_of_cohort ON requests (cohort, number)",
    # The members of each request that was accepted, by JSON as in `requests`, for as long as
    # `keep_changes_days` says; null is a member that was erased.
    """CREATE TABLE changes (
        number BIGINT PRIMARY KEY, cohort BIGINT NOT NULL, run_id TEXT NOT NULL,
        action TEXT NOT NULL, accepted_at DOUBLE PRECISION NOT NULL, members TEXT NOT NULL)""",
    """CREATE TABLE plans (
        cohort BIGINT NOT NULL, plan_id TEXT NOT NULL, kind TEXT NOT NULL, content TEXT NOT NULL,
        PRIMARY KEY (cohort, plan_id))""",
    # An approval: a plan's removals may pass the guard until `expires_at`.
    """CREATE TABLE approvals (
        cohort BIGINT NOT NULL, plan_id TEXT NOT NULL, approved_by TEXT NOT NULL,
        expires_at DOUBLE PRECISION NOT NULL, PRIMARY KEY (cohort, plan_id))""",
    # `run_id` is the first run that has seen the version, the only one in which it proves anything.
    """CREATE TABLE versions (
        partner TEXT NOT NULL, stream TEXT NOT NULL, version TEXT NOT NULL, run_id TEXT NOT NULL,
        PRIMARY KEY (partner, stream, version))""",
    # `progress` and `entry` are JSON: how far a run is, and a `HistoryEntry` once it has ended. The
    # `number` is the order in which runs began.
    """CREATE TABLE runs (
        number BIGINT PRIMARY KEY, run_id TEXT NOT NULL UNIQUE, partner TEXT NOT NULL,
        started_at TEXT NOT NULL, started_by TEXT NOT NULL, host TEXT NOT NULL, finished_at TEXT,
        progress TEXT, entry TEXT)""",
    "CREATE INDEX runs_by_end ON runs (finished_at)",
    # The cohorts that a run has changed or not brought to its end; those that the store does not
    # have are among them.
    """CREATE TABLE run_cohorts (
        run_id TEXT NOT NULL, cohort_id TEXT NOT NULL, entry TEXT NOT NULL,
        PRIMARY KEY (run_id, cohort_id))""",
    "CREATE INDEX run_cohorts_by_cohort ON run_cohorts (cohort_id)",
    # `tried_at` is when MoEngage was last asked to unarchive the cohort, and `done_at` when it did.
    """CREATE TABLE unarchivals (
        cohort BIGINT PRIMARY KEY, tried_at DOUBLE PRECISION NOT NULL,
        done_at DOUBLE PRECISION)""",
    # `stream` is empty if all streams of the partner are paused, those of the future among them.
    """CREATE TABLE pauses (
        partner TEXT NOT NULL, stream TEXT NOT NULL, paused_at DOUBLE PRECISION NOT NULL,
        paused_by TEXT NOT NULL, host TEXT NOT NULL, PRIMARY KEY (partner, stream))""",
    # The events that no webhook has taken yet; `body` is what to POST. `number` is their order.
    """CREATE TABLE alerts (
        number BIGINT PRIMARY KEY, event_id TEXT NOT NULL UNIQUE, partner TEXT NOT NULL,
        created_at DOUBLE PRECISION NOT NULL, body TEXT NOT NULL)""",
    """CREATE TABLE operator_actions (
        number BIGINT PRIMARY KEY, kind TEXT NOT NULL, done_at TEXT NOT NULL, done_by TEXT NOT NULL,
        host TEXT NOT NULL, partner TEXT NOT NULL, cohort_id TEXT, stream TEXT, details TEXT,
        run_id TEXT NOT NULL, status TEXT NOT NULL)""",
)
