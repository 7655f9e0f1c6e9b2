"""After any failures in any order, no member is wrong, and all cohorts converge."""

import os
import tempfile
from collections import defaultdict
from dataclasses import dataclass

import pytest
from hypothesis import Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    rule,
    run_state_machine_as_test,
)

from target_moengage_cohort.core.errors import InputError, TryAgainError
from target_moengage_cohort.delivery.ports import Timing
from target_moengage_cohort.emulator import Emulator, Order
from target_moengage_cohort.ledger.engines import open_store
from target_moengage_cohort.settings import load
from tests.support.look import NOTHING, Held, held, members
from tests.support.mortal import Mortals
from tests.support.plans import Plan
from tests.support.singer import UNLIMITED, config, run
from tests.support.troubles import NO_TROUBLE, changes, cuts, deaths, doubts, many, troubles, wells
from tests.support.warehouse import COHORTS, FAN, Input, Mark, Warehouse

EXAMPLES = int(os.environ.get("EXAMPLES", "4"))
"""How many histories for each order; the long form has some hundred, and another `SEED`."""

SEED = int(os.environ.get("SEED", "20261122"))


@dataclass
class Ended:
    """The end of a run: whether it delivered everything possible, and its STATE."""

    well: bool
    delivered: bool
    states: list[dict[str, int]]


