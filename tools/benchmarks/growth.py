"""The growth of time and memory with the size of a mirror."""

from functools import partial

from tools.benchmarks.cohort import adopted, bench, mirror_settings
from tools.benchmarks.data import Shape, write_messages
from tools.benchmarks.processes import Ran, in_turn
from tools.benchmarks.sections import Figure, Section, count
from tools.benchmarks.sizes import Sizes

COLUMNS = ["members", "seconds", "µs per record", "peak memory, MB", "time relative to the first"]
NOTE = (
    "A mirror of narrow RECORDs, 0.1% of them changed, at growing sizes; whole processes. Peak "
    "memory is resident memory, in millions of bytes. The first row is the median of several runs; "
    "the others are single runs."
)


def measure(sizes: Sizes) -> Section:
    """Measure one size, ten times that, and in the long form fifty times that."""
    members = [sizes.members, 10 * sizes.members, *([50 * sizes.members] if sizes.long else [])]
    results = {size: _measure(size, sizes.rounds_of(size)) for size in members}
    first = results[sizes.members].seconds
    rows = [
        [
            count(size),
            f"{ran.seconds:.2f}",
            f"{ran.seconds / size * 1e6:.2f}",
            count(ran.peak_bytes / 1e6),
            f"{ran.seconds / first:.1f}",
        ]
        for size, ran in results.items()
    ]
    large = 10 * sizes.members
    peak, growth = results[large].peak_bytes / 1e6, results[large].seconds / first
    figures = [
        Figure(f"peak memory, {count(large)} members", peak, 500, " MB", at_most=True),
        Figure(
            f"time for {count(large)} relative to {count(sizes.members)}", growth, 11, at_most=True
        ),
    ]
    return Section("Time and memory by size", COLUMNS, rows, NOTE, "growth", figures)


def _measure(size: int, rounds: int) -> Ran:
    with bench(**mirror_settings()) as place:
        mirror = adopted(place, size)
        sources = [place.folder / f"{version}.singer" for version in range(2)]
        for version, source in enumerate(sources):
            if version or rounds > 1:
                write_messages(size, Shape.NARROW, version, source)
        (ran,) = in_turn(rounds, [partial(mirror.run, sources)])
    return ran
