"""The location of batch files: on this machine, or in an object store that fsspec supports.

As in the Meltano SDK's targets, a file is looked up by its name under the target's own
``batch_config.storage.root`` if that is set. Otherwise it must be on this machine: a URL in a
manifest comes from the tap alone, and could make the target contact any host.
"""

from __future__ import annotations

import os
import posixpath
import re
import typing as t
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

from target_moengage_cohort.core.errors import InputError
from target_moengage_cohort.core.remote_files import open_storage

if t.TYPE_CHECKING:
    from target_moengage_cohort.settings.declared import BatchStorage


def local_file(url: str, storage: BatchStorage | None, directory: Path) -> Path:
    """Return the path of a batch file on this machine.

    A remote file is copied to the directory; its reader removes the copy.
    """
    params: dict[str, t.Any] = {}
    if storage is not None:
        params = storage.params
        name = posixpath.basename(_parts(url).path if "://" in url else url)
        url = f"{storage.root.rstrip('/')}/{name}"
    if "://" in url and not url.startswith("file://"):
        if storage is None or "::" in url.removeprefix(storage.root):
            raise _not_allowed(url)
        return _fetch(url, params, directory)
    text = re.sub("^file://(localhost(?=/))?", "", url)
    # Some taps put paths into URLs without quoting them.
    for path in (text,) if text == url else (unquote(text), text):
        if os.path.isfile(path):  # noqa: PTH113 - Path.is_file raises if its name is too long
            return Path(path)
    msg = (
        f"the batch file {shown(url)} does not exist, so the input is incomplete; run the tap "
        "again, or set batch_config.storage.root to the directory of its files"
    )
    raise InputError("batch_file_missing", msg)


def _not_allowed(url: str) -> InputError:
    """Return the error for a file that only the tap's word leads to: it may be anywhere."""
    msg = (
        f"the batch file {shown(url)} is not on this machine, and files are fetched only from "
        "the object store in the settings. Set batch_config.storage.root to the directory of "
        "the tap's files, such as s3://bucket/dir, and batch_config.storage.params if it needs "
        "credentials"
    )
    return InputError("batch_storage_not_allowed", msg)


def shown(url: str) -> str:
    """Return a file's URL for a message: without credentials and signature."""
    plain = re.split("[?#]", url)[0]
    if "://" not in url:
        return plain
    parts = _parts(url)
    if "::" in url or not (parts.scheme and parts.netloc + parts.path):
        return posixpath.basename(plain)  # only fsspec knows where its credentials are
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _parts(url: str) -> SplitResult:
    try:
        return urlsplit(url)
    except ValueError:
        name = posixpath.basename(re.split("[?#]", url)[0])
        msg = (
            f"invalid URL for batch file {name}; set the storage in the tap's batch_config, or try "
            "a newer version of the tap"
        )
        raise InputError("invalid_batch_url", msg) from None


def _fetch(url: str, params: dict[str, t.Any], directory: Path) -> Path:
    where, path = f"the batch file {shown(url)}", directory / "copy"
    try:
        filesystem, place = open_storage(url, where, InputError, **params)
        filesystem.get_file(place, str(path))
    except InputError:
        raise
    except Exception as error:  # noqa: BLE001 - each storage has its own, and they may quote anything
        msg = (
            f"{where} could not be fetched ({type(error).__name__}), so the input is incomplete; "
            "check that it exists and that the credentials are right "
            "(batch_config.storage.params, or the environment)"
        )
        raise InputError("batch_file_not_fetched", msg) from None
    return path
