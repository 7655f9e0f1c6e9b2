"""Compares a stream's file of members with control, by its rows; changes nothing."""

from __future__ import annotations

import typing as t

from target_moengage_cohort.core.errors import TargetError
from target_moengage_cohort.ledger.duckdb import schema
from target_moengage_cohort.ledger.records import NO_MEMBERS, Fault, FoldedCohort

if t.TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from target_moengage_cohort.ledger.duckdb.members import Members
    from target_moengage_cohort.ledger.duckdb.stream_members import StreamMembers
    from target_moengage_cohort.ledger.records import CohortEntry


def inspect(stream: StreamMembers) -> list[Fault]:
    """Return the faults of a stream whose file has not been opened yet."""
    try:
        found = list(_faults(stream))
    except TargetError as error:
        if error.code not in {"ledger_corrupt", "ledger_mismatch"}:
            raise
        message = f"the file of its members cannot be used ({error.code})"
        found = [("members_unusable", message, None)]
    path = stream.table.place
    return [
        Fault(code=code, message=message, path=path, stream=stream.name, cohort_id=cohort_id)
        for code, message, cohort_id in found
    ]


_Found: t.TypeAlias = "Iterator[tuple[str, str, str | None]]"
"""A code, a message and a cohort."""


def _faults(stream: StreamMembers) -> _Found:
    if stream.table.exists:
        entries = {entry.number: entry for entry in stream.control.entries(stream.name)}
        stream.table.open(list(entries))
        yield from _sizes(stream, entries)
        yield from _strangers(stream, entries)
    elif stream.control.has_members(stream.name):
        yield "members_missing", "the file of its members is missing", None


def _sizes(stream: StreamMembers, entries: Mapping[int, CohortEntry]) -> _Found:
    """Yield the cohorts whose marks, sizes or digests are not those of their rows."""
    journal = {each.number for each in stream.requests.journal()}
    marks, sizes = stream.table.marks(), stream.table.sized(list(entries))
    for number, entry in entries.items():
        found = marks.get(number) or FoldedCohort(number, 0, NO_MEMBERS)
        is_ahead = found.is_ahead(entry.mark, journal)
        if found.mark != entry.mark and not is_ahead:
            message = f"request {found.mark:,} is the last one in the file, not {entry.mark:,}"
            yield "mark_differs", message, entry.cohort_id
        elif (counts := sizes.get(number, NO_MEMBERS)) != (found if is_ahead else entry).counts:
            size = counts.accepted.count
            message = (
                f"the members in the file ({size:,} accepted) are not those that it should have"
            )
            yield "members_differ", message, entry.cohort_id


def _strangers(stream: StreamMembers, entries: Mapping[int, CohortEntry]) -> _Found:
    """Yield what the next run of the stream deletes."""
    others = cohorts_with_rows(stream.table) - entries.keys()
    names = {each.number: each.cohort_id for each in stream.control.entries() if others}
    for number in sorted(others):
        message = "the file has rows of a cohort that is not its stream's"
        yield "rows_of_other_stream", message, names.get(number)
    for number, plan_id in stray_plans(stream):
        if number in entries:
            message = f"the file has members of plan {plan_id}, which does not exist"
            yield "members_without_plan", message, entries[number].cohort_id


def cohorts_with_rows(members: Members) -> set[int]:
    """Return the numbers of all cohorts of which a file has anything."""
    selects = (f"SELECT cohort FROM {{s}}.{table}" for table in schema.COHORT_TABLES)
    query = " UNION ".join(selects)
    return {number for (number,) in members.rows(query)}


def stray_plans(stream: StreamMembers) -> list[tuple[int, str]]:
    """Return the cohorts and ids of plans that only the file has."""
    found = stream.table.rows("SELECT DISTINCT cohort, plan_id FROM {s}.plan_members")
    plans = stream.plans.of_cohorts([cohort for cohort, _ in found])
    known = {(cohort, each.plan_id) for cohort, some in plans.items() for each in some}
    return [(cohort, plan_id) for cohort, plan_id in found if (cohort, plan_id) not in known]
