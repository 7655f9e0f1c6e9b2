"""The results of a command, by cohort, for its report."""

from __future__ import annotations

import typing as t

import msgspec

from target_moengage_cohort.sync.reporting.report import CohortReport

if t.TYPE_CHECKING:
    from target_moengage_cohort.core.membership import Cohort, SyncMode
    from target_moengage_cohort.delivery.ports import CohortCounts, Totals
    from target_moengage_cohort.ledger.records import CohortEntry
    from target_moengage_cohort.settings import Config
    from target_moengage_cohort.sync.reporting.report import (
        AlertReport,
        CohortStatus,
        Report,
        Status,
    )

_SUMS = ("added", "removed", "rejected", "in_doubt", "requests", "bytes")


class OperatorReport:
    """Collects a command's results.

    Attributes:
        status: How the command ended, if its exit code does not tell.
        alerts: The results of its alerts.
        run: The report of a run that the command has made, which has all results.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self._cohorts: dict[str, CohortReport] = {}
        self._totals: list[Totals] = []
        self.status: Status | None = None
        self.run: Report | None = None
        self.alerts: list[AlertReport] = []

    @property
    def results(self) -> dict[str, t.Any]:
        """The results as `Report` has them."""
        return {
            "requests": sum(each.requests for each in self._totals),
            "retries": sum(each.retries for each in self._totals),
            "throttled_seconds": round(sum(each.throttled_seconds for each in self._totals), 1),
            "alerts": self.alerts,
            "cohorts": list(self._cohorts.values()),
        }

    def add(self, totals: Totals) -> None:
        """Add the totals of a delivery that has ended."""
        self._totals.append(totals)

    def note_delivery(
        self, owner: Cohort | CohortEntry, counts: CohortCounts, *, is_accepted: bool
    ) -> None:
        """Add the counts of one cohort of a delivery."""
        numbers = {name: getattr(counts, name) for name in _SUMS}
        self.note(owner, "succeeded" if is_accepted else "failed", **numbers)

    def note(
        self, owner: Cohort | CohortEntry, status: CohortStatus = "succeeded", **facts: t.Any
    ) -> None:
        """Note the status and facts of a cohort; the numbers of several deliveries are added up."""
        known = self._cohorts.get(owner.cohort_id) or self._begin(owner, status)
        sums = {name: getattr(known, name) + facts.pop(name, 0) for name in _SUMS}
        if known.status == "failed":
            status = "failed"
        changed = msgspec.structs.replace(known, status=status, **sums, **facts)
        self._cohorts[owner.cohort_id] = changed

    def _begin(self, owner: Cohort | CohortEntry, status: CohortStatus) -> CohortReport:
        stream = getattr(owner, "stream", None) or self._stream_of(owner.cohort_id)
        mapping = self._config.mappings.get(stream)
        mode: SyncMode | None = None if mapping is None else mapping.sync_mode
        if not self._config.mappings:
            mode = self._config.settings.sync_mode
        return CohortReport(
            cohort_id=owner.cohort_id,
            cohort_name=owner.name,
            stream=stream,
            sync_mode=mode and mode.value,
            status=status,
            ledger="opened" if hasattr(owner, "stream") else "none",
        )

    def _stream_of(self, cohort_id: str) -> str:
        mappings = self._config.mappings.values()
        return next((each.stream for each in mappings if each.cohort_id == cohort_id), cohort_id)
