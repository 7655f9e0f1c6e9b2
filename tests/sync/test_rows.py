from __future__ import annotations

import io
import json
from decimal import Decimal
from types import SimpleNamespace

import hypothesis.strategies as st
import pytest
from hypothesis import given
from msgspec import UNSET

from target_moengage_cohort.core.errors import MissingKeyRowError, RowError, SettingsError
from target_moengage_cohort.core.interrupts import Interrupt
from target_moengage_cohort.core.membership import Action
from target_moengage_cohort.settings import load
from target_moengage_cohort.singer.messages import Record
from target_moengage_cohort.singer.reader import Reader
from target_moengage_cohort.sync.cohorts import Cohorts
from target_moengage_cohort.sync.rows import Sink

BASE = {"workspace_id": "ws", "data_api_key": "key", "data_center": "02", "partner": "acme"}
ADD, REMOVE = Action.ADD, Action.REMOVE
NEVER = Interrupt()


def sinks(*streams, columns="uid id name n m a _sdc_deleted_at", keys=(), settings=None, **mapping):
    """A sink for each stream, all of one run, and their destinations."""
    streams = streams or ("s",)
    loaded = load(BASE | (settings or {}) | {"cohorts": dict.fromkeys(streams, mapping)})
    destinations = Cohorts(loaded.settings, lambda _cohort, _mapping: None)
    properties = {column: {} for column in columns.split()}
    made = [Sink(loaded.mapping(name), properties, keys, destinations) for name in streams]
    return *made, destinations


def change(sink, **record):
    return sink.change(sink.row(record))


def reason(sink, **record):
    with pytest.raises(RowError) as raised:
        change(sink, **record)
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
    """A mode says what a record and a deleted record become; skipped ones are counted."""
    sink, destinations = sinks(sync_mode=mode)
    found = change(sink, uid="u1", **record)
    assert expected is (found and found.action)
    destination = destinations.by_id["s"]
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
            "the column 'm' must be a boolean, 0/1, true/false, t/f, yes/no or add/remove",
            {"m": "pl4nt3d"},
        ),
    ],
)
def test_a_membership_column_decides(expected, record):
    """It says who belongs, a deletion outranks it, and anything unclear rejects the row."""
    sink, _ = sinks(membership_column="m")
    if not isinstance(expected, Action):
        assert expected == reason(sink, uid="u1", **record)
    else:
        assert expected is change(sink, uid="u1", **record).action


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
    """The key is the uid if there is one, else the anonymous id; both are sent as they are."""
    sink, _ = sinks(anonymous_id_column="a")
    assert ("s", ADD, key, payload) == told(change(sink, **record))


