"""Whether a run has wronged anybody, worked out without the target's own judgement."""

import typing as t
from collections import defaultdict
from dataclasses import dataclass, replace

from target_moengage_cohort.core.membership import Key
from target_moengage_cohort.emulator import Emulator
from tests.support.look import NOTHING, Held, held, members
from tests.support.plans import ADD, Plan
from tools.soak.given import Given
from tools.soak.runs import Ended
from tools.soak.town import PREFIX, Position, Town
from tools.soak.wire import Wire

CONFIRMED = ("users", "fan")
Members = dict[str, set[Key]]


def check(holds: bool, otherwise: str) -> None:  # noqa: FBT001 - as `assert`
    """Stop unless it holds.

    Raises:
        AssertionError: It doesn't.
    """
    if not holds:
        raise AssertionError(otherwise)


@dataclass(frozen=True)
class Judged:
    """A run before it began: what it reads, who was where, and what it may and must do.

    Attributes:
        given: The input.
        members: By cohort, who was in it.
        known: By cohort, what its ledger held.
        asked: By cohort and by who was in doubt, all that was asked without an answer since they
            were not; the ledger has the last of it.
        plans: By cohort, what may and must become of it.
    """

    given: Given
    members: Members
    known: dict[str, Held]
    asked: dict[str, dict[Key, set[str]]]
    plans: dict[str, Plan]


@dataclass(frozen=True)
class Waiting:
    """A run whose removals may wait.

    Attributes:
        given: What it has read.
        percent: The guard's.
        known: By cohort, what its ledger held before.
    """

    given: Given
    percent: int
    known: dict[str, Held]


