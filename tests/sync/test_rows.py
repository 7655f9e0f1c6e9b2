from __future__ import annotations

import io
import json
from decimal import Decimal
from types import SimpleNamespace

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import given
from msgspec import UNSET

from target_moengage_cohort.core.errors import RowError, SettingsError
from target_moengage_cohort.core.interrupts import Interrupt
from target_moengage_cohort.core.membership import Action
from target_moengage_cohort.delivery.ports import Timing
from target_moengage_cohort.ledger.engines import open_store
from target_moengage_cohort.settings import load
from target_moengage_cohort.singer.messages import Record, Schema
from target_moengage_cohort.singer.reader import Reader
from target_moengage_cohort.sync.changes.change_sink import ChangeSink
from target_moengage_cohort.sync.cohorts import Cohorts
from target_moengage_cohort.sync.context import ApiEndpoints, RunContext
from target_moengage_cohort.sync.rows import RowMapper

BASE = {"workspace_id": "ws", "data_api_key": "key", "data_center": "02", "partner": "acme"}
ADD, REMOVE = Action.ADD, Action.REMOVE
NEVER = Interrupt()


def cohorts_of(config):
    store = open_store(config.settings, run_id="r", wait=NEVER.wait, read_only=True)
    recorder = SimpleNamespace(remembers=True)
    endpoints = SimpleNamespace(store=store, apis=ApiEndpoints(), recorder=recorder)
    return Cohorts(RunContext("r", config, NEVER, Timing()), endpoints, progress=None)


def mapped(
    *streams,
    columns="uid id name n m a _sdc_deleted_at",
    keys=(),
    settings=None,
    is_closed=False,
    **mapping,
):
    """Return a mapper for each stream, all of one run, and the run's cohorts.

    Rows of a closed stream have no other columns.
    """
    streams = streams or ("s",)
    config = load(BASE | (settings or {}) | {"cohorts": dict.fromkeys(streams, mapping)})
    cohorts = cohorts_of(config)
    properties = {"properties": {column: {} for column in columns.split()}}
    properties |= {"additionalProperties": False} if is_closed else {}
    mappers = [
        RowMapper(config.mapping(name), Schema(name, properties, keys), cohorts) for name in streams
    ]
    return *mappers, cohorts


def change_of(rows, row):
    """Return the change for a row, as the sink of a stream of changes makes it."""
    outbox = []
    ChangeSink(rows, "s", SimpleNamespace(put=outbox.append)).take(row)
    return outbox[0] if outbox else None


def change(rows, **record):
    return change_of(rows, rows.row(record))


def reason(rows, **record):
    with pytest.raises(RowError) as raised:
        change(rows, **record)
    return raised.value.reason


def told(found):
    return found and (found.cohort.cohort_id, found.action, found.member.key, found.member.encode())


@pytest.mark.parametrize(
    ("expected", "mode", "record"),
    [
        (ADD, "incremental", {}),
        (ADD, "incremental", {"_sdc_deleted_at": None}),
        (ADD, "incremental", {"_sdc_deleted_at": ""}),
        (REMOVE, "incremental", {"_sdc_deleted_at": "2026-11-22"}),
        (ADD, "add", {}),
        (None, "add", {"_sdc_deleted_at": "2026-11-22"}),
        (REMOVE, "remove", {}),
        (REMOVE, "remove", {"_sdc_deleted_at": "2026-11-22"}),
    ],
)
def test_sync_modes(expected, mode, record):
    """The mode decides the change for a record and a deleted record; skipped ones are counted."""
    rows, cohorts = mapped(sync_mode=mode)
    found = change(rows, uid="u1", **record)
    assert expected is (found and found.action)
    destination = cohorts.by_id["s"]
    assert (1, 0, int(expected is None)) == (
        destination.records,
        destination.rejected,
        destination.skipped,
    )


