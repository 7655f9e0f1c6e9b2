"""Each setting's name, type, range, default, title and description, and nothing else.

``--about``, the README's table, ``meltano.yml`` and ``.env.example`` say the same as this module.
"""

from __future__ import annotations

import enum
import typing as t

import msgspec
from msgspec import UNSET, Meta, UnsetType

from target_moengage_cohort.core.membership import SyncMode
from target_moengage_cohort.settings.batch_config import (
    BatchConfigSetting,  # noqa: TC001 - msgspec resolves it
)
from target_moengage_cohort.settings.keys import (
    AnonymousIdColumn,
    MaxAdditionPercent,
    MaxRemovalPercent,
    Mode,
    Removals,
    RemovalsWhen,
    StreamMapping,
    UidColumn,
)

if t.TYPE_CHECKING:
    from target_moengage_cohort.settings.batch_config import (
        BatchStorage,
    )


class OnReject(enum.StrEnum):
    """What happens at a row that cannot be delivered."""

    FAIL = "fail"
    SKIP = "skip"


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """The configuration of a run, as `target_moengage_cohort.settings.load` has checked it."""

    workspace_id: t.Annotated[
        str,
        Meta(
            title="Workspace ID",
            description="Workspace ID of the MoEngage account (older names: APP ID, Data API ID).",
        ),
    ]
    data_api_key: t.Annotated[
        str,
        Meta(
            title="Data API key",
            description="Data API key of the workspace; MoEngage checks it together with the "
            "workspace ID.",
            extra_json_schema={"secret": True, "writeOnly": True},
        ),
    ]
    data_center: t.Annotated[
        str,
        Meta(
            title="Data center",
            description="Data center of the MoEngage account: 01, 02, 03, 04, 05, 06 or 101. There "
            "is no default, since the wrong one is another region.",
        ),
    ]
    partner: t.Annotated[
        str,
        Meta(
            title="Partner",
            description="Name under which MoEngage files these cohorts. Choose one and keep it: "
            "the same cohort ID under another partner is another cohort.",
        ),
    ]
    api_url: t.Annotated[
        str | UnsetType,
        Meta(
            title="API URL",
            description="Base URL to use in place of the data center's: an emulator or a proxy. "
            "Must be https, except on loopback.",
        ),
    ] = UNSET
    cohorts: t.Annotated[
        dict[str, StreamMapping],
        Meta(
            title="Cohorts",
            description="Which stream feeds which cohort: the stream's name (after stream maps) "
            "and its mapping. If empty, every stream is a cohort by its own name; if not, a "
            "stream that is not listed is an error.",
        ),
    ] = {}
    uid_column: UidColumn = "uid"
    anonymous_id_column: AnonymousIdColumn = UNSET
    sync_mode: Mode = SyncMode.INCREMENTAL
    removals: RemovalsWhen = Removals.IMMEDIATE
    max_removal_percent: MaxRemovalPercent = 10
    max_addition_percent: MaxAdditionPercent | UnsetType = UNSET
    ledger_uri: t.Annotated[
        str | UnsetType,
        Meta(
            title="Ledger URI",
            description="Folder that keeps the ledger, the record of what MoEngage has accepted: "
            "a path or a file:// URL, on a disk that outlives the run. Default: a folder in the "
            "user's state directory. The sync modes mirror and one_time need a ledger; the "
            "others keep one if this is set.",
        ),
    ] = UNSET
    requests_per_minute: t.Annotated[
        int,
        Meta(
            title="Requests per minute",
            description="Most requests to start in a minute, counted over all processes that "
            "share the state directory. MoEngage allows 300 for the whole workspace.",
            ge=1,
            le=1_000_000,
        ),
    ] = 300
    max_payload_bytes: t.Annotated[
        int,
        Meta(
            title="Largest payload (bytes)",
            description="Largest request body in bytes. MoEngage documents 128 KB.",
            ge=1_000,
            le=131_072,
        ),
    ] = 128_000
    max_concurrency: t.Annotated[
        int,
        Meta(
            title="Concurrent requests",
            description="Most requests under way at once. The requests of one cohort go one "
            "after the other.",
            ge=1,
            le=16,
        ),
    ] = 4
    request_timeout_seconds: t.Annotated[
        int,
        Meta(
            title="Request timeout (seconds)",
            description="How long to wait for MoEngage to answer a request before it is retried.",
            ge=1,
            le=600,
        ),
    ] = 60
    max_retry_seconds: t.Annotated[
        int,
        Meta(
            title="Retry limit (seconds)",
            description="Give up after this long without any accepted request, waits for the "
            "rate limit included.",
            ge=0,
            le=86_400,
        ),
    ] = 900
    flush_seconds: t.Annotated[
        int,
        Meta(
            title="Flush interval (seconds)",
            description="Send a request that is only part full once its oldest change has waited "
            "this long, unless the rate limit is what holds it.",
            ge=1,
            le=86_400,
        ),
    ] = 60
    send_timestamp: t.Annotated[
        bool,
        Meta(
            title="Send timestamp",
            description="Send each request's time, which older MoEngage documentation says is "
            "used to process requests in order.",
        ),
    ] = True
    on_reject: t.Annotated[
        OnReject,
        Meta(
            title="On reject",
            description="What to do at a row that cannot be delivered. fail: stop before it. "
            "skip: write it to rejects_path and go on.",
        ),
    ] = OnReject.FAIL
    rejects_path: t.Annotated[
        str | UnsetType,
        Meta(
            title="Rejects path",
            description="File to which rows that cannot be delivered are appended, as Singer "
            "messages with the reason.",
        ),
    ] = UNSET
    report_path: t.Annotated[
        str | UnsetType,
        Meta(
            title="Report path",
            description="File to which the run's report is written, as JSON.",
        ),
    ] = UNSET
    dry_run: t.Annotated[
        bool,
        Meta(
            title="Dry run",
            description="Work out what would be sent and what it would cost, but send no request "
            "and write no state.",
        ),
    ] = False
    validate_records: t.Annotated[
        bool,
        Meta(
            title="Validate records",
            description="Check each record against its stream's whole JSON schema. The mapped "
            "columns are always checked.",
        ),
    ] = False
    batch_config: BatchConfigSetting = UNSET
    stream_maps: t.Annotated[
        dict[str, t.Any],
        Meta(
            title="Stream maps",
            description="Changes to streams before they are mapped to cohorts; see the stream "
            "maps of the Meltano Singer SDK.",
        ),
    ] = {}
    stream_map_config: t.Annotated[
        dict[str, t.Any],
        Meta(
            title="Stream map config",
            description="Values that the expressions of stream maps may use.",
        ),
    ] = {}
    flattening_enabled: t.Annotated[
        bool,
        Meta(
            title="Flatten records",
            description="Turn nested properties into columns of their own.",
        ),
    ] = False
    flattening_max_depth: (
        t.Annotated[
            int,
            Meta(
                title="Flattening depth",
                description="How many levels to flatten. Needed if flattening is enabled.",
                ge=0,
            ),
        ]
        | UnsetType
    ) = UNSET
    flattening_max_key_length: t.Annotated[
        int | UnsetType,
        Meta(
            title="Longest flattened key",
            description="Longest name of a flattened column; longer ones are shortened.",
        ),
    ] = UNSET
    flattening_separator: t.Annotated[
        str | UnsetType,
        Meta(
            title="Flattening separator",
            description="What stands between the levels in the name of a flattened column.",
        ),
    ] = UNSET

    def __repr__(self) -> str:
        """Show the destination and no secret, whatever prints this."""
        return f"Settings({self.base_url!r}, workspace_id={self.workspace_id!r})"

    def __rich_repr__(self) -> list[tuple[str, t.Any]]:
        """Show no secret in rich's output either; msgspec's own would show every field."""
        return [("base_url", self.base_url), ("workspace_id", self.workspace_id)]

    @property
    def base_url(self) -> str:
        """Where requests go, without a trailing slash."""
        if isinstance(self.api_url, str):
            return self.api_url
        return f"https://api-{self.data_center}.moengage.com"

    @property
    def ledger_folder(self) -> str | None:
        """Where the ledger is to be, or ``None`` for the folder that is the default."""
        return self.ledger_uri if isinstance(self.ledger_uri, str) else None

    @property
    def batch_storage(self) -> BatchStorage | None:
        """Where the files of BATCH messages are, or ``None`` for where the messages say."""
        if isinstance(self.batch_config, UnsetType):
            return None
        storage = self.batch_config.storage
        return None if isinstance(storage, UnsetType) else storage

    @property
    def transforms_records(self) -> bool:
        """Whether every record must pass through the SDK before it is mapped."""
        return bool(self.stream_maps) or self.flattening_enabled or self.validate_records


def json_schema() -> dict[str, t.Any]:
    """The settings as the JSON schema that ``--about`` shows, all references resolved."""
    (schema,), definitions = msgspec.json.schema_components([Settings], ref_template="{name}")

    def resolved(node: t.Any) -> t.Any:
        if isinstance(node, list):
            return [resolved(item) for item in node]
        if not isinstance(node, dict):
            return node
        if "$ref" in node:
            target = definitions[node["$ref"]]
            if target.get("type") != "object":
                target = {"type": "string", "enum": target["enum"]}
            node = target | {key: value for key, value in node.items() if key != "$ref"}
        return {key: resolved(value) for key, value in node.items()}

    result: dict[str, t.Any] = resolved(schema)
    mapping = result["properties"]["cohorts"]["additionalProperties"]
    mapping |= {"title": "Mapping", "description": "What is known of one stream's cohort."}
    result["properties"]["data_center"]["type"] = ["string", "integer"]
    return result
