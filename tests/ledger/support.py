"""Ledgers to test with, and a model of them without tables, requests in doubt or files."""

import copy
import json
import shutil
import subprocess
import sys
import typing as t
from dataclasses import dataclass, field
from pathlib import Path

from target_moengage_cohort.core.membership import Action, Cohort, Member
from target_moengage_cohort.ledger.engines import open_store
from target_moengage_cohort.ledger.records import Plan, PlanKind, RequestState, RunProgress
from target_moengage_cohort.settings import load
from target_moengage_cohort.settings.addresses import state_path
from tests.ledger import databases

ADD, REMOVE = Action.ADD, Action.REMOVE
COHORT = Cohort("vips", "VIPs")
STREAM = "vip_users"
OTHER_STREAM = "other_users"
ROOT = Path(__file__).parents[2]
PLAN = Plan(
    plan_id="plan-1",
    kind=PlanKind.WAITING,
    run_id="run-1",
    stream=STREAM,
    made_at=1.0,
    revision=3,
    base=3,
    additions=0,
    removals=2,
    leaving=2,
    desired=1,
    max_removal_percent=10,
)
PROGRESS = RunProgress(
    run_id="run-of-another",
    pid=1,
    host="h",
    started_at="s",
    streams=["x"],
    records=5,
    accepted=2,
    requests=1,
)


def settings(folder: Path, **changes: t.Any):
    raw = {"workspace_id": "w", "data_api_key": "k", "data_center": 1, "partner": "acme"}
    if "ledger_uri" not in changes:
        raw["ledger_uri"] = databases.uri_of(folder) if databases.is_in_use() else str(folder)
    return load({**raw, **changes}).settings


def ledgers(folder: Path, *, setting: t.Mapping[str, t.Any] | None = None, **options: t.Any):
    options = {"run_id": "run-1", "wait": lambda _seconds: False, **options}
    return open_store(settings(folder, **(setting or {})), **options)


def members(*uids: object) -> list[Member]:
    return [Member(uid=str(uid)) for uid in uids]


def flat(chunks: t.Iterable[list]) -> list:
    return [item for chunk in chunks for item in chunk]


def cohort(name: str) -> Cohort:
    return Cohort(name, name.upper())


def place_of(folder: Path) -> Path:
    """Return the directory of the only destination below a folder."""
    (place,) = (path for path in folder.iterdir() if path.is_dir())
    return place


def copied(folder: Path, name: str) -> Path:
    """Copy a folder as it is now, as a crash would leave it, and return the copy."""
    copy = folder.with_name(f"{folder.name}-{name}")
    if databases.is_in_use():
        databases.copy_database(folder, copy)
        return copy
    return Path(shutil.copytree(folder, copy))


def process(script: str, *arguments: object) -> subprocess.Popen:
    """Start a process that runs a script with some arguments."""
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )


def lose_witnesses() -> None:
    """Forget what the state directory knows of ledgers, as on another machine."""
    for path in state_path().glob("ledger-*.json"):
        path.unlink()


# Requests


def encoded(whom: t.Iterable[Member]) -> bytes:
    return b"[" + b",".join(member.encode() for member in whom) + b"]"


def send(ledger, action: Action, whom: list[Member], timestamp: int = 1) -> int:
    """Record a request that leaves now; no two of its members have the same key."""
    assert len({member.key for member in whom}) == len(whom)
    return ledger.sent(action, encoded(whom), len(whom), timestamp)


def accept(ledger, action: Action, whom: list[Member], timestamp: int = 1) -> None:
    ledger.answered(send(ledger, action, whom, timestamp), RequestState.ACCEPTED)


def uids(chunks: t.Iterable[list[Member]]) -> list[str]:
    return sorted(member.uid or f"({member.anonymous_id})" for member in flat(chunks))


# Comparisons


def stage(store, rows: t.Sequence[tuple[int, Member | str, bool]]):
    """Stage rows of a cohort's number, a member or a uid, and whether that is present."""
    staging = store.staging()
    whom = [Member(member) if isinstance(member, str) else member for _, member, _ in rows]
    staging.append(
        [number for number, _, _ in rows],
        [member.uid for member in whom],
        [member.anonymous_id for member in whom],
        [present for _, _, present in rows],
    )
    return staging


def desired(ledger, whom: t.Iterable[Member | str]) -> list:
    """Return the rows of a cohort that is to have some members."""
    return [(ledger.number, member, True) for member in whom]


def by_cohort(chunks: t.Iterable[tuple[int, list[Member]]]) -> dict[int, list[Member]]:
    """Join the chunks of each cohort, which come by rising numbers."""
    found: dict[int, list[Member]] = {}
    for number, some in chunks:
        assert number >= max(found, default=number)
        found.setdefault(number, []).extend(some)
    return found


def keep(store, ledger, plan: Plan, to_have: t.Iterable[Member | str]) -> None:
    """Keep a plan of the changes after which the cohort has some members."""
    staging = stage(store, desired(ledger, to_have))
    difference = ledger.stream.difference(staging, [ledger])
    ledger.stream.keep([(ledger, plan)], difference)
    staging.close()


def total(difference, name: str) -> int:
    return sum(getattr(counts, name) for counts in difference.counts.values())


# The model


