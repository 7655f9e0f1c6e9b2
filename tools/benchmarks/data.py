"""The output of a tap for a cohort, in two versions: before and after a change.

Version 0 is the initial cohort. In version 1 one member in 2,000 is gone, and the same number is
new. A mirror that reads them alternately has the same work every time.
"""

import enum
import itertools
import json
import shutil
from pathlib import Path

import duckdb

GONE_ONE_IN = 2_000
STREAM = "users"
STATE_EVERY = 10_000
EXTRACTED = "2026-11-24T04:00:00.123456+00:00"
ROW = """
    n,
    md5(n::varchar)::uuid::varchar as uid,
    ['free', 'pro', 'team'][n % 3 + 1] as plan,
    true as is_member,
    (n * 7919 % 1000000) / 100 as lifetime_value,
    strftime(timestamp '2026-01-01' + to_seconds(n), '%Y-%m-%dT%H:%M:%S+00:00') as updated_at"""
RECORD = """
    '{"uid":"' || uid || '","plan":"' || plan || '","is_member":' || is_member
    || ',"lifetime_value":' || lifetime_value || ',"updated_at":"' || updated_at || '"}'"""


class Shape(enum.StrEnum):
    """The columns of the stream's rows."""

    NARROW = "narrow"
    TYPICAL = "typical"


def changed(size: int) -> int:
    """Return how many members of a cohort are gone, or new, in the other version."""
    return -(-size // GONE_ONE_IN)


def people(size: int, version: int, begin: int = 0, end: int | None = None) -> str:
    """Return the SQL for the rows of a version, or for a range of them.

    Args:
        size: The number of members of the cohort.
        version: 0 or 1.
        begin: The number of the first row.
        end: The number after that of the last row.

    Returns:
        A query of n, uid, plan, is_member, lifetime_value and updated_at.
    """
    total = size + changed(size)
    is_member = f"n >= {size} or n % {GONE_ONE_IN} > 0" if version else f"n < {size}"
    end = total if end is None else min(end, total)
    return f"select {ROW} from range({begin}, {end}) numbers(n) where {is_member}"


def schema(shape: Shape) -> str:
    """Return the SCHEMA message of the stream."""
    properties = {"uid": {"type": "string"}}
    if shape is Shape.TYPICAL:
        properties = {
            "uid": {"type": ["string", "null"]},
            "plan": {"type": ["string", "null"]},
            "is_member": {"type": ["boolean", "null"]},
            "lifetime_value": {"type": ["number", "null"]},
            "updated_at": {"type": ["string", "null"], "format": "date-time"},
        }
    message = {
        "type": "SCHEMA",
        "stream": STREAM,
        "schema": {"type": "object", "properties": properties},
        "key_properties": ["uid"],
    }
    return json.dumps(message, separators=(",", ":"))


def write_members(size: int, path: Path) -> None:
    """Write version 0 as a CSV file for `moengage-cohort adopt`."""
    duckdb.connect().execute(f"copy (select uid from ({people(size, 0)})) to '{path}' (header)")


def write_messages(size: int, shape: Shape, version: int, path: Path) -> None:
    """Write a version as a tap's messages.

    The typical shape is the output of an SDK tap for a table with FULL_TABLE.
    """
    before = f'{{"type":"RECORD","stream":"{STREAM}","record":'
    lines = f"""'{before}{{"uid":"' || uid || '"}}}}'"""
    head = [schema(shape)]
    if shape is Shape.TYPICAL:
        table_version = 1_795_492_800 + version
        head.append(f'{{"type":"ACTIVATE_VERSION","stream":"{STREAM}","version":{table_version}}}')
        after = f',"version":{table_version},"time_extracted":"{EXTRACTED}"}}'
        state = f'{{"type":"STATE","value":{{"bookmarks":{{"{STREAM}":{{}}}}}}}}'
        lines = f"""'{before}' || {RECORD} || '{after}'
            || if(n % {STATE_EVERY} = {STATE_EVERY - 1}, chr(10) || '{state}', '')"""
    body = path.with_suffix(".body")
    write_lines(f"select {lines} from ({people(size, version)})", body)
    with path.open("wb") as file, body.open("rb") as records:
        file.writelines(f"{line}\n".encode() for line in head)
        shutil.copyfileobj(records, file)
    body.unlink()


def write_lines(query: str, path: Path) -> None:
    """Write the only column of a query, one line per row."""
    form = "format csv, header false, quote '', escape '', delimiter '\x01'"
    duckdb.connect().execute(f"copy ({query}) to '{path}' ({form})")


def write_first(records: int, whole: Path, path: Path) -> None:
    """Write the first records of a file of messages, with all lines before them."""
    with whole.open("rb") as file, path.open("wb") as part:
        counts = itertools.accumulate(line.startswith(b'{"type":"RECORD"') for line in file)
        lines = sum(1 for _ in itertools.takewhile(lambda count: count <= records, counts))
        file.seek(0)
        part.writelines(itertools.islice(file, lines))
