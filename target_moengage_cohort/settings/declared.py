"""Each setting's name, type, range and default; `about` has its title and description.

``--about``, the table in ``docs/configuration.md``, ``meltano.yml`` and ``.env.example`` repeat
them.
"""

from __future__ import annotations

import enum
import typing as t

import msgspec
from msgspec import Meta

from target_moengage_cohort.core.membership import SNAPSHOT_MODES, Cohort, SyncMode

_SECRET = Meta(extra_json_schema={"secret": True, "writeOnly": True})
_ROLES = (
    "uid",
    "anonymous_id",
    "cohort_id",
    "cohort_name",
    "membership",
    "deleted_at",
    "expected_count",
)

_Natural: t.TypeAlias = t.Annotated[int, Meta(ge=0)]
_Percent: t.TypeAlias = t.Annotated[int, Meta(ge=0, le=100)]
# MoEngage archives a segment after 60 days, so a longer time would be too late.
_KeepDays: t.TypeAlias = t.Annotated[int, Meta(ge=1, le=59)]


class OnReject(enum.StrEnum):
    """How a row that cannot be delivered is handled."""

    FAIL = "fail"
    SKIP = "skip"


class OnMissingStream(enum.StrEnum):
    """How a configured stream without input is handled."""

    WARN = "warn"
    FAIL = "fail"


class OnWithheld(enum.StrEnum):
    """How a run ends that withholds a plan."""

    FAIL = "fail"
    WARN = "warn"


class Removals(enum.StrEnum):
    """When the removals of a mirror are sent."""

    IMMEDIATE = "immediate"
    PROVEN = "proven"
    DEFERRED = "deferred"


