"""A warehouse with the desired members of each cohort, its taps, and their proofs.

It is the model for whole runs, and independent of the target's own decisions.
"""

import random
import typing as t
from dataclasses import dataclass, field

from target_moengage_cohort.core.membership import Key, Member
from tests.support.singer import activate_version, lines, record, schema, state

FAN = ("fan-1", "fan-2", "fan-3")
CROWD = tuple(f"crowd-{number}" for number in range(1, 21))
ONCE = ("once-1", "once-2", "once-3")
STREAMS = {
    "plain": ("plain",),
    "pairs": ("pairs",),
    "fan": FAN,
    "crowd": CROWD,
    "once": ONCE,
    "events": ("events",),
}
FAN_OUTS = ("fan", "crowd", "once")
SNAPSHOTS = {"mirror", "one_time"}  # the sync modes in which a stream is whole cohorts
COHORTS = {cohort: stream for stream, cohorts in STREAMS.items() for cohort in cohorts}
COLUMNS = ("uid", "anonymous_id", "cohort", "n", "_sdc_deleted_at")
MODES = ("mirror", "incremental", "add")


def people(name: str, count: int) -> list[str]:
    """Return IDs, about four of which fit into a body of 1,000 bytes."""
    return [f"{name}-{number}-{'x' * 180}" for number in range(count)]


UIDS = people("uid", 30)
FEW_UIDS = 5  # of which the cohorts of `crowd` and `once` consist
ANONYMOUS = people("anonymous", 6)
PAIRS = [
    *(Member(uid, None) for uid in UIDS[:6]),
    *(Member(None, one) for one in ANONYMOUS),
    *(Member(uid, one) for uid in UIDS[:3] for one in ANONYMOUS[:4]),
]


class Row(t.NamedTuple):
    """A row of a tap: one member of one cohort."""

    stream: str
    cohort: str
    member: Member
    present: bool


class Mark(t.NamedTuple):
    """A message other than a row: a SCHEMA, an ACTIVATE_VERSION, or a STATE with its position."""

    kind: str
    value: t.Any


@dataclass
class Warehouse:
    """The desired members of each cohort, and the history of the event stream.

    Attributes:
        wanted: By cohort and key, the row of each member.
        events: The rows of the incremental stream, oldest first.
        position: The number of events that the last STATE covers.
        modes: The sync mode of each stream.
    """

    wanted: dict[str, dict[Key, Member]] = field(
        default_factory=lambda: {cohort: {} for cohorts in STREAMS.values() for cohort in cohorts}
    )
    events: list[Row] = field(default_factory=list)
    position: int = 0
    modes: dict[str, str] = field(
        default_factory=lambda: (
            dict.fromkeys(STREAMS, "mirror") | {"events": "incremental", "once": "one_time"}
        )
    )

    def toggle(self, cohort: str, whom: int) -> None:
        """Change the membership of the selected members of a cohort; each bit selects one."""
        for uid in _chosen(UIDS, whom):
            present = self.wanted[cohort].pop(uid, None) is None
            if present:
                self.wanted[cohort][uid] = Member(uid)
            if cohort == "events":
                self.events.append(Row("events", "events", Member(uid), present))

    def empty(self, cohort: str) -> None:
        """Remove all members."""
        self.toggle(cohort, sum(1 << UIDS.index(str(key)) for key in self.wanted[cohort]))

    def toggle_pairs(self, whom: int) -> None:
        """Remove the selected members that have exactly these identifiers; add or update the
        rest."""
        wanted = self.wanted["pairs"]
        for member in _chosen(PAIRS, whom):
            if wanted.get(member.key) == member:
                del wanted[member.key]
            else:
                wanted[member.key] = member

    def messages(self, seed: int, *, versions: bool, wavers: bool) -> list[Row | Mark]:
        """Return all messages of a tap in a run, in an order that depends on the seed.

        Args:
            seed: The seed of the order.
            versions: Whether streams end with an ACTIVATE_VERSION.
            wavers: Whether members may have an earlier row that contradicts their last one.
        """
        chance = random.Random(seed)
        streams = chance.sample(list(STREAMS), len(STREAMS))
        schemas_first = chance.random() < 0.7
        said: list[Row | Mark] = [Mark("schema", stream) for stream in streams if schemas_first]
        for stream in streams:
            said += () if schemas_first else (Mark("schema", stream),)
            said += self._rows(stream, chance, wavers=wavers)
            said += [Mark("activate", stream)] if versions and stream != "events" else []
        if said[-1] != Mark("state", len(self.events)):
            said.append(Mark("state", len(self.events)))
        return said

    def _rows(self, stream: str, chance: random.Random, *, wavers: bool) -> list[Row | Mark]:
        if stream == "events":
            said: list[Row | Mark] = []
            for number, row in enumerate(self.events[self.position :], self.position + 1):
                said.append(row)
                said += [Mark("state", number)] if chance.random() < 0.2 else []
            return said
        rows = []
        mentions = self.modes[stream] not in SNAPSHOTS or chance.random() < 0.3
        uids = UIDS[:FEW_UIDS] if stream in {"crowd", "once"} else UIDS
        for cohort in STREAMS[stream]:
            if mentions and stream != "pairs":
                others = [uid for uid in uids if uid not in self.wanted[cohort]]
                rows += [Row(stream, cohort, Member(uid), present=False) for uid in others]
            rows += [Row(stream, cohort, one, present=True) for one in self.wanted[cohort].values()]
        chance.shuffle(rows)
        if not (wavers and mentions):
            return rows
        earlier = [row._replace(present=False) for row in rows if row.present]
        return [*(row for row in earlier if chance.random() < 0.2), *rows]


