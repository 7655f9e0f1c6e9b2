"""The directory of one destination: its identity, its catalog of cohorts and its locks."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import typing as t
from pathlib import Path

import msgspec

from target_moengage_cohort.core import files, scratch
from target_moengage_cohort.core.errors import LedgerError, SettingsError
from target_moengage_cohort.ledger.records import FORMAT, CohortEntry, RunProgress
from target_moengage_cohort.settings.addresses import state_path

if t.TYPE_CHECKING:
    from collections.abc import Iterator

    from target_moengage_cohort.settings import Settings

_NEWEST_VERSIONS = 100
_KEY_BYTES = 12  # 16 characters: with them and a UUID, MD5 has one block to work on, not two


class _Destination(msgspec.Struct, frozen=True, kw_only=True):
    """`destination.json`; the field `format` shows whether this version can read the rest."""

    format: int
    base_url: str
    workspace_id: str
    hash_key: str


class _Stream(msgspec.Struct, frozen=True):
    """The record of a stream for later runs."""

    versions: list[int] = []  # those that unfinished runs have read, the oldest first
    run_id: str | None = None  # the latest run


def _stem(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


class Catalog:
    """The directory with the ledgers of one destination, without their content.

    Attributes:
        hash_key: The key of the members' hashes; set by `prepare`.
        identity: Identifies the destination and its key, and is part of every ledger; likewise.
    """

    def __init__(self, settings: Settings, *, read_only: bool, step: files.Step) -> None:
        self._settings = settings
        self._partner = settings.partner
        self.read_only = read_only
        self.step = step
        parent = settings.ledger_folder
        root = Path(parent).absolute() if parent is not None else state_path() / "ledger"
        self.path = root / _stem(settings.base_url, settings.workspace_id)
        self.exists = os.path.isdir(self.path)  # noqa: PTH112 - an unreadable parent is not an error yet
        self._used: set[tuple[str, int]] = set()

    def prepare(self) -> None:
        """Create the directory if it is missing, and remove the leftovers of dead runs."""
        if not self.read_only:
            files.make_directory(self.path)
            self.exists = True
            self.step("create directory")
        with self._locked():
            destination = self._destination()
            if not self.read_only:
                scratch.remove_dead(self.path.glob("spill-*"))
                self._remove_killed_runs()
        self.hash_key = destination.hash_key
        self.identity = _stem(destination.base_url, destination.workspace_id, self.hash_key)

    def check(self) -> None:
        """Check that the directory can be used or created, without creating it."""
        with files.as_ledger_error(self.path, "used"):
            files.try_out(self.path)
        self.prepare()

    def _destination(self) -> _Destination:
        base_url, workspace_id = self._settings.base_url, self._settings.workspace_id
        path = self.path / "destination.json"
        destination = files.read_json(path, _Destination)
        if destination is None:
            hash_key = secrets.token_urlsafe(_KEY_BYTES)
            destination = _Destination(
                format=FORMAT, base_url=base_url, workspace_id=workspace_id, hash_key=hash_key
            )
            if not self.read_only:
                files.write_json(path, destination, self.step)
        if destination.format > FORMAT:
            raise newer(self.path)
        if (destination.base_url, destination.workspace_id) != (base_url, workspace_id):
            msg = (
                f"ledger_uri: the directory {self.path} belongs to another destination (base URL "
                "and workspace_id); give it back its own name, or use another ledger_uri"
            )
            raise SettingsError("ledger_mismatch", msg)
        return destination

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Lock what the cohorts share against other processes."""
        if not self.exists:
            yield
            return
        lock = files.Lock(self.path / "destination.lock", is_optional=self.read_only)
        lock.acquire(blocking=True)
        try:
            yield
        finally:
            lock.release()

    # The cohorts

    def database(self, cohort_id: str) -> Path:
        """Return the file of a cohort's ledger."""
        return self.path / f"cohort-{_stem(self._partner, cohort_id)}.duckdb"

    def lock(self, cohort_id: str) -> files.Lock | None:
        """Return the lock of a cohort's ledger, or ``None`` if there is nothing to lock."""
        if not self.exists:
            return None
        path = self.database(cohort_id).with_suffix(".lock")
        return files.Lock(path, is_optional=self.read_only)

    def has(self, cohort_id: str) -> bool:
        """Return whether the cohort has a ledger."""
        path = self.database(cohort_id)
        either = (path, path.with_suffix(".json"))
        return any(os.path.exists(file) for file in either)  # noqa: PTH110 - as above

    def entry(self, cohort_id: str) -> CohortEntry | None:
        """Return a cohort's entry, or ``None`` if it has none."""
        return files.read_json(self.database(cohort_id).with_suffix(".json"), CohortEntry)

    def entries(self) -> tuple[list[CohortEntry], list[Path]]:
        """Return all entries, and the ledgers whose entry is missing or corrupt."""
        entries: list[CohortEntry] = []
        unlisted: list[Path] = []
        for path in {path.with_suffix(".json") for path in self.path.glob("cohort-*.*")}:
            with contextlib.suppress(LedgerError):
                if (entry := files.read_json(path, CohortEntry)) is not None:
                    entries.append(entry)
                    continue
            if (database := path.with_suffix(".duckdb")).exists():
                unlisted.append(database)
        return entries, unlisted

    def write_entry(self, entry: CohortEntry) -> None:
        """Add or replace a cohort's entry."""
        files.write_json(self.database(entry.cohort_id).with_suffix(".json"), entry, self.step)

    # The runs and versions of a stream

    def begin(self, stream: str, run_id: str) -> None:
        """See `LedgerStore.begin`."""
        with self._locked():
            if self._stream(stream).run_id != run_id:
                self._change_stream(stream, run_id=run_id)

    def latest_run(self, stream: str) -> str | None:
        """Return the latest run that has begun to read a stream, if there is one."""
        return self._stream(stream).run_id

    def use_version(self, stream: str, version: int) -> bool:
        """See `LedgerStore.use_version`."""
        with self._locked():
            versions = self._stream(stream).versions
            is_new = (stream, version) in self._used or version not in versions
            if version not in versions:
                self._change_stream(stream, versions=[*versions, version][-_NEWEST_VERSIONS:])
        if is_new:
            self._used.add((stream, version))
        return is_new

    def finish_version(self, stream: str, version: int) -> None:
        """See `LedgerStore.finish_version`."""
        with self._locked():
            versions = self._stream(stream).versions
            if version in versions:
                self._change_stream(stream, versions=[each for each in versions if each != version])

    def _stream_path(self, stream: str) -> Path:
        return self.path / f"stream-{_stem(self._partner, stream)}.json"

    def _stream(self, stream: str) -> _Stream:
        return files.read_json(self._stream_path(stream), _Stream) or _Stream()

    def _change_stream(self, stream: str, **changes: t.Any) -> None:
        if not self.read_only:
            record = msgspec.structs.replace(self._stream(stream), **changes)
            files.write_json(self._stream_path(stream), record, self.step)

    # The progress of runs, in files that others can read while the ledgers are locked

    def runs_under_way(self) -> list[RunProgress]:
        """Return the latest progress of each run whose process is alive, the oldest first."""
        runs: list[RunProgress] = []
        for path in self.path.glob("run-*.lock"):
            with contextlib.suppress(LedgerError):
                lock = files.Lock(path)
                if lock.acquire():
                    lock.release()
                elif progress := files.read_json(path.with_suffix(".json"), RunProgress):
                    runs.append(progress)
        return sorted(runs, key=lambda progress: (progress.started_at, progress.run_id))

    def _remove_killed_runs(self) -> None:
        for path in self.path.glob("run-*.lock"):
            lock = files.Lock(path)
            if lock.acquire():
                path.with_suffix(".json").unlink(missing_ok=True)
                path.unlink(missing_ok=True)
                lock.release()

    # Data that does not fit into memory

    def spill(self, run_id: str) -> scratch.Scratch:
        """Create a directory for DuckDB to spill to; elsewhere if nothing may change here."""
        scratch.remove_dead_temporary()
        if self.read_only:
            return scratch.temporary_scratch()
        with self._locked():
            return scratch.Scratch(self.path / f"spill-{run_id}")


class ProgressFile:
    """The progress file of one run, with a lock that shows whether the run is alive."""

    def __init__(self, directory: Path, run_id: str) -> None:
        self._path = directory / f"run-{run_id}.json"
        self._lock = files.Lock(directory / f"run-{run_id}.lock")
        self._lock.acquire(blocking=True)

    def write(self, progress: RunProgress) -> None:
        """Replace the file."""
        files.write_json(self._path, progress, lambda _name: None)

    def close(self) -> None:
        """Remove the file, because the run has ended."""
        self._path.unlink(missing_ok=True)
        self._lock.path.unlink(missing_ok=True)
        self._lock.release()


def newer(path: Path) -> SettingsError:
    """Return the error for a file that a newer version of this program created."""
    msg = (
        f"the ledger {path} was created by a newer version of target-moengage-cohort; upgrade "
        "this installation"
    )
    return SettingsError("ledger_newer", msg)
