"""The command ``target-moengage-cohort``, also as ``python -m target_moengage_cohort``."""

from __future__ import annotations

from target_moengage_cohort.target import TargetMoEngageCohort


def main() -> None:
    """Run the target's command line."""
    TargetMoEngageCohort.cli()


if __name__ == "__main__":
    main()
