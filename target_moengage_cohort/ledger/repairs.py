"""What to do about the files of a ledger that are damaged, missing or of another time."""

from __future__ import annotations

import shlex
import typing as t

from target_moengage_cohort.core.commands import suggest
from target_moengage_cohort.core.errors import LedgerError, SettingsError
from target_moengage_cohort.ledger.records import FORMAT

if t.TYPE_CHECKING:
    from pathlib import Path


ADOPTION = (
    "members that MoEngage has but the ledger does not are removed only after moengage-cohort "
    "adopt and a run of their mirror"
)


def inconsistent(path: Path, fault: str, repair: str) -> SettingsError:
    """Return the error for files that do not belong together."""
    msg = f"ledger_uri: {path} {fault}, so nothing is sent. {repair}"
    return SettingsError("ledger_mismatch", msg)


def other_format(number: int, place: Path | str, move: str) -> SettingsError | None:
    """Return the error for a ledger of a format that this version does not read.

    `move` is how to move it away.
    """
    if number < FORMAT:
        return old_format(f"the ledger {place}", f", after moving it away: {move}")
    if number == FORMAT:
        return None
    msg = (
        f"the ledger {place} was created by a newer version of target-moengage-cohort; upgrade "
        "this installation"
    )
    return SettingsError("ledger_newer", msg)


def old_format(what: str, condition: str = "") -> SettingsError:
    """Return the error for a store, or a copy of one, of a version before the first release."""
    msg = (
        f"{what} was created by a version before the first release, whose format is no longer "
        f"read. Import the members that MoEngage has with moengage-cohort adopt{condition}"
    )
    return SettingsError("ledger_old_format", msg)


def used_elsewhere(path: Path, host: str) -> SettingsError:
    """Return the error for control on a network file system that another host has open."""
    msg = (
        f"the ledger {path} is on a network file system and in use on the host {host!r}, or was "
        "when a run died there; only one host at a time can use it. For several hosts, set "
        "ledger_uri to a database, postgresql://…. If no run is active there anymore, run: "
        f"{suggest('ledger', 'accept-older')}"
    )
    return SettingsError("ledger_on_network_disk", msg)


def moved(place: str, uri: str) -> SettingsError:
    """Return the error for a store that was copied to another place, which is used now."""
    msg = (
        f"the ledger {place} was moved to {uri}, so nothing is sent from here: set ledger_uri to "
        "the new place. If the copy was interrupted and does not exist, or to use this ledger "
        f"again instead of the other one, run: {suggest('ledger', 'reopen')}"
    )
    return SettingsError("ledger_moved", msg)


def occupied(place: Path) -> SettingsError:
    """Return the error for a place that has a store already, or remains of one."""
    msg = (
        f"{place} already contains a ledger or a part of one. Choose another place, or move that "
        f"one away: {move_away(place)}"
    )
    return SettingsError("ledger_exists", msg)


def damaged(path: Path, repair: str) -> LedgerError:
    """Return the error for a file whose content cannot be read."""
    msg = f"the ledger {path} is damaged, so nothing more is sent. {repair}"
    return LedgerError("ledger_corrupt", msg)


def restore_store(directory: Path) -> str:
    """Return the repair of a store without control."""
    return _restore(directory, f"start a new ledger: {move_store_away(directory)}")


def restore_members(path: Path, stream: str, *, trusts: bool = False) -> str:
    """Return the repair of a stream's file; if it `trusts` the file, there is one to keep."""
    command = suggest("ledger", "accept-older", stream)
    if path.exists() and not trusts:
        command = f"{move_away(path)} && {command}"
    members = "the members in the file" if trusts else "no members of this stream"
    return _restore(path.parent, f"continue with {members}: {command}")


def _restore(directory: Path, otherwise: str) -> str:
    return (
        f"Restore all files of {directory} from one backup, then run again. Without a backup, "
        f"{ADOPTION}; {otherwise}"
    )


def move_store_away(directory: Path) -> str:
    """Return the commands after which a new store begins in a directory."""
    return f"{move_away(directory)} && {suggest('ledger', 'accept-older')}"


def move_away(path: Path) -> str:
    """Return the command that keeps a file or directory, but where the program does not look."""
    return shlex.join(["mv", str(path), f"{path}.unused"])
