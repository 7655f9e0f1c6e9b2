"""New cohorts of a run: their limit, and those that cannot be created."""

import json

import pytest

from target_moengage_cohort.core.errors import CohortError
from target_moengage_cohort.core.membership import Cohort
from target_moengage_cohort.ledger.engines import open_store
from target_moengage_cohort.settings import load
from target_moengage_cohort.sync.changes import outbox
from tests.support.logs import warnings
from tests.support.look import held
from tests.support.singer import config, lines, record, run, schema, state

COLUMNS = schema(columns=("uid", "cohort"))
MODES = {
    "mirror": {"sync_mode": "mirror"},
    "incremental": {"sync_mode": "incremental"},
    "with members": {"sync_mode": "incremental", "ledger_uri": "ledger"},
}


def rows(stream="users", **cohorts):
    return [record(stream, uid=u, cohort=c) for c, uids in cohorts.items() for u in uids]


def members(emulator, cohort):
    return {uid for uid, _ in emulator.members(cohort)}


@pytest.fixture(params=MODES)
def fan_out(request, emulator, tmp_path):
    """Runs a stream with many cohorts, in each mode."""
    options = dict(MODES[request.param])
    if "ledger_uri" in options:
        options["ledger_uri"] = str(tmp_path / "ledger")

    def go(*messages, **changes):
        mapping = {"cohorts": {"users": {"cohort_id_column": "cohort"}}}
        return run(emulator, lines(COLUMNS, *messages), **mapping, **options | changes)

    return go


def known(emulator, **settings):
    """Return the ids of the cohorts in the store."""
    loaded = load(config(emulator, **settings)).settings
    with open_store(loaded, run_id="look", wait=lambda _: False, read_only=True) as store:
        return {entry.cohort_id for entry in store.entries()}


def test_too_many_new_cohorts_get_nothing(emulator, fan_out):
    """Nothing is sent for new cohorts beyond the limit, nor for those before; the known ones are
    served, STATE waits, and with a higher limit the next run delivers everything."""
    assert fan_out(*rows(old="a"), max_new_cohorts=1).error is None
    data = [*rows(one="1", old="b"), state(1), *rows(two="2", three="3", four="4", one="5")]
    data += [*rows(old="c", five="5" * 9), state(2)]
    seen = fan_out(*data, max_new_cohorts=3)
    assert isinstance(seen.error, CohortError)
    assert ("too_many_new_cohorts", 1) == (seen.error.code, seen.error.exit_code)
    assert "failed" == seen.report.status
    assert {"old"} == {each.body["parameters"]["cohort_id"] for each in seen.attempts}
    assert {"a", "b", "c"} >= members(emulator, "old") >= {"b", "c"}
    assert [] == seen.states
    seen = fan_out(*data, max_new_cohorts=6)
    assert (None, [2]) == (seen.error, seen.states[-1:])
    for cohort, uids in {"one": {"1", "5"}, "two": {"2"}, "four": {"4"}}.items():
        assert uids == members(emulator, cohort)


def test_the_limit_counts_the_cohorts_of_earlier_runs(emulator, fan_out):
    """A second run has as much room as the first one has left in 7 days."""
    assert fan_out(*rows(a="1", b="2"), max_new_cohorts=3).error is None
    assert fan_out(*rows(c="3", a="1", b="2"), max_new_cohorts=3).error is None
    seen = fan_out(*rows(d="4", a="1", b="2", c="3"), max_new_cohorts=3)
    assert "too_many_new_cohorts" == seen.error.code
    assert not members(emulator, "d")


def test_a_dry_run_has_the_same_limit(fan_out):
    """A dry run with too many new cohorts fails, and within the limit it counts them."""
    assert (
        "too_many_new_cohorts"
        == fan_out(*rows(a="1", b="2"), max_new_cohorts=1, dry_run=True).error.code
    )
    seen = fan_out(*rows(a="1", b="2"), max_new_cohorts=2, dry_run=True)
    assert (None, 2) == (seen.error, sum(each.added for each in seen.report.cohorts))


