"""Files that a command writes for a person, and that must not be there yet."""

from __future__ import annotations

import contextlib
import os
import typing as t
from pathlib import Path

from target_moengage_cohort.core.errors import SettingsError

if t.TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def new_file(option: str, path: str) -> Iterator[t.BinaryIO]:
    """Yield a new file, for its owner alone, that an option names; remove it after an error."""
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    except OSError as error:
        msg = f"--{option}: {path} cannot be created ({error.strerror}); choose another file"
        code = f"{option}_unwritable"
        raise SettingsError(code, msg) from None
    with open(descriptor, "wb") as file:  # noqa: PTH123 - made with its mode
        try:
            yield file
        except BaseException:
            Path(path).unlink()
            raise
