"""``--about``: the settings as a JSON schema, and the target's metadata, in the SDK's formats."""

from __future__ import annotations

import json
import typing as t
from importlib import metadata

import msgspec

from target_moengage_cohort import NAME
from target_moengage_cohort.settings.declared import DERIVED_KEYS, Settings
from target_moengage_cohort.settings.descriptions import DESCRIPTIONS
from target_moengage_cohort.settings.sources import ENVIRONMENT_PREFIX

if t.TYPE_CHECKING:
    from singer_sdk.about import AboutInfo
    from singer_sdk.helpers.capabilities import CapabilitiesEnum

DESCRIPTION = "Carries audience membership from a warehouse to MoEngage cohorts."


def json_schema() -> dict[str, t.Any]:
    """Return the settings as a JSON schema without references."""
    (schema,), definitions = msgspec.json.schema_components([Settings], ref_template="{name}")
    mapping = definitions["StreamMapping"]
    mapping |= {"title": "Mapping", "description": "What is known of one stream's cohort."}
    for key in DERIVED_KEYS:
        del mapping["properties"][key]
    mapping["required"] = []  # the top level has a default for each key
    result: dict[str, t.Any] = _resolve(schema, definitions)
    result["properties"]["data_center"]["type"] = ["string", "integer"]
    return result


def _resolve(node: t.Any, definitions: dict[str, t.Any]) -> t.Any:
    """Return a schema with references replaced, texts added, and optional values without null."""
    if isinstance(node, list):
        return [_resolve(item, definitions) for item in node]
    if not isinstance(node, dict):
        return node
    if "anyOf" in node:
        (value,) = (each for each in node["anyOf"] if each != {"type": "null"})
        node = {key: node[key] for key in node if key not in {"anyOf", "default"}} | value
    if "$ref" in node:
        definition = definitions[node["$ref"]]
        if definition.get("type") != "object":
            definition = {"type": "string", "enum": definition["enum"]}
        node = definition | {key: value for key, value in node.items() if key != "$ref"}
    if "properties" in node:
        properties = {}
        for name, value in node["properties"].items():
            title, _, description = DESCRIPTIONS[name].partition(". ")
            properties[name] = {"title": title, "description": description} | value
        node = node | {"properties": properties}
    return {key: _resolve(value, definitions) for key, value in node.items()}


def capabilities() -> list[CapabilitiesEnum]:
    """Return the target's capabilities, in the SDK's terms."""
    from singer_sdk.helpers import capabilities as sdk  # noqa: PLC0415 - slow to import

    return [
        sdk.PluginCapabilities.ABOUT,
        sdk.PluginCapabilities.BATCH,
        sdk.PluginCapabilities.STREAM_MAPS,
        sdk.PluginCapabilities.FLATTENING,
        sdk.PluginCapabilities.STRUCTURED_LOGGING,
        sdk.TargetCapabilities.VALIDATE_RECORDS,
    ]


def format_about(output_format: str | None) -> str:
    """Return the target's metadata and settings with titles and descriptions, in any format."""
    from singer_sdk import about  # noqa: PLC0415 - slow to import

    info = about.AboutInfo(
        name=NAME,
        description=DESCRIPTION,
        version=metadata.version(NAME),
        sdk_version=metadata.version("singer-sdk"),
        supported_python_versions=about.python_versions(metadata.metadata(NAME)),
        capabilities=capabilities(),
        settings=json_schema(),
        env_var_prefix=ENVIRONMENT_PREFIX,
    )
    if output_format == "json":
        return about.JSONFormatter().format_about(info)
    if output_format == "markdown":
        for setting in info.settings["properties"].values():  # this format shows no titles
            setting["description"] = f"{setting['title']}. {setting['description']}"
        return about.MarkdownFormatter().format_about(info)
    return _format_text(info)


def _format_text(info: AboutInfo) -> str:
    lines = [
        f"Name: {info.name}",
        f"Description: {info.description}",
        f"Version: {info.version}",
        f"SDK Version: {info.sdk_version}",
        f"Supported Python Versions: {', '.join(info.supported_python_versions or [])}",
        f"Capabilities: {', '.join(map(str, info.capabilities))}",
        "Settings:",
    ]
    for name, setting in info.settings["properties"].items():
        default = f"default: {json.dumps(setting.get('default'))}"
        lines += [
            f"  {name} ({'required' if name in info.settings['required'] else default})",
            f"    {setting['title']}. {setting['description']}",
            f"    Environment variable: {info.env_var_prefix}{name.upper()}",
        ]
    return "\n".join(lines)
