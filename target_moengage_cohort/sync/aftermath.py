"""What is noted of a run that has ended, for people who watch over runs."""

from __future__ import annotations

import typing as t

from target_moengage_cohort.sync.alerting import Alerting
from target_moengage_cohort.sync.outcome import synced_streams
from target_moengage_cohort.sync.stream_outcomes import RunFacts, stream_outcomes

if t.TYPE_CHECKING:
    from target_moengage_cohort.sync.context import Endpoints, RunContext
    from target_moengage_cohort.sync.report import AlertReport


def note_outcome(context: RunContext, endpoints: Endpoints, facts: RunFacts) -> list[AlertReport]:
    """Note which streams were synced; tell a person of those whose state has changed.

    A run that a signal has ended knows of no state, and does not wait for a webhook.
    """
    if facts.is_complete and facts.error is None:
        endpoints.recorder.note_synced(synced_streams(facts.streams, facts.reports))
    if context.interrupt.signal is not None or not endpoints.recorder.remembers:
        return []
    settings, clock = context.settings, context.timing.wall_clock
    alerting = Alerting(settings, endpoints.store, context.run_id, clock)
    return alerting.tell([*stream_outcomes(facts, context.config)])
