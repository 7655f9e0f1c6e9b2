"""A destination's store: its cohorts and their names, versions, and many cohorts at once."""

import sys

import pytest

from target_moengage_cohort.core.errors import LedgerError, RowError, SettingsError
from target_moengage_cohort.core.membership import Cohort
from tests.ledger.support import (
    ADD,
    COHORT,
    OTHER_STREAM,
    PLAN,
    PROGRESS,
    STREAM,
    accept,
    cohort,
    finished,
    flat,
    keep,
    ledgers,
    members,
    process,
    send,
    uids,
)

pytestmark = pytest.mark.contract


def refused(call, kind=SettingsError):
    """Return the code of the error that a call raises."""
    with pytest.raises(kind) as raised:
        call()
    return raised.value.code


def test_a_destination_has_one_store_and_one_key(tmp_path):
    """Digests of equal sets are the same in each run, cohort and stream of a destination, and
    different in another one."""
    digests = []
    for number, workspace in enumerate(("w", "w", "another")):
        with ledgers(tmp_path, setting={"workspace_id": workspace}) as store:
            ledger = store.open(cohort(f"c{number}"), f"s{number}")
            for uid in (1, 2) if number else (2, 1):
                accept(ledger, ADD, members(uid))
            digests.append(ledger.numbers().accepted)
    assert digests[0] == digests[1]
    assert digests[0].count == digests[2].count
    assert digests[0].digest != digests[2].digest


@pytest.mark.parametrize("read_only", [False, True])
def test_another_stream_or_name_is_refused(tmp_path, read_only):
    """A cohort of another stream or with another name is refused with the way out; the right ones
    open afterwards."""
    with ledgers(tmp_path) as store:
        accept(store.open(COHORT, STREAM), ADD, members(1))
    with ledgers(tmp_path, read_only=read_only) as store:
        with pytest.raises(SettingsError) as raised:
            store.open(COHORT, "others")
        assert "cohort_of_other_stream" == raised.value.code
        assert (
            "cohorts.others: the ledger of cohort 'vips' belongs to stream 'vip_users'; to let "
            "'others' populate the cohort from now on, run: moengage-cohort ledger reassign vips "
            "others --config config.json"
        ) == str(raised.value)
        with pytest.raises(SettingsError) as raised:
            store.open(Cohort(COHORT.cohort_id, "Gold"), STREAM)
        assert "cohort_renamed" == raised.value.code
        assert (
            "cohorts.vip_users.cohort_name: the ledger of cohort 'vips' has the name 'VIPs', not "
            "'Gold'; to rename the cohort, run: moengage-cohort ledger rename vips Gold "
            "--config config.json"
        ) == str(raised.value)
        assert "VIPs" == store.open(COHORT, STREAM).entry.name


def test_a_name_is_taken_for_ever_for_that_cohort_alone(tmp_path):
    """A name that another cohort has had, of any partner, stream or run, also before a rename, is
    refused for a new cohort; the others of the stream go on, and the owner keeps it."""
    theirs = {"partner": "other"}
    with ledgers(tmp_path, setting=theirs) as store:
        accept(store.open(Cohort("x", "Theirs"), STREAM), ADD, members(1))
    with ledgers(tmp_path) as store:
        ledger = store.open(Cohort("mine", "Mine"), STREAM)
        accept(ledger, ADD, members(1))
        ledger.rename("Mine, too")
    for read_only in (True, False):
        with ledgers(tmp_path, read_only=read_only) as store:
            for name in ("Theirs", "Mine", "Mine, too"):
                code = refused(lambda name=name: store.open(Cohort("new", name), STREAM), RowError)
                assert "name_taken" == code
            for stream in (STREAM, OTHER_STREAM):
                assert store.open(cohort(stream), stream).numbers().base == 0
            assert 1 == store.open(Cohort("mine", "Mine, too"), STREAM).numbers().base
    with ledgers(tmp_path) as store:
        ledger = store.open(Cohort("mine", "Mine, too"), STREAM)
        ledger.rename("Mine")
        assert "Mine" == store.open(Cohort("mine", "Mine"), STREAM).entry.name


