"""The benchmarks, for `make bench` and `make bench-report`."""

import argparse
import signal
import sys
from collections.abc import Callable

from tools.benchmarks import (
    batch,
    cold,
    doubt,
    engines,
    fan_out,
    growth,
    mirror,
    packing,
    report,
    startup,
    streams,
)
from tools.benchmarks.data import GONE_ONE_IN
from tools.benchmarks.processes import RunFailedError
from tools.benchmarks.sections import Section
from tools.benchmarks.sizes import Sizes

SIGTERM_EXIT = 128 + signal.SIGTERM
BENCHMARKS: dict[str, Callable[[Sizes], Section]] = {
    "mirror": mirror.measure,
    "batch": batch.measure,
    "growth": growth.measure,
    "fan-out": fan_out.measure,
    "streams": streams.measure,
    "doubt": doubt.measure,
    "engines": engines.measure,
    "cold": cold.measure,
    "packing": packing.measure,
    "startup": startup.measure,
}


def main() -> int:
    """Run the requested benchmarks, or all."""
    parser = argparse.ArgumentParser(prog="python -m tools.benchmarks")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(BENCHMARKS)}")
    parser.add_argument("--members", type=int, default=Sizes.members)
    parser.add_argument("--long", action="store_true", help="measure everything")
    parser.add_argument("--report", action="store_true", help="write docs/performance.md")
    chosen = parser.parse_args()
    if unknown := set(chosen.names) - set(BENCHMARKS):
        parser.error(f"unknown benchmark: {', '.join(sorted(unknown))}")
    if chosen.members < GONE_ONE_IN:
        parser.error(f"--members must be at least {GONE_ONE_IN}, so that one member changes")
    if chosen.report and chosen.names:
        parser.error("--report runs all benchmarks")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(SIGTERM_EXIT))
    sizes = Sizes(chosen.members, chosen.long)
    sections = []
    for name in chosen.names or BENCHMARKS:
        sections.append(measured(name, sizes))
        print(f"{sections[-1].text()}\n", flush=True)
    print(report.targets(sections))
    if chosen.report:
        report.write(sections)
    return 1 if any(section.failures for section in sections) else 0


def measured(name: str, sizes: Sizes) -> Section:
    """Run a benchmark; return a section without a table if it fails as a whole."""
    try:
        return BENCHMARKS[name](sizes)
    except RunFailedError as error:
        return Section(name.capitalize(), [], [], "", name, failures=[str(error)])


if __name__ == "__main__":
    sys.exit(main())
