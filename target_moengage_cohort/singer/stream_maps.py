"""Stream maps, flattening and validation of whole records, by the SDK.

This is the slow path, for runs whose settings ask for it. The SDK's own messages may quote values,
so none is passed on: an error names the stream, the expression or path, and the rule.
"""

from __future__ import annotations

import copy
import logging
import typing as t

from singer_sdk.exceptions import SingerSDKError
from singer_sdk.mapper import PluginMapper, RemoveRecordTransform, StreamMap

from target_moengage_cohort.core.deletions import MARKS
from target_moengage_cohort.core.errors import InputError, RowError, SettingsError
from target_moengage_cohort.singer.expressions import check_functions, failed
from target_moengage_cohort.singer.messages import RawRecord, Schema
from target_moengage_cohort.singer.record_schemas import RecordSchema

if t.TYPE_CHECKING:
    from collections.abc import Callable

    from target_moengage_cohort.settings import Settings

_FLATTENING = ("enabled", "max_depth", "max_key_length", "separator")
_SDK_SETTINGS = ("stream_maps", "stream_map_config", *(f"flattening_{n}" for n in _FLATTENING))


class StreamMaps:
    """Stream maps, flattening and validation; the logger receives the mapper's messages."""

    def __init__(self, settings: Settings, logger: logging.Logger) -> None:
        # At DEBUG it logs the values of expressions, which are members' data.
        talkative = logging.getLogger("singer_sdk.mapper")
        talkative.setLevel(max(logging.INFO, talkative.level))
        self._validate = settings.validate_records
        self._schemas: dict[str, RecordSchema] = {}
        self._exemptions: dict[str, Callable[[RawRecord], bool]] = {}
        self._maps = settings.stream_maps
        values = {name: getattr(settings, name) for name in _SDK_SETTINGS}
        config = {name: value for name, value in values.items() if value not in (None, {})}
        try:
            self._mapper = PluginMapper(plugin_config=copy.deepcopy(config), logger=logger)
        except Exception as error:  # noqa: BLE001 - the SDK does not check stream maps first
            is_checked = isinstance(error, SingerSDKError)
            why = str(error) if is_checked else f"cannot be used ({type(error).__name__})"
            raise _invalid_stream_map(why) from None

    def schema(self, message: Schema) -> list[Schema]:
        """Return the streams that a stream becomes."""
        stream = message.stream
        try:
            schema = copy.deepcopy(message.schema)
            for key in message.key_properties:  # the mapper wants them there, though none need be
                schema["properties"].setdefault(key, {})
            self._mapper.register_raw_stream_schema(stream, schema, message.key_properties)
        except (SingerSDKError, NotImplementedError) as error:
            why = f"for the stream {stream!r}: {error}"
            raise _invalid_stream_map(why) from None
        except Exception as error:  # noqa: BLE001 - the SDK does not check schemas first
            raise _invalid_schema(stream, f" ({type(error).__name__})") from None
        schemas = []
        for stream_map in self._mapper.stream_maps[stream]:
            if isinstance(stream_map, RemoveRecordTransform):
                continue
            check_functions(stream, self._maps, stream_map)
            alias, schema = stream_map.stream_alias, stream_map.transformed_schema
            keys = list(stream_map.transformed_key_properties or [])
            schemas.append(Schema(alias, schema, keys))
            if self._validate:
                self._schemas[alias] = RecordSchema(stream, schema)
        return schemas

    def record(self, stream: str, record: RawRecord) -> list[tuple[str, RawRecord | RowError]]:
        """Return the records that a record becomes, each with its stream, or what failed.

        A deletion survives a map that drops its column.
        """
        outputs: list[tuple[str, RawRecord | RowError]] = []
        for stream_map in self._mapper.stream_maps[stream]:
            try:
                output: RawRecord | RowError | None = self._transformed(stream_map, record)
            except RowError as error:
                output = error
            if output is not None:
                outputs.append((stream_map.stream_alias, output))
        return outputs

    def _transformed(self, stream_map: StreamMap, record: RawRecord) -> RawRecord | None:
        if not record:
            return {}  # the SDK would drop it, as if a filter had
        try:
            transformed = stream_map.transform(copy.deepcopy(record))
        except Exception as error:  # noqa: BLE001 - an expression may raise anything
            raise failed(stream_map, record, error) from None
        if transformed is not None:
            if self._validate and not self._is_exempt(stream_map.stream_alias, transformed):
                self._schemas[stream_map.stream_alias].check(transformed)
            for name in record:
                if name.lower() in MARKS and record[name] is not None:
                    transformed.setdefault(name, record[name])
        return transformed

    def exempt(self, stream: str, is_exempt: Callable[[RawRecord], bool]) -> None:
        """Leave some records of a stream, after stream maps, without validation."""
        self._exemptions[stream] = is_exempt

    def _is_exempt(self, stream: str, record: RawRecord) -> bool:
        return stream in self._exemptions and self._exemptions[stream](record)


def _invalid_stream_map(why: str) -> SettingsError:
    return SettingsError("invalid_stream_map", f"stream_maps: {why}; see the SDK's stream maps")


def _invalid_schema(stream: str, why: str) -> InputError:
    return InputError(
        "invalid_schema",
        f"the SCHEMA of the stream {stream!r} is not a valid JSON schema{why}; try a newer version "
        "of the tap, or fix its catalog",
    )
