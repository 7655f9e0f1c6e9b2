"""The demo: a real PostgreSQL, the real Meltano, the target, and an emulated MoEngage.

`make demo`. It needs no account, sends nothing to the network and leaves nothing behind. It ends
with 1 if what MoEngage accepted differs from what SQL says.
"""

import contextlib
import signal
import sys
import tempfile
import time
from pathlib import Path

from tests.demo.shop import USERS, WANTED, live_a_day, open_shop, wanted
from tests.support.emulator import EmulatorProcess
from tests.support.postgres import Postgres
from tests.support.project import MeltanoProject

COUNTS = ("records", "added", "removed", "rejected", "requests", "bytes")
SIGINT_EXIT = 128 + signal.SIGINT
SIGTERM_EXIT = 128 + signal.SIGTERM


def main() -> int:
    """Run the demo."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(SIGTERM_EXIT))
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="demo-")))
        say("Starting a PostgreSQL with a shop's users, and a MoEngage emulator.")
        postgres = stack.enter_context(Postgres())
        open_shop(postgres)
        emulator = stack.enter_context(EmulatorProcess())
        say(f"  PostgreSQL  {postgres.host}:{postgres.port}, {USERS:,} users; a view per cohort")
        say(f"  MoEngage    {emulator.url}\n")
        project = MeltanoProject(folder, postgres, emulator.url)
        project.environment["TARGET_MOENGAGE_COHORT_DATA_API_KEY"] = emulator.data_api_key

        say("First run: every row is new.")
        sync(project)
        first = compare(postgres, emulator)

        say("A day passes:")
        for event in live_a_day(postgres):
            say(f"  {event}")
        say("\nSecond run: it starts at the first one's bookmarks, so it reads only users of whom")
        say("anything has changed since, and the last row of the first run once more.")
        sync(project)
        second = compare(postgres, emulator)

    if first and second:
        say("MoEngage accepted exactly what SQL says. Nothing is left running.")
        return 0
    say("MoEngage accepted something else than SQL says.")
    return 1


def sync(project: MeltanoProject) -> None:
    """Run the pipeline once and show its report."""
    say("  $ meltano --environment=demo run tap-postgres target-moengage-cohort")
    begin = time.monotonic()
    report = project.sync(environment="demo")
    say(f"  {report['status']} in {time.monotonic() - begin:.1f} s\n")
    cohorts = {cohort["cohort_id"]: cohort for cohort in report["cohorts"]}
    rows = [[name, *(cohorts[name][count] for count in COUNTS)] for name in WANTED]
    show(["cohort", *COUNTS], rows)


def compare(postgres: Postgres, emulator: EmulatorProcess) -> bool:
    """Show what was accepted beside what SQL says; return whether they are the same."""
    rows = []
    for cohort_id in WANTED:
        accepted = emulator.members(cohort_id)
        right = wanted(postgres, cohort_id)
        same = "same members" if accepted == right else f"{len(accepted ^ right):,} DIFFERENT"
        rows.append([cohort_id, len(accepted), len(right), same])
    show(["cohort", "accepted", "SQL says", ""], rows)
    return all(row[-1] == "same members" for row in rows)


def show(head: list[str], rows: list[list[str | int]]) -> None:
    """Print a small table."""
    text = [head, *([f"{v:,}" if isinstance(v, int) else v for v in row] for row in rows)]
    widths = [max(len(row[column]) for row in text) for column in range(len(head))]
    for row in text:
        first, *others = (value.rjust(width) for value, width in zip(row, widths, strict=True))
        say("  " + "  ".join([first.strip().ljust(widths[0]), *others]))
    say("")


def say(text: str) -> None:
    """Print at once, also into a pipe."""
    print(text, flush=True)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main())
    sys.exit(SIGINT_EXIT)