@dataclass
class State:
    """The members of a cohort's ledger, by key; aliases as pairs of key and uid."""

    accepted: dict = field(default_factory=dict)
    doubts: dict = field(default_factory=dict)
    removed: set = field(default_factory=set)
    aliases: set = field(default_factory=set)

    def apply(self, action: Action, whom: t.Sequence[Member], state: str) -> None:
        """Apply a request: it was accepted, or else it is unanswered."""
        if action is ADD and state == "accepted":
            self.link([member for member in whom if member.uid is not None])
        for member in whom:
            if member.uid is None and state == "accepted":
                self.aliases = {pair for pair in self.aliases if pair[0] != member.key}
            key = member.key
            if state == "accepted":
                self.doubts.pop(key, None)
                self.accepted.pop(key, None)
                self.removed.discard(key)
                if action is ADD:
                    self.accepted[key] = member
                else:
                    self.removed.add(key)
            elif state == "unanswered":
                self.doubts[key] = (action, member)

    def adopt(self, whom: t.Iterable[Member]) -> None:
        """Apply an adoption: accepted members, of which those of a uid stay members."""
        formers = []
        for member in whom:
            self.aliases = {pair for pair in self.aliases if pair[0] != member.key}
            before = self.accepted.get(member.key, member).anonymous_id
            if member.uid is not None and before not in {None, member.anonymous_id}:
                formers.append(((before,), member.uid))
        for member in whom:
            self.doubts.pop(member.key, None)
            self.removed.discard(member.key)
            self.accepted[member.key] = member
        self.aliases |= {pair for pair in formers if pair[0] not in self.accepted}

    def link(self, whom: t.Sequence[Member]) -> None:
        """Turn the members that are known beside one of these uids now, or were, into aliases."""
        new = {((m.anonymous_id,), m.uid) for m in whom if m.anonymous_id is not None}
        there = {*self.accepted, *self.doubts, *(key for key, _ in self.aliases)}
        new = {pair for pair in new if pair[0] in there}
        self.aliases |= new
        for key, _ in new:
            self.doubts.pop(key, None)
        for member in whom:
            before = self.accepted.get(member.key, member).anonymous_id
            is_own = (before,) in self.accepted or (before,) in self.removed
            if before not in {None, member.anonymous_id} and not is_own:
                self.aliases.add(((before,), member.uid))


class Model:
    """The requests of one cohort and their answers, replayed for each question."""

    def __init__(self) -> None:
        self.requests: dict[int, tuple[Action, list[Member], str]] = {}

    def sent(self, number: int, action: Action, whom: list[Member]) -> None:
        assert number > max(self.requests, default=0)
        self.requests[number] = (action, whom, "sent")

    def answered(self, number: int, state: str) -> None:
        self.requests[number] = (*self.requests[number][:2], state)

    def died(self) -> "Model":
        """Return the model after the process died: what was in flight is unanswered."""
        after = copy.deepcopy(self)
        for number, (_, _, state) in self.requests.items():
            if state == "sent":
                after.answered(number, "unanswered")
        return after

    def state(self) -> State:
        now = State()
        for _, (action, whom, state) in sorted(self.requests.items()):
            now.apply(action, whom, state)
        return now


def assert_holds(ledger, expected: State, everyone: t.Iterable[Member]) -> None:
    """Check a ledger's members, numbers and answers against a state; nothing is queued."""
    numbers = ledger.numbers()
    others = {key: m for key, (_, m) in expected.doubts.items() if key not in expected.accepted}
    assert len(expected.accepted) == numbers.accepted.count
    assert len(expected.doubts) == numbers.in_doubt
    assert len(expected.accepted) + len(others) == numbers.base
    held = flat(ledger.members())
    assert len(held) == numbers.base
    assert expected.accepted | others == {member.key: member for member in held}
    aliases = flat(ledger.aliases())
    assert len(aliases) == len({*aliases})
    only = {key for key, _ in expected.aliases} - {*expected.accepted, *expected.doubts}
    assert only == {member.key for member in aliases}
    for uid in {member.uid for member in everyone} - {None}:
        own = {member.key for member in ledger.find([Member(uid)]) if member.uid is None}
        assert own == {key for key, owner in expected.aliases if owner == uid}
    doubts = flat(ledger.doubts())
    assert len(doubts) == numbers.in_doubt
    assert expected.doubts == {member.key: (action, member) for action, member in doubts}
    asked = list({member.key: member for member in everyone}.values())
    known = ledger.stream.known([ledger.number] * len(asked), asked)
    keys = {*expected.accepted, *expected.doubts, *expected.removed}
    keys |= {key for key, _ in expected.aliases}
    assert {(ledger.number, key) for key in keys} == known.keys()
    linked = {key for key, _ in expected.aliases}
    for (_, key), found in known.items():
        if key in expected.doubts:
            assert (None, expected.doubts[key][1]) == (found.action, found.member)
        elif key in expected.accepted and key not in linked:
            assert (ADD, expected.accepted[key]) == (found.action, found.member)
        else:
            assert (REMOVE, None) == (found.action, found.member)


def finished(done: subprocess.Popen, *, timeout: float = 300) -> t.Any:
    """Wait for a process that prints JSON as its last line; return that."""
    out, err = done.communicate(timeout=timeout)
    assert done.returncode == 0, err
    return json.loads(out.splitlines()[-1])
