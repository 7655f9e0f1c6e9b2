"""The client of the Segments API, against the emulator."""

import msgspec
import pytest

from target_moengage_cohort.core.commands import suggest
from target_moengage_cohort.core.errors import SettingsError, TargetError, TryAgainError
from target_moengage_cohort.core.membership import Action, Cohort, Member
from target_moengage_cohort.moengage.api_errors import ApiError
from target_moengage_cohort.moengage.cohort_sync import Envelope
from target_moengage_cohort.moengage.filters import (
    all_of,
    attribute_in,
    in_segment,
)
from target_moengage_cohort.moengage.segments import FileSegment, FileSource
from target_moengage_cohort.moengage.transport import Transport
from tests.support.apis import FileServer, any_of, nested

VIP = all_of(attribute_in("uid", ["u1", "u2"]))
OTHERS = any_of(attribute_in("uid", ["u3"]))
SECRET = "member-4711"


@pytest.fixture
def callers(start):
    return start()


@pytest.fixture
def files():
    with FileServer() as server:
        yield server


def sync(callers, *uids, cohort_id="vip", name="VIP users"):
    envelope = Envelope(Cohort(cohort_id, name), "acme", send_timestamp=False)
    members = b",".join(Member(uid).encode() for uid in uids)
    transport = Transport(callers.settings)
    assert 200 == transport.send(envelope.body(Action.ADD, "", members)).status


def as_json(group):
    return msgspec.json.decode(msgspec.json.encode(group))


def code(call, *arguments, **fields):
    with pytest.raises(TargetError) as error:
        call(*arguments, **fields)
    return error.value.code


def test_a_filter_segment_is_created_read_and_updated(callers):
    """What was created is listed with its id, and read and updated by that id."""
    made = callers.segments.create("First", VIP)
    assert [made.id] == [each.id for each in callers.segments.list("First")]
    assert as_json(VIP) == callers.segments.get(made.id).included_filters
    changed = callers.segments.update(made.id, OTHERS, VIP, name="Second")
    assert ("Second", as_json(VIP)) == (changed.name, changed.excluded_filters)
    assert ["Second"] == [each.name for each in callers.segments.list()]
    assert () == callers.segments.list("First")


def test_a_cohort_is_listed_with_the_id_of_a_segment(callers):
    """A cohort has an id of 24 hexadecimal digits, by which it can be read."""
    sync(callers, "u1")
    (cohort,) = callers.segments.list("VIP users")
    assert (24, 0) == (len(cohort.id), len(cohort.id.strip("0123456789abcdef")))
    assert "VIP users" == callers.segments.get(cohort.id).name


def test_where_cohorts_are_not_listed_there_is_none(start):
    """Where MoEngage lists filter segments only, the list is empty, and the id is not found."""
    callers = start(list_shows="filter")
    sync(callers, "u1")
    assert () == callers.segments.list()
    (cohort,) = callers.emulator.apis.segments()
    assert "segment_not_found" == code(callers.segments.get, cohort.id)


def test_one_segment_may_come_as_a_list_of_one(start):
    """Both readings of the documentation are understood."""
    callers = start(details_in_list=True)
    made = callers.segments.create("First", VIP)
    assert made == callers.segments.get(made.id)


def test_a_segment_is_archived_and_unarchived_by_name_or_id(callers):
    """Each is done by name, and by id if there is one, and again without an error."""
    made = callers.segments.create("First", VIP)
    for name in ("First", "First", "another name"):
        callers.segments.archive(name, None if name == "First" else made.id)
        assert [True] == [each.is_archived for each in callers.emulator.apis.segments()]
    for _ in range(2):
        callers.segments.unarchive("First")
        assert [False] == [each.is_archived for each in callers.emulator.apis.segments()]


def test_files_create_and_change_a_segment(callers, files):
    """A file segment has the users of its files, after creation, addition, removal and
    replacement."""
    callers.emulator.apis.know(["u1", "u2", "u3"])
    segments = callers.segments

    def users():
        return [each.users for each in callers.emulator.apis.segments()]

    made = segments.create_file("File", files.source(b"u1\nnobody\n"), 30)
    assert isinstance(made, FileSegment)
    (done,) = files.wait_for_callbacks(1)
    assert ("File", 201) == (done["segment_name"], done["status"])
    assert (2, 2, 1) == (done["values_found"], done["values_processed"], done["user_count"])
    for count, change, content, expected in (
        (2, segments.add_users, b"u2\nu3", 3),
        (3, segments.remove_users, b"u1", 2),
        (4, segments.replace_users, b"u3", 1),
    ):
        assert made == change("wrong", files.source(content), made.id)
        files.wait_for_callbacks(count)
        assert [expected] == users()