@dataclass
class Input:
    """The part of a tap's messages that reaches the target, and its consequences.

    Attributes:
        read: The complete messages.
        data: The bytes.
        proven: By stream, whether it is known to be complete.
        fault: Whether it is known to be incomplete.
    """

    read: list[Row | Mark]
    data: bytes
    proven: dict[str, bool]
    fault: bool

    @classmethod
    def of(
        cls,
        said: list[Row | Mark],
        length: int,
        *,
        counts: bool,
        version: int | None,
        broken: bool,
        tap_exit: int | None,
    ) -> "Input":
        """Return the first messages as an input."""
        read = said[:length]
        numbers = {stream: _count(said, stream) for stream in STREAMS}
        messages = [_message(at, each, numbers, version) for at, each in enumerate(read)]
        seen = {stream: _count(read, stream) for stream in STREAMS}
        fault = broken or bool(tap_exit)
        proven = {}
        for stream in STREAMS:
            counted = counts and seen[stream] > 0
            activated = (
                version is not None and Mark("activate", stream) in read and seen[stream] > 0
            )
            proven[stream] = counted or activated or tap_exit == 0
        data = lines(*messages) + (b'{"type": "RECORD", "str' if broken else b"")
        return cls(read, data, proven, fault)

    def miscounts(self, said: list[Row | Mark], modes: dict[str, str]) -> bool:
        """Return whether a snapshot has some of its rows but not all."""
        snapshots = [stream for stream in STREAMS if modes[stream] in SNAPSHOTS]
        pairs = ((_count(self.read, s), _count(said, s)) for s in snapshots)
        return any(0 < seen < number for seen, number in pairs)

    def rows(self, cohort: str, before: int | None = None) -> list[tuple[int, Row]]:
        """Return the rows of a cohort that were read, with the indexes of their messages."""
        rows = enumerate(self.read[:before])
        return [(at, row) for at, row in rows if isinstance(row, Row) and row.cohort == cohort]

    def met(self, stream: str, before: int | None = None) -> bool:
        """Return whether the stream has begun."""
        return Mark("schema", stream) in self.read[:before]


_T = t.TypeVar("_T")


def _chosen(all_of_them: list[_T], bits: int) -> list[_T]:
    return [one for number, one in enumerate(all_of_them) if bits >> number & 1]


def _count(said: list[Row | Mark], stream: str) -> int:
    return sum(isinstance(each, Row) and each.stream == stream for each in said)


def _message(
    at: int, said: Row | Mark, numbers: dict[str, int], version: int | None
) -> dict[str, t.Any]:
    if isinstance(said, Mark):
        if said.kind == "schema":
            return schema(said.value, COLUMNS)
        if said.kind == "activate":
            return activate_version(version, said.value)
        return state({"at": at, "position": said.value})
    columns = {"uid": said.member.uid, "anonymous_id": said.member.anonymous_id}
    columns |= {"cohort": said.cohort, "n": numbers[said.stream]}
    columns |= {} if said.present else {"_sdc_deleted_at": "2026-11-22T04:00:00Z"}
    message = record(said.stream, **columns)
    return message if version is None else {**message, "version": version}
