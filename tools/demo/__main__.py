"""The demo (`make demo`): a real PostgreSQL, the real Meltano, the target, an emulated MoEngage.

It needs no account, sends nothing to the network and leaves nothing behind. It exits with 1 if
the accepted members differ from the result of SQL.
"""

import contextlib
import signal
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterable
from pathlib import Path

from tests.support.emulator import EmulatorProcess
from tests.support.postgres import Postgres
from tests.support.project import MeltanoProject
from tools.demo.broken import ROWS, STREAM, Broken
from tools.demo.shop import USERS, WANTED, live_a_day, open_shop, wanted

COUNTS = ("records", "added", "removed", "rejected", "requests", "bytes")
SIGINT_EXIT = 128 + signal.SIGINT
SIGTERM_EXIT = 128 + signal.SIGTERM
WIDTH = 80


def main() -> int:
    """Run the demo."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(SIGTERM_EXIT))
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="demo-")))
        say("Starting PostgreSQL with a shop's users, and a MoEngage emulator.")
        postgres = stack.enter_context(Postgres())
        open_shop(postgres)
        emulator = stack.enter_context(EmulatorProcess())
        say(f"  PostgreSQL  {postgres.host}:{postgres.port}, {USERS:,} users, one view per cohort")
        say(f"  MoEngage    {emulator.url}\n")
        project = MeltanoProject(folder, postgres, emulator.url)
        project.environment["TARGET_MOENGAGE_COHORT_DATA_API_KEY"] = emulator.data_api_key

        say("First run: every row is new.")
        sync(project)
        first = compare(postgres, emulator)

        say("A day passes:")
        for event in live_a_day(postgres):
            say(f"  {event}")
        say("\nSecond run. For three cohorts it reads only the users that changed since the first")
        say("run's bookmarks. The fourth, members, is a mirror: it reads the whole view and sends")
        say("the difference to what MoEngage has accepted.")
        sync(project)
        second = compare(postgres, emulator)

        say("Third run, of the mirror only: its tap is killed halfway. That looks like a cohort")
        say("that has shrunk, but each row contains the number of rows that there should be.")
        third = break_off(Broken(project))
        unharmed = compare(postgres, emulator, ["members"])

    if first and second and third and unharmed:
        say("MoEngage accepted exactly the members that SQL returns. Nothing is left running.")
        return 0
    say("The accepted members differ from SQL, or a broken input was taken for a complete one.")
    return 1


def sync(project: MeltanoProject) -> None:
    """Run the pipeline once and show its report."""
    say("  $ meltano --environment=demo run tap-postgres target-moengage-cohort")
    begin = time.monotonic()
    report = project.sync(environment="demo")
    say(f"  {report['status']} in {time.monotonic() - begin:.1f} s\n")
    show_counts(report)


def break_off(broken: Broken) -> bool:
    """Run a mirror whose tap is killed halfway; return whether the target failed."""
    say(f"  $ tap-postgres … | head -n {ROWS} | target-moengage-cohort …")
    code, error, report = broken.run()
    say(f"  {report['status']}, exit code {code}:")
    say(textwrap.indent(textwrap.fill(error, WIDTH - 6), "    ") + "\n")
    show_counts(report)
    return code == 1 and report["status"] == "failed" and STREAM in error


def show_counts(report: dict) -> None:
    """Show the counts of a run for each cohort."""
    cohorts = {cohort["cohort_id"]: cohort for cohort in report["cohorts"]}
    names = [name for name in WANTED if name in cohorts]
    rows = [[name, *(cohorts[name][count] for count in COUNTS)] for name in names]
    show(["cohort", *COUNTS], rows)


def compare(
    postgres: Postgres, emulator: EmulatorProcess, cohort_ids: Iterable[str] = WANTED
) -> bool:
    """Show the accepted members and those of SQL; return whether they are the same."""
    rows = []
    for cohort_id in cohort_ids:
        accepted = emulator.members(cohort_id)
        expected = wanted(postgres, cohort_id)
        same = accepted == expected
        result = "same members" if same else f"{len(accepted ^ expected):,} DIFFERENT"
        rows.append([cohort_id, len(accepted), len(expected), result])
    show(["cohort", "accepted", "SQL", ""], rows)
    return all(row[-1] == "same members" for row in rows)


def show(head: list[str], rows: list[list[str | int]]) -> None:
    """Print a small table."""
    text = [head, *([f"{v:,}" if isinstance(v, int) else v for v in row] for row in rows)]
    widths = [max(len(row[column]) for row in text) for column in range(len(head))]
    for row in text:
        first, *others = (value.rjust(width) for value, width in zip(row, widths, strict=True))
        say("  " + "  ".join([first.strip().ljust(widths[0]), *others]).rstrip())
    say("")


def say(text: str) -> None:
    """Print immediately, even into a pipe."""
    print(text, flush=True)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main())
    sys.exit(SIGINT_EXIT)
