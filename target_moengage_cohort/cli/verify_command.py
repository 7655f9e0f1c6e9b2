"""`moengage-cohort verify`: compares segments with the ledger; changes nothing."""

from __future__ import annotations

import logging
import os
import typing as t
from collections import Counter
from pathlib import Path

import click
import msgspec

from target_moengage_cohort.cli.cohort_members import cohorts_with_members, known_members
from target_moengage_cohort.cli.session import Session, configured, show
from target_moengage_cohort.cli.terminal import example, require_utf8
from target_moengage_cohort.cli.verify.observation_report import compare
from target_moengage_cohort.cli.verify.sampled_cohort import SampledCohort, draw
from target_moengage_cohort.cli.verify.segment_counts import SegmentCounts
from target_moengage_cohort.cli.verify.verification import (
    Result,
    Unknown,
    blank,
    exit_code,
    lines,
    undecided,
)
from target_moengage_cohort.core import files
from target_moengage_cohort.core.commands import suggest
from target_moengage_cohort.core.errors import BusyError, SettingsError
from target_moengage_cohort.core.text import format_count
from target_moengage_cohort.delivery.delivery import live_calls
from target_moengage_cohort.delivery.ports import Timing
from target_moengage_cohort.moengage.filters import MOST_VALUES

if t.TYPE_CHECKING:
    from collections.abc import Sequence

    from target_moengage_cohort.ledger.interface import LedgerStore
    from target_moengage_cohort.ledger.records import CohortEntry

logger = logging.getLogger(__name__)

_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 30.0, 300.0
"""Between two queries about a cohort: they use up a quota that the dashboards share."""


@click.command(
    epilog=example(
        "moengage-cohort verify vip --wait 30 --config config.json",
        "moengage-cohort verify vip --observed export.csv --config config.json",
    )
)
@click.argument("cohorts", callback=require_utf8, nargs=-1, metavar="[COHORT]...")
@click.option("--json", "as_json", is_flag=True, help="Output the results as JSON.")
@click.option(
    "--sample",
    type=click.IntRange(1, MOST_VALUES),
    default=MOST_VALUES,
    show_default=True,
    metavar="N",
    help="Sample size, for accepted and for removed members.",
)
@click.option(
    "--wait",
    "minutes",
    type=click.IntRange(0, 1_440),
    default=0,
    metavar="MINUTES",
    help="Repeat the queries for up to this long, until MoEngage has processed the members.",
)
@click.option(
    "--observed",
    type=click.Path(exists=True, dir_okay=False),
    help="Compare with this file instead of querying MoEngage: a CSV from Export Users, or "
    "payloads of Outbound Segment Sync, one per line.",
)
@click.option(
    "--differences",
    type=click.Path(),
    help="With --observed: write the members that differ to a new CSV file, readable only by you.",
)
@click.option("--report", type=click.Path(dir_okay=False), help="Write the results to a JSON file.")
@configured
def verify(
    session: Session,
    cohorts: tuple[str, ...],
    *,
    as_json: bool,
    sample: int,
    minutes: int,
    observed: str | None,
    differences: str | None,
    report: str | None,
) -> int:
    """Compare segments in MoEngage with the ledger.

    For each COHORT (default: all), one query asks MoEngage how many users the segment has, how many
    of a random sample of accepted members MoEngage knows, and how many of those are in the segment.
    It asks the same for a sample of removed members. Queries count toward a monthly quota that the
    dashboards share. Exits with 6 if something is wrong, and with 1 if that is unknown.
    """
    chosen = list(dict.fromkeys(cohorts))
    _check_options(chosen, observed, differences, minutes)
    if not chosen and not (chosen := cohorts_with_members(session)):
        return 0
    if observed is not None:
        results = [compare(session, chosen[0], observed, differences)]
    else:
        results = _Questions(session, chosen, sample).ask(60.0 * minutes)
    if report is not None:
        _write(report, results)
    show(results, (line for each in results for line in lines(each)), as_json=as_json)
    return exit_code(results)


def _check_options(
    chosen: Sequence[str], observed: str | None, differences: str | None, minutes: int
) -> None:
    if observed is None and differences is not None:
        msg = "--differences requires --observed: only a file identifies the users"
        raise click.UsageError(msg)
    if observed is not None and (minutes or len(chosen) != 1):
        msg = "--observed requires exactly one COHORT, and cannot be combined with --wait"
        raise click.UsageError(msg)


