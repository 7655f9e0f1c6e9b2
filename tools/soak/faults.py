"""Faults between the target and MoEngage."""

import random
from collections import Counter

from target_moengage_cohort.emulator import Emulator
from tools.soak.wire import Wire

KINDS = (
    "500",
    "502",
    "503 applied",
    "504 applied",
    "429",
    "drop before",
    "drop after",
    "slow",
    "cut request",
    "cut answer",
)
SLOW_SECONDS, SLOW_ANSWERS = 0.2, 3


def inject(kind: str, emulator: Emulator, wire: Wire, chance: random.Random) -> None:
    """Inject a fault into the next run."""
    what, _, how = kind.partition(" ")
    if what == "drop":
        emulator.drop_next(when=how)
    elif what == "cut":
        wire.cut(how, chance.random())
    elif what == "slow":
        emulator.latency(SLOW_SECONDS, SLOW_ANSWERS)
    elif what == "429":
        emulator.fail_next(429, headers={"Retry-After": "0", "x-ratelimit-reset": "0"})
    else:
        emulator.fail_next(int(what), applied=how == "applied")


def break_down(emulator: Emulator, chance: random.Random) -> None:
    """Make a share of the requests fail until the faults are cleared."""
    statuses = chance.choice([(500, 502, 503, 504), (500, 502, 503, 504), (401,), (403,)])
    share = chance.choice([0.1, 0.3, 1.0])
    applied = statuses[0] >= 500 and chance.random() < 0.5
    emulator.fail_share(share, chance.randrange(1_000_000), statuses, applied=applied)


def tally(emulator: Emulator, wire: Wire) -> Counter[str]:
    """Count the faults of an emulator's requests by kind, slow answers aside."""
    counts = Counter({"cut in mid-message": wire.cuts})
    for request in emulator.requests(limit=1_000_000):
        if request.outcome == "applied_late":
            counts["applied late"] += 1
        if request.fault is None:
            continue
        applied = " applied" if request.outcome != "refused" else ""
        kinds = {"drop_before": "answer lost before", "drop_after": "answer lost after"}
        counts[kinds.get(request.fault, f"{request.status}{applied}")] += 1
    return counts
