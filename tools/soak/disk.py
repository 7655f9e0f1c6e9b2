"""A small disk for the ledgers, which can be filled."""

import contextlib
import os
import shutil
import subprocess
import types
import typing as t
from pathlib import Path
from typing import Self

SIZE_BYTES = 128_000_000


class Disk:
    """A tmpfs, or a plain folder if this user may not mount one.

    Args:
        folder: The mount point; it is created.

    Attributes:
        folder: The mount point.
        is_small: Whether it is a separate disk.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.is_small = False

    def __enter__(self) -> Self:
        """Create it."""
        self.folder.mkdir(parents=True)
        if shutil.which("mount"):
            command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE_BYTES}", "tmpfs"]
            done = subprocess.run([*command, str(self.folder)], capture_output=True, check=False)
            self.is_small = done.returncode == 0
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: types.TracebackType | None,
    ) -> None:
        """Unmount it; its files are kept if there was an error."""
        if not self.is_small:
            return
        if kind is not None and issubclass(kind, Exception):
            shutil.copytree(self.folder, self.folder.with_name(f"{self.folder.name}-kept"))
        subprocess.run(["umount", "--lazy", str(self.folder)], check=True)

    @contextlib.contextmanager
    def filled(self, left: int) -> t.Iterator[None]:
        """Leave only this many bytes of free space."""
        ballast = self.folder / "ballast"
        status = os.statvfs(self.folder)
        with ballast.open("wb") as file:
            if (size := status.f_bavail * status.f_frsize - left) > 0:
                os.posix_fallocate(file.fileno(), 0, size)
        try:
            yield
        finally:
            ballast.unlink()