class _Questions:
    """Samples of some cohorts, and the queries to MoEngage about them."""

    def __init__(self, session: Session, chosen: Sequence[str], size: int) -> None:
        self._session = session
        self._id_attribute = _id_attribute(session, chosen[0])
        self._chosen = chosen
        self._results: dict[str, Result] = {}
        self._asked: dict[str, CohortEntry] = {}  # those that MoEngage has been asked about
        self._sampled: list[SampledCohort] = []
        with session.ledgers() as ledgers:  # their leases are held no longer than this
            for cohort_id in chosen:
                try:
                    ledger = known_members(ledgers, cohort_id)
                    self._sampled.append(draw(ledger, size, repr(session.random())))
                except BusyError as error:
                    reason = Unknown(error.code, str(error), exit_code=error.exit_code)
                    entry = ledgers.entry(cohort_id)
                    self._results[cohort_id] = undecided(
                        blank(t.cast("CohortEntry", entry)), reason
                    )

    def ask(self, seconds: float) -> list[Result]:
        """Ask about each cohort; about unsettled ones again, as long as that begins in time."""
        session, pause = self._session, _FIRST_PAUSE_SECONDS
        deadline = session.clock() + seconds
        with session.ledgers() as ledgers:
            timing = Timing(wall_clock=session.clock)
            calls = live_calls(session.settings, session.wait, ledgers, timing)
            try:
                counts = SegmentCounts(calls.send, self._id_attribute, session.wait)
                pending = self._look(ledgers, counts, self._longest_ago_first(ledgers), deadline)
                while pending and (left := deadline - session.clock()) > 0:
                    seconds = min(pause, left)
                    count = format_count(len(pending), "cohort")
                    logger.info("%s not settled; asking again in %.0f s", count, seconds)
                    if session.wait(seconds):
                        break
                    pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
                    pending = self._look(ledgers, counts, pending, deadline)
            finally:
                calls.close()
            self._note(ledgers)
        return [self._results[cohort_id] for cohort_id in self._chosen]

    def _note(self, ledgers: LedgerStore) -> None:
        """Record the results; those of cohorts that MoEngage was not asked about by their reason.

        A record of its own would make such a cohort the last one next time.
        """
        not_asked: Counter[str] = Counter()
        for cohort_id in self._chosen:
            result = self._results[cohort_id]
            if (entry := self._asked.get(cohort_id)) is not None:
                ledgers.note_action(
                    "verify", entry, status=result.status, error=result.code, **result.counts
                )
            elif result.code is not None:
                not_asked[result.code] += 1
        for code, cohorts in not_asked.items():
            ledgers.note_action("verify", status="unknown", error=code, cohorts=cohorts)

    def _longest_ago_first(self, ledgers: LedgerStore) -> list[SampledCohort]:
        """Return the cohorts by their last verification, so that none is always left out."""
        latest = ledgers.last_actions("verify")
        return sorted(self._sampled, key=lambda each: latest.get(each.entry.cohort_id, 0))

    def _look(
        self,
        ledgers: LedgerStore,
        counts: SegmentCounts,
        pending: Sequence[SampledCohort],
        deadline: float,
    ) -> list[SampledCohort]:
        """Ask about cohorts once; return those about which to ask again, unasked ones first."""
        counts.resume()
        for cohort in pending:
            cohort_id = cohort.entry.cohort_id
            former = self._results.get(cohort_id)
            if former is not None and self._session.clock() >= deadline:
                break
            result = counts.result(cohort)
            if counts.stopped_by is None:
                self._asked[cohort_id] = cohort.entry
            self._results[cohort_id] = self._settled(ledgers, cohort, former, result)
        again = [each for each in pending if self._results[each.entry.cohort_id].may_settle]
        if (reason := counts.stopped_by) is not None:
            again.sort(key=lambda each: self._results[each.entry.cohort_id].unknown != reason)
        return again

    def _settled(
        self, ledgers: LedgerStore, cohort: SampledCohort, former: Result | None, result: Result
    ) -> Result:
        """Return a result, or the former one if there was no new answer."""
        entry = ledgers.entry(cohort.entry.cohort_id)
        if entry is None or entry.revision != cohort.revision:
            result = undecided(blank(cohort.entry), _CHANGED)
        if former is None:
            return result
        if result.size is None:
            return msgspec.structs.replace(former, unknown=result.unknown)
        if entry is not None and result.unknown is None and not result.may_settle:
            seconds = self._session.clock() - entry.last_timestamp / 1000
            return msgspec.structs.replace(result, settled_seconds=round(seconds, 1))
        return result


_CHANGED = Unknown(
    "cohort_changed",
    "the cohort changed before MoEngage answered, so the answer proves nothing. Try again when no "
    "run is using its stream",
)


def _id_attribute(session: Session, cohort_id: str) -> str:
    if name := session.settings.id_attribute:
        return name
    msg = (
        "id_attribute is not set. It is MoEngage's internal name for the attribute that contains "
        "the user ID: in the dashboard, Test & Debug > Segment Payload shows it for a segment with "
        "a filter on the ID. Set it and run this command again, or compare with an export of the "
        f"segment: {suggest('verify', '--observed', 'export.csv', cohort_id)}"
    )
    raise SettingsError("id_attribute_missing", msg)


def _write(path: str, results: Sequence[Result]) -> None:
    """Write the results to a file, in full or not at all."""
    place = Path(path).resolve()
    data = msgspec.json.format(msgspec.json.encode(results)) + b"\n"
    try:
        files.replace(place, data, place.with_name(f"{place.name}.{os.getpid()}.tmp"))
    except OSError as error:
        msg = f"--report: {path} cannot be written ({error.strerror}); choose another file"
        raise SettingsError("report_unwritable", msg) from None
