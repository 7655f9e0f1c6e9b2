"""Insertion of blocks into YAML text, without a change of what is there.

A round trip through a YAML library keeps comments but not every byte: it changes indentation,
quotes and line breaks. So the text is parsed only for the places of its nodes.
"""

from __future__ import annotations

import textwrap
import typing as t

import msgspec
import yaml


class Block(msgspec.Struct, frozen=True):
    """Items of a sequence or entries of a mapping, as YAML without indentation.

    Attributes:
        path: The keys that lead to the place; an item of a sequence is found by its `name`.
        text: The YAML.
    """

    path: tuple[str, ...]
    text: str


class NoPlaceError(Exception):
    """A block cannot be inserted: its place has another form, such as `[]` on the key's line."""


def insert(text: str, block: Block) -> str:
    """Return the text with a block at the end of its place, which is created if it is missing."""
    newline = "\r\n" if "\r\n" in text else "\n"
    whole = text if not text or text.endswith("\n") else text + newline
    try:
        index, added = _placed(whole, block)
        start = whole[:index]  # with a line break that the last line lacks, if it is in front
        result = start + added.replace("\n", newline) + text[index:]
        has_grown = _has_grown(yaml.safe_load(text), yaml.safe_load(result))
    except yaml.YAMLError:  # such as an alias whose anchor could not be inserted
        has_grown = False
    if not has_grown:
        raise NoPlaceError
    return result


def _placed(text: str, block: Block) -> tuple[int, str]:
    """Return the index at which to insert, and the block with its indentation."""
    node, column, rest = yaml.compose(text, yaml.SafeLoader), -2, block.path
    if node is None:
        return len(text), _under(rest, block.text)
    while rest and (child := _child(node, rest[0])) is not None:
        node, column, rest = child, _column(node), rest[1:]
    added = _under(rest, block.text)
    if isinstance(node, yaml.ScalarNode) and not node.value:  # a key without a value
        end = text.find("\n", node.start_mark.index)
        return end + 1, textwrap.indent(added, " " * (column + 2))
    return _end(text, node), textwrap.indent(added, " " * _column(node))


def _under(keys: tuple[str, ...], text: str) -> str:
    """Return YAML below keys."""
    for key in reversed(keys):
        is_list = text.startswith("- ")
        text = f"{key}:\n{textwrap.indent(text, '' if is_list else '  ')}"
    return text


def _child(node: yaml.Node, name: str) -> yaml.Node | None:
    if isinstance(node, yaml.MappingNode):
        return next((value for key, value in node.value if key.value == name), None)
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            if (named := _child(item, "name")) is not None and named.value == name:
                return t.cast("yaml.Node", item)
    return None


def _column(node: yaml.Node) -> int:
    """Return the indentation of a block's items or entries."""
    if not isinstance(node, yaml.CollectionNode) or node.flow_style:
        raise NoPlaceError
    return node.start_mark.column


def _end(text: str, node: yaml.Node) -> int:
    """Return the index after a block's last line; comments before what follows it stay there.

    A node ends where the next one starts, and an alias has the place of its anchor, so only the
    text itself shows the last line.
    """
    column = _column(node)
    end = node.end_mark.index
    end = len(text) if end >= len(text) else text.rfind("\n", 0, end) + 1
    while end > 0:
        start = text.rfind("\n", 0, end - 1) + 1
        line = text[start:end].strip()
        indentation = len(text[start:end]) - len(text[start:end].lstrip())
        if line and not (line.startswith("#") and indentation <= column):
            break
        end = start
    return end


def _has_grown(before: t.Any, after: t.Any) -> bool:
    """Return whether everything is still there: entries and items may only have been added."""
    if before is None:
        return True
    if isinstance(before, dict) and isinstance(after, dict):
        return all(key in after and _has_grown(before[key], after[key]) for key in before)
    if isinstance(before, list) and isinstance(after, list):
        pairs = zip(before, after, strict=False)
        return len(before) <= len(after) and all(_has_grown(*pair) for pair in pairs)
    return type(before) is type(after) and bool(before == after)
