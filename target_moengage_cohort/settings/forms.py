"""The forms in which Meltano passes on an object.

``{"a.b": {"key": 1}}`` arrives as ``{"a": {"b": {"key": 1}}}`` in the configuration file of a
project whose stream names contain dots, and as ``{"a.b.key": 1}`` in the environment.
"""

from __future__ import annotations

import typing as t
from functools import partial

import msgspec

from target_moengage_cohort.core.errors import SettingsError
from target_moengage_cohort.settings.declared import MAPPING_KEYS

if t.TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    IsKey: t.TypeAlias = Callable[[str, t.Any], bool]
    Object: t.TypeAlias = dict[str, t.Any]


def gather(raw: Mapping[str, t.Any]) -> Object:
    """Gather ``cohorts.vip.cohort_id`` and the like into the object settings they belong to."""
    gathered = dict(raw)
    for name in raw:
        setting, dot, rest = name.partition(".")
        if dot and setting in OBJECTS:
            value = gathered.get(setting) or {}
            if isinstance(value, dict):
                gathered[setting] = {**value, rest: gathered.pop(name)}
    return gathered


def one_form(name: str, value: t.Any) -> t.Any:
    """Return the value of an object setting, which may be JSON text, without flattening."""
    if isinstance(value, str):
        try:
            value = msgspec.json.decode(value)
        except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
            raise SettingsError("invalid_value", f"{name}: is not valid JSON") from None
    return OBJECTS[name](value) if isinstance(value, dict) else value


def _by_stream(value: Object, *, is_key: IsKey) -> Object:
    """Return the value of each stream, without flattening and without nesting."""
    streams: Object = {}
    for stream, key, leaf in _leaves(value, is_key):
        known = streams.get(stream)
        if key is not None:
            streams[stream] = (known if isinstance(known, dict) else {}) | {key: leaf}
        elif not isinstance(known, dict):
            streams[stream] = leaf
    return streams


def _leaves(
    value: Object, is_key: IsKey, parents: tuple[str, ...] = ()
) -> Iterator[tuple[str, str | None, t.Any]]:
    """Yield stream, key and value; an empty object and a stream's own value have no key.

    `is_key` says whether the last part of a dotted name at the top level, with its value, is one
    of a stream's keys and not the end of a stream's name.
    """
    for name, leaf in value.items():
        path = ".".join((*parents, name))
        outer, _, inner = path.rpartition(".")
        if isinstance(leaf, dict) and leaf:
            yield from _leaves(leaf, is_key, (*parents, name))
        elif parents and not isinstance(leaf, dict):
            yield ".".join(parents), name, leaf
        elif "." in path and is_key(inner, leaf):
            yield outer, inner, leaf
        else:
            yield path, None, leaf


def _is_mapping_key(inner: str, leaf: object) -> bool:
    return not isinstance(leaf, dict) and (leaf is not None or inner in MAPPING_KEYS)


def _is_stream_map_key(inner: str, leaf: object) -> bool:
    """Whether a dotted name in `stream_maps` ends in a property; null by itself drops a stream."""
    return inner.startswith("__") or not (leaf in (None, "__NULL__") or isinstance(leaf, dict))


def _nested(value: Object) -> Object:
    """Return an object without flattening; none of its keys contains a dot."""
    result: Object = {}
    for name, leaf in value.items():
        *outer, key = name.split(".")
        parent = result
        for part in outer:
            child = parent.get(part)
            parent[part] = parent = dict(child) if isinstance(child, dict) else {}
        existing = parent.get(key)
        if not isinstance(existing, dict):
            parent[key] = leaf
        elif isinstance(leaf, dict):
            parent[key] = existing | leaf
    return result


OBJECTS: dict[str, Callable[[Object], Object]] = {
    "cohorts": partial(_by_stream, is_key=_is_mapping_key),
    "batch_config": _nested,
    "stream_maps": partial(_by_stream, is_key=_is_stream_map_key),
    "stream_map_config": dict,
    "notify_headers": dict,
}
"""The settings that are objects, each with what undoes its flattening."""
