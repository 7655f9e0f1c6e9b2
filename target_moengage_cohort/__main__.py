"""The command ``target-moengage-cohort``, also as ``python -m target_moengage_cohort``."""

from __future__ import annotations

from target_moengage_cohort.core.interrupts import end_at_sigint


def main() -> None:
    """Run the target's command line."""
    end_at_sigint()  # until the run handles signals itself
    from target_moengage_cohort.cli import target_command  # noqa: PLC0415

    target_command.main()


if __name__ == "__main__":
    main()
