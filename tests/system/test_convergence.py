"""After any failures in any order, no member is wrong, and all cohorts converge."""

import itertools
import os
from collections import Counter, defaultdict
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
from tests.support.confirmations import Confirmations, call_confirm
from tests.support.ledger_places import FolderPlace, ServerPlace
from tests.support.look import NOTHING, Held, held, members
from tests.support.mortal import Mortals
from tests.support.plans import Limits, Plan
from tests.support.postgres import Postgres
from tests.support.singer import UNLIMITED, config, run
from tests.support.troubles import (
    NO_TROUBLE,
    Trouble,
    changes,
    cuts,
    deaths,
    doubts,
    handful,
    limits,
    many,
    troubles,
    wells,
    words,
)
from tests.support.warehouse import (
    COHORTS,
    CROWD,
    FAN,
    FAN_OUTS,
    ONCE,
    SNAPSHOTS,
    Input,
    Mark,
    Warehouse,
)

EXAMPLES = int(os.environ.get("EXAMPLES", "4"))
"""How many histories for each order; the long form has some hundred, and another `SEED`."""

SEED = int(os.environ.get("SEED", "20261122"))


SEALED = Held(is_sealed=True)


@dataclass
class Ended:
    """The end of a run: whether it delivered everything possible, and its STATE."""

    well: bool
    delivered: bool
    states: list[dict[str, int]]


