"""The fast ways through the reader against the SDK's own way, on the same input."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import example, given, settings

from target_moengage_cohort.emulator import Emulator
from tests.support.singer import UNLIMITED, activate_version, lines, record, run, schema, state

SDKS_WAY = {"stream_maps": {"users": {"__alias__": "users"}}}
TEXT = {"type": ["string", "null"]}
NUMBER = {"type": ["integer", "null"]}
FLAG = {"type": ["boolean", "null"]}

texts = st.sampled_from(["u1", "u2", "u3", "ü\n\u2028", 'q"\\', "", None, "x" * 900, "x" * 1_001])
numbers = st.sampled_from([1, 2, -3, 0, 2**70, None, 10**1001])
odd = st.sampled_from([1.5, 2.0, 1e17, True, [], {}, "7", "\x00", "a\ud800", float("nan")])


def mostly(values: st.SearchStrategy) -> st.SearchStrategy:
    return st.integers(0, 9).flatmap(lambda dice: odd if dice == 0 else values)


def rows(uids: st.SearchStrategy) -> st.SearchStrategy:
    some = st.sampled_from
    return st.fixed_dictionaries(
        {"uid": mostly(uids)},
        optional={
            "anonymous_id": mostly(some(["a1", "a2", None, "", " a1"])),
            "is_member": mostly(some([True, True, False])),
            "n": mostly(some([5, 5, 5, 6])),
            "cohort": mostly(some(["c1", "c2", " ", "All Users"])),
            "name": mostly(some(["c1", "c2"])),
            "_sdc_deleted_at": some([None, None, None, "", "2026-11-22"]),
            "_Sdc_Lsn_Deleted_At": some([None, False, "", "2026-11-22", "no", 0, []]),
            "other": some([None, 1e400, "z", [1.0, {"a": None}]]),
        },
    )


noise = st.sampled_from([b"", b"  ", b'{"type":"STATE","value":{"raw":1.0}}'])
LAYOUTS = {
    "uid": {},
    "pair": {"anonymous_id_column": "anonymous_id"},
    "member": {"membership_column": "is_member"},
    "fan": {"cohort_id_column": "cohort"},
    "named fan": {"cohort_id_column": "cohort", "cohort_name_column": "name"},
    "counted": {"expected_count_column": "n"},
}


@st.composite
def inputs(draw):
    """Draw a sync mode, a mapping, and the messages of a tap."""
    layout = draw(st.sampled_from(sorted(LAYOUTS)))
    modes = ["mirror", "one_time"] if layout == "counted" else ["mirror", "incremental", "one_time"]
    modes += [] if layout in {"counted", "member"} else ["add", "remove"]
    kind, uids = draw(st.sampled_from([(TEXT, texts), (NUMBER, numbers), ({}, texts)]))
    columns = [
        "uid",
        "anonymous_id",
        "is_member",
        "n",
        "cohort",
        "name",
        "_sdc_deleted_at",
        "other",
    ]
    keys = draw(st.sampled_from([[], ["uid"], ["other"], ["uid", "anonymous_id"]]))
    head = schema(columns=columns, keys=keys)
    head["schema"]["properties"] |= {"uid": kind, "anonymous_id": TEXT, "is_member": FLAG, "n": {}}
    version = draw(st.sampled_from([None, None, 7, 2**64, True]))
    messages = []
    for item in draw(st.lists(st.one_of(*[rows(uids)] * 6, st.integers(1, 3), noise), max_size=30)):
        if isinstance(item, bytes):
            messages.append(item)
        elif isinstance(item, int):
            versioned = activate_version(version) if item == 3 else state({"at": len(messages)})
            messages.append(versioned)
        else:
            said = record(**item)
            if version is not None and draw(st.integers(0, 9)):
                said["version"] = version
            messages.append(said)
    return draw(st.sampled_from(modes)), LAYOUTS[layout], [head, *messages]


def outcome(data: bytes, **options):
    """Return all visible results of a run on an input."""
    with (
        Emulator(requests_per_minute=UNLIMITED) as emulator,
        tempfile.TemporaryDirectory() as folder,
    ):
        rejects = Path(folder, "rejects")
        options |= {"ledger_uri": f"{folder}/ledger"}
        if options["on_reject"] == "skip":
            options |= {"rejects_path": str(rejects)}
        seen = run(emulator, data, **options)
        kept = rejects.read_bytes().splitlines() if rejects.exists() else []
        members = {
            cohort.cohort_id: emulator.members(cohort.cohort_id) for cohort in emulator.cohorts()
        }
    return (
        (type(seen.error), str(seen.error).replace(folder, "…")),
        seen.states[-1:],
        seen.report.status,
        sorted(map(numbers_of, seen.report.cohorts)),
        members,
        [without_run(json.loads(line)) for line in kept],
    )


def numbers_of(cohort):
    counts = (cohort.records, cohort.added, cohort.removed, cohort.unchanged, cohort.rejected)
    desired = cohort.desired and cohort.desired.count
    accepted = cohort.accepted and cohort.accepted.count
    return (str(cohort.cohort_id), *counts, cohort.complete.value, str(desired), str(accepted))


def without_run(message):
    for name in ("_reject_run_id", "_reject_at"):
        message.get("record", {}).pop(name, None)
    return message


@settings(max_examples=80)
@given(inputs(), st.sampled_from(["fail", "skip"]))
@example(("mirror", {}, [schema(keys=["uid"]), *[record(uid="u")] * 3, record(x=1)]), "skip")
@example(("incremental", {}, [schema(keys=["uid"]), *[record(uid="u")] * 3, record()]), "fail")
def test_the_fast_ways_do_what_the_sdks_way_does(given_input, on_reject):
    """Decoded in large or small groups, or one by one through the SDK's mapper, an input has the
    same members, numbers, rejects, last STATE and error."""
    mode, mapping, messages = given_input
    options = {"cohorts": {"users": {"sync_mode": mode} | mapping}, "on_reject": on_reject}
    data = lines(*messages)
    expected = outcome(data, **options, **SDKS_WAY)
    assert expected == outcome(data, **options)
    assert expected == outcome(data, **options, piecemeal=True)


@pytest.mark.parametrize("mode", ["incremental", "mirror"])
def test_an_input_of_many_pieces_is_read_as_the_sdk_reads_it(mode):
    """Tens of thousands of rows, with STATEs, deletions and rejected rows between, have the same
    result on the fast path as on the SDK's."""
    people = [record(uid=f"u{number}", _sdc_deleted_at=None) for number in range(30_000)]
    for place in range(0, 30_000, 7_001):
        people[place]["record"]["_sdc_deleted_at"] = "2026-11-22"
        people[place + 1]["record"]["uid"] = None
        people[place + 2] = state({"at": place})
    data = lines(
        schema(columns=["uid", "_sdc_deleted_at"], keys=["uid"]), *people, state({"at": -1})
    )
    options = {"cohorts": {"users": {"sync_mode": mode}}, "on_reject": "skip"}
    assert outcome(data, **options, **SDKS_WAY) == outcome(data, **options)
