"""The command ``target-moengage-cohort``, also as ``python -m target_moengage_cohort``."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the target's command line."""
    try:
        from target_moengage_cohort import singer  # noqa: PLC0415

        singer.main()
    except KeyboardInterrupt:  # before the command takes over the signals
        sys.exit(130)


if __name__ == "__main__":
    main()
