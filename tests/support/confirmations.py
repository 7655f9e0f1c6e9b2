"""Calls of `moengage-cohort confirm`, and a model of what each may and must do."""

import json
import typing as t
from dataclasses import dataclass, field
from pathlib import Path

from click.testing import CliRunner

from target_moengage_cohort.cli import cli
from target_moengage_cohort.cli.session import SessionTiming
from target_moengage_cohort.core.membership import Key
from target_moengage_cohort.emulator import Emulator
from target_moengage_cohort.ledger.records import PlanKind
from tests.support.look import NOTHING, Held
from tests.support.plans import Offer, Plan
from tests.support.singer import config

MOST_SECONDS = 3_600  # between a run and its confirmation


class Expected(t.NamedTuple):
    """The effect of a confirmation.

    Attributes:
        joining: By cohort, the members that may join.
        leaving: By cohort, the members that may leave.
        codes: The possible exit codes.
        seals: The cohorts that may be finished.
        is_sure: Whether an exit code other than 1 means that all of it is done.
    """

    joining: dict[str, set[Key]]
    leaving: dict[str, set[Key]]
    codes: set[int]
    seals: set[str]
    is_sure: bool


@dataclass
class Confirmations:
    """The plans of earlier runs that may still be confirmed.

    Attributes:
        pending: By stream, the parts of its runs that may wait, each by cohort.
        sure: The time of the run whose parts wait for certain, by stream.
        withheld: By plan, its cohort and content.
        ready: The withheld plans that can be delivered for certain.
        outdated: The withheld plans that must not be delivered any more.
        approved: By cohort, the plan that a person has approved, and until when.
    """

    pending: dict[str, list[dict[str, Offer]]] = field(default_factory=dict)
    sure: dict[str, float] = field(default_factory=dict)
    withheld: dict[str, tuple[str, Offer]] = field(default_factory=dict)
    ready: set[str] = field(default_factory=set)
    outdated: set[str] = field(default_factory=set)
    approved: dict[str, tuple[str, float]] = field(default_factory=dict)

    def approved_of(self, cohort: str, now: float) -> frozenset[Key]:
        """Return the members of a cohort whose removal is approved."""
        plan_id, until = self.approved.get(cohort, (None, now))
        return self.withheld[plan_id][1].leaving if until > now else frozenset()

    def note_approved(self, plan_id: str, now: float) -> None:
        """Note that a person has approved a plan, which could not be delivered for certain."""
        cohort, offer = self.withheld[plan_id]
        assert plan_id not in self.ready, f"{cohort}: {plan_id} must be delivered"
        assert offer.leaving, f"{cohort}: {plan_id} has no removals"
        self.approved[cohort] = plan_id, now + 86_400

    def _note_used(
        self, cohort: str, plan: Plan, known: Held, held: Held, now: float, *, well: bool
    ) -> None:
        """Note whether a run has used an approval; it must have if it removed its members."""
        approved = self.approved_of(cohort, now)
        used = plan.leaving & approved
        # What did not end well may have used it, and another one may not have noted that yet.
        is_spent = not approved & {*known.base, *(key for key, _ in known.aliases)}
        if cohort in self.approved and held.approved != self.approved[cohort][0]:
            assert used or is_spent, f"{cohort}: an approval ended without use"
            del self.approved[cohort]
        elif used:
            assert not well, f"{cohort}: an approval is still there after its use"

    def note_run(
        self,
        plans: t.Mapping[str, tuple[str, Plan]],
        known: t.Mapping[str, Held],
        held: t.Mapping[str, Held],
        now: float,
        *,
        well: bool,
        read_all: bool,
    ) -> None:
        """Note the plans that a run may have kept.

        Args:
            plans: By cohort, its stream and its plan, of the streams that the input has.
            known: The contents of the ledger before.
            held: Its contents afterwards.
            now: The time of the run.
            well: Whether it succeeded.
            read_all: Whether it certainly read all of its input.
        """
        by_stream: dict[str, dict[str, Offer]] = {}
        for cohort, (stream, plan) in plans.items():
            offers = by_stream.setdefault(stream, {})
            if plan.waiting is not None and cohort in held:
                offers[cohort] = plan.waiting
        for stream, offers in by_stream.items():
            self.sure.pop(stream, None)
            if read_all:
                self.pending[stream] = []
            if offers:
                self.pending.setdefault(stream, []).append(offers)
                if well:
                    self.sure[stream] = now
        for cohort, (_, plan) in plans.items():
            if cohort in held:
                before = known.get(cohort, NOTHING)
                self._note_used(cohort, plan, before, held[cohort], now, well=well)
                self._note_withheld(cohort, plan, held[cohort], well=well)

    def _note_withheld(self, cohort: str, plan: Plan, held: Held, *, well: bool) -> None:
        listed = {one.plan_id for one in held.plans if one.kind is PlanKind.WITHHELD}
        self.ready -= {name for name, (owner, _) in self.withheld.items() if owner == cohort}
        for name in listed if well and plan.is_snapshot else listed - self.withheld.keys():
            assert plan.withheld is not None, f"{cohort}: a plan is withheld that needs not be"
            self.withheld[name] = cohort, plan.withheld
        if well and plan.is_snapshot:
            assert (plan.withheld is not None) == len(listed), f"{cohort}: {listed} are withheld"
            self.ready |= listed
            self.outdated -= listed
            waiting = [one for one in held.plans if one.kind is PlanKind.WAITING]
            offers = [] if plan.waiting is None else [plan.waiting]
            counts = [len(one.leaving) for one in offers], [one.removals for one in waiting]
            assert counts[0] == counts[1], f"{cohort}: {counts[1]} removals wait, not {counts[0]}"
        elif plan.withheld is not None:
            self.outdated -= listed  # it may have withheld the same changes again before it failed

    def outdate(self, cohorts: t.Collection[str], streams: t.Mapping[str, str]) -> None:
        """Note that something else may have changed some cohorts."""
        for cohort in cohorts:
            self.sure.pop(streams[cohort], None)
        self.ready -= {name for name, (owner, _) in self.withheld.items() if owner in cohorts}

    def refuse(self, cohorts: t.Collection[str], streams: t.Mapping[str, str]) -> None:
        """Note that a command has changed some cohorts, so that their plans are outdated."""
        self.outdate(cohorts, streams)
        self.outdated |= {name for name, (owner, _) in self.withheld.items() if owner in cohorts}
        for cohort in cohorts:
            if all(cohort in offers for offers in self.pending.get(streams[cohort], [])):
                self.pending[streams[cohort]] = []  # one outdated plan stops those of the stream

    def of_streams(
        self, streams: t.Sequence[str], now: float, *, fails: bool, sealed: t.Collection[str]
    ) -> Expected:
        """Return the effect of the confirmation of some streams."""
        leaving: dict[str, set[Key]] = {}
        seals: set[str] = set()
        for offers in (each for stream in streams for each in self.pending.get(stream, ())):
            for cohort, offer in offers.items():
                leaving.setdefault(cohort, set())
                leaving[cohort] |= offer.leaving if offer.is_allowed else set()
                seals |= {cohort} if offer.seals else set()
        is_sure = all(abs(now - self.sure.get(each, -1e9)) <= MOST_SECONDS for each in streams)
        offers = [o for stream in streams for o in self.pending.get(stream, [{}])[-1:]]
        is_allowed = all(one.is_allowed for each in offers for one in each.values())
        codes = {0, 1, 3}
        if is_sure:
            codes = {0 if is_allowed else 3} | ({1} if fails else set())
        elif not all(self.pending.get(stream) or stream in sealed for stream in streams):
            codes = {1}
        return Expected({}, leaving, codes, seals, is_sure)

    def of_withheld(self, plan_id: str, held: t.Mapping[str, Held], *, fails: bool) -> Expected:
        """Return the effect of the release of a withheld plan."""
        cohort, offer = self.withheld[plan_id]
        listed = {one.plan_id for one in held[cohort].plans if one.kind is PlanKind.WITHHELD}
        codes = {0, 1}
        if plan_id in self.ready:
            codes = {0, 1} if fails else {0}
        elif plan_id not in listed - self.outdated:  # it may be approved, and not be delivered
            return Expected({}, {}, codes, set(), is_sure=True)
        return Expected(
            {cohort: {*offer.joining}}, {cohort: {*offer.leaving}}, codes, set(), is_sure=True
        )

    def note_confirmed(
        self, streams: t.Sequence[str], held: t.Mapping[str, Held], *, well: bool
    ) -> None:
        """Note a confirmation of some streams, in which the guard may have withheld plans."""
        for stream in streams:
            self.sure.pop(stream, None)
            pending = self.pending.get(stream, [])
            for cohort in {cohort for offers in pending for cohort in offers}:
                if held[cohort].approved is None:
                    self.approved.pop(cohort, None)
                offers = [each[cohort] for each in pending if cohort in each]
                for one in held[cohort].plans:
                    if one.kind is PlanKind.WITHHELD and one.plan_id not in self.withheld:
                        refused = [o for o in offers if not o.is_allowed]
                        refused = [o for o in refused if len(o.leaving) == one.removals]
                        assert refused, f"{cohort}: the guard withholds too much"
                        self.withheld[one.plan_id] = cohort, refused[-1]
            if well:
                self.pending.pop(stream, None)


def call_confirm(
    emulator: Emulator, folder: Path, settings: dict[str, t.Any], *arguments: str, clock: float
) -> tuple[int, bool]:
    """Run the command in this process; return its exit code, and whether it approved a plan."""
    path = folder / "config.json"
    path.write_text(json.dumps(config(emulator, **settings)))
    timing = SessionTiming(clock=lambda: clock, busy_seconds=1.0)
    result = CliRunner().invoke(
        cli, ["confirm", *arguments, "--config", str(path)], obj=timing, prog_name="moengage-cohort"
    )
    assert result.exception is None or isinstance(result.exception, SystemExit), result.output
    assert "Traceback" not in result.output, result.output
    return result.exit_code, "approved for the next run" in result.stdout