@pytest.mark.parametrize(
    ("expected", "record"),
    [
        (ADD, {"m": True}),
        (REMOVE, {"m": "No"}),
        (REMOVE, {"m": "yes", "_sdc_deleted_at": "2026-11-22"}),
        ("the column 'm' is null", {"m": None}),
        ("the column 'm' is null", {}),
        (
            "the column 'm' must be a boolean, 0/1, true/false, t/f, yes/no, y/n or add/remove",
            {"m": "pl4nt3d"},
        ),
    ],
)
def test_a_membership_column_decides(expected, record):
    """It decides membership, a deletion outranks it, and any other value rejects the row."""
    rows, _ = mapped(membership_column="m")
    if not isinstance(expected, Action):
        assert expected == reason(rows, uid="u1", **record)
    else:
        assert expected is change(rows, uid="u1", **record).action


@pytest.mark.parametrize(
    ("key", "payload", "record"),
    [
        ("u1", b'{"uid":"u1"}', {"uid": "u1"}),
        ("u1", b'{"uid":"u1","anonymous_id":"a1"}', {"uid": "u1", "a": "a1"}),
        (("a1",), b'{"anonymous_id":"a1"}', {"uid": None, "a": "a1"}),
        (("a1",), b'{"anonymous_id":"a1"}', {"uid": "", "a": "a1"}),
        ("5", b'{"uid":"5","anonymous_id":"7"}', {"uid": 5, "a": Decimal("7.0")}),
        (" U ", b'{"uid":" U "}', {"uid": " U ", "a": ""}),
    ],
)
def test_members_have_the_identifiers_that_are_there(key, payload, record):
    """The key is the uid if there is one, else the anonymous id; both are sent verbatim."""
    rows, _ = mapped(anonymous_id_column="a")
    assert ("s", ADD, key, payload) == told(change(rows, **record))


@pytest.mark.parametrize(
    ("expected", "mapping", "record"),
    [
        ("no identifier: 'uid' is null, empty or absent", {}, {"a": "pl4nt3d"}),
        (
            "no identifier: 'uid' and 'a' are null, empty or absent",
            {"anonymous_id_column": "a"},
            {},
        ),
        ("the column 'uid' is a boolean", {}, {"uid": True}),
        ("the column 'uid' is neither text nor a whole number", {}, {"uid": ["pl4nt3d"]}),
        (
            "the column 'a' is a number with a fraction",
            {"anonymous_id_column": "a"},
            {"uid": "u1", "a": Decimal("1.5")},
        ),
    ],
    ids=["no uid", "neither", "boolean", "list", "fraction"],
)
def test_rows_without_a_good_identifier_are_rejected(expected, mapping, record):
    """The reason names the column but no value; the row is counted as rejected."""
    rows, cohorts = mapped(**mapping)
    assert expected == reason(rows, **record)
    assert (1, 1) == (cohorts.by_id["s"].records, cohorts.by_id["s"].rejected)


@given(st.integers(1, 1_200), st.sampled_from(["x", "\u20ac", '"']))
def test_a_member_may_be_as_large_as_a_request_has_room(length, character):
    """A member is rejected exactly if its encoded bytes do not fit into a request of its own."""
    rows, cohorts = mapped(settings={"max_payload_bytes": 1_000})
    uid = character * length
    size = len(json.dumps({"uid": uid}, ensure_ascii=False, separators=(",", ":")).encode())
    capacity = cohorts.by_id["s"].capacity
    if size <= capacity:
        assert size == len(change(rows, uid=uid).member.encode())
    else:
        text = f"the member takes {size} bytes, and a request has room for {capacity} "
        assert text + "(max_payload_bytes)" == reason(rows, uid=uid)


