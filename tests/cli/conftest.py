"""A desk: an operator's configuration, ledger and emulator, and the commands."""

import contextlib
import json
import threading
import time
import uuid

import pytest
from click.testing import CliRunner

from target_moengage_cohort.cli import cli, terminal
from target_moengage_cohort.cli.operator_delivery import OperatorDelivery
from target_moengage_cohort.cli.session import Session, SessionTiming
from target_moengage_cohort.core.membership import Action, Cohort, Member
from target_moengage_cohort.ledger.engines import open_store
from target_moengage_cohort.ledger.records import Plan, PlanKind
from target_moengage_cohort.settings import load
from tests.support.singer import config

PLANTED = "planted-"


def person(number, kind="uid"):
    return Member(**{kind: f"{PLANTED}{number:04d}"})


def people(*numbers):
    return [person(number) for number in numbers]


class Desk:
    """Runs commands, and reads and changes what they work on."""

    def __init__(self, emulator, folder):
        self.emulator = emulator
        self.folder = folder
        self.raw = config(emulator, ledger_uri=str(folder / "ledger"))
        self.output = ""

    def run(self, *arguments, config_files=None, text=None, **timing):
        path = self.folder / "config.json"
        path.write_text(json.dumps(self.raw))
        files = [str(path)] if config_files is None else config_files
        options = [part for file in files for part in ("--config", file)]
        context = SessionTiming(**({"busy_seconds": 0.3} | timing))
        result = CliRunner().invoke(
            cli, [*arguments, *options], obj=context, input=text, prog_name="moengage-cohort"
        )
        self.output += result.output
        return result

    @contextlib.contextmanager
    def ledgers(self, *, read_only=False, **changes):
        settings = load(self.raw | changes).settings
        with open_store(
            settings,
            run_id=str(uuid.uuid4()),
            wait=threading.Event().wait,
            read_only=read_only,
            busy_seconds=5.0,
        ) as ledgers:
            yield ledgers

    @contextlib.contextmanager
    def ledger(self, cohort_id, **options):
        with self.ledgers(**options) as ledgers:
            yield ledgers.open_known(cohort_id)

    def fill(self, cohort_id, members, *, stream=None, name=None):
        """Add members to a cohort, with a ledger."""
        session = Session(load(self.raw), SessionTiming())
        with session.ledgers() as ledgers:
            cohort = Cohort(cohort_id, name or cohort_id)
            ledger = ledgers.open(cohort, stream or cohort_id)
            assert OperatorDelivery(session).deliver([(ledger, [(Action.ADD, members)])])
        session.interrupt.close()

    def plan(self, cohort_id, desired, *, kind=PlanKind.WAITING, additions=False, **changes):
        """Store a plan that makes some members the whole cohort; return its ID."""
        with self.ledgers() as ledgers:
            ledger = ledgers.open_known(cohort_id)
            staging = ledgers.staging()
            if desired:
                pairs = [(member.uid, member.anonymous_id) for member in desired]
                uids, anonymous_ids = zip(*pairs, strict=True)
                staging.append(ledger.number, uids, anonymous_ids, None)
            difference = ledger.stream.difference(staging, [ledger])
            differs = difference.counts[ledger.number]
            facts = {
                "plan_id": f"plan-{kind.value}-{cohort_id}",
                "kind": kind,
                "run_id": "a-run",
                "stream": ledger.entry.stream,
                "made_at": time.time(),
                "revision": ledger.revision,
                "base": differs.base,
                "additions": differs.additions if additions else 0,
                "removals": differs.removals,
                "leaving": differs.leaving,
                "desired": differs.desired.count,
                "max_removal_percent": 10,
            }
            plan = Plan(**(facts | changes))
            ledger.stream.keep([(ledger, plan)], difference)
            difference.close()
            staging.close()
        return plan.plan_id

    def counts(self, cohort_id):
        """Return how many members are accepted and how many in doubt."""
        with self.ledger(cohort_id) as ledger:
            counts = ledger.numbers()
        return counts.accepted.count, counts.in_doubt

    def accepted(self, cohort_id):
        """Return the members that the ledger has as accepted or in doubt."""
        with self.ledger(cohort_id) as ledger:
            return {member for chunk in ledger.members() for member in chunk}

    def there(self, cohort_id):
        """Return the members of a cohort in the emulator."""
        return {Member(*pair) for pair in self.emulator.members(cohort_id)}

    def removals(self):
        return self.emulator.requests(action="remove_members")


@pytest.fixture
def place(place, desk):
    """A place for the desk's ledger, of each engine."""
    desk.raw["ledger_uri"] = place.uri
    return place


@pytest.fixture
def desk(emulator, tmp_path, monkeypatch):
    """A desk; at the end, no command has printed an identifier, the key or a traceback."""
    monkeypatch.setattr(terminal, "TERMINAL", str(tmp_path / "no-terminal"))  # not the developer's
    made = Desk(emulator, tmp_path)
    yield made
    assert PLANTED not in made.output
    assert made.raw["data_api_key"] not in made.output
    assert "Traceback" not in made.output
