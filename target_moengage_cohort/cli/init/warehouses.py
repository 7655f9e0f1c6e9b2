"""The warehouses that `init` knows: each one's tap, as `docs/examples` has it, and its settings."""

from __future__ import annotations

import typing as t

import msgspec

from target_moengage_cohort.core.membership import SNAPSHOT_MODES

if t.TYPE_CHECKING:
    from collections.abc import Sequence


class TapVariable(msgspec.Struct, frozen=True):
    """A variable of `.env` that the tap reads, and the question for its value."""

    name: str
    question: str
    default: str | None = None
    is_secret: bool = False
    is_required: bool = True
    unless: str | None = None  # the variable that makes this one needless


class Warehouse(msgspec.Struct, frozen=True):
    """A warehouse and its tap; a tap that `init` does not know has no definition."""

    name: str
    tap: str
    definition: str = ""  # YAML: the plugin's keys before `config`
    settings: str = ""  # YAML: a line for each setting
    variables: tuple[TapVariable, ...] = ()
    stream: str = "users"  # an example of a stream's name


class ProjectStream(msgspec.Struct, frozen=True):
    """A stream to sync: its mapping, and how the tap reads it."""

    name: str
    mapping: dict[str, t.Any]  # as under `cohorts`
    replication_key: str | None = None
    table: str | None = None  # of BigQuery

    @property
    def is_snapshot(self) -> bool:
        """Whether each run needs every row."""
        return self.mapping.get("sync_mode") in SNAPSHOT_MODES


_POSTGRES = Warehouse(
    name="postgres",
    tap="tap-postgres",
    stream="public-newsletter",
    definition="""\
name: tap-postgres
namespace: tap_postgres
pip_url: meltanolabs-tap-postgres~=0.10.0
executable: tap-postgres
capabilities: [about, batch, catalog, discover, schema-flattening, state, stream-maps]
""",
    settings="""\
- {name: host, kind: string}
- {name: port, kind: integer, value: 5432}
- {name: user, kind: string}
- {name: password, kind: string, sensitive: true}
- {name: database, kind: string}
- {name: ssl_enable, kind: boolean, value: false}
- {name: ssl_mode, kind: string}
- {name: filter_schemas, kind: array}
""",
    variables=(
        TapVariable("TAP_POSTGRES_HOST", "Host of the database", "localhost"),
        TapVariable("TAP_POSTGRES_PORT", "Port", "5432"),
        TapVariable("TAP_POSTGRES_USER", "User"),
        TapVariable("TAP_POSTGRES_PASSWORD", "Password", is_secret=True),
        TapVariable("TAP_POSTGRES_DATABASE", "Database"),
    ),
)
_SNOWFLAKE = Warehouse(
    name="snowflake",
    tap="tap-snowflake",
    stream="marketing-vip_users",
    definition="""\
name: tap-snowflake
namespace: tap_snowflake
pip_url: meltanolabs-tap-snowflake~=0.5.6
executable: tap-snowflake
capabilities: [about, batch, catalog, discover, schema-flattening, state, stream-maps]
""",
    settings="""\
- {name: account, kind: string}
- {name: user, kind: string}
- {name: password, kind: string, sensitive: true}
- {name: private_key, kind: string, sensitive: true}
- {name: private_key_path, kind: string}
- {name: private_key_passphrase, kind: string, sensitive: true}
- {name: database, kind: string}
- {name: schema, kind: string}
- {name: warehouse, kind: string}
- {name: role, kind: string}
- {name: tables, kind: array}
- {name: batch_config, kind: object}
""",
    variables=(
        TapVariable("TAP_SNOWFLAKE_ACCOUNT", "Account"),
        TapVariable("TAP_SNOWFLAKE_USER", "User"),
        TapVariable(
            "TAP_SNOWFLAKE_PRIVATE_KEY_PATH",
            "File with the private key (empty: use a password)",
            is_required=False,
        ),
        TapVariable(
            "TAP_SNOWFLAKE_PASSWORD",
            "Password",
            is_secret=True,
            unless="TAP_SNOWFLAKE_PRIVATE_KEY_PATH",
        ),
        TapVariable("TAP_SNOWFLAKE_WAREHOUSE", "Virtual warehouse"),
        TapVariable("TAP_SNOWFLAKE_DATABASE", "Database"),
    ),
)
_BIGQUERY = Warehouse(
    name="bigquery",
    tap="tap-bigquery",
    stream="vip_users",
    definition="""\
name: tap-bigquery
namespace: tap_bigquery
variant: anelendata
pip_url: tap-bigquery~=0.3.10
executable: tap-bigquery
capabilities: [catalog, discover, state]
""",
    settings="""\
- {name: streams, kind: array}
- {name: credentials_path, kind: string, env: GOOGLE_APPLICATION_CREDENTIALS}
- {name: start_datetime, kind: date_iso8601}
- {name: end_datetime, kind: date_iso8601}
- {name: limit, kind: integer}
- {name: start_always_inclusive, kind: boolean}
""",
    variables=(
        TapVariable(
            "GOOGLE_APPLICATION_CREDENTIALS", "File with the credentials of the service account"
        ),
    ),
)
WAREHOUSES = {each.name: each for each in (_POSTGRES, _SNOWFLAKE, _BIGQUERY)}


def warehouse_of(name: str) -> Warehouse | None:
    """Return the warehouse of a name, or of its tap's; ``None`` if it is neither."""
    for warehouse in WAREHOUSES.values():
        if name in {warehouse.name, warehouse.tap}:
            return warehouse
    return Warehouse(name, name) if name.startswith("tap-") else None


def tap_keys(warehouse: Warehouse, streams: Sequence[ProjectStream]) -> dict[str, t.Any]:
    """Return the keys of the tap's plugin that depend on the streams."""
    if warehouse.name == "bigquery":
        tables = [_bigquery_stream(each) for each in streams]
        start = {"start_datetime": "2020-01-01T00:00:00Z", "start_always_inclusive": True}
        return {"config": start | {"streams": tables}}
    keys: dict[str, t.Any] = {}
    pairs = [each.name.split("-") for each in streams]
    if all(len(pair) == 2 for pair in pairs):  # noqa: PLR2004 - else schema and table are unclear
        if warehouse.name == "postgres":
            keys["config"] = {"filter_schemas": sorted({schema for schema, _ in pairs})}
        if warehouse.name == "snowflake":  # looking through a large account takes long
            keys["config"] = {"tables": [".".join(pair).upper() for pair in pairs]}
    keys["select"] = [each.name.replace(".", "\\.") + ".*" for each in streams]
    keys["metadata"] = {each.name: _replication(each) for each in streams}
    return keys


def _replication(stream: ProjectStream) -> dict[str, str]:
    if stream.is_snapshot or stream.replication_key is None:
        return {"replication-method": "FULL_TABLE"}
    return {"replication-method": "INCREMENTAL", "replication-key": stream.replication_key}


def _bigquery_stream(stream: ProjectStream) -> dict[str, t.Any]:
    roles = ("uid_column", "anonymous_id_column", "membership_column", "deleted_at_column")
    columns = [stream.mapping[role] for role in roles if role in stream.mapping]
    if "uid_column" not in stream.mapping and "anonymous_id_column" not in stream.mapping:
        columns.insert(0, "uid")
    key = stream.replication_key
    columns += [key] if key and key not in columns else []
    return {"name": stream.name, "table": stream.table, "columns": columns, "datetime_key": key}
