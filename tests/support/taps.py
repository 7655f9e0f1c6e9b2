"""The messages of real taps around the rows of one stream, as `docs/taps.md` lists them.

Each function gives the output of one run: what the tap writes before the rows, after some of them,
and in the end. The values are made up.
"""

import typing as t
from dataclasses import dataclass

from tests.support.singer import activate_version, record, schema, state

FIRST_VERSION = 1_795_000_000_000


@dataclass(frozen=True)
class Tap:
    """A tap with one replication method.

    Attributes:
        name: The tap and the method, as in `docs/taps.md`.
        code: The code of the error that ends a mirror's second run; `None` if it may be a mirror.
        before: The stream's entry in STATE before the rows of a first run.
        during: What is in the entry while rows are read.
        after: The entry in the end.
        key: The tap's name for the stream in its STATE.
        properties: `bookmark_properties` of its SCHEMA.
        activates: When it sends an ACTIVATE_VERSION: in the first run before the rows, and after.
        is_versioned: Whether its rows have a version.
        keeps_version: Whether later runs have the same version.
        stays: What it still says in the end that it is reading.
        syncs: Whether it writes STATE before the rows, and what it is reading.
    """

    name: str
    code: str | None
    after: t.Any
    before: t.Any = None
    during: t.Any = None
    key: str = "users"
    properties: t.Any = None
    activates: tuple[bool, bool] = (False, False)
    is_versioned: bool = False
    keeps_version: bool = False
    stays: str | None = None
    syncs: bool = True

    def run(self, uids: t.Sequence[str], number: int, *, is_cut: bool = False, fed: t.Any = None):
        """Return the messages of a run, the first being number 0.

        Args:
            uids: The rows.
            number: The number of the run.
            is_cut: Whether the tap dies after the rows.
            fed: The entry in the STATE that the tap has got back.
        """
        version = FIRST_VERSION + (0 if self.keeps_version else number)
        first, last = self.activates
        about = schema(columns=("uid", "updated_at"))
        if self.properties is not None:
            about["bookmark_properties"] = self.properties
        messages = [self._state(self.before if fed is None else fed)] * self.syncs + [about]
        messages += [activate_version(version)] * (first and number == 0)
        for uid in uids:
            row = record(uid=uid)
            messages.append(row | {"version": version} if self.is_versioned else row)
        if self.during is not None:
            messages.append(self._state(self.during))
        if is_cut:
            return messages
        messages += [activate_version(version)] * last
        return [*messages, self._state(self.after, reading=self.stays)]

    def _state(self, entry: t.Any, *, reading: str | None = "itself") -> t.Any:
        value: dict[str, t.Any] = {"bookmarks": {} if entry is None else {self.key: entry}}
        if self.syncs:
            value["currently_syncing"] = self.key if reading == "itself" else reading
        return state(value)


BOOKMARK = "bookmark_for_mirror"
KEY = {"replication_key": "updated_at", "replication_key_value": "2026-11-29T03:37:41+00:00"}
BOTH, AFTER, BEFORE = (True, True), (False, True), (True, False)
FULL = {"last_replication_method": "FULL_TABLE"}
DONE = {"initial_full_table_complete": True}
VERSION = {"version": FIRST_VERSION}
VERSIONED = {"is_versioned": True, "activates": BOTH}
SAME = {"is_versioned": True, "keeps_version": True}
CHANGES = {**SAME, "activates": BEFORE}

