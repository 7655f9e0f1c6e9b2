"""The forms in which an object may come, as Meltano hands objects over.

``{"a.b": {"key": 1}}`` arrives as ``{"a": {"b": {"key": 1}}}`` in the configuration file of a
project whose stream names have dots, and as ``{"a.b.key": 1}`` in the environment.
"""

from __future__ import annotations

import typing as t

if t.TYPE_CHECKING:
    from collections.abc import Callable, Iterator

IsKey: t.TypeAlias = "Callable[[str, t.Any], bool]"


def by_stream(value: dict[str, t.Any], is_key: IsKey) -> dict[str, t.Any]:
    """Undo flattening and nesting: stream → what is said of it.

    Args:
        value: The object, in any of the forms.
        is_key: Whether the last part of a dotted name at the top, with its value, is one of a
            stream's keys and not the end of a stream's name.
    """
    found: dict[str, t.Any] = {}
    for stream, key, leaf in _leaves(value):
        if key is None:
            outer, dot, inner = stream.rpartition(".")
            if not (dot and is_key(inner, leaf)):
                if not isinstance(found.get(stream), dict):
                    found[stream] = leaf
                continue
            stream, key = outer, inner  # noqa: PLW2901 - the same thing in its other form
        if not isinstance(found.get(stream), dict):
            found[stream] = {}
        found[stream][key] = leaf
    return found


def nested(value: dict[str, t.Any]) -> dict[str, t.Any]:
    """Undo flattening where no key has dots of its own; what is nested already stays as it is."""
    found: dict[str, t.Any] = {}
    for name, leaf in value.items():
        *outer, key = name.split(".")
        inner = found
        for part in outer:
            below = inner.get(part)
            inner[part] = inner = dict(below) if isinstance(below, dict) else {}
        known = inner.get(key)
        if not isinstance(known, dict):
            inner[key] = leaf
        elif isinstance(leaf, dict):
            inner[key] = known | leaf
    return found


def _leaves(
    value: dict[str, t.Any], parents: tuple[str, ...] = ()
) -> Iterator[tuple[str, str | None, t.Any]]:
    """Yield stream, key and value; an empty object and what stands at the top have no key."""
    for name, leaf in value.items():
        if isinstance(leaf, dict) and leaf:
            yield from _leaves(leaf, (*parents, name))
        elif parents and not isinstance(leaf, dict):
            yield ".".join(parents), name, leaf
        else:
            yield ".".join((*parents, name)), None, leaf