@pytest.mark.parametrize(
    "content",
    [b'"u1"', b"u1,u2", b"u1\n\nu2", b"u1\nu1", b"u1\r\n", b"\xff", b"", None],
    ids=str,
)
def test_a_file_that_breaks_a_rule_is_called_back_as_such(callers, files, content):
    """The call is accepted, and its callback has the reason; the segment stays empty."""
    callers.segments.create_file("File", files.source(content), 30)
    (done,) = files.wait_for_callbacks(1)
    assert 400 == done["status"]
    assert done["error_message"]
    assert [0] == [each.users for each in callers.emulator.apis.segments()]


@pytest.mark.parametrize("host", ["127.0.0.1:1", "127.0.0.1:99999", "127.0.0.1:x"])
def test_a_file_that_cannot_be_fetched_is_called_back_as_such(callers, files, host):
    """Neither an address where nobody listens nor one that is none keeps later files from being
    processed; the same goes for callbacks."""
    source = msgspec.structs.replace(files.source(b"u1"), file_url=f"http://{host}/")
    callers.segments.create_file("One", source, 30)
    source = msgspec.structs.replace(files.source(b"u1"), callback_url=f"http://{host}/")
    callers.segments.create_file("Two", source, 30)
    callers.segments.create_file("Three", files.source(b"u1"), 30)
    answers = {each["segment_name"]: each["status"] for each in files.wait_for_callbacks(2)}
    assert {"One": 400, "Three": 201} == answers


def test_values_a_day_are_limited(callers, files):
    """More than two million values in a day are called back as an error; the next day has room."""
    first, more = (b"\n".join(b"%d" % n for n in range(count)) for count in (1_500_000, 500_001))
    callers.segments.create_file("File", files.source(first), 30)
    files.wait_for_callbacks(1)
    callers.segments.replace_users("File", files.source(more))
    files.wait_for_callbacks(2)
    callers.emulator.clock.advance(86_400)
    callers.segments.replace_users("File", files.source(more))
    assert [201, 400, 201] == [each["status"] for each in files.wait_for_callbacks(3)]


REFUSALS = {
    "v3: no such segment": ("segment_not_found", lambda s: s.get("a" * 24)),
    "v3: no id": ("request_refused", lambda s: s.get("vip")),
    "v3: a name that is taken": ("name_exists", lambda s: s.create("First", OTHERS)),
    "v3: an unknown operator": (
        "request_refused",
        lambda s: s.create("x", all_of(attribute_in("uid", ["u"]) | {"operator": "none"})),
    ),
    "v3: a segment that does not exist": (
        "request_refused",
        lambda s: s.create("x", all_of(in_segment("b" * 24, "none"))),
    ),
    "v3: too large": (
        "payload_too_large",
        lambda s: s.create("x", all_of(attribute_in("uid", ["u" * 300_000]))),
    ),
    "v2: no such segment": ("segment_not_found", lambda s: s.archive("none")),
    "v2: no such segment to unarchive": ("segment_not_found", lambda s: s.unarchive("none")),
}


@pytest.mark.parametrize(("expected", "call"), REFUSALS.values(), ids=REFUSALS)
def test_each_refusal_has_a_code(callers, expected, call):
    """Each documented refusal is an `ApiError` with a stable code."""
    callers.segments.create("First", VIP)
    assert expected == code(call, callers.segments)


def test_filters_that_exist_name_the_segment_that_has_them(callers):
    """The error of a 409 has the name and id of the other segment."""
    made = callers.segments.create("First", VIP)
    with pytest.raises(ApiError) as error:
        callers.segments.create("Second", VIP)
    assert ("filters_exist", made.id) == (error.value.code, error.value.existing.id)
    assert "First" == error.value.existing.name