class Judge:
    """Compares the emulator, the ledgers and STATE with the model.

    Args:
        town: The model.
        emulator: MoEngage.
        wire: The way to it.
        ledger_uri: The folder of the ledgers.
        is_late: Whether a change whose sender was cut off may be applied in a later run.
    """

    def __init__(
        self, town: Town, emulator: Emulator, wire: Wire, ledger_uri: str, *, is_late: bool
    ) -> None:
        self._town, self._emulator, self._wire = town, emulator, wire
        self._ledger_uri, self._is_late = ledger_uri, is_late
        self._known: dict[str, Held] = {}
        self._asked: dict[str, dict[Key, set[str]]] = {}

    def before(self, given: Given, percent: int | None) -> Judged:
        """What a run may and must do.

        Args:
            given: What it reads.
            percent: The guard's; ``None`` if removals have to wait.
        """
        now, plans = self._members(), {}
        for cohort, stream in self._town.cohorts.items():
            mode = self._town.modes[stream]
            if mode == "one_time" and self._town.sealed:
                plans[cohort] = Plan(set(), set(), now[cohort])
                continue
            plan = Plan.of(
                cohort,
                stream,
                given,
                now[cohort],
                known=self._known.get(cohort, NOTHING),
                mode="mirror" if mode == "one_time" else mode,
                percent=None if mode == "one_time" else percent,
            )
            if stream in self._town.history:  # of whom it reads two changes, the first may be sent
                joining = plan.joining | given.ever(cohort, present=True)
                leaving = plan.leaving | given.ever(cohort, present=False)
                plan = plan._replace(joining=joining, leaving=leaving if mode != "add" else set())
            plans[cohort] = plan
        return Judged(given, now, self._known, self._asked, plans)

    def before_confirm(self, waiting: list[Waiting]) -> Judged:
        """What a confirmation may do, and must do if only one run's removals can be waiting.

        Args:
            waiting: Runs whose removals may wait.
        """
        now = self._members()
        leaving: dict[str, set[Key]] = {cohort: set() for cohort in now}
        for one in waiting:
            for cohort, whom in self._waiting(one, now).items():
                leaving[cohort] |= whom
        plans = {
            cohort: Plan(set(), leaving[cohort], found - leaving[cohort])
            for cohort, found in now.items()
        }
        return Judged(Given(), now, self._known, self._asked, plans)

    def _waiting(self, one: Waiting, now: Members) -> Members:
        """By cohort, whose removal waits that the guard lets go."""
        proven = replace(one.given, proven=dict.fromkeys(one.given.proven, True))
        return {
            cohort: Plan.of(
                cohort,
                stream,
                proven,
                now[cohort],
                known=one.known.get(cohort, NOTHING),
                mode="mirror",
                percent=one.percent,
            ).leaving
            for stream in CONFIRMED
            for cohort in self._town.streams[stream]
        }

    def after(self, judged: Judged, *, delivered: bool) -> None:
        """See what a run did to the cohorts and ledgers.

        Args:
            judged: What it might do.
            delivered: Whether it was to deliver all of it.
        """
        now = self._members()
        for cohort, found in now.items():
            before = judged.members.get(cohort, set())
            plan = judged.plans.setdefault(cohort, Plan(set(), set(), before))
            late = self._late(judged, cohort)
            joined = found - before - plan.joining
            check(not joined - late[True], f"{cohort}: {_some(joined)} joined, who must not")
            left = before - found - plan.leaving
            check(not left - late[False], f"{cohort}: {_some(left)} left, who must not")
            if delivered:
                self._as_expected(judged, cohort, found, "after a run that delivers all")
        self._look(now)

    def _late(self, judged: Judged, cohort: str) -> dict[bool, set[Key]]:
        """Who may join (True) or leave by what an earlier run had sent."""
        asked = judged.asked.get(cohort, {}) if self._is_late else {}
        return {
            joins: {key for key, actions in asked.items() if joins in {a == ADD for a in actions}}
            for joins in (True, False)
        }

    def _as_expected(self, judged: Judged, cohort: str, found: set[Key], when: str) -> None:
        plan, late = judged.plans[cohort], self._late(judged, cohort)
        others = (plan.expected ^ found) - (
            (late[True] | late[False]) - plan.joining - plan.leaving
        )
        check(not others, f"{cohort}: {_some(others)} are not where they belong {when}")

    def _look(self, now: Members) -> None:
        """Whoever is in a cohort is known, and whoever is surely accepted is in it."""
        self._known = held(t.cast("Emulator", self._wire), self._ledger_uri)
        before, self._asked = self._asked, {}
        for cohort, known in self._known.items():
            asked = before.get(cohort, {})
            self._asked[cohort] = {
                key: asked.get(key, set()) | {action} for key, action in known.doubts.items()
            }
        for cohort, found in now.items():
            known = self._known.get(cohort, NOTHING)
            strangers = found - known.base
            check(not strangers, f"{cohort}: the ledger does not know {_some(strangers)}")
            missing = known.accepted - known.doubts.keys() - found
            check(not missing, f"{cohort}: the ledger takes {_some(missing)} for accepted")

    def states(self, judged: Judged, states: list[dict[str, int]], *, well: bool) -> None:
        """See that STATE came in order, and that what it covers is settled; keep the last one."""
        given, now = judged.given, self._members()
        places = [value["at"] for value in states]
        check(places == sorted(set(places)), f"STATE came as {places}")
        if well and given.states:
            check(places[-1:] == [max(given.states)], f"the last STATE is {places[-1:]}")
        for at in places:
            for cohort, stream in self._town.cohorts.items():
                if stream not in self._town.history:
                    if given.met(stream, at):
                        check(not given.fault, f"STATE {at} passes {stream}, which is incomplete")
                        self._as_expected(judged, cohort, now[cohort], f"though STATE {at} is out")
                    continue
                last = {row.member.key: (place, row.present) for place, row in given.rows(cohort)}
                wrong = {
                    key
                    for key, (place, present) in last.items()
                    if place < at and present != (key in now[cohort])
                }
                check(
                    not wrong, f"STATE {at} passes {_some(wrong)} of {cohort}, who are not settled"
                )
        for value in states[-1:]:
            self._town.position = Position(value["events"], value["adds"])

    def equality(self) -> int:
        """See that every cohort is as the model has it, with nobody in doubt.

        Returns:
            How many members were compared.
        """
        now = self._members()
        for cohort, found in now.items():
            if cohort.startswith("once"):
                continue  # which was sealed, as it was then; `after` sees that it stays so
            others = found ^ self._town.wanted[cohort].keys()
            check(not others, f"{cohort}: {_some(others)} differ from the model")
        doubts = {cohort for cohort, known in self._known.items() if known.doubts}
        check(not doubts, f"somebody is in doubt in {doubts} after a complete run")
        return sum(map(len, now.values()))

    def process(self, ended: Ended, codes: set[int]) -> Ended:
        """See that a process ended as one may, and told no secret."""
        check(ended.code in codes, f"exit {ended.code}, and not one of {sorted(codes)}")
        for secret in (PREFIX, self._wire.data_api_key):
            check(secret not in ended.stderr, "it told a member's id or the key")
        for fault in ("a fault of this program", "Traceback"):
            check(fault not in ended.stderr, "it ended by a fault of its own")
        return ended

    def timestamps(self) -> None:
        """See that timestamps rise strictly within a cohort, across all runs."""
        latest: dict[str | None, tuple[str, str]] = defaultdict(lambda: ("", ""))
        for request in self._emulator.requests(limit=1_000_000):
            sent = request.timestamp or "", request.digest
            rises = sent[0] > latest[request.cohort_id][0] or sent == latest[request.cohort_id]
            check(rises, f"{request.cohort_id}: the timestamp of request {request.number} is old")
            latest[request.cohort_id] = sent

    def _members(self) -> Members:
        cohorts = {*self._town.cohorts} | {one.cohort_id for one in self._emulator.cohorts()}
        return {cohort: members(self._emulator, cohort) for cohort in sorted(cohorts)}


def _some(keys: t.AbstractSet[Key]) -> str:
    shown = ", ".join(map(str, sorted(keys, key=str)[:3]))
    return f"{len(keys)} members ({shown}, …)"
