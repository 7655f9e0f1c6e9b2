"""The forms in which Meltano passes on an object.

``{"a.b": {"key": 1}}`` arrives as ``{"a": {"b": {"key": 1}}}`` in the configuration file of a
project whose stream names contain dots, and as ``{"a.b.key": 1}`` in the environment.
"""

from __future__ import annotations

import typing as t

if t.TYPE_CHECKING:
    from collections.abc import Callable, Iterator

IsKey: t.TypeAlias = "Callable[[str, t.Any], bool]"


def by_stream(value: dict[str, t.Any], is_key: IsKey) -> dict[str, t.Any]:
    """Return the value of each stream, without flattening and without nesting.

    Args:
        value: The object, in any of the forms.
        is_key: Whether the last part of a dotted name at the top level, with its value, is one of
            a stream's keys and not the end of a stream's name.
    """
    streams: dict[str, t.Any] = {}
    for stream, key, leaf in _leaves(value):
        if key is None:
            outer, dot, inner = stream.rpartition(".")
            if not (dot and is_key(inner, leaf)):
                if not isinstance(streams.get(stream), dict):
                    streams[stream] = leaf
                continue
            stream, key = outer, inner  # noqa: PLW2901 - the same key in its other form
        if not isinstance(streams.get(stream), dict):
            streams[stream] = {}
        streams[stream][key] = leaf
    return streams


def nested(value: dict[str, t.Any]) -> dict[str, t.Any]:
    """Return an object without flattening; none of its keys contains a dot."""
    result: dict[str, t.Any] = {}
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


def _leaves(
    value: dict[str, t.Any], parents: tuple[str, ...] = ()
) -> Iterator[tuple[str, str | None, t.Any]]:
    """Yield stream, key and value; an empty object and a value at the top level have no key."""
    for name, leaf in value.items():
        if isinstance(leaf, dict) and leaf:
            yield from _leaves(leaf, (*parents, name))
        elif parents and not isinstance(leaf, dict):
            yield ".".join(parents), name, leaf
        else:
            yield ".".join((*parents, name)), None, leaf
