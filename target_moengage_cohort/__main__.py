"""The command ``target-moengage-cohort``, also as ``python -m target_moengage_cohort``."""

from __future__ import annotations

import gc
import logging
import os
import sys

from target_moengage_cohort.core.interrupts import end_at_sigint

_NEW_OBJECTS = 50_000
"""Objects between two searches for cyclic garbage. Imports make many objects and hardly any of it;
after every 700, which is Python's default, the searches take 10 ms of a run."""


def main() -> None:
    """Run the target's command line."""
    gc.set_threshold(_NEW_OBJECTS)
    end_at_sigint()  # until the run handles signals itself
    from target_moengage_cohort.cli import target_command  # noqa: PLC0415

    try:
        target_command.main()
    except SystemExit as end:
        if isinstance(end.code, str):
            raise  # which prints it
        # Everything is closed. Freeing all objects one by one would take 40 ms for nothing.
        logging.shutdown()
        code = end.code or 0
        for stream in filter(None, (sys.stdout, sys.stderr)):
            try:
                stream.flush()
            except BrokenPipeError:  # its reader has ended
                pass
            except (OSError, ValueError):  # the disk is full, or it is closed
                code = code or 1
        os._exit(code)


if __name__ == "__main__":
    main()
