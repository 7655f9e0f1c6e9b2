"""Rounds of churn, trouble and runs; after each run, whether anybody was wronged."""

import random
import shutil
import signal
import typing as t
from collections import Counter
from dataclasses import dataclass, field

from target_moengage_cohort.emulator import Order
from tools.soak import faults, scenes
from tools.soak.given import Given, given
from tools.soak.judge import CONFIRMED, Judge, Judged, Waiting, check
from tools.soak.runs import Ended, Form, Runner, signal_codes
from tools.soak.scenes import Scene
from tools.soak.town import Town

WELL, FAILED = (0, 3), 1
CALM_SHARE = 0.25
CONFIRMS, STRAY_CONFIRMS = 0.7, 0.1  # how often one follows a run whose removals wait, or another


@dataclass
class Figures:
    """What was done so far; `Counter`s are by kind."""

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
        town: The model.
        runner: Starts runs.
        figures: To be kept.
        order: Of the emulator; with `Order.LATE` only faults that a run outlives.
        is_late: Whether a change whose sender was cut off may be applied in a later run.

    Attributes:
        history: What was done, a line for each run and for what it said last.
    """

    def __init__(
        self, town: Town, runner: Runner, figures: Figures, order: Order, *, is_late: bool
    ) -> None:
        self.history: list[str] = [f"{order}, {is_late=}"]
        self._town, self._runner, self._figures = town, runner, figures
        self._waiting: list[Waiting] = []
        self._is_sure = False
        self._is_gentle = order is Order.LATE
        self._ledger_uri = str(runner.disk.folder)
        self._judge = Judge(town, runner.emulator, runner.wire, self._ledger_uri, is_late=is_late)

    def round(self, chance: random.Random) -> None:
        """Let some join and leave, and run."""
        self._town.churn(chance)
        if chance.random() < CALM_SHARE:
            self._calm(chance)
        else:
            self._run(scenes.troubled(chance, is_gentle=self._is_gentle), chance)

    def end(self, chance: random.Random) -> None:
        """Make all right."""
        self._calm(chance)
        self._judge.timestamps()

    def _calm(self, chance: random.Random) -> None:
        """Run twice without trouble: all is right, and then nothing is left to do."""
        for again in (False, True):
            scene = scenes.calm(chance, again=again)
            requests = self._runner.emulator.totals().requests
            self._run(scene, chance)
            self._figures.compared += self._judge.equality()
            requests = self._runner.emulator.totals().requests - requests
            check(not (again and requests), f"a second run sends {requests} requests")

    def _run(self, scene: Scene, chance: random.Random) -> None:
        files = self._runner.home / "files"
        shutil.rmtree(files, ignore_errors=True)
        files.mkdir(parents=True)
        said = self._town.messages(chance, wavers=not scene.is_calm)
        found = given(
            self._town,
            said,
            files,
            chance,
            cut=scene.cut,
            broken=scene.broken,
            counts=scene.counts,
            tap_exit=scene.tap_exit if scene.form == "run" else None,
        )
        found.fault |= scene.doom is not None and scene.doom.hangs
        self.history.append(f"{scene}; fault={found.fault}; {len(found.data)} bytes")
        judged = self._judge.before(found, None if scene.deferred else scene.percent)
        ended = self._start(scene, scene.form, chance, found.data)
        self._figures.runs[scene.kind] += 1
        self._figures.clock_steps += scene.clock_step != 0
        self._judge_run(scene, found, judged, ended)
        self._note_waiting(scene, judged, well=ended.code in WELL)
        share = CONFIRMS if scene.deferred else STRAY_CONFIRMS
        if scene.deferred if scene.is_calm else chance.random() < share:
            self._confirm(scene, chance)

    def _start(self, scene: Scene, form: Form, chance: random.Random, data: bytes = b"") -> Ended:
        emulator, wire = self._runner.emulator, self._runner.wire
        for kind in scene.faults:
            faults.inject(kind, emulator, wire, chance)
        if scene.gives_up:
            faults.break_down(emulator, chance)
        requests = emulator.totals().requests
        try:
            ended = self._runner.run(
                form,
                data,
                self._settings(scene),
                doom=scene.doom,
                tap_exit=scene.tap_exit,
                clock_step=scene.clock_step,
                streams=CONFIRMED,
            )
        finally:
            emulator.clear_faults()
            wire.clear()
        if "slow" in scene.faults:
            requests = emulator.totals().requests - requests
            self._figures.faults["slow"] += min(requests, faults.SLOW_ANSWERS)
        self._figures.ends[_end(ended.code)] += 1
        self.history.append(f"  {form}: exit {ended.code}, STATE {ended.states}")
        self.history += [f"    {line}" for line in ended.stderr.splitlines()[-6:]]
        return self._judge.process(ended, {*WELL, FAILED, *signal_codes(scene.doom)})

    def _settings(self, scene: Scene) -> dict[str, t.Any]:
        mappings = {stream: {"sync_mode": mode} for stream, mode in self._town.modes.items()}
        for mapping in mappings.values():
            if scene.counts and mapping["sync_mode"] in {"mirror", "one_time"}:
                mapping["expected_count_column"] = "n"
        for stream in CONFIRMED:
            mappings[stream]["removals"] = "deferred" if scene.deferred else "immediate"
        mappings["users"]["anonymous_id_column"] = "anonymous_id"
        mappings["fan"]["cohort_id_column"] = "cohort"
        return {
            "ledger_uri": self._ledger_uri,
            "max_payload_bytes": scene.payload,
            "max_removal_percent": scene.percent,
            "max_retry_seconds": 0 if scene.gives_up else 900,
            "cohorts": mappings,
        }

    def _judge_run(self, scene: Scene, found: Given, judged: Judged, ended: Ended) -> None:
        well = ended.code in WELL
        check(not (well and found.fault), "it takes an incomplete input for a good one")
        check(well or found.fault or scene.may_fail, f"exit {ended.code} without a reason")
        check(not scene.is_calm or ended.code == 0, f"exit {ended.code} of a run without trouble")
        delivered = well or not (scene.may_fail or found.is_torn)
        self._judge.after(judged, delivered=delivered)
        self._judge.states(judged, ended.states, well=well)
        once = f"once-{self._town.one_time}"
        self._town.sealed |= well and found.proven[once] and found.met(once)

    def _note_waiting(self, scene: Scene, judged: Judged, *, well: bool) -> None:
        """Keep in mind whose removals may wait now; a run that reads the streams voids others."""
        given = judged.given
        if well or scene.doom is None:
            met = all(given.met(stream) for stream in CONFIRMED)
            self._waiting = [] if met else self._waiting
            self._is_sure = well and met
        else:
            self._is_sure = False
        if scene.deferred and not given.fault:
            self._waiting.append(Waiting(given, scene.percent, judged.known))

    def _confirm(self, scene: Scene, chance: random.Random) -> None:
        """Confirm what waits; if nothing does, that is tried, too."""
        judged = self._judge.before_confirm(self._waiting)
        told = self._start(scene, "confirm", chance)
        self._figures.runs["confirm"] += 1
        well = told.code in WELL
        check(not well or bool(self._waiting), "what must not be confirmed was confirmed")
        is_sure = self._is_sure and len(self._waiting) == 1
        if is_sure and not scene.may_fail:
            check(well, f"confirm exits with {told.code}")
        check(not scene.is_calm or told.code == 0, f"confirm exits with {told.code}")
        self._judge.after(judged, delivered=well and is_sure)
        if well:
            self._waiting = []


def _end(code: int) -> str:
    return f"exit {code}" if code >= 0 else signal.Signals(-code).name