TAPS = [
    Tap("pipelinewise-tap-mysql FULL_TABLE, a view", None, DONE, **VERSIONED),
    Tap(
        "pipelinewise-tap-mysql FULL_TABLE, auto_increment",
        None,
        DONE,
        during={"max_pk_values": {"id": 9}, "last_pk_fetched": {"id": 5}},
        **VERSIONED,
    ),
    Tap(
        "pipelinewise-tap-mysql INCREMENTAL",
        BOOKMARK,
        KEY | VERSION,
        properties=["updated_at"],
        **CHANGES,
    ),
    Tap("pipelinewise-tap-mysql LOG_BASED", BOOKMARK, VERSION | {"log_file": "b.1", "log_pos": 3}),
    Tap(
        "pipelinewise-tap-postgres FULL_TABLE",
        None,
        FULL | VERSION | {"xmin": None},
        before=FULL,
        during=FULL | VERSION | {"xmin": 700},
        properties=[],
        **VERSIONED,
    ),
    Tap(
        "pipelinewise-tap-postgres FULL_TABLE, a view",
        None,
        FULL | VERSION,
        before=FULL,
        properties=[],
        **VERSIONED,
    ),
    Tap(
        "pipelinewise-tap-postgres INCREMENTAL",
        BOOKMARK,
        KEY | VERSION | {"last_replication_method": "INCREMENTAL"},
        properties=["updated_at"],
        **CHANGES,
    ),
    Tap(
        "pipelinewise-tap-postgres LOG_BASED",
        BOOKMARK,
        VERSION | {"lsn": 33, "xmin": None, "last_replication_method": "LOG_BASED"},
        properties=["lsn"],
        **SAME,
    ),
    Tap("meltanolabs-tap-postgres FULL_TABLE", None, {}, syncs=False),
    Tap(
        "meltanolabs-tap-postgres INCREMENTAL",
        BOOKMARK,
        KEY,
        properties=["updated_at"],
        syncs=False,
    ),
    Tap(
        "meltanolabs-tap-postgres LOG_BASED",
        BOOKMARK,
        {"replication_key": None, "replication_key_value": 33},
    ),
    Tap("tap-csv FULL_TABLE", None, {}, syncs=False),
    Tap("tap-smoke-test FULL_TABLE", None, {}, syncs=False),
    Tap(
        "tap-jsonl default",
        BOOKMARK,
        KEY | {"partitions": [{"context": {"f": "u.jsonl"}, **KEY}]},
        properties=["_sdc_last_modified"],
    ),
    Tap("tap-spreadsheets default", BOOKMARK, KEY, properties=["_sdc_last_modified"]),
    Tap("pipelinewise-tap-s3-csv", BOOKMARK, {"modified_since": "2026-11-29T03:39:54+00:00"}),
    Tap(
        "tap-dynamodb FULL_TABLE",
        None,
        FULL | VERSION | DONE | {"success_timestamp": "2026-11-29T03:43:53Z"},
        before=FULL,
        during=FULL | VERSION | {"last_evaluated_key": {"uid": {"S": "5"}}},
        stays="users",
        **VERSIONED,
    ),
    Tap(
        "tap-dynamodb LOG_BASED",
        BOOKMARK,
        VERSION | DONE | {"finished_shards": []},
        before={"last_replication_method": "LOG_BASED"},
        stays="users",
        **CHANGES,
    ),
    Tap(
        "pipelinewise-tap-mongodb FULL_TABLE",
        None,
        FULL | VERSION | DONE,
        before=FULL,
        during=FULL | VERSION | {"max_id_value": "u9", "last_id_fetched": "u5"},
        key="shop-users",
        **VERSIONED,
    ),
    Tap(
        "pipelinewise-tap-mongodb INCREMENTAL",
        BOOKMARK,
        VERSION | {"replication_key_name": "updated_at", "replication_key_value": "2026-11-29"},
        key="shop-users",
        activates=BOTH,
        **SAME,
    ),
    Tap("pipelinewise-tap-mongodb LOG_BASED", BOOKMARK, {"token": "82"}, key="shop-users"),
    Tap(
        "tap-mongodb LOG_BASED",
        BOOKMARK,
        VERSION | {"oplog_ts_time": 17, "oplog_ts_inc": 1},
        key="shop-users",
        **CHANGES,
    ),
    Tap(
        "tap-oracle FULL_TABLE",
        None,
        VERSION | {"ORA_ROWSCN": None},
        during=VERSION | {"ORA_ROWSCN": 7},
        key="SHOP-users",
        properties=[],
        **VERSIONED,
    ),
    Tap(
        "tap-oracle INCREMENTAL",
        BOOKMARK,
        KEY | VERSION,
        key="SHOP-users",
        properties=["updated_at"],
        **CHANGES,
    ),
    Tap("tap-oracle LOG_BASED", BOOKMARK, VERSION | {"scn": 7}, key="SHOP-users"),
    Tap(
        "tap-mssql FULL_TABLE",
        None,
        DONE,
        during={"max_pk_values": {"id": 9}, "last_pk_fetched": {"id": 5}},
        **VERSIONED,
    ),
    Tap("tap-mssql LOG_BASED", BOOKMARK, DONE | {"lsn": "0x25"}, activates=AFTER, **SAME),
    Tap("pipelinewise-tap-snowflake FULL_TABLE", None, DONE, **VERSIONED),
    Tap(
        "pipelinewise-tap-snowflake INCREMENTAL",
        BOOKMARK,
        KEY | VERSION,
        properties=["updated_at"],
        **CHANGES,
    ),
    Tap("tap-salesforce without a key", None, {"version": None}, **VERSIONED),
    Tap(
        "tap-salesforce with a key",
        BOOKMARK,
        VERSION | {"SystemModstamp": "2026-11-29T03:37:41Z"},
        properties="SystemModstamp",
        **CHANGES,
    ),
    Tap("tap-bigquery", BOOKMARK, {"last_update": "2026-11-29T03:37:41"}),
    Tap("tap-hubspot", BOOKMARK, {"updatedAt": "2026-11-29T03:37:41Z"}),
    Tap("tap-google-sheets FULL_TABLE", None, FIRST_VERSION, **VERSIONED),
    Tap("tap-redshift FULL_TABLE", None, {"version": None}, is_versioned=True, activates=AFTER),
    Tap(
        "tap-redshift INCREMENTAL",
        BOOKMARK,
        KEY | VERSION,
        properties="updated_at",
        **CHANGES,
    ),
]
