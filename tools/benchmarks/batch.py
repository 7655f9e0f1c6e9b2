"""A mirror's steady state by BATCH, compared with the SDK's no-op sink and with bare DuckDB."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tools.benchmarks.batches import SUFFIXES, Format, write_batches
from tools.benchmarks.cohort import Bare, Bench, adopted, bench, mirror_settings
from tools.benchmarks.data import Shape, write_first, write_messages
from tools.benchmarks.processes import Command, Ran, RunFailedError, in_turn
from tools.benchmarks.sections import Figure, Section, count
from tools.benchmarks.sizes import Sizes

COLUMNS = ["", "rows per file", "records", "seconds", "µs per record", "relative to the SDK's sink"]
AIMS = {Format.PARQUET: 120, Format.JSONL_GZIP: 45}
READ_BY_SDK = (Format.PARQUET, Format.JSONL_GZIP)
NOTE = (
    "A mirror of typical rows in local batch files, 0.1% of them changed; whole processes. The "
    "ratio compares the time per record with that of the SDK's no-op sink for RECORD messages, "
    "without its start-up. The rows for the SDK's sink with Parquet and gzip JSONL are that sink "
    "on the same batch files, whose records the SDK does not validate. Bare DuckDB has the memory "
    "and threads of the ledger: it reads the same Parquet files, hashes each uid, joins the hashes "
    "with those in a file and writes the difference back. Times are medians of runs in turn, after "
    "one warm-up run of the target."
)


@dataclass(frozen=True)
class Case:
    """A command and its input."""

    title: str
    rows_a_file: int
    records: int
    command: Command
    aim: float | None = None


def measure(sizes: Sizes) -> Section:
    """Measure each format, with many rows per file and with the SDK's default.

    In the long form also measure ten times as many members, by Parquet.
    """
    with bench(**mirror_settings()) as place:
        of_target, of_sdk, bare = _cases(place, sizes)
        failures = {case: failure for case in of_target if (failure := _failure(case))}
        works = [case for case in of_target if case not in failures]
        cases = [_by_record(place, sizes), *works, *of_sdk, bare]
        commands = [partial(place.sdk, place.empty), *(case.command for case in cases)]
        start_up, *ran = in_turn(sizes.rounds, commands)
    results = dict(zip(cases, ran, strict=True))
    sdk = (ran[0].seconds - start_up.seconds) / sizes.sdk_records
    figures: list[Figure] = []
    for case in [*works, *failures]:
        figures += _figures(case, _times(case, results[case], sdk) if case in works else None)
    parquet = next(case for case in of_target if case.title == Format.PARQUET)
    figures.append(_over_bare(parquet, results.get(parquet), results[bare], 1.8))
    if sizes.long:
        more = large(sizes)
        (case, ran_case), (_, ran_bare) = more.items()
        figures.append(_over_bare(case, ran_case, ran_bare, 1.3))
        results |= more
    rows = [_row(case, each, _times(case, each, sdk)) for case, each in results.items()]
    return Section(
        "Mirror with BATCH messages", COLUMNS, rows, NOTE, "batch", figures, list(failures.values())
    )


def _times(case: Case, ran: Ran, sdk: float) -> float:
    """Return how much faster a case is than the SDK's sink, given its seconds per record."""
    return sdk * case.records / ran.seconds


def large(sizes: Sizes) -> dict[Case, Ran]:
    """Measure ten times as many members: the target, then bare DuckDB."""
    size, rows = 10 * sizes.members, sizes.files[0]
    with bench(**mirror_settings()) as place:
        mirror = adopted(place, size)
        sources = _files(place, size, Format.PARQUET, rows)
        ours = Case(Format.PARQUET.value, rows, size, partial(mirror.run, sources))
        cases = [ours, _bare(place, size, rows, sources)]
        ran = in_turn(sizes.rounds, [case.command for case in cases])
    return dict(zip(cases, ran, strict=True))


def _by_record(place: Bench, sizes: Sizes) -> Case:
    """Return the case of the SDK's sink with RECORD messages."""
    whole, few = place.folder / "whole.singer", place.folder / "few.singer"
    write_messages(sizes.members, Shape.TYPICAL, 1, whole)
    write_first(sizes.sdk_records, whole, few)
    whole.unlink()
    return Case("the SDK's sink, by RECORD", 0, sizes.sdk_records, partial(place.sdk, few))


def _cases(place: Bench, sizes: Sizes) -> tuple[list[Case], list[Case], Case]:
    """Return the cases of the target with each format, of the SDK's sink, and of bare DuckDB."""
    mirror = adopted(place, sizes.members)
    of_target, of_sdk = [], []
    for rows in sizes.files:
        for format_ in Format:
            sources = _files(place, sizes.members, format_, rows)
            command = partial(mirror.run, sources)
            aim = AIMS.get(format_)
            of_target.append(Case(format_.value, rows, sizes.members, command, aim))
            if format_ in READ_BY_SDK and rows == sizes.files[0]:
                title = f"the SDK's sink, {format_.value}"
                of_sdk.append(Case(title, rows, sizes.members, partial(place.sdk, sources[1])))
            if format_ is Format.PARQUET and rows == sizes.files[0]:
                bare = _bare(place, sizes.members, rows, sources)
    return of_target, of_sdk, bare


def _bare(place: Bench, size: int, rows: int, sources: list[Path]) -> Case:
    """Return the case of bare DuckDB on the files that these messages name."""
    patterns = [f"{source.parent}/*{SUFFIXES[Format.PARQUET]}" for source in sources]
    return Case("bare DuckDB, Parquet", rows, size, Bare(place, "parquet", patterns, size).run)


def _files(place: Bench, size: int, format_: Format, rows: int) -> list[Path]:
    """Write both versions as batch files."""
    folders = [place.folder / f"{format_.name}-{rows}-{version}" for version in range(2)]
    return [
        write_batches(size, version, format_, rows, folder)
        for version, folder in enumerate(folders)
    ]


def _failure(case: Case) -> str | None:
    """Run a command once, and return why it fails, if it does."""
    try:
        case.command()
    except RunFailedError as error:
        return f"{case.title}, {count(case.rows_a_file)} rows per file: {error}"
    return None


def _figures(case: Case, times: float | None) -> list[Figure]:
    if case.aim is None:
        return []
    name = f"mirror, {count(case.records)} typical records, {case.title} of "
    name += f"{count(case.rows_a_file)} rows: speed relative to the SDK's sink"
    return [Figure(name, times, case.aim, " times")]


def _over_bare(case: Case, ran: Ran | None, bare: Ran, aim: float) -> Figure:
    name = f"mirror, {count(case.records)} typical records, {case.title} of "
    name += f"{count(case.rows_a_file)} rows: time relative to bare DuckDB"
    return Figure(name, ran and ran.seconds / bare.seconds, aim, at_most=True)


def _row(case: Case, ran: Ran, times: float) -> list[str]:
    rows_a_file = count(case.rows_a_file) if case.rows_a_file else ""
    each = f"{ran.seconds / case.records * 1e6:.2f}"
    ratio = f"{times:.1f} times"
    return [case.title, rows_a_file, count(case.records), f"{ran.seconds:.2f}", each, ratio]
