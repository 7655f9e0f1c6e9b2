"""The soak, for `make soak`."""

import argparse
import contextlib
import itertools
import logging
import shutil
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path

from tests.support.postgres import Postgres
from tools.soak.soak import Soak
from tools.soak.world import Figures

SIGTERM_EXIT = 128 + signal.SIGTERM
WORLDS_AT_LEAST = 6
LONGEST_WORLD_SECONDS = 240.0


def main() -> int:
    """Run for some minutes; return 1 if there was a difference."""
    parser = argparse.ArgumentParser(prog="python -m tools.soak")
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument(
        "--scale", type=float, default=1.0, help="of cohorts of up to 20,000 members"
    )
    parser.add_argument(
        "--world", type=int, default=0, help="the first one, as printed in a history"
    )
    parser.add_argument("--postgres", action="store_true", help="ledgers on a PostgreSQL")
    chosen = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(SIGTERM_EXIT))
    logging.getLogger("target_moengage_cohort").addHandler(logging.NullHandler())
    print(f"SEED={chosen.seed}", flush=True)
    folder = Path(tempfile.mkdtemp(prefix="soak-"))
    running = contextlib.ExitStack()
    server = running.enter_context(Postgres()) if chosen.postgres else None
    soak = Soak(chosen.seed, chosen.scale, folder, server)
    started, differences, code = time.monotonic(), 0, 0
    end = started + 60 * chosen.minutes
    world_seconds = min(LONGEST_WORLD_SECONDS, 60 * chosen.minutes / WORLDS_AT_LEAST)
    try:
        for number in itertools.count(chosen.world):
            if (now := time.monotonic()) >= end:
                break
            soak.world(number, rounds=100_000, until=min(end, now + world_seconds))
    except KeyboardInterrupt:
        code = 128 + signal.SIGINT
    except Exception:  # noqa: BLE001 - any error is printed with its history
        differences, code = 1, 1
        print("\n".join(soak.history))
        traceback.print_exc(file=sys.stdout)
        print(f"SEED={chosen.seed}; its files are in {folder}")
    finally:
        running.close()
        if not differences:
            shutil.rmtree(folder)
        minutes = (time.monotonic() - started) / 60
        print(table(soak.figures, minutes, chosen.seed, differences), flush=True)
    return code


def table(figures: Figures, minutes: float, seed: int, differences: int) -> str:
    """Return all figures as a Markdown table."""
    runs = figures.runs
    rows = [
        ("minutes", f"{minutes:.1f}"),
        ("seed", str(seed)),
        ("worlds, each with its own ledgers", f"{figures.worlds:,}"),
        ("runs", f"{runs.total():,}"),
        *((f"… {kind}", f"{count:,}") for kind, count in sorted(runs.items())),
        *((f"ended by {how}", f"{count:,}") for how, count in sorted(figures.ends.items())),
        ("with a wrong clock", f"{figures.clock_steps:,}"),
        ("requests", f"{figures.requests:,}"),
        ("faults", f"{figures.faults.total():,}"),
        *((f"… {kind}", f"{count:,}") for kind, count in sorted(figures.faults.items())),
        ("members compared", f"{figures.compared:,}"),
        ("differences", f"{differences:,}"),
    ]
    return "\n".join(["| | |", "|---|---:|", *(f"| {name} | {figure} |" for name, figure in rows)])


if __name__ == "__main__":
    sys.exit(main())
