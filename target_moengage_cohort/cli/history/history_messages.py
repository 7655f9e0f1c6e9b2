"""The history as Singer messages, for a target that writes it into a warehouse."""

from __future__ import annotations

import itertools
import typing as t

import msgspec

if t.TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from target_moengage_cohort.ledger.control.history_reader import HistoryReader
    from target_moengage_cohort.ledger.records import HistoryEntry, MemberChange
    from target_moengage_cohort.settings import Settings

_RECORDS_PER_STATE = 1_000

KEY = {"type": "string"}
TEXT, WHOLE, NUMBER = (
    {"type": ["null", "string"]},
    {"type": ["null", "integer"]},
    {"type": ["null", "number"]},
)
TIME = {"type": ["null", "string"], "format": "date-time"}
NAMES = {"type": ["null", "array"], "items": {"type": "string"}}
COUNTS = {"type": ["null", "object"], "additionalProperties": {"type": "integer"}}

_NUMBERS = {
    "added": WHOLE,
    "removed": WHOLE,
    "accepted": WHOLE,
    "turnover_percent": NUMBER,
    "records": WHOLE,
    "rejected": WHOLE,
    "removals_waiting": WHOLE,
    "removals_withheld": WHOLE,
    "in_doubt": WHOLE,
    "requests": WHOLE,
}
_OUTCOME = {"status": TEXT, "error": TEXT, "warnings": NAMES, "sync_mode": TEXT, "complete": TEXT}
_STORE = {"workspace_id": TEXT, "partner": TEXT}

STREAMS: dict[str, tuple[tuple[str, ...], dict[str, t.Any]]] = {
    "runs": (
        ("run_id",),
        {
            "run_id": KEY,
            **_STORE,
            "started_at": TIME,
            "finished_at": TIME,
            "duration_seconds": NUMBER,
            "started_by": TEXT,
            "host": TEXT,
            "streams": NAMES,
            "cohorts": WHOLE,
            **_OUTCOME,
            "exit_code": WHOLE,
            **_NUMBERS,
            "retries": WHOLE,
            "throttled_seconds": NUMBER,
        },
    ),
    "run_cohorts": (
        ("run_id", "cohort_id"),
        {
            "run_id": KEY,
            "cohort_id": KEY,
            **_STORE,
            "stream": TEXT,
            "started_at": TIME,
            "finished_at": TIME,
            **_OUTCOME,
            **_NUMBERS,
        },
    ),
    "actions": (
        ("run_id", "number"),
        {
            "run_id": KEY,
            "number": {"type": "integer"},
            **_STORE,
            "command": TEXT,
            "done_at": TIME,
            "done_by": TEXT,
            "host": TEXT,
            "stream": TEXT,
            "cohort_id": TEXT,
            "status": TEXT,
            "error": TEXT,
            "added": WHOLE,
            "removed": WHOLE,
            "counts": COUNTS,
        },
    ),
}
"""The key and the properties of each stream."""

CHANGES: dict[str, tuple[tuple[str, ...], dict[str, t.Any]]] = {
    "changes": (
        ("run_id", "number", "position"),
        {
            "run_id": KEY,
            "number": {"type": "integer"},
            "position": {"type": "integer"},
            **_STORE,
            "stream": TEXT,
            "cohort_id": TEXT,
            "action": TEXT,
            "uid": TEXT,
            "anonymous_id": TEXT,
            "accepted_at": TIME,
        },
    )
}
"""The same for the stream that has identifiers."""


class RunsBookmark(msgspec.Struct, frozen=True):
    """The runs that were written: up to a number, some of them before they had ended."""

    store_id: str = ""
    number: int = 0
    unfinished: tuple[str, ...] = ()


class Bookmark(msgspec.Struct, frozen=True):
    """The commands, or the changes, that were written, up to a number."""

    store_id: str = ""
    number: int = 0


class Bookmarks(msgspec.Struct, frozen=True):
    """What was written; other bookmarks in a STATE are ignored."""

    runs: RunsBookmark = RunsBookmark()
    actions: Bookmark = Bookmark()
    changes: Bookmark = Bookmark()


