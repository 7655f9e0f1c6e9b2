"""The storage that a person names, from which MoEngage fetches the files of file segments."""

from __future__ import annotations

import contextlib
import re
import secrets
import typing as t
from urllib.parse import urlsplit

import msgspec

from target_moengage_cohort.core.errors import InputError, SettingsError, TargetError, TryAgainError
from target_moengage_cohort.core.remote_files import open_storage
from target_moengage_cohort.settings.addresses import is_loopback
from target_moengage_cohort.singer.batches.storage import shown

if t.TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_OBJECT = re.compile(r"moengage-segment-[0-9a-f]{32}\.csv")
_SIGNED_SECONDS = 86_400
"""How long an address is valid: MoEngage does not say when it fetches a file."""
_BLOCK_BYTES = 8 << 20


class StoredFile(msgspec.Struct, frozen=True):
    """A file in the storage.

    Attributes:
        address: Where MoEngage fetches it; it may be signed, and is never shown.
    """

    name: str
    address: str


class SegmentStorage:
    """A directory of a storage.

    Args:
        url: The directory, as a path or a URL that fsspec supports.
        public_url: The URL of that directory for MoEngage, if the storage does not sign URLs.
        is_stopped: Returns whether the command is to end.
    """

    def __init__(self, url: str, public_url: str | None, is_stopped: Callable[[], bool]) -> None:
        try:
            self.shown = shown(url)
        except InputError:
            raise SettingsError("invalid_address", "--upload: not a valid URL") from None
        self._public_url = public_url
        self._is_stopped = is_stopped
        what = f"--upload: {self.shown}"
        self._files, directory = open_storage(url, what, SettingsError)
        self._directory = directory.rstrip("/")

    def put(self, path: Path) -> StoredFile:
        """Copy a file into the storage, under an unguessable name."""
        name = f"moengage-segment-{secrets.token_hex(16)}.csv"
        stored = StoredFile(name, self._address(name))
        with self._translated("upload_failed", f"the file cannot be written to {self.shown}"):
            try:
                self._copy(path, self._place(name))
            except BaseException:
                with contextlib.suppress(Exception):
                    self._files.rm(self._place(name))  # some storages finish it even after an error
                raise
        return stored

    def delete(self, name: str) -> None:
        """Delete a file that `put` has made; raise a `TargetError` if it is not there."""
        if not _OBJECT.fullmatch(name):
            msg = f"{name} is not the name of a file that this program uploaded; check the name"
            raise SettingsError("invalid_object", msg)
        with self._translated("delete_failed", f"{name} cannot be deleted from {self.shown}"):
            self._files.invalidate_cache()
            self._files.rm_file(self._place(name))

    def _place(self, name: str) -> str:
        return f"{self._directory}/{name}"

    def _address(self, name: str) -> str:
        if self._public_url is not None:
            return f"{self._public_url.rstrip('/')}/{name}"
        msg = f"{self.shown} does not sign URLs; pass the directory's URL as --public-url"
        with self._translated("upload_failed", f"{self.shown} cannot sign a URL"):
            try:
                address = str(self._files.sign(self._place(name), expiration=_SIGNED_SECONDS))
            except NotImplementedError:
                raise SettingsError("no_signed_address", msg) from None
        if address_fault(address) is not None:
            raise SettingsError("no_signed_address", msg)
        return address

    def _copy(self, path: Path, place: str) -> None:
        with (
            path.open("rb") as source,
            self._files.open(place, "wb", block_size=_BLOCK_BYTES) as target,
        ):
            while block := source.read(_BLOCK_BYTES):
                if self._is_stopped():
                    msg = "stopped before the file was uploaded; it was not sent"
                    raise TryAgainError("interrupted", msg)
                target.write(block)

    @contextlib.contextmanager
    def _translated(self, code: str, what: str) -> Iterator[None]:
        """Raise the errors of storages, which may quote anything, as a `TryAgainError`."""
        try:
            yield
        except TargetError:
            raise
        except Exception as error:  # noqa: BLE001 - each storage has its own
            msg = (
                f"--upload: {what} ({type(error).__name__}). Check that it exists, and check the "
                "storage's credentials in the environment"
            )
            raise TryAgainError(code, msg) from None


def address_fault(url: str) -> str | None:
    """Return why MoEngage cannot fetch a file from a URL with members, or ``None``."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return "is not a valid URL"
    if parts.scheme not in {"http", "https"} or not host or not re.fullmatch("[!-~]+", url):
        return "must be an https:// URL with a host"
    if parts.scheme == "http" and not is_loopback(host):
        return "must be https, because plain http would expose users to the network"
    return None
