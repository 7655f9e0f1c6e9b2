"""The demo of several hosts (`make demo-hosts`): one ledger and one limit, on one PostgreSQL.

Two processes have a HOME each, as on two machines. It exits with 1 if MoEngage was sent more than
the limit, or has other members than the inputs.
"""

import contextlib
import signal
import sys
import tempfile
from pathlib import Path

from tests.support.emulator import EmulatorProcess
from tests.support.hosts import Hosts, Wanted, busiest
from tests.support.postgres import Postgres
from tools.demo.__main__ import SIGINT_EXIT, SIGTERM_EXIT, say, show

LIMIT = 15
STREAMS = ("buyers", "members", "visitors")
NAMES = ("Tokyo", "New York")


def main() -> int:
    """Run the demo."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(SIGTERM_EXIT))
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="demo-")))
        say("Starting PostgreSQL, which keeps the ledger, and a MoEngage emulator.")
        postgres = stack.enter_context(Postgres())
        emulator = stack.enter_context(EmulatorProcess(f"--requests-per-minute={LIMIT}"))
        hosts = Hosts(folder, postgres, emulator, LIMIT)
        say(f"  ledger_uri  {hosts.uri}")
        say(f"  MoEngage    {emulator.url}, which takes {LIMIT} requests a minute\n")

        say(f"Two hosts start at once; both have the stream {STREAMS[1]}. Together they have more")
        say("requests than a minute allows, so this takes a little over a minute.")
        first = {name: people(1000 * n, 900) for n, name in enumerate(STREAMS)}
        is_right = _round(hosts, first, emulator)

        say("The hosts are replaced by new ones with empty disks, and the audiences change:")
        say("in each, 10 members leave and 10 join. The new hosts send the difference only.")
        second = {name: people(1000 * n + 10, 900) for n, name in enumerate(STREAMS)}
        is_right &= _round(hosts, second, emulator)

        requests = [each for stream in STREAMS for each in emulator.requests(stream)]
        most = busiest((each["arrived"] for each in requests), 60)
        refused = sum(each["status"] == 429 for each in requests)
    say(f"{len(requests)} requests, at most {most} in a minute, {refused} refused.")
    if is_right and most <= LIMIT and not refused:
        say("MoEngage has exactly the members of the inputs. Nothing is left running.")
        return 0
    say("The members differ from the inputs, or the limit was not kept.")
    return 1


def people(first: int, count: int) -> list[str]:
    """Return the identifiers of some users."""
    return [f"user-{number:08}" for number in range(first, first + count)]


def _round(hosts: Hosts, wanted: Wanted, emulator: EmulatorProcess) -> bool:
    """Run on both hosts at once, and show what each did; return whether the members are right."""
    chosen = (STREAMS[:2], STREAMS[:0:-1])
    runs = [hosts.start({each: wanted[each] for each in streams}) for streams in chosen]
    rows: list[list[str | int]] = []
    for name, run in zip(NAMES, runs, strict=True):
        report = run.end()
        for cohort in report["cohorts"]:
            counts = [cohort[each] for each in ("added", "removed", "unchanged", "requests")]
            rows.append([name, cohort["cohort_id"], cohort["status"], *counts])
    show(["host", "cohort", "status", "added", "removed", "unchanged", "requests"], rows)
    return all(
        {uid for uid, _ in emulator.members(stream)} == {*uids} for stream, uids in wanted.items()
    )


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main())
    sys.exit(SIGINT_EXIT)
