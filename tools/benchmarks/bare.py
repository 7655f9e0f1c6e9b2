"""Bare DuckDB: the work of a mirror with nothing else, in a process of its own.

    python bare.py parquet|records SOURCE DATABASE CHANGES

It reads the rows of SOURCE, hashes their uids with a key, joins them with the accepted members in
the file DATABASE, and writes the difference back. SOURCE is a pattern of Parquet files, or a file
of messages. Memory limit and threads are those of the ledger, `ledger/duckdb/instance.py`. Without
repeated rows, cohorts, settings and requests, this is the least time for a mirror with DuckDB. It
fails unless the difference has this many changes.
"""

import sys

import duckdb

KEY = "0123456789abcdefu"  # as long as the ledger's
SOURCES = {
    "parquet": "SELECT uid FROM read_parquet($source)",
    "records": (
        "SELECT record.uid AS uid FROM read_json($source, format = 'newline_delimited',"
        " columns = {type: 'VARCHAR', record: 'STRUCT(uid VARCHAR)'}) WHERE type = 'RECORD'"
    ),
}
DIFFERENCE = """
    CREATE TEMP TABLE difference AS
    SELECT input.h AS new, uid, accepted.h AS gone
    FROM (SELECT md5_number($key || uid) AS h, uid FROM ({source})) AS input
    FULL JOIN (SELECT h FROM accepted) AS accepted ON input.h = accepted.h
    WHERE input.h IS NULL OR accepted.h IS NULL"""
WRITE = """
    BEGIN;
    INSERT INTO accepted SELECT new, uid FROM difference WHERE new IS NOT NULL;
    DELETE FROM accepted WHERE h IN (SELECT gone FROM difference WHERE gone IS NOT NULL);
    COMMIT"""


def main(form: str, source: str, database: str, changes: str) -> str | None:
    """Update the database; return a message if the difference is wrong."""
    config = {"memory_limit": "256MB", "threads": 2, "preserve_insertion_order": False}
    with duckdb.connect(database, config=config) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS accepted (h UHUGEINT NOT NULL, uid VARCHAR)")
        difference = DIFFERENCE.format(source=SOURCES[form])
        connection.execute(difference, {"key": KEY, "source": source})
        connection.execute(WRITE)
        (found,) = connection.execute("SELECT count(*) FROM difference").fetchone()
    return None if found == int(changes) else f"{found} changes, not {changes}"


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
