"""A first sync at MoEngage's pace, compared with the minimum that its limits permit."""

import json
import math

from tools.benchmarks.cohort import bench
from tools.benchmarks.data import STREAM, Shape, write_messages
from tools.benchmarks.processes import Ran, RunFailedError
from tools.benchmarks.sections import Figure, Section, count
from tools.benchmarks.sizes import Sizes

COLUMNS = [
    "sync_mode",
    "members",
    "seconds",
    "minimum, 62 s window",
    "ratio",
    "minimum, 60 s window",
    "ratio",
    "requests",
    "minimum requests",
    "ratio",
]
MODES = ("incremental", "mirror")
REQUESTS_A_WINDOW = 300
WINDOWS = (62, 60)
PAYLOAD_BYTES = 128_000
UUID_CHARACTERS = 36
NOTE = (
    f"Narrow RECORDs with new UUIDs, at {REQUESTS_A_WINDOW} requests per minute; the emulator is a "
    "separate process with the same limit. The minimum time is the time between the first and the "
    f"last request if {REQUESTS_A_WINDOW} may start in any 62 seconds, as the target guarantees, "
    "or in any 60, as MoEngage requires. The minimum number of requests is the number of bytes of "
    f"all members divided by the room in a body of {PAYLOAD_BYTES:,} bytes."
)


def measure(sizes: Sizes) -> Section:
    """Measure a first sync without a ledger, and one with a ledger."""
    rows: list[list[str]] = []
    figures: list[Figure] = []
    for mode in MODES:
        ran, requests = _measure(mode, sizes.members)
        fewest = least_requests(sizes.members)
        waits = [least_seconds(requests, window) for window in WINDOWS]
        ratios = [ran.seconds / wait if wait else None for wait in waits]
        row = [mode, count(sizes.members), f"{ran.seconds:.1f}"]
        for wait, ratio in zip(waits, ratios, strict=True):
            row += [str(wait), "" if ratio is None else f"{ratio:.3f}"]
        rows.append([*row, count(requests), count(fewest), f"{requests / fewest:.4f}"])
        what = f"first sync of {count(sizes.members)}, {mode}"
        figures += [
            Figure(f"{what}: time relative to the minimum", ratios[0], 1.05, at_most=True),
            Figure(
                f"{what}: requests relative to the minimum", requests / fewest, 1.005, at_most=True
            ),
        ]
    return Section("First sync", COLUMNS, rows, NOTE, "cold", figures)


def _measure(mode: str, size: int) -> tuple[Ran, int]:
    with bench(sync_mode=mode, requests_per_minute=REQUESTS_A_WINDOW) as place:
        source = place.folder / "messages.singer"
        write_messages(size, Shape.NARROW, 0, source)
        ran = place.target(source)
        report, (_, added, _) = place.report(), place.totals()
    if (added, report["retries"]) != (size, 0):
        message = f"a run added {added:,} of {size:,}, with {report['retries']} retries"
        raise RunFailedError(message)
    return ran, report["requests"]


def least_seconds(requests: int, window: int) -> int:
    """Return the least time between the first and the last of these requests."""
    return (requests - 1) // REQUESTS_A_WINDOW * window


def least_requests(members: int) -> int:
    """Return how many bodies the members' bytes fill, if members could be split."""
    body = {
        "action": "add_members",
        "partner": "acme",
        "timestamp": "2026-11-24T04:00:00.123Z",
        "parameters": {"cohort_name": STREAM, "cohort_id": STREAM, "members": []},
    }
    member = len(_json({"uid": "0" * UUID_CHARACTERS})) + len(",")
    room = PAYLOAD_BYTES - len(_json(body)) + len(",")  # the first member has no comma before it
    return math.ceil(members * member / room)


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))
