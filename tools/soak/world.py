"""Rounds of churn, trouble and runs, with checks after each run."""

import random
import shutil
import signal
import typing as t
from collections import Counter
from dataclasses import dataclass, field

from target_moengage_cohort.emulator import Order
from tools.soak import faults, scenarios
from tools.soak.model import Model
from tools.soak.oracle import CONFIRMED, Expectation, Oracle, Waiting, check
from tools.soak.runs import Ended, Form, Runner, signal_codes
from tools.soak.scenarios import Scenario
from tools.soak.tap_input import TapInput, write_input

WELL, FAILED = (0, 3), 1
CALM_SHARE = 0.25
CONFIRMS, STRAY_CONFIRMS = 0.7, 0.1  # shares of runs with and without deferred removals


@dataclass
class Figures:
    """The counts so far; each `Counter` is by kind."""

    runs: Counter[str] = field(default_factory=Counter)
    ends: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    clock_steps: int = 0
    requests: int = 0
    compared: int = 0
    worlds: int = 0


class World:
    """The model, a MoEngage, and the ledgers between them.

    Args:
        model: The model.
        runner: The runner of all runs.
        figures: The counts to update.
        order: The emulator's order; `Order.LATE` permits only faults that a run survives.
        is_late: Whether a change whose sender was cut off may be applied in a later run.

    Attributes:
        history: A line for each run and for each of its last log lines.
    """

    def __init__(
        self, model: Model, runner: Runner, figures: Figures, order: Order, *, is_late: bool
    ) -> None:
        self.history: list[str] = [f"{order}, {is_late=}"]
        self._model, self._runner, self._figures = model, runner, figures
        self._waiting: list[Waiting] = []
        self._is_sure = False
        self._is_gentle = order is Order.LATE
        self._oracle = Oracle(
            model, runner.emulator, runner.wire, runner.ledger_uri, is_late=is_late
        )

    def round(self, chance: random.Random) -> None:
        """Add and remove members, and run."""
        self._model.churn(chance)
        if chance.random() < CALM_SHARE:
            self._calm(chance)
        else:
            self._run(scenarios.troubled(chance, is_gentle=self._is_gentle), chance)

    def end(self, chance: random.Random) -> None:
        """Run until all cohorts equal the model."""
        self._calm(chance)
        self._oracle.timestamps()

    def _calm(self, chance: random.Random) -> None:
        """Run twice without trouble: all cohorts are right, and the second run sends nothing."""
        for again in (False, True):
            scenario = scenarios.calm(chance, again=again)
            requests = self._runner.emulator.totals().requests
            self._run(scenario, chance)
            self._figures.compared += self._oracle.equality()
            requests = self._runner.emulator.totals().requests - requests
            check(not (again and requests), f"a second run sends {requests} requests")

    def _run(self, scenario: Scenario, chance: random.Random) -> None:
        files = self._runner.home / "files"
        shutil.rmtree(files, ignore_errors=True)
        files.mkdir(parents=True)
        messages = self._model.messages(chance, wavers=not scenario.is_calm)
        tap_input = write_input(
            self._model,
            messages,
            files,
            chance,
            cut=scenario.cut,
            broken=scenario.broken,
            counts=scenario.counts,
            tap_exit=scenario.tap_exit if scenario.form == "run" else None,
        )
        tap_input.fault |= scenario.termination is not None and scenario.termination.hangs
        self.history.append(f"{scenario}; fault={tap_input.fault}; {len(tap_input.data)} bytes")
        expectation = self._oracle.before(
            tap_input, None if scenario.deferred else scenario.percent
        )
        ended = self._start(scenario, scenario.form, chance, tap_input.data)
        self._figures.runs[scenario.kind] += 1
        self._figures.clock_steps += scenario.clock_step != 0
        self._check_run(scenario, tap_input, expectation, ended)
        self._note_waiting(scenario, expectation, well=ended.code in WELL)
        share = CONFIRMS if scenario.deferred else STRAY_CONFIRMS
        if scenario.deferred if scenario.is_calm else chance.random() < share:
            self._confirm(scenario, chance)

    def _start(
        self, scenario: Scenario, form: Form, chance: random.Random, data: bytes = b""
    ) -> Ended:
        emulator, wire = self._runner.emulator, self._runner.wire
        for kind in scenario.faults:
            faults.inject(kind, emulator, wire, chance)
        if scenario.gives_up:
            faults.break_down(emulator, chance)
        requests = emulator.totals().requests
        try:
            ended = self._runner.run(
                form,
                data,
                self._settings(scenario),
                termination=scenario.termination,
                tap_exit=scenario.tap_exit,
                clock_step=scenario.clock_step,
                streams=CONFIRMED,
            )
        finally:
            emulator.clear_faults()
            wire.clear()
            if self._runner.place is not None:
                self._runner.place.bury()  # or all would wait for the lease of a killed run
        if "slow" in scenario.faults:
            requests = emulator.totals().requests - requests
            self._figures.faults["slow"] += min(requests, faults.SLOW_ANSWERS)
        self._figures.ends[_end(ended.code)] += 1
        self.history.append(f"  {form}: exit {ended.code}, STATE {ended.states}")
        self.history += [f"    {line}" for line in ended.stderr.splitlines()[-6:]]
        return self._oracle.process(ended, {*WELL, FAILED, *signal_codes(scenario.termination)})

    def _settings(self, scenario: Scenario) -> dict[str, t.Any]:
        mappings = {stream: {"sync_mode": mode} for stream, mode in self._model.modes.items()}
        for mapping in mappings.values():
            if scenario.counts and mapping["sync_mode"] in {"mirror", "one_time"}:
                mapping["expected_count_column"] = "n"
        for stream in CONFIRMED:
            mappings[stream]["removals"] = "deferred" if scenario.deferred else "immediate"
        mappings["users"]["anonymous_id_column"] = "anonymous_id"
        mappings["fan"]["cohort_id_column"] = "cohort"
        return {
            "ledger_uri": self._runner.ledger_uri,
            "max_payload_bytes": scenario.payload,
            "max_removal_percent": scenario.percent,
            "max_retry_seconds": 0 if scenario.gives_up else 900,
            "cohorts": mappings,
        }

    def _check_run(
        self, scenario: Scenario, tap_input: TapInput, expectation: Expectation, ended: Ended
    ) -> None:
        well = ended.code in WELL
        check(not (well and tap_input.fault), "it accepts an incomplete input as complete")
        check(well or tap_input.fault or scenario.may_fail, f"exit {ended.code} without a reason")
        check(
            not scenario.is_calm or ended.code == 0, f"exit {ended.code} of a run without trouble"
        )
        delivered = well or not (scenario.may_fail or tap_input.is_torn)
        self._oracle.after(expectation, delivered=delivered)
        self._oracle.states(expectation, ended.states, well=well)
        once = f"once-{self._model.one_time}"
        self._model.finished |= well and tap_input.proven[once] and tap_input.met(once)

    def _note_waiting(self, scenario: Scenario, expectation: Expectation, *, well: bool) -> None:
        """Note which removals may be pending; a run that reads the streams discards older ones."""
        tap_input = expectation.tap_input
        if well or scenario.termination is None:
            met = all(tap_input.met(stream) for stream in CONFIRMED)
            self._waiting = [] if met else self._waiting
            self._is_sure = well and met
        else:
            self._is_sure = False
        if scenario.deferred and not tap_input.fault:
            self._waiting.append(Waiting(tap_input, scenario.percent, expectation.known))

    def _confirm(self, scenario: Scenario, chance: random.Random) -> None:
        """Confirm the pending removals, even if there are none."""
        expectation = self._oracle.before_confirm(self._waiting)
        ended = self._start(scenario, "confirm", chance)
        self._figures.runs["confirm"] += 1
        well = ended.code in WELL
        check(not well or bool(self._waiting), "it confirmed removals that must not be confirmed")
        is_sure = self._is_sure and len(self._waiting) == 1
        if is_sure and not scenario.may_fail:
            check(well, f"confirm exits with {ended.code}")
        check(not scenario.is_calm or ended.code == 0, f"confirm exits with {ended.code}")
        self._oracle.after(expectation, delivered=well and is_sure)
        if well:
            self._waiting = []


def _end(code: int) -> str:
    return f"exit {code}" if code >= 0 else signal.Signals(-code).name
