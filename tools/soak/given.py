"""What of a tap's messages reaches the target, as RECORD lines and BATCH files."""

import gzip
import random
import typing as t
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from pyarrow import parquet

from target_moengage_cohort.core.membership import Key
from tests.support.batches import GZIP, JSONL, PARQUET, Kind, as_table, batch, json_line
from tests.support.singer import lines, record, schema, state
from tests.support.warehouse import Mark, Row
from tools.soak.town import Position, Town

COLUMNS = ("uid", "anonymous_id", "cohort", "n", "_sdc_deleted_at")
DELETED_AT = "2026-11-22T04:00:00Z"
LONGEST_PIECE = 4_000
Broken = t.Literal["line", "file", "no file"]


@dataclass
class Given:
    """An input, and what is known of it; it is what `Plan.of` asks.

    Attributes:
        data: Its bytes.
        fault: Whether the target can tell that it is incomplete.
        proven: By stream, whether the target can tell that it is complete.
        states: The places of its STATEs, which are numbers of messages, and what they say.
        streams: Where each stream begins that did.
        is_torn: Whether a BATCH file is broken, so that nobody knows how far it was read.
    """

    data: bytes = b""
    fault: bool = False
    proven: dict[str, bool] = field(default_factory=dict)
    states: dict[int, Position] = field(default_factory=dict)
    streams: dict[str, int] = field(default_factory=dict)
    is_torn: bool = False
    _rows: dict[str, list[tuple[int, Row]]] = field(default_factory=lambda: defaultdict(list))

    def rows(self, cohort: str) -> list[tuple[int, Row]]:
        """What is read of a cohort, with the numbers of the messages."""
        return self._rows[cohort]

    def met(self, stream: str, before: int | None = None) -> bool:
        """Whether a stream was begun."""
        return stream in self.streams and (before is None or self.streams[stream] < before)

    def ever(self, cohort: str, *, present: bool) -> set[Key]:
        """Who has a row that says so, be it the last or not."""
        return {row.member.key for _, row in self._rows[cohort] if row.present == present}


def given(
    town: Town,
    said: list[Row | Mark],
    folder: Path,
    chance: random.Random,
    *,
    cut: float = 0.0,
    broken: Broken | None = None,
    counts: bool = True,
    tap_exit: int | None = None,
) -> Given:
    """Write an input, its BATCH files included.

    Args:
        town: Whose tap it is.
        said: All that the tap would say.
        folder: For BATCH files.
        chance: The dice.
        cut: How much of it is lost, from 0 to 1.
        broken: What is broken at its end.
        counts: Whether rows carry the count that proves a snapshot complete.
        tap_exit: The exit code of the tap, if the target gets to know it.
    """
    numbers = Counter(each.stream for each in said if isinstance(each, Row))
    read = said[: len(said) - round(cut * len(said))]
    found, messages = Given(), []
    for at, piece in enumerate(_pieces(read, chance)):
        if isinstance(piece, Mark):
            messages.append(_mark(found, at, piece))
            continue
        for row in piece:
            found.rows(row.cohort).append((at, row))
        messages.append(_batch(piece, folder, at, chance, numbers))
    seen = Counter(each.stream for each in read if isinstance(each, Row))
    if broken == "line":
        messages.append(b'{"type": "RECORD", "str')
    elif broken is not None:
        found.is_torn = _tear(messages, broken)
    found.data = lines(
        *(line for one in messages for line in (one if isinstance(one, list) else [one]))
    )
    snapshots = [stream for stream, mode in town.modes.items() if mode in {"mirror", "one_time"}]
    miscounted = any(0 < seen[stream] < numbers[stream] for stream in snapshots)
    found.fault = broken == "line" or found.is_torn or bool(tap_exit) or (counts and miscounted)
    found.proven = {
        stream: (counts and seen[stream] > 0) or tap_exit == 0 for stream in town.streams
    }
    return found


def _pieces(read: list[Row | Mark], chance: random.Random) -> t.Iterator[Mark | list[Row]]:
    """Marks, and rows of one stream that go into one file or stand one after the other."""
    rows: list[Row] = []
    longest = chance.randint(1, LONGEST_PIECE)
    for each in read:
        if rows and (isinstance(each, Mark) or len(rows) == longest):
            yield rows
            rows, longest = [], chance.randint(1, LONGEST_PIECE)
        if isinstance(each, Mark):
            yield each
        else:
            rows.append(each)
    if rows:
        yield rows


def _mark(found: Given, at: int, mark: Mark) -> dict[str, t.Any]:
    if mark.kind == "schema":
        found.streams[mark.value] = at
        return schema(mark.value, COLUMNS)
    found.states[at] = mark.value
    return state({"at": at, "events": mark.value.events, "adds": mark.value.adds})


def _batch(
    rows: list[Row], folder: Path, at: int, chance: random.Random, numbers: Counter[str]
) -> t.Any:
    """One BATCH message, or a list of RECORD messages."""
    stream = rows[0].stream
    written = [_columns(row, numbers[stream]) for row in rows]
    kind = chance.choice([None, None, None, JSONL, GZIP, PARQUET])
    if kind is None:
        return [record(stream, **row) for row in written]
    path = folder / f"{at}.{kind.suffix}"
    _write(kind, path, written)
    return batch(kind, path, stream=stream)


def _columns(row: Row, number: int) -> dict[str, t.Any]:
    return {
        "uid": row.member.uid,
        "anonymous_id": row.member.anonymous_id,
        "cohort": row.cohort,
        "n": number,
        "_sdc_deleted_at": None if row.present else DELETED_AT,
    }


def _write(kind: Kind, path: Path, rows: list[dict[str, t.Any]]) -> None:
    if kind.is_columnar:  # in row groups of an ordinary size, other than `Kind.write`
        parquet.write_table(as_table(rows), path)
        return
    data = b"".join(map(json_line, rows))
    path.write_bytes(gzip.compress(data, 1) if kind is GZIP else data)


def _tear(messages: list[t.Any], how: Broken) -> bool:
    """Break the last BATCH file, if there is one, by half of it or altogether."""
    for message in reversed(messages):
        if isinstance(message, dict) and message["type"] == "BATCH":
            path = Path(message["manifest"][0].removeprefix("file://"))
            if how == "no file":
                path.unlink()
            else:
                half = path.read_bytes()[: path.stat().st_size // 2]
                path.write_bytes(half.rstrip(b"}\n"))  # whole rows alone would show no fault
            return True
    return False
