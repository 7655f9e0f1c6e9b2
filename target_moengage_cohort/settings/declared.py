"""Each setting's name, type, range and default; `DESCRIPTIONS` has its title and description.

``--about``, the table in ``docs/configuration.md``, ``meltano.yml`` and ``.env.example`` repeat
them.
"""

from __future__ import annotations

import enum
import typing as t

import msgspec
from msgspec import Meta

from target_moengage_cohort.core.membership import SyncMode
from target_moengage_cohort.settings.keys import Percent, Removals, StreamMapping

_SECRET = Meta(extra_json_schema={"secret": True, "writeOnly": True})


class OnReject(enum.StrEnum):
    """How a row that cannot be delivered is handled."""

    FAIL = "fail"
    SKIP = "skip"


class BatchEncoding(msgspec.Struct, frozen=True, kw_only=True):
    """How a tap encodes its files; not used, because each BATCH message names its own encoding."""

    format: str | None = None
    compression: str | None = None


class BatchStorage(msgspec.Struct, frozen=True, kw_only=True):
    """The place where files are looked up by name, whatever directory a message names."""

    root: str
    prefix: str | None = None
    params: t.Annotated[dict[str, t.Any], _SECRET] = {}

    def __repr__(self) -> str:
        """Show nothing: the URL as well as the parameters may contain credentials."""
        return f"{type(self).__name__}(…)"

    def __rich_repr__(self) -> list[tuple[str, t.Any]]:
        """Show nothing in rich's output either."""
        return []


class BatchConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The SDK's settings for the files of BATCH messages, in addition to the messages' own."""

    encoding: BatchEncoding | None = None
    storage: BatchStorage | None = None
    batch_size: int | None = None


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """The configuration of a run, as `target_moengage_cohort.settings.load` has checked it."""

    workspace_id: str
    data_api_key: t.Annotated[str, _SECRET]
    data_center: str
    partner: str
    api_url: str | None = None
    cohorts: dict[str, StreamMapping] = {}
    uid_column: str = "uid"
    anonymous_id_column: str | None = None
    sync_mode: SyncMode = SyncMode.INCREMENTAL
    removals: Removals = Removals.IMMEDIATE
    max_removal_percent: Percent = 10
    max_addition_percent: t.Annotated[int, Meta(ge=0)] | None = None
    ledger_uri: str | None = None
    ledger_create: bool = True
    max_new_cohorts: t.Annotated[int, Meta(ge=0)] = 50
    requests_per_minute: t.Annotated[int, Meta(ge=1, le=1_000_000)] = 300
    max_payload_bytes: t.Annotated[int, Meta(ge=1_000, le=131_072)] = 128_000
    max_concurrency: t.Annotated[int, Meta(ge=1, le=16)] = 4
    request_timeout_seconds: t.Annotated[int, Meta(ge=1, le=600)] = 60
    max_retry_seconds: t.Annotated[int, Meta(ge=0, le=86_400)] = 900
    flush_seconds: t.Annotated[int, Meta(ge=1, le=86_400)] = 60
    send_timestamp: bool = True
    on_reject: OnReject = OnReject.FAIL
    rejects_path: str | None = None
    report_path: str | None = None
    dry_run: bool = False
    validate_records: bool = False
    batch_config: t.Annotated[BatchConfig | None, _SECRET] = None
    stream_maps: dict[str, t.Any] = {}
    stream_map_config: dict[str, t.Any] = {}
    flattening_enabled: bool = False
    flattening_max_depth: t.Annotated[int, Meta(ge=0)] | None = None
    flattening_max_key_length: int | None = None
    flattening_separator: str | None = None

    def __repr__(self) -> str:
        """Show where requests go and no secret."""
        return f"Settings({self.base_url!r}, workspace_id={self.workspace_id!r})"

    def __rich_repr__(self) -> list[tuple[str, t.Any]]:
        """Show no secret in rich's output either; msgspec's own would show every field."""
        return [("base_url", self.base_url), ("workspace_id", self.workspace_id)]

    @property
    def base_url(self) -> str:
        """The destination of requests, without a trailing slash."""
        return self.api_url or f"https://api-{self.data_center}.moengage.com"

    @property
    def batch_storage(self) -> BatchStorage | None:
        """The place of the files of BATCH messages; ``None`` means as in the messages."""
        return None if self.batch_config is None else self.batch_config.storage

    @property
    def transforms_records(self) -> bool:
        """Whether every record must pass through the SDK before it is mapped."""
        return bool(self.stream_maps) or self.flattening_enabled or self.validate_records
