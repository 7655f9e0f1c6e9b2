"""The file systems that directories are on: SQLite's shared memory is only safe on local ones."""

from __future__ import annotations

import re
from pathlib import Path

_NETWORK = re.compile(r"nfs\d?|cifs|smb\w*|fuse\w*(\..+)?|9p|ceph|lustre|afs|gpfs|beegfs|glusterfs")


def is_on_network(path: Path) -> bool:
    """Return whether a path is on a network file system; known on Linux only."""
    try:
        mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return False
    return bool(_NETWORK.fullmatch(file_system(mounts, path.resolve())))


def file_system(mounts: str, path: Path) -> str:
    """Return the type of a path's file system by the text of ``/proc/self/mountinfo``."""
    found: dict[Path, str] = {}  # a later mount hides an earlier one of the same place
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        place = re.sub(r"\\(\d{3})", lambda code: chr(int(code[1], 8)), before.split(" ")[4])
        found[Path(place)] = after.split(" ")[0]
    places = (place for place in (path, *path.parents) if place in found)
    return found.get(next(places, path), "")
