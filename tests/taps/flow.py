"""A tap and the target as processes, in a pipe or by `moengage-cohort run`, run after run."""

import json
import shlex
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from target_moengage_cohort.emulator import Emulator
from target_moengage_cohort.emulator.model import Incoming, Reply
from target_moengage_cohort.emulator.state import State
from tests.support import cut_tap
from tests.support.processes import run_guarded
from tests.support.project import ROOT, destination, plain_environment, program
from tests.support.singer import UNLIMITED
from tests.taps.sources import KEY, Source

COHORT = "vip"
RUN_SECONDS = 180


class WatchedState(State):
    """The state of an emulator that looks at each request before it applies it."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.audience: set[str] = set()
        self.removed: list[str] = []
        self.wrongly_removed: list[str] = []

    def receive(self, incoming: Incoming) -> Reply:
        body = json.loads(incoming.body)
        if body["action"] == "remove_members":
            uids = [member["uid"] for member in body["parameters"]["members"]]
            self.removed += uids
            self.wrongly_removed += self.audience.intersection(uids)
        return super().receive(incoming)


class Watched(Emulator):
    """An emulator that notes whose removal is requested, and who of them belongs."""

    state: WatchedState

    def __init__(self) -> None:
        super().__init__(requests_per_minute=UNLIMITED)
        self.state = WatchedState(self.state.options)


@dataclass(frozen=True)
class Ran:
    """A run that has ended.

    Attributes:
        tap_exit: The exit code of the tap, negative after a signal.
        exit_code: That of the target.
        error: The code of the error that it ended with.
        messages: What the tap wrote.
        states: The values of the STATE messages that the target wrote.
        removed: The members whose removal it requested.
        requests: How many requests it sent.
        stderr: What both said.
    """

    tap_exit: int
    exit_code: int
    error: str | None
    messages: list[dict]
    states: list[Any]
    removed: set[str]
    requests: int
    stderr: str

    @property
    def records(self) -> int:
        """How many records the tap wrote."""
        return sum(message["type"] == "RECORD" for message in self.messages)

    @property
    def tap_states(self) -> list[Any]:
        """The values of the STATE messages that the tap wrote."""
        return [message["value"] for message in self.messages if message["type"] == "STATE"]


@dataclass
class Flow:
    """A tap and the target with their files in a folder.

    Attributes:
        folder: The folder.
        source: The database.
        moengage: The emulator.
        program: The tap.
        state: The STATE for the next run: the last one that the target wrote.
        is_run: Whether `moengage-cohort run` starts the tap, in place of a pipe.
    """

    folder: Path
    source: Source
    moengage: Watched
    program: str
    state: Any = None
    is_run: bool = False
    _catalog: list[dict] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._environment = plain_environment(self.folder / "home")
        self._write("tap.json", self.source.tap_settings())
        done = self._bash([self.program, "--config", "tap.json", "--discover"])
        self._catalog = json.loads(done.stdout)["streams"]

    def mirror(self, table: str, method: str = "FULL_TABLE") -> None:
        """Make the cohort a mirror of a table; the guard withholds nothing."""
        self._select(table, method)
        self._configure(table, sync_mode="mirror", max_removal_percent=100)

    def follow(self, table: str, method: str) -> None:
        """Let the cohort follow the changes of a table."""
        self._select(table, method)
        self._configure(table, sync_mode="incremental")

    def members(self) -> set[str | None]:
        return {member.uid for member in self.moengage.members(COHORT)}

    def run(self, kill_after: int = 0) -> Ran:
        """Run both, and keep the STATE that comes out; nobody who belongs is ever removed.

        Args:
            kill_after: The record after which the tap is killed; 0 lets it end.
        """
        watched, requests = self.moengage.state, self.moengage.totals().requests
        watched.audience, watched.removed = self.source.audience(), []
        report = self.folder / "report.json"
        report.unlink(missing_ok=True)
        tap, target = self._tap(kill_after), ["--config", "target.json"]
        if self.is_run:
            done = self._bash([program("moengage-cohort"), "run", *target, "--", *tap])
        else:
            done = self._bash(tap, [program("target-moengage-cohort"), *target])
        states = [json.loads(line) for line in done.stdout.splitlines()]
        self.state = states[-1] if states else self.state
        error = json.loads(report.read_text()).get("error")
        assert [] == watched.wrongly_removed, done.stderr
        return Ran(
            tap_exit=int((self.folder / "tap-exit").read_text()),
            exit_code=done.returncode,
            error=error and error["code"],
            messages=self._messages(),
            states=states,
            removed=set(watched.removed),
            requests=self.moengage.totals().requests - requests,
            stderr=done.stderr,
        )

    def last_state_of_tap(self) -> Any:
        """Run the tap without the target; return its last STATE."""
        self._bash(self._tap(0))
        return [each["value"] for each in self._messages() if each["type"] == "STATE"][-1]

    def _tap(self, kill_after: int) -> list[str]:
        self.source.settle()
        cut = [sys.executable, cut_tap.__file__, str(kill_after), str(self.folder)]
        tap = [self.program, "--config", "tap.json", "--catalog", "catalog.json"]
        if self.state is not None:
            self._write("state.json", self.state)
            tap += ["--state", "state.json"]
        return [*cut, *tap]

    def _messages(self) -> list[dict]:
        return [json.loads(line) for line in (self.folder / "messages").read_text().splitlines()]

    def _select(self, table: str, method: str) -> None:
        name = self.source.stream(table)
        (stream,) = [each for each in self._catalog if each["tap_stream_id"] == name]
        chosen = {"replication-method": method, "replication-key": KEY}
        if method != "INCREMENTAL":
            del chosen["replication-key"]
        stream = json.loads(json.dumps(stream))
        for entry in stream["metadata"]:
            entry["metadata"] |= {"selected": True} | (chosen if not entry["breadcrumb"] else {})
        self._write("catalog.json", {"streams": [stream]})

    def _configure(self, table: str, **settings: Any) -> None:
        mapping = {"cohort_id": COHORT, "cohort_name": COHORT} | settings
        places = {"ledger_uri": str(self.folder / "ledger")}
        places["report_path"] = str(self.folder / "report.json")
        cohorts = {"cohorts": {self.source.stream(table): mapping}}
        limit = {"requests_per_minute": UNLIMITED}
        self._write("target.json", destination(self.moengage) | places | limit | cohorts)

    def _write(self, name: str, value: Any) -> None:
        (self.folder / name).write_text(json.dumps(value))

    def _bash(self, *commands: list[str]) -> Any:
        """Run commands in a pipe; its exit code is that of the last."""
        pipe = " | ".join(map(shlex.join, commands))
        return run_guarded(
            ["bash", "-c", pipe],
            cwd=self.folder,
            env=self._environment,
            timeout=RUN_SECONDS,
        )


def tap_program(name: str) -> Path:
    """Return where `make test-long` installs a tap."""
    return ROOT / f".venv-tap-{name}" / "bin" / f"tap-{name}"
