"""What a tap's STATE says of a stream: whether the tap reads all of it; pure.

A tap that died in the middle of a full read leaves a mark where to resume. The rest that it reads
next looks like a whole audience: new version, ACTIVATE_VERSION, exit code 0 and all. The shapes
here are those that real taps write; `docs/taps.md` lists them.
"""

from __future__ import annotations

import json
import re
import typing as t

import msgspec
from msgspec import UNSET

from target_moengage_cohort.core.commands import how_to_clear_state
from target_moengage_cohort.core.errors import InputError

if t.TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

_OF_FULL_READS = {"version", "initial_full_table_complete", "success_timestamp"}
_METHOD, _FULL_TABLE = "last_replication_method", "FULL_TABLE"
_NAMES_OF_STREAM = ("currently_syncing", "current_stream")
_ENDED = ("initial_full_table_complete", "success_timestamp")
_RESUME_MARKS = {
    *("last_pk_fetched", "max_pk_values"),  # MySQL, SQL Server, Snowflake
    *("xmin", "ORA_ROWSCN"),  # PostgreSQL, Oracle
    *("last_id_fetched", "max_id_value", "last_evaluated_key"),  # MongoDB, DynamoDB
    *("JobID", "BatchIDs", "JobHighestBookmarkSeen"),  # Salesforce
    *("offset", "current_sync_start", "cursor"),  # HubSpot
}
_TIME = re.compile(r"\d{4}-\d\d-\d\d")
RESUMED = "resumed_read"


class TapState(msgspec.Struct, frozen=True):
    """The value of a STATE, or of several.

    Attributes:
        bookmarks: The entries in ``bookmarks``, or all if there is no such key, by the tap's name
            for the stream.
        outside: The entries outside ``bookmarks``.
        syncing: The streams that the tap says it is reading.
    """

    bookmarks: Mapping[str, t.Any] = {}
    outside: Mapping[str, t.Any] = {}
    syncing: frozenset[str] = frozenset()

    def after(self, earlier: TapState) -> TapState:
        """Return both; of two entries, one that is not whole counts."""
        return TapState(
            _joined(earlier.bookmarks, self.bookmarks), _joined(earlier.outside, self.outside)
        )

    def named(self, stream: str, streams: Collection[str] = ()) -> list[t.Any]:
        """Return the entries that name a stream, perhaps after a schema, a database or the like.

        `streams` are known; an entry with the name of another one is that one's.
        """
        entries = [*self.bookmarks.items(), *self.outside.items()]
        exact = [entry for key, entry in entries if key == stream]
        return exact or [entry for key, entry in entries if _fits(key, stream, streams)]

    def entries(self, stream: str, streams: Collection[str]) -> list[t.Any]:
        """Return the entries of a stream; if none names it, those that name none of the streams."""
        if named := self.named(stream, streams):
            return named
        return [
            entry
            for key, entry in (*self.bookmarks.items(), *_entries(self.outside).items())
            if not any(_fits(key, other) for other in streams)
        ]

    def is_whole(self, stream: str, streams: Collection[str], *, only_named: bool = False) -> bool:
        """Return whether a tap that gets this back reads all of a stream.

        Args:
            stream: The tap's name of it.
            streams: All of the tap's streams that are known.
            only_named: Whether only entries with its name are its own: the tap may not have it.
        """
        find = self.named if only_named else self.entries
        return all(map(_is_whole, find(stream, streams)))

    @property
    def is_all_whole(self) -> bool:
        """Whether a tap that gets this back reads all of each stream, from its beginning."""
        is_reading = any(map(self.is_reading, self.syncing))
        entries = [*self.bookmarks.values(), *_entries(self.outside).values()]
        return not is_reading and all(map(_is_whole, entries))

    def is_at(self, stream: str, streams: Collection[str] = ()) -> bool:
        """Return whether the tap says that it is reading a stream; one tap says so in the end."""
        return any(_fits(name, stream, streams) for name in self.syncing)

    def is_reading(self, stream: str, streams: Collection[str] = ()) -> bool:
        """Return whether the tap has begun to read a stream, and never ended."""
        if not self.is_at(stream, streams):
            return False
        entries = [entry for entry in self.named(stream, streams) if isinstance(entry, dict)]
        return not any(entry.get(key) for entry in entries for key in _ENDED)


def read_state(value: bytes) -> TapState:
    """Return what the value of a STATE says; what cannot be read is an entry that is not whole."""
    try:
        # More lenient than msgspec: it reads what any tap writes, numbers of any length included.
        content = json.loads(value, parse_int=float)
    except (ValueError, RecursionError):
        return TapState({"": UNSET})
    if not isinstance(content, dict):
        return TapState({"": content})
    names = (content.pop(key, None) for key in _NAMES_OF_STREAM)
    syncing = frozenset(name for name in names if isinstance(name, str))
    bookmarks = content.pop("bookmarks", UNSET)
    if bookmarks is UNSET:
        return TapState(_entries(content), content, syncing)
    if not isinstance(bookmarks, dict):
        bookmarks = {"": bookmarks}
    return TapState(bookmarks, content, syncing)


def refuse_method(state: TapState, stream: str, streams: Collection[str] = ()) -> InputError | None:
    """Return an error if the tap reports that it reads only new rows of a mirror's stream."""
    for entry in state.named(stream, streams):
        method = entry.get(_METHOD) if isinstance(entry, dict) else None
        if method is not None and method != _FULL_TABLE:
            return _keeps_bookmark(stream, f"a {_METHOD} other than {_FULL_TABLE}")
    return None


