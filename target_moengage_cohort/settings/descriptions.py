"""The title and description of each setting, of each key of a mapping, and of `batch_config`."""

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
    "cohorts": "Cohorts. Which stream feeds which cohort: the stream's name (after stream maps) "
    "and its mapping. If empty, every stream is a cohort by its own name; if not, a stream that is "
    "not listed is an error.",
    "cohort_id": "Cohort ID. Unique identifier of the cohort in MoEngage. Default: the stream's "
    "name.",
    "cohort_name": "Cohort name. Name of the segment in MoEngage. Default: the stream's name.",
    "cohort_description": "Cohort description. Description that goes to MoEngage with the cohort.",
    "cohort_id_column": "Cohort ID column. Column that holds the cohort's ID, where one stream "
    "feeds many cohorts.",
    "cohort_name_column": "Cohort name column. Column that holds the cohort's name, beside "
    "cohort_id_column. Default: the cohort's ID is its name.",
    "uid_column": "User ID column. Column that holds the user's ID (uid) in MoEngage. It must "
    "exist if it is set by hand or if no anonymous ID column is set.",
    "anonymous_id_column": "Anonymous ID column. Column that holds the user's anonymous ID in "
    "MoEngage; used where a record has no user ID, and sent beside it where it has one.",
    "sync_mode": "Sync mode. How records become changes. incremental: a record is a member to add, "
    "or to remove if it is deleted or its membership column says so. add: every record is a member "
    "to add. remove: every record is a member to remove. mirror: the stream is the whole cohort; "
    "who is new is added, and who is gone is removed. one_time: as mirror, but nobody is removed, "
    "and after the first complete run nothing more is sent.",
    "membership_column": "Membership column. Column that says whether the member belongs to the "
    "cohort: a boolean, 0/1, true/false, t/f, yes/no or add/remove. For the sync modes "
    "incremental, mirror and one_time; in the last two, who does not belong counts as absent.",
    "expected_count_column": "Expected count column. Column that holds, in every row, how many "
    "rows the query gave, as count(*) over () does; it proves that no row was lost on the way. For "
    "the sync modes mirror and one_time.",
    "removals": "Removals. When a mirror's removals are sent. immediate: in the run that finds "
    "them. deferred: they wait for moengage-cohort confirm, to be run once the tap has succeeded.",
    "max_removal_percent": "Largest removal (percent). Most of a cohort's members, in percent, "
    "that a mirror may remove in one run; where more would go, the removals are withheld. An input "
    "that is proven complete may remove 20 members in any case, and empty a cohort if this is 100.",
    "max_addition_percent": "Largest addition (percent). Most that a mirror may add to a cohort in "
    "one run, in percent of its members; where more would come, the additions are withheld. A new "
    "cohort may have any size. Default: no limit.",
    "ledger_uri": "Ledger URI. Folder that keeps the ledger, the record of what MoEngage has "
    "accepted: a path or a file:// URL, on a disk that outlives the run. Default: a folder in the "
    "user's state directory. The sync modes mirror and one_time need a ledger; the others keep one "
    "if this is set.",
    "ledger_create": "Create the ledger. Whether a run may create a ledger where there is none. "
    "Set it to false after the first run, so that a lost ledger is an error.",
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
    "report_path": "Report path. File to which the run's report is written, as JSON.",
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
"""A title, a period, and what ``--about`` says of it."""
