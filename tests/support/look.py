"""The contents of ledgers and the emulator, by the keys of members."""

import typing as t
from dataclasses import dataclass, field

from target_moengage_cohort.core.membership import Key, Member
from target_moengage_cohort.emulator import Emulator
from target_moengage_cohort.ledger.engines import open_store
from target_moengage_cohort.settings import load
from tests.support.singer import config


@dataclass(frozen=True)
class Held:
    """The content of a ledger for one cohort.

    Attributes:
        accepted: The accepted members.
        doubts: The unconfirmed members, each with its action.
    """

    accepted: frozenset[Key] = frozenset()
    doubts: t.Mapping[Key, str] = field(default_factory=dict)

    @property
    def base(self) -> set[Key]:
        """The members that are accepted or unconfirmed."""
        return {*self.accepted, *self.doubts}


NOTHING = Held()


def held(emulator: Emulator, folder: str) -> dict[str, Held]:
    """Read all ledgers of a directory without changing them."""
    settings = load(config(emulator, ledger_uri=folder)).settings
    found = {}
    with open_store(
        settings, run_id="look", wait=lambda _seconds: False, read_only=True
    ) as ledgers:
        for entry in ledgers.entries():
            stream = ledgers.open_known(entry.cohort_id).stream
            source, mine = stream.tables, f"WHERE cohort = {entry.number}"
            query = f"SELECT uid, anonymous_id FROM {source}.accepted {mine}"
            accepted = [Member(*row).key for row in stream.table.rows(query)]
            query = f"SELECT action, uid, anonymous_id FROM {source}.doubts {mine}"
            rows = stream.table.rows(query)
            assert len(set(accepted)) == len(accepted), "somebody is accepted twice"
            doubts = {Member(*row).key: action for action, *row in rows}
            assert len(doubts) == len(rows), "somebody is in doubt twice"
            found[entry.cohort_id] = Held(frozenset(accepted), doubts)
    return found


def members(emulator: Emulator, cohort: str) -> set[Key]:
    """Return the members of a cohort in the emulator."""
    return {Member(*member).key for member in emulator.members(cohort)}
