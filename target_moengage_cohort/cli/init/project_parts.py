"""The parts of a Meltano project that syncs cohorts, as YAML in the form of `docs/examples`."""

from __future__ import annotations

import re
import shlex
import textwrap
import typing as t

import yaml

from target_moengage_cohort import NAME
from target_moengage_cohort.cli.init.warehouses import tap_keys
from target_moengage_cohort.settings.about import json_schema, setting_kind

if t.TYPE_CHECKING:
    from collections.abc import Sequence

    from target_moengage_cohort.cli.init.warehouses import ProjectStream, Warehouse

UTILITY = "moengage-cohort"
# A string that every version of YAML reads as one; PyYAML knows the rules of YAML 1.1 only.
_PLAIN = re.compile(r"[A-Za-z_][\w ./@*-]*", re.ASCII)
_LOADER = """\
- name: {name}
  namespace: target_moengage_cohort
  pip_url: target-moengage-cohort
  executable: target-moengage-cohort
  capabilities: [about, batch, schema-flattening, stream-maps, structured-logging]
  config: &{config}
{cohorts}
  # Meltano passes on only the settings that are declared, also from the environment.
  settings: &{settings}
{declared}
"""
_UTILITY = """\
- name: moengage-cohort # check, status and so on
  namespace: target_moengage_cohort # the loader's, for the same variables
  pip_url: target-moengage-cohort
  executable: moengage-cohort
  config: {config}
  settings: {settings}
  commands:
    check:
      args: check --config=ENV
    status:
      args: status --config=ENV
"""
_CONFIRM = """\
    confirm: # a step after the tap, where removals are deferred
      args: {arguments}
"""
_PROJECT = """\
# Syncs cohorts to MoEngage. Credentials and what differs between machines are in .env.
requires_meltano: '>=4.0,<5'
default_environment: prod
project_id: cohorts-{name}
send_anonymous_usage_stats: false
environments:
- name: prod
plugins:
"""
SCHEDULE = """\
- name: hourly-cohorts
  interval: '@hourly'
  job: sync-cohorts
"""


class _Dumper(yaml.SafeDumper):
    """Quotes what another version of YAML could misread."""


def _string(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    style = None if _PLAIN.fullmatch(value) else "'"
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Dumper.add_representer(str, _string)


def to_yaml(value: t.Any, indent: str = "") -> str:
    """Return a value as YAML, each line indented."""
    text = yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=10_000)
    return textwrap.indent(text, indent)


def declared_settings() -> str:
    """Return a line of YAML for each setting of the target, from the source of `--about`."""
    lines = []
    for name, schema in json_schema()["properties"].items():
        setting = {"name": name, "kind": setting_kind(name, schema)}
        if "enum" in schema:
            setting["options"] = [{"label": value, "value": value} for value in schema["enum"]]
        if schema.get("secret"):
            setting["sensitive"] = True
        lines.append(
            "- " + yaml.safe_dump(setting, default_flow_style=True, sort_keys=False, width=10_000)
        )
    return "".join(line.replace("\n", "") + "\n" for line in lines)


def tap_part(warehouse: Warehouse, streams: Sequence[ProjectStream]) -> str:
    """Return the item of `extractors`."""
    text = (
        warehouse.definition
        + to_yaml(tap_keys(warehouse, streams))
        + "settings:\n"
        + warehouse.settings
    )
    return "- " + textwrap.indent(text, "  ")[2:]


def tap_variant(name: str, warehouse: Warehouse, streams: Sequence[ProjectStream]) -> str:
    """Return an item of `extractors` that inherits from the tap, and reads only these streams."""
    text = f"name: {name} # the same tap with the streams of cohorts\n"
    text += to_yaml({"inherit_from": warehouse.tap} | tap_keys(warehouse, streams))
    return "- " + textwrap.indent(text, "  ")[2:]


def loader_part(streams: Sequence[ProjectStream], anchors: tuple[str, str]) -> str:
    """Return the item of `loaders`, with the anchors of its `config` and `settings`."""
    return _LOADER.format(
        name=NAME,
        config=anchors[0],
        settings=anchors[1],
        cohorts=to_yaml({"cohorts": cohorts(streams)}, " " * 4).rstrip("\n"),
        declared=textwrap.indent(declared_settings(), "  ").rstrip("\n"),
    )


def utility_part(
    streams: Sequence[str], config: dict[str, t.Any] | None, anchors: tuple[str, str]
) -> str:
    """Return the item of `utilities`.

    Args:
        streams: The streams that are mirrored.
        config: What it is to have in common with a loader that has no anchors.
        anchors: Those of the loader, if it has some.
    """
    note = "# a utility does not see the loader's"
    if config is None:
        text = _UTILITY.format(config=f"*{anchors[0]} {note}", settings=f"*{anchors[1]}")
    else:
        own = to_yaml(config, " " * 4).rstrip("\n") if config else "    {}"
        declared = textwrap.indent(declared_settings(), "  ").rstrip("\n")
        text = _UTILITY.format(config=f"{note}\n{own}", settings=f"\n{declared}")
    if streams:
        text += _CONFIRM.format(arguments=f"confirm {shlex.join(streams)} --config=ENV")
    return text


def cohorts(streams: Sequence[ProjectStream]) -> dict[str, t.Any]:
    """Return the value of the setting `cohorts`."""
    return {each.name: each.mapping for each in streams}


def jobs(tap: str, *, confirms: bool) -> dict[str, str]:
    """Return the items of `jobs` by name."""
    found = {"sync-cohorts": f"- name: sync-cohorts\n  tasks:\n  - {tap} {NAME}\n"}
    if confirms:
        found["sync-and-confirm"] = (
            "- name: sync-and-confirm # to be scheduled in place of it with removals: deferred\n"
            f"  tasks:\n  - {tap} {NAME} {UTILITY}:confirm\n"
        )
    return found


def new_project(name: str) -> str:
    """Return the start of a new `meltano.yml`, down to its plugins."""
    return _PROJECT.format(name=name)