def refuse_properties(stream: str, properties: t.Any) -> InputError | None:
    """Return an error if the SCHEMA of a mirror's stream has ``bookmark_properties``."""
    if not properties:
        return None
    return _keeps_bookmark(stream, "bookmark_properties in its SCHEMA")


class TapStates:
    """The STATEs of a run.

    Attributes:
        last: The last one.
    """

    def __init__(self) -> None:
        self.last = TapState()
        self._all = TapState()
        self._before: dict[str, TapState] = {}  # by the tap's name of a stream

    def take(self, state: TapState) -> None:
        """Take a STATE."""
        self.last, self._all = state, state.after(self._all)

    def begin(self, stream: str) -> None:
        """Note that a row of a stream has come."""
        if stream not in self._before:
            self._before[stream] = self._all

    def is_early(self, state: TapState) -> bool:
        """Return whether a STATE names a stream as being read of which no row has come.

        A tap that is killed then and gets it back may leave out the stream, or its first read.
        """
        return any(
            state.is_reading(name) and not any(_fits(name, begun) for begun in self._before)
            for name in state.syncing
        )

    def fault(
        self,
        stream: str,
        streams: Collection[str],
        *,
        allows_bookmark: bool,
        is_proven: bool = True,
    ) -> InputError | None:
        """Return why the input of a mirror's stream is not complete, if STATE says so.

        Args:
            stream: The tap's name of it.
            streams: All of the tap's streams.
            allows_bookmark: Whether the mapping states that the tap reads all rows nevertheless.
            is_proven: Whether something else proves that the tap did not stop.
        """
        if self.last.is_reading(stream, streams):
            return _stopped(stream, "currently_syncing")
        for entry in self.last.entries(stream, streams):
            if mark := _resume_mark(entry):
                return _stopped(stream, mark)
            if not (_is_whole(entry) or allows_bookmark):
                return _keeps_bookmark(stream, f"{_part(entry)} in its last STATE")
        for entry in self._before.get(stream, self._all).entries(stream, streams):
            mark = _resume_mark(entry)
            if mark or not (_is_whole(entry) or allows_bookmark):
                part = mark or _part(entry)
                return resumed(stream, f"before its first row, the STATE has {part}")
        if self.last.is_at(stream, streams) and not is_proven:  # ended in an earlier run, maybe
            return _stopped(stream, "currently_syncing")
        return None


def _fits(key: str, stream: str, streams: Collection[str] = ()) -> bool:
    """Return whether a tap's name is that of a stream: `users` is `shop-users`, too.

    That is not so if `shop-users` is one of the known streams.
    """
    if key == stream or key in streams:
        return key == stream
    return re.search(rf"[^0-9A-Za-z_]{re.escape(stream)}\Z", key) is not None


def _entries(content: Mapping[str, t.Any]) -> dict[str, t.Any]:
    """Return what may be entries of streams outside ``bookmarks``: objects and times.

    Any other value may mean anything, unless its name is that of a stream.
    """
    return {
        key: each
        for key, each in content.items()
        if isinstance(each, dict) or (isinstance(each, str) and _TIME.match(each))
    }


def _is_whole(entry: t.Any) -> bool:
    if not isinstance(entry, dict):
        return entry is None or (isinstance(entry, int | float) and not isinstance(entry, bool))
    return not any(True for _ in _parts(entry))


def _parts(entry: Mapping[str, t.Any]) -> Iterator[str]:
    """Yield the keys because of which an entry is not whole."""
    for key, value in entry.items():
        if value is None or key in _OF_FULL_READS or (key == _METHOD and value == _FULL_TABLE):
            continue
        # The SDK's child streams have a partition for each parent, bookmark or none.
        if key == "partitions" and isinstance(value, list):
            rests = [
                {name: each for name, each in part.items() if name != "context"}
                for part in value
                if isinstance(part, dict)
            ]
            if len(rests) == len(value) and all(map(_is_whole, rests)):
                continue
        yield key


def _part(entry: t.Any) -> str:
    """Return a name of what makes an entry not whole, without any value."""
    return repr(next(_parts(entry))) if isinstance(entry, dict) else "a bookmark"


def _resume_mark(entry: t.Any) -> str | None:
    if not isinstance(entry, dict):
        return None
    return next((repr(key) for key in _parts(entry) if key in _RESUME_MARKS), None)


def _joined(earlier: Mapping[str, t.Any], later: Mapping[str, t.Any]) -> dict[str, t.Any]:
    cut = {key: entry for key, entry in earlier.items() if not _is_whole(entry)}
    return {**earlier, **later, **cut}


def _keeps_bookmark(stream: str, what: str) -> InputError:
    msg = (
        f"the tap keeps a bookmark for the stream {stream!r} ({what}), so it omits rows, and their "
        "members would be removed. Set the stream's replication method to FULL_TABLE: the sync "
        "modes mirror and one_time need the whole query each time. If it is set already, the "
        f"bookmark is left from before. {how_to_clear_state()}. If the tap reads all rows "
        "nevertheless, set allow_bookmark in the stream's mapping"
    )
    return InputError("bookmark_for_mirror", msg)


def _stopped(stream: str, mark: str) -> InputError:
    msg = (
        f"the tap stopped in the middle of the stream {stream!r} ({mark} in its last STATE), so no "
        "members are removed. That STATE is not written, and the next run reads everything. Check "
        "the tap's log, then run again"
    )
    return InputError("stopped_read", msg)


def resumed(stream: str, why: str) -> InputError:
    """Return the error of an input that may be only the rest of a stream."""
    msg = (
        f"the stream {stream!r} may contain only the rest of an interrupted read: {why}. No "
        f"members are removed. {how_to_clear_state()}"
    )
    return InputError(RESUMED, msg)
