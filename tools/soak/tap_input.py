"""The part of a tap's messages that reaches the target, as RECORD lines and BATCH files."""

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
from tools.soak.model import Model, Position

COLUMNS = ("uid", "anonymous_id", "cohort", "n", "_sdc_deleted_at")
DELETED_AT = "2026-11-22T04:00:00Z"
LONGEST_PIECE = 4_000
Broken = t.Literal["line", "file", "no file"]


@dataclass
class TapInput:
    """An input and its properties, in the form that `Plan.of` reads.

    Attributes:
        data: Its bytes.
        fault: Whether the target can detect that it is incomplete.
        proven: By stream, whether the target can prove that it is complete.
        states: The values of its STATE messages, by message number.
        streams: The message number of each stream's SCHEMA.
        is_torn: Whether a BATCH file is broken, so that an unknown part of it was read.
    """

    data: bytes = b""
    fault: bool = False
    proven: dict[str, bool] = field(default_factory=dict)
    states: dict[int, Position] = field(default_factory=dict)
    streams: dict[str, int] = field(default_factory=dict)
    is_torn: bool = False
    _rows: dict[str, list[tuple[int, Row]]] = field(default_factory=lambda: defaultdict(list))

    def rows(self, cohort: str) -> list[tuple[int, Row]]:
        """Return a cohort's rows with the numbers of their messages."""
        return self._rows[cohort]

    def met(self, stream: str, before: int | None = None) -> bool:
        """Return whether a stream has begun."""
        return stream in self.streams and (before is None or self.streams[stream] < before)

    def ever(self, cohort: str, *, present: bool) -> set[Key]:
        """Return the members with any row, the last or not, of this presence."""
        return {row.member.key for _, row in self._rows[cohort] if row.present == present}


def write_input(
    model: Model,
    all_messages: list[Row | Mark],
    folder: Path,
    chance: random.Random,
    *,
    cut: float = 0.0,
    broken: Broken | None = None,
    counts: bool = True,
    tap_exit: int | None = None,
) -> TapInput:
    """Write an input, its BATCH files included.

    Args:
        model: The model of the tap.
        all_messages: The tap's complete messages.
        folder: The folder of BATCH files.
        chance: The source of randomness.
        cut: The share of messages that is lost, from 0 to 1.
        broken: The part at its end that is broken.
        counts: Whether rows carry the count that proves a snapshot complete.
        tap_exit: The exit code of the tap, if the target learns it.
    """
    numbers = Counter(each.stream for each in all_messages if isinstance(each, Row))
    read = all_messages[: len(all_messages) - round(cut * len(all_messages))]
    tap_input, messages = TapInput(), []
    for at, piece in enumerate(_pieces(read, chance)):
        if isinstance(piece, Mark):
            messages.append(_mark(tap_input, at, piece))
            continue
        for row in piece:
            tap_input.rows(row.cohort).append((at, row))
        messages.append(_batch(piece, folder, at, chance, numbers))
    seen = Counter(each.stream for each in read if isinstance(each, Row))
    if broken == "line":
        messages.append(b'{"type": "RECORD", "str')
    elif broken is not None:
        tap_input.is_torn = _tear(messages, broken)
    tap_input.data = lines(
        *(line for one in messages for line in (one if isinstance(one, list) else [one]))
    )
    snapshots = [stream for stream, mode in model.modes.items() if mode in {"mirror", "one_time"}]
    miscounted = any(0 < seen[stream] < numbers[stream] for stream in snapshots)
    tap_input.fault = (
        broken == "line" or tap_input.is_torn or bool(tap_exit) or (counts and miscounted)
    )
    tap_input.proven = {
        stream: (counts and seen[stream] > 0) or tap_exit == 0 for stream in model.streams
    }
    return tap_input


def _pieces(read: list[Row | Mark], chance: random.Random) -> t.Iterator[Mark | list[Row]]:
    """Yield marks, and groups of consecutive rows of one stream."""
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


def _mark(tap_input: TapInput, at: int, mark: Mark) -> dict[str, t.Any]:
    if mark.kind == "schema":
        tap_input.streams[mark.value] = at
        return schema(mark.value, COLUMNS)
    tap_input.states[at] = mark.value
    return state({"at": at, "events": mark.value.events, "adds": mark.value.adds})


def _batch(
    rows: list[Row], folder: Path, at: int, chance: random.Random, numbers: Counter[str]
) -> t.Any:
    """Return one BATCH message, or a list of RECORD messages."""
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
    if kind.is_columnar:  # in row groups of ordinary size, unlike `Kind.write`
        parquet.write_table(as_table(rows), path)
        return
    data = b"".join(map(json_line, rows))
    path.write_bytes(gzip.compress(data, 1) if kind is GZIP else data)


def _tear(messages: list[t.Any], how: Broken) -> bool:
    """Truncate or delete the last BATCH file; return whether there is one."""
    for message in reversed(messages):
        if isinstance(message, dict) and message["type"] == "BATCH":
            path = Path(message["manifest"][0].removeprefix("file://"))
            if how == "no file":
                path.unlink()
            else:
                half = path.read_bytes()[: path.stat().st_size // 2]
                path.write_bytes(half.rstrip(b"}\n"))  # complete rows alone would not be detected
            return True
    return False
