"""Rows and members that cannot be delivered: the run fails, or skips them into the rejects file."""

from __future__ import annotations

import logging
import re
import threading
import typing as t
from collections import Counter

from target_moengage_cohort.core.errors import InputError, SettingsError
from target_moengage_cohort.core.membership import Action, SyncMode
from target_moengage_cohort.core.text import utc_now
from target_moengage_cohort.ledger.records import RefusedDoubt
from target_moengage_cohort.settings.declared import OnReject
from target_moengage_cohort.singer.messages import DELETED_AT, Schema
from target_moengage_cohort.singer.writer import MAPPED

if t.TYPE_CHECKING:
    from collections.abc import Sequence

    from target_moengage_cohort.core.errors import RowError, TargetError
    from target_moengage_cohort.core.membership import Cohort, Member
    from target_moengage_cohort.settings import StreamMapping
    from target_moengage_cohort.singer.messages import RowOrigin
    from target_moengage_cohort.singer.writer import RejectsWriter
    from target_moengage_cohort.sync.cohorts import Cohorts

logger = logging.getLogger(__name__)

_LOGGED = 10  # of each reason
_OWN_CODES = {"deletion_without_identifier", "missing_key"}  # of rows that also end a run
_REQUEST_ID = re.compile(r" \(request_id [\w-]+\)")


class Rejections:
    """The handling of rows and members that cannot be delivered."""

    def __init__(self, on_reject: OnReject, file: RejectsWriter, cohorts: Cohorts) -> None:
        self.unplaced: Counter[str] = Counter()  # rows that named no cohort, by their stream
        self._fails = on_reject is OnReject.FAIL
        self._file = file
        self._cohorts = cohorts
        self._lock = threading.Lock()  # rows are rejected by the reader and by senders
        self._reasons: Counter[str] = Counter()

    def refuse_own_file(self, source: t.IO[t.Any]) -> None:
        """Refuse to read the file that rejected rows are appended to: it would have no end."""
        try:
            descriptor = source.fileno()
        except OSError:
            return
        if self._file.is_file(descriptor):
            msg = (
                "rejects_path: is the file that is being read. Rename that file before you "
                "replay it, so that rows that are rejected again go to a new file"
            )
            raise SettingsError("rejects_path_is_input", msg)

    def count_unplaced(self, stream: str, error: RowError) -> None:
        """Count a row for its stream if it names no cohort of the run."""
        if error.cohort_id not in self._cohorts.by_id:
            self.unplaced[stream] += 1

    def reject_row(self, stream: Schema, errors: Sequence[RowError], origin: RowOrigin) -> None:
        """Reject the latest row of one of the tap's streams, once, for all that it became."""
        reason = "; ".join(dict.fromkeys(error.reason for error in errors))
        if self._fails:
            codes = {error.code for error in errors}
            remedy = "Fix the value, or set on_reject: skip and rejects_path"
            if "stream_map_failed" in codes:
                remedy = remedy.replace("Fix the value", "Fix the expression or the value")
            if "deletion_without_identifier" in codes:  # there is no value to fix
                remedy = (
                    "With on_reject: skip and rejects_path the run continues, but the member "
                    "stays in the cohort"
                )
            msg = origin.where(
                f"a row of the stream {stream.stream!r} cannot be delivered: {reason}. {remedy}"
            )
            raise InputError(next(iter(codes & _OWN_CODES), "row_rejected"), msg)
        if any(error.code == "deletion_without_identifier" for error in errors):
            self._cohorts.row_warnings.count("deletion_lost", stream.stream)
        self._keep(stream, origin.record(), reason, origin.where)

    def reject_member(
        self, cohort: Cohort, action: Action, member: Member, reason: str
    ) -> TargetError | None:
        """Keep a member that MoEngage refuses as a row; or return the error that ends the run."""
        where = f"a member of the cohort {cohort.cohort_id!r}"
        synced = self._cohorts.by_id[cohort.cohort_id]
        doubt = None if synced.ledger is None else synced.ledger.refuse_doubt(member)
        if doubt is RefusedDoubt.KNOWN and action is Action.REMOVE:
            logger.warning(
                "%s could not be removed, because MoEngage refused it again: %s",
                where,
                _REQUEST_ID.sub("", reason),
                extra={"code": "doubt_refused", "cohort_id": cohort.cohort_id},
            )
            return None
        if doubt is RefusedDoubt.NEW:
            reason = (
                f"doubt_refused: {reason}. An earlier request with this member may have been "
                "applied, so the next run removes the member"
            )
        if self._fails:
            return InputError(
                "doubt_refused" if doubt is RefusedDoubt.NEW else "member_rejected",
                f"{where} cannot be delivered: {reason}. To deliver the other members, set "
                "on_reject: skip and rejects_path; the file then contains this one",
            )
        schema, row = row_of(cohort, synced.mapping, action, member)
        self._keep(schema, row, reason, lambda what: f"{where}: {what}")
        return None

    def _keep(
        self, stream: Schema, row: dict[str, t.Any], reason: str, where: t.Callable[[str], str]
    ) -> None:
        kind = _REQUEST_ID.sub("", reason)  # which is another one each time
        with self._lock:
            self._reasons[kind] += 1
            if self._reasons[kind] <= _LOGGED:
                logger.warning(
                    "%s",
                    where(f"row rejected: {kind}"),
                    extra={"code": "rows_rejected", "stream": stream.stream},
                )
            self._file.append(stream, row, reason)

    def close(self) -> None:
        """Log how many rows were rejected, make them durable, and close the file."""
        self._cohorts.row_warnings.log()
        for reason, count in self._reasons.items():
            if count > _LOGGED:
                extra = {"code": "rows_rejected"}
                logger.warning("%d rows in total were rejected: %s", count, reason, extra=extra)
        self._file.close()


def row_of(
    cohort: Cohort, mapping: StreamMapping, action: Action, member: Member
) -> tuple[Schema, dict[str, t.Any]]:
    """Return a row that asks for a change again, with the columns that the mapping names.

    For a member that MoEngage refuses after its own row has been dropped.
    """
    values = {
        mapping.uid_column: member.uid,
        mapping.anonymous_id_column: member.anonymous_id,
        mapping.cohort_id_column: cohort.cohort_id,
        mapping.cohort_name_column: cohort.name,
        mapping.membership_column: action is Action.ADD,
    }
    row = {column: value for column, value in values.items() if column is not None}
    if action is Action.REMOVE and mapping.sync_mode is not SyncMode.REMOVE:
        row[DELETED_AT] = utc_now()
    schema = {"type": "object", "properties": {column: {} for column in (*row, MAPPED)}}
    return Schema(mapping.stream, schema, []), row
