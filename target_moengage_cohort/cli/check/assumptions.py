"""Assumptions about MoEngage's APIs, and whether they hold in a workspace; pure."""

from __future__ import annotations

import typing as t

import msgspec

from target_moengage_cohort import package_version
from target_moengage_cohort.cli.terminal import wrap

if t.TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from target_moengage_cohort.core.errors import TargetError

ANONYMOUS_ID = "moe_anonymous_id"
"""The attribute behind an anonymous ID, as partners have it."""

Holds: t.TypeAlias = t.Literal["yes", "no", "unknown"]

STATEMENTS = {
    "segments_scope": "The key has the Segments API scope.",
    "db_name_needed": "The Segments API (v3) requires db_name.",
    "list_shows_cohorts": "The list of segments includes cohorts.",
    "name_finds_cohorts": "A cohort can be found by its name.",
    "get_shows_cohorts": "A cohort can be fetched by its ID.",
    "analytics_scope": "The key has the Analytics API scope.",
    "id_attribute_exists": "Users have the attribute that id_attribute names.",
    "id_attribute_matches": "Users can be found by id_attribute and the ledger's user IDs.",
    "anonymous_id_exists": f"Users have the attribute {ANONYMOUS_ID}.",
    "cohort_is_counted": "The users of a cohort can be counted.",
}
"""The assumptions and open questions, by their stable names."""

_REASONS = {
    "blocked_by_firewall": "a firewall blocks access",
    "credentials_refused": "MoEngage rejects the key",
    "db_name_refused": "db_name is missing or wrong",
    "interrupted": "stopped before the answer",
    "query_failed": "the query failed",
    "query_pending": "no result in three minutes",
    "quota_exceeded": "the monthly quota is used up",
    "rate_limited": "the rate limit is used up",
    "request_refused": "MoEngage rejects the request",
    "retries_exhausted": "MoEngage does not answer",
    "scope_missing": "the key lacks the scope, or access is blocked",
    "segment_not_found": "MoEngage cannot find it",
    "unexpected_answer": "MoEngage's answer is not as documented",
}
"""Reasons in few words, by the code of an error."""


class Assumption(msgspec.Struct, frozen=True):
    """An assumption about MoEngage, and whether it holds in the workspace.

    Attributes:
        note: The reason, which has no name, ID or number of users.
    """

    name: str
    statement: str
    holds: Holds
    note: str


def lines(found: Sequence[Assumption]) -> Iterator[str]:
    """Yield the findings as text, and the lines to paste."""
    if not found:
        return
    yield "\nAssumptions about MoEngage's Segments and Analytics APIs:"
    for each in found:
        text = f"{each.statement} ({each.note})"
        yield wrap(text, first=f"{each.holds:<9}", indent=" " * 9)
    yield wrap(
        "MoEngage's documentation leaves these questions open. To help others, paste the following "
        "lines into an issue of this project; they contain no names or IDs:",
        first="\n",
        indent="",
    )
    yield f"\n{to_paste(found)}"


def to_paste(found: Sequence[Assumption]) -> str:
    """Return the lines to paste into an issue."""
    head = f"target-moengage-cohort {package_version()}, check --probe"
    return "\n".join([head, *(f"{each.name}: {each.holds} ({each.note})" for each in found)])


def answer(name: str, fact: object, note: str) -> Assumption:
    """Return whether an assumption holds; a fact of ``None`` is unknown."""
    holds: Holds = "unknown"
    if fact is not None:
        holds = "yes" if fact else "no"
    return Assumption(name, STATEMENTS[name], holds, note)


def unknown(names: Sequence[str], note: str) -> list[Assumption]:
    """Return that several assumptions are unknown, for one reason."""
    return [answer(name, None, note) for name in names]


def reason(error: TargetError) -> str:
    """Return why MoEngage did not answer, in few words."""
    return _REASONS.get(error.code, error.code.replace("_", " "))
