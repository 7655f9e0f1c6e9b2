"""``--about``: the settings as a JSON schema, and the target's metadata, in the SDK's formats."""

from __future__ import annotations

import json
import typing as t
from importlib import metadata

import msgspec

from target_moengage_cohort import NAME
from target_moengage_cohort.settings.declared import DERIVED_KEYS, ENVIRONMENT_PREFIX, Settings

if t.TYPE_CHECKING:
    from collections.abc import Mapping

    from singer_sdk.about import AboutInfo
    from singer_sdk.helpers.capabilities import CapabilitiesEnum


def json_schema() -> dict[str, t.Any]:
    """Return the settings as a JSON schema without references."""
    (schema,), definitions = msgspec.json.schema_components([Settings], ref_template="{name}")
    mapping = definitions["StreamMapping"]
    mapping |= {
        "title": "Mapping",
        "description": "How one stream populates its cohort or cohorts.",
    }
    for key in DERIVED_KEYS:
        del mapping["properties"][key]
    mapping["required"] = []  # the top level has a default for each key
    result: dict[str, t.Any] = _resolve(schema, definitions)
    del result["properties"]["cohorts"]["default"]  # an empty object that is set is an error
    result["properties"]["data_center"]["type"] = ["string", "integer"]
    return result


def setting_kind(name: str, schema: Mapping[str, t.Any]) -> str:
    """Return Meltano's kind of a setting, given its JSON schema."""
    if "enum" in schema:
        return "options"
    first, *_ = [schema["type"]] if isinstance(schema["type"], str) else schema["type"]
    return "file" if name.endswith("_path") else str(first)


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

    names = ("ABOUT", "BATCH", "STREAM_MAPS", "FLATTENING", "STRUCTURED_LOGGING")
    plugin = [sdk.PluginCapabilities[name] for name in names]
    return [*plugin, sdk.TargetCapabilities.VALIDATE_RECORDS]