def test_a_refusal_is_told_in_moengage_s_words(callers, files):
    """A refusal quotes what MoEngage says, the segment's name and an error's code included, though
    the addresses in the request have some of the words."""
    source = files.source(b"u1", callback_url=f"{files.url}/moengage-segment-name/token")
    with pytest.raises(ApiError) as error:
        callers.segments.add_users("Staff 2026", source)
    said = "Custom segment not found for the given name or cs_id: Staff 2026"
    assert said in str(error.value)
    callers.emulator.apis.fail_next(403, error_type="ER007", message="the key lacks the scope")
    with pytest.raises(SettingsError) as refused:
        callers.analytics.count([VIP])
    assert "ER007: request: the key lacks the scope" in str(refused.value)
    callers.emulator.apis.fail_next(409, error_type="Forbidden", message="Forbidden")
    with pytest.raises(ApiError) as error:
        callers.segments.get("a" * 24)
    assert 1 == str(error.value).count("Forbidden")


def test_a_cyclic_segment_is_refused(callers):
    """A segment in its own filters, directly or not, is an error."""
    one = callers.segments.create("One", VIP)
    two = callers.segments.create("Two", all_of(nested(all_of(in_segment(one.id, "One")))))
    for each in (one, two):
        filters = all_of(in_segment(each.id, each.name))
        assert "cyclic_segment" == code(callers.segments.update, one.id, filters)


def test_what_is_no_filter_segment_cannot_be_updated(callers, files):
    """A cohort, a file segment and an archived segment are read-only."""
    sync(callers, "u1")
    callers.segments.create_file("File", files.source(b"u1"), 30)
    callers.segments.create("Filter", VIP)
    callers.segments.archive("Filter")
    for each in callers.segments.list():
        assert "segment_read_only" == code(callers.segments.update, each.id, OTHERS)
    assert "segment_not_found" == code(callers.segments.add_users, "VIP users", files.source(b"u"))


def test_a_file_segment_s_name_is_taken_for_all_kinds(callers, files):
    """No segment gets the name of another, whatever their kinds."""
    sync(callers, "u1")
    callers.segments.create_file("File", files.source(b"u1"), 30)
    for name in ("VIP users", "File"):
        assert "name_exists" == code(callers.segments.create, name, OTHERS)
        assert "name_exists" == code(callers.segments.create_file, name, files.source(b"u"), 1)
    sync(callers, "u9", cohort_id="other", name="File")
    assert ["vip"] == [each.cohort_id for each in callers.emulator.cohorts()]


def test_a_full_workspace_is_told_from_a_rate_limit(start):
    """A 429 about the number of segments is final, and has the numbers; archiving makes room."""
    callers = start(max_cohorts=1)
    callers.segments.create("First", VIP)
    with pytest.raises(ApiError) as error:
        callers.segments.create("Second", OTHERS)
    assert ("segment_limit", 1, 1) == (error.value.code, error.value.count, error.value.limit)
    assert [] == callers.waits
    callers.segments.archive("First")
    callers.segments.create("Second", OTHERS)


def test_a_full_workspace_refuses_a_file_segment(start, files):
    """The older version says in another field that there are too many segments."""
    callers = start(max_cohorts=1)
    callers.segments.create("First", VIP)
    assert "segment_limit" == code(callers.segments.create_file, "File", files.source(b"u"), 1)
    callers.segments.archive("First")
    callers.segments.create_file("File", files.source(b"u"), 1)


KEYS = {"segments_api_key": "s-key-55", "analytics_api_key": "a-key-66"}


def test_keys_have_scopes(start):
    """Each API takes its own key, and refuses the others of the workspace by its scope."""
    callers = start(KEYS, **KEYS)
    assert () == callers.segments.list()
    assert callers.analytics.count([VIP])
    callers = start(**KEYS)
    assert "scope_missing" == code(callers.segments.list)
    assert "scope_missing" == code(callers.analytics.count, [VIP])
    assert "scope_missing" == code(callers.segments.archive, "x")


SCOPES = {
    "segments_api_key": "Segmentation APIs",
    "analytics_api_key": "Dashboard & Analyze APIs",
}


@pytest.mark.parametrize("has_own_key", [True, False])
@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_is_named_with_its_scope(start, status, has_own_key):
    """A 401 or a 403 names the setting that holds the key, the scope that it needs, and the command
    that tries it, and shows no key."""
    callers = start(KEYS, **KEYS) if has_own_key else start()
    for call, setting in (
        (callers.segments.list, "segments_api_key"),
        (lambda: callers.segments.archive("x"), "segments_api_key"),
        (lambda: callers.analytics.count([VIP]), "analytics_api_key"),
    ):
        callers.emulator.apis.fail_next(status)
        with pytest.raises(SettingsError) as error:
            call()
        assert {401: "credentials_refused", 403: "scope_missing"}[status] == error.value.code
        held = f"the key in {setting if has_own_key else f'data_api_key ({setting} is not set)'} "
        for part in (held, f"set {setting} to a key", SCOPES[setting], suggest("check", "--probe")):
            assert part in str(error.value)
        for key in ("demo-key", *KEYS.values()):
            assert key not in str(error.value)


