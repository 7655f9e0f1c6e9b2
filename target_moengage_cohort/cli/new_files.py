"""New files that a command writes for a person."""

from __future__ import annotations

import contextlib
import csv
import io
import os
import typing as t
from pathlib import Path

from target_moengage_cohort.core.errors import SettingsError
from target_moengage_cohort.core.membership import Action

if t.TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from target_moengage_cohort.core.membership import Member

MEMBER_COLUMNS = ("cohort_id", "action", "uid", "anonymous_id")
_ACTIONS = {Action.ADD: "add", Action.REMOVE: "remove"}


class NewFile:
    """A file that an option names; every `write` reaches the system or raises `SettingsError`."""

    def __init__(self, option: str, path: str) -> None:
        self.rows = 0  # of a CSV
        self._option, self._path = option, path
        try:
            self._descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        except OSError as error:
            raise self._unwritable("created", error, "choose another file") from None

    def write(self, data: bytes) -> None:
        """Write bytes."""
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[os.write(self._descriptor, rest) :]
            except OSError as error:
                raise self._unwritable("written", error, "the file was removed") from None

    def write_rows(self, rows: Iterable[Sequence[str | None]]) -> None:
        """Write lines of a CSV."""
        text = io.StringIO(newline="")
        csv.writer(text).writerows(rows)
        self.write(text.getvalue().encode())

    def write_members(self, cohort_id: str, action: Action, members: Sequence[Member]) -> None:
        """Write changes of members as lines of a CSV."""
        self.rows += len(members)
        self.write_rows(
            (cohort_id, _ACTIONS[action], member.uid, member.anonymous_id) for member in members
        )

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)

    def _unwritable(self, done: str, error: OSError, advice: str) -> SettingsError:
        msg = f"--{self._option}: {self._path} cannot be {done} ({error.strerror}); {advice}"
        return SettingsError(f"{self._option}_unwritable", msg)


@contextlib.contextmanager
def new_file(option: str, path: str) -> Iterator[NewFile]:
    """Yield a new file, for its owner alone, that an option names; remove it after an error."""
    with contextlib.closing(NewFile(option, path)) as file:
        try:
            yield file
        except BaseException:
            Path(path).unlink()
            raise


@contextlib.contextmanager
def member_file(path: str) -> Iterator[NewFile]:
    """Yield the file that `--members` names, a CSV of changes of members."""
    with new_file("members", path) as file:
        file.write_rows([MEMBER_COLUMNS])
        yield file
