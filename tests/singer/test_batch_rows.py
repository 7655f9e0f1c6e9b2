"""Rows in the files of BATCH messages have the same effect as RECORD messages."""

import typing as t
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import hypothesis.strategies as st
import pyarrow as pa
import pytest
from hypothesis import given, settings

from target_moengage_cohort.core.errors import InputError
from target_moengage_cohort.emulator import Emulator
from target_moengage_cohort.sync.reporting.report import CohortReport
from tests.support.batches import (
    ARROW,
    GZIP,
    JSONL,
    PARQUET,
    Folder,
    Kind,
    Row,
    batch,
    record_line,
    rejected,
    uids,
)
from tests.support.singer import (
    UNLIMITED,
    lines,
    record,
    run,
    schema,
    state,
)

MODES = ["incremental", "add", "remove", "mirror", "one_time"]
SNAPSHOTS = {"mirror", "one_time"}
NUMBERS = ("records", "rejected", "added", "removed", "unchanged", "removals_withheld", "complete")


@pytest.fixture(scope="module")
def shared() -> Iterator[Emulator]:
    """An emulator for many examples, each of which resets it."""
    with Emulator(requests_per_minute=UNLIMITED) as running:
        yield running


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "files")


def members(emulator: Emulator, cohort: str = "users") -> set[tuple[str | None, str | None]]:
    return {(one.uid, one.anonymous_id) for one in emulator.members(cohort)}


def shown(cohort: CohortReport) -> Row:
    """Return a report's values for a cohort, except digests, which differ between ledgers."""
    found = {name: getattr(cohort, name) for name in NUMBERS}
    counts = [None if one is None else one.count for one in (cohort.desired, cohort.accepted)]
    return {**found, "counts": counts, "is_equal": cohort.desired == cohort.accepted}


def outcome(
    emulator: Emulator, folder: Folder, base: t.Sequence[t.Any], *messages: t.Any, **options: t.Any
) -> dict[str, t.Any]:
    """Return everything that a user can see after a run, which may follow a first run on the
    base."""
    emulator.reset()
    rejects = folder.new("rejects.singer")
    if options.get("on_reject") == "skip":
        options["rejects_path"] = str(rejects)
    if options.pop("ledger"):
        options["ledger_uri"] = str(folder.new("ledger"))
    if base:
        assert run(emulator, lines(*base), **options).error is None
    seen = run(emulator, lines(*messages), **options)
    failed_at_a_row = isinstance(seen.error, InputError)
    return {
        "error": type(seen.error),
        "states": seen.states,
        "status": seen.report.status,
        "cohorts": {one.cohort_id: members(emulator, one.cohort_id) for one in emulator.cohorts()},
        "report": {} if failed_at_a_row else {c.cohort_id: shown(c) for c in seen.report.cohorts},
        "rejects": [] if failed_at_a_row else rejected(rejects),
    }


texts = st.sampled_from(["a", "b", "ü", '"', "\\", "a b ", "\u2028", "\N{GRINNING FACE}", "", None])
odd_texts = texts | st.text(st.characters(exclude_categories=["Cs"]), max_size=4)
whole = st.sampled_from([0, 1, -1, 5, 2**53 + 1, 2**63 - 1, None])
huge = st.sampled_from([0, 2**63, 2**64 - 1, None])
decimals = st.sampled_from([Decimal("5.00"), Decimal("5.50"), Decimal("-1.00"), None])
many_digits = st.sampled_from([Decimal(f"1{0:037}"), Decimal(10**30 + 1), Decimal(1), None])
numbers = st.sampled_from(
    [Decimal("1.5"), Decimal("5.0"), Decimal("1E+400"), 2**70, 10**999, 10**1_000, 0]
)
COLUMN_TYPES = [
    (pa.string(), odd_texts),
    (pa.string(), odd_texts),
    (pa.large_string(), odd_texts),
    (pa.dictionary(pa.int32(), pa.string()), odd_texts),
    (pa.int64(), whole),
    (pa.int32(), st.sampled_from([0, 1, -5, None])),
    (pa.uint64(), huge),
    (pa.decimal128(38, 2), decimals),
    (pa.decimal128(38, 0), many_digits),
    (pa.bool_(), st.sampled_from([True, False, None])),
    (pa.list_(pa.string()), st.sampled_from([["a"], [], None])),
    (pa.struct([("x", pa.string())]), st.sampled_from([{"x": "a"}, None])),
    (pa.null(), st.none()),
]
JSON_TYPES = {"string": odd_texts, "integer": whole | numbers, "number": decimals | numbers}
anything = st.one_of(
    odd_texts, whole, huge, decimals, numbers, st.booleans(), st.just([]), st.just({"a": 1})
)
says = st.sampled_from(["yes", "no", "TRUE", "f", "add", "maybe", "", None])
flags = st.sampled_from([True, True, False, None])
cohort_ids = st.sampled_from(["a", "a", "b", "", ":", "All Users", None])
deleted = st.sampled_from([None, None, None, "", "2026-01-01T00:00:00+00:00", "no", "0001-01-01"])

