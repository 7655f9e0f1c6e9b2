"""The life of two cohorts' ledgers, for tests that kill the process at each of its steps."""

import copy
import typing as t
from dataclasses import dataclass, field
from pathlib import Path

from target_moengage_cohort.core.membership import Member
from target_moengage_cohort.ledger.records import RequestState
from tests.ledger.support import (
    ADD,
    COHORT,
    OTHER_STREAM,
    PLAN,
    REMOVE,
    STREAM,
    State,
    cohort,
    keep,
    ledgers,
    members,
    send,
)

A, B = COHORT.cohort_id, "buyers"
FORGOTTEN = Member("forget-me-not-uid", "forget-me-not-anonymous")
ALSO_FORGOTTEN = Member(None, FORGOTTEN.anonymous_id)
EVERYONE = [*members(*range(1, 8)), Member("u", "a"), FORGOTTEN, ALSO_FORGOTTEN]

STORY: tuple[tuple[str, str, t.Any], ...] = (
    ("open", A, COHORT),
    ("open", B, cohort(B)),
    ("sent", A, (ADD, [*members(1, 2, 3), FORGOTTEN])),
    ("sent", B, (ADD, [*members(1), ALSO_FORGOTTEN])),
    ("accepted", A, None),
    ("unanswered", B, None),
    ("sent", A, (ADD, [Member("u", "a")])),
    ("refused", A, None),
    ("fold", A, None),
    ("sent", A, (REMOVE, members(2, 4))),
    ("accepted", A, None),
    ("adopt", B, members(5, 6)),
    ("keep", A, members(3)),
    ("fold", A, None),
    ("doubt_all", A, None),
    ("rename", A, "Very important"),
    ("reassign", A, OTHER_STREAM),
    ("forget", A, [FORGOTTEN]),
    ("forget", B, [FORGOTTEN]),
    ("sent", B, (ADD, members(7))),
    ("sent", A, (ADD, members(4))),
    ("seal", B, None),
    ("drop_plans", A, None),
    ("close", A, None),
)


class Teller:
    """A performance of the story on ledgers."""

    def __init__(self, folder: Path, step) -> None:
        self._folder = folder
        self._step = step
        self._numbers: dict[str, int] = {}
        self._store = ledgers(folder, step=step)

    def tell(self, position: int) -> None:
        name, of, value = STORY[position]
        store = self._store
        if name == "open":
            store.open(value, STREAM)
            return
        if name == "close":
            store.close()
            return
        if name == "reassign":
            store.reassign(of, value)
            return
        ledger = store.open_known(of)
        if name == "sent":
            self._numbers[of] = send(ledger, *value)
        elif name in {"accepted", "refused", "unanswered"}:
            ledger.answered(self._numbers[of], RequestState[name.upper()])
        elif name == "keep":
            keep(store, ledger, PLAN, value)
        elif name == "fold":
            ledger.stream.fold()
        elif name == "forget":
            ledger.stream.forget(value)
        elif name == "adopt":
            ledger.adopt([value])
        else:
            getattr(ledger, name)(*([] if value is None else [value]))


@dataclass
class Told(State):
    """The expected state of a cohort after a part of the story."""

    name: str = ""
    stream: str = STREAM
    is_sealed: bool = False
    planned: set = field(default_factory=set)  # the keys of the members that the plan removes


def after(count: int) -> dict[str, Told]:  # noqa: C901 - a case for each part
    """Return the expected state of each cohort after some parts of the story."""
    now = {A: Told(name=COHORT.name), B: Told(name=cohort(B).name)}
    for position, (name, of, value) in enumerate(STORY[:count]):
        told = now[of]
        if name == "sent":
            told.apply(*value, _answer(position, count))
        elif name == "adopt":
            told.apply(ADD, value, "accepted")
        elif name == "doubt_all":
            new = {key: (ADD, m) for key, m in told.accepted.items() if key not in told.doubts}
            told.doubts |= new
        elif name == "keep":
            told.planned = told.accepted.keys() - {member.key for member in value}
        elif name == "drop_plans":
            told.planned = set()
        elif name == "forget":
            for key in (FORGOTTEN.key, ALSO_FORGOTTEN.key):
                told.accepted.pop(key, None)
                told.doubts.pop(key, None)
                told.planned.discard(key)
        elif name == "rename":
            told.name = value
        elif name == "reassign":
            told.stream = value
        elif name == "seal":
            told.is_sealed = True
    return copy.deepcopy(now)


def _answer(position: int, count: int) -> str:
    """Return the answer to a request within some parts of the story."""
    of = STORY[position][1]
    for name, other, _ in STORY[position + 1 : count]:
        if other == of and name in {"accepted", "refused", "unanswered"}:
            return name
        if other == of and name == "sent":
            break
    return "unanswered"