@pytest.mark.parametrize(
    ("expected", "mapping", "record"),
    [
        ("no identifier: 'uid' is null, empty or absent", {}, {"a": "pl4nt3d"}),
        ("no identifier: 'uid' and 'a' is null, empty or absent", {"anonymous_id_column": "a"}, {}),
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
    """The reason names the column and no value; the row is counted as rejected."""
    sink, destinations = sinks(**mapping)
    assert expected == reason(sink, **record)
    assert (1, 1) == (destinations.by_id["s"].records, destinations.by_id["s"].rejected)


@given(st.integers(1, 1_200), st.sampled_from(["x", "\u20ac", '"']))
def test_a_member_may_be_as_large_as_a_request_has_room(length, character):
    """A member is rejected exactly if its encoded bytes do not fit into a request of its own."""
    sink, destinations = sinks(settings={"max_payload_bytes": 1_000})
    uid = character * length
    size = len(json.dumps({"uid": uid}, ensure_ascii=False, separators=(",", ":")).encode())
    capacity = destinations.by_id["s"].capacity
    if size <= capacity:
        assert size == len(change(sink, uid=uid).member.encode())
    else:
        text = f"the member takes {size} bytes, and a request has room for {capacity} "
        assert text + "(max_payload_bytes)" == reason(sink, uid=uid)


@pytest.mark.parametrize(
    ("setting", "mapping"),
    [
        ("uid_column: the stream 's' has no column 'gone'", {"uid_column": "gone"}),
        ("anonymous_id_column: the", {"anonymous_id_column": "gone"}),
        ("membership_column: the", {"membership_column": "gone"}),
        ("cohort_id_column: the", {"cohort_id_column": "gone"}),
        ("cohort_name_column: the", {"cohort_id_column": "id", "cohort_name_column": "gone"}),
        ("membership_column: _sdc_deleted_at always", {"membership_column": "_sdc_deleted_at"}),
    ],
)
def test_a_mapped_column_must_be_in_the_schema(setting, mapping):
    """The error names the setting, the stream, the column and the columns there are."""
    with pytest.raises(SettingsError) as raised:
        sinks(columns="uid id _sdc_deleted_at", **mapping)
    assert str(raised.value).startswith(setting)
    if "always" not in setting:
        assert str(raised.value).endswith(
            "; it has _sdc_deleted_at, id, uid; name one of these, or select it in the tap"
        )


def test_the_default_uid_column_may_be_missing_beside_an_anonymous_id():
    """Nobody asked for the column `uid`, so a stream of anonymous ids does without it."""
    sink, _ = sinks(columns="a", anonymous_id_column="a")
    assert ("s", ADD, ("a1",), b'{"anonymous_id":"a1"}') == told(change(sink, uid="x", a="a1"))
    assert "no identifier: 'a' is null, empty or absent" == reason(sink)


def test_key_properties_must_be_there():
    """A record that lacks a key property is against the specification; null is not lacking."""
    sink, _ = sinks(keys=["uid", "id", "id"])
    assert "u1" == change(sink, uid="u1", id=None).member.key
    with pytest.raises(MissingKeyRowError, match="it lacks the key property 'id'"):
        change(sink, uid="u1")
    with pytest.raises(MissingKeyRowError, match="'uid'"):
        change(sink, id="x")


class TestManyCohorts:
    """One stream that feeds many cohorts."""

    def test_each_row_goes_to_the_cohort_that_it_names(self):
        """The id is the name unless a column says otherwise; the description goes with all."""
        sink, destinations = sinks(cohort_id_column="id", cohort_description="d")
        assert ["a", "7", "a"] == [
            change(sink, uid="u", id=cohort).cohort.cohort_id for cohort in ("a", 7, "a")
        ]
        assert [("a", "d", 2), ("7", "d", 1)] == [
            (found.cohort.name, found.cohort.description, found.records)
            for found in destinations.by_id.values()
        ]

    def test_a_column_may_name_the_cohort(self):
        """With cohort_name_column the segment's name is the row's."""
        sink, destinations = sinks(cohort_id_column="id", cohort_name_column="name")
        change(sink, uid="u", id="a", name="Alpha")
        assert "Alpha" == destinations.by_id["a"].cohort.name

    @pytest.mark.parametrize(
        ("expected", "cohort_id", "name"),
        [
            ("the column 'id' names no cohort", None, "n"),
            ("the column 'id' names no cohort", " ", "n"),
            ("the column 'id' is a boolean", True, "n"),
            ("the column 'id' is neither text nor a whole number", ["a"], "n"),
            ("the column 'name' names no cohort", "b", None),
            ("the name of the cohort 'b' must not contain ':'", "b", "x:y"),
            ("the cohort 'b' has the name of the cohort 'a'", "b", "Alpha"),
        ],
    )
    def test_rows_without_a_good_cohort_are_rejected(self, expected, cohort_id, name):
        """A row that names no cohort, or one MoEngage would drop, belongs to none."""
        sink, destinations = sinks(cohort_id_column="id", cohort_name_column="name")
        change(sink, uid="u", id="a", name="Alpha")
        assert expected == reason(sink, uid="u", id=cohort_id, name=name)
        assert ["a"] == [*destinations.by_id]

    def test_two_names_of_one_cohort(self):
        """The row with another name is rejected and counted with its cohort."""
        sink, destinations = sinks(cohort_id_column="id", cohort_name_column="name")
        change(sink, uid="u", id="a", name="Alpha")
        assert "cohort 'a' had another name in this run" == reason(sink, uid="u", id="a", name="B")
        assert (2, 1) == (destinations.by_id["a"].records, destinations.by_id["a"].rejected)

    def test_true_is_not_the_cohort_1(self):
        """Values that are equal in Python are not taken for the id that was seen before."""
        sink, _ = sinks(cohort_id_column="id")
        assert "1" == change(sink, uid="u", id=1).cohort.cohort_id
        assert "the column 'id' is a boolean" == reason(sink, uid="u", id=True)

    def test_another_stream_s_cohort_ends_the_run(self):
        """A row that names the cohort of another stream is no row's fault but the settings'."""
        first, second, _ = sinks("s", "t", cohort_id_column="id")
        change(first, uid="u", id="a")
        with pytest.raises(SettingsError, match="'s' and 't' both feed the cohort 'a'"):
            change(second, uid="u", id="a")


def test_a_new_schema_keeps_the_counts():
    """A stream that sends another SCHEMA goes on with the same cohort."""
    loaded = load(BASE)
    destinations = Cohorts(loaded.settings, lambda _cohort, _mapping: None)
    for columns in ({"uid": {}}, {"uid": {}, "x": {}}):
        change(Sink(loaded.mapping("s"), columns, [], destinations), uid="u")
    assert 2 == destinations.by_id["s"].records


values = st.sampled_from(["u1", "", None, 7, True, Decimal("2.0"), Decimal("1.5"), ["x"], {}])


@given(st.dictionaries(st.sampled_from(["uid", "a", "m", "id", "key", "_sdc_deleted_at"]), values))
def test_the_fast_way_and_the_sdks_way_agree(record):
    """A record that the reader decodes by roles means what the same record means as a dict."""
    mapping = {"cohort_id_column": "id", "anonymous_id_column": "a", "membership_column": "m"}
    results = []
    for fast in (True, False):
        sink, _ = sinks(keys=["key"], **mapping)
        reader = Reader()
        reader.expect("s", sink.columns, sink.keys)
        text = json.dumps({"type": "RECORD", "stream": "s", "record": record}, default=float)
        message = next(reader.messages(io.BytesIO(text.encode()), NEVER))
        assert isinstance(message, Record)
        row = message.record if fast else sink.row(reader.record())
        try:
            results.append(told(sink.change(row)))
        except RowError as error:
            results.append(str(error))
    assert results[0] == results[1]


def test_a_row_has_unset_for_what_is_missing():
    """Absent and null are told apart, since key properties may be null but not absent."""
    sink, _ = sinks(keys=["key"])
    expected = SimpleNamespace(uid=None, deleted_at=UNSET, key_0=UNSET)
    assert expected == sink.row({"uid": None, "other": 1})
