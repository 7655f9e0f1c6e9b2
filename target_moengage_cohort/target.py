"""The target as the SDK's class, for embedding.

The SDK's own reading, signal handling and STATE are replaced: they would lose track of what was
accepted. Names of the SDK's that are private or final and overridden here: `_validate_config`,
`_env_var_config`, `_setup_signal_handlers`, `process_lines`.
"""

from __future__ import annotations

import sys
import typing as t

from singer_sdk import Target
from singer_sdk.exceptions import (
    ConfigValidationError,
    MissingKeyPropertiesError,
    RecordsWithoutSchemaException,
)
from singer_sdk.plugin_base import _ConfigInput

from target_moengage_cohort import NAME, settings
from target_moengage_cohort.cli import target_command
from target_moengage_cohort.core.errors import InputError, SettingsError
from target_moengage_cohort.settings import about as settings_about
from target_moengage_cohort.settings import sources
from target_moengage_cohort.sync import process

if sys.version_info >= (3, 12):
    from typing import override
else:
    from typing_extensions import override

if t.TYPE_CHECKING:
    from collections import Counter

    import click
    from singer_sdk.helpers.capabilities import CapabilitiesEnum

_SDK_ERRORS = {
    "missing_key": MissingKeyPropertiesError,
    "record_before_schema": RecordsWithoutSchemaException,
}


class TargetMoEngageCohort(Target):
    """Syncs audiences from a data warehouse to MoEngage cohorts."""

    name = NAME
    config_jsonschema: t.ClassVar[dict[str, t.Any]] = settings_about.json_schema()
    capabilities: t.ClassVar[list[CapabilitiesEnum]] = settings_about.capabilities()

    def __init__(self, **kwargs: t.Any) -> None:
        self._sync: process.Sync | None = None
        super().__init__(**kwargs | {"setup_mapper": False})

    @property
    def _env_var_config(self) -> dict[str, t.Any]:
        """The environment's settings as text; `settings.load` converts it."""
        return sources.from_environment()

    @override
    def _validate_config(self, *, raise_errors: bool = True) -> list[str]:
        """Check the configuration by our own rules; the SDK's messages would show values."""
        try:
            config = settings.load(self._config)
        except SettingsError as error:
            faults = list(map(str, error.faults))
            if raise_errors:
                msg = "Config validation failed"
                raise ConfigValidationError(msg, errors=faults) from None
            return faults
        config.warn(self.logger)
        self._sync = process.Sync(config)
        return []

    @classmethod
    @override
    def append_builtin_config(cls, config_jsonschema: dict[str, t.Any]) -> None:
        """Add nothing: `settings.declared` has all settings that do something here."""

    @override
    def _setup_signal_handlers(self) -> None:
        """Leave signals to the process: the SDK's handler would emit STATE that is not covered."""

    def process_lines(  # type: ignore[misc]  # final, as it decodes each line to a dict
        self, file_input: t.IO[str] | None
    ) -> Counter[str]:
        """Read an input to its end, or until interrupted; return counts of message types.

        It raises a `TargetError`, or the SDK's own error if it has one for the fault.
        """
        if self._sync is None:
            raise SettingsError("invalid_settings", "the configuration is not valid")
        try:
            return self._sync.read(file_input).counts
        except InputError as error:
            if error.code not in _SDK_ERRORS:
                raise
            raise _SDK_ERRORS[error.code](str(error)) from None

    @override
    def process_endofpipe(self) -> None:
        """Deliver everything that was read."""
        if self._sync is not None:
            self._sync.finish()

    @classmethod
    @override
    def get_singer_command(cls) -> click.Command:
        """Return the command line, which is also that of the process."""
        return target_command.command

    @classmethod
    @override
    def invoke(  # type: ignore[override]  # as in the SDK's own Target
        cls,
        *,
        about: bool = False,
        about_format: str | None = None,
        config: _ConfigInput | None = None,
        file_input: t.IO[str] | None = None,
    ) -> None:
        """Run the command line; exit 0, 1, 3, 4, or 128 + a signal's number."""
        if about:
            cls.print_about(about_format)
            return
        config = config or _ConfigInput()
        process.run(config.config, from_environment=config.parse_env, source=file_input)

    @classmethod
    @override
    def print_about(cls, output_format: str | None = None) -> None:
        """Print the metadata and settings, in every format with titles and descriptions."""
        print(settings_about.format_about(output_format))  # noqa: T201