@pytest.mark.parametrize(
    ("setting", "mapping"),
    [
        ("uid_column: the stream 's' has no column 'gone'", {"uid_column": "gone"}),
        ("anonymous_id_column: the", {"anonymous_id_column": "gone"}),
        ("membership_column: the", {"membership_column": "gone"}),
        ("cohort_id_column: the", {"cohort_id_column": "gone"}),
        ("cohort_name_column: the", {"cohort_id_column": "id", "cohort_name_column": "gone"}),
        ("deleted_at_column: the", {"deleted_at_column": "gone"}),
        ("membership_column: _sdc_deleted_at always", {"membership_column": "_sdc_deleted_at"}),
        ("uid_column: _SDC_LSN_Deleted_At always", {"uid_column": "_SDC_LSN_Deleted_At"}),
    ],
)
def test_a_mapped_column_must_be_in_a_closed_schema(setting, mapping):
    """If rows cannot have other columns, the error comes with the SCHEMA: it names the setting, the
    stream, the column and the columns there are."""
    with pytest.raises(SettingsError) as raised:
        mapped(columns="uid id _sdc_deleted_at", is_closed=True, **mapping)
    assert str(raised.value).startswith(setting)
    if "always" not in setting:
        assert "missing_column" == raised.value.code
        assert "it has '_sdc_deleted_at', 'id', 'uid'. Set " in str(raised.value)


def test_the_default_uid_column_may_be_missing_beside_an_anonymous_id():
    """Without the default column `uid`, a stream with anonymous IDs is valid."""
    rows, _ = mapped(columns="a", anonymous_id_column="a", is_closed=True)
    assert ("s", ADD, ("a1",), b'{"anonymous_id":"a1"}') == told(change(rows, uid="x", a="a1"))
    assert "no identifier: 'a' is null, empty or absent" == reason(rows)


def test_the_default_uid_column_is_taken_from_rows_that_have_it():
    """A SCHEMA without the default column `uid` permits it in rows, which count."""
    rows, _ = mapped(columns="a", anonymous_id_column="a")
    assert "x" == change(rows, uid="x", a="a1").member.key
    assert ("a1",) == change(rows, a="a1").member.key
    assert {} == rows.undeclared


def test_key_properties_must_be_there():
    """A record without a key property is invalid by the specification; null is permitted."""
    rows, _ = mapped(keys=["uid", "id", "id"])
    assert "u1" == change(rows, uid="u1", id=None).member.key
    for key, row in (("id", {"uid": "u1"}), ("uid", {"id": "x"})):
        with pytest.raises(RowError, match=f"it lacks the key property '{key}'") as raised:
            change(rows, **row)
        assert "missing_key" == raised.value.code


