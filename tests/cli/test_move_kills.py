"""Commands that move a ledger, killed at each of their steps by SIGKILL."""

import os
import shlex
import shutil
import typing as t
from pathlib import Path

import pytest

from target_moengage_cohort.core.errors import SettingsError
from target_moengage_cohort.settings import load
from tests.support.mortal import Death, Mortals
from tests.support.moves import fill, leftovers, opener, places, rows, without
from tests.support.singer import config

IS_LONG = int(os.environ.get("KILLS", "20")) > 20
"""The long form, such as `KILLS=100`, kills at every step, the short at the last one of `SHORT`."""
SHORT = {
    "dump: before commit",
    "create: committed",
    "restore accepted: before commit",
    "restore marks: committed",
    "archive: written",
    "archive: in place",
    "part: whole",
    "part: in place",
    "move: before commit",
    "move: committed",
    "replace .json",
}

FOREVER = 100_000


@pytest.fixture(scope="module")
def mortals():
    with Mortals() as running:
        yield running


class Stage:
    """A ledger, of which each command gets a copy of its own."""

    def __init__(self, emulator, folder: Path, mortals: Mortals) -> None:
        self._emulator, self._folder, self._mortals = emulator, folder, mortals
        folder.mkdir()
        fill(self.settings(folder / "ledger"))
        self.rows = rows(folder / "ledger")

    def settings(self, uri: Path):
        return load(config(self._emulator, ledger_uri=str(uri))).settings

    def command(self, folder: Path, uri: str, *arguments: str, dies_at: int = FOREVER) -> Death:
        """Run a command with a configuration that names a ledger in a folder."""
        words = [word.replace("{}", str(folder)) for word in arguments]
        death = self._mortals.command(
            self._emulator, "ledger", *words, dies_at=dies_at, ledger_uri=str(folder / uri)
        )
        assert not death.failure
        return death

    def killed(self, uri: str, *arguments: str, prepare=None) -> t.Iterator[tuple[Path, Death]]:
        """Let a command come to its end, then kill it at its steps."""
        numbers = [FOREVER]
        for number in numbers:
            folder = self._folder / f"{arguments[0]}-{number}"
            shutil.copytree(self._folder / "ledger", folder / "from")
            if prepare is not None:
                prepare(folder)
            death = self.command(folder, uri, *arguments, dies_at=number)
            if number == FOREVER:
                assert 0 == death.code
                steps = {name: number for number, name in enumerate(death.steps, 1)}
                short = [number for name, number in steps.items() if name in SHORT]
                numbers += range(1, len(death.steps) + 1) if IS_LONG else short
            yield folder, death

    def refusal(self, uri: Path) -> str | None:
        """Return the code with which the store is refused, or ``None``; use it if it is not."""
        error = self._refusal(uri)
        return None if error is None else error.code

    def _refusal(self, uri: Path) -> SettingsError | None:
        with opener().open(self.settings(uri)) as store:
            try:
                store.note_action("test")
            except SettingsError as error:
                return error
        return None

    def reopen(self, uri: Path) -> None:
        """Run the command that the refusal of a moved store ends with."""
        words = shlex.split(str(self._refusal(uri)).rpartition("run: ")[2])
        assert ["moengage-cohort", "ledger"] == words[:2]
        name = words[2 : words.index("--config")]
        assert 0 == self.command(uri.parent, uri.name, *name, "--yes").code

    def is_whole(self, uri: Path) -> bool:
        """Return whether there is a store, which then has every row."""
        if not places(uri):
            return False
        changing = "operator_actions"
        assert without(self.rows, changing) == without(rows(uri), changing)
        return True


@pytest.fixture
def stage(emulator, tmp_path, mortals):
    return Stage(emulator, tmp_path / "stage", mortals)


def test_a_killed_copy_leaves_one_store_to_use(stage):
    """Whenever a copy is killed, the former store is used as before, or it is marked as moved, and
    never are there two stores to use. If it is marked and the new one is not in place, the refusal
    names the command with which it is used again. A copy that is repeated removes what the killed
    one has left."""
    seen = set()
    for folder, death in stage.killed("from", "copy", "{}/from", "{}/to"):
        is_whole = stage.is_whole(folder / "to")
        refusal = stage.refusal(folder / "from")
        assert refusal in {None, "ledger_moved"}
        seen.add((refusal, is_whole, death.killed))
        assert (refusal, is_whole) != (None, True)
        if not is_whole:
            if refusal is not None:
                stage.reopen(folder / "from")
            assert stage.is_whole(folder / "from")
            assert 0 == stage.command(folder, "from", "copy", "{}/from", "{}/to").code
        assert stage.is_whole(folder / "to")
        assert None is stage.refusal(folder / "to")
        assert "ledger_moved" == stage.refusal(folder / "from")
        assert [] == leftovers(folder)
    assert {
        (None, False, True),
        ("ledger_moved", False, True),
        ("ledger_moved", True, True),
        ("ledger_moved", True, False),
    } == seen


def test_a_killed_export_leaves_the_older_archive_or_the_new_one(stage):
    """Whenever an export is killed, the store is used as before, and the file is the older archive
    or the new one in full; a later export replaces what the killed one has left."""
    seen = set()
    for folder, death in stage.killed(
        "from",
        "export",
        "{}/ledger.zip",
        prepare=lambda each: (each / "ledger.zip").write_text("o"),
    ):
        is_older = (folder / "ledger.zip").read_bytes() == b"o"
        seen.add((is_older, death.killed))
        if not is_older:
            assert 0 == stage.command(folder, "first", "import", "{}/ledger.zip").code
            assert stage.is_whole(folder / "first")
        assert None is stage.refusal(folder / "from")
        assert 0 == stage.command(folder, "from", "export", "{}/ledger.zip").code
        assert stage.is_whole(folder / "from")
        assert [] == leftovers(folder)
    assert {(True, True), (False, False)} <= seen


def test_a_killed_import_leaves_no_store_or_all_of_it(stage, tmp_path):
    """Whenever an import is killed, there is no ledger in the place or the whole one; what it has
    left is removed by the next run or command there."""
    archive = f"{tmp_path}/ledger.zip"
    assert 0 == stage.command(tmp_path / "stage", "ledger", "export", archive).code
    seen = set()
    for number, (folder, death) in enumerate(stage.killed("to", "import", archive)):
        is_there = bool(places(folder / "to"))
        seen.add((is_there, death.killed))
        if not is_there and number % 2:
            assert None is stage.refusal(folder / "to")  # which creates one
            assert [] == leftovers(folder)
            continue
        if not is_there:
            assert 0 == stage.command(folder, "to", "import", archive).code
        assert stage.is_whole(folder / "to")
        assert None is stage.refusal(folder / "to")
        assert [] == leftovers(folder)
    assert {(False, True), (True, False)} <= seen
