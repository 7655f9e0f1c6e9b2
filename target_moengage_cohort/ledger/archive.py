"""An archive of a whole store: a zip file with its pieces, and a manifest as the last one."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import typing as t
import zipfile

import msgspec

from target_moengage_cohort import package_version
from target_moengage_cohort.core.errors import SettingsError, TargetError
from target_moengage_cohort.core.text import utc_now
from target_moengage_cohort.ledger.moving import Piece
from target_moengage_cohort.ledger.records import FORMAT
from target_moengage_cohort.ledger.repairs import old_format
from target_moengage_cohort.ledger.store_facts import StoreFacts  # noqa: TC001 - msgspec resolves it

if t.TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from target_moengage_cohort.settings import Settings

ARCHIVE_FORMAT = 1
_MANIFEST = "manifest.json"
_CHUNK = 1 << 20


class _Formats(msgspec.Struct, frozen=True):
    """The part of a manifest that every version can read."""

    format: int
    ledger_format: int


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What an archive has."""

    format: int = ARCHIVE_FORMAT
    ledger_format: int = FORMAT
    version: str  # of the program that wrote it
    created_at: str
    store: StoreFacts
    files: dict[str, str]  # the SHA-256 of each piece, in their order


class _Output:
    """A file that is only ever appended to, as object stores allow."""

    def __init__(self, file: t.IO[bytes]) -> None:
        self.write, self.flush = file.write, file.flush


def write(file: t.IO[bytes], store: StoreFacts, pieces: Iterable[Piece]) -> None:
    """Write the pieces of a store that has some facts."""
    digests = {}
    output = t.cast("t.IO[bytes]", _Output(file))
    with zipfile.ZipFile(output, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, path in pieces:
            digests[name] = _digest(path)
            is_packed = path.suffix == ".parquet"
            archive.write(path, name, zipfile.ZIP_STORED if is_packed else None)
        manifest = Manifest(
            version=package_version(), created_at=utc_now(), store=store, files=digests
        )
        archive.writestr(_MANIFEST, msgspec.json.encode(manifest))


class Archive:
    """An archive to read, which is the destination's of some settings.

    Attributes:
        store: What the store is that it has.
    """

    def __init__(self, file: t.IO[bytes], settings: Settings) -> None:
        with _read():
            self._zip = zipfile.ZipFile(file)
            text = self._zip.read(_MANIFEST)
            formats = msgspec.json.decode(text, type=_Formats)
        if formats.ledger_format < FORMAT:
            what = "the archive"
            raise old_format(what)
        if formats.format > ARCHIVE_FORMAT or formats.ledger_format > FORMAT:
            msg = (
                "the archive was written by a newer version of target-moengage-cohort; upgrade "
                "this installation"
            )
            raise SettingsError("archive_newer", msg)
        with _read():
            manifest = msgspec.json.decode(text, type=Manifest)
        self.store, self._files = manifest.store, manifest.files
        if (self.store.base_url, self.store.workspace_id) != (
            settings.base_url,
            settings.workspace_id,
        ):
            msg = (
                "the archive belongs to another destination (base URL and workspace_id); use "
                "that destination's configuration, or choose another archive"
            )
            raise SettingsError("archive_of_other_destination", msg)

    def pieces(self, directory: Path) -> Iterator[Piece]:
        """Yield the pieces, copied to a directory and checked."""
        for name, digest in self._files.items():
            path = directory / name.rpartition("/")[2]
            with _read():
                with self._zip.open(name) as source, path.open("wb") as copy:
                    shutil.copyfileobj(source, copy, _CHUNK)
                if _digest(path) != digest:
                    fault = "its content has changed"
                    raise _damaged(fault)
            yield Piece(name, path)
            path.unlink()


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _damaged(fault: str) -> SettingsError:
    msg = f"the archive is damaged or truncated ({fault}); use another one"
    return SettingsError("archive_damaged", msg)


@contextlib.contextmanager
def _read() -> Iterator[None]:
    """Raise any error but those of files as that of a damaged archive, without its text."""
    try:
        yield
    except (TargetError, OSError):
        raise
    except Exception as error:  # noqa: BLE001 - the modules that read it raise many kinds
        raise _damaged(type(error).__name__) from None
