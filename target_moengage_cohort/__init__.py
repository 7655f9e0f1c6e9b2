"""Singer target that keeps MoEngage cohorts in sync with a data warehouse."""

NAME = "target-moengage-cohort"


def package_version() -> str:
    """Return the version of this target."""
    from importlib import metadata  # noqa: PLC0415 - most importers do not need it

    return metadata.version(NAME)


def version() -> str:
    """Return the versions of this target and of the SDK, in one line."""
    from importlib import metadata  # noqa: PLC0415 - as above

    return f"{NAME} v{package_version()}, Meltano SDK v{metadata.version('singer-sdk')}"