def test_two_new_cohorts_of_a_run_cannot_share_a_name(tmp_path):
    """The second of two new cohorts with one name is refused, although neither has had a request,
    and whichever streams they are of."""
    with ledgers(tmp_path) as store:
        store.open(Cohort("a", "Same"), STREAM)
        for stream in (STREAM, OTHER_STREAM):
            with pytest.raises(RowError) as raised:
                store.open(Cohort("b", "Same"), stream)
            assert "name_taken" == raised.value.code
    with ledgers(tmp_path) as store:
        assert ["a"] == [entry.cohort_id for entry in store.entries()]


def test_a_cohort_cannot_be_renamed_to_a_name_that_is_taken(tmp_path):
    """A rename to a name that another cohort has had is refused, and nothing changes."""
    with ledgers(tmp_path) as store:
        accept(store.open(cohort("other"), STREAM), ADD, members(1))
        ledger = store.open(COHORT, STREAM)
        accept(ledger, ADD, members(1))
        with pytest.raises((RowError, SettingsError)) as raised:
            ledger.rename(cohort("other").name)
        assert "name_taken" == raised.value.code
    with ledgers(tmp_path) as store:
        assert COHORT.name == store.open(COHORT, STREAM).entry.name


def test_two_runs_cannot_give_their_new_cohorts_one_name(tmp_path):
    """Of two runs of different streams that create cohorts with one name at the same time, only one
    sends a request."""
    second = ledgers(tmp_path, run_id="run-2")
    with ledgers(tmp_path) as first:
        new = second.open(Cohort("b", "Same"), OTHER_STREAM)
        accept(first.open(Cohort("a", "Same"), STREAM), ADD, members(1))
        assert "name_taken" == refused(lambda: send(new, ADD, members(1)), LedgerError)
        assert "name_taken" == refused(second.close, LedgerError)
    with ledgers(tmp_path) as store:
        assert ["a"] == [entry.cohort_id for entry in store.entries()]
        assert "name_taken" == refused(
            lambda: store.open(Cohort("b", "Same"), OTHER_STREAM), RowError
        )


def test_a_cohort_of_another_partner_is_refused(tmp_path):
    """A cohort_id that another partner has in the workspace is refused."""
    with ledgers(tmp_path, setting={"partner": "other"}) as store:
        accept(store.open(COHORT, STREAM), ADD, members(1))
    for read_only in (True, False):
        with ledgers(tmp_path, read_only=read_only) as store:
            code = refused(lambda: store.open(Cohort(COHORT.cohort_id, "New"), STREAM))
            assert "cohort_of_other_partner" == code
            assert [] == store.entries()
            assert not store.has(COHORT.cohort_id)


def test_a_new_description_is_noted(tmp_path):
    """The description of a cohort may change, and the store has the latest one."""
    for description in (None, "old", "new"):
        with ledgers(tmp_path) as store:
            store.open(Cohort("vips", "VIPs", description), STREAM)
            assert [description] == [entry.description for entry in store.entries()]


def test_the_store_lists_the_cohorts_of_a_partner(tmp_path):
    """The store lists a partner's cohorts by id, and the error for an unknown id suggests one."""
    with ledgers(tmp_path) as store:
        for cohort_id in ("vips", "buyers"):
            store.open(cohort(cohort_id), STREAM)
        assert store.has("vips")
        assert not store.has("vip")
        assert ["buyers", "vips"] == [entry.cohort_id for entry in store.entries()]
        with pytest.raises(SettingsError) as raised:
            store.open_known("vip")
        assert "no_ledger" == raised.value.code
        assert (
            f"cohort 'vip' of partner 'acme' has no ledger in {store.place}; did you mean 'vips'?"
        ) == str(raised.value)
        assert "buyers" == store.open_known("buyers").entry.cohort_id
    with ledgers(tmp_path, setting={"partner": "other"}) as store:
        assert [] == store.entries()
        assert not store.has("vips")


