"""The command ``target-moengage-cohort``, also as ``python -m target_moengage_cohort``."""

from __future__ import annotations

import os
import signal
import typing as t

if t.TYPE_CHECKING:
    from types import FrameType


def main() -> None:
    """Run the target's command line."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end)  # until the run takes over the signals
    from target_moengage_cohort import singer  # noqa: PLC0415

    singer.main()


def _end(_number: int, _frame: FrameType | None) -> t.NoReturn:
    """End at once: before the run and after it there is nothing to lose.

    Not by an exception: Python drops one that is raised in a callback of its import system, the
    process goes on, and whoever sent the signal waits.
    """
    os._exit(128 + signal.SIGINT)


if __name__ == "__main__":
    main()
