"""Checks of each run against the model, independent of the target's own decisions."""

import signal
import typing as t
from collections import defaultdict
from dataclasses import dataclass, replace

from target_moengage_cohort.core.membership import Key
from target_moengage_cohort.emulator import Emulator
from tests.support.look import NOTHING, Held, held, members
from tests.support.plans import ADD, Limits, Plan
from tools.soak.model import PREFIX, Model, Position
from tools.soak.runs import Ended
from tools.soak.tap_input import TapInput
from tools.soak.wire import Wire

CONFIRMED = ("users", "fan")
Members = dict[str, set[Key]]


def check(condition: bool, failure: str) -> None:  # noqa: FBT001 - as `assert`
    """Raise an AssertionError unless a condition is true."""
    if not condition:
        raise AssertionError(failure)


@dataclass(frozen=True)
class Expectation:
    """The state before a run, and its permitted and required changes.

    Attributes:
        tap_input: The input.
        members: By cohort, its members.
        known: By cohort, the content of its ledger.
        asked: By cohort and unconfirmed member, the unanswered actions since the member was last
            confirmed; the ledger has only the last of them.
        plans: By cohort, its permitted and required changes.
    """

    tap_input: TapInput
    members: Members
    known: dict[str, Held]
    asked: dict[str, dict[Key, set[str]]]
    plans: dict[str, Plan]


@dataclass(frozen=True)
class Waiting:
    """A run whose removals may be pending.

    Attributes:
        tap_input: Its input.
        percent: The limit of the removal guard.
        known: By cohort, the content of its ledger before the run.
    """

    tap_input: TapInput
    percent: int
    known: dict[str, Held]