def test_entries_have_the_numbers_of_the_last_fold(tmp_path):
    """Entries have each cohort's numbers as of the last fold, how many requests came since, and the
    latest timestamp, without the stream's lease."""
    with ledgers(tmp_path) as store, ledgers(tmp_path, read_only=True) as looking:
        ledger = store.open(COHORT, STREAM)
        accept(ledger, ADD, members(1, 2), 5)
        ledger.stream.fold()
        accept(ledger, ADD, members(3), 9)
        send(ledger, ADD, members(4), 11)
        keep(store, store.open(cohort("other"), STREAM), PLAN, [])
        accept(store.open(cohort("other"), STREAM), ADD, members(1))
        for reader in (looking, store):
            other, entry = reader.entries()
            assert (ledger.number, "vips", STREAM, 11) == (
                entry.number,
                entry.cohort_id,
                entry.stream,
                entry.last_timestamp,
            )
            assert (3, 1) == (entry.counts.accepted.count, entry.unfolded)
            assert (0, 1) == (other.counts.accepted.count, other.unfolded)
            assert [False, False] == [entry.is_settled, other.is_settled]
            assert {other.number: [PLAN]} == reader.plans()


def test_a_version_is_new_to_the_first_run_that_sees_it_only(tmp_path):
    """A version is new to the first run of its stream that has seen it, and to no other run."""
    with ledgers(tmp_path) as store:
        assert store.use_version(STREAM, 1)
        assert store.use_version(STREAM, 1)
    with ledgers(tmp_path, run_id="run-2") as store:
        assert not store.use_version(STREAM, 1)
        assert store.use_version("others", 1)
        assert store.use_version(STREAM, 2)
    with ledgers(tmp_path, run_id="run-3") as store:
        assert not store.use_version(STREAM, 2)


def test_a_waiting_plan_expires_when_a_later_run_of_its_stream_begins(tmp_path):
    """A pending plan is void once a later run has begun to read its stream, not another one."""
    with ledgers(tmp_path) as store:
        store.begin(STREAM)
        assert not store.is_void(PLAN)
    with ledgers(tmp_path, run_id="run-2") as store:
        store.begin(OTHER_STREAM)
        assert not store.is_void(PLAN)
        store.begin(STREAM)
        assert store.is_void(PLAN)


MANY = """
import json, os, sys
from pathlib import Path
from tests.ledger.support import *
told = {}
for turn in range(2):
    with ledgers(Path(sys.argv[1])) as store:
        opened = [store.open(cohort(f"c{i}"), STREAM) for i in range(1_000)]
        for i, ledger in list(enumerate(opened))[::50]:
            accept(ledger, ADD, members(i, f"turn-{turn}"))
        told["files"] = len(os.listdir("/proc/self/fd"))
        told["counts"] = [ledger.numbers().accepted.count for ledger in opened[::50]]
        told["others"] = sum(ledger.numbers().base for ledger in opened) - sum(told["counts"])
print(json.dumps(told))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="counts open files in /proc")
def test_many_cohorts_are_open_together(tmp_path):
    """A thousand cohorts of one stream are open with fewer than 64 files, each with its members."""
    told = finished(process(MANY, tmp_path))
    assert told["files"] < 64
    assert ([3] * 20, 0) == (told["counts"], told["others"])


def test_the_progress_of_a_run_ends_with_it(tmp_path):
    """The progress that a run shows is that of a run under way until its store is closed."""
    with ledgers(tmp_path, read_only=True) as looking:
        with ledgers(tmp_path, run_id=PROGRESS.run_id) as store:
            store.open(COHORT, STREAM)
            store.write_progress(PROGRESS)
            assert [PROGRESS] == looking.runs_under_way()
        assert [] == looking.runs_under_way()


def test_each_stream_of_a_run_can_be_closed_alone(tmp_path):
    """A closed stream is free for another run, while its own goes on with other streams."""
    with ledgers(tmp_path) as first, ledgers(tmp_path, run_id="run-2", busy_seconds=0) as second:
        ledger, other = first.open(COHORT, STREAM), first.open(cohort("other"), OTHER_STREAM)
        accept(ledger, ADD, members(1))
        ledger.stream.close()
        assert ["1"] == uids(second.open(COHORT, STREAM).members())
        accept(other, ADD, members(2))
        assert members(2) == flat(other.members())


def test_any_text_is_a_name(tmp_path):
    """Ids, names and streams may have any character, and stay apart."""
    texts = ["a", "a\0", "a\1", "a\0010", "\0\1", "?", "%s", "'", "\\", "ä😀\n"]
    for _ in range(2):
        with ledgers(tmp_path) as store:
            for text in texts:
                store.open(Cohort(text, text, text), text)
            assert sorted(texts) == [entry.name for entry in store.entries()]
            assert sorted(texts) == store.streams()
