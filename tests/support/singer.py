"""Singer messages, and runs of the target on them, in this process or in a separate one."""

import io
import json
import os
import subprocess
import sys
import threading
import time
import typing as t
import uuid
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from target_moengage_cohort.core.errors import TargetError
from target_moengage_cohort.core.interrupts import Interrupt, Patience
from target_moengage_cohort.core.text import iso_utc
from target_moengage_cohort.core.warning_log import WarningLog
from target_moengage_cohort.delivery.ports import Link, NoPace, Timing
from target_moengage_cohort.emulator import Emulator
from target_moengage_cohort.ledger.engines import open_store
from target_moengage_cohort.moengage.answers import Answer, Outcome
from target_moengage_cohort.moengage.transport import Transport
from target_moengage_cohort.settings import Config, load
from target_moengage_cohort.singer import lines as lines_module
from target_moengage_cohort.singer.writer import NoRejects, RejectsFile
from target_moengage_cohort.sync.context import Endpoints, RunContext
from target_moengage_cohort.sync.mirror import mirror_sink
from target_moengage_cohort.sync.mirror.recorder import Recorder
from target_moengage_cohort.sync.process import endpoints_of, record_mapper_of
from target_moengage_cohort.sync.reporting.report import Report, ReportHead
from target_moengage_cohort.sync.run import Run
from target_moengage_cohort.sync.segments.api_endpoints import api_endpoints

UNLIMITED = 1_000_000


def schema(stream: str = "users", columns: t.Iterable[str] = ("uid",), keys: t.Iterable[str] = ()):
    properties = {column: {} for column in columns}
    return {
        "type": "SCHEMA",
        "stream": stream,
        "schema": {"type": "object", "properties": properties},
        "key_properties": list(keys),
    }


def record(stream: str = "users", **row: t.Any):
    return {"type": "RECORD", "stream": stream, "record": row}


def activate_version(version: t.Any, stream: str = "users"):
    return {"type": "ACTIVATE_VERSION", "stream": stream, "version": version}


def state(value: t.Any):
    return {"type": "STATE", "value": value}


def lines(*messages: t.Any) -> bytes:
    """Return messages as the output of a tap; bytes are a line verbatim."""
    return b"".join(
        (message if isinstance(message, bytes) else json.dumps(message).encode()) + b"\n"
        for message in messages
    )


def config(emulator: Emulator, **settings: t.Any) -> dict[str, t.Any]:
    return {
        "workspace_id": emulator.workspace_id,
        "data_api_key": emulator.data_api_key,
        "data_center": "01",
        "partner": "acme",
        "api_url": emulator.url,
        "requests_per_minute": UNLIMITED,
        **settings,
    }


@dataclass
class Attempt:
    """A request body that was sent, and its result."""

    body: dict[str, t.Any]
    data: bytes
    outcome: Outcome | None = None


@dataclass
class Outcomes:
    """The results of a run in this process."""

    states: list[t.Any] = field(default_factory=list)
    attempts: list[Attempt] = field(default_factory=list)
    accepted_before: list[int] = field(default_factory=list)
    error: TargetError | None = None
    overlaps: int = 0
    report: Report | None = None

    @property
    def accepted(self) -> list[Attempt]:
        return [attempt for attempt in self.attempts if attempt.outcome is Outcome.ACCEPTED]


def run(
    emulator: Emulator,
    data: bytes | t.IO[bytes],
    timing: Timing | None = None,
    before: t.Callable[[Outcomes, Interrupt], None] | None = None,
    write_state: t.Callable[[bytes], None] | None = None,
    tap_exit: t.Callable[[], int] | None = None,
    step: t.Callable[[str], None] = lambda _name: None,
    *,
    piecemeal: bool = False,
    **settings: t.Any,
) -> Outcomes:
    """Run on an input in this process, and record the requests and the emitted STATE.

    Args:
        emulator: The emulated MoEngage.
        data: The input.
        timing: Clocks; by default real ones, and no wait before a retry.
        before: Called before each attempt.
        write_state: Called with each STATE that is emitted.
        tap_exit: The exit code of the tap that we started.
        step: Called at each step of a ledger.
        piecemeal: Decode each line by itself and stage three rows at a time, so that a small input
            is cut as a large one would be.
        **settings: Settings in addition to those of `config`.
    """
    with pytest.MonkeyPatch.context() as patch:
        if piecemeal:
            patch.setattr(lines_module, "PIECE_BYTES", 1)
            patch.setattr(mirror_sink, "_BATCH_ROWS", 3)
        return _run(emulator, data, timing, before, write_state, tap_exit, step, settings)


