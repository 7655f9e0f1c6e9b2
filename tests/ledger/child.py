"""Run a story again and again, killed one step later each time.

    python -m tests.ledger.child DIRECTORY [ROWS]

ROWS is the number of rows that the ledger folds at a time, instead of millions.

Everything is imported once; each telling is a fork that has no threads yet. A telling records in
the file `told` each part that it begins and ends, by lines that survive it.
"""

import os
import signal
import sys
from pathlib import Path

from target_moengage_cohort.ledger.duckdb import journal
from tests.ledger.story import STORY, Teller


def tell(folder: Path, deadly: int) -> None:
    """Tell the story; kill the process at a step."""
    os.umask(0o077)
    notes = os.open(folder / "told", os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    steps = 0

    def step(name: str) -> None:
        nonlocal steps
        if steps == deadly:
            os.write(notes, f"killed {name}\n".encode())
            os.kill(os.getpid(), signal.SIGKILL)
        steps += 1

    teller = Teller(folder / "ledger", step)
    for position in range(len(STORY)):
        os.write(notes, f"begin {position}\n".encode())
        teller.tell(position)
        os.write(notes, f"done {position}\n".encode())
    os.write(notes, b"end\n")


def main(root: Path) -> None:
    """Tell the story until it reaches its end."""
    deadly = 0
    while True:
        folder = root / str(deadly)
        folder.mkdir()
        child = os.fork()
        if child == 0:
            try:
                tell(folder, deadly)
            except BaseException as error:
                (folder / "told").open("a").write(f"error {type(error).__name__} {error}\n")
                raise
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status):
            break
        deadly += 1


if __name__ == "__main__":
    for rows in sys.argv[2:]:
        journal.FOLDED_ROWS = journal.DELETED_ROWS = int(rows)
    main(Path(sys.argv[1]))
