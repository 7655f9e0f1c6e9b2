"""The model of the soak: a warehouse with streams in each sync mode, and their churn.

It is larger than tests/support/warehouse.py, and independent of the target's own decisions.
"""

import random
from dataclasses import dataclass, field

from target_moengage_cohort.core.membership import Key, Member
from tests.support.warehouse import Mark, Row

FAN = tuple(f"fan-{number}" for number in range(1, 13))
EARLY = FAN[:8]  # the others come later
LARGEST = {"users": 20_000, **dict.fromkeys(FAN, 1_000), "events": 5_000, "adds": 3_000}
ONE_TIME_SIZE = 1_500
PREFIX = "soaked"  # of every identifier, to detect leaks
STATES = 3  # among a run's incremental rows, in addition to the one at the end


@dataclass(frozen=True)
class Position:
    """The position of a tap in the two streams with a history; the content of STATE."""

    events: int = 0
    adds: int = 0


@dataclass
class Model:
    """The desired members of each cohort, and the rows of the streams with a history.

    Attributes:
        scale: The scale of the cohorts' sizes; 1 is up to 20,000 members.
        wanted: By cohort and key, each member.
        history: The rows of the incremental and the add-only stream, oldest first.
        position: The position in the latest STATE.
        one_time: The number of the current one_time stream; each is finished once.
        finished: Whether the current one_time stream is finished.
    """

    scale: float
    wanted: dict[str, dict[Key, Member]] = field(default_factory=dict)
    history: dict[str, list[Row]] = field(default_factory=lambda: {"events": [], "adds": []})
    position: Position = Position()
    one_time: int = 1
    finished: bool = False

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
        """Add and remove members: mostly a few, sometimes many or a whole cohort."""
        if not self.wanted:
            self._begin(chance)
            return
        for cohort, size in LARGEST.items():
            share = chance.choice([0.0, 0.001, 0.001, 0.01, 0.01, 0.1, 0.4])
            self._toggle(cohort, chance, share * size)
        for _ in range(chance.choice([0, 0, 0, 1, 3])):
            self.wanted[chance.choice(FAN)] = {}
        if not self.finished:
            return  # retries have the same members, since a one_time cohort removes none
        if chance.random() < 0.5:
            self.one_time += 1
            self.finished = False
        self._fill_one_time(chance)

    def _begin(self, chance: random.Random) -> None:
        for cohort, size in LARGEST.items():
            self.wanted[cohort] = {}
            if cohort not in FAN or cohort in EARLY:
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
        """Return all messages of a tap in a run, with streams and rows in random order.

        Args:
            chance: The source of randomness.
            wavers: Whether members may have an earlier row that contradicts their last one.
        """
        messages: list[Row | Mark] = []
        position = self.position
        for stream in chance.sample(list(self.streams), len(self.streams)):
            messages.append(Mark("schema", stream))
            if stream not in self.history:
                messages += self._snapshot(stream, chance, wavers=wavers)
                continue
            start, rows = getattr(self.position, stream), self.history[stream]
            marks = sorted(chance.choices(range(start, len(rows) + 1), k=STATES))
            for mark in marks:
                messages += rows[getattr(position, stream) : mark]
                position = _moved(position, stream, mark)
                messages.append(Mark("state", position))
            messages += rows[getattr(position, stream) :]
            position = _moved(position, stream, len(rows))
        return [*messages, Mark("state", position)]

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
    """Return a possible member: with a uid, an anonymous id, or both."""
    name = f"{PREFIX}-{cohort}-{number}"
    if cohort == "users" and number % 10 == 0:
        return Member(None, f"{name}-anonymous")
    return Member(name, f"{name}-device" if cohort == "users" and number % 3 == 0 else None)


def _moved(position: Position, stream: str, to: int) -> Position:
    if stream == "events":
        return Position(to, position.adds)
    return Position(position.events, to)
