"""A mirror whose stream populates many cohorts, compared with one cohort of the same rows."""

from tools.benchmarks.cohort import Mirror, bench, mirror_settings
from tools.benchmarks.data import STREAM
from tools.benchmarks.many_cohorts import (
    Pair,
    Side,
    columns,
    open_files,
    pairs,
    peak_megabytes,
    rows,
)
from tools.benchmarks.sections import Figure, Section, count
from tools.benchmarks.segments import COHORT_COLUMN, write_segments
from tools.benchmarks.sizes import Sizes

COHORT_MEMBERS = 1_000
MOST_COHORTS = 1_000  # that a workspace may have
FIRST, SAME, CHANGED = "first run", "nothing changed", "one in, one out of each"
AIMS = {FIRST: 3, SAME: 1.5, CHANGED: 5}
MOST_FILES = 64
MOST_MEGABYTES = 500
NOTE = (
    "A mirror of one stream with RECORD messages that have a uid and a cohort ID. Adjacent rows "
    "belong to different cohorts. The single cohort reads the same files, without a mapped cohort "
    "column. In the last kind of run, each of the many cohorts gets one new member and loses one, "
    "which takes two requests; the single cohort has the same changes. The emulator's rate limit "
    "is off. Times are of whole processes, run in turn: medians of several runs, except for the "
    "first run and for ten times as many members. Peak memory covers all runs, in millions of "
    "bytes; open files is the highest number sampled every 20 ms."
)


def measure(sizes: Sizes) -> Section:
    """Measure three kinds of run, and in the long form ten times as many members."""
    cohorts = min(MOST_COHORTS, sizes.members // COHORT_MEMBERS)
    results = _measure(sizes.members, cohorts, sizes.rounds)
    table = rows(_titles(sizes.members, cohorts), results)
    figures = _figures(sizes.members, cohorts, results)
    if sizes.long:
        size = 10 * sizes.members
        large = _measure(size, cohorts, sizes.rounds_of(size))
        table += rows(_titles(size, cohorts), large)
        figures += _peaks(_titles(size, cohorts), large)
    return Section("Many cohorts of one stream", columns(results), table, NOTE, "fan-out", figures)


def _measure(size: int, cohorts: int, rounds: int) -> dict[str, Pair]:
    """Run all kinds; return their results by name."""
    mapping = {STREAM: {"cohort_id_column": COHORT_COLUMN}}
    settings = mirror_settings()
    settings["max_new_cohorts"] = cohorts
    with bench(**settings, cohorts=mapping) as many, bench(**settings) as one:
        sources = [many.folder / f"{version}.singer" for version in range(2)]
        for version, source in enumerate(sources):
            write_segments(size, cohorts, version, source)
        sides = [Side(Mirror(place, size, cohorts), sources) for place in (many, one)]
        first = pairs(sides, {FIRST: Mirror.first}, 1)
        return first | pairs(sides, {SAME: Mirror.repeat, CHANGED: Mirror.run}, rounds)


def _titles(size: int, cohorts: int) -> tuple[str, str]:
    return f"{count(cohorts)} cohorts of {count(size / cohorts)}", f"one cohort of {count(size)}"


def _figures(size: int, cohorts: int, results: dict[str, Pair]) -> list[Figure]:
    many, one = _titles(size, cohorts)
    figures = [
        Figure(f"{many}, {kind}: time relative to {one}", pair.ratio, AIMS[kind], at_most=True)
        for kind, pair in results.items()
    ]
    files = open_files(pair.many for pair in results.values())
    return [*figures, Figure(f"{many}: open files", files, MOST_FILES, at_most=True)]


def _peaks(titles: tuple[str, str], results: dict[str, Pair]) -> list[Figure]:
    return [
        Figure(f"{title}: peak memory", peak_megabytes(runs), MOST_MEGABYTES, " MB", at_most=True)
        for title, runs in zip(titles, zip(*results.values(), strict=True), strict=True)
    ]
