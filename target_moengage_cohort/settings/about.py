"""``--about``: the settings as a JSON schema, and the target's metadata, in the SDK's formats."""

from __future__ import annotations

import json
import typing as t
from importlib import metadata

import msgspec

from target_moengage_cohort import NAME
from target_moengage_cohort.settings.declared import DERIVED_KEYS, ENVIRONMENT_PREFIX, Settings

if t.TYPE_CHECKING:
    from singer_sdk.about import AboutInfo
    from singer_sdk.helpers.capabilities import CapabilitiesEnum


def json_schema() -> dict[str, t.Any]:
    """Return the settings as a JSON schema without references."""
    (schema,), definitions = msgspec.json.schema_components([Settings], ref_template="{name}")
    mapping = definitions["StreamMapping"]
    mapping |= {"title": "Mapping", "description": "What is known of one stream's cohort."}
    for key in DERIVED_KEYS:
        del mapping["properties"][key]
    mapping["required"] = []  # the top level has a default for each key
    result: dict[str, t.Any] = _resolve(schema, definitions)
    del result["properties"]["cohorts"]["default"]  # an empty object is refused if it is set
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

    names = ("ABOUT", "BATCH", "STREAM_MAPS", "FLATTENING", "STRUCTURED_LOGGING")
    plugin = [sdk.PluginCapabilities[name] for name in names]
    return [*plugin, sdk.TargetCapabilities.VALIDATE_RECORDS]


