"""The directory of a store on this machine."""

from __future__ import annotations

import contextlib
import typing as t
from pathlib import Path
from urllib.parse import unquote

import msgspec

from target_moengage_cohort.core import files, sqlite_files
from target_moengage_cohort.core.errors import SettingsError
from target_moengage_cohort.core.files import as_ledger_error, exists, stem
from target_moengage_cohort.ledger.control.sqlite import FILE_NAME
from target_moengage_cohort.ledger.movable import Part, UnconfirmedError
from target_moengage_cohort.ledger.repairs import (
    inconsistent,
    move_store_away,
    occupied,
    old_format,
    restore_store,
)
from target_moengage_cohort.settings.addresses import state_path

if t.TYPE_CHECKING:
    from collections.abc import Iterator

    from target_moengage_cohort.core.files import Step
    from target_moengage_cohort.settings import Settings

_FILE = "file:"
_PART = ".part-"


def store_directory(settings: Settings) -> Path:
    """Return the directory of a destination's store; it may not exist yet."""
    uri = settings.ledger_uri
    root = state_path() / "ledger" if uri is None else Path(_path(uri)).absolute()
    return root / stem(settings.base_url, settings.workspace_id)


def refuse_old_format(directory: Path) -> None:
    """Raise a `SettingsError` if a directory has a store that is no longer read."""
    if exists(directory / "destination.json"):
        what, move = f"the ledger {directory}", move_store_away(directory)
        raise old_format(what, f", after moving it away: {move}")


def refuse_remains(directory: Path) -> None:
    """Raise a `SettingsError` if a directory has files of members without control."""
    path = directory / FILE_NAME
    with as_ledger_error(path, "read"):
        is_empty = sqlite_files.size(path) <= 0
    if is_empty and any(directory.glob("members-*.duckdb")):
        fault = "is missing or empty, although its directory contains files of members"
        raise inconsistent(path, fault, restore_store(directory))


def check_place(directory: Path, settings: Settings) -> None:
    """Raise a `SettingsError` unless the store exists, or may be created in its place."""
    if exists(directory / FILE_NAME):
        return
    if not settings.ledger_create:
        msg = (
            f"ledger_create: is false, and there is no ledger in {directory}. Check that "
            "ledger_uri is right and its disk is mounted, or set ledger_create to true"
        )
        raise SettingsError("ledger_missing", msg)
    parent = directory.parent.parent  # of the directory that ledger_uri names
    if settings.ledger_uri is not None and not parent.exists():
        msg = (
            f"ledger_uri: the directory {parent} does not exist. Check that the path is right and "
            "that its disk is mounted; or create the directory"
        )
        raise SettingsError("ledger_parent_missing", msg)


@contextlib.contextmanager
def part(directory: Path, settings: Settings, run_id: str, step: Step) -> Iterator[Part]:
    """Yield a place for a store that is to be put into a directory; see `MovableStore.part`."""
    settings = msgspec.structs.replace(settings, ledger_create=True)
    _refuse_occupied(directory)
    check_place(directory, settings)
    root = directory.parent  # on the disk on which the directory will be, for a rename
    had_root = exists(root)
    files.make_directory(root)
    remove_dead_parts(directory)
    scratch = files.Scratch(root / f"{directory.name}{_PART}{run_id}")

    def put_in_place() -> None:
        _refuse_occupied(directory)
        with as_ledger_error(directory, "created"):
            made = scratch.path / directory.name
            files.sync(made)
            step("part: whole")
            made.rename(directory)
        try:
            files.sync(root)
        except OSError as error:
            cause = f"the directory {root} cannot be synced to its disk ({type(error).__name__})"
            raise UnconfirmedError(str(root), cause) from None
        step("part: in place")

    try:
        yield Part(
            msgspec.structs.replace(settings, ledger_uri=str(scratch.path)),
            scratch.path,
            put_in_place,
        )
    finally:
        scratch.close()
        if not had_root:
            with contextlib.suppress(OSError):  # unless something is there now
                root.rmdir()


def remove_dead_parts(directory: Path) -> None:
    """Remove what processes that died have left of stores that were to be put into a directory."""
    files.remove_dead(directory.parent.glob(f"{directory.name}{_PART}*"))


def _refuse_occupied(directory: Path) -> None:
    """Raise a `SettingsError` if a directory has anything."""
    if exists(directory):
        with as_ledger_error(directory, "read"):
            if any(directory.iterdir()):
                raise occupied(directory)


def _path(uri: str) -> str:
    """Return what a path or a ``file://`` URL names, with ``~`` expanded; no error quotes it."""
    fault, path = None, uri
    if uri.lower().startswith(_FILE):
        path = unquote(uri[len(_FILE) :])
        path = path.removeprefix("//").removeprefix("localhost") if path[:2] == "//" else ""
        if "\0" in path or "\N{REPLACEMENT CHARACTER}" in path:
            fault = "contains invalid characters"
        elif not path.startswith(("/", "~")):
            fault = "must have an absolute path after file://, as in file:///var/lib/ledger"
    elif not uri:
        fault = "must not be blank"
    if fault is None and path.startswith("~"):
        try:
            path = str(Path(path).expanduser())
        except RuntimeError:
            fault = "starts with ~, but that user has no home directory; use an absolute path"
    if fault:
        raise SettingsError("invalid_value", f"ledger_uri: {fault}")
    return path