MAPPINGS = {
    "plain": {},
    "pairs": {"anonymous_id_column": "anon"},
    "member": {"membership_column": "is_member"},
    "fan": {"cohort_id_column": "cohort"},
    "fan of pairs": {"cohort_id_column": "cohort", "anonymous_id_column": "anon"},
    "count": {"expected_count_column": "n"},
}


@dataclass
class Given:
    """Rows, their distribution over messages, and the settings of the run."""

    rows: list[Row]
    types: dict[str, pa.DataType]
    schema: dict[str, t.Any]
    pieces: list[tuple[bool, int]]
    options: dict[str, t.Any]

    def messages(self, folder: Folder, kind: Kind | None) -> list[t.Any]:
        """Return all rows as RECORD messages, or pieces of them as files of a kind."""
        if kind is None:
            return [self.schema, *map(record_line, self.rows), state({"a": 1})]
        found, rest = [self.schema], self.rows
        for is_file, length in [*self.pieces, (True, len(self.rows))]:
            piece, rest = rest[:length], rest[length:]
            if not is_file:
                found += map(record_line, piece)
            elif piece or length == 0:
                half = len(piece) // 2
                files = [folder.file(kind, part, self.types) for part in (piece[:half], piece)]
                files[1:] = [folder.file(kind, piece[half:], self.types)]
                found.append(batch(kind, *files))
        return [*found, state({"a": 1})]


@st.composite
def situations(draw: st.DrawFn, *, columnar: bool) -> Given:
    mode, name = draw(st.sampled_from(MODES)), draw(st.sampled_from(sorted(MAPPINGS)))
    mapping = {"sync_mode": mode, **MAPPINGS[name]}
    if mode in {"add", "remove"}:
        mapping.pop("membership_column", None)
    if mode not in SNAPSHOTS:
        mapping.pop("expected_count_column", None)
    columns = ["uid", "anon", "is_member", "cohort", "note", "_sdc_deleted_at"]
    types, values, said = {}, {}, {}
    for column in columns:
        if columnar:
            types[column], values[column] = draw(st.sampled_from(COLUMN_TYPES))
        else:
            json_type = draw(st.sampled_from([*JSON_TYPES, None]))
            values[column] = anything if json_type is None else JSON_TYPES[json_type] | texts
            said[column] = {} if json_type is None else {"type": [json_type, "null"]}
    if draw(st.integers(0, 9)):  # mostly, columns have realistic values
        is_flag = draw(st.booleans())
        values |= {"is_member": flags if is_flag else says, "cohort": cohort_ids}
        values["_sdc_deleted_at"] = deleted
        text = pa.string()
        types |= {"is_member": pa.bool_() if is_flag else text, "cohort": text}
        types["_sdc_deleted_at"] = text
        said |= {"is_member": {"type": "boolean" if is_flag else "string"}, "cohort": {}}
    row = st.fixed_dictionaries(values) if columnar else st.fixed_dictionaries({}, optional=values)
    rows = draw(st.lists(row, max_size=12))
    lacking = draw(st.sets(st.sampled_from(columns), max_size=2)) if columnar else set()
    count = len(rows) + (draw(st.integers(0, 9)) == 0)
    rows = [{n: v for n, v in one.items() if n not in lacking} | {"n": count} for one in rows]
    types = {n: kind for n, kind in types.items() if n not in lacking} if columnar else {}
    keys = draw(st.sampled_from([[], [], ["uid"], ["note"]]))
    announced = schema(columns=[*columns, "n"], keys=[k for k in keys if k not in lacking])
    announced["schema"]["properties"] |= said
    return Given(
        rows,
        types | ({"n": pa.int64()} if columnar else {}),
        announced,
        draw(st.lists(st.tuples(st.booleans(), st.integers(0, 5)), max_size=3)),
        {
            "cohorts": {"users": mapping},
            "on_reject": draw(st.sampled_from(["skip", "skip", "fail"])),
            "ledger": mode in SNAPSHOTS or draw(st.booleans()),
            "max_removal_percent": 100,
        },
    )


