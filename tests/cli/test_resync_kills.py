"""`moengage-cohort resync --removals`, killed at each of its steps by SIGKILL."""

import itertools
import os

import pytest

from target_moengage_cohort.cli.operator_delivery import OperatorDelivery
from target_moengage_cohort.cli.session import Session, SessionTiming
from target_moengage_cohort.core.membership import Action
from target_moengage_cohort.ledger.records import RequestState
from target_moengage_cohort.settings import load
from tests.cli.conftest import people
from tests.ledger.support import send
from tests.support.ledger_places import FolderPlace, ServerPlace, opened
from tests.support.mortal import Mortals

IS_SHORT = int(os.environ.get("KILLS", "20")) <= 20
STRIDES = {FolderPlace: 3, ServerPlace: 7} if IS_SHORT else {FolderPlace: 1, ServerPlace: 1}
STAYING, REMOVED, DOUBTED = people(*range(30)), people(*range(30, 80)), people(80, 81)


@pytest.fixture(scope="module")
def mortals():
    with Mortals() as running:
        yield running


@pytest.fixture(params=["files", "server"])
def place(request):
    """A place for a ledger, of each kind."""
    with opened(request, request.param) as made:
        yield made


def remove(desk):
    """Have removals accepted."""
    session = Session(load(desk.raw), SessionTiming())
    with session.ledgers() as ledgers:
        order = (ledgers.open_known("vip"), [(Action.REMOVE, REMOVED)])
        assert OperatorDelivery(session).deliver([order])
    session.interrupt.close()


def doubt(desk):
    """Have removals without an answer."""
    with desk.ledger("vip") as ledger:
        number = send(ledger, Action.REMOVE, DOUBTED, ledger.last_timestamp + 1)
        ledger.answered(number, RequestState.UNANSWERED)


@pytest.mark.parametrize("with_doubts", [False, True])
def test_removals_that_are_sent_again_converge(desk, mortals, place, with_doubts):
    """MoEngage has lost removals. Whenever the command that sends them again is killed, all other
    members stay, and the next command removes exactly these and leaves nothing unconfirmed."""
    desk.raw |= {"max_payload_bytes": 1_000, "ledger_uri": place.uri}  # several requests
    gone = [*REMOVED, *(DOUBTED if with_doubts else [])]
    desk.fill("vip", [*STAYING, *gone])
    remove(desk)
    for number in itertools.count(1, STRIDES[type(place)]):
        if with_doubts:
            doubt(desk)
        desk.emulator.apis.put_members("vip", "add_members", [each.uid for each in gone])
        assert {*STAYING, *gone} == desk.there("vip")
        death = mortals.command(
            desk.emulator, "resync", "--removals", "vip", dies_at=number, **desk.raw
        )
        assert not death.failure
        if death.killed:
            place.bury()
        assert {*STAYING} <= desk.there("vip")
        assert desk.there("vip") - {*gone} <= desk.accepted("vip")
        if death.killed:
            assert 0 == desk.run("resync", "--removals", "vip").exit_code
        assert {*STAYING} == desk.there("vip")
        assert {*STAYING} == desk.accepted("vip")
        assert (len(STAYING), 0) == desk.counts("vip")
        with desk.ledgers(read_only=True) as ledgers:
            assert [] == ledgers.inspect("vip")
        if not death.killed:
            break
    assert 0 == death.code
    assert {"sent", "accepted", "fold", "folded", "note action"} <= {
        name.partition(":")[0] for name in death.steps
    }
