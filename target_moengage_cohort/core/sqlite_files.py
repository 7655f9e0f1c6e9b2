"""Files of SQLite databases, and the causes of its errors."""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
import typing as t

if t.TYPE_CHECKING:
    from pathlib import Path

_ERRNOS = {
    sqlite3.SQLITE_FULL: errno.ENOSPC,
    sqlite3.SQLITE_READONLY: errno.EACCES,
    sqlite3.SQLITE_PERM: errno.EACCES,
}


def create_private(path: Path) -> None:
    """Create a database's file for its owner alone; SQLite gives its other files the same mode.

    A file that exists stays closed: closing a descriptor drops this process's locks on its file.
    """
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))


def size(path: Path) -> int:
    """Return a file's size, or -1 if there is none."""
    try:
        return path.stat().st_size
    except (FileNotFoundError, NotADirectoryError):
        return -1


def is_damage(error: sqlite3.Error) -> bool:
    """Return whether an error is about what the file contains."""
    return primary_code(error) in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


def primary_code(error: sqlite3.Error) -> int:
    """Return an error's code without its extension."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def cause(error: sqlite3.Error, path: Path) -> str:
    """Describe an error by its names and the system's text; its own text may quote a value."""
    name = f"{type(error).__name__}: {getattr(error, 'sqlite_errorname', 'unknown')}"
    number = _ERRNOS.get(primary_code(error))
    if primary_code(error) == sqlite3.SQLITE_CANTOPEN:
        try:  # what SQLite does not say; of its own files, this would drop its locks
            os.close(os.open(path.parent, os.O_RDONLY))
            number = None if os.access(path, os.R_OK | os.W_OK) else errno.EACCES
        except OSError as cannot:
            number = cannot.errno
    return f"{name}, {os.strerror(number)}" if number else name
