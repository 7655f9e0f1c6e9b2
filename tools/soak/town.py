"""A larger warehouse than tests/support/warehouse.py: streams in each sync mode, and their churn.

It is the model of the soak; nothing of the target's own judgement is in it.
"""

import random
from dataclasses import dataclass, field

from target_moengage_cohort.core.membership import Key, Member
from tests.support.warehouse import Mark, Row

FAN = tuple(f"fan-{number}" for number in range(1, 5))
LARGEST = {"users": 20_000, **dict.fromkeys(FAN, 3_000), "events": 5_000, "adds": 3_000}
ONE_TIME_SIZE = 1_500
PREFIX = "soaked"  # of every identifier, so that a leak is found by it
LATEST_STATES = 3  # of a run's incremental rows, beside the one at the end


@dataclass(frozen=True)
class Position:
    """How far a tap has read the two streams that have a history; it is what STATE holds."""

    events: int = 0
    adds: int = 0


@dataclass
class Town:
    """Who is wanted in which cohort, and what happened in the streams with a history.

    Attributes:
        scale: Of the sizes of cohorts; 1 is up to 20,000 members.
        wanted: By cohort and key, each member.
        history: What the incremental stream and the one that only adds have had, oldest first.
        position: What the STATE that was kept says of it.
        one_time: The number of the one_time stream that a run reads; each is sealed once.
        sealed: Whether that is known to be.
    """

    scale: float
    wanted: dict[str, dict[Key, Member]] = field(default_factory=dict)
    history: dict[str, list[Row]] = field(default_factory=lambda: {"events": [], "adds": []})
    position: Position = Position()
    one_time: int = 1
    sealed: bool = False

    @property
    def streams(self) -> dict[str, tuple[str, ...]]:
        """The cohorts of each stream."""
        once = f"once-{self.one_time}"
        return {
            "users": ("users",),
            "fan": FAN,
            "events": ("events",),
            "adds": ("adds",),
            once: (once,),
        }

    @property
    def modes(self) -> dict[str, str]:
        """The sync mode of each stream."""
        modes = {"users": "mirror", "fan": "mirror", "events": "incremental", "adds": "add"}
        return modes | {f"once-{self.one_time}": "one_time"}

    @property
    def cohorts(self) -> dict[str, str]:
        """The stream of each cohort."""
        return {cohort: stream for stream, all_ in self.streams.items() for cohort in all_}

    def churn(self, chance: random.Random) -> None:
        """Let members join and leave: mostly a few, now and then many or a whole cohort."""
        if not self.wanted:
            self._begin(chance)
            return
        for cohort, size in LARGEST.items():
            share = chance.choice([0.0, 0.001, 0.001, 0.01, 0.01, 0.1, 0.4])
            self._toggle(cohort, chance, share * size)
        if chance.random() < 0.1:
            self.wanted[chance.choice(FAN)] = {}
        if not self.sealed:
            return  # as it was at each try, since who has joined a one_time cohort stays
        if chance.random() < 0.5:
            self.one_time += 1
            self.sealed = False
        self._fill_one_time(chance)

    def _begin(self, chance: random.Random) -> None:
        for cohort, size in LARGEST.items():
            self.wanted[cohort] = {}
            self._toggle(cohort, chance, chance.uniform(0.3, 0.7) * size)
        self._fill_one_time(chance)

    def _fill_one_time(self, chance: random.Random) -> None:
        people = self._chosen("once", ONE_TIME_SIZE, chance, ONE_TIME_SIZE * 0.6)
        self.wanted[f"once-{self.one_time}"] = {member.key: member for member in people}

    def _toggle(self, cohort: str, chance: random.Random, count: float) -> None:
        wanted = self.wanted[cohort]
        for member in self._chosen(cohort, LARGEST[cohort], chance, count):
            present = cohort == "adds" or member.key not in wanted
            if present:
                wanted[member.key] = member
            else:
                del wanted[member.key]
            if cohort in self.history:
                self.history[cohort].append(Row(cohort, cohort, member, present))

    def _chosen(self, cohort: str, size: int, chance: random.Random, count: float) -> list[Member]:
        people = range(max(10, int(size * self.scale)))
        chosen = chance.sample(people, min(len(people), round(count * self.scale)))
        return [_member(cohort, number) for number in chosen]

    def messages(self, chance: random.Random, *, wavers: bool) -> list[Row | Mark]:
        """All that a tap says in a run, with the streams and rows in an order of their own.

        Args:
            chance: The dice.
            wavers: Whether members may have a row before their last one that says otherwise.
        """
        said: list[Row | Mark] = []
        position = self.position
        for stream in chance.sample(list(self.streams), len(self.streams)):
            said.append(Mark("schema", stream))
            if stream not in self.history:
                said += self._snapshot(stream, chance, wavers=wavers)
                continue
            start, rows = getattr(self.position, stream), self.history[stream]
            marks = sorted(chance.choices(range(start, len(rows) + 1), k=LATEST_STATES))
            for mark in marks:
                said += rows[getattr(position, stream) : mark]
                position = _moved(position, stream, mark)
                said.append(Mark("state", position))
            said += rows[getattr(position, stream) :]
            position = _moved(position, stream, len(rows))
        return [*said, Mark("state", position)]

    def _snapshot(self, stream: str, chance: random.Random, *, wavers: bool) -> list[Row]:
        rows = []
        for cohort in self.streams[stream]:
            wanted = self.wanted[cohort]
            rows += [Row(stream, cohort, member, present=True) for member in wanted.values()]
            size = LARGEST.get(cohort, ONE_TIME_SIZE)
            others = self._chosen(cohort.partition("-")[0], size, chance, size * 0.02)
            others = [] if stream.startswith("once") else others
            rows += [
                Row(stream, cohort, member, present=False)
                for member in others
                if member.key not in wanted
            ]
        chance.shuffle(rows)
        if not wavers:
            return rows
        earlier = [row._replace(present=False) for row in rows if chance.random() < 0.02]
        return [*earlier, *rows]


def _member(cohort: str, number: int) -> Member:
    """One of a cohort's people: with a uid, with an anonymous id, or with both."""
    name = f"{PREFIX}-{cohort}-{number}"
    if cohort == "users" and number % 10 == 0:
        return Member(None, f"{name}-anonymous")
    return Member(name, f"{name}-device" if cohort == "users" and number % 3 == 0 else None)


def _moved(position: Position, stream: str, to: int) -> Position:
    if stream == "events":
        return Position(to, position.adds)
    return Position(position.events, to)