def test_refused_cohorts_are_not_in_the_store(emulator):
    """A run that is refused leaves no trace of its cohorts, so the next one is refused, too."""
    mapping = {"cohorts": {"users": {"cohort_id_column": "cohort"}}, "max_new_cohorts": 1}
    data = lines(COLUMNS, *rows(a="1", b="2"), schema("plain"))
    mapping["cohorts"]["plain"] = {"cohort_id": "plain"}
    for _ in range(2):
        seen = run(emulator, data, **mapping)
        assert "too_many_new_cohorts" == seen.error.code
        assert not known(emulator) & {"a", "b"}


def test_a_long_input_begins_what_it_may_begin(emulator, monkeypatch):
    """When the changes that are held take too much memory, their cohorts begin if they are not too
    many; those that come later are still refused together."""
    monkeypatch.setattr(outbox, "_MOST_HELD", 3)
    monkeypatch.setattr(outbox, "_BATCH", 1)
    mapping = {"cohorts": {"users": {"cohort_id_column": "cohort"}}, "max_new_cohorts": 3}
    data = lines(COLUMNS, *rows(a="123", b="4"), state(1), *rows(c="5", d="6", a="7"), state(2))
    seen = run(emulator, data, piecemeal=True, **mapping)
    assert "too_many_new_cohorts" == seen.error.code
    assert {*"1237"} == members(emulator, "a")
    assert not any(members(emulator, each) for each in "bcd")
    assert [] == seen.states
    assert {"a"} == known(emulator)


def test_a_fixed_cohort_beyond_the_limit_fails_alone(emulator):
    """The stream of a cohort beyond the limit is dropped and holds STATE; the others go on."""
    streams = [schema("one"), record("one", uid="1"), state(1), schema("two"), state(2)]
    data = lines(*streams, record("two", uid="2"), record("one", uid="3"), state(3))
    seen = run(emulator, data, max_new_cohorts=1)
    assert "too_many_new_cohorts" == seen.error.code
    assert ({"1", "3"}, set()) == (members(emulator, "one"), members(emulator, "two"))
    assert [1] == seen.states[-1:]


@pytest.mark.parametrize("mode", ["mirror", "incremental"])
def test_a_taken_name_is_an_error_of_that_cohort_alone(emulator, mode):
    """A fixed cohort or one of many with a name that another cohort has had gets nothing; the other
    cohorts and streams are served, and STATE does not pass its rows."""
    first = lines(schema("first"), record("first", uid="x"))
    assert run(emulator, first, cohorts={"first": {"cohort_name": "Taken"}}).error is None
    cohorts = {
        "one": {"cohort_name": "Taken"},
        "users": {"cohort_id_column": "cohort", "cohort_name_column": "name"},
        "free": {},
    }
    named = schema(columns=("uid", "cohort", "name"))
    many = [record(uid="a", cohort=c, name=n) for c, n in (("m", "Taken"), ("n", "New"))]
    data = [schema("free"), record("free", uid="f"), state(1), schema("one"), named, *many]
    data += [record("one", uid="o"), record("free", uid="g"), state(2)]
    seen = run(emulator, lines(*data), cohorts=cohorts, sync_mode=mode)
    assert isinstance(seen.error, CohortError)
    assert "name_taken" == seen.error.code
    assert {"n", "free"} == {each.body["parameters"]["cohort_id"] for each in seen.attempts}
    assert {"f", "g"} == members(emulator, "free")
    assert [] == [value for value in seen.states if value != 1]


