"""What database servers of tests share: an account, a private folder, a port, and their programs.

PostgreSQL with wal2json and MariaDB are those of Debian. They need not be installed: packages that
were unpacked with `dpkg -x` into a folder are found there if the variable `TAP_SERVERS` names it.
"""

import os
import pwd
import shutil
import socket
import tempfile
from pathlib import Path

ROOT = Path("/")
HOW_TO_GET = (
    "install the packages mariadb-server and postgresql-15-wal2json, or unpack them with dpkg -x "
    "into a folder that TAP_SERVERS names; see CONTRIBUTING"
)


def account() -> str | None:
    """Return an account without rights if this user is root, as such servers refuse root."""
    if os.geteuid() != 0:
        return None
    accounts = {entry.pw_name: entry.pw_uid for entry in pwd.getpwall()}
    for name in ("nobody", "postgres", "daemon"):
        if accounts.get(name):
            return name
    message = "root needs an account without rights, such as nobody, to run a server as"
    raise RuntimeError(message)


def identity(name: str | None) -> dict[str, object]:
    """Return how `subprocess` runs a program as an account."""
    if name is None:
        return {}
    return {"user": name, "group": pwd.getpwnam(name).pw_gid, "extra_groups": []}


def private_folder(owner: str | None, prefix: str) -> Path:
    """Create a directory that belongs to an account, in a place that it may enter."""
    base = Path(tempfile.gettempdir()).resolve()
    if owner and not _all_may_enter(base):
        base = Path("/tmp")  # mkdtemp makes a folder of our own in it
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=base))
    if owner:
        shutil.chown(folder, owner, pwd.getpwnam(owner).pw_gid)
    return folder


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def mariadb_tree() -> Path | None:
    """Return the folder of MariaDB, which has `sbin/mariadbd`, if there is one."""
    return next((tree for tree in _trees("usr") if (tree / "sbin" / "mariadbd").exists()), None)


def wal2json_tree() -> Path | None:
    """Return the folder of the newest PostgreSQL that has wal2json, if there is one."""
    found = shutil.which("pg_config")
    trees = _trees("usr/lib/postgresql/*") + ([Path(found).resolve().parents[1]] if found else [])
    return next((tree for tree in trees if (tree / "lib" / "wal2json.so").exists()), None)


def libraries() -> dict[str, str]:
    """Return the environment in which programs find the libraries that were unpacked with them."""
    folder = _unpacked()
    if folder == ROOT:
        return {}
    places = [place for place in (folder / "usr" / "lib").glob("*-linux-gnu*") if place.is_dir()]
    return {"LD_LIBRARY_PATH": os.pathsep.join(map(str, places))}


def _unpacked() -> Path:
    return Path(os.environ.get("TAP_SERVERS") or ROOT).resolve()


def _trees(pattern: str) -> list[Path]:
    return sorted(_unpacked().glob(pattern), key=lambda path: (len(path.name), path), reverse=True)


def _all_may_enter(folder: Path) -> bool:
    return all(place.stat().st_mode & 0o001 for place in (folder, *folder.parents))
