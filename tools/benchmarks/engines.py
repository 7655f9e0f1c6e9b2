"""What a mirror costs with a ledger on files and with one on PostgreSQL, at growing sizes."""

import contextlib
import threading
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.support.postgres import KEEPS_ITS_WORD, Postgres
from tools.benchmarks.cohort import Bench, Mirror, adopted, bench, mirror_settings
from tools.benchmarks.data import Shape, changed, write_messages
from tools.benchmarks.processes import Command, Ran, in_turn
from tools.benchmarks.sections import Figure, Section, count
from tools.benchmarks.sizes import Sizes

COLUMNS = [
    "members",
    "ledger",
    "first run, s",
    "later run, s",
    "peak memory, MB",
    "disk during the run, MB",
    "ledger, MB",
    "later run relative to files",
]
SAMPLE_SECONDS = 0.1
NOTE = (
    "A mirror of narrow RECORDs with UUIDs; whole processes, with the emulator's rate limit off. "
    "In the later run, 0.1% of the rows have changed. The PostgreSQL server is on the same "
    "machine, with `fsync`. First runs of more than ten times the first size are not measured "
    "because they do not fit into the emulator. Later runs are run in turn: medians of several "
    "runs at the first size, single runs at the others. Disk is the highest sampled size of the "
    "state and temporary directories; it includes a ledger in files. All megabytes are millions of "
    "bytes."
)


@dataclass(frozen=True)
class Costs:
    """What the runs of a mirror cost.

    Attributes:
        first: The first run; ``None`` if it was not measured.
        later: A run with few changes.
        disk: The most bytes on the run's disk.
        ledger: The bytes of the ledger afterwards.
    """

    first: Ran | None
    later: Ran
    disk: int
    ledger: int


def measure(sizes: Sizes) -> Section:
    """Measure both engines at one size, ten times that, and in the long form fifty times that."""
    members = [sizes.members, 10 * sizes.members, *([50 * sizes.members] if sizes.long else [])]
    rows: list[list[str]] = []
    figures: list[Figure] = []
    for size in members:
        files, server = _measure(sizes, size)
        ratio = server.later.seconds / files.later.seconds
        rows += [_row(size, "files", files, None), _row(size, "PostgreSQL", server, ratio)]
        if size <= 10 * sizes.members:
            name = f"mirror of {count(size)}: time on PostgreSQL relative to files"
            figures.append(Figure(name, ratio, 3 if size == sizes.members else 4, at_most=True))
            peak = server.later.peak_bytes / 1e6
            name = f"peak memory on PostgreSQL, {count(size)} members"
            figures.append(Figure(name, peak, 500, " MB", at_most=True))
    return Section("Files and PostgreSQL", COLUMNS, rows, NOTE, "engines", figures)


def _measure(sizes: Sizes, size: int) -> tuple[Costs, Costs]:
    """Measure files, then PostgreSQL, at one size."""
    settings = mirror_settings()
    options = {**KEEPS_ITS_WORD, "shared_buffers": "256MB"}
    with (
        Postgres(**options) as server,
        bench(**settings) as files,
        bench(**settings, ledger_uri=server.uri) as remote,
    ):
        sources = [files.folder / f"{version}.singer" for version in range(2)]
        for version, source in enumerate(sources):
            write_messages(size, Shape.NARROW, version, source)
        sides = [_prepare(place, size, sizes, sources) for place in (files, remote)]
        disks = [Disk(place.state, place.scratch) for place in (files, remote)]
        commands: list[Command] = [
            partial(disk.watch, partial(mirror.run, sources))
            for disk, (mirror, _) in zip(disks, sides, strict=True)
        ]
        later = in_turn(sizes.rounds_of(size), commands)
        ((database,),) = server.query("select pg_database_size(current_database())")
        ledgers = [bytes_in(files.state), database]
    costs = [
        Costs(first, ran, disk.most, ledger)
        for (_, first), ran, disk, ledger in zip(sides, later, disks, ledgers, strict=True)
    ]
    return costs[0], costs[1]


def _prepare(
    place: Bench, size: int, sizes: Sizes, sources: list[Path]
) -> tuple[Mirror, Ran | None]:
    """Bring version 0 into the ledger: by a first run, or without one if it is too large."""
    if size > 10 * sizes.members:
        return adopted(place, size), None
    mirror = Mirror(place, size, changed(size))
    return mirror, mirror.first(sources)


class Disk:
    """The disk that runs use.

    Attributes:
        most: The most bytes that were in its files, in samples.
    """

    def __init__(self, *folders: Path) -> None:
        self._folders = folders
        self.most = 0

    def watch(self, command: Command) -> Ran:
        """Run a command, and watch these folders meanwhile."""
        ended = threading.Event()
        watcher = threading.Thread(target=self._sample, args=[ended])
        watcher.start()
        try:
            return command()
        finally:
            ended.set()
            watcher.join()

    def _sample(self, ended: threading.Event) -> None:
        while not ended.wait(SAMPLE_SECONDS):
            self.most = max(self.most, sum(map(bytes_in, self._folders)))


def bytes_in(folder: Path) -> int:
    """Return the bytes that a folder's files take on the disk; files may go meanwhile."""
    found = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            found += path.stat().st_blocks * 512
    return found


def _row(size: int, ledger: str, costs: Costs, ratio: float | None) -> list[str]:
    return [
        count(size),
        ledger,
        f"{costs.first.seconds:.1f}" if costs.first else "",
        f"{costs.later.seconds:.2f}",
        count(costs.later.peak_bytes / 1e6),
        count(costs.disk / 1e6),
        count(costs.ledger / 1e6),
        f"{ratio:.2f}" if ratio else "",
    ]
