"""`moengage-cohort check --probe`: finds out which assumptions about MoEngage's APIs hold.

MoEngage's documentation leaves them open. No request changes anything, and the lines to paste into
an issue have no name, no ID and no number of users.
"""

from __future__ import annotations

import functools
import re
import time
import typing as t

import msgspec

from target_moengage_cohort import package_version
from target_moengage_cohort.cli.terminal import wrap
from target_moengage_cohort.core.errors import BusyError, LedgerError, TargetError
from target_moengage_cohort.moengage.analytics import Analytics
from target_moengage_cohort.moengage.filters import (
    all_of,
    attribute_exists,
    attribute_in,
    in_segment,
)
from target_moengage_cohort.moengage.segments import Segments
from target_moengage_cohort.sync.api_endpoints import opener
from target_moengage_cohort.sync.match_guard import MOST_COUNTED, spread, user_ids

if t.TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from target_moengage_cohort.core.interrupts import Interrupt
    from target_moengage_cohort.ledger.interface import LedgerStore
    from target_moengage_cohort.ledger.records import CohortEntry
    from target_moengage_cohort.moengage.filters import FilterGroup
    from target_moengage_cohort.moengage.segments import Segment, SegmentDetails
    from target_moengage_cohort.settings import Settings
    from target_moengage_cohort.sync.segment_directory import Sending

    Opening: t.TypeAlias = Callable[[Settings], Sending]

_ANONYMOUS_ID = "moe_anonymous_id"
_NO_QUERY = "0" * 24
_REFUSED = {"scope_missing", "credentials_refused"}
_WORD = re.compile(r"[\w .-]{1,40}")

T = t.TypeVar("T")
Holds: t.TypeAlias = t.Literal["yes", "no", "unknown"]

STATEMENTS = {
    "segments_scope": "The key has the scope of the Segments API.",
    "db_name_needed": "The Segments API (v3) requires db_name.",
    "list_shows_cohorts": "The list of segments has cohorts.",
    "name_finds_cohorts": "A cohort is found by its name.",
    "get_shows_cohorts": "A cohort is shown by its ID.",
    "analytics_scope": "The key has the scope of the Analytics API.",
    "id_attribute_exists": "Users have the attribute id_attribute.",
    "id_attribute_matches": "Users are found by id_attribute and the user IDs of the ledger.",
    "anonymous_id_exists": f"Users have the attribute {_ANONYMOUS_ID}.",
    "cohort_is_counted": "The users of a cohort can be counted.",
}
"""What is assumed or open, by its stable name."""


class Assumption(msgspec.Struct, frozen=True):
    """An assumption about MoEngage, and whether it holds in the workspace.

    Attributes:
        note: The reason, as far as it has no name, ID or number of users.
    """

    name: str
    statement: str
    holds: Holds
    note: str = ""


def probe(settings: Settings, interrupt: Interrupt, ledgers: LedgerStore) -> list[Assumption]:
    """Ask MoEngage, and return what holds; an error of its is an answer, too.

    Raise a `LedgerError` if the ledger cannot be read.
    """
    entries = [each for each in ledgers.entries() if each.last_timestamp and not each.is_retired]
    opening = functools.partial(
        opener, interrupt=interrupt, store=ledgers if ledgers.exists else None
    )
    of_segments = _SegmentsProbe(settings, opening, entries)
    of_analytics = _AnalyticsProbe(settings, opening, interrupt)
    found = [*of_segments.assumptions()]
    found += of_analytics.assumptions(_some_uids(entries, ledgers), of_segments.cohort)
    known = {each.name: each for each in found}
    return [known.get(name) or _answer(name, None, "not asked") for name in STATEMENTS]


def probe_lines(found: Sequence[Assumption]) -> Iterator[str]:
    """Yield what was found as text, and the lines to paste."""
    if not found:
        return
    yield "\nAssumptions about MoEngage's Segments and Analytics APIs:"
    for each in found:
        note = f" ({each.note})" if each.note else ""
        yield wrap(f"{each.statement}{note}", first=f"{each.holds:<9}", indent=" " * 9)
    yield wrap(
        "MoEngage's documentation leaves these questions open. To help others, paste the following "
        "lines into an issue of this project; they contain no names and no IDs:",
        first="\n",
        indent="",
    )
    yield f"\n{to_paste(found)}"


def to_paste(found: Sequence[Assumption]) -> str:
    """Return the lines to paste into an issue."""
    lines = [f"target-moengage-cohort {package_version()}, check --probe"]
    lines += [f"{each.name}: {each.holds} {each.note}".rstrip() for each in found]
    return "\n".join(lines)


def _answer(name: str, fact: object, note: str = "") -> Assumption:
    """Return whether an assumption holds; a fact of ``None`` is unknown."""
    holds: Holds = "unknown"
    if fact is not None:
        holds = "yes" if fact else "no"
    return Assumption(name, STATEMENTS[name], holds, note)


def _has_scope(code: str) -> bool | None:
    """Return what an error's code says of a key; none is no error."""
    if not code:
        return True
    return False if code in _REFUSED else None


def _ask(call: Callable[[], T]) -> tuple[T | None, str]:
    """Return the result of a call, or the code of its error."""
    try:
        return call(), ""
    except LedgerError:
        raise
    except TargetError as error:
        return None, error.code


def _some_uids(entries: Sequence[CohortEntry], ledgers: LedgerStore) -> list[str]:
    """Return some user IDs of the largest cohort in the ledger that no run is using."""
    for entry in sorted(entries, key=lambda each: -each.counts.accepted.count):
        if entry.has_members and entry.counts.accepted.count:
            try:
                members = next(ledgers.open_known(entry.cohort_id).members(), [])
            except BusyError:
                continue
            return user_ids(spread(members, MOST_COUNTED))
    return []