class Oracle:
    """Comparison of the emulator, the ledgers and STATE with the model.

    Args:
        model: The model.
        emulator: MoEngage.
        wire: The connection to it.
        ledger_uri: The folder of the ledgers.
        is_late: Whether a change whose sender was cut off may be applied in a later run.
    """

    def __init__(
        self, model: Model, emulator: Emulator, wire: Wire, ledger_uri: str, *, is_late: bool
    ) -> None:
        self._model, self._emulator, self._wire = model, emulator, wire
        self._ledger_uri, self._is_late = ledger_uri, is_late
        self._known: dict[str, Held] = {}
        self._asked: dict[str, dict[Key, set[str]]] = {}

    def before(self, tap_input: TapInput, percent: int | None) -> Expectation:
        """Return the permitted and required changes of a run.

        Args:
            tap_input: Its input.
            percent: The limit of the removal guard; ``None`` if removals are deferred.
        """
        now, plans = self._members(), {}
        for cohort, stream in self._model.cohorts.items():
            mode = self._model.modes[stream]
            if mode == "one_time" and self._model.finished:
                plans[cohort] = Plan(set(), set(), now[cohort])
                continue
            plan = Plan.of(
                cohort,
                stream,
                tap_input,
                now[cohort],
                known=self._known.get(cohort, NOTHING),
                mode="mirror" if mode == "one_time" else mode,
                limits=Limits(None if mode == "one_time" else percent),
            )
            if stream in self._model.history:  # of a member's two changes the first may be sent
                joining = plan.joining | tap_input.ever(cohort, present=True)
                leaving = plan.leaving | tap_input.ever(cohort, present=False)
                plan = plan._replace(joining=joining, leaving=leaving if mode != "add" else set())
            plans[cohort] = plan
        return Expectation(tap_input, now, self._known, self._asked, plans)

    def before_confirm(self, waiting: list[Waiting]) -> Expectation:
        """Return the permitted removals of a confirmation; required if only one run can have any.

        Args:
            waiting: The runs whose removals may be pending.
        """
        now = self._members()
        leaving: dict[str, set[Key]] = {cohort: set() for cohort in now}
        for one in waiting:
            for cohort, pending in self._waiting(one, now).items():
                leaving[cohort] |= pending
        plans = {
            cohort: Plan(set(), leaving[cohort], current - leaving[cohort])
            for cohort, current in now.items()
        }
        return Expectation(TapInput(), now, self._known, self._asked, plans)

    def _waiting(self, one: Waiting, now: Members) -> Members:
        """Return by cohort the members whose removal is pending and permitted by the guard."""
        proven = replace(one.tap_input, proven=dict.fromkeys(one.tap_input.proven, True))
        return {
            cohort: Plan.of(
                cohort,
                stream,
                proven,
                now[cohort],
                known=one.known.get(cohort, NOTHING),
                mode="mirror",
                limits=Limits(one.percent),
            ).leaving
            for stream in CONFIRMED
            for cohort in self._model.streams[stream]
        }

    def after(self, expectation: Expectation, *, delivered: bool) -> None:
        """Check the effect of a run on the cohorts and ledgers.

        Args:
            expectation: Its permitted and required changes.
            delivered: Whether it had to deliver all of it.
        """
        now = self._members()
        for cohort, current in now.items():
            before = expectation.members.get(cohort, set())
            plan = expectation.plans.setdefault(cohort, Plan(set(), set(), before))
            late = self._late(expectation, cohort)
            joined = current - before - plan.joining
            check(not joined - late[True], f"{cohort}: {_some(joined)} joined but must not")
            left = before - current - plan.leaving
            check(not left - late[False], f"{cohort}: {_some(left)} left but must not")
            if delivered:
                self._as_expected(expectation, cohort, current, "after a run that delivers all")
        self._look(now)

    def _late(self, expectation: Expectation, cohort: str) -> dict[bool, set[Key]]:
        """Return the members that an earlier run's requests may add (True) or remove (False)."""
        asked = expectation.asked.get(cohort, {}) if self._is_late else {}
        return {
            joins: {key for key, actions in asked.items() if joins in {a == ADD for a in actions}}
            for joins in (True, False)
        }

    def _as_expected(
        self, expectation: Expectation, cohort: str, current: set[Key], when: str
    ) -> None:
        plan, late = expectation.plans[cohort], self._late(expectation, cohort)
        others = (plan.expected ^ current) - (
            (late[True] | late[False]) - plan.joining - plan.leaving
        )
        check(not others, f"{cohort}: {_some(others)} are wrong {when}")

    def _look(self, now: Members) -> None:
        """Check that the ledgers know all members, and that the cohorts have all confirmed ones."""
        self._known = held(t.cast("Emulator", self._wire), self._ledger_uri)
        before, self._asked = self._asked, {}
        for cohort, known in self._known.items():
            asked = before.get(cohort, {})
            self._asked[cohort] = {
                key: asked.get(key, set()) | {action} for key, action in known.doubts.items()
            }
        for cohort, current in now.items():
            known = self._known.get(cohort, NOTHING)
            strangers = current - known.base
            check(not strangers, f"{cohort}: the ledger does not know {_some(strangers)}")
            missing = known.accepted - known.doubts.keys() - current
            check(not missing, f"{cohort}: {_some(missing)} are only accepted in the ledger")

    def states(self, expectation: Expectation, states: list[dict[str, int]], *, well: bool) -> None:
        """Check that STATE is in order and covers only settled rows; keep the last one."""
        tap_input, now = expectation.tap_input, self._members()
        places = [value["at"] for value in states]
        check(places == sorted(set(places)), f"STATE is out of order: {places}")
        if well and tap_input.states:
            check(places[-1:] == [max(tap_input.states)], f"the last STATE is {places[-1:]}")
        for at in places:
            for cohort, stream in self._model.cohorts.items():
                if stream not in self._model.history:
                    if tap_input.met(stream, at):
                        check(
                            not tap_input.fault, f"STATE {at} passes {stream}, which is incomplete"
                        )
                        self._as_expected(
                            expectation, cohort, now[cohort], f"though STATE {at} is out"
                        )
                    continue
                last = {
                    row.member.key: (place, row.present) for place, row in tap_input.rows(cohort)
                }
                wrong = {
                    key
                    for key, (place, present) in last.items()
                    if place < at and present != (key in now[cohort])
                }
                check(
                    not wrong,
                    f"STATE {at} passes {_some(wrong)} of {cohort}, which are not settled",
                )
        for value in states[-1:]:
            self._model.position = Position(value["events"], value["adds"])

    def equality(self) -> int:
        """Check that every cohort equals the model, without unconfirmed members.

        Returns:
            The number of members compared.
        """
        now = self._members()
        for cohort, current in now.items():
            if cohort.startswith("once"):
                continue  # was finished with the members of its time; `after` checks that they stay
            others = current ^ self._model.wanted[cohort].keys()
            check(not others, f"{cohort}: {_some(others)} differ from the model")
        doubts = {cohort for cohort, known in self._known.items() if known.doubts}
        check(not doubts, f"{doubts} have unconfirmed members after a complete run")
        return sum(map(len, now.values()))

    def process(self, ended: Ended, codes: set[int]) -> Ended:
        """Check the exit code of a process, and that its output contains no secret."""
        check(ended.code in codes, f"exit code {ended.code} instead of one of {sorted(codes)}")
        for secret in (PREFIX, self._wire.data_api_key):
            check(secret not in ended.stderr, "the output contains an identifier or the key")
        # Python itself ends at a SIGINT, with a traceback, until our first import is done.
        is_early = ended.code == -signal.SIGINT and "| INFO " not in ended.stderr
        for fault in ("a fault of this program", "Traceback"):
            check(is_early or fault not in ended.stderr, "it ended with an internal error")
        return ended

    def timestamps(self) -> None:
        """Check that timestamps increase strictly within a cohort, across all runs."""
        latest: dict[str | None, tuple[str, str]] = defaultdict(lambda: ("", ""))
        for request in self._emulator.requests(limit=1_000_000):
            sent = request.timestamp or "", request.digest
            rises = sent[0] > latest[request.cohort_id][0] or sent == latest[request.cohort_id]
            check(rises, f"{request.cohort_id}: the timestamp of request {request.number} is old")
            latest[request.cohort_id] = sent

    def _members(self) -> Members:
        cohorts = {*self._model.cohorts} | {one.cohort_id for one in self._emulator.cohorts()}
        return {cohort: members(self._emulator, cohort) for cohort in sorted(cohorts)}


def _some(keys: t.AbstractSet[Key]) -> str:
    shown = ", ".join(map(str, sorted(keys, key=str)[:3]))
    return f"{len(keys)} members ({shown}, …)"
