"""A short soak: a few rounds in each world, with small cohorts and a fixed seed."""

import os

import pytest

from tools.soak.scenarios import TROUBLES
from tools.soak.soak import WORLDS, Soak

SEED = int(os.environ.get("SEED", "20261126"))
ROUNDS = 3


@pytest.mark.parametrize(
    ("number", "engine"), [*((number, "files") for number in range(len(WORLDS))), (0, "postgresql")]
)
def test_a_soak_finds_no_difference(request, number, engine, tmp_path):
    """Promises 1, 2, 4, 5 and 7: through kills, signals, faults, cut inputs and full disks no
    member is wrongly added or removed, and after complete runs all cohorts equal the model."""
    print(f"SEED={SEED}")  # shown if the test fails
    server = request.getfixturevalue("server") if engine == "postgresql" else None
    soak = Soak(SEED, 0.05, tmp_path, server)
    try:
        soak.world(number, rounds=ROUNDS)
    except BaseException:
        print("\n".join(soak.history))
        raise
    runs = soak.figures.runs
    assert 2 <= runs["complete"]
    assert 0 < soak.figures.compared
    assert {*runs} <= {"complete", "confirm", *TROUBLES}