def test_a_wrong_key_is_refused(start):
    """MoEngage refuses a key of another workspace for each API."""
    callers = start(dict.fromkeys(KEYS, "wrong-key-77"))
    assert "credentials_refused" == code(callers.segments.list)
    with pytest.raises(SettingsError, match="HTTP 401 ER001: ") as error:
        callers.analytics.count([VIP])
    assert "credentials_refused" == error.value.code


def test_a_page_in_place_of_an_answer_is_a_firewall(callers):
    """A 403 with HTML is not about the key."""
    callers.emulator.apis.fail_next(403, body="<html>no</html>")
    assert "blocked_by_firewall" == code(callers.segments.list)


@pytest.mark.parametrize(
    "body",
    [
        "<html>Not Found</html>",
        "",
        "[]",
        '{"detail": "Not Found"}',
        '{"message": "no Route matched with those values"}',
        '{"error": "Not Found", "path": "/v5/analytics"}',
    ],
)
def test_a_404_that_is_not_moengage_s_is_no_refusal(callers, body):
    """A 404 of a gateway or of another host says nothing of a segment, or of a query."""
    analytics = callers.analytics
    for call, *arguments in (
        (callers.segments.get, "a" * 24),
        (callers.segments.unarchive, "x"),
        (analytics.count, [VIP]),
    ):
        callers.emulator.apis.fail_next(404, body=body)
        assert "unexpected_answer" == code(call, *arguments)


def test_a_404_of_moengage_says_what_is_missing(callers):
    """Each API's own 404 is the refusal of that API."""
    for expected, call, *arguments in (
        ("segment_not_found", callers.segments.get, "a" * 24),
        ("segment_not_found", callers.segments.unarchive, "x"),
        ("query_not_found", callers.analytics.count, [VIP]),
    ):
        callers.emulator.apis.fail_next(404)
        assert expected == code(call, *arguments)


def test_a_database_that_must_be_named(start):
    """Where MOE-DBNAME is required, its absence and a wrong one are errors that name db_name,
    whichever the version of the API."""
    for settings in ({}, {"db_name": "wrong"}):
        callers = start(settings, requires_db_name=True)
        for call, *arguments in ((callers.segments.list,), (callers.segments.archive, "x")):
            with pytest.raises(SettingsError, match="db_name") as error:
                call(*arguments)
            assert "db_name_refused" == error.value.code
    assert () == start({"db_name": "demo-db"}, requires_db_name=True).segments.list()


@pytest.mark.parametrize("field", ["title", "message"])
def test_a_400_about_the_header_s_value_names_db_name(callers, field):
    """Whatever else a 400 says, the header's name in it leads to the setting."""
    body = {field: "Invalid request", "description": "MOE-DBNAME - not valid : demo"}
    callers.emulator.apis.fail_next(400, body=msgspec.json.encode(body).decode())
    assert "db_name_refused" == code(callers.segments.archive, "x")


@pytest.mark.parametrize("body", ["{}", '{"data": 5}', "[]", '{"data": [{"id": 7}]}'])
def test_an_answer_that_is_not_moengage_s_is_an_error(callers, body):
    """A 200 with another body is an error, never an empty list."""
    callers.emulator.apis.fail_next(200, body=body)
    assert "unexpected_answer" == code(callers.segments.list)


@pytest.mark.parametrize("envelope", ["{}", '{{"data": {}}}', '{{"data": [{}]}}'])
def test_a_segment_comes_with_an_envelope_or_without(callers, envelope):
    """Whether MoEngage answers with a segment, or with data that is one or has one, is open."""
    row = {"name": "Berlin", "id": "a" * 24}
    body = envelope.format(msgspec.json.encode(row).decode())
    callers.emulator.apis.fail_next(201, body=body, applied=True)
    created = callers.segments.create("Berlin", all_of(attribute_in("city", ["Berlin"])))
    assert ("a" * 24, "Berlin") == (created.id, created.name)


