"""What the SDK does to whole records: stream maps, flattening, and validation.

This is the slow way, for runs whose settings ask for it. The SDK's own messages may show
values, so none of them passes: an error names the stream, the expression or path, and the rule.
"""

from __future__ import annotations

import copy
import logging
import typing as t

import jsonschema
from msgspec import UNSET
from singer_sdk.exceptions import SingerSDKError
from singer_sdk.mapper import PluginMapper, RemoveRecordTransform
from singer_sdk.typing import DEFAULT_JSONSCHEMA_VALIDATOR

from target_moengage_cohort.core.errors import InputError, RowError, SettingsError
from target_moengage_cohort.singer.messages import DELETED_AT, Schema

if t.TYPE_CHECKING:
    from singer_sdk.mapper import StreamMap

    from target_moengage_cohort.settings import Settings

# At DEBUG these log what expressions evaluate to, that is, members' data.
_TALKATIVE_LOGGERS = ("singer_sdk.mapper",)


class SdkTransform:
    """Stream maps, flattening and validation, as the settings ask for them.

    Args:
        settings: The run's settings.
        logger: Where the SDK's mapper reports which rules it found.

    Raises:
        SettingsError: A stream map is not as the SDK wants it.
    """

    def __init__(self, settings: Settings, logger: logging.Logger) -> None:
        for name in _TALKATIVE_LOGGERS:
            talkative = logging.getLogger(name)
            talkative.setLevel(max(logging.INFO, talkative.level))
        self._validate = settings.validate_records
        self._validators: dict[str, jsonschema.protocols.Validator] = {}
        config = {
            name: value
            for name in (
                "stream_maps",
                "stream_map_config",
                "flattening_enabled",
                "flattening_max_depth",
                "flattening_max_key_length",
                "flattening_separator",
            )
            if (value := getattr(settings, name)) is not UNSET and value != {}
        }
        try:
            self._mapper = PluginMapper(plugin_config=copy.deepcopy(config), logger=logger)
        except SingerSDKError as error:
            msg = f"stream_maps: {error}; see the SDK's stream maps"
            raise SettingsError(msg) from None
        except Exception as error:  # noqa: BLE001 - the SDK takes any stream map for a good one
            msg = f"stream_maps: cannot be used ({type(error).__name__}); see the SDK's stream maps"
            raise SettingsError(msg) from None

    def schema(self, message: Schema) -> list[Schema]:
        """The streams that a stream becomes.

        Raises:
            SettingsError: A stream map does not fit the stream.
            InputError: The schema is no JSON schema.
        """
        stream = message.stream
        try:
            self._mapper.register_raw_stream_schema(
                stream, copy.deepcopy(message.schema), message.key_properties
            )
        except (SingerSDKError, NotImplementedError) as error:
            msg = f"stream_maps: for the stream {stream!r}: {error}; see the SDK's stream maps"
            raise SettingsError(msg) from None
        except Exception as error:  # noqa: BLE001 - the SDK takes any schema for a good one
            msg = (
                f"the SCHEMA of the stream {stream!r} is no JSON schema ({type(error).__name__}); "
            )
            msg += "look for a newer version of the tap, or mend its catalog"
            raise InputError(msg) from None
        found = []
        for stream_map in self._mapper.stream_maps[stream]:
            if isinstance(stream_map, RemoveRecordTransform):
                continue
            schema = stream_map.transformed_schema
            keys = list(stream_map.transformed_key_properties or [])
            found.append(Schema(stream_map.stream_alias, schema, keys))
            if self._validate:
                self._validators[stream_map.stream_alias] = _validator(stream, schema)
        return found

    def record(
        self, stream: str, record: dict[str, t.Any]
    ) -> list[tuple[str, dict[str, t.Any] | RowError]]:
        """The records that a record becomes, each with its stream, or why it cannot.

        A deletion survives a map that drops the column which tells of it.
        """
        found: list[tuple[str, dict[str, t.Any] | RowError]] = []
        for stream_map in self._mapper.stream_maps[stream]:
            try:
                transformed = self._transformed(stream_map, record)
            except RowError as error:
                found.append((stream_map.stream_alias, error))
            else:
                if transformed is not None:
                    found.append((stream_map.stream_alias, transformed))
        return found

    def _transformed(
        self, stream_map: StreamMap, record: dict[str, t.Any]
    ) -> dict[str, t.Any] | None:
        if not record:
            return {}  # the SDK would drop it, as if a filter had
        try:
            transformed = stream_map.transform(copy.deepcopy(record))
        except Exception as error:  # noqa: BLE001 - an expression may raise anything
            reason = f"its stream map failed with {type(error).__name__}"
            raise RowError(reason) from None
        if transformed is None:
            return None
        if self._validate:
            self._check(stream_map.stream_alias, transformed)
        if record.get(DELETED_AT) is not None:
            transformed.setdefault(DELETED_AT, record[DELETED_AT])
        return transformed

    def _check(self, stream: str, record: dict[str, t.Any]) -> None:
        try:
            error = next(self._validators[stream].iter_errors(record), None)
        except Exception as failure:  # noqa: BLE001 - a reference that leads nowhere, for one
            reason = f"the stream's schema cannot be used ({type(failure).__name__})"
            raise RowError(reason) from None
        if error is not None:
            # The column alone: below it, a path may hold keys that are data.
            column = str(error.absolute_path[0]) if error.absolute_path else "the record"
            reason = f"{column} breaks the rule {error.validator!r} of the stream's schema"
            raise RowError(reason)


def _validator(stream: str, schema: dict[str, t.Any]) -> jsonschema.protocols.Validator:
    """A validator that checks what the SDK checks: types and rules, but no formats."""
    try:
        DEFAULT_JSONSCHEMA_VALIDATOR.check_schema(schema)
    except jsonschema.SchemaError as error:
        msg = (
            f"the SCHEMA of the stream {stream!r} is no JSON schema: {error.message}; look for a "
            "newer version of the tap, or mend its catalog"
        )
        raise InputError(msg) from None
    return DEFAULT_JSONSCHEMA_VALIDATOR(schema, format_checker=jsonschema.FormatChecker(formats=()))
