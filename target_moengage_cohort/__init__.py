"""Singer target that keeps MoEngage cohorts equal to what a warehouse says they are."""

NAME = "target-moengage-cohort"


def version() -> str:
    """The versions of this target and of the SDK, in one line."""
    from importlib import metadata  # noqa: PLC0415 - needed by nobody who imports us for a part

    return f"{NAME} v{metadata.version(NAME)}, Meltano SDK v{metadata.version('singer-sdk')}"
