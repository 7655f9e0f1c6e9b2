"""The contents of ledgers and the emulator, by the keys of members."""

import typing as t
from collections import defaultdict
from dataclasses import dataclass, field

from target_moengage_cohort.core.membership import Key, Member
from target_moengage_cohort.emulator import Emulator
from target_moengage_cohort.ledger.engines import open_store
from target_moengage_cohort.ledger.records import Plan
from target_moengage_cohort.settings import load
from tests.support.singer import config


@dataclass(frozen=True)
class Held:
    """The content of a ledger for one cohort.

    Attributes:
        accepted: The accepted members.
        doubts: The unconfirmed members, each with its action.
        is_sealed: Whether the cohort is one_time and finished.
        plans: The plans that were not delivered.
        aliases: Anonymous members beside a uid, each with it.
        approved: The plan that a person has approved, however long ago.
    """

    accepted: frozenset[Key] = frozenset()
    doubts: t.Mapping[Key, str] = field(default_factory=dict)
    is_sealed: bool = False
    plans: tuple[Plan, ...] = ()
    aliases: frozenset[tuple[Key, str]] = frozenset()
    approved: str | None = None

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
        settings, run_id="look", wait=lambda _seconds: False, read_only=True, clock=lambda: 0.0
    ) as ledgers:
        plans = ledgers.plans()
        streams: dict[str, _Read] = {}
        approved: dict[int, str] = {}
        for entry in ledgers.entries():
            if entry.stream not in streams:
                opened = t.cast("t.Any", ledgers.open_known(entry.cohort_id).stream)
                streams[entry.stream] = _read(opened)
                approved |= opened.plans.approved([*opened.by_number])
            accepted, doubts, aliases = streams[entry.stream]
            found[entry.cohort_id] = Held(
                frozenset(accepted[entry.number]),
                doubts[entry.number],
                entry.is_sealed,
                tuple(plans.get(entry.number, ())),
                frozenset(aliases[entry.number]),
                approved.get(entry.number),
            )
    return found


_Read = tuple[dict[int, set[Key]], dict[int, dict[Key, str]], dict[int, set[tuple[Key, str]]]]


def _read(stream: t.Any) -> _Read:
    """Read the accepted members, the doubts and the aliases of all cohorts of a stream."""
    accepted: dict[int, set[Key]] = defaultdict(set)
    doubts: dict[int, dict[Key, str]] = defaultdict(dict)
    query = f"SELECT cohort, uid, anonymous_id FROM {stream.tables}.accepted"
    for cohort, *row in stream.table.rows(query):
        key = Member(*row).key
        assert key not in accepted[cohort], "somebody is accepted twice"
        accepted[cohort].add(key)
    query = f"SELECT cohort, action, uid, anonymous_id FROM {stream.tables}.doubts"
    for cohort, action, *row in stream.table.rows(query):
        key = Member(*row).key
        assert key not in doubts[cohort], "somebody is in doubt twice"
        doubts[cohort][key] = action
    aliases: dict[int, set[tuple[Key, str]]] = defaultdict(set)
    query = f"SELECT cohort, anonymous_id, uid FROM {stream.tables}.aliases"
    for cohort, anonymous_id, uid in stream.table.rows(query):
        assert ((anonymous_id,), uid) not in aliases[cohort], "an alias is there twice"
        aliases[cohort].add(((anonymous_id,), uid))
    return accepted, doubts, aliases


def members(emulator: Emulator, cohort: str) -> set[Key]:
    """Return the members of a cohort in the emulator."""
    return {Member(*member).key for member in emulator.members(cohort)}