@pytest.mark.parametrize("mode", ["mirror", "incremental"])
def test_a_name_that_another_run_takes_meanwhile_fails_that_cohort_alone(emulator, mode):
    """Of two runs that create cohorts with one name at the same moment, the second run has an error
    of that cohort, and serves its others."""
    options = {"cohorts": {"users": {"cohort_id_column": "cohort"}}, "sync_mode": mode}
    others = []

    def step(name):
        if name == "reserve numbers: committed" and not others:
            other = load(config(emulator)).settings
            others.append(open_store(other, run_id="other", wait=lambda _: False))
            others[0].open_without_members(Cohort("theirs", "one"), "others").sent(None, b"", 0, 1)
            others[0].close()

    data = lines(COLUMNS, *rows(one="1", two="2"), state(1))
    seen = run(emulator, data, step=step, **options)
    assert ("name_taken", 1) == (seen.error.code, seen.error.exit_code)
    assert (set(), {"2"}) == (members(emulator, "one"), members(emulator, "two"))
    assert [] == seen.states
    assert {"theirs", "two"} == known(emulator)


def test_a_name_of_another_partner_is_an_error_that_names_both(emulator):
    """A name or an id that the store has under another partner is refused, naming both."""
    assert run(emulator, lines(schema(), record(uid="a"))).error is None
    for cohort_id, code in (("x", "name_taken"), ("users", "cohort_of_other_partner")):
        mapping = {"cohort_id": cohort_id, "cohort_name": "users"}
        data = lines(schema(), record(uid="a"))
        seen = run(emulator, data, cohorts={"users": mapping}, partner="umbrella")
        assert code == seen.error.code
        assert "'acme'" in str(seen.error)
        assert "'umbrella'" in str(seen.error)


def test_a_cohort_that_was_fed_without_members_and_becomes_a_mirror_warns_once(emulator, caplog):
    """The first run as a mirror warns of members that are unknown, with what is known."""
    assert run(emulator, lines(schema(), record(uid="a"), record(uid="b"))).error is None
    caplog.clear()
    mirror = lines(schema(), record(uid="a"))
    assert run(emulator, mirror, sync_mode="mirror").error is None
    assert [("members_unknown", "users", "users")] == warnings(caplog)
    assert "added 2 and removed 0" in caplog.text
    assert {"a", "b"} == members(emulator, "users")
    caplog.clear()
    assert run(emulator, mirror, sync_mode="mirror").error is None
    assert [] == warnings(caplog)


def test_other_cohorts_of_a_fixed_mapping_are_orphans(emulator, caplog, tmp_path):
    """A fixed mapping touches its own cohort only, and warns of the stream's others."""
    options = {"sync_mode": "mirror", "ledger_uri": str(tmp_path / "ledger")}
    data = lines(COLUMNS, *rows(old="ab", new="c"))
    cohorts = {"users": {"cohort_id_column": "cohort"}}
    assert run(emulator, data, cohorts=cohorts, **options).error is None
    caplog.clear()
    fixed = {"users": {"cohort_id": "new", "cohort_name": "new", "max_removal_percent": 100}}
    seen = run(emulator, lines(schema(), record(uid="d")), cohorts=fixed, **options)
    assert seen.error is None
    assert ("orphan_cohort", "users", "old") in warnings(caplog)
    assert ["new"] == [each.cohort_id for each in seen.report.cohorts]
    assert (
        {"a", "b"} == members(emulator, "old") == held(emulator, options["ledger_uri"])["old"].base
    )
    assert "ledger retire old" in caplog.text
    assert "ledger reassign" not in caplog.text
    moved = fixed | {"others": {"cohort_id": "old"}}
    run(emulator, lines(schema(), record(uid="d")), cohorts=moved, **options)
    assert "ledger reassign old others" in caplog.text


def test_the_report_has_the_error_of_a_cohort(emulator, tmp_path):
    """The report of a run in which one cohort failed has its code."""
    report = tmp_path / "report.json"
    run(emulator, lines(schema(), record(uid="a")), max_new_cohorts=0, report_path=str(report))
    written = json.loads(report.read_text())
    assert ("failed", "too_many_new_cohorts") == (written["status"], written["error"]["code"])
