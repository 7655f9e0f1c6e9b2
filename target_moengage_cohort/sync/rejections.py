"""Rows that cannot be delivered, appended to a file as Singer messages that can be replayed."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import re
import threading
import typing as t
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from target_moengage_cohort.core.errors import SettingsError, TryAgainError
from target_moengage_cohort.core.membership import Action, SyncMode
from target_moengage_cohort.singer.messages import DELETED_AT, Schema

if t.TYPE_CHECKING:
    from collections.abc import Iterator

    from target_moengage_cohort.core.errors import RowError
    from target_moengage_cohort.core.membership import Cohort, Member
    from target_moengage_cohort.settings import Mapping, Settings

logger = logging.getLogger(__name__)

_LOGGED = 10  # of each reason
_encode = msgspec.json.Encoder(decimal_format="number").encode
_LINE_START = b'{"type":"'
REASON = "_reject_reason"
MAPPED = "_reject_mapped"
"""Stands in the SCHEMA of rows to which stream maps have been applied already."""

_REJECT_PROPERTIES: dict[str, t.Any] = {
    REASON: {"type": ["string", "null"]},
    "_reject_run_id": {"type": ["string", "null"]},
    "_reject_at": {"type": ["string", "null"], "format": "date-time"},
}


class Rejections:
    """The rejected rows of one run: counted, told of, and kept in the rejects file.

    Args:
        settings: The run's settings.
        run_id: The run.

    Attributes:
        unplaced: By their stream, how many rows named no cohort.

    Raises:
        SettingsError: The rejects file cannot be opened.
    """

    def __init__(self, settings: Settings, run_id: str) -> None:
        self.unplaced: Counter[str] = Counter()
        self._lock = threading.Lock()  # rows are rejected by the reader and by senders
        self._reasons: Counter[str] = Counter()
        self._file: RejectsFile | None = None
        if isinstance(settings.rejects_path, str) and not settings.dry_run:
            self._file = RejectsFile(settings.rejects_path, run_id)

    def refuse_own_file(self, source: t.IO[t.Any]) -> None:
        """Refuse to read the file that rejected rows are appended to: it would have no end.

        Raises:
            SettingsError: That is what is being read.
        """
        try:
            descriptor = source.fileno()
        except OSError:
            return
        if self._file is not None and self._file.is_file(descriptor):
            msg = (
                "rejects_path: is the file that is being read; rename that file before you "
                "replay it, so that rows which are rejected again go to a new one"
            )
            raise SettingsError(msg)

    def place(self, stream: str, error: RowError) -> None:
        """Count a row for its stream if it names no cohort."""
        if error.cohort_id is None:
            self.unplaced[stream] += 1

    def append(
        self,
        stream: Schema,
        record: dict[str, t.Any],
        reason: str,
        where: t.Callable[[str], str],
    ) -> None:
        """Keep one row.

        Args:
            stream: The row's stream.
            record: The row.
            reason: Why it cannot be delivered.
            where: Puts before a message where the row came from.

        Raises:
            TryAgainError: It could not be written.
        """
        kind = re.sub(r" \(request_id [\w-]+\)", "", reason)  # it is another one each time
        with self._lock:
            self._reasons[kind] += 1
            if self._reasons[kind] <= _LOGGED:
                logger.warning("%s", where(f"row rejected: {kind}"))
            if self._file is not None:
                self._file.append(stream, record, reason)

    def sync(self) -> None:
        """Make all that was kept durable.

        Raises:
            TryAgainError: It could not be.
        """
        if self._file is not None:
            self._file.sync()

    def close(self) -> None:
        """Say how many there were, make them durable, and close the file.

        Raises:
            TryAgainError: They could not be made durable.
        """
        for reason, count in self._reasons.items():
            if count > _LOGGED:
                logger.warning("%d rows in all were rejected: %s", count, reason)
        if self._file is not None:
            self._file.close()


def row_of(
    cohort: Cohort, mapping: Mapping, action: Action, member: Member
) -> tuple[Schema, dict[str, t.Any]]:
    """A row that asks for a change again, of the columns that the mapping knows.

    It is for a member whom MoEngage refuses, when the row that asked for it is long gone.
    """
    given = {
        mapping.uid_column: member.uid,
        mapping.anonymous_id_column: member.anonymous_id,
        mapping.cohort_id_column: cohort.cohort_id,
        mapping.cohort_name_column: cohort.name,
        mapping.membership_column: action is Action.ADD,
    }
    row = {column: value for column, value in given.items() if column is not None}
    if action is Action.REMOVE and mapping.sync_mode is not SyncMode.REMOVE:
        row[DELETED_AT] = datetime.now(UTC).isoformat(timespec="milliseconds")
    schema = {"type": "object", "properties": {column: {} for column in (*row, MAPPED)}}
    return Schema(mapping.stream, schema, []), row


def check(path: str) -> None:
    """Check that rejected rows can be appended to a file; it is not made if it is not there.

    Raises:
        SettingsError: They cannot.
    """
    folder = Path(path).resolve().parent
    try:
        if os.path.lexists(path):
            descriptor = os.open(path, os.O_RDWR | os.O_APPEND)
            try:
                _torn_line(descriptor, path)
            finally:
                os.close(descriptor)
        elif not (folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)):
            raise _unusable(path, "its folder is not there, or not writable")
    except OSError as error:
        raise _unusable(path, error.strerror) from None


def _unusable(path: str, why: str | None) -> SettingsError:
    return SettingsError(
        f"rejects_path: {path} cannot be opened ({why}); make its folder, let both be writable, or "
        "name another file"
    )


def _torn_line(descriptor: int, path: str) -> int | None:
    """Where the line begins that a run which died left unfinished, if there is one.

    Raises:
        SettingsError: What is there is no line of ours, so it is not ours to cut.
    """
    size = os.fstat(descriptor).st_size
    if not size or os.pread(descriptor, 1, size - 1) == b"\n":
        return None
    end = size
    while end > 0:
        start = max(0, end - 65_536)
        newline = os.pread(descriptor, end - start, start).rfind(b"\n")
        if newline >= 0:
            end = start + newline + 1
            break
        end = start
    line = os.pread(descriptor, size - end, end)
    if not line.startswith(_LINE_START[: len(line)]):
        msg = f"rejects_path: {path} is not a file of rejected rows; name another one"
        raise SettingsError(msg)
    return end


class RejectsFile:
    """Appends rejected rows, each stream's SCHEMA before its first one.

    Args:
        path: The file; made if it is not there, readable by its owner only.
        run_id: What ``_reject_run_id`` says.

    Raises:
        SettingsError: The file cannot be opened.
    """

    def __init__(self, path: str, run_id: str) -> None:
        self._path = Path(path)
        self._run_id = run_id
        self._announced: dict[str, Schema] = {}
        self._dirty = False
        self._lost: TryAgainError | None = None
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
            with self._locked():
                self._mend_torn_line()
        except OSError as error:
            raise _unusable(path, error.strerror) from None

    def is_file(self, descriptor: int) -> bool:
        """Whether a descriptor is of this very file."""
        return os.path.sameopenfile(self._file, descriptor)

    def append(self, stream: Schema, record: dict[str, t.Any], reason: str) -> None:
        """Append one row; not durable before `sync`.

        Raises:
            TryAgainError: It could not be written.
        """
        messages: list[dict[str, t.Any]] = []
        if self._announced.get(stream.stream) != stream:
            properties = stream.schema["properties"] | _REJECT_PROPERTIES
            messages.append(
                {
                    "type": "SCHEMA",
                    "stream": stream.stream,
                    "schema": stream.schema | {"properties": properties},
                    "key_properties": stream.key_properties,
                }
            )
        added = {
            REASON: reason,
            "_reject_run_id": self._run_id,
            "_reject_at": datetime.now(UTC).isoformat(timespec="milliseconds"),
        }
        messages.append({"type": "RECORD", "stream": stream.stream, "record": record | added})
        data = b"".join(_encode(message) + b"\n" for message in messages)
        try:
            with self._locked():
                self._mend_torn_line()
                while data:
                    data = data[os.write(self._file, data) :]
        except OSError as error:
            raise self._failed(error) from None
        self._announced[stream.stream] = stream
        self._dirty = True

    def sync(self) -> None:
        """Make all that was appended durable.

        Raises:
            TryAgainError: It could not be.
        """
        if self._lost is not None:
            raise self._lost
        if not self._dirty:
            return
        self._dirty = False  # before it: what another thread appends meanwhile needs its own
        try:
            os.fsync(self._file)
        except OSError as error:
            self._lost = self._failed(error)  # a later fsync would say that all is well
            raise self._lost from None

    def close(self) -> None:
        """Make it durable, and close it."""
        self.sync()
        os.close(self._file)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep other runs from the file, so that no line of theirs is under way."""
        fcntl.flock(self._file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)

    def _mend_torn_line(self) -> None:
        """Cut off what a run that died left of a line: no STATE has passed that row.

        Raises:
            SettingsError: What is there is no line of ours, so it is not ours to cut.
        """
        if (end := _torn_line(self._file, str(self._path))) is not None:
            os.ftruncate(self._file, end)

    def _failed(self, error: OSError) -> TryAgainError:
        return TryAgainError(
            f"rejects_path: {self._path} cannot be written ({error.strerror}); the rows since the "
            "last STATE will come again with the next run"
        )
