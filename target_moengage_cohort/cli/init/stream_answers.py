"""The streams that `init` maps: from `--stream`, or asked for one after the other."""

from __future__ import annotations

import difflib
import shlex
import typing as t

from target_moengage_cohort.cli.init.warehouses import ProjectStream
from target_moengage_cohort.core.errors import SettingsError
from target_moengage_cohort.core.membership import SNAPSHOT_MODES, SyncMode, cohort_name_fault
from target_moengage_cohort.settings.about import json_schema

if t.TYPE_CHECKING:
    from collections.abc import Sequence

    from target_moengage_cohort.cli.init.init_questions import Questions
    from target_moengage_cohort.cli.init.warehouses import Warehouse

_TAP_KEYS = ("replication_key", "table")
_COLUMN = "name of a column; empty: none"
_MODES_NOTE = (
    "  incremental: each row adds or removes a user. mirror: the rows are the whole cohort,\n"
    "  and a user without a row is removed. For add, remove, one_time: docs/sync-modes.md"
)
_NOT_A_MIRROR = (
    "tap-bigquery reads only the rows after its bookmark, so it cannot {}: the members of all "
    "other rows would count as missing. Use the sync mode incremental"
)


def given_streams(
    options: Sequence[str], warehouse: Warehouse | None, questions: Questions
) -> list[ProjectStream]:
    """Return the streams of options, such as ``public-vip cohort_id=vip cohort_name="VIPs"``."""
    streams = []
    for option in options:
        try:
            name, *pairs = shlex.split(option)
        except ValueError:
            msg = f"--stream {option}: must be NAME KEY=VALUE …, with quotes around spaces"
            raise SettingsError("invalid_value", msg) from None
        values = dict(_pair(name, pair) for pair in pairs)
        for key in ("cohort_id", "cohort_name"):
            if key not in values:
                question = f"{key} of {name}"
                values[key] = questions.ask(question, f'{key}= in --stream "{name} …"')
        required = _TAP_KEYS if _is_bigquery(warehouse) else ()
        for key in required:
            if key not in values:
                questions.require(f'{key}= in --stream "{name} …"')
        streams.append(_stream(name, values, warehouse))
    return streams


def ask_streams(warehouse: Warehouse | None, questions: Questions) -> list[ProjectStream]:
    """Ask for streams until the answer is empty."""
    if warehouse is None or not questions.can_ask:  # without a terminal there is no warehouse
        questions.require("--stream")
        return []
    streams: list[ProjectStream] = []
    while True:
        question = (
            "Another stream (empty: no more)" if streams else f"Stream, such as {warehouse.stream}"
        )
        default = "" if streams else None
        name = questions.ask(question, "--stream", default=default)
        if not name:
            return streams
        try:
            values = _asked(name, warehouse, questions)
            streams.append(_stream(name, values, warehouse))
        except SettingsError as error:
            questions.say(f"{error}. Enter the stream again")


def _asked(name: str, warehouse: Warehouse, questions: Questions) -> dict[str, t.Any]:
    """Ask for the mapping of a stream."""
    how = "--stream"
    short = name.rpartition("-")[2]
    values = {"cohort_id": questions.ask("  Cohort ID, never to be changed", how, default=short)}
    words = short.replace("_", " ").capitalize()
    question = "  Cohort name, which is the segment's in MoEngage"
    values["cohort_name"] = questions.ask(question, how, default=words, convert=_cohort_name)
    questions.say(_MODES_NOTE)
    modes = ", ".join(SyncMode)
    question = f"  Sync mode: {modes}"
    mode = questions.ask(question, how, default=SyncMode.INCREMENTAL, convert=_sync_mode)
    is_snapshot = mode in SNAPSHOT_MODES
    values["sync_mode"] = str(mode)
    values["uid_column"] = questions.ask("  Column of the user ID", how, default="uid")
    if mode == SyncMode.INCREMENTAL or is_snapshot:
        question = f"  Membership column ({_COLUMN})"
        values["membership_column"] = questions.ask(question, how, default="")
    if is_snapshot:
        question = f"  Expected count column ({_COLUMN})"
        values["expected_count_column"] = questions.ask(question, how, default="")
    if _is_bigquery(warehouse):
        values["table"] = questions.ask("  Table, as dataset.table", how)
        values["replication_key"] = questions.ask("  Column with the time of the change", how)
    elif warehouse.definition and not is_snapshot:
        question = "  Replication key, such as updated_at (empty: read all rows each time)"
        values["replication_key"] = questions.ask(question, how, default="")
    return values


def _stream(name: str, values: dict[str, t.Any], warehouse: Warehouse | None) -> ProjectStream:
    """Return a stream, with the keys that differ from their defaults."""
    defaults = {"sync_mode": "incremental", "uid_column": "uid"}
    mapping = {
        key: value
        for key, value in values.items()
        if key not in _TAP_KEYS and value not in {"", defaults.get(key)}
    }
    if any("$" in str(value) for value in (name, *values.values())):
        msg = f"stream {name}: must not contain $, which Meltano would expand as a variable"
        raise SettingsError("invalid_value", msg)
    stream = ProjectStream(
        name, mapping, values.get("replication_key") or None, values.get("table") or None
    )
    if stream.is_snapshot and _is_bigquery(warehouse):
        msg = f"{name}: {_NOT_A_MIRROR.format(mapping['sync_mode'])}"
        raise SettingsError("conflicting_settings", msg)
    return stream


def _pair(stream: str, pair: str) -> tuple[str, t.Any]:
    """Return a key and its value, converted to the type that the key has."""
    key, separator, value = pair.partition("=")
    mapping = json_schema()["properties"]["cohorts"]["additionalProperties"]["properties"]
    schema = {"type": "string"} if key in _TAP_KEYS else mapping.get(key)
    if schema is None or not separator:
        similar = difflib.get_close_matches(key, [*mapping, *_TAP_KEYS], n=1)
        hint = f"did you mean {similar[0]!r}?" if similar else "must be KEY=VALUE"
        msg = f"--stream {stream}: unknown key {key!r}; {hint}"
        raise SettingsError("unknown_setting", msg)
    if schema.get("type") == "integer" and value.isdecimal():
        return key, int(value)
    if schema.get("type") == "boolean" and value in {"true", "false"}:
        return key, value == "true"
    return key, value


def _is_bigquery(warehouse: Warehouse | None) -> bool:
    return warehouse is not None and warehouse.name == "bigquery"


def _cohort_name(name: str) -> str:
    if (fault := cohort_name_fault(name)) is not None:
        msg = f"cohort_name: {fault}"
        raise SettingsError("invalid_value", msg)
    return name


def _sync_mode(name: str) -> str:
    if name not in set(SyncMode):
        msg = f"sync_mode: must be one of {', '.join(SyncMode)}"
        raise SettingsError("invalid_value", msg)
    return name
