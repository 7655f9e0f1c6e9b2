"""Requests and their answers, folded into the members of their cohorts."""

from __future__ import annotations

import typing as t

from target_moengage_cohort.core.errors import LedgerError
from target_moengage_cohort.core.membership import Action
from target_moengage_cohort.ledger.duckdb import schema
from target_moengage_cohort.ledger.records import RequestState

if t.TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from target_moengage_cohort.ledger.control.requests import JournaledRequest, Requests
    from target_moengage_cohort.ledger.duckdb.members import Members
    from target_moengage_cohort.ledger.records import FoldedCohort

FOLDED_ROWS = 2_000_000
"""Members of requests to fold at a time: more do not always fit into the memory limit."""

_STRUCT = '[{"uid":"VARCHAR","anonymous_id":"VARCHAR"}]'


def fold(members: Members, requests: Requests, journal: Sequence[JournaledRequest]) -> Folded:
    """Fold requests into the members' file, then delete them from control.

    If it is interrupted, folding again from what control still has leads to the same members.
    """
    folded: Folded = {}
    for step in _steps(journal):
        done = _fold_step(members, requests, step)
        requests.note_folded(done)
        folded |= {each.number: each for each in done}
    return folded


Folded: t.TypeAlias = "dict[int, FoldedCohort]"


def show_folded(members: Members, requests: Requests, journal: Sequence[JournaledRequest]) -> None:
    """Make views that show the members as if the requests were folded; change no file."""
    with members.using():
        _load(members, requests, journal)
        for view in schema.VIEWS:
            members.run(view)


def _steps(journal: Sequence[JournaledRequest]) -> Iterator[list[JournaledRequest]]:
    step: list[JournaledRequest] = []
    size = 0
    for request in journal:
        if step and size + request.count > FOLDED_ROWS:
            yield step
            step, size = [], 0
        step.append(request)
        size += request.count
    if step:
        yield step


def _fold_step(
    members: Members, requests: Requests, step: Sequence[JournaledRequest]
) -> list[FoldedCohort]:
    marks = {request.cohort: request.number for request in step}  # the last one of each wins
    has_removals = any(each.action == Action.REMOVE.value for each in step)
    members.may_have_removed |= has_removals
    with members.sparing(), members.using():
        _load(members, requests, step)
        for table, replaced in schema.REPLACED.items():
            condition = f"v.cohort = old.cohort AND v.h = old.h AND {replaced}"
            members.thin(table, "{v}.summary AS v", condition)
        with members.change("fold"):
            for table, replaced in schema.REPLACED.items():
                members.run(schema.DELETE % (table, replaced))
            for insert in schema.INSERTS:
                members.run(insert)
            if has_removals:
                members.drop_removals(schema.NEWLY_DROPPED)
                members.run(schema.KEEP_REMOVALS)
                members.run(schema.TRIM_REMOVALS)
            folded = members.write_marks(marks)
        members.run("DROP SCHEMA {v} CASCADE")
    return folded


def _load(members: Members, requests: Requests, step: Sequence[JournaledRequest]) -> None:
    """Load the members of requests into a table in memory, and sum them up per member."""
    members.run("CREATE SCHEMA IF NOT EXISTS {v}")
    members.run(
        "CREATE OR REPLACE TABLE {v}.journal (number BIGINT, cohort INTEGER, state VARCHAR,"
        " action VARCHAR, h UHUGEINT, uid VARCHAR, anonymous_id VARCHAR)"
    )
    facts = {each.number: each for each in step if each.state != RequestState.REFUSED}
    h = members.engine.hash_sql("m.uid", "m.anonymous_id")
    insert = (
        f"INSERT INTO {{v}}.journal SELECT number, cohort, state, action, {h}, m.uid,"
        " m.anonymous_id FROM (SELECT * EXCLUDE (texts),"
        f" unnest(from_json(texts, '{_STRUCT.replace('{', '{{').replace('}', '}}')}')) AS m"
        " FROM (SELECT unnest(?::BIGINT[]) AS number, unnest(?::INTEGER[]) AS cohort,"
        " unnest(?::VARCHAR[]) AS state, unnest(?::VARCHAR[]) AS action,"
        " unnest(?::VARCHAR[]) AS texts))"
    )
    count = 0
    for numbers, texts in requests.members(list(facts)):
        some = [facts[number] for number in numbers]
        columns = [[getattr(each, name) for each in some] for name in ("cohort", "state", "action")]
        members.run(insert, [numbers, *columns, texts])
        count += len(numbers)
    if count != len(facts):
        msg = f"the ledger {members.place} was changed by another process; run again"
        raise LedgerError("ledger_unusable", msg)
    former = members.engine.hash_sql("NULL::VARCHAR", "anonymous_id")
    for source in schema.CONCERNED:
        members.fetch(source.replace("{former}", former))
    members.run(schema.SUMMARY)
    members.run(schema.NO_LINKS)
    if any(members.rows(schema.HAS_PAIRS)[0]):
        for statement in schema.LINKS:
            members.run(statement.replace("{former}", former))
