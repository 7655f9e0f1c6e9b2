"""A run that is killed around the writing of a STATE, and the mirror that comes next."""

import itertools

from tests.support.mortal import Mortals
from tests.support.singer import lines, run
from tests.support.taps import VERSIONED, Tap

MANY = [str(number) for number in range(12)]
TAP = Tap("resumes", None, {"version": 1}, during={"xmin": 5}, syncs=False, **VERSIONED)
"""It writes no STATE before its rows, so only the ledger knows that it resumes."""


def members(emulator):
    return {member.uid for member in emulator.members("users")}


def test_a_kill_between_a_state_and_its_note_removes_nobody_who_belongs(emulator, tmp_path):
    """Whether its STATE came out or not, the rest of a cut read is no audience, and it heals."""
    codes = set()
    with Mortals() as mortals:
        for at in itertools.count(1):
            emulator.reset()
            own = {"ledger_uri": str(tmp_path / f"ledger-{at}")}
            cut = run(emulator, lines(*TAP.run(MANY, 0, is_cut=True)), sync_mode="add", **own)
            assert TAP.during == cut.states[-1]["bookmarks"]["users"]
            fed = TAP.during
            rest = lines(*TAP.run(MANY, 1, fed=fed))
            death = mortals.run(emulator, rest, dies_at=at, sync_mode="add", **own)
            assert death.failure == ""
            if death.states:
                fed = death.states[-1]["bookmarks"]["users"]
            is_rest = fed == TAP.during  # a tap that has this back reads only what is left
            wanted = MANY[5:] if is_rest else MANY[1:]
            mirror = {"sync_mode": "mirror", "max_removal_percent": 100, **own}
            seen = run(emulator, lines(*TAP.run(wanted, 2, fed=fed if is_rest else None)), **mirror)
            code = None if seen.error is None else seen.error.code
            codes.add((is_rest, code))
            assert code in ({"resumed_read"} if is_rest else {None, "resumed_read"})
            if code is not None:
                assert set(MANY) == members(emulator)
                healed = run(emulator, lines(*TAP.run(MANY[1:], 3)), **mirror)
                assert healed.error is None
            assert set(MANY[1:]) == members(emulator)
            if not death.killed:
                break
    # It was killed before the STATE, between the STATE and its note, and not at all.
    assert {(True, "resumed_read"), (False, "resumed_read"), (False, None)} == codes
