"""Run a story, copy the ledgers' folder at each of its steps, and kill the process at some.

    python -m tests.ledger.child DIRECTORY [ROWS]

ROWS is the number of rows that the ledger folds at a time, instead of millions; then only the steps
of the parts of the story that fold count.

A copy has what a kill at the step would leave. Every few steps a telling, which is a fork without
threads, is killed indeed. Each folder has a file `told` with a line for each part of the story that
began and ended.
"""

import os
import shutil
import signal
import sys
from pathlib import Path

import duckdb  # noqa: F401 - once for all forks

from target_moengage_cohort.ledger.duckdb import folding, members, staging  # noqa: F401 - likewise
from tests.ledger import databases
from tests.ledger.story import STORY, Teller

FOLDING = {"fold", "adopt", "keep", "doubt_all", "close"}


EVERY = 13


def tell(root: Path, name: str, parts: set[str] | None, deadly: int | None = None) -> int:
    """Tell the story; kill the process at a step, or copy the folder at each; return their number.

    The steps of other parts than the given ones do not count.
    """
    folder = root / name
    folder.mkdir()
    notes = os.open(folder / "told", os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    steps, part = 0, ""

    def step(_name: str) -> None:
        nonlocal steps
        if parts is not None and part not in parts:
            return
        if steps == deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        if deadly is None:
            copy = root / f"copy-{steps}"
            shutil.copytree(folder, copy)
            if databases.is_in_use():
                databases.copy_database(folder / "ledger", copy / "ledger")
        steps += 1

    teller = Teller(folder / "ledger", step)
    for position, (part, _, _) in enumerate(STORY):  # noqa: B007 - for `step`
        os.write(notes, f"begin {position}\n".encode())
        teller.tell(position)
        os.write(notes, f"done {position}\n".encode())
    return steps


def main(root: Path, parts: set[str] | None) -> None:
    """Tell the story killed at some steps, then once until its end."""
    deadly = 0
    while True:
        child = os.fork()
        if child == 0:
            tell(root, f"killed-{deadly}", parts, deadly)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status):
            assert os.waitstatus_to_exitcode(status) == 0
            break
        deadly += EVERY
    tell(root, "end", parts)


if __name__ == "__main__":
    os.umask(0o077)
    for rows in sys.argv[2:]:
        folding.FOLDED_ROWS = members.DELETED_ROWS = int(rows)
    main(Path(sys.argv[1]), FOLDING if sys.argv[2:] else None)
