"""The expressions of stream maps, for messages about them; none shows a value of a record."""

from __future__ import annotations

import ast
import fnmatch
import typing as t

from singer_sdk.mapper import CustomStreamMap

from target_moengage_cohort.core.column_names import quote_all
from target_moengage_cohort.core.errors import RowError, SettingsError

if t.TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from singer_sdk.mapper import StreamMap

_FILTER, _SOURCE = "__filter__", "__source__"
_OWN_NAMES = {"_", "record", "config", "fake", "self"}


def check_functions(stream: str, maps: Mapping[str, t.Any], stream_map: StreamMap) -> None:
    """Raise a `SettingsError` if an expression for a tap's stream calls an unknown function."""
    if not isinstance(stream_map, CustomStreamMap):
        return
    functions = stream_map.functions
    for name, definition in maps.items():
        if not isinstance(definition, dict):
            continue
        if not fnmatch.fnmatchcase(stream, definition.get(_SOURCE, name)):
            continue
        for column, expression in _expressions(definition):
            for call in ast.walk(ast.parse(expression)):
                if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name)):
                    continue
                if call.func.id not in functions:
                    msg = (
                        f"stream_maps.{name}.{column}: {expression!r} calls the unknown function "
                        f"{call.func.id!r}; the functions are {', '.join(sorted(functions))}. "
                        "Methods are called on a value, as in uid.lower()"
                    )
                    raise SettingsError("invalid_stream_map", msg)


def _expressions(definition: Mapping[str, t.Any]) -> Iterator[tuple[str, str]]:
    for column, expression in definition.items():
        is_option = column.startswith("__") and column != _FILTER
        if isinstance(expression, str) and not is_option:
            yield column, expression


def failed(stream_map: StreamMap, record: Mapping[str, t.Any], error: Exception) -> RowError:
    """Return why a record cannot be mapped: the expression, what it raised, and likely causes."""
    cause = type(error.__cause__ or error).__name__
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_frame.f_code is not CustomStreamMap._eval.__code__:  # noqa: SLF001 - nothing else knows the expression
        traceback = traceback.tb_next
    if traceback is None:
        return RowError("stream_map_failed", f"its stream map failed with {cause}")
    expression: str = traceback.tb_frame.f_locals["expr"]
    column = traceback.tb_frame.f_locals["property_name"]
    names = {node.id for node in ast.walk(ast.parse(expression)) if isinstance(node, ast.Name)}
    if column and "self" in names:
        names.add(column)
    names -= _OWN_NAMES | t.cast("CustomStreamMap", stream_map).functions.keys()
    nulls = sorted(name for name in names if record.get(name) is None)
    hint = f"; {quote_all(nulls)} is null or absent" if nulls else ""
    reason = (
        f"stream_maps.{stream_map.stream_alias}.{column or _FILTER}: {expression!r} failed with "
        f"{cause}{hint}"
    )
    return RowError("stream_map_failed", reason)
