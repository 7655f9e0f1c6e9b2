"""Ledgers to test with, and a model of them without tables, journals or files."""

import typing as t
from dataclasses import dataclass, field
from pathlib import Path

from target_moengage_cohort.core.membership import Action, Cohort, Member
from target_moengage_cohort.ledger.duckdb.cohort_ledger import DuckDBLedger
from target_moengage_cohort.ledger.engines import open_store
from target_moengage_cohort.settings import load

ADD, REMOVE = Action.ADD, Action.REMOVE
COHORT = Cohort("vips", "VIPs")
STREAM = "vip_users"


def settings(folder: Path, **changes: t.Any):
    raw = {"workspace_id": "w", "data_api_key": "k", "data_center": 1, "partner": "acme"}
    return load({**raw, "ledger_uri": str(folder), **changes}).settings


def ledgers(folder: Path, *, setting: t.Mapping[str, t.Any] | None = None, **options: t.Any):
    options = {"run_id": "run-1", "wait": lambda _seconds: False, **options}
    room = open_store(settings(folder, **(setting or {})), **options)
    room._engine()  # noqa: SLF001 - it would start only when it is first needed
    return room


def members(*uids: object) -> list[Member]:
    return [Member(uid=str(uid)) for uid in uids]


def flat(chunks: t.Iterable[list]) -> list:
    return [item for chunk in chunks for item in chunk]


@dataclass
class Changes:
    """A difference between a snapshot and a ledger, without a staging."""

    to_add: list[Member] = field(default_factory=list)
    to_remove: list[Member] = field(default_factory=list)
    to_drop: list[Member] = field(default_factory=list)

    def additions(self):
        return iter([self.to_add] if self.to_add else [])

    def removals(self):
        return iter([self.to_remove] if self.to_remove else [])

    def dropped(self):
        return iter([self.to_drop] if self.to_drop else [])


@dataclass
class State:
    """The members of a ledger, by key."""

    accepted: dict = field(default_factory=dict)
    doubts: dict = field(default_factory=dict)
    removed: set = field(default_factory=set)


class Model:
    """Requests and their answers, replayed one after the other for each question."""

    def __init__(self) -> None:
        self.requests: dict[int, tuple[Action, list[Member], str]] = {}

    def sent(self, number: int, action: Action, whom: list[Member]) -> None:
        self.requests[number] = (action, whom, "sent")

    def answered(self, number: int, state: str) -> None:
        self.requests[number] = (*self.requests[number][:2], state)

    def state(self) -> State:
        now = State()
        for _, (action, whom, state) in sorted(self.requests.items()):
            for member in whom:
                key = member.key
                if state == "sent":
                    now.doubts[key] = (action, member)
                elif state == "accepted":
                    now.doubts.pop(key, None)
                    now.accepted.pop(key, None)
                    now.removed.discard(key)
                    if action is ADD:
                        now.accepted[key] = member
                    else:
                        now.removed.add(key)
        return now


def state_of(ledger: DuckDBLedger) -> State:
    """Return what a ledger contains, read from its tables."""
    now = State()
    with ledger.tables() as (cursor, s):
        for row in cursor.execute(f"SELECT uid, anonymous_id FROM {s}.accepted").fetchall():
            member = Member(*row)
            assert member.key not in now.accepted
            now.accepted[member.key] = member
        for action, *row in cursor.execute(
            f"SELECT action, uid, anonymous_id FROM {s}.doubts"
        ).fetchall():
            member = Member(*row)
            assert member.key not in now.doubts
            now.doubts[member.key] = (Action(action), member)
        now.removed = {h for (h,) in cursor.execute(f"FROM {s}.removed").fetchall()}
    return now


def assert_holds(ledger: DuckDBLedger, expected: State, everyone: t.Iterable[Member]) -> None:
    """Check a ledger's tables, numbers and answers against a state."""
    held = state_of(ledger)
    assert expected.accepted == held.accepted
    assert expected.doubts == held.doubts
    assert len(expected.removed) == len(held.removed)
    numbers = ledger.numbers()
    assert len(expected.accepted) == numbers.accepted.count
    assert len(expected.doubts) == numbers.in_doubt
    assert len({*expected.accepted, *expected.doubts}) == numbers.base
    known = ledger.known(list({member.key: member for member in everyone}.values()))
    assert {*expected.accepted, *expected.doubts, *expected.removed} == known.keys()
    for key, found in known.items():
        if key in expected.doubts:
            assert (None, expected.doubts[key][1]) == (found.action, found.member)
        elif key in expected.accepted:
            assert (ADD, expected.accepted[key]) == (found.action, found.member)
        else:
            assert (REMOVE, None) == (found.action, found.member)