def format_about(output_format: str | None) -> str:
    """Return the target's metadata and settings with titles and descriptions, in any format."""
    from singer_sdk import about  # noqa: PLC0415 - slow to import

    info = about.AboutInfo(
        name=NAME,
        description="Sync audiences from your data warehouse to MoEngage cohorts (Singer target).",
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


# A title, a period and a description: of settings, keys of a mapping, and keys of `batch_config`.
DESCRIPTIONS = {
    "workspace_id": "Workspace ID. Workspace ID of the MoEngage account (older names: APP ID, "
    "Data API ID).",
    "data_api_key": "Data API key. Data API key of the workspace. It must belong to workspace_id.",
    "data_center": "Data center. Data center of the MoEngage account: 01, 02, 03, 04, 05, 06 or "
    "101. There is no default, because a wrong value would send data to another region.",
    "partner": "Partner. Name that identifies this integration in MoEngage. Do not change it: the "
    "same cohort ID under a different partner is a different cohort.",
    "api_url": "API URL. Base URL to use instead of the data center's, for an emulator or a "
    "proxy. Must be https, except on loopback.",
    "segments_api_key": "Segments API key. Key with the scope Segmentation APIs, if the workspace "
    "has a separate key for each scope. If it is set, even to the Data API key, the target "
    "checks before a new cohort's first request whether a segment already has its name. Default: "
    "data_api_key, without that check.",
    "analytics_api_key": "Analytics API key. Key with the scope Dashboard & Analyze APIs, if the "
    "workspace has a separate key for each scope. Default: data_api_key.",
    "db_name": "Database name. Name of the workspace's database, which MoEngage may require in "
    "requests to the Segments API (the header MOE-DBNAME).",
    "id_attribute": "ID attribute. MoEngage's internal name of the attribute that contains a "
    "user's ID, required to count users. Find it in the dashboard under Test & Debug > Segment "
    "Payload.",
    "cohorts": "Cohorts. Maps streams to cohorts: the stream's name (after stream maps) and its "
    "mapping. If omitted, each stream populates a cohort of the same name. Otherwise, an "
    "unlisted stream is an error. An empty object is an error, too.",
    "cohort_id": "Cohort ID. Unique identifier of the cohort in MoEngage. Default: the stream's "
    "name.",
    "cohort_name": "Cohort name. Name of the segment in MoEngage. Default: the stream's name.",
    "cohort_description": "Cohort description. Description to send to MoEngage with the cohort.",
    "cohort_id_column": "Cohort ID column. Column that contains the cohort's ID, if one stream "
    "populates many cohorts.",
    "cohort_name_column": "Cohort name column. Column that contains the cohort's name; requires "
    "cohort_id_column. Default: a new cohort is named after its ID, and known cohorts keep their "
    "names.",
    "uid_column": "User ID column. Column that contains the user's ID (uid) in MoEngage. The "
    "column is required if this setting is set explicitly, or if anonymous_id_column is not set.",
    "anonymous_id_column": "Anonymous ID column. Column that contains the user's anonymous ID in "
    "MoEngage. It identifies records without a user ID, and is sent together with the user ID of "
    "the others.",
    "sync_mode": "Sync mode. How records become changes. incremental: a record is a member to "
    "add, or to remove if the record is deleted or its membership column marks a non-member. "
    "add: every record is a member to add. remove: every record is a member to remove. mirror: "
    "the stream is the whole cohort; new members are added, and members without a record are "
    "removed. one_time: like mirror, but without removals; the first complete run finishes the "
    "cohort, and nothing is sent after that.",
    "membership_column": "Membership column. Column that states whether the member belongs to the "
    "cohort: a boolean, 0/1, true/false, t/f, yes/no, y/n or add/remove. For the sync modes "
    "incremental, mirror and one_time; in the last two, a non-member counts as absent.",
    "deleted_at_column": "Deletion column. Column that contains the time of a row's deletion. A "
    "timestamp marks a deletion; null, empty and false do not. The columns _sdc_deleted_at and "
    "_sdc_lsn_deleted_at, in upper or lower case, always mark deletions.",
    "expected_count_column": "Expected count column. Column that contains, in every row, the "
    "number of rows that the query returned, as count(*) over () computes it. It proves that no "
    "row was lost on the way. For the sync modes mirror and one_time.",
    "allow_bookmark": "Allow bookmark. Confirms that the tap reads all rows of the stream "
    "although it keeps a bookmark for it. No STATE with that bookmark is written, so the tap "
    "never resumes from it. For the sync modes mirror and one_time.",
    "exclusive": "Exclusive. Whether a member belongs to only one cohort of the stream, as in a "
    "table of users with a segment column. An addition to a cohort then removes the member from "
    "the others. Requires cohort_id_column, and members in the ledger: the sync mode mirror, or "
    "ledger_uri. For the sync modes incremental, add and mirror. Default: false, with a warning "
    "if a member is added to a cohort while the ledger has that member in another cohort of the "
    "stream.",
    "removals": "Removals. When a mirror's removals are sent. immediate: in the run that finds "
    "them. proven: in that run if its input is proven complete; otherwise they are withheld. "
    "deferred: they stay pending until moengage-cohort confirm sends them, which is to run once "
    "the tap has succeeded.",
    "max_removal_percent": "Maximum removal (percent). Maximum share of a cohort's members, in "
    "percent, that a mirror may remove in one run. If more would be removed, the removals are "
    "withheld until someone confirms them. With input that is proven complete, up to 20 members "
    "may always be removed, and a value of 100 also allows emptying the cohort.",
    "max_addition_percent": "Maximum addition (percent). Maximum growth, in percent of the "
    "current members, that a mirror may add to a cohort in one run. If more would be added, the "
    "additions are withheld. A new cohort may have any size. Default: no limit.",
    "min_match_percent": "Minimum match (percent). Minimum share of a new cohort's user IDs, in "
    "percent, that MoEngage must know. Before anything is sent, its Analytics API counts up to "
    "1,000 of them. If it knows fewer or cannot count them, nothing is sent for the cohort, and "
    "no STATE covers its rows. Requires id_attribute. For all sync modes except remove. Default: "
    "0, which counts nothing.",
    "keep_unarchived_days": "Keep unarchived (days). Unarchive each cohort that was neither "
    "created nor unarchived within this many days, when a run starts to read its stream. "
    "MoEngage archives a segment that no campaign has used for 60 days. A run never waits for "
    "this and never fails because of it. Default: cohorts are not unarchived.",
    "exclude_path": "Excluded users. Path or URL of a CSV file of users who must not belong to "
    "any cohort, such as those who withdrew their consent: a header with uid, anonymous_id or "
    "both, and one user on each line. In every sync mode, they are removed first and never "
    "added. If the file cannot be read or lists no users, the run stops before anything is sent.",
    "ledger_uri": "Ledger URI. Location of the ledger, the record of what MoEngage has accepted: "
    "a directory on a disk that persists between runs, as a path or a file:// URL; or a "
    "PostgreSQL database for runs on several machines, as postgresql://user@host/database. "
    "Default: a directory in the user's state directory. The sync modes mirror and one_time need "
    "a ledger; the others keep one if this is set.",
    "ledger_create": "Create the ledger. Whether a run may create a ledger if none exists. Set it "
    "to false after the first run, so that a lost ledger is an error.",
    "keep_changes_days": "Keep changes (days). Number of days for which to keep each added or "
    "removed member with its identifiers, for moengage-cohort history --changes. A run without "
    "this setting deletes what was kept. Default: they are not kept.",
    "max_new_cohorts": "Maximum new cohorts. Maximum number of cohorts to create in 7 days. If a "
    "run would create more, for example because of a wrong cohort_id_column, nothing is sent for "
    "any of them, because MoEngage never frees a name.",
    "requests_per_minute": "Requests per minute. Maximum requests per minute, across all "
    "processes that share the state directory. MoEngage allows 300 for the whole workspace.",
    "max_payload_bytes": "Maximum payload (bytes). Maximum size of a request body in bytes. "
    "MoEngage documents 128 KB.",
    "max_concurrency": "Concurrent requests. Maximum number of concurrent requests. Requests for "
    "the same cohort are always sequential.",
    "request_timeout_seconds": "Request timeout (seconds). How long to wait for MoEngage's answer "
    "before the request is retried.",
    "max_retry_seconds": "Retry limit (seconds). Stop the run after this long without an accepted "
    "request. Waits for the rate limit count.",
    "flush_seconds": "Flush interval (seconds). Send a partially filled request once its oldest "
    "change is this old, unless the rate limit is delaying it.",
    "send_timestamp": "Send timestamp. Send the time of each request, which MoEngage uses to "
    "process requests in order, according to its older documentation.",
    "on_reject": "On reject. What to do when a row cannot be delivered. fail: stop before it. "
    "skip: write it to rejects_path and continue.",
    "rejects_path": "Rejects path. File to which rows that cannot be delivered are appended, as "
    "Singer messages with the reason.",
    "on_missing_stream": "On missing stream. What to do if a complete input contains nothing for "
    "a stream that is configured in cohorts. warn: log a warning. fail: exit with code 1; "
    "everything else is delivered, and STATE advances. A stream whose last input came from "
    "another tap is not missing.",
    "on_withheld": "On withheld. How a run ends if it withholds a plan that confirm --withheld "
    "can release. fail: with exit code 3. warn: with exit code 0 and a warning. In both cases, "
    "the report's status is withheld.",
    "report_path": "Report path. File to which the run's report is written as JSON.",
    "notify_url": "Alert URL. Webhook that receives a JSON POST each time the state of a stream "
    "changes. Slack and Teams show its text. Must be https, except on loopback.",
    "notify_on": "Alert events. Changes of state to send, separated by commas: failed, withheld, "
    "missing_input, turnover, recovered.",
    "notify_headers": "Alert headers. HTTP headers for the webhook, such as Authorization, as an "
    "object of names and values.",
    "alert_turnover_percent": "Alert turnover (percent). Send the event turnover if a run adds "
    "and removes more members of a cohort than this, in percent of its members before the run. "
    "Requires turnover in notify_on.",
    "metrics_path": "Metrics path. File for the run's metrics, in the format of node_exporter's "
    "textfile collector. Its name must end with .prom. It is readable by every user, and each "
    "run replaces it. A dry run does not write it.",
    "dry_run": "Dry run. Report what would be sent and how many requests it would take, without "
    "sending anything or writing STATE.",
    "validate_records": "Validate records. Validate each record against the whole JSON schema of "
    "its stream. The mapped columns are always validated.",
    "batch_config": "Batch configuration. Overrides the location of BATCH files. storage.root is "
    "a directory or an object store's URL, in which the files are looked up by name. "
    "storage.params contains what fsspec needs to open it, such as keys. The other keys of the "
    "SDK's batch_config are accepted but not used, because each BATCH message states its own "
    "encoding.",
    "encoding": "Encoding. How the tap writes its files. Accepted but not used, because each "
    "BATCH message states its own.",
    "format": "Format. jsonl, parquet or arrow.",
    "compression": "Compression. gzip or none.",
    "storage": "Storage. Location of the files. Default: the location in each BATCH message.",
    "root": "Root. A directory, or its URL in an object store, such as s3://bucket/dir.",
    "prefix": "Prefix. Prefix of the tap's file names. Accepted but not used, because the names "
    "in the messages include it.",
    "params": "Parameters. Parameters that fsspec needs to open the storage, such as key, secret "
    "and endpoint_url for S3.",
    "batch_size": "Batch size. Number of rows that the tap writes to a file. Accepted but not "
    "used.",
    "stream_maps": "Stream maps. Changes to streams before they are mapped to cohorts. See the "
    "stream maps of the Meltano Singer SDK.",
    "stream_map_config": "Stream map config. Values that the expressions of stream maps can use.",
    "flattening_enabled": "Flatten records. Turn nested properties into separate columns.",
    "flattening_max_depth": "Flattening depth. Number of levels to flatten. Required if "
    "flattening is enabled.",
    "flattening_max_key_length": "Maximum flattened key length. Maximum length of a flattened "
    "column's name. Longer names are shortened.",
    "flattening_separator": "Flattening separator. Separator between the levels in the name of a "
    "flattened column.",
}
