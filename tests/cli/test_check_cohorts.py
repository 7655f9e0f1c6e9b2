"""What `moengage-cohort check` says of cohorts, as JSON, and of columns."""

import json

import pytest

from tests.cli.conftest import PLANTED, people
from tests.support.singer import lines, record, schema, state


def checked(desk, *options, text=None):
    """Return the exit code of `check --json`, and what it has written."""
    result = desk.run("check", "--json", *options, text=text)
    return result.exit_code, json.loads(result.stdout)


def failed(found):
    """Return the codes of each check that has failed."""
    checks = {each["name"]: [error["code"] for error in each["errors"]] for each in found["checks"]}
    return {name: codes for name, codes in checks.items() if codes}


def test_the_result_of_a_valid_configuration(desk):
    """The shape is the documented one; a ledger that is found is told from one to be created."""
    desk.raw["cohorts"] = {"users": {"sync_mode": "mirror", "cohort_id": "vip"}}
    code, found = checked(desk)
    assert (0, True, "will_be_created") == (code, found["ok"], found["ledger"]["state"])
    desk.fill("vip", people(1, 2), stream="users", name="users")
    code, found = checked(desk)
    assert (0, [], None) == (code, found["cohorts"], found["columns"])
    assert {"place", "state"} == found["ledger"].keys()
    assert "found" == found["ledger"]["state"]
    assert ["settings", "credentials", "state directory", "ledger"] == [
        each["name"] for each in found["checks"]
    ]
    assert [
        {
            "stream": "users",
            "sync_mode": "mirror",
            "cohort_id": "vip",
            "cohort_name": "users",
            "columns": {"uid": "uid"},
            "members": {"vip": 2},
        }
    ] == found["streams"]


def test_failed_checks_have_codes(desk):
    """Each fault has its code; an unusable ledger is neither found nor to be created."""
    (desk.folder / "file").write_text("")
    desk.raw |= {"data_api_key": "wrong-key", "ledger_uri": str(desk.folder / "file" / "ledger")}
    code, found = checked(desk)
    assert (1, False, "unusable") == (code, found["ok"], found["ledger"]["state"])
    assert {"credentials", "ledger"} == failed(found).keys()


def test_cohorts_that_need_attention_are_in_one_list(desk):
    """Orphans, other names, other streams and other partners are listed with their codes."""
    for cohort, stream in (("gone", "gone"), ("theirs", "other"), ("renamed", "renamed")):
        desk.fill(cohort, people(1, 2), stream=stream)
    desk.raw["partner"] = "elsewhere"
    desk.fill("foreign", people(3))
    desk.fill("second", people(3), name="Taken")
    desk.raw["partner"] = "acme"
    names = ("theirs", "renamed", "foreign", "fresh")
    desk.raw["cohorts"] = {name: {"sync_mode": "mirror"} for name in names}
    desk.raw["cohorts"]["renamed"]["cohort_name"] = "another name"
    desk.raw["cohorts"]["fresh"]["cohort_name"] = "Taken"
    code, found = checked(desk)
    assert (1, False) == (code, found["ok"])
    assert {
        ("gone", "cohort_without_stream", False),
        ("theirs", "cohort_of_other_stream", True),
        ("renamed", "cohort_renamed", True),
        ("foreign", "cohort_of_other_partner", True),
        ("fresh", "name_taken", True),
    } == {(each["cohort_id"], each["code"], each["is_error"]) for each in found["cohorts"]}


def test_an_orphan_is_no_error(desk):
    """A cohort that no stream populates is noted with the way out, and the exit code is 0."""
    desk.raw["cohorts"] = {"vip": {"sync_mode": "mirror"}}
    desk.fill("gone", people(1, 2))
    result = desk.run("check")
    assert (0, "") == (result.exit_code, result.stderr)
    assert "note" in result.stdout
    assert "moengage-cohort empty gone --config" in " ".join(result.stdout.split())
    desk.raw["cohorts"]["gone"] = {"cohort_id_column": "segment", "sync_mode": "mirror"}
    assert (0, []) == (checked(desk)[0], checked(desk)[1]["cohorts"])  # rows may name it
    del desk.raw["cohorts"]
    assert [] == checked(desk)[1]["cohorts"]  # every stream has a cohort of its own name


def test_a_reason_is_inline_without_its_remedy(desk):
    """The list of checks has the reason only; standard error has the remedy, too."""
    desk.raw["data_api_key"] = "wrong-key"
    result = desk.run("check")
    assert "check workspace_id" in " ".join(result.stderr.split())
    assert "FAIL  credentials: MoEngage refused" in result.stdout
    assert "check workspace_id" not in " ".join(result.stdout.split())


def test_a_misspelled_variable_is_seen(desk, monkeypatch):
    """check refuses it like a run."""
    monkeypatch.setenv("TARGET_MOENGAGE_COHORT_MAX_REMOVAL_PERCENTAGE", "5")
    monkeypatch.chdir(desk.folder)
    assert 0 == desk.run("check").exit_code
    path = str(desk.folder / "config.json")
    result = desk.run("check", config_files=[path, "ENV"])
    assert 1 == result.exit_code
    assert "TARGET_MOENGAGE_COHORT_MAX_REMOVAL_PERCENT'?" in result.stderr


