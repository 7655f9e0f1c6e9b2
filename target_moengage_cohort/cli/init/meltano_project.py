"""A Meltano project's files: `meltano.yml`, `.env` and `.gitignore`, which only ever grow."""

from __future__ import annotations

import contextlib
import io
import os
import re
import stat
import typing as t

import msgspec
import yaml
from dotenv import dotenv_values

from target_moengage_cohort.core.errors import SettingsError
from target_moengage_cohort.core.files import replace, sync

if t.TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from target_moengage_cohort.core.files import Step

PROJECT_FILE, ENV_FILE, IGNORE_FILE = "meltano.yml", ".env", ".gitignore"
_NEEDS_NO_QUOTES = re.compile(r"[\w@%+=:,./-]+", re.ASCII)


class FileChange(msgspec.Struct, frozen=True):
    """A file that is to be created or to grow; `before` is ``None`` if there is none."""

    path: Path
    before: str | None
    after: str
    is_private: bool = False  # for its owner alone, even if others could read it


class MeltanoProject:
    """The project around a directory, as Meltano finds it, or else a new one in it.

    Attributes:
        root: Its directory.
        text: Its `meltano.yml`; ``None`` if there is none.
        variables: Those of its `.env`.
    """

    def __init__(self, directory: Path) -> None:
        parents = (directory, *directory.parents)
        self.root = next((each for each in parents if (each / PROJECT_FILE).exists()), directory)
        self.text = self._read(PROJECT_FILE)
        self._env, self._ignored = self._read(ENV_FILE), self._read(IGNORE_FILE)
        self.variables = _parse_env(self._env or "")
        self.content = self._parse(self.root / PROJECT_FILE, self.text)
        self._included = [
            self._parse(path, read_text(path))
            for pattern in self.content.get("include_paths") or ()
            for path in sorted(self.root.glob(str(pattern)))
            if path != self.root / PROJECT_FILE
        ]

    def named(self, *path: str) -> dict[str, dict[str, t.Any]]:
        """Return the items by name of a list such as `jobs`, those of included files among them."""
        found: dict[str, dict[str, t.Any]] = {}
        for content in (*self._included, self.content):
            found |= items_at(content, *path)
        return found

    def reads_only_for(self, loader: str) -> bool:
        """Return whether the project has this loader and no other one."""
        return set(self.named("plugins", "loaders")) == {loader}

    def is_own(self, *path: str, name: str) -> bool:
        """Return whether an item is in `meltano.yml` itself, and not in an included file."""
        return name in items_at(self.content, *path)

    def grown_env(self, variables: Mapping[str, str]) -> FileChange:
        """Return `.env` with further variables."""
        lines = [f"{name}={_quoted(value)}" for name, value in variables.items()]
        change = self._grown(ENV_FILE, self._env, lines, is_private=True)
        read_back = _parse_env(change.after)
        for name, value in variables.items():
            if read_back.get(name) != value:
                msg = (
                    f"{name}: {ENV_FILE} cannot hold this value, which contains ${{…}}; choose "
                    "another one"
                )
                raise SettingsError("unwritable_value", msg)
        return change

    def grown_ignore(self, names: Iterable[str]) -> FileChange:
        """Return `.gitignore` with further names."""
        there = {line.strip().strip("/") for line in (self._ignored or "").splitlines()}
        lines = [name for name in names if name.strip("/") not in there]
        return self._grown(IGNORE_FILE, self._ignored, lines)

    def _grown(
        self, name: str, before: str | None, lines: Sequence[str], *, is_private: bool = False
    ) -> FileChange:
        newline = "\r\n" if "\r\n" in (before or "") else "\n"
        after = before or ""
        if lines and after and not after.endswith("\n"):
            after += newline
        after += "".join(line + newline for line in lines)
        return FileChange(self.root / name, before, after, is_private)

    def _read(self, name: str) -> str | None:
        return read_text(self.root / name)

    def _parse(self, path: Path, text: str | None) -> dict[str, t.Any]:
        content, reason = None, "it must be a mapping"
        try:
            content = yaml.safe_load(text or "") or {}
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark
            reason = f"line {mark.line + 1}: {error.problem}" if mark else str(error.problem)
        except yaml.YAMLError:
            reason = "it contains invalid characters"
        if not isinstance(content, dict):
            msg = f"{path} cannot be read as YAML ({reason}); fix it, then run again"
            raise SettingsError("project_unreadable", msg)
        return content


def items_at(content: t.Any, *path: str) -> dict[str, dict[str, t.Any]]:
    """Return the items by name of a list at some keys; none if there is no such list."""
    for key in path:
        content = content.get(key) if isinstance(content, dict) else None
    items = content if isinstance(content, list) else ()
    return {str(each["name"]): each for each in items if isinstance(each, dict) and "name" in each}


def read_text(path: Path) -> str | None:
    """Return a file's text, with its line breaks as they are; ``None`` if there is none."""
    try:
        return path.read_bytes().decode()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        msg = f"{path} cannot be read ({reason}); fix it, then run again"
        raise SettingsError("project_unreadable", msg) from None


def write(change: FileChange, step: Step) -> None:
    """Write a file in full or not at all; a symbolic link stays one."""
    path = change.path.resolve()
    if read_text(path) != change.before:
        msg = f"{path} has changed meanwhile; run again"
        raise SettingsError("project_changed", msg)
    part = path.with_name(f"{path.name}.part")
    try:
        mode = _mode(change, path)
        part.unlink(missing_ok=True)  # of a process that was killed
        with contextlib.ExitStack() as undo:
            undo.callback(part.unlink, missing_ok=True)  # at Ctrl-C, too
            replace(path, change.after.encode(), part, step, mode=mode)
        sync(path.parent)
    except OSError as error:
        msg = (
            f"{path} cannot be written ({error.strerror}); make it and its directory writable for "
            f"the user with the ID {os.geteuid()}, then run again"
        )
        raise SettingsError("project_unwritable", msg) from None


def _mode(change: FileChange, path: Path) -> int:
    """Return the mode of a written file; those without secrets may be a scheduler's to read."""
    if change.is_private:
        return 0o600
    if change.before is not None:
        return stat.S_IMODE(path.stat().st_mode)
    mask = os.umask(0o077)  # the only way to read it
    os.umask(mask)
    return 0o666 & ~mask


def _parse_env(text: str) -> dict[str, str]:
    values = dotenv_values(stream=io.StringIO(text.removeprefix("\ufeff")))
    return {name: value or "" for name, value in values.items()}


def _quoted(value: str) -> str:
    if _NEEDS_NO_QUOTES.fullmatch(value):
        return value
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
