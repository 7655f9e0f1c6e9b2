"""The names of new cohorts, compared with the segments that MoEngage lists."""

import pytest

from target_moengage_cohort.core.commands import suggest
from target_moengage_cohort.delivery.delivery import live_calls
from target_moengage_cohort.emulator import Emulator
from target_moengage_cohort.moengage.filters import all_of
from target_moengage_cohort.moengage.segments import Segments
from target_moengage_cohort.settings import load
from tests.support.apis import all_users
from tests.support.ledger_places import MODES, placed
from tests.support.logs import codes
from tests.support.singer import UNLIMITED, config, lines, record, run, schema, state

COHORTS = {"users": {"cohort_id_column": "cohort"}}
KEY = {"segments_api_key": "demo-key"}


def create(emulator, *names):
    """Create filter segments, which are another tool's."""
    settings = load(config(emulator)).settings
    calls = live_calls(settings, lambda _: False)
    for name in names:
        Segments(calls.send).create(name, all_of(all_users()))
    calls.close()


def listings(emulator):
    return [each.status for each in emulator.apis.calls() if each.endpoint == "list"]


def rows(*cohorts):
    return [record(uid="u", cohort=each) for each in cohorts]


@pytest.fixture(params=MODES)
def fan_out(request, emulator):
    """Runs a stream with many cohorts, in each mode and with each kind of ledger, with a key for
    the Segments API."""
    columns = schema(columns=("uid", "cohort"))
    with placed(request) as mode:
        options = {"cohorts": COHORTS, **KEY, **mode}
        yield lambda *messages, **changes: run(
            emulator, lines(columns, *messages), **options | changes
        )


def sent(seen):
    return {each.body["parameters"]["cohort_id"] for each in seen.attempts}


def test_a_name_that_moengage_has_is_an_error_of_that_cohort_alone(emulator, fan_out):
    """A new cohort with the name of a segment gets nothing, and no STATE passes its rows; the other
    cohorts are served, with a single request to list the segments."""
    create(emulator, "taken")
    seen = fan_out(*rows("taken", "free", "other"), state(1))
    assert ("name_taken", 1, []) == (seen.error.code, seen.error.exit_code, seen.states)
    assert {"free", "other"} == sent(seen)
    assert "adopt taken" in str(seen.error)
    status = {each.cohort_id: each.status for each in seen.report.cohorts}
    assert ("failed", 1) == (status["taken"], len(listings(emulator)))


def test_only_new_cohorts_are_looked_up(emulator, fan_out):
    """Without a new cohort MoEngage is not asked; a known one may have its own name there."""
    assert fan_out(*rows("a", "b")).error is None
    assert 1 == len(listings(emulator))
    assert fan_out(*rows("a", "b")).error is None
    assert 1 == len(listings(emulator))
    assert fan_out(*rows("a", "c")).error is None
    assert 2 == len(listings(emulator))


def test_a_fixed_cohort_fails_alone(emulator, fan_out):
    """The stream of a cohort whose name is taken is dropped, and the other stream is served."""
    create(emulator, "VIP")
    streams = [schema("vip"), record("vip", uid="1"), schema("free"), record("free", uid="2")]
    cohorts = {"vip": {"cohort_name": "VIP"}, "free": {}, "users": COHORTS["users"]}
    seen = fan_out(*streams, cohorts=cohorts)
    assert ("name_taken", {"free"}) == (seen.error.code, sent(seen))


def test_without_the_key_nobody_is_asked(emulator, fan_out):
    """Unless segments_api_key is set, a run asks neither of the other APIs anything, and the cohort
    is created."""
    create(emulator, "taken")
    before = emulator.apis.calls()
    seen = fan_out(*rows("taken"), segments_api_key=None)
    assert (None, {"taken"}, before) == (seen.error, sent(seen), emulator.apis.calls())


@pytest.mark.parametrize("status", [400, 401, 403, 429, 500, None])
def test_an_error_is_unknown_and_no_failure(emulator, caplog, status):
    """If MoEngage cannot list the segments, the run delivers everything, with one warning, and asks
    once only."""
    emulator.apis.drop_next(3) if status is None else emulator.apis.fail_next(status, 3)
    data = lines(schema("a"), record("a", uid="1"), schema("b"), record("b", uid="2"))
    seen = run(emulator, data, **KEY)
    assert (None, {"a", "b"}, 1) == (seen.error, sent(seen), len(listings(emulator)))
    assert ["ledger_created", "segments_unknown"] == codes(caplog)


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_is_named(emulator, caplog, status):
    """If MoEngage refuses the key, the warning names the setting that holds it, the scope that it
    needs, and the command that tries it."""
    emulator.apis.fail_next(status)
    assert run(emulator, lines(schema("a"), record("a", uid="1")), **KEY).error is None
    (warning,) = (
        each.message for each in caplog.records if getattr(each, "code", None) == "segments_unknown"
    )
    scope, command = "the scope Segmentation APIs", suggest("check", "--probe")
    for part in ("the key in segments_api_key", scope, command):
        assert part in warning


def test_a_list_without_cohorts_says_nothing(tmp_path):
    """If MoEngage lists filter segments only, a name that is missing there is not taken for free:
    the run goes on, as without the list."""
    with Emulator(requests_per_minute=UNLIMITED, list_shows="filter") as emulator:
        data = lines(schema(), record(uid="1"))
        assert run(emulator, data, partner="one", ledger_uri=str(tmp_path / "1")).error is None
        seen = run(emulator, data, partner="two", ledger_uri=str(tmp_path / "2"), **KEY)
        assert (None, 1) == (seen.error, len(listings(emulator)))


def test_a_dry_run_says_what_a_run_would(emulator, fan_out):
    """A dry run asks, too, and ends with the error that the run would have."""
    create(emulator, "taken")
    seen = fan_out(*rows("taken", "free"), dry_run=True)
    assert ("name_taken", 1, 0) == (seen.error.code, len(listings(emulator)), len(seen.attempts))


def test_the_segments_of_other_tools_count(tmp_path):
    """From 900 segments in MoEngage a run with new cohorts warns, though the ledger has few."""
    with Emulator(requests_per_minute=UNLIMITED) as emulator:
        many = [record(uid="u", cohort=str(number)) for number in range(897)]
        data = lines(schema(columns=("uid", "cohort")), *many)
        options = {"cohorts": COHORTS, "max_new_cohorts": 1_000, "flush_seconds": 86_400}
        other = str(tmp_path / "other")
        assert run(emulator, data, partner="other", ledger_uri=other, **options).error is None
        own = {"ledger_uri": str(tmp_path / "own"), **KEY}
        for stream, expected in (("a", []), ("b", []), ("c", ["segment_limit"]), ("c", [])):
            seen = run(emulator, lines(schema(stream), record(stream, uid="1")), **own)
            found = [each.code for each in seen.report.warnings if each.code == "segment_limit"]
            assert (None, expected) == (seen.error, found)