# Columns


def catalog(*columns, stream="public-users", deselected=(), selected=True, **names):
    """Return a tap's catalog with a stream."""
    properties = {name: {"type": ["string", "null"]} for name in columns}
    metadata = [{"breadcrumb": [], "metadata": {"selected": selected}}] + [
        {"breadcrumb": ["properties", name], "metadata": {"selected": False}} for name in deselected
    ]
    entry = {"tap_stream_id": stream, "schema": {"properties": properties}, "metadata": metadata}
    return json.dumps({"streams": [entry | names]}, indent=1)


@pytest.fixture
def columns(desk):
    """Try a text as --columns from a file, for a mapping of one stream; return check's results."""

    def run(text, stream="public-users", **mapping):
        desk.raw["cohorts"] = {stream: mapping}
        path = desk.folder / "sample.json"
        path.write_text(text)
        return checked(desk, "--columns", str(path))

    return run


def test_the_columns_of_a_catalog(columns):
    """Columns of a catalog are tried without rows; a missing or deselected one is an error."""
    code, found = columns(catalog("uid", "is_in"), membership_column="is_in")
    assert 0 == code
    assert [
        {
            "stream": "public-users",
            "ok": True,
            "columns": {"uid": "uid", "membership": "is_in"},
            "row": False,
            "code": None,
        }
    ] == found["columns"]
    for text in (
        catalog("uid"),
        catalog("uid", "IS_IN"),
        catalog("uid", "is_in", deselected=["is_in"]),
        catalog("id", "is_in"),
    ):
        code, found = columns(text, membership_column="is_in")
        assert 1 == code
        assert {"columns of 'public-users'": ["missing_column"]} == failed(found)


def test_a_stream_that_the_catalog_lacks(columns):
    """A mapped stream that the tap does not have, or does not select, is an error."""
    for text in (catalog("uid", stream="other"), catalog("uid", selected=False)):
        code, found = columns(text)
        assert 1 == code
        assert ["stream_not_found"] == [each["code"] for each in found["columns"]]
    assert 0 == columns(catalog("uid", stream="db-users", stream_="x"), stream="db-users")[0]


def test_a_row_is_tried_with_its_values(columns):
    """Values that would be rejected are an error; no value is shown."""
    code, found = columns(json.dumps({"uid": PLANTED, "is_in": True}), membership_column="is_in")
    assert (0, True) == (code, found["columns"][0]["row"])
    for row, reason in (
        ({"uid": PLANTED, "is_in": "perhaps"}, "invalid_membership"),
        ({"uid": 1.5, "is_in": True}, "invalid_identifier"),
        ({"uid": None, "is_in": True}, "no_identifier"),
        ({"uid": PLANTED}, "missing_column"),
    ):
        code, found = columns(json.dumps(row, indent=1), membership_column="is_in")
        assert (1, [reason]) == (code, [each["code"] for each in found["columns"]])


def test_a_taps_output_on_standard_input(desk):
    """Of messages, a row of each mapped stream is tried; streams without a row by their SCHEMA."""
    desk.raw["cohorts"] = {"users": {}, "others": {"uid_column": "id"}}
    data = lines(
        state({"a": 1}),
        schema("users"),
        record("users", uid=f"{PLANTED}1"),
        schema("others", columns=("id",), keys=()),
        state({"a": 2}),
    ).decode()
    code, found = checked(desk, "--columns", "-", text=data)
    assert 0 == code, found
    assert {("users", True), ("others", False)} == {
        (each["stream"], each["row"]) for each in found["columns"]
    }


def test_columns_after_stream_maps(columns, desk):
    """The columns are those that stream maps make."""
    desk.raw["stream_maps"] = {"public-users": {"uid": "record['id']"}}
    assert 0 == columns(catalog("id"))[0]
    assert 0 == columns(json.dumps({"id": f"{PLANTED}1"}))[0]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "invalid_sample"),
        ("nonsense", "invalid_sample"),
        ("[1]", "invalid_sample"),
        ("{}", "invalid_sample"),
        ('{"streams": [7]}', "invalid_sample"),
        ('{"streams": [{"tap_stream_id": "a"}]}', "invalid_sample"),
        (
            f'{{"type": "RECORD", "stream": "public-users", "record": "{PLANTED}"}}',
            "invalid_record",
        ),
    ],
)
def test_a_sample_that_is_none(columns, text, reason):
    """Anything else is one error, which quotes nothing of it."""
    code, found = columns(text)
    assert (1, None) == (code, found["columns"])
    assert {"columns": [reason]} == failed(found)


def test_a_sample_that_cannot_be_read_or_placed(desk):
    """A missing file is an error, and so is a row without a stream for several mappings."""
    desk.raw["cohorts"] = {"a": {}, "b": {}}
    _, found = checked(desk, "--columns", str(desk.folder / "missing"))
    assert {"columns": ["unreadable_file"]} == failed(found)
    _, found = checked(desk, "--columns", "-", text='{"uid": "x"}')
    assert {"columns": ["row_without_stream"]} == failed(found)
