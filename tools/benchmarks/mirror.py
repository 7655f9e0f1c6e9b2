"""A mirror's steady state by RECORD, compared with the SDK's no-op sink and with bare DuckDB."""

from functools import partial
from pathlib import Path

from tools.benchmarks.cohort import Bare, Bench, Mirror, adopted, bench, mirror_settings
from tools.benchmarks.data import Shape, write_first, write_messages
from tools.benchmarks.processes import Ran, in_turn
from tools.benchmarks.sections import Figure, Section, count
from tools.benchmarks.sizes import Sizes

COLUMNS = [
    "",
    "records",
    "seconds",
    "µs per record",
    "without start-up",
    "relative speed of the target",
    "without start-up",
]
NOTE = (
    "A mirror reads all of its members again, 0.1% of them changed (half removed, half new), and "
    "sends the difference. It is compared with three programs. The first is a target made with the "
    "SDK, with a no-op sink. The second is bare DuckDB with the memory and threads of the ledger: "
    "it reads the same file with `read_json`, hashes each uid, joins the hashes with those in a "
    "file and writes the difference back. The third decodes the same lines with msgspec and "
    "discards them. Times are medians of whole processes, run in turn; start-up is a run on an "
    "empty input. *Narrow* rows have only a uid; *typical* rows have the columns that an SQL tap "
    "writes. The SDK's sink gets fewer records, so its start-up is always subtracted before it is "
    "compared."
)


def measure(sizes: Sizes) -> Section:
    """Measure both shapes at one size, and in the long form at ten times that size."""
    rows: list[list[str]] = []
    figures: list[Figure] = []
    for size in [sizes.members, *([10 * sizes.members] if sizes.long else [])]:
        with bench(**mirror_settings()) as place:
            mirror = adopted(place, size)
            for shape in Shape:
                results = _measure(place, mirror, size, shape, sizes)
                rows += _rows(shape, size, sizes.sdk_records, results)
                figures += _figures(shape, size, sizes, results)
    return Section("Mirror with RECORD messages", COLUMNS, rows, NOTE, "mirror", figures)


def _measure(
    place: Bench, mirror: Mirror, size: int, shape: Shape, sizes: Sizes
) -> dict[str, tuple[Ran, Ran]]:
    """Run everything; return the result of each command with and without input."""
    sources = [place.folder / f"{version}.singer" for version in range(2)]
    for version, source in enumerate(sources):
        write_messages(size, shape, version, source)
    few = place.folder / "few.singer"
    write_first(sizes.sdk_records, sources[1], few)
    lines = [partial(place.floor, source) for source in (sources[1], place.empty)]
    blocks = [partial(place.floor, source, "--blocks") for source in (sources[1], place.empty)]
    bare = Bare(place, "records", [str(source) for source in sources], size)
    nothing = Bare(place, "records", [str(place.empty)] * 2, 0)
    commands = [
        partial(mirror.run, sources),
        partial(place.target, place.empty),
        *(partial(place.sdk, source) for source in (few, place.empty)),
        *lines,
        *blocks,
        bare.run,
        nothing.run,
    ]
    ran = in_turn(sizes.rounds_of(size), commands)
    _remove(*sources, few, bare.database, nothing.database)
    names = ["target", "sdk", "floor", "blocks", "bare"]
    return dict(zip(names, zip(ran[::2], ran[1::2], strict=True), strict=True))


def _remove(*paths: Path) -> None:
    for path in paths:
        path.unlink()


def _per_record(ran: Ran, empty: Ran, records: int) -> tuple[float, float]:
    """Return the seconds per record: of the whole process, and without its start-up."""
    return ran.seconds / records, (ran.seconds - empty.seconds) / records


def _rows(
    shape: Shape, size: int, sdk_records: int, results: dict[str, tuple[Ran, Ran]]
) -> list[list[str]]:
    titles = {
        "target": "the target",
        "sdk": "the SDK's no-op sink",
        "bare": "bare DuckDB, `read_json`",
        "floor": "msgspec, line by line",
        "blocks": "msgspec, `decode_lines`",
    }
    ours = _per_record(*results["target"], size)
    rows = []
    for name, title in titles.items():
        records = sdk_records if name == "sdk" else size
        whole, inner = _per_record(*results[name], records)
        seconds = results[name][0].seconds
        row = [f"{shape.value}: {title}", count(records), f"{seconds:.2f}"]
        row += [f"{each * 1e6:.2f}" for each in (whole, inner)]
        if name == "target":
            row += ["", ""]
        elif name == "sdk":
            row += [f"{inner / each:.1f} times" for each in ours]
        else:
            row += [f"{whole / ours[0]:.0%}", f"{inner / ours[1]:.0%}"]
        rows.append(row)
    return rows


def _figures(
    shape: Shape, size: int, sizes: Sizes, results: dict[str, tuple[Ran, Ran]]
) -> list[Figure]:
    ours, _ = _per_record(*results["target"], size)
    _, sdk = _per_record(*results["sdk"], sizes.sdk_records)
    what = f"mirror, {count(size)} {shape.value} RECORDs"
    figures = [Figure(f"{what}: speed relative to the SDK's sink", sdk / ours, 25, " times")]
    if shape is Shape.TYPICAL and size == sizes.members:
        bare, _ = _per_record(*results["bare"], size)
        name = f"{what}: time relative to bare DuckDB's read_json"
        figures.append(Figure(name, ours / bare, 2, at_most=True))
    return figures
