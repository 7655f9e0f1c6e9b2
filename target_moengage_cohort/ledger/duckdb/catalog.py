"""The folder of one destination: its identity, its catalogue of cohorts, and its locks.

Nothing in here knows what is in a ledger.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import typing as t
from pathlib import Path

import msgspec

from target_moengage_cohort.core.errors import LedgerError, SettingsError
from target_moengage_cohort.core.files import (
    Lock,
    Step,
    make_folder,
    mended,
    read_whole,
    try_out,
    write_whole,
)
from target_moengage_cohort.core.scratch import (
    Scratch,
    remove_dead,
    remove_dead_temporary,
    temporary_scratch,
)
from target_moengage_cohort.ledger.duckdb import run_files
from target_moengage_cohort.ledger.records import FORMAT, CohortEntry
from target_moengage_cohort.settings.addresses import state_path

if t.TYPE_CHECKING:
    from collections.abc import Iterator

    from target_moengage_cohort.settings import Settings

_NEWEST_VERSIONS = 100
_KEY_BYTES = 12  # 16 characters: with them and a UUID, MD5 has one block to work on, not two


class _Destination(msgspec.Struct, frozen=True, kw_only=True):
    """`destination.json`; the field `format` decides whether we may read on."""

    format: int
    base_url: str
    workspace_id: str
    hash_key: str


class _Stream(msgspec.Struct, frozen=True):
    """What outlives the runs of a stream, whatever cohorts it feeds.

    Attributes:
        versions: Those that unfinished runs read, the oldest first.
        run_id: The latest run.
    """

    versions: list[int] = []
    run_id: str | None = None


def _stem(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


class Folder:
    """Where the ledgers of one destination are.

    Args:
        settings: Which destination, partner and folder.
        read_only: Make and change nothing but locks.
        step: See `Step`.

    Attributes:
        path: The folder.
        exists: Whether it is there.
        hash_key: What members' hashes are keyed with; known once prepared.
        identity: The destination and its key in one word, which every ledger repeats; likewise.
    """

    def __init__(self, settings: Settings, *, read_only: bool, step: Step) -> None:
        self._settings = settings
        self._partner = settings.partner
        self._read_only = read_only
        self._step = step
        parent = settings.ledger_folder
        self.root = Path(parent).absolute() if parent is not None else state_path() / "ledger"
        self.path = self.root / _stem(settings.base_url, settings.workspace_id)
        self.exists = os.path.isdir(self.path)  # noqa: PTH112 - not to be seen is no error yet
        self._used: set[tuple[str, int]] = set()

    def prepare(self) -> None:
        """Make the folder if it is not there, and take away what dead runs left.

        Raises:
            LedgerError: The disk refuses it.
            SettingsError: The folder is another destination's, or of a newer format.
        """
        if not self._read_only:
            make_folder(self.path)
            self.exists = True
            self._step("make folder")
        with self._locked():
            destination = self._destination(self._settings)
            if not self._read_only:
                remove_dead(self.path.glob("spill-*"))
                run_files.remove_stale(self.path)
        self.hash_key = destination.hash_key
        self.identity = _stem(destination.base_url, destination.workspace_id, self.hash_key)

    def check(self) -> None:
        """See that the folder can be used, or made; nothing is made or changed but locks.

        Raises:
            LedgerError: The disk refuses it.
            SettingsError: The folder is another destination's, or of a newer format.
        """
        with mended(self.path, "used"):
            try_out(self.path)
        self.prepare()

    def _destination(self, settings: Settings) -> _Destination:
        path = self.path / "destination.json"
        found = read_whole(path, _Destination)
        if found is None:
            found = _Destination(
                format=FORMAT,
                base_url=settings.base_url,
                workspace_id=settings.workspace_id,
                hash_key=secrets.token_urlsafe(_KEY_BYTES),
            )
            if not self._read_only:
                write_whole(path, found, self._step)
        if found.format > FORMAT:
            raise SettingsError(newer(self.path))
        if (found.base_url, found.workspace_id) != (settings.base_url, settings.workspace_id):
            msg = (
                f"ledger_uri: the folder {self.path} belongs to another destination (base URL and "
                "workspace_id); put it back under its own name, or use another ledger_uri"
            )
            raise SettingsError(msg)
        return found

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep other processes from changing what is not one cohort's alone."""
        if not self.exists:
            yield
            return
        lock = Lock(self.path / "destination.lock", is_optional=self._read_only)
        lock.acquire(blocking=True)
        try:
            yield
        finally:
            lock.release()

    # The catalogue

    def database(self, cohort_id: str) -> Path:
        """The file of a cohort's ledger."""
        return self.path / f"cohort-{_stem(self._partner, cohort_id)}.duckdb"

    def lock(self, cohort_id: str) -> Lock | None:
        """The lock of a cohort's ledger; ``None`` where there is nothing to lock."""
        if not self.exists:
            return None
        path = self.database(cohort_id).with_suffix(".lock")
        return Lock(path, is_optional=self._read_only)

    def has(self, cohort_id: str) -> bool:
        """Whether the cohort has a ledger."""
        path = self.database(cohort_id)
        files = (path, path.with_suffix(".json"))
        return any(os.path.exists(file) for file in files)  # noqa: PTH110 - as above

    def entry(self, cohort_id: str) -> CohortEntry | None:
        """What the catalogue says of a cohort.

        Raises:
            LedgerError: The entry cannot be read.
        """
        return read_whole(self.database(cohort_id).with_suffix(".json"), CohortEntry)

    def entries(self) -> tuple[list[CohortEntry], list[Path]]:
        """What the catalogue says.

        Returns:
            The cohorts of this destination, and the ledgers whose entry is missing or broken.
        """
        found: list[CohortEntry] = []
        unlisted: list[Path] = []
        for path in {path.with_suffix(".json") for path in self.path.glob("cohort-*.*")}:
            with contextlib.suppress(LedgerError):
                if (entry := read_whole(path, CohortEntry)) is not None:
                    found.append(entry)
                    continue
            if (database := path.with_suffix(".duckdb")).exists():
                unlisted.append(database)
        return found, unlisted

    def write_entry(self, entry: CohortEntry) -> None:
        """Put a cohort into the catalogue, or change what it says of it.

        Raises:
            LedgerError: The disk refuses it.
        """
        write_whole(self.database(entry.cohort_id).with_suffix(".json"), entry, self._step)

    # The runs and versions of a stream

    def begin(self, stream: str, run_id: str) -> None:
        """Note that a run of a stream begins, as `Ledgers.begin`."""
        with self._locked():
            known = self._stream(stream)
            if known.run_id != run_id:
                self._write_stream(stream, msgspec.structs.replace(known, run_id=run_id))

    def latest_run(self, stream: str) -> str | None:
        """The latest run of a stream that has begun, if one is known."""
        return self._stream(stream).run_id

    def use_version(self, stream: str, version: int) -> bool:
        """Note that this run reads a version of a stream, as `Ledgers.use_version`."""
        with self._locked():
            versions = self._stream(stream).versions
            is_new = (stream, version) in self._used or version not in versions
            if version not in versions and not self._read_only:
                self._write_versions(stream, [*versions, version][-_NEWEST_VERSIONS:])
        if is_new:
            self._used.add((stream, version))
        return is_new

    def finish_version(self, stream: str, version: int) -> None:
        """Forget a version: the run that read it was good."""
        with self._locked():
            versions = self._stream(stream).versions
            if version in versions and not self._read_only:
                versions.remove(version)
                self._write_versions(stream, versions)

    def _stream_path(self, stream: str) -> Path:
        return self.path / f"stream-{_stem(self._partner, stream)}.json"

    def _stream(self, stream: str) -> _Stream:
        return read_whole(self._stream_path(stream), _Stream) or _Stream()

    def _write_stream(self, stream: str, known: _Stream) -> None:
        write_whole(self._stream_path(stream), known, self._step)

    def _write_versions(self, stream: str, versions: list[int]) -> None:
        self._write_stream(stream, msgspec.structs.replace(self._stream(stream), versions=versions))

    # What DuckDB spills

    def spill(self, run_id: str) -> Scratch:
        """A folder for what does not fit into memory; elsewhere if nothing here may change.

        Raises:
            LedgerError: It cannot be made.
        """
        remove_dead_temporary()
        if self._read_only:
            return temporary_scratch()
        with self._locked():
            return Scratch(self.path / f"spill-{run_id}")


def newer(path: Path) -> str:
    """What to say of a file that a later version of this program made."""
    return (
        f"the ledger {path} was made by a newer version of this program; upgrade "
        "target-moengage-cohort here, too"
    )