class Convergence(RuleBasedStateMachine):
    """Runs and confirmations of six streams against an emulator, and a model of their changes."""

    def __init__(self, emulator: Emulator, mortals: Mortals, place: FolderPlace) -> None:
        super().__init__()
        self.emulator = emulator
        self.mortals = mortals
        self.place = place
        self.ledger_uri = place.uri
        self.warehouse = Warehouse()
        self.held: dict[str, Held] = {}
        self.confirmations = Confirmations()
        self.options = {}  # the settings of the latest run
        self.clock = 1_790_000_000.0
        self.runs = 0
        self.is_sound = True
        emulator.reset()

    @initialize(
        churn=st.fixed_dictionaries(
            dict.fromkeys(["plain", *FAN], many) | dict.fromkeys([*CROWD, *ONCE[:2]], handful)
        )
    )
    def begin(self, churn):
        for cohort, whom in churn.items():
            self.warehouse.toggle(cohort, whom)

    @rule(  # one rule: of several, Hypothesis would leave out some in each history
        change=changes,
        dice=st.integers(0, 2**16),
        proof=st.sampled_from(["none", "count", "count", "version"]),
        limits=limits,
        trouble=st.one_of(doubts, deaths, cuts, troubles, wells, st.none()),
        said=st.tuples(*[st.one_of(st.none(), words)] * 2),
    )
    def sync(self, change, dice, proof, limits, trouble, said):
        late, prompt = said
        if prompt is not None and prompt.streams:  # so that there is something to confirm
            limits = limits._replace(deferred=True)
            trouble = trouble or Trouble()
            proof = proof if dice % 4 == 0 else "none"
        self._change(change)
        if late is not None:
            self._confirm(late)
        if trouble is None:
            self.converge(dice)
        else:
            self._sync(dice, proof, limits, trouble=trouble)
        if prompt is not None:
            self._confirm(prompt)

    def _change(self, change):
        for cohort, whom in change.churn.items():
            self.warehouse.toggle(cohort, whom)
        self.warehouse.toggle_pairs(change.pairs)
        for cohort in sorted(change.emptied):
            self.warehouse.empty(cohort)
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
        self.confirmations.refuse(cohorts, COHORTS)
        self._look(reopened=cohorts)
        assert all(self.held[c].accepted <= self.held[c].doubts.keys() for c in cohorts)

    def converge(self, dice):
        """Run without faults: the first run makes all right, the second sends nothing.

        Only where uids got other anonymous ids, the second removes the former ones.
        """
        everyone = {*COHORTS}
        for silent in (set(), everyone - {"pairs"}, everyone):
            before = self._requests(silent)
            ended = self._sync(dice, "count", Limits(100), trouble=NO_TROUBLE)
            assert ended.well
            for cohort, stream in COHORTS.items():
                if stream == "once":  # has the members of its time, which `_sync` has checked
                    is_empty = not self.warehouse.wanted[cohort]  # such an input seals nothing
                    assert self.held.get(cohort, SEALED).is_sealed or is_empty
                    continue
                assert not self.held.get(cohort, NOTHING).doubts
                wanted = {*self.warehouse.wanted[cohort]}
                found = members(self.emulator, cohort)
                if self.warehouse.modes[stream] == "add":
                    assert wanted <= found
                else:
                    assert wanted <= found, cohort
                    assert found - wanted <= self._beside(cohort), cohort
            assert before == self._requests(silent)

    def _beside(self, cohort):
        """Return the anonymous ids that stand beside the uids that a cohort is to have."""
        wanted = self.warehouse.wanted[cohort].values()
        return {(member.anonymous_id,) for member in wanted if member.uid is not None}

    def teardown(self):
        try:
            if self.is_sound:
                self.converge(0)
                self._check_timestamps()
        finally:
            self.place.close()

    def _look(self, *, finished=(), reopened=()):
        """Check that the ledger has every member, and the cohort every certainly accepted one."""
        sealed = {cohort for cohort, one in self.held.items() if one.is_sealed}
        self.held = held(self.emulator, self.ledger_uri)
        now = {cohort for cohort, one in self.held.items() if one.is_sealed}
        assert sealed - {*reopened} <= now <= sealed | {*finished}
        for cohort in COHORTS:
            known, found = self.held.get(cohort, NOTHING), members(self.emulator, cohort)
            assert found <= known.base | {key for key, _ in known.aliases}, cohort
            assert known.accepted - known.doubts.keys() <= found, cohort

    def _sync(self, dice, proof, limits, *, trouble) -> Ended:
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
        plans = {
            cohort: Plan.of(
                cohort,
                stream,
                given,
                before[cohort],
                known=self.held.get(cohort, NOTHING),
                mode=self.warehouse.modes[stream],
                limits=limits,
                approved=self.confirmations.approved_of(cohort, self.clock),
            )
            for cohort, stream in COHORTS.items()
        }
        self.options = self._settings(proof, limits)
        sealed = {cohort for cohort, one in self.held.items() if one.is_sealed}
        silent = self._requests(sealed)
        ended = self._run(given, trouble, self.options | {"piecemeal": dice % 3 > 0})
        assert silent == self._requests(sealed)
        for cohort, plan in plans.items():
            after = members(self.emulator, cohort)
            assert after - before[cohort] <= plan.joining, cohort
            assert before[cohort] - after <= plan.leaving, cohort
            if ended.delivered:
                assert plan.expected == after, cohort
        self._judge_states(ended, given, plans)
        known = self.held
        self._look(finished=[cohort for cohort, plan in plans.items() if plan.seals])
        for cohort in {c for c, one in self.held.items() if one.is_sealed} - sealed:
            assert plans[cohort].expected == members(self.emulator, cohort)
        for cohort in [c for c, plan in plans.items() if plan.seals and plan.joining]:
            assert self.held.get(cohort, NOTHING).is_sealed or not ended.well
        self.confirmations.note_run(
            {
                cohort: (COHORTS[cohort], plan)
                for cohort, plan in plans.items()
                if given.met(COHORTS[cohort])
            },
            known,
            self.held,
            self.clock,
            well=ended.well,
            read_all=ended.well or (trouble.doom is None and not trouble.faults),
        )
        self.is_sound = True
        return ended

    def _requests(self, cohorts):
        """Return how many requests some cohorts had."""
        log = self.emulator.requests() if cohorts else ()
        return Counter(one.cohort_id for one in log if one.cohort_id in cohorts)

    def _confirm(self, word):
        """Call `confirm`, and check that it did what it may and must."""
        fails = word.fault is not None
        if word.streams:
            # Mostly those that can be confirmed, because otherwise nothing is.
            sure = [stream for stream in word.streams if stream in self.confirmations.sure]
            streams = arguments = tuple(sure if word.dice % 4 else ()) or word.streams
            sealed = {COHORTS[cohort] for cohort, one in self.held.items() if one.is_sealed}
            expected = self.confirmations.of_streams(
                streams, self.clock, fails=fails, sealed=sealed
            )
        else:
            known = sorted(self.confirmations.ready if word.dice % 3 else ()) or sorted(
                self.confirmations.withheld
            )
            if not known or not self.options:
                return
            plan_id = known[word.dice % len(known)]
            streams, arguments = (), ("--withheld", plan_id)
            expected = self.confirmations.of_withheld(plan_id, self.held, fails=fails)
        if not self.options:
            return
        self.is_sound = False
        before = {cohort: members(self.emulator, cohort) for cohort in COHORTS}
        if fails:
            self._inject(word.fault)
        code, is_approved = call_confirm(
            self.emulator,
            self.place.folder,
            self.options | {"max_retry_seconds": 0},
            *arguments,
            clock=self.clock,
        )
        self.emulator.clear_faults()
        assert code in expected.codes, (word, code)
        if is_approved:
            self.confirmations.note_approved(plan_id, self.clock)
            expected = expected._replace(joining={}, leaving={})
        elif code == 0 and not word.streams:
            assert expected.leaving, "an outdated plan is delivered"
            self.confirmations.approved.pop(self.confirmations.withheld[plan_id][0], None)
        touched = set()
        for cohort in COHORTS:
            after = members(self.emulator, cohort)
            joining = expected.joining.get(cohort, set())
            leaving = expected.leaving.get(cohort, set())
            assert after - before[cohort] <= joining, cohort
            assert before[cohort] - after <= leaving, cohort
            if code != 1 and expected.is_sure:
                assert (before[cohort] | joining) - leaving == after, cohort
            touched |= {cohort} if joining or leaving else set()
        touched |= {cohort for cohort, stream in COHORTS.items() if stream in streams}
        self._look(finished=expected.seals)
        if code != 1 and expected.is_sure:
            assert all(self.held[cohort].is_sealed for cohort in expected.seals)
        self.confirmations.note_confirmed(streams, self.held, well=code != 1)
        self.confirmations.outdate(touched, COHORTS)
        self.is_sound = True

    def _settings(self, proof, limits):
        mappings = {stream: {"sync_mode": mode} for stream, mode in self.warehouse.modes.items()}
        for mapping in mappings.values():
            if proof == "count" and mapping["sync_mode"] in SNAPSHOTS:
                mapping["expected_count_column"] = "n"
        mappings["pairs"]["anonymous_id_column"] = "anonymous_id"
        for stream in FAN_OUTS:
            mappings[stream]["cohort_id_column"] = "cohort"
        limit = {} if limits.growth is None else {"max_addition_percent": limits.growth}
        return limit | {
            "ledger_uri": self.ledger_uri,
            "max_payload_bytes": 1_000,
            "max_removal_percent": limits.percent,
            "removals": "deferred" if limits.deferred else "immediate",
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
            self.place.bury()
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
                if mode in SNAPSHOTS:
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


def _new_place(server: Postgres | None) -> FolderPlace:
    return FolderPlace() if server is None else ServerPlace(server)


@pytest.fixture(scope="module")
def mortals():
    with Mortals() as running:
        yield running


ORDERS = [order for order in Order if order is not Order.LATE]


@pytest.mark.parametrize(
    ("order", "engine"),
    [*itertools.product(ORDERS, ["files"]), (ORDERS[0], "postgresql")],
    ids=lambda value: getattr(value, "value", value),
)
def test_runs_converge_whatever_goes_wrong(request, order, engine, mortals):
    """Promises 4 and 5: no run removes members that the guard protects or emits STATE past open
    records. After any history of faults a complete run makes the cohorts right, and a second one
    sends nothing."""
    print(f"SEED={SEED}")  # is shown if the test fails
    server = request.getfixturevalue("server") if engine == "postgresql" else None
    with Emulator(requests_per_minute=UNLIMITED, order=order) as emulator:
        dice = seed(f"{SEED} {order.value}")  # so that each order has histories of its own
        run_state_machine_as_test(
            dice(lambda: Convergence(emulator, mortals, _new_place(server))),
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