def _run(emulator, data, timing, before, write_state, tap_exit, step, settings) -> Outcomes:
    config_ = load(config(emulator, **settings))
    transport, interrupt, seen = Transport(config_.settings), Interrupt(), Outcomes()
    lock, busy, order = threading.Lock(), set(), []

    def send(body: bytes) -> Answer:
        sent = Attempt(json.loads(body), body)
        cohort = sent.body["parameters"]["cohort_id"]
        with lock:
            seen.attempts.append(sent)
            seen.overlaps += cohort in busy
            busy.add(cohort)
        if before is not None:
            before(seen, interrupt)
        answer = transport.send(body)
        with lock:
            busy.discard(cohort)
            sent.outcome = answer.outcome
            if answer.outcome is Outcome.ACCEPTED:
                order.append(sent)
        return answer

    def emit(value: bytes) -> None:
        if write_state is not None:
            write_state(value)
        seen.states.append(json.loads(value))
        with lock:
            seen.accepted_before.append(len(order))

    store = open_store(
        config_.settings,
        run_id=str(uuid.uuid4()),
        wait=interrupt.wait,
        read_only=config_.settings.dry_run,
        step=step,
        clock=time.time if timing is None else timing.wall_clock,
    )
    link = Link(send, NoPace(interrupt))
    running = open_run(config_, interrupt, store, link, emit, timing)
    try:
        running.read(io.BytesIO(data) if isinstance(data, bytes) else data)
        running.finish(tap_exit)
    except TargetError as error:
        seen.error = error
    seen.report = running.report
    seen.attempts = [*order, *(sent for sent in seen.attempts if sent not in order)]
    interrupt.close()
    return seen


def open_run(
    config: Config,
    interrupt: Interrupt,
    store: t.Any,
    link: Link,
    write_state: t.Callable[[bytes], None] = lambda _value: None,
    timing: Timing | None = None,
) -> Run:
    """Return a run like that of the target's process, except for its link and the output of STATE.

    A dry run has the endpoints of the process.
    """
    timing = timing or Timing(jitter=lambda _seconds: 0.0)
    began = iso_utc(timing.wall_clock())
    head = ReportHead(store.run_id, WarningLog(), config.settings, began)
    context = RunContext(head, config, interrupt, timing)
    if config.settings.dry_run:
        return Run(context, endpoints_of(context, store))
    path, patience = config.settings.rejects_path, Patience(interrupt.wait, 30.0)
    return Run(
        context,
        Endpoints(
            store=store,
            recorder=Recorder(store),
            link=link,
            write_state=write_state,
            rejects=NoRejects() if path is None else RejectsFile(path, store.run_id, patience),
            record_mapper=record_mapper_of(config.settings),
            apis=api_endpoints(context, store),
        ),
    )


@dataclass
class Finished:
    """The end of a process of the target."""

    code: int
    states: list[t.Any]
    stderr: str


def environment(home: Path, **variables: str) -> dict[str, str]:
    """Return this process's environment with a separate HOME and state directory."""
    return {**os.environ, "HOME": str(home), "XDG_STATE_HOME": str(home / "state"), **variables}


def start(home: Path, settings: dict[str, t.Any], *arguments: str, **variables: str):
    """Start the target as a separate process, with pipes to it."""
    home.mkdir(exist_ok=True)
    path = home / "config.json"
    path.write_text(json.dumps(settings))
    return subprocess.Popen(
        [sys.executable, "-m", "target_moengage_cohort", "--config", str(path), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(home, **variables),
    )


def finish(process: subprocess.Popen, data: bytes | None = None, timeout: float = 60) -> Finished:
    """Write the input of a process, and wait for its end."""
    out, err = process.communicate(data, timeout=timeout)
    return Finished(
        process.returncode, [json.loads(line) for line in out.splitlines()], err.decode()
    )
