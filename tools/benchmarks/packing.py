"""The sending path without a network: from members to request bodies."""

import statistics
import time
from collections.abc import Callable

import duckdb
import msgspec

from target_moengage_cohort.core.membership import Action, Change, Cohort, Member
from target_moengage_cohort.core.text import iso_utc
from target_moengage_cohort.delivery.packing import Budget, CohortBuffer
from target_moengage_cohort.moengage.cohort_sync import Envelope
from tools.benchmarks.data import STREAM, people
from tools.benchmarks.sections import Figure, Section, count
from tools.benchmarks.sizes import Sizes

COLUMNS = ["", "members", "seconds", "members per second", "relative speed of the target"]
PAYLOAD_BYTES = 128_000
LIST_MEMBERS = 3_000
NOTE = (
    "Members with a UUID, from the struct to request bodies (`Member.encode`, `Change`, "
    "`CohortBuffer.put` and `take`, `Envelope.body`), in one thread of this process. They are "
    "compared with msgspec, which encodes the same members one by one and as lists. Times are "
    "medians of runs in turn."
)


def measure(sizes: Sizes) -> Section:
    """Measure the path and its lower bound."""
    uids = duckdb.sql(f"select uid from ({people(sizes.members, 0)})").fetchall()
    members = [Member(uid) for (uid,) in uids]
    ways = {
        "the target": send,
        "msgspec, one by one": encode_each,
        "msgspec, as lists": encode_lists,
    }
    seconds: dict[str, list[float]] = {title: [] for title in ways}
    for _ in range(sizes.rounds):
        for title, way in ways.items():
            seconds[title].append(timed(way, members))
    medians = {title: statistics.median(each) for title, each in seconds.items()}
    first, *_ = medians.values()
    rows = [
        [
            title,
            count(len(members)),
            f"{median:.2f}",
            count(len(members) / median),
            "" if median == first else f"{median / first:.0%}",
        ]
        for title, median in medians.items()
    ]
    name = f"packing and encoding {count(len(members))} members: members per second"
    figures = [Figure(name, len(members) / first, 1_000_000)]
    return Section("Packing and encoding", COLUMNS, rows, NOTE, "packing", figures)


def timed(way: Callable[[list[Member]], int], members: list[Member]) -> float:
    """Return the seconds that a function takes."""
    begin = time.perf_counter()
    way(members)
    return time.perf_counter() - begin


def send(members: list[Member]) -> int:
    """Convert members to request bodies; return their size in bytes."""
    cohort = Cohort(STREAM, STREAM)
    envelope = Envelope(cohort, "acme", send_timestamp=True)
    buffer = CohortBuffer(envelope, Budget(PAYLOAD_BYTES))
    timestamp = iso_utc(1_795_492_800.000)
    size = 0
    for epoch, member in enumerate(members):
        change = Change(cohort, Action.ADD, member)
        buffer.put(change, epoch, 0.0)
        if buffer.closed:
            body = buffer.take(0.0)
            size += len(envelope.body(body.action, timestamp, body.members))
    while (body := buffer.take(0.0)) is not None:
        size += len(envelope.body(body.action, timestamp, body.members))
    return size


def encode_each(members: list[Member]) -> int:
    """Encode members one by one; return their size in bytes."""
    encode = msgspec.json.Encoder().encode
    return sum(len(encode(member)) for member in members)


def encode_lists(members: list[Member]) -> int:
    """Encode members in lists; return their size in bytes."""
    encode = msgspec.json.Encoder().encode
    return sum(
        len(encode(members[n : n + LIST_MEMBERS])) for n in range(0, len(members), LIST_MEMBERS)
    )
