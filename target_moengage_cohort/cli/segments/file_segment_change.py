"""Sends files of users to a file segment, one after the other, and waits for the callbacks."""

from __future__ import annotations

import functools
import logging
import typing as t

import msgspec

from target_moengage_cohort.cli.segments.segment_parts import quoted_values
from target_moengage_cohort.cli.terminal import complain
from target_moengage_cohort.core.errors import SettingsError, TargetError, TryAgainError
from target_moengage_cohort.core.text import format_count, format_minutes, format_size
from target_moengage_cohort.delivery.ports import NoAnswerError
from target_moengage_cohort.moengage.api_errors import ApiError
from target_moengage_cohort.moengage.calls import MOST_USERS
from target_moengage_cohort.moengage.redaction import mask_identifiers, scrub
from target_moengage_cohort.moengage.segments import FileSource

if t.TYPE_CHECKING:
    from collections.abc import Callable

    from target_moengage_cohort.cli.segments.segment_callbacks import Callback, CallbackListener
    from target_moengage_cohort.cli.segments.segment_parts import Part
    from target_moengage_cohort.cli.segments.segment_storage import SegmentStorage
    from target_moengage_cohort.cli.segments.segment_users import FileUsers
    from target_moengage_cohort.moengage.segment_files import AttributeType
    from target_moengage_cohort.moengage.segments import FileSegment, Segments

Quoted: t.TypeAlias = "Callable[[str], list[str]]"
"""Returns the values of a file that a text quotes."""

Say: t.TypeAlias = "Callable[[str, float], None]"
"""Reports the current step, and its longest duration in seconds; 0 if unknown."""

logger = logging.getLogger(__name__)

ChangeKind: t.TypeAlias = t.Literal["create", "add", "remove", "replace"]
State: t.TypeAlias = t.Literal[
    "accepted", "processed", "failed", "unanswered", "interrupted", "unknown"
]


class FileChange(msgspec.Struct, frozen=True, kw_only=True):
    """A change of a file segment.

    Attributes:
        attribute: The attribute that the files have the values of.
        expiry_days: When the segment expires; for `create` only.
        is_awaited: Whether the command waits for the callback of each file.
    """

    kind: ChangeKind
    segment: str
    attribute: str
    attribute_type: AttributeType
    expiry_days: int = 0
    callback_url: str | None = None
    is_awaited: bool = False

    def check_split(self, files: int) -> None:
        """Raise a `SettingsError` if users may be lost because files are processed in any order.

        Args:
            files: How many there are.
        """
        if files > 1 and self.kind in {"create", "replace"} and not self.is_awaited:
            msg = (
                f"the users need {files} files, and MoEngage must process the first one before the "
                "others can be sent; use --wait"
            )
            raise SettingsError("split_needs_wait", msg)


class SentFile(msgspec.Struct, kw_only=True):
    """A file that MoEngage may have accepted.

    Attributes:
        name: Its name in the storage, if this program has put it there.
        state: `unknown` if the request got no answer, `unanswered` if no callback came in time,
            `interrupted` if the command was to end before it came.
    """

    name: str | None = None
    users: int | None = None
    bytes: int | None = None
    state: State = "unknown"
    found: int | None = None
    processed: int | None = None
    matched: int | None = None
    error: str | None = None
    deleted: bool = False

    @property
    def is_done(self) -> bool:
        """Whether nothing is left to do for this command."""
        return self.state in {"accepted", "processed"}


