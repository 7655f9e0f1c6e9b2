"""A mirror of many streams, compared with one cohort of as many members."""

from tools.benchmarks.cohort import Bench, Mirror, bench, mirror_settings
from tools.benchmarks.data import STREAM
from tools.benchmarks.many_cohorts import Pair, Side, columns, pairs, rows
from tools.benchmarks.sections import Figure, Section, count
from tools.benchmarks.segments import write_streams
from tools.benchmarks.sizes import Sizes

STREAM_MEMBERS = 5_000
FIRST, SAME = "first run", "nothing changed"
AIM = 4
NOTE = (
    "A mirror of many streams, one after the other, each of which populates its own cohort, "
    "compared with a mirror of one cohort with the same members. RECORD messages have only a uid. "
    "The emulator's rate limit is off. Times are of whole processes, run in turn: medians of "
    "several runs, except for the first run. Peak memory covers all runs, in millions of bytes; "
    "open files is the highest number sampled every 20 ms."
)


def measure(sizes: Sizes) -> Section:
    """Measure a run in which nothing changed, after a first one."""
    streams = max(2, sizes.members // STREAM_MEMBERS)
    members = sizes.members // streams
    results = _measure(streams, members, sizes.rounds)
    many = f"{count(streams)} streams of {count(members)}"
    one = f"one cohort of {count(streams * members)}"
    name = f"{many}, {SAME}: time relative to {one}"
    figures = [Figure(name, results[SAME].ratio, AIM, at_most=True)]
    table = rows((many, one), results)
    return Section("Many streams", columns(results), table, NOTE, "streams", figures)


def _measure(streams: int, members: int, rounds: int) -> dict[str, Pair]:
    """Run both kinds; return their results by name."""
    size = streams * members
    settings = mirror_settings()
    settings["max_new_cohorts"] = streams
    with bench(**settings) as many, bench(**settings) as one:
        names = [f"{STREAM}-{number}" for number in range(streams)]
        sides = [_side(many, size, names), _side(one, size, [STREAM])]
        first = pairs(sides, {FIRST: Mirror.first}, 1)
        return first | pairs(sides, {SAME: Mirror.repeat}, rounds)


def _side(place: Bench, size: int, names: list[str]) -> Side:
    source = place.folder / "messages.singer"
    write_streams(size, names, source)
    return Side(Mirror(place, size, changes=0), [source])
