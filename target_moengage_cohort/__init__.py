"""Singer target that keeps MoEngage cohorts in sync with a data warehouse."""

NAME = "target-moengage-cohort"


def version() -> str:
    """Return the versions of this target and of the SDK, in one line."""
    from importlib import metadata  # noqa: PLC0415 - most importers do not need it

    return f"{NAME} v{metadata.version(NAME)}, Meltano SDK v{metadata.version('singer-sdk')}"