class FileSender:
    """Sends the files of one change.

    Attributes:
        segment: The segment, once MoEngage has accepted a file.
        sent: The files so far.
        has_failed: Whether a file that is no longer needed could not be deleted.
    """

    def __init__(
        self,
        api: Segments,
        users: FileUsers,
        change: FileChange,
        listener: CallbackListener | None,
        say: Say,
    ) -> None:
        self._api, self._users, self._change, self._listener = api, users, change, listener
        self._say = say
        self.segment: FileSegment | None = None
        self.sent: list[SentFile] = []
        self.has_failed = False

    def send_url(self, url: str) -> None:
        """Send a file that is at an address already."""
        file = SentFile()
        self._send(url, file, lambda _error: [], "the file")
        if file.found is not None and (seconds := self._users.note(file.found)):
            logger.warning(
                "segment %r: the file has %s. Together with other commands, these exceed the %s "
                "users that MoEngage accepts per day. It may refuse other files for the next %s",
                self._change.segment,
                format_count(file.found, "user"),
                f"{MOST_USERS:,}",
                format_minutes(seconds / 60),
                extra={"code": "too_many_users"},
            )

    def send_parts(self, parts: tuple[Part, ...], storage: SegmentStorage) -> None:
        """Send files through a storage, until one is not processed successfully.

        Each is deleted there as soon as MoEngage no longer needs it. Raise a `TryAgainError` if
        there are too many users for a day.
        """
        total = sum(part.users for part in parts)
        if seconds := self._users.take(total):
            msg = (
                f"MoEngage accepts {MOST_USERS:,} users in files per day. Together with other "
                f"commands, these {total:,} would exceed that, so nothing was sent. Try again in "
                f"{format_minutes(seconds / 60)}"
            )
            raise TryAgainError("too_many_users", msg)
        try:
            self._send_parts(parts, storage)
        finally:
            self._users.keep(sum(file.users or 0 for file in self.sent))

    def _send_parts(self, parts: tuple[Part, ...], storage: SegmentStorage) -> None:
        for number, part in enumerate(parts, 1):
            which = "the file" if len(parts) == 1 else f"file {number:,} of {len(parts):,}"
            what = f"{which} ({format_count(part.users, 'user')}, {format_size(part.size)})"
            self._say(f"uploading {what}", 0.0)
            stored = storage.put(part.path)
            file = SentFile(name=stored.name, users=part.users, bytes=part.size)
            quoted = functools.partial(quoted_values, part.path)
            try:
                self._send(stored.address, file, quoted, which)
            finally:
                if file not in self.sent or file.state in {"processed", "failed"}:
                    self._delete(storage, file)
            if not file.is_done:
                return

    def _send(self, address: str, file: SentFile, quoted: Quoted, which: str) -> None:
        callback_url = self._change.callback_url
        if self._listener is not None:
            callback_url = self._listener.expect()
        try:
            self.segment = self._request(address, callback_url)
        except TargetError as error:
            if not _is_refused(error):
                self.sent.append(file)
            raise
        file.state = "accepted"
        self.sent.append(file)
        if self._listener is None:
            return
        seconds = self._listener.seconds_left
        if seconds:
            self._say(f"waiting for MoEngage's callback for {which}", seconds)
        callback = self._listener.wait(str(callback_url))
        if callback is None:
            file.state = "interrupted" if self._listener.is_interrupted else "unanswered"
            return
        self._say(f"the callback came after {seconds - self._listener.seconds_left:,.0f} s", 0.0)
        self._note(callback, file, lambda text: [address, str(callback_url), *quoted(text)])

    def _request(self, address: str, callback_url: str | None) -> FileSegment:
        change = self._change
        source = FileSource(
            attribute_name=change.attribute,
            attribute_type=change.attribute_type,
            file_url=address,
            callback_url=callback_url,
        )
        if self.segment is not None:  # the rest, after the first file
            method = self._api.remove_users if change.kind == "remove" else self._api.add_users
            return method(change.segment, source, self.segment.id)
        match change.kind:
            case "create":
                return self._api.create_file(change.segment, source, change.expiry_days)
            case "add":
                return self._api.add_users(change.segment, source)
            case "remove":
                return self._api.remove_users(change.segment, source)
            case "replace":
                return self._api.replace_users(change.segment, source)

    def _note(self, callback: Callback, file: SentFile, secrets: Quoted) -> None:
        file.state = "processed" if callback.is_processed else "failed"
        file.found, file.processed = callback.found, callback.processed
        file.matched = callback.matched
        if not callback.is_processed or callback.error is not None:
            error = callback.error or f"status {callback.status}, without a reason"
            shown = [self._change.segment, self._change.attribute, str(callback.status)]
            error = mask_identifiers(error, shown, only_ordinary=True)
            file.error = scrub(error, secrets(error))
        if file.matched == 0 and file.found:
            logger.warning(
                "segment %r: no user has any of the %s in the attribute %r; check its name",
                self._change.segment,
                format_count(file.found, "value"),
                self._change.attribute,
                extra={"code": "no_user_matched"},
            )
        if callback.is_processed and file.users not in {None, file.found}:
            logger.warning(
                "segment %r: MoEngage found %s values in a file of %s",
                self._change.segment,
                "no" if file.found is None else f"{file.found:,}",
                format_count(file.users or 0, "user"),
                extra={"code": "users_missing"},
            )

    def _delete(self, storage: SegmentStorage, file: SentFile) -> None:
        try:
            storage.delete(str(file.name))
            file.deleted = True
        except TargetError as error:
            complain(str(error))
            self.has_failed = True


def _is_refused(error: TargetError) -> bool:
    """Return whether MoEngage will certainly not fetch the file."""
    if isinstance(error, ApiError | NoAnswerError) and error.is_doubted:
        return False
    if error.code == "unexpected_answer":  # it may be that of a request that was accepted
        return False
    return isinstance(error, ApiError | SettingsError) or error.code == "rate_limited"
