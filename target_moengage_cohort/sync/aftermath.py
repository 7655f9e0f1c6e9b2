"""Records and alerts after a run, for those who monitor runs."""

from __future__ import annotations

import typing as t

from target_moengage_cohort.sync.outcome import synced_streams
from target_moengage_cohort.sync.reporting.alerting import Alerting
from target_moengage_cohort.sync.stream_outcomes import RunFacts, stream_outcomes

if t.TYPE_CHECKING:
    from target_moengage_cohort.sync.context import Endpoints, RunContext
    from target_moengage_cohort.sync.reporting.report import AlertReport


def note_outcome(context: RunContext, endpoints: Endpoints, facts: RunFacts) -> list[AlertReport]:
    """Note which streams were synced; send an alert about those whose state has changed.

    A run that a signal ended has no states to report, and does not wait for a webhook.
    """
    if facts.is_complete and facts.error is None:
        endpoints.recorder.note_synced(synced_streams(facts.streams, facts.reports))
    if context.interrupt.signal is not None or not endpoints.recorder.remembers:
        return []
    settings, store = context.settings, endpoints.store
    is_asked = settings.notify_url is not None and not (context.config.mappings or facts.reports)
    entries = store.entries() if is_asked and facts.error is not None else ()
    known = sorted({entry.stream for entry in entries if not entry.is_retired})
    alerting = Alerting(settings, store, context.run_id, context.timing.wall_clock)
    return alerting.tell([*stream_outcomes(facts, context.config, known)])