class StreamMapping(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How one stream's records become changes of membership, with every default filled in.

    Keys without a default have theirs in `Settings`, where the top level sets them for all streams.
    """

    stream: str  # after stream maps
    uid_required: bool  # whether the stream must have the `uid_column`
    cohort_id: str | None = None
    cohort_name: str | None = None
    cohort_description: str | None = None
    cohort_id_column: str | None = None
    cohort_name_column: str | None = None
    uid_column: str
    anonymous_id_column: str | None
    sync_mode: SyncMode
    membership_column: str | None = None
    deleted_at_column: str | None = None
    expected_count_column: str | None = None
    allow_bookmark: bool = False
    exclusive: bool | None = None  # unset: false, with a warning where it matters
    removals: Removals
    max_removal_percent: _Percent
    max_addition_percent: _Natural | None
    min_match_percent: _Percent  # 0: not counted

    @property
    def cohort(self) -> Cohort | None:
        """The cohort that the stream populates; ``None`` if each row names its cohort."""
        if self.cohort_id is None or self.cohort_name is None:
            return None
        return Cohort(self.cohort_id, self.cohort_name, self.cohort_description)

    @property
    def is_snapshot(self) -> bool:
        """Whether the stream is the whole cohort: an absent member is known at its end only."""
        return self.sync_mode in SNAPSHOT_MODES

    @property
    def columns(self) -> dict[str, str]:
        """The name of the mapped column for each role."""
        columns = {role: getattr(self, f"{role}_column") for role in _ROLES}
        return {role: column for role, column in columns.items() if column is not None}


class BatchEncoding(msgspec.Struct, frozen=True, kw_only=True):
    """How a tap encodes its files; not used, because each BATCH message names its own encoding."""

    format: str | None = None
    compression: str | None = None


class _Secretive(msgspec.Struct, frozen=True):
    """A struct whose values are not shown, because they may contain credentials."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}(…)"

    def __rich_repr__(self) -> list[tuple[str, t.Any]]:
        return []  # msgspec's own would show every field in rich's output


class BatchStorage(_Secretive, frozen=True, kw_only=True):
    """The place where files are looked up by name, whatever directory a message names."""

    root: str
    prefix: str | None = None
    params: t.Annotated[dict[str, t.Any], _SECRET] = {}


class BatchConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The SDK's settings for the files of BATCH messages, in addition to the messages' own."""

    encoding: BatchEncoding | None = None
    storage: BatchStorage | None = None
    batch_size: int | None = None


class Settings(_Secretive, frozen=True, kw_only=True):
    """The configuration of a run, as `target_moengage_cohort.settings.load` has checked it."""

    workspace_id: str
    data_api_key: t.Annotated[str, _SECRET]
    data_center: str
    partner: str
    api_url: str | None = None
    segments_api_key: t.Annotated[str | None, _SECRET] = None
    analytics_api_key: t.Annotated[str | None, _SECRET] = None
    db_name: str | None = None
    id_attribute: str | None = None
    cohorts: dict[str, StreamMapping] = {}
    uid_column: str = "uid"
    anonymous_id_column: str | None = None
    sync_mode: SyncMode = SyncMode.INCREMENTAL
    removals: Removals = Removals.IMMEDIATE
    max_removal_percent: _Percent = 10
    max_addition_percent: _Natural | None = None
    min_match_percent: _Percent = 0
    keep_unarchived_days: _KeepDays | None = None
    exclude_path: t.Annotated[str | None, _SECRET] = None  # it may be a URL with a signature
    ledger_uri: t.Annotated[str | None, _SECRET] = None  # it may have a password
    ledger_create: bool = True
    keep_changes_days: t.Annotated[int, Meta(ge=1, le=400)] | None = None
    max_new_cohorts: _Natural = 50
    requests_per_minute: t.Annotated[int, Meta(ge=1, le=1_000_000)] = 300
    max_payload_bytes: t.Annotated[int, Meta(ge=1_000, le=131_072)] = 128_000
    max_concurrency: t.Annotated[int, Meta(ge=1, le=16)] = 4
    request_timeout_seconds: t.Annotated[int, Meta(ge=1, le=600)] = 60
    max_retry_seconds: t.Annotated[int, Meta(ge=0, le=86_400)] = 900
    flush_seconds: t.Annotated[int, Meta(ge=1, le=86_400)] = 60
    send_timestamp: bool = True
    on_reject: OnReject = OnReject.FAIL
    rejects_path: str | None = None
    on_missing_stream: OnMissingStream = OnMissingStream.WARN
    on_withheld: OnWithheld = OnWithheld.FAIL
    report_path: str | None = None
    notify_url: t.Annotated[str | None, _SECRET] = None
    notify_on: str = "failed,withheld,recovered"
    notify_headers: t.Annotated[dict[str, t.Any], _SECRET] = {}
    alert_turnover_percent: _Natural | None = None
    metrics_path: str | None = None
    dry_run: bool = False
    validate_records: bool = False
    batch_config: t.Annotated[BatchConfig | None, _SECRET] = None
    stream_maps: dict[str, t.Any] = {}
    stream_map_config: dict[str, t.Any] = {}
    flattening_enabled: bool = False
    flattening_max_depth: _Natural | None = None
    flattening_max_key_length: int | None = None
    flattening_separator: str | None = None

    @property
    def base_url(self) -> str:
        """The destination of requests, without a trailing slash."""
        return self.api_url or f"https://api-{self.data_center}.moengage.com"

    @property
    def notified_events(self) -> frozenset[str]:
        """The changes of a stream's state to send to `notify_url`."""
        names = (name.strip() for name in self.notify_on.split(","))
        return frozenset(name for name in names if name)

    @property
    def batch_storage(self) -> BatchStorage | None:
        """The place of the files of BATCH messages; ``None`` means as in the messages."""
        return None if self.batch_config is None else self.batch_config.storage

    @property
    def transforms_records(self) -> bool:
        """Whether every record must pass through the SDK before it is mapped."""
        return bool(self.stream_maps) or self.flattening_enabled or self.validate_records


SETTING_NAMES = frozenset(Settings.__struct_fields__)
DERIVED_KEYS = frozenset({"stream", "uid_required"})  # of `StreamMapping`; they cannot be set
MAPPING_KEYS = frozenset(StreamMapping.__struct_fields__) - DERIVED_KEYS
ENVIRONMENT_PREFIX = "TARGET_MOENGAGE_COHORT_"  # of the variables that set them
