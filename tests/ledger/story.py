"""The steps of a ledger's life, for tests that kill the process at each of them."""

import copy
from pathlib import Path

from target_moengage_cohort.core.membership import Member
from target_moengage_cohort.ledger.records import Plan, PlanKind
from tests.ledger.support import ADD, COHORT, REMOVE, STREAM, Changes, State, ledgers, members

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
    desired=1,
    max_removal_percent=10,
)
FORGOTTEN = Member("forget-me-not-uid", "forget-me-not-anonymous")
EVERYONE = [*members(1, 2, 3, 4), Member("u", "a"), FORGOTTEN]

STORY = (
    ("open", None),
    ("sent", (ADD, [*members(1, 2, 3), FORGOTTEN])),
    ("accepted", 0),
    ("sent", (ADD, [Member("u", "a")])),
    ("refused", 1),
    ("sent", (REMOVE, members(2, 4))),
    ("accepted", 2),
    ("fold", None),
    ("sent", (REMOVE, members(3))),
    ("keep", Changes(to_remove=[*members(1), FORGOTTEN])),
    ("fold", None),
    ("forget", [FORGOTTEN]),
    ("rename", "Very important"),
    ("sent", (ADD, members(4))),
    ("close", None),
)


class Teller:
    """A performance of the story on a ledger."""

    def __init__(self, folder: Path, step) -> None:
        self._folder = folder
        self._step = step
        self._numbers: list[int] = []
        self._ledger = None

    def tell(self, position: int) -> None:
        name, value = STORY[position]
        if name == "open":
            self._room = ledgers(self._folder, step=self._step)
            self._ledger = self._room.open(COHORT, STREAM)
        elif name == "sent":
            self._numbers.append(self._ledger.sent(*value, 1))
        elif name in {"accepted", "refused"}:
            getattr(self._ledger, name)(self._numbers[value])
        elif name == "keep":
            self._ledger.keep(PLAN, value, additions=True, removals=True)
        elif name == "close":
            self._room.close()
        elif name == "fold":
            self._ledger.fold()
        else:
            getattr(self._ledger, name)(value)


class Told(State):
    """The expected state after a part of the story."""

    planned: tuple[str, ...] = ()
    cohort_name: str = COHORT.name


def after(count: int) -> Told:
    """Return the expected state after some parts of the story."""
    now, sent = Told(), []
    for name, value in STORY[:count]:
        if name == "sent":
            sent.append(value)
            now.doubts |= {member.key: (value[0], member) for member in value[1]}
        elif name in {"accepted", "refused"}:
            action, whom = sent[value]
            for member in whom:
                now.doubts.pop(member.key)
                if name == "accepted":
                    now.accepted.pop(member.key, None)
                    now.removed.discard(member.key)
                    if action is ADD:
                        now.accepted[member.key] = member
                    else:
                        now.removed.add(member.key)
        elif name == "keep":
            now.planned = tuple(member.uid for member in value.to_remove)
        elif name == "forget":
            now.accepted.pop(FORGOTTEN.key)
            now.planned = tuple(uid for uid in now.planned if uid != FORGOTTEN.uid)
        elif name == "rename":
            now.cohort_name = value
    return copy.deepcopy(now)
