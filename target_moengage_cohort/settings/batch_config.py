"""The setting `batch_config`, as the Meltano SDK has it for taps and targets."""

from __future__ import annotations

import typing as t

import msgspec
from msgspec import UNSET, Meta, UnsetType

_SECRET = {"secret": True, "writeOnly": True}


class BatchEncoding(msgspec.Struct, frozen=True, kw_only=True):
    """What a tap makes; each BATCH message says its own, so that nothing here is used."""

    format: t.Annotated[
        str | UnsetType, Meta(title="Format", description="jsonl, parquet or arrow.")
    ] = UNSET
    compression: t.Annotated[
        str | UnsetType, Meta(title="Compression", description="gzip or none.")
    ] = UNSET


class BatchStorage(msgspec.Struct, frozen=True, kw_only=True):
    """Where the files are to be looked up by their names, whatever folder a message names."""

    root: t.Annotated[
        str,
        Meta(
            title="Root",
            description="A folder, or the URL of one in an object store, such as s3://bucket/dir.",
        ),
    ]
    prefix: t.Annotated[
        str | UnsetType,
        Meta(
            title="Prefix",
            description="What the tap puts before the files' names; the names in the messages "
            "have it already.",
        ),
    ] = UNSET
    params: t.Annotated[
        dict[str, t.Any],
        Meta(
            title="Parameters",
            description="What fsspec needs to open the storage, such as key, secret and "
            "endpoint_url for S3.",
            extra_json_schema=_SECRET,
        ),
    ] = {}

    def __repr__(self) -> str:
        """Show nothing: a URL may hold credentials as well as the parameters."""
        return f"{type(self).__name__}(…)"

    def __rich_repr__(self) -> list[tuple[str, t.Any]]:
        """Show nothing in rich's output either."""
        return []


class BatchConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of the files of BATCH messages beside what the messages say."""

    encoding: t.Annotated[
        BatchEncoding | UnsetType,
        Meta(
            title="Encoding",
            description="How the tap writes its files; taken, but each BATCH message says its own.",
        ),
    ] = UNSET
    storage: t.Annotated[
        BatchStorage | UnsetType,
        Meta(
            title="Storage",
            description="Where the files are. Default: where each BATCH message says.",
        ),
    ] = UNSET
    batch_size: t.Annotated[
        int | UnsetType,
        Meta(title="Batch size", description="Of the tap; taken, but not used here."),
    ] = UNSET


BatchConfigSetting: t.TypeAlias = t.Annotated[
    BatchConfig | UnsetType,
    Meta(
        title="Batch configuration",
        description="Where the files of BATCH messages are, if not where the messages say: "
        "storage.root, a folder or an object store's URL, in which they are looked up by name; "
        "and storage.params, what fsspec needs to open it, such as keys. The rest of the SDK's "
        "batch_config is taken, too, but each BATCH message says its own encoding.",
        extra_json_schema=_SECRET,
    ),
]
