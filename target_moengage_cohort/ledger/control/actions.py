"""The operator's actions: which commands changed the ledgers, when and by whom; no identifiers."""

from __future__ import annotations

import os
import pwd
import socket
import typing as t
from datetime import UTC, datetime

import msgspec

from target_moengage_cohort.ledger.control.history import RETENTION

if t.TYPE_CHECKING:
    from collections.abc import Mapping

    from target_moengage_cohort.ledger.control.control import Control
    from target_moengage_cohort.ledger.records import CohortEntry


def note_action(
    control: Control, kind: str, entry: CohortEntry | None, counts: Mapping[str, int]
) -> None:
    """Record a command, of one cohort or of all; delete records that are too old."""
    now = datetime.now(UTC)
    when, old = (each.isoformat(timespec="seconds") for each in (now, now - RETENTION))
    cohort_id, stream = (None, None) if entry is None else (entry.cohort_id, entry.stream)
    row = [kind, when, user(), socket.gethostname(), control.partner, cohort_id, stream]
    with control.database.change("note action") as transaction:
        transaction.run("DELETE FROM operator_actions WHERE done_at < ?", [old])
        transaction.run(
            "INSERT INTO operator_actions (number, kind, done_at, done_by, host, partner,"
            " cohort_id, stream, details) SELECT coalesce(max(number), 0) + 1,"
            " ?, ?, ?, ?, ?, ?, ?, ? FROM operator_actions",
            [*row, msgspec.json.encode(counts).decode()],
        )


def user() -> str:
    """Return the name of the user who runs this process."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # as in containers
        return str(os.getuid())
