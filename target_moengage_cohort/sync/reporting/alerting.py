"""Sends changes of state to a webhook: at least once, by this run or by a later one."""

from __future__ import annotations

import functools
import logging
import socket
import time
import typing as t
from pathlib import Path

import msgspec

from target_moengage_cohort.core.errors import TargetError, anonymous_traceback
from target_moengage_cohort.core.text import format_count, iso_utc, printable
from target_moengage_cohort.sync.reporting.alert_states import (
    RECOVERED,
    Event,
    State,
    StreamOutcome,
    changes,
)
from target_moengage_cohort.sync.reporting.report import AlertReport

if t.TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from target_moengage_cohort.ledger.interface import LedgerStore
    from target_moengage_cohort.settings import Settings

logger = logging.getLogger(__name__)

SECONDS = 5.0  # for all events of a run: a receiver that hangs holds up no schedule
_LEAST_SECONDS = 0.2  # to begin another one with
_MOST_SHOWN = 5
_ESCAPED = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}  # a name must not become a mention in a chat


class Alerting:
    """The alerts of one run or command; nothing that goes wrong here fails it.

    Args:
        settings: The settings.
        store: Where the states and the events that wait are.
        run_id: The run or command: it has at most one event of each kind.
        clock: Returns the time, in seconds since 1970.
    """

    def __init__(
        self,
        settings: Settings,
        store: LedgerStore,
        run_id: str,
        clock: t.Callable[[], float] = time.time,
    ) -> None:
        self._settings, self._store = settings, store
        self._run_id, self._clock = run_id, clock

    def tell(
        self, outcomes: Sequence[StreamOutcome], only: State | None = None
    ) -> list[AlertReport]:
        """Record the outcomes, and send all events that wait; return what became of these.

        With `only`, those of streams that were reported to be in that state.
        """
        if self._settings.notify_url is None:
            return []
        try:
            streams = [each.stream for each in outcomes]
            self._store.alerts.advance(streams, functools.partial(self._decide, outcomes, only))
            return self._send(self._settings.notify_url)
        except TargetError as error:
            self._warn(str(error))
        except Exception as error:  # noqa: BLE001 - see the class
            self._warn(anonymous_traceback(error))
        return []

    def _decide(
        self,
        outcomes: Sequence[StreamOutcome],
        only: State | None,
        reported: Mapping[str, str | None],
    ) -> tuple[dict[str, str], dict[str, str]]:
        if only is not None:
            outcomes = [each for each in outcomes if reported[each.stream] == only]
        states, events = changes(outcomes, reported, self._settings.notified_events)
        return states, {f"{self._run_id}.{each.name}": self._body(each) for each in events}

    def _body(self, event: Event) -> str:
        """Return an event as JSON."""
        first = event.outcomes[0]
        is_one = len(event.outcomes) == 1
        path = self._settings.report_path
        body = {
            "event": event.name,
            "event_id": f"{self._run_id}.{event.name}",
            "streams": [each.stream for each in event.outcomes],
            "stream": first.stream if is_one else None,
            "cohort_id": first.cohort_id if is_one else None,
            "text": text_of(event, self._settings.partner),
            "code": first.code,
            "reason": first.reason,
            "command": first.command,
            "report": None if path is None else str(Path(path).resolve()),
            "run_id": self._run_id,
            "at": iso_utc(self._clock(), "seconds"),
            "host": socket.gethostname(),
            "workspace_id": self._settings.workspace_id,
            "partner": self._settings.partner,
            "details": event.outcomes,
        }
        return msgspec.json.encode(body).decode()

    def _send(self, url: str) -> list[AlertReport]:
        if not (waiting := self._store.alerts.waiting()):
            return []
        # Slow to import, and for few runs.
        from target_moengage_cohort.moengage.webhook import WebhookAnswer, post  # noqa: PLC0415

        began, results = time.monotonic(), []
        answer, fault = WebhookAnswer(), None
        for event_id, body in waiting:
            left = began + SECONDS - time.monotonic()
            is_tried = left > _LEAST_SECONDS and (answer.fault is None or answer.is_refused)
            if is_tried:
                answer = post(url, body.encode(), self._settings.notify_headers, left)
                fault = answer.fault or fault
            if is_sent := is_tried and answer.fault is None:
                self._store.alerts.note_sent(event_id)
            known = msgspec.json.decode(body)
            results.append(AlertReport(known["event"], event_id, known["streams"], sent=is_sent))
        if left_over := sum(not each.sent for each in results):
            events = format_count(left_over, "event")
            self._warn(
                f"the webhook did not accept the alert ({fault or 'no time was left'}); "
                f"the next run sends {events}"
            )
        return results

    def _warn(self, reason: str) -> None:
        logger.warning("notify_url: %s", reason, extra={"code": "alert_not_sent"})


def text_of(event: Event, partner: str) -> str:
    """Return an event as text for a chat."""
    title = "recovered" if event.name == RECOVERED else event.name.replace("_", " ")
    lines = [f"MoEngage cohorts of {printable(partner)}: {title}"]
    for each in event.outcomes[:_MOST_SHOWN]:
        where = f"stream {each.stream!r}"
        where += "" if each.cohort_id is None else f", cohort {each.cohort_id!r}"
        reason = (each.reason or "").removeprefix(f"stream {each.stream!r}: ")
        lines.append(f"{where}: {reason}" if reason else where)
        if each.command is not None and event.name != RECOVERED:
            lines.append(f"next: {each.command}")
    if (more := len(event.outcomes) - _MOST_SHOWN) > 0:
        lines.append(f"and {format_count(more, 'other stream')}")
    return "".join(_ESCAPED.get(character, character) for character in "\n".join(lines))