class Convergence(RuleBasedStateMachine):
    """Runs of four streams against an emulator, and a model of their changes."""

    def __init__(self, emulator: Emulator, mortals: Mortals) -> None:
        super().__init__()
        self.emulator = emulator
        self.mortals = mortals
        self.folder = tempfile.TemporaryDirectory()
        self.ledger_uri = os.path.join(self.folder.name, "ledger")  # noqa: PTH118
        self.warehouse = Warehouse()
        self.held: dict[str, Held] = {}
        self.linked = set()  # anonymous ids of desired members with a uid
        self.clock = 1_790_000_000.0
        self.runs = 0
        self.is_sound = True
        emulator.reset()

    @initialize(churn=st.fixed_dictionaries(dict.fromkeys(["plain", *FAN], many)))
    def begin(self, churn):
        for cohort, whom in churn.items():
            self.warehouse.toggle(cohort, whom)

    @rule(  # one rule: of several, Hypothesis would leave out some in each history
        change=changes,
        dice=st.integers(0, 2**16),
        proof=st.sampled_from(["none", "count", "count", "version"]),
        percent=st.sampled_from([10, 50, 100]),
        deferred=st.sampled_from([False, False, False, True]),
        trouble=st.one_of(doubts, deaths, cuts, troubles, wells, st.none()),
    )
    def sync(self, change, dice, proof, percent, deferred, trouble):
        self._change(change)
        if trouble is None:
            self.converge(dice)
        else:
            self._sync(dice, proof, percent, deferred=deferred, trouble=trouble)

    def _change(self, change):
        for cohort, whom in change.churn.items():
            self.warehouse.toggle(cohort, whom)
        self.warehouse.toggle_pairs(change.pairs)
        if change.emptied is not None:
            self.warehouse.empty(change.emptied)
        self.warehouse.modes |= change.modes
        self.clock += change.seconds
        if doubted := sorted(change.doubted & self.held.keys()):
            self._resync(doubted)

    def _resync(self, cohorts):
        settings = load(config(self.emulator, ledger_uri=self.ledger_uri)).settings
        with open_store(settings, run_id="resync", wait=lambda _seconds: False) as ledgers:
            for cohort in cohorts:
                ledger = ledgers.open_known(cohort)
                assert len(self.held[cohort].accepted) == ledger.doubt_all()
        self._look()
        assert all(self.held[c].accepted <= self.held[c].doubts.keys() for c in cohorts)

    def converge(self, dice):
        """Run twice without faults: the first run makes all right, the second sends nothing."""
        for requests in (None, 0):
            before = self.emulator.totals().requests
            ended = self._sync(dice, "count", 100, deferred=False, trouble=NO_TROUBLE)
            assert ended.well
            assert not any(one.doubts for one in self.held.values())
            for cohort, stream in COHORTS.items():
                wanted = {*self.warehouse.wanted[cohort]}
                found = members(self.emulator, cohort)
                if self.warehouse.modes[stream] == "add":
                    assert wanted <= found
                else:
                    assert wanted == found - self.linked, cohort
            assert requests in {None, self.emulator.totals().requests - before}

    def teardown(self):
        try:
            if self.is_sound:
                self.converge(0)
                self._check_timestamps()
        finally:
            self.folder.cleanup()

    def _look(self):
        """Check that the ledger has every member, and the cohort every certainly accepted one."""
        self.held = held(self.emulator, self.ledger_uri)
        for cohort in COHORTS:
            known, found = self.held.get(cohort, NOTHING), members(self.emulator, cohort)
            assert found - known.base <= self.linked, cohort
            assert known.accepted - known.doubts.keys() <= found, cohort
            self.linked -= known.base if cohort == "pairs" else set()
        self.linked &= members(self.emulator, "pairs")

    def _sync(self, dice, proof, percent, *, deferred, trouble) -> Ended:
        self.is_sound = False
        self.runs += 1
        said = self.warehouse.messages(
            dice, versions=proof == "version", wavers=trouble is not NO_TROUBLE
        )
        given = Input.of(
            said,
            len(said) - round(trouble.cut * len(said)),
            counts=proof == "count",
            version=self.runs if proof == "version" else None,
            broken=trouble.broken,
            tap_exit=trouble.tap_exit,
        )
        given.fault |= proof == "count" and given.miscounts(said, self.warehouse.modes)
        before = {cohort: members(self.emulator, cohort) for cohort in COHORTS}
        guard = None if deferred else percent
        plans = {
            cohort: Plan.of(
                cohort,
                stream,
                given,
                before[cohort],
                known=self.held.get(cohort, NOTHING),
                mode=self.warehouse.modes[stream],
                percent=guard,
            )
            for cohort, stream in COHORTS.items()
        }
        options = self._settings(proof, percent, deferred=deferred) | {"piecemeal": dice % 3 > 0}
        ended = self._run(given, trouble, options)
        for cohort, plan in plans.items():
            after = members(self.emulator, cohort)
            assert after - before[cohort] <= plan.joining, cohort
            assert before[cohort] - after <= plan.leaving, cohort
            if ended.delivered:
                assert plan.expected == after, cohort
        self._judge_states(ended, given, plans)
        pairs = [row.member for _, row in given.rows("pairs") if row.member.uid is not None]
        self.linked |= {(member.anonymous_id,) for member in pairs}
        self._look()
        self.is_sound = True
        return ended

    def _settings(self, proof, percent, *, deferred):
        mappings = {stream: {"sync_mode": mode} for stream, mode in self.warehouse.modes.items()}
        for mapping in mappings.values():
            if proof == "count" and mapping["sync_mode"] == "mirror":
                mapping["expected_count_column"] = "n"
        mappings["pairs"]["anonymous_id_column"] = "anonymous_id"
        mappings["fan"]["cohort_id_column"] = "cohort"
        return {
            "ledger_uri": self.ledger_uri,
            "max_payload_bytes": 1_000,
            "max_removal_percent": percent,
            "removals": "deferred" if deferred else "immediate",
            "cohorts": mappings,
        }

    def _run(self, given, trouble, options) -> Ended:
        for kind in trouble.faults:
            self._inject(kind)
        doom, when = trouble.doom or (None, 0)
        if doom == "kill":
            death = self.mortals.run(
                self.emulator,
                given.data,
                dies_at=when,
                tap_exit=trouble.tap_exit,
                clock=self.clock,
                **options,
            )
            self.emulator.clear_faults()
            assert death.failure.partition(":")[0] in {"", "InputError", "TryAgainError"}
            well = not (death.killed or death.failure)
            return Ended(well, well, death.states)

        def before(seen, interrupt):
            if len(seen.attempts) == when and doom == "interrupt":
                interrupt.set()
            elif len(seen.attempts) == when and doom is not None:
                self.emulator.fail_next(503, 1_000, applied=doom == "fail applied")

        seen = run(
            self.emulator,
            given.data,
            Timing(jitter=lambda _seconds: 0.0, wall_clock=lambda: self.clock),
            before=before,
            tap_exit=None if trouble.tap_exit is None else lambda: trouble.tap_exit,
            max_retry_seconds=0 if doom else 900,
            **options,
        )
        self.emulator.clear_faults()
        assert seen.error is None or isinstance(seen.error, InputError | TryAgainError), seen.error
        assert 0 == seen.overlaps
        well = seen.report.status in {"succeeded", "withheld"}
        assert not (well and given.fault)
        quiet = not trouble.faults and trouble.doom is None
        assert well or given.fault or not quiet
        return Ended(well, well or quiet, seen.states)

    def _inject(self, kind):
        if kind.startswith("drop"):
            self.emulator.drop_next(when=kind.split()[1])
        elif kind == "429":
            headers = {"Retry-After": "0", "x-ratelimit-reset": "0"}
            self.emulator.fail_next(429, headers=headers)
        elif kind == "slow":
            self.emulator.latency(0.01, 3)
        else:
            self.emulator.fail_next(int(kind[:3]), applied="applied" in kind)

    def _judge_states(self, ended, given, plans):
        """Check that STATE is in order, and that it covers only settled rows."""
        places = [value["at"] for value in ended.states]
        assert places == sorted(set(places))
        if ended.well:
            all_places = [
                at
                for at, one in enumerate(given.read)
                if isinstance(one, Mark) and one.kind == "state"
            ]
            assert all_places[-1:] == places[-1:]
        for at in places:
            for cohort, stream in COHORTS.items():
                after, mode = members(self.emulator, cohort), self.warehouse.modes[stream]
                if mode == "mirror":
                    if given.met(stream, at):
                        assert not given.fault
                        assert plans[cohort].expected == after
                    continue
                rows = [(i, row) for i, row in given.rows(cohort) if row.present or mode != "add"]
                for i, row in {row.member.key: (i, row) for i, row in rows}.values():
                    assert i > at or row.present == (row.member.key in after)
        for value in ended.states:
            self.warehouse.position = value["position"]

    def _check_timestamps(self):
        """Check that timestamps rise strictly within a cohort, across all runs."""
        latest = defaultdict(lambda: ("", ""))
        for request in self.emulator.requests():
            sent = request.timestamp, request.digest
            assert sent[0] > latest[request.cohort_id][0] or sent == latest[request.cohort_id]
            latest[request.cohort_id] = sent


@pytest.fixture(scope="module")
def mortals():
    with Mortals() as running:
        yield running


@pytest.mark.parametrize("order", [o for o in Order if o is not Order.LATE], ids=lambda o: o.value)
def test_runs_converge_whatever_goes_wrong(order, mortals):
    """Promises 4 and 5: no run removes members that the guard protects or emits STATE past open
    records. After any history of faults a complete run makes the cohorts right, and a second one
    sends nothing."""
    print(f"SEED={SEED}")  # is shown if the test fails
    with Emulator(requests_per_minute=UNLIMITED, order=order) as emulator:
        dice = seed(f"{SEED} {order.value}")  # so that each order has histories of its own
        run_state_machine_as_test(
            dice(lambda: Convergence(emulator, mortals)),
            settings=settings(
                max_examples=EXAMPLES,
                stateful_step_count=8,
                phases=[Phase.generate],  # each step takes too long to look for the shortest one
                report_multiple_bugs=False,
                database=None,
                deadline=None,
                print_blob=True,
            ),
        )