@pytest.mark.parametrize(
    ("value", "shown"), [(None, ""), (7, "7"), (1.5, "1.5"), ({"by": 1}, ""), ([], "")]
)
def test_one_odd_field_costs_no_list(callers, value, shown):
    """Only name and id are needed: whatever the others are, the segment is there, with text."""
    odd = dict.fromkeys(("created_time", "updated_time", "type", "source", "description"), value)
    odd |= {"included_filters": value, "excluded_filters": value}
    row = {"name": "Odd", "id": "a" * 24, **odd}
    body = msgspec.json.encode({"data": [row, {"name": "Next", "id": "b" * 24}]}).decode()
    callers.emulator.apis.fail_next(200, body=body)
    listed = callers.segments.list()
    assert ["Odd", "Next"] == [each.name for each in listed]
    assert (shown, shown, shown) == (listed[0].created_time, listed[0].type, listed[0].source)
    callers.emulator.apis.fail_next(200, body=msgspec.json.encode({"data": row}).decode())
    details = callers.segments.get("a" * 24)
    assert (shown, value) == (details.updated_time, details.included_filters)


def test_nothing_leaks(callers, caplog):
    """Neither an error nor a line of the log has a key, an identifier or a signed address."""
    caplog.set_level("DEBUG")
    key = callers.settings.data_api_key
    source = FileSource(
        attribute_name="uid",
        file_url="https://files/list.csv?Signature=abcdef",
        callback_url="https://hooks/token-ghijkl",
        emails=("annamaria@mail",),
    )
    members, addresses = f"annamaria {SECRET} {key}", f"{source.file_url} {source.callback_url}"
    filters = all_of(nested(any_of(attribute_in("uid", ["annamaria", SECRET]))))
    shown = []
    for status in (400, 409, 500):
        for quoted, call, *arguments in (
            (members, callers.segments.create, "x", filters),
            (members, callers.analytics.count, [filters]),
            (addresses, callers.segments.create_file, "x", source, 1),
        ):
            callers.emulator.apis.fail_next(status, 20, message=f"bad: {quoted}")
            with pytest.raises(TargetError) as error:
                call(*arguments)
            shown.append(str(error.value))
            callers.emulator.apis.clear_faults()
    shown += [record.getMessage() for record in caplog.records]
    secrets = ("annamaria", SECRET, "abcdef", "ghijkl", key)
    assert not [line for line in shown for secret in secrets if secret in line]


def test_a_segment_is_archived_without_a_run(callers):
    """After 60 days without a run a segment is archived, however often it is synced; a run, or
    unarchiving it, starts the time again."""
    day = 86_400

    def archived():
        return [each.is_archived for each in callers.emulator.apis.segments()]

    sync(callers, "u1")
    callers.emulator.clock.advance(59 * day)
    callers.emulator.apis.run("VIP users")
    callers.emulator.clock.advance(59 * day)
    sync(callers, "u2")
    assert [False] == archived()
    callers.emulator.clock.advance(day)
    assert [True] == archived()
    callers.segments.unarchive("VIP users")
    callers.emulator.clock.advance(59 * day)
    assert [False] == archived()


@pytest.mark.parametrize(("applies", "members"), [(True, 2), (False, 1)])
def test_whether_an_archived_cohort_takes_changes_is_a_switch(start, applies, members):
    """Nobody says whether changes of an archived segment are kept, so the emulator does both."""
    callers = start(applies_to_archived=applies, archive_seconds=10)
    sync(callers, "u1")
    callers.emulator.clock.advance(10)
    sync(callers, "u2")
    assert members == len(callers.emulator.members("vip"))


def test_a_retry_that_finds_its_own_segment_says_so(callers):
    """If the answer to a creation was lost, the refusal of the retry is marked as doubtful."""
    callers.emulator.apis.drop_next(when="after")
    with pytest.raises(ApiError) as error:
        callers.segments.create("First", VIP)
    assert ("name_exists", True) == (error.value.code, error.value.is_doubted)
    with pytest.raises(ApiError) as error:
        callers.segments.create("First", OTHERS)
    assert not error.value.is_doubted


def test_an_unarchive_does_not_wait(callers):
    """Without a permit, a caller that must not wait gets an error at once, and nothing is sent."""
    sync(callers, "u1")
    for _ in range(50):
        callers.hasty.unarchive("VIP users")
    sent = len(callers.emulator.apis.calls())
    with pytest.raises(TryAgainError) as error:
        callers.hasty.unarchive("VIP users")
    assert ("rate_limited", []) == (error.value.code, callers.waits)
    assert sent == len(callers.emulator.apis.calls())
    callers.emulator.clock.advance(63)
    callers.hasty.unarchive("VIP users")
