"""Where batch files are: on this machine, or in an object store that fsspec knows.

The rules are those of the Meltano SDK's targets: a file is looked up by its name under the
target's own ``batch_config.storage.root``, if that is set, and else where its URL says.
"""

from __future__ import annotations

import logging
import posixpath
import re
import typing as t
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

from target_moengage_cohort.core.errors import InputError

if t.TYPE_CHECKING:
    from target_moengage_cohort.settings.batch_config import BatchStorage

INCOMPLETE = "so the input is not complete; run the tap again"
"""Ends what is said of a file that is not there, or cannot be read to its end."""

_FILE = "file://"
_TALKATIVE_LOGGERS = (
    "adlfs",
    "aiobotocore",
    "aiohttp",
    "azure",
    "botocore",
    "fsspec",
    "gcsfs",
    "google",
    "msal",
    "s3fs",
    "s3transfer",
    "urllib3",
)


def local_file(url: str, storage: BatchStorage | None, folder: Path) -> Path:
    """Get a batch file onto this machine.

    Args:
        url: As the manifest has it: a URL or a path.
        storage: The target's own storage, if it is set.
        folder: Where a file that is elsewhere is copied to; for its reader to remove.

    Raises:
        InputError: The file is not there, or cannot be got.
    """
    params: dict[str, t.Any] = {}
    if storage is not None:
        params = storage.params
        name = posixpath.basename(_parts(url).path if "://" in url else url)
        url = f"{storage.root.rstrip('/')}/{name}"
    if "://" in url and not url.startswith(_FILE):
        return _copied(url, params, folder)
    is_url = url.startswith(_FILE)
    text = url.removeprefix(_FILE)
    text = text.removeprefix("localhost") if is_url and text.startswith("localhost/") else text
    written = Path(text)
    path = Path(unquote(text)) if is_url else written
    if not _is_file(path):
        path = written  # some taps do not quote what they put into a URL
    if not _is_file(path):
        msg = f"the batch file {shown(url)} is not there, so the input is not complete; "
        msg += "run the tap again, or say where its files are (batch_config.storage.root)"
        raise InputError(msg)
    return path


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # its name is too long, or a folder on the way is closed to us
        return False


def shown(url: str) -> str:
    """A file's address for a message: without credentials, and what a signed URL is signed with."""
    plain = re.split("[?#]", url)[0]
    if "://" not in url:
        return plain
    parts = _parts(url)
    if "::" in url or not (parts.scheme and parts.netloc + parts.path):
        return posixpath.basename(plain)  # where its credentials are, fsspec alone knows
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _parts(url: str) -> SplitResult:
    try:
        return urlsplit(url)
    except ValueError:
        name = posixpath.basename(re.split("[?#]", url)[0])
        msg = f"the batch file {name} has an address that is no URL; set the storage in the "
        msg += "tap's batch_config, or look for a newer version of the tap"
        raise InputError(msg) from None


def _copied(url: str, params: dict[str, t.Any], folder: Path) -> Path:
    import fsspec  # noqa: PLC0415 - slow to import, and for files elsewhere only

    for name in _TALKATIVE_LOGGERS:  # at DEBUG they show URLs and headers, with credentials
        talkative = logging.getLogger(name)
        talkative.setLevel(max(logging.INFO, talkative.level))
    where = f"the batch file {shown(url)}"
    path, is_known = folder / "copy", False
    try:
        filesystem, place = fsspec.core.url_to_fs(url, **params)
        is_known = True
        filesystem.get_file(place, str(path))
    except Exception as error:  # noqa: BLE001 - each storage has its own, and they quote what they like
        if not is_known and isinstance(error, (ImportError, ValueError)):
            msg = (
                f"{where} is in a storage that needs another Python package here; install what "
                "fsspec needs for it beside the target (s3fs for s3://, gcsfs for gs://, adlfs for "
                "abfs://)"
            )
            raise InputError(msg) from None
        msg = (
            f"{where} cannot be got ({type(error).__name__}), so the input is not complete; check "
            "that it is there, and the credentials (batch_config.storage.params, or the "
            "environment)"
        )
        raise InputError(msg) from None
    return path
