"""The target as the SDK's class, for ``--about`` and for whoever embeds it.

The SDK gives stream maps and its formats of ``--about``; reading, signals and STATE are ours,
since the SDK's ways would lose track of what was accepted. Private names of the SDK that are
overridden here: `_validate_config`, `_env_var_config`, `_setup_signal_handlers`.
"""

from __future__ import annotations

import json
import sys
import typing as t

from singer_sdk import Target, about
from singer_sdk.exceptions import (
    ConfigValidationError,
    MissingKeyPropertiesError,
    RecordsWithoutSchemaException,
)
from singer_sdk.helpers.capabilities import PluginCapabilities, TargetCapabilities
from singer_sdk.plugin_base import _ConfigInput

from target_moengage_cohort import NAME
from target_moengage_cohort import settings as settings_room
from target_moengage_cohort.cli import target_command as singer
from target_moengage_cohort.core.errors import (
    MissingKeyError,
    RecordBeforeSchemaError,
    SettingsError,
)
from target_moengage_cohort.settings import sources as configuration

if sys.version_info >= (3, 12):
    from typing import override
else:
    from typing_extensions import override

if t.TYPE_CHECKING:
    from collections import Counter

    import click
    from singer_sdk.helpers.capabilities import CapabilitiesEnum
    from singer_sdk.singerlib.encoding.base import GenericSingerReader

    from target_moengage_cohort.sync.process import Sync


class StreamWithoutSchemaError(RecordBeforeSchemaError, RecordsWithoutSchemaException):
    """Ours, and the SDK's."""


class MissingPropertyError(MissingKeyError, MissingKeyPropertiesError):
    """Ours, and the SDK's."""


class TargetMoEngageCohort(Target):
    """Carries audience membership from a warehouse to MoEngage cohorts."""

    name = NAME
    config_jsonschema: t.ClassVar[dict[str, t.Any]] = settings_room.json_schema()
    capabilities: t.ClassVar[list[CapabilitiesEnum]] = [
        PluginCapabilities.ABOUT,
        PluginCapabilities.BATCH,
        PluginCapabilities.STREAM_MAPS,
        PluginCapabilities.FLATTENING,
        PluginCapabilities.STRUCTURED_LOGGING,
        TargetCapabilities.VALIDATE_RECORDS,
    ]

    def __init__(self, **kwargs: t.Any) -> None:
        self._sync: Sync | None = None
        reader = t.cast("GenericSingerReader[str]", _MessageReader(self))
        super().__init__(**kwargs | {"setup_mapper": False, "message_reader": reader})

    @classmethod
    @override
    def append_builtin_config(cls, config_jsonschema: dict[str, t.Any]) -> None:
        """Add nothing: `settings.declared` has all settings that do something here."""

    @property
    def _env_var_config(self) -> dict[str, t.Any]:
        """The environment's settings as text; `settings.load` gives them types, and errors."""
        return configuration.from_environment()

    @override
    def _validate_config(self, *, raise_errors: bool = True) -> list[str]:
        """Check the configuration by our own rules; the SDK's messages would show values."""
        try:
            loaded = settings_room.load(self._config)
        except SettingsError as error:
            if raise_errors:
                msg = "Config validation failed"
                raise ConfigValidationError(msg, errors=list(map(str, error.faults))) from None
            return list(map(str, error.faults))
        loaded.warn(self.logger)
        from target_moengage_cohort.sync.process import Sync  # noqa: PLC0415 - --about needs none of it

        self._sync = Sync(loaded)
        return []

    @override
    def _setup_signal_handlers(self) -> None:
        """Leave signals to `TerminationSignals`: the SDK's handler would emit uncovered STATE."""

    def read(self, source: t.IO[t.Any] | None) -> Counter[str]:
        """Read an input to its end, or until interrupted; return counts of message types.

        Raises:
            TargetError: What ended the run early.
        """
        if self._sync is None:
            msg = "the configuration is not valid"
            raise SettingsError(msg)
        try:
            return self._sync.read(source)
        except RecordBeforeSchemaError as error:
            raise StreamWithoutSchemaError(str(error)) from None
        except MissingKeyError as error:
            raise MissingPropertyError(str(error)) from None

    @override
    def process_endofpipe(self) -> None:
        """Have everything delivered that was read."""
        if self._sync is not None:
            self._sync.finish()

    @classmethod
    @override
    def get_singer_command(cls) -> click.Command:
        """The command line, which is the same for the process and for whoever embeds this."""
        return singer.command

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
        """Do what the command line does; exit 0, 1, 3, 4, or 128 + a signal's number."""
        if about:
            cls.print_about(about_format)
            return
        from target_moengage_cohort.sync import process as sync  # noqa: PLC0415 - as above

        config = config or _ConfigInput()
        sync.run(config.config, from_environment=config.parse_env, source=file_input)

    @classmethod
    @override
    def print_about(cls, output_format: str | None = None) -> None:
        """Print what this is and its settings, in every format with titles and descriptions."""
        info = cls._get_about_info()
        if output_format == "json":
            print(about.JSONFormatter().format_about(info))  # noqa: T201
            return
        if output_format == "markdown":
            info.settings = _titles_in_descriptions(info.settings)
            print(about.MarkdownFormatter().format_about(info))  # noqa: T201
            return
        print(_about_text(info))  # noqa: T201


class _MessageReader:
    """Stands where the SDK has its reader, so that lines reach `Run` as they are."""

    def __init__(self, target: TargetMoEngageCohort) -> None:
        self._target = target

    def process_lines(
        self, file_input: t.IO[t.Any] | None, callbacks: t.Mapping[str, t.Any]
    ) -> Counter[str]:
        """Read an input; the SDK's callbacks, which take a dict a record, are left aside."""
        del callbacks
        return self._target.read(file_input)


def _about_text(info: about.AboutInfo) -> str:
    lines = [
        f"Name: {info.name}",
        f"Description: {info.description}",
        f"Version: {info.version}",
        f"SDK Version: {info.sdk_version}",
        f"Supported Python Versions: {', '.join(info.supported_python_versions or [])}",
        f"Capabilities: {', '.join(str(capability) for capability in info.capabilities)}",
        "Settings:",
    ]
    required = info.settings.get("required", [])
    for name, schema in info.settings["properties"].items():
        default = (
            "required" if name in required else f"default: {json.dumps(schema.get('default'))}"
        )
        lines += [
            f"  {name} ({default})",
            f"    {schema['title']}. {schema['description']}",
            f"    Environment variable: {info.env_var_prefix}{name.upper()}",
        ]
    return "\n".join(lines)


def _titles_in_descriptions(schema: dict[str, t.Any]) -> dict[str, t.Any]:
    """The same settings with each title before its description, for a format without titles."""
    properties = {
        name: setting | {"description": f"{setting['title']}. {setting['description']}"}
        for name, setting in schema["properties"].items()
    }
    return schema | {"properties": properties}
