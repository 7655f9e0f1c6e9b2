"""Members divided among many cohorts of one stream, or among many streams, in two versions.

In version 1 one member of each cohort is gone, and one is new. The same files serve a single cohort
of all members: its mapping does not name the column of the cohort, or there is one stream.
"""

import json
import shutil
from pathlib import Path

from tools.benchmarks.data import STREAM, write_lines

COHORT_COLUMN = "segment"
UID = "md5(n::varchar)::uuid::varchar"


def write_segments(size: int, cohorts: int, version: int, path: Path) -> None:
    """Write a version of a stream whose rows name their cohort; neighbors are of different ones.

    Args:
        size: The number of members of all cohorts.
        cohorts: The number of cohorts.
        version: 0 or 1.
        path: The file of messages.
    """
    begin = cohorts * version  # the first member of each cohort is gone
    before = f'{{"type":"RECORD","stream":"{STREAM}","record":{{"uid":"'
    row = f"""'{before}' || {UID} || '","{COHORT_COLUMN}":"segment-' || n % {cohorts} || '"}}}}'"""
    records = path.with_suffix(".records")
    write_lines(f"select {row} from range({begin}, {begin + size}) numbers(n)", records)
    path.write_text(f"{_schema(STREAM, COHORT_COLUMN)}\n")
    _append(records, path)


def write_streams(size: int, streams: list[str], path: Path) -> None:
    """Write the streams one after the other, with the same number of members each."""
    path.touch()
    each = size // len(streams)
    records = path.with_suffix(".records")
    for number, stream in enumerate(streams):
        row = f"""'{{"type":"RECORD","stream":"{stream}","record":{{"uid":"' || {UID} || '"}}}}'"""
        begin = number * each
        write_lines(f"select {row} from range({begin}, {begin + each}) numbers(n)", records)
        with path.open("a") as file:
            file.write(f"{_schema(stream)}\n")
        _append(records, path)


def _schema(stream: str, *columns: str) -> str:
    message = {
        "type": "SCHEMA",
        "stream": stream,
        "schema": {"properties": {column: {"type": "string"} for column in ("uid", *columns)}},
        "key_properties": ["uid"],
    }
    return json.dumps(message)


def _append(records: Path, path: Path) -> None:
    """Move all lines of a file to the end of another."""
    with path.open("ab") as file, records.open("rb") as lines:
        shutil.copyfileobj(lines, file)
    records.unlink()