class State(msgspec.Struct, frozen=True):
    """The value of a STATE message."""

    bookmarks: Bookmarks = Bookmarks()


def read_state(content: bytes) -> State:
    """Return the last line of a file of STATE values; raise a `ValueError` if it is not one.

    An empty file means that nothing was written yet.
    """
    lines = [line for line in content.splitlines() if line.strip()]
    return msgspec.json.decode(lines[-1], type=State) if lines else State()


class HistoryMessages:
    """The messages that were not written yet; a run that had not ended is repeated."""

    def __init__(
        self,
        reader: HistoryReader,
        settings: Settings,
        since: str,
        written: Bookmarks,
        changes_after: Callable[[int], Iterator[MemberChange]] | None,
    ) -> None:
        self._reader = reader
        self._store = {"workspace_id": settings.workspace_id, "partner": settings.partner}
        self._since = since
        self._changes_after = changes_after  # none if they are not to be written
        store_id, last_run, last_action, last_change = reader.position()
        self._runs, self._actions, self._changes = written.runs, written.actions, written.changes
        # For another or a restored store, everything is written again; keys prevent duplicates.
        if self._runs.store_id != store_id or self._runs.number > last_run:
            self._runs = RunsBookmark(store_id)
        if self._actions.store_id != store_id or self._actions.number > last_action:
            self._actions = Bookmark(store_id)
        if self._changes.store_id != store_id or self._changes.number > last_change:
            self._changes = Bookmark(store_id)

    def __iter__(self) -> Iterator[dict[str, t.Any]]:
        """Yield SCHEMA, RECORD and STATE messages."""
        streams = STREAMS if self._changes_after is None else STREAMS | CHANGES
        for name, (key, properties) in streams.items():
            schema = {"type": "object", "properties": properties}
            yield {"type": "SCHEMA", "stream": name, "schema": schema, "key_properties": key}
        for records in (self._run_records(), self._action_records(), self._change_records()):
            for count, record in enumerate(records, 1):
                yield record
                if count % _RECORDS_PER_STATE == 0:
                    yield self._state()
        yield self._state()

    def _state(self) -> dict[str, t.Any]:
        return {
            "type": "STATE",
            "value": State(Bookmarks(self._runs, self._actions, self._changes)),
        }

    def _run_records(self) -> Iterator[dict[str, t.Any]]:
        former, number = self._runs.unfinished, self._runs.number
        again = filter(None, map(self._reader.run, former))
        unfinished: list[str] = []
        for run in itertools.chain(again, self._reader.runs_after(number, self._since)):
            yield self._record("runs", run, started_at=run.at, started_by=run.user)
            for each in self._reader.cohorts_of(run):
                yield self._record("run_cohorts", each, started_at=each.at)
            if run.finished_at is None:
                unfinished.append(run.run_id)
            if run.number > number:
                self._runs = RunsBookmark(self._runs.store_id, run.number, tuple(unfinished))
        self._runs = msgspec.structs.replace(self._runs, unfinished=tuple(unfinished))

    def _action_records(self) -> Iterator[dict[str, t.Any]]:
        store_id, number = self._actions.store_id, self._actions.number
        for each in self._reader.actions_after(number, self._since):
            facts = {"command": each.kind, "done_at": each.at, "done_by": each.user}
            yield self._record("actions", each, **facts)
            self._actions = Bookmark(store_id, each.number)

    def _change_records(self) -> Iterator[dict[str, t.Any]]:
        if self._changes_after is None:
            return
        changes = self._changes_after(self._changes.number)
        for number, members in itertools.groupby(changes, key=lambda each: each.number):
            for each in members:
                if each.accepted_at >= self._since:
                    record = msgspec.structs.asdict(each) | self._store
                    yield {"type": "RECORD", "stream": "changes", "record": record}
            self._changes = Bookmark(self._changes.store_id, number)

    def _record(self, stream: str, entry: HistoryEntry, **facts: object) -> dict[str, t.Any]:
        known = msgspec.structs.asdict(entry) | self._store | facts
        known["duration_seconds"] = entry.duration_seconds
        record = {name: known[name] for name in STREAMS[stream][1]}
        return {"type": "RECORD", "stream": stream, "record": record}