def check_same(shared: Emulator, folder: Folder, kind: Kind, given: Given) -> None:
    base = []
    if given.options["ledger"]:
        rows = [
            {"uid": uid, "anon": None, "is_member": True, "cohort": "a", "note": "", "n": 3}
            for uid in ("a", "ü", "left")
        ]
        base = [given.schema, *(record(**row) for row in rows)]
    expected = outcome(shared, folder, base, *given.messages(folder, None), **given.options)
    found = outcome(shared, folder, base, *given.messages(folder, kind), **given.options)
    assert expected == found


@pytest.mark.parametrize("kind", [JSONL, GZIP], ids=["jsonl", "gzip"])
@given(given=situations(columnar=False))
@settings(max_examples=40)
def test_a_file_of_lines_says_what_records_say(shared, tmp_path_factory, kind, given):
    """With any rows, a file of JSON lines has the same cohorts, numbers, rejects, STATE and errors
    as RECORD messages, in each sync mode."""
    check_same(shared, Folder(tmp_path_factory.mktemp("files")), kind, given)


@pytest.mark.parametrize("kind", [PARQUET, ARROW], ids=["parquet", "arrow"])
@given(given=situations(columnar=True))
@settings(max_examples=40)
def test_a_columnar_file_says_what_records_say(shared, tmp_path_factory, kind, given):
    """With any column types, a Parquet or Arrow file has the same cohorts, numbers, rejects, STATE
    and errors as RECORD messages, in each sync mode."""
    check_same(shared, Folder(tmp_path_factory.mktemp("files")), kind, given)


ODD_LINES = [
    b'{"uid": NaN}',
    b'{"uid": "\\ud800"}',
    b'{"uid": "u", "other": "\\ud800"}',
    b'{"uid": "v", "other": NaN}',
    b'{"uid": 1e400}',
    b'{"uid": 1e99999999999999999999}',
    b'{"uid": -0.0}',
    b'{"uid": "first", "uid": "second"}',
    b'{"\\u0075id": "escaped"}',
    b' { "uid" : "spaced" } \r',
    b'{"uid": {"uid": "nested"}}',
    b'{"other": {"uid": "nested"}}',
    b'{"uid": "\\u00fc\\n\\u0000"}',
    b"{}",
    b'{"type": "RECORD", "stream": "users", "record": {"uid": "no message"}, "uid": "x"}',
]


@pytest.mark.parametrize("mode", ["incremental", "mirror"])
def test_json_as_taps_write_it(shared, folder, mode):
    """Non-standard or ambiguous lines are read as in RECORD messages."""
    announced = schema(columns=("uid", "other"))
    records = [b'{"type":"RECORD","stream":"users","record":%b}' % one.strip() for one in ODD_LINES]
    path = folder.new("json")
    path.write_bytes(b"\n".join([*ODD_LINES, b"", b"  "]))
    options = {"on_reject": "skip", "sync_mode": mode, "ledger": True}
    expected = outcome(shared, folder, [], announced, *records, **options)
    assert {"u", "v", "second", "escaped", "spaced", "x"} < uids(shared)
    assert expected["rejects"]
    assert expected == outcome(shared, folder, [], announced, batch(JSONL, path), **options)
