from __future__ import annotations

import pytest

from tests.support.batches import MAIN_KINDS, Folder
from tests.support.singer import lines, record, run, schema

WAYS = {"RECORD": None, **MAIN_KINDS}
BOTH = ("uid", "device", "note")


def warnings(caplog):
    return [each for each in caplog.records if vars(each).get("code") == "padded_identifiers"]


@pytest.mark.parametrize("kind", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("mode", ["incremental", "mirror"])
@pytest.mark.parametrize(
    "odd", [{}, {"_sdc_deleted_at": "2026-03-04"}], ids=["plain", "one by one"]
)
def test_white_space_is_sent_counted_and_warned_about_once(
    emulator, tmp_path, caplog, kind, mode, odd
):
    """Padded identifiers stay as they are; one warning with its code counts their rows."""
    folder = Folder(tmp_path / "files")
    rows = [
        {"uid": "clean", "device": "d d", "note": " "},
        {"uid": "char(n)  ", "device": "d1", "note": ""},
        {"uid": "u2", "device": "\td2", "note": ""},
        {"uid": "\xa0both", "device": "both\u2003", "note": ""},
        {"uid": None, "device": "d3\n", "note": ""},
        {"uid": "last", "device": "", "note": "", **odd},
    ]
    said = [record(**row) for row in rows] if kind is None else [folder.batch(kind, rows)]
    mapping = {"anonymous_id_column": "device", "sync_mode": mode}
    seen = run(emulator, lines(schema(columns=BOTH), *said), cohorts={"users": mapping})
    assert seen.error is None
    sent = {(one.uid, one.anonymous_id) for one in emulator.members("users")}
    assert {("char(n)  ", "d1"), ("u2", "\td2"), ("\xa0both", "both\u2003")} <= sent
    (warning,) = warnings(caplog)
    assert ("users", "WARNING") == (warning.stream, warning.levelname)
    assert "4 rows have identifiers" in warning.message
    assert "char(n)  " not in warning.message


@pytest.mark.parametrize("kind", WAYS.values(), ids=WAYS)
def test_clean_identifiers_are_not_warned_about(emulator, tmp_path, caplog, kind):
    """White space within an identifier, or in other columns, is nobody's business."""
    folder = Folder(tmp_path / "files")
    rows = [{"uid": "a b", "n": " x "}, {"uid": "c", "n": ""}]
    said = [record(**row) for row in rows] if kind is None else [folder.batch(kind, rows)]
    run(emulator, lines(schema(columns=("uid", "n")), *said), sync_mode="mirror")
    assert [] == warnings(caplog)


def test_each_stream_has_its_own_warning(emulator, caplog):
    """Streams and schemas that follow each other are counted by stream."""
    said = [schema("a"), record("a", uid=" 1"), schema("b"), record("b", uid="2 ")]
    said += [schema("a", ("uid", "more")), record("a", uid="3 ")]
    run(emulator, lines(*said))
    assert ["a", "b"] == [each.stream for each in warnings(caplog)]
    assert "2 rows have" in warnings(caplog)[0].message
    assert "1 row has" in warnings(caplog)[1].message
