"""Reads the filters of a segment from a JSON file.

No error quotes its content, which may have identifiers.
"""

from __future__ import annotations

import json
import typing as t

import click
import msgspec

from target_moengage_cohort.core.errors import InputError
from target_moengage_cohort.core.input_files import reading
from target_moengage_cohort.moengage.filters import Group, filter_faults

_MOST_BYTES = 1 << 20
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class SegmentFilters(msgspec.Struct, frozen=True):
    """The filters of a segment."""

    included_filters: Group
    excluded_filters: Group | None = None


def read_filters(path: str) -> SegmentFilters:
    """Read the filters in a file; - is standard input.

    Raise an `InputError` that says where the file is wrong, with all faults of its fields.
    """
    name = "standard input" if path == "-" else path
    with reading(name), click.open_file(path, "rb") as file:
        content = file.read(_MOST_BYTES + 1)
    if len(content) > _MOST_BYTES:
        msg = f"{name}: more than {_MOST_BYTES:,} bytes, the most that MoEngage accepts"
        raise InputError("filters_too_large", msg)
    decoded = _decoded(content.removeprefix(_BYTE_ORDER_MARK), name)
    faults = [f"{name}: {fault}" for fault in filter_faults(decoded)]
    InputError.raise_any(InputError("invalid_filters", fault) for fault in faults)
    return SegmentFilters(decoded["included_filters"], decoded.get("excluded_filters"))


def _decoded(content: bytes, name: str) -> t.Any:
    try:
        with reading(name):
            return msgspec.json.decode(content)
    except RecursionError:
        msg = f"{name}: is nested too deeply; use fewer levels of nested_filters"
        raise InputError("invalid_json", msg) from None
    except msgspec.DecodeError:
        raise InputError("invalid_json", f"{name}: {_syntax_fault(content)}") from None


def _syntax_fault(content: bytes) -> str:
    if not content.strip():
        return 'is empty; write {"included_filters": {"filter_operator": "and", "filters": [...]}}'
    if b"\0" in content:
        return "is not UTF-8 but probably UTF-16; save it as UTF-8"
    try:
        json.loads(content)  # it knows lines and columns
    except json.JSONDecodeError as error:
        place = f"line {error.lineno:,}, column {error.colno:,}"
        return f"{place}: not valid JSON ({error.msg}). Fix the text there or just before it"
    except ValueError:
        return "is not valid UTF-8; save it as UTF-8"
    return "is not valid JSON; remove NaN, Infinity, and half of a pair such as \\ud83d"
