"""Files of archives: on this machine, or in a storage that fsspec supports."""

from __future__ import annotations

import contextlib
import os
import posixpath
import re
import typing as t
from pathlib import Path
from urllib.parse import unquote

from target_moengage_cohort.core.errors import LedgerError, SettingsError, TargetError
from target_moengage_cohort.core.files import sync
from target_moengage_cohort.core.remote_files import open_storage

if t.TYPE_CHECKING:
    from collections.abc import Iterator

    from target_moengage_cohort.core.files import Step
    from target_moengage_cohort.core.remote_files import Files


@contextlib.contextmanager
def written(url: str, step: Step) -> Iterator[t.IO[bytes]]:
    """Yield a file that replaces the one with a path or URL, in full or after an error not at all.

    On this machine it is its owner's alone from the first byte.
    """
    with _translated(url, "written"):
        path = _local(url)
        with _replaced(path, step) if path is not None else _uploaded(url) as file:
            yield file


@contextlib.contextmanager
def read(url: str) -> Iterator[t.IO[bytes]]:
    """Yield the file with a path or URL."""
    with _translated(url, "read"):
        path = _local(url)
        if path is not None:
            with path.open("rb") as file:
                yield file
            return
        files, place = _storage(url)
        with files.open(place, "rb") as file:
            yield file


def shown(url: str) -> str:
    """Return a path or URL for messages; of a URL, which may have credentials, its last part."""
    path = _local(url)
    return str(path) if path is not None else posixpath.basename(re.split("[?#]", url)[0])


def _local(url: str) -> Path | None:
    if match := re.match("file://(localhost(?=/))?", url, re.IGNORECASE):
        return Path(unquote(url[match.end() :]))
    return None if "://" in url or "::" in url else Path(url)


@contextlib.contextmanager
def _replaced(path: Path, step: Step) -> Iterator[t.IO[bytes]]:
    part = path.with_name(f"{path.name}.part")
    part.unlink(missing_ok=True)  # of a process that has died
    descriptor = os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    try:
        with open(descriptor, "wb") as file:  # noqa: PTH123 - made with its mode
            yield file
        sync(part)
        step("archive: written")
        part.replace(path)
        step("archive: in place")
        sync(path.parent)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def _uploaded(url: str) -> Iterator[t.IO[bytes]]:
    files, place = _storage(url)
    part = f"{place}.part"
    try:
        with files.open(part, "wb") as file:
            yield file
        files.mv(part, place)
    except BaseException:
        with contextlib.suppress(Exception):
            files.rm(part)  # some storages finish a file even after an error
        raise


def _storage(url: str) -> tuple[Files, str]:
    return open_storage(url, f"the archive {shown(url)}", SettingsError)


@contextlib.contextmanager
def _translated(url: str, done: str) -> Iterator[None]:
    """Raise the errors of files as a `LedgerError`; those of storages may quote anything."""
    try:
        yield
    except TargetError:
        raise
    except Exception as error:
        is_local = isinstance(error, OSError) and _local(url) is not None
        if not is_local and _local(url) is not None:
            raise
        cause = f": {error.strerror}" if isinstance(error, OSError) and is_local else ""
        msg = (
            f"the archive {shown(url)} cannot be {done} ({type(error).__name__}{cause}). Check "
            "that its directory exists and that the permissions or credentials allow this"
        )
        raise LedgerError("archive_unusable", msg) from None