def format_about(output_format: str | None) -> str:
    """Return the target's metadata and settings with titles and descriptions, in any format."""
    from singer_sdk import about  # noqa: PLC0415 - slow to import

    info = about.AboutInfo(
        name=NAME,
        description="Carries audience membership from a warehouse to MoEngage cohorts.",
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
    "workspace_id": "Workspace ID. Workspace ID of the MoEngage account (older names: APP ID, Data "
    "API ID).",
    "data_api_key": "Data API key. Data API key of the workspace; MoEngage checks it together with "
    "the workspace ID.",
    "data_center": "Data center. Data center of the MoEngage account: 01, 02, 03, 04, 05, 06 or "
    "101. There is no default, since the wrong one is another region.",
    "partner": "Partner. Name under which MoEngage files these cohorts. Choose one and keep it: "
    "the same cohort ID under another partner is another cohort.",
    "api_url": "API URL. Base URL to use in place of the data center's: an emulator or a proxy. "
    "Must be https, except on loopback.",
    "segments_api_key": "Segments API key. Key with the scope Segmentation APIs, if the workspace "
    "has a key for each scope. If it is set, even to the Data API key, MoEngage is asked before a "
    "new cohort's first request whether a segment has its name. Default: data_api_key, and "
    "MoEngage is not asked.",
    "analytics_api_key": "Analytics API key. Key with the scope Dashboard & Analyze APIs, if the "
    "workspace has a key for each scope. Default: data_api_key.",
    "db_name": "Database name. Name of the workspace's database, which MoEngage may require in "
    "requests to the Segments API (the header MOE-DBNAME).",
    "id_attribute": "ID attribute. MoEngage's internal name of the attribute that holds a user's "
    "ID, needed to count users. In the dashboard, Test & Debug > Segment Payload shows it.",
    "cohorts": "Cohorts. Which stream feeds which cohort: the stream's name (after stream maps) "
    "and its mapping. If it is left out, every stream is a cohort by its own name; if not, a "
    "stream that is not listed is an error, and so is an empty object.",
    "cohort_id": "Cohort ID. Unique identifier of the cohort in MoEngage. Default: the stream's "
    "name.",
    "cohort_name": "Cohort name. Name of the segment in MoEngage. Default: the stream's name.",
    "cohort_description": "Cohort description. Description that goes to MoEngage with the cohort.",
    "cohort_id_column": "Cohort ID column. Column that holds the cohort's ID, where one stream "
    "feeds many cohorts.",
    "cohort_name_column": "Cohort name column. Column that holds the cohort's name; requires "
    "cohort_id_column. Default: the name of a new cohort is its ID, and known cohorts keep their "
    "names.",
    "uid_column": "User ID column. Column that holds the user's ID (uid) in MoEngage. It must "
    "exist if it is set by hand or if no anonymous ID column is set.",
    "anonymous_id_column": "Anonymous ID column. Column that holds the user's anonymous ID in "
    "MoEngage; used where a record has no user ID, and sent together with it where it has one.",
    "sync_mode": "Sync mode. How records become changes. incremental: a record is a member to add, "
    "or to remove if it is deleted or its membership column says so. add: every record is a member "
    "to add. remove: every record is a member to remove. mirror: the stream is the whole cohort; "
    "who is new is added, and who is gone is removed. one_time: as mirror, but nobody is removed, "
    "and after the first complete run nothing more is sent.",
    "membership_column": "Membership column. Column that says whether the member belongs to the "
    "cohort: a boolean, 0/1, true/false, t/f, yes/no, y/n or add/remove. For the sync modes "
    "incremental, mirror and one_time; in the last two, who does not belong counts as absent.",
    "deleted_at_column": "Deletion column. Column that holds the time of a row's deletion: a "
    "timestamp is a deletion; null, empty and false are none. In addition to _sdc_deleted_at and "
    "_sdc_lsn_deleted_at, which always count, in any case.",
    "expected_count_column": "Expected count column. Column that holds, in every row, how many "
    "rows the query gave, as count(*) over () does; it proves that no row was lost on the way. For "
    "the sync modes mirror and one_time.",
    "allow_bookmark": "Allow bookmark. Your word that the tap reads all rows of the stream though "
    "it keeps a bookmark for it. No STATE with that bookmark is written, so the tap never reads on "
    "from there. For the sync modes mirror and one_time.",
    "exclusive": "Exclusive. Whether a member belongs to one cohort of the stream, as in a "
    "table of users with a column for their segment: an addition to a cohort "
    "removes the member from the others. Needs cohort_id_column, and members in "
    "the ledger: the sync mode mirror, or ledger_uri. For the sync modes "
    "incremental, add and mirror. Default: false, with a warning if the ledger "
    "has a member that is added in another cohort of the stream.",
    "removals": "Removals. When a mirror's removals are sent. immediate: in the run that finds "
    "them. proven: in that run if its input is proven complete; otherwise they are withheld. "
    "deferred: they wait for moengage-cohort confirm, to be run once the tap has succeeded.",
    "max_removal_percent": "Largest removal (percent). Most of a cohort's members, in percent, "
    "that a mirror may remove in one run; where more would go, the removals are withheld. An input "
    "that is proven complete may remove 20 members in any case, and empty a cohort if this is 100.",
    "max_addition_percent": "Largest addition (percent). Most that a mirror may add to a cohort in "
    "one run, in percent of its members; where more would come, the additions are withheld. A new "
    "cohort may have any size. Default: no limit.",
    "min_match_percent": "Smallest match (percent). For a new cohort, up to 1,000 of its user IDs "
    "are counted by MoEngage's Analytics API before anything is sent. If it knows fewer of them "
    "than this, in percent, or cannot count them, nothing is sent for the cohort, and no STATE "
    "passes its rows. Needs id_attribute. For all sync modes but remove. Default: 0, which counts "
    "nothing.",
    "keep_unarchived_days": "Keep unarchived (days). Unarchive each cohort that was neither "
    "created nor unarchived within so many days, when a run begins to read its stream. MoEngage "
    "archives a segment that no campaign has used for 60 days. A run never waits for that, and "
    "never fails because of it. Default: cohorts are not unarchived.",
    "exclude_path": "Excluded members. CSV file, or the URL of one, of users who belong to no "
    "cohort, such as those who withdrew their consent: a header with uid, anonymous_id or both, "
    "and one user in each line. They are removed first and never added, in every sync mode. A file "
    "that cannot be read, or has no users, stops a run before anything is sent.",
    "ledger_uri": "Ledger URI. Place of the ledger, the record of what MoEngage has accepted: a "
    "folder on a disk that outlives the run, as a path or a file:// URL; or a PostgreSQL database "
    "for runs on several machines, as postgresql://user@host/database. Default: a folder in the "
    "user's state directory. The sync modes mirror and one_time need a ledger; the others keep one "
    "if this is set.",
    "ledger_create": "Create the ledger. Whether a run may create a ledger where there is none. "
    "Set it to false after the first run, so that a lost ledger is an error.",
    "keep_changes_days": "Keep changes (days). Keep who was added and removed, with their "
    "identifiers, for so many days, for moengage-cohort history --changes. A run without the "
    "setting deletes what was kept. Default: they are not kept.",
    "max_new_cohorts": "New cohorts. Most cohorts to create in 7 days. If a run would create more, "
    "as with a wrong cohort_id_column, nothing is sent for any of them: MoEngage never frees a "
    "name.",
    "requests_per_minute": "Requests per minute. Most requests to start in a minute, counted over "
    "all processes that share the state directory. MoEngage allows 300 for the whole workspace.",
    "max_payload_bytes": "Largest payload (bytes). Largest request body in bytes. MoEngage "
    "documents 128 KB.",
    "max_concurrency": "Concurrent requests. Most requests under way at once. The requests of one "
    "cohort go one after the other.",
    "request_timeout_seconds": "Request timeout (seconds). How long to wait for MoEngage to answer "
    "a request before it is retried.",
    "max_retry_seconds": "Retry limit (seconds). Give up after this long without any accepted "
    "request, waits for the rate limit included.",
    "flush_seconds": "Flush interval (seconds). Send a request that is only part full once its "
    "oldest change has waited this long, unless the rate limit is what holds it.",
    "send_timestamp": "Send timestamp. Send each request's time, which older MoEngage "
    "documentation says is used to process requests in order.",
    "on_reject": "On reject. What to do at a row that cannot be delivered. fail: stop before it. "
    "skip: write it to rejects_path and go on.",
    "rejects_path": "Rejects path. File to which rows that cannot be delivered are appended, as "
    "Singer messages with the reason.",
    "on_missing_stream": "On missing stream. What to do if a complete input has nothing of a "
    "stream that is configured in cohorts. warn: log a warning. fail: exit with 1; everything else "
    "is delivered, and state advances. A stream that another tap has sent last is not missed.",
    "on_withheld": "On withheld. How a run ends that withholds a plan which confirm --withheld can "
    "release. fail: with exit code 3. warn: with exit code 0 and a warning; the report's status is "
    "withheld either way.",
    "report_path": "Report path. File to which the run's report is written, as JSON.",
    "notify_url": "Alert URL. Webhook that gets a POST of JSON when the state of a stream changes, "
    "once for each change. Slack and Teams show its text. Must be https, except on loopback.",
    "notify_on": "Alert events. Changes of state to send, separated by commas: failed, withheld, "
    "missing_input, turnover, recovered.",
    "notify_headers": "Alert headers. HTTP headers for the webhook, such as Authorization, as an "
    "object of names and values.",
    "alert_turnover_percent": "Turnover to alert. Send the event turnover if a run adds and "
    "removes more members of a cohort than this, in percent of those that it had. Needs turnover "
    "in notify_on.",
    "metrics_path": "Metrics path. File for the run's metrics, which node_exporter's textfile "
    "collector reads: its name must end with .prom. It is readable by every user and replaced by "
    "each run. A dry run writes none.",
    "dry_run": "Dry run. Work out what would be sent and what it would cost, but send no request "
    "and write no state.",
    "validate_records": "Validate records. Check each record against its stream's whole JSON "
    "schema. The mapped columns are always checked.",
    "batch_config": "Batch configuration. Where the files of BATCH messages are, if not where the "
    "messages say: storage.root, a folder or an object store's URL, in which they are looked up by "
    "name; and storage.params, what fsspec needs to open it, such as keys. The rest of the SDK's "
    "batch_config is taken, too, but each BATCH message says its own encoding.",
    "encoding": "Encoding. How the tap writes its files; taken, but each BATCH message says its "
    "own.",
    "format": "Format. jsonl, parquet or arrow.",
    "compression": "Compression. gzip or none.",
    "storage": "Storage. Where the files are. Default: where each BATCH message says.",
    "root": "Root. A folder, or the URL of one in an object store, such as s3://bucket/dir.",
    "prefix": "Prefix. What the tap puts before the files' names; the names in the messages have "
    "it already.",
    "params": "Parameters. What fsspec needs to open the storage, such as key, secret and "
    "endpoint_url for S3.",
    "batch_size": "Batch size. Of the tap; taken, but not used here.",
    "stream_maps": "Stream maps. Changes to streams before they are mapped to cohorts; see the "
    "stream maps of the Meltano Singer SDK.",
    "stream_map_config": "Stream map config. Values that the expressions of stream maps may use.",
    "flattening_enabled": "Flatten records. Turn nested properties into columns of their own.",
    "flattening_max_depth": "Flattening depth. How many levels to flatten. Needed if flattening is "
    "enabled.",
    "flattening_max_key_length": "Longest flattened key. Longest name of a flattened column; "
    "longer ones are shortened.",
    "flattening_separator": "Flattening separator. What stands between the levels in the name of a "
    "flattened column.",
}