class _SegmentsProbe:
    """Asks the Segments API.

    Attributes:
        cohort: A cohort of the ledger as MoEngage lists it or finds it by its name, if it does.
    """

    def __init__(
        self, settings: Settings, opening: Opening, entries: Sequence[CohortEntry]
    ) -> None:
        self._settings, self._opening = settings, opening
        self._names = {each.name: each for each in entries}
        self.cohort: Segment | None = None

    def assumptions(self) -> Iterator[Assumption]:
        """Yield the answers."""
        listed, code = self._list(self._settings)
        yield _answer("segments_scope", _has_scope(code), code)
        yield self._needs_db_name(code)
        if listed is None or not self._names:
            return
        yield from self._of_cohorts([each for each in listed if each.name in self._names])

    def _of_cohorts(self, own: Sequence[Segment]) -> Iterator[Assumption]:
        """Yield what holds of cohorts, of which the list has some or none.

        One that is missing may be archived, or too new: only about one that is there it is known
        that MoEngage does not find it.
        """
        name = own[0].name if own else next(iter(self._names))
        named, name_code = self._list(self._settings, name)
        found = [each for each in named or () if each.name == name]
        cohort = next(iter(own or found), None)
        shown, code = (None, "not asked") if cohort is None else self._show(cohort.id)
        if shown is not None and shown.included_filters:
            for each in ("list_shows_cohorts", "name_finds_cohorts", "get_shows_cohorts"):
                yield _answer(each, None, "a filter segment has the name")
            return
        self.cohort = cohort
        note = self._kinds(own) if own else "none is listed: they may be too new, or archived"
        yield _answer("list_shows_cohorts", own or None, note)
        missed = False if own and named is not None else None
        yield _answer("name_finds_cohorts", found or missed, name_code)
        yield _answer("get_shows_cohorts", False if code == "segment_not_found" else shown, code)

    def _show(self, segment_id: str) -> tuple[SegmentDetails | None, str]:
        with self._opening(self._settings)() as send:
            return _ask(lambda: Segments(send).get(segment_id))

    def _list(
        self, settings: Settings, name: str | None = None
    ) -> tuple[tuple[Segment, ...] | None, str]:
        with self._opening(settings)() as send:
            return _ask(lambda: Segments(send).list(name))

    def _needs_db_name(self, code: str) -> Assumption:
        if self._settings.db_name is not None:
            if code == "db_name_refused":
                return _answer("db_name_needed", None, "db_name is refused")
            _, code = self._list(msgspec.structs.replace(self._settings, db_name=None))
        is_known = code in {"", "db_name_refused"}
        return _answer("db_name_needed", code if is_known else None, code)

    def _kinds(self, segments: Sequence[Segment]) -> str:
        """Return the types and sources that MoEngage gives cohorts; these values are open."""
        kinds = sorted({(each.type, each.source) for each in segments})
        shown = [f"type {self._word(kind)}, source {self._word(source)}" for kind, source in kinds]
        return "; ".join(shown[:5])

    def _word(self, text: str) -> str:
        """Return a value unless it may be a name."""
        if self._settings.partner.casefold() in text.casefold():
            return "(has the partner)"
        return text if _WORD.fullmatch(text) else "(empty or long)"


class _AnalyticsProbe:
    """Asks the Analytics API."""

    def __init__(self, settings: Settings, opening: Opening, interrupt: Interrupt) -> None:
        self._attribute = settings.id_attribute or ""
        self._open, self._wait = opening(settings), interrupt.wait

    def assumptions(self, uids: Sequence[str], cohort: Segment | None) -> Iterator[Assumption]:
        """Yield the answers; the user IDs are accepted members."""
        with self._open() as send:
            _, code = _ask(lambda: Analytics(send, self._attribute).status(_NO_QUERY))
        code = "" if code == "query_not_found" else code
        yield _answer("analytics_scope", _has_scope(code), code)
        if code:
            return
        if not self._attribute:
            yield _answer("id_attribute_exists", None, "id_attribute is not set")
            return
        groups = [all_of(attribute_exists(self._attribute))]
        groups += [all_of(attribute_in(self._attribute, uids))] if uids else []
        yield from self._of_attribute(groups, len(uids))
        groups = [all_of(attribute_exists(_ANONYMOUS_ID))]
        groups += [all_of(in_segment(cohort.id, cohort.name))] if cohort else []
        users, note = self._count(groups)
        yield _answer("anonymous_id_exists", users and users[0], note)
        if cohort:
            if users and not users[1]:
                note = "no user is counted: they may be unknown, or not processed yet"
            yield _answer("cohort_is_counted", (users and users[1]) or None, note)

    def _of_attribute(self, groups: Sequence[FilterGroup], sampled: int) -> Iterator[Assumption]:
        users, note = self._count(groups)
        if users is None:
            yield _answer("id_attribute_exists", None, note)
            return
        yield _answer("id_attribute_exists", users[0], note)
        if sampled:
            if users[1] > sampled:
                yield _answer("id_attribute_matches", None, "more users than IDs are counted")
                return
            share = f"{100 * users[1] / sampled:.0f} percent of a sample"
            yield _answer("id_attribute_matches", users[1], share)

    def _count(self, groups: Sequence[FilterGroup]) -> tuple[Sequence[int] | None, str]:
        """Return the users of each group, and how long that took, or the code of the error."""
        began = time.monotonic()
        with self._open() as send:
            analytics = Analytics(send, self._attribute)
            users, code = _ask(lambda: analytics.users(groups, self._wait))
        return users, code or f"counted in {time.monotonic() - began:.0f} s"
