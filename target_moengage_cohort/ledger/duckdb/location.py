"""The directory of a store on this machine."""

from __future__ import annotations

import typing as t
from pathlib import Path
from urllib.parse import unquote

from target_moengage_cohort.core.errors import SettingsError
from target_moengage_cohort.core.files import exists
from target_moengage_cohort.ledger.control.control import stem
from target_moengage_cohort.ledger.repairs import old_format
from target_moengage_cohort.settings.addresses import state_path

if t.TYPE_CHECKING:
    from target_moengage_cohort.settings import Settings

_FILE = "file:"


def store_folder(settings: Settings) -> Path:
    """Return the directory of a destination's store; it may not exist yet."""
    uri = settings.ledger_uri
    root = state_path() / "ledger" if uri is None else Path(_path(uri)).absolute()
    return root / stem(settings.base_url, settings.workspace_id)


def refuse_old_format(folder: Path) -> None:
    """Raise a `SettingsError` if a directory has a store that is no longer read."""
    if exists(folder / "destination.json"):
        raise old_format(folder)


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
