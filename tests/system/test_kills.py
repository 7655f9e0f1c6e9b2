"""After a kill at any time, no member is wrong, and the next run converges."""

import contextlib
import itertools
import os
import random
import threading
import time
import typing as t

import pytest

from target_moengage_cohort.emulator import Emulator
from tests.support.ledger_places import FolderPlace, ServerPlace
from tests.support.look import held, members
from tests.support.mortal import Mortals
from tests.support.singer import config, lines, record, run, schema, start, state

KILLS = int(os.environ.get("KILLS", "20"))
SEED = int(os.environ.get("SEED", "20261122"))
STRIDE = 4 if KILLS <= 20 else 1
"""The long form, such as `KILLS=100`, kills at every step of the ledger, the short at some."""

FIXED = ("users", "buyers")
FAN = ("fan-1", "fan-2", "fan-3", "fan-4")
COHORTS = (*FIXED, *FAN)
STREAMS = {"users": ("users",), "buyers": ("buyers",), "fan": FAN}
PEOPLE = 1_200
Wanted = dict[str, set[str]]

SETTINGS: dict[str, t.Any] = {
    "sync_mode": "mirror",
    "max_removal_percent": 60,
    "max_payload_bytes": 4_000,
    "cohorts": {
        "users": {"expected_count_column": "n"},
        "buyers": {"expected_count_column": "n"},
        "fan": {"expected_count_column": "n", "cohort_id_column": "cohort"},
    },
}


def everybody(chance: random.Random, wanted: Wanted) -> Wanted:
    """Remove some members of each cohort, and add some."""
    people = [f"user-{number}" for number in range(PEOPLE)]
    share = chance.choice([0.02, 0.2, 0.4])
    return {
        cohort: {*uids} ^ {uid for uid in people if chance.random() < share}
        for cohort, uids in wanted.items()
    }


def messages(chance: random.Random, wanted: Wanted) -> list[dict[str, t.Any]]:
    """Return the messages of a tap, with streams and rows in random order, and STATE at the end."""
    said = []
    for stream in chance.sample(list(STREAMS), len(STREAMS)):
        rows = [(cohort, uid) for cohort in STREAMS[stream] for uid in sorted(wanted[cohort])]
        chance.shuffle(rows)
        said.append(schema(stream, ("uid", "cohort", "n")))
        said += [record(stream, uid=uid, cohort=cohort, n=len(rows)) for cohort, uid in rows]
    return [*said, state({"run": chance.random()})]


def found(emulator: Emulator) -> Wanted:
    return {cohort: t.cast("set[str]", members(emulator, cohort)) for cohort in COHORTS}


def feed(process: t.Any, data: bytes, *, ends: bool) -> threading.Thread:
    """Write the input of a process, whether or not it survives to read it."""

    def write() -> None:
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(data)
            process.stdin.flush()
            if ends:
                process.stdin.close()

    thread = threading.Thread(target=write)
    thread.start()
    return thread


def killed_after(process: t.Any, data: bytes, seconds: float, *, ends: bool) -> tuple[bool, bytes]:
    """Feed a process and kill it; return whether it was still alive, and its STATE."""
    feeder = feed(process, data, ends=ends)
    time.sleep(seconds)
    alive = process.poll() is None
    process.kill()
    feeder.join()
    states = process.stdout.read()
    process.stderr.read()
    process.wait()
    process.stdout.close()
    process.stderr.close()
    with contextlib.suppress(BrokenPipeError):
        process.stdin.close()
    return alive, states


def test_processes_that_are_killed_at_random_times_wrong_nobody(emulator, tmp_path):
    """Promise 5: a mirror killed while it reads, compares, sends or folds has made only permitted
    removals and written no STATE early. A complete run then makes it right."""
    print(f"SEED={SEED}")  # is shown if the test fails
    chance = random.Random(SEED)
    folder = str(tmp_path / "ledger")
    options = {**SETTINGS, "ledger_uri": folder}
    waiting = [
        start(tmp_path / f"home-{number}", config(emulator, **options)) for number in range(2)
    ]
    wanted: Wanted = {cohort: set() for cohort in COHORTS}
    lived = []
    try:
        for number in range(KILLS):
            emulator.latency(chance.choice([0.0, 0.005, 0.02]))
            wanted = everybody(chance, wanted)
            said = messages(chance, wanted)
            ends = chance.random() < 0.85
            length = len(said) if ends else chance.randrange(len(said))
            before = found(emulator)
            waiting.append(start(tmp_path / f"home-{number + 2}", config(emulator, **options)))
            alive, states = killed_after(
                waiting.pop(0), lines(*said[:length]), chance.uniform(0.0, 0.8), ends=ends
            )
            lived.append(alive)
            after = found(emulator)
            for cohort in COHORTS:
                assert after[cohort] - before[cohort] <= wanted[cohort]
                leaving = before[cohort] - wanted[cohort] if ends else set()
                assert before[cohort] - after[cohort] <= leaving
            if states:
                assert ends
                assert wanted == after
            if chance.random() < 0.7:
                wanted = everybody(chance, wanted)
            make_right(emulator, folder, chance, wanted)
    finally:
        for process in waiting:
            process.kill()
            process.communicate()
    assert not [*(tmp_path / "ledger").rglob("spill-*")]
    assert lived.count(True) > KILLS // 2, "most of them had ended before"