class TestManyCohorts:
    """One stream that populates many cohorts."""

    def test_each_row_goes_to_the_cohort_that_it_names(self):
        """The id is the name unless a column says otherwise; the description goes with all."""
        rows, cohorts = mapped(cohort_id_column="id", cohort_description="d")
        assert ["a", "7", "a"] == [
            change(rows, uid="u", id=cohort).cohort.cohort_id for cohort in ("a", 7, "a")
        ]
        assert [("a", "d", 2), ("7", "d", 1)] == [
            (found.cohort.name, found.cohort.description, found.records)
            for found in cohorts.by_id.values()
        ]

    def test_a_column_may_name_the_cohort(self):
        """With cohort_name_column the segment has the row's name."""
        rows, cohorts = mapped(cohort_id_column="id", cohort_name_column="name")
        change(rows, uid="u", id="a", name="Alpha")
        assert "Alpha" == cohorts.by_id["a"].cohort.name

    @pytest.mark.parametrize(
        ("expected", "cohort_id", "name"),
        [
            ("the column 'id' is null, empty or blank", None, "n"),
            ("the column 'id' is null, empty or blank", " ", "n"),
            ("the column 'id' is a boolean", True, "n"),
            ("the column 'id' is neither text nor a whole number", ["a"], "n"),
            ("the column 'name' is null, empty or blank", "b", None),
        ],
    )
    def test_rows_without_a_good_cohort_are_rejected(self, expected, cohort_id, name):
        """A row without a cohort, or with one that MoEngage would drop, is counted for none."""
        rows, cohorts = mapped(cohort_id_column="id", cohort_name_column="name")
        change(rows, uid="u", id="a", name="Alpha")
        assert expected == reason(rows, uid="u", id=cohort_id, name=name)
        assert ["a"] == [*cohorts.by_id]

    @pytest.mark.parametrize(
        ("code", "name"), [("invalid_cohort_name", "x:y"), ("duplicate_cohort_name", "Alpha")]
    )
    def test_cohorts_that_moengage_would_drop_are_withheld(self, code, name):
        """Their rows are no changes, and they are no cohorts of the run."""
        rows, cohorts = mapped(cohort_id_column="id", cohort_name_column="name")
        change(rows, uid="u", id="a", name="Alpha")
        assert change(rows, uid="u", id="b", name=name) is None
        assert change(rows, uid="v", id="b", name=name) is None
        (withheld,) = cohorts.withheld.cohorts
        assert (code, 2, 0) == (withheld.error.code, withheld.records, withheld.rejected)
        assert ["a"] == [*cohorts.by_id]

    def test_two_names_of_one_cohort(self):
        """From the row with another name on, the cohort is withheld; its rows are counted."""
        rows, cohorts = mapped(cohort_id_column="id", cohort_name_column="name")
        change(rows, uid="u", id="a", name="Alpha")
        assert change(rows, uid="u", id="a", name="B") is None
        assert change(rows, uid="u", id="a", name="Alpha") is None
        cohort = cohorts.by_id["a"]
        assert ("cohort_renamed", 3, 0) == (cohort.error.code, cohort.records, cohort.rejected)

    def test_true_is_not_the_cohort_1(self):
        """Values that are equal in Python are not taken for an id that was seen before."""
        rows, _ = mapped(cohort_id_column="id")
        assert "1" == change(rows, uid="u", id=1).cohort.cohort_id
        assert "the column 'id' is a boolean" == reason(rows, uid="u", id=True)

    def test_another_stream_s_cohort_is_withheld(self):
        """Rows that name the cohort of another stream are dropped; that cohort goes on."""
        first, second, cohorts = mapped("s", "t", cohort_id_column="id")
        change(first, uid="u", id="a")
        assert change(second, uid="u", id="a") is None
        assert change(first, uid="v", id="a") is not None
        (withheld,) = cohorts.withheld.cohorts
        assert ("cohort_of_other_stream", "t") == (withheld.error.code, withheld.mapping.stream)


def test_a_new_schema_keeps_the_counts():
    """A stream that sends another SCHEMA keeps its cohort."""
    config = load(BASE)
    cohorts = cohorts_of(config)
    for columns in ({"uid": {}}, {"uid": {}, "x": {}}):
        schema = Schema("s", {"properties": columns}, [])
        change(RowMapper(config.mapping("s"), schema, cohorts), uid="u")
    assert 2 == cohorts.by_id["s"].records


values = st.sampled_from(["u1", "", None, 7, True, Decimal("2.0"), Decimal("1.5"), ["x"], {}])


@given(st.dictionaries(st.sampled_from(["uid", "a", "m", "id", "key", "_sdc_deleted_at"]), values))
def test_the_fast_way_and_the_sdks_way_agree(record):
    """A record has the same result decoded by roles as from a dict."""
    mapping = {"cohort_id_column": "id", "anonymous_id_column": "a", "membership_column": "m"}
    results = []
    for fast in (True, False):
        rows, _ = mapped(keys=["key"], **mapping)
        reader = Reader()
        reader.expect("s", msgspec.structs.replace(rows.layout, plain=None))
        text = json.dumps({"type": "RECORD", "stream": "s", "record": record}, default=float)
        message = next(reader.messages(io.BytesIO(text.encode()), NEVER))
        assert isinstance(message, Record)
        row = message.record if fast else rows.row(reader.record())
        try:
            results.append(told(change_of(rows, row)))
        except RowError as error:
            results.append(str(error))
    assert results[0] == results[1]


def test_a_row_has_unset_for_what_is_missing():
    """Absent and null are distinguished, because key properties may be null but not absent."""
    rows, _ = mapped(keys=["key"])
    expected = SimpleNamespace(uid=None, deleted_at=UNSET, deleted_at_1=UNSET, key_0=UNSET)
    assert expected == rows.row({"uid": None, "other": 1})