def make_right(emulator: Emulator, folder: str, chance: random.Random, wanted: Wanted) -> None:
    """Run to the end, and check that all is right, and that a second run sends nothing."""
    options = {**SETTINGS, "ledger_uri": folder, "max_removal_percent": 100}
    emulator.clear_faults()
    for sends in (None, 0):
        seen = run(emulator, lines(*messages(chance, wanted)), tap_exit=lambda: 0, **options)
        assert seen.error is None
        assert 1 == len(seen.states)
        assert sends in {None, len(seen.attempts)}
        assert wanted == found(emulator)
    assert not any(one.doubts for one in held(emulator, folder).values())


@pytest.fixture(scope="module")
def mortals():
    with Mortals() as running:
        yield running


OLD, NEW = {f"old-{number}" for number in range(30)}, {f"new-{number}" for number in range(30)}
STAYING = {f"staying-{number}" for number in range(60)}
BEFORE, AFTER = STAYING | OLD, STAYING | NEW


class Scene(t.NamedTuple):
    """A run that is killed, after a complete one or as the first of its cohort.

    Attributes:
        settings: The settings of the run.
        is_first: Whether its cohort is new.
        removes: Whether it may remove missing members.
    """

    settings: dict[str, t.Any]
    is_first: bool = False
    removes: bool = True


MIRROR = {"sync_mode": "mirror", "max_payload_bytes": 1_000}
SCENES = {
    "new": Scene({**MIRROR, "max_removal_percent": 50}, is_first=True),
    "known": Scene({**MIRROR, "max_removal_percent": 50}),
    "withheld": Scene({**MIRROR, "max_removal_percent": 10}, removes=False),
    "deferred": Scene({**MIRROR, "removals": "deferred"}, removes=False),
    "incremental": Scene({"sync_mode": "incremental"}),
}


def rows_of(wanted: set[str], gone: set[str], *, mirror: bool) -> bytes:
    rows = [record(uid=uid) for uid in sorted(wanted)]
    if not mirror:
        rows += [record(uid=uid, _sdc_deleted_at="2026-11-22") for uid in sorted(gone)]
    return lines(schema(columns=("uid", "_sdc_deleted_at")), *rows, state({"a": 1}))


@pytest.fixture
def new_place(request):
    """Return places of ledgers, each a new one, of the engine that the test asks for."""
    server = request.getfixturevalue("server") if request.param == "postgresql" else None
    places = []

    def make():
        places.append(FolderPlace() if server is None else ServerPlace(server))
        return places[-1]

    yield make
    for place in places:
        place.close()


ON_SERVER = ["new", "known", "incremental"]


@pytest.mark.parametrize(
    ("scene", "new_place"),
    [
        *((scene, "files") for scene in SCENES.values()),
        *((SCENES[name], "postgresql") for name in ON_SERVER),
    ],
    ids=[*SCENES, *(f"{name} on a server" for name in ON_SERVER)],
    indirect=["new_place"],
)
def test_a_run_that_is_killed_at_each_step_of_the_ledger_wrongs_nobody(
    emulator, mortals, new_place, scene
):
    """Promise 5: a run killed between any two records of the ledger makes no forbidden removal and
    writes no STATE before its plan is settled. The next run converges."""
    mirror = scene.settings["sync_mode"] == "mirror"
    place = new_place()
    whole = {**scene.settings, "ledger_uri": place.uri, "max_removal_percent": 100}
    whole.pop("removals", None)
    wanted, gone = BEFORE, NEW
    for number in itertools.count(1 + [*SCENES.values()].index(scene) % STRIDE, STRIDE):
        if scene.is_first:
            emulator.reset()
            place = new_place()
            whole["ledger_uri"] = place.uri
        else:
            seen = run(emulator, rows_of(wanted, gone, mirror=mirror), tap_exit=lambda: 0, **whole)
            assert seen.error is None
            wanted, gone = (AFTER, OLD) if wanted == BEFORE else (BEFORE, NEW)
        before = members(emulator, "users")
        options = {**scene.settings, "ledger_uri": place.uri}
        data = rows_of(wanted, gone, mirror=mirror)
        death = mortals.run(emulator, data, dies_at=number, **options)
        place.bury()
        assert not death.failure
        after = members(emulator, "users")
        assert after - before <= wanted
        assert before - after <= (gone if scene.removes else set())
        if death.states or not death.killed:
            assert wanted | (set() if scene.removes else before) == after
        seen = run(emulator, data, tap_exit=lambda: 0, **whole)
        assert seen.error is None
        assert wanted == members(emulator, "users")
        kept = held(emulator, place.uri)["users"]
        assert (wanted, {}) == ({*kept.accepted}, kept.doubts)
        if not death.killed:
            break
    assert number > 8
    assert [{"a": 1}] == death.states
