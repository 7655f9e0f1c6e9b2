"""`moengage-cohort check --probe`: tests which assumptions about MoEngage's APIs hold.

MoEngage's documentation leaves them open. No request changes anything, and the lines to paste into
an issue contain no names, IDs or numbers of users.
"""

from __future__ import annotations

import functools
import re
import typing as t

import msgspec

from target_moengage_cohort.cli.check.assumptions import (
    ANONYMOUS_ID,
    STATEMENTS,
    Assumption,
    answer,
    reason,
    unknown,
)
from target_moengage_cohort.core.errors import BusyError, LedgerError, TargetError
from target_moengage_cohort.moengage.analytics import Analytics
from target_moengage_cohort.moengage.filters import (
    all_of,
    attribute_exists,
    attribute_in,
    in_segment,
)
from target_moengage_cohort.moengage.segments import Segments
from target_moengage_cohort.sync.segments.api_endpoints import opener
from target_moengage_cohort.sync.segments.match_guard import MOST_COUNTED, spread, user_ids

if t.TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from target_moengage_cohort.delivery.ports import Timing
    from target_moengage_cohort.ledger.interface import LedgerStore
    from target_moengage_cohort.ledger.records import CohortEntry
    from target_moengage_cohort.moengage.answers import Answer
    from target_moengage_cohort.moengage.calls import Call, Send
    from target_moengage_cohort.moengage.filters import FilterGroup
    from target_moengage_cohort.moengage.segments import Segment, SegmentDetails
    from target_moengage_cohort.settings import Settings
    from target_moengage_cohort.sync.segments.segment_directory import Sending

    Opening: t.TypeAlias = Callable[[Settings], Sending]

_NO_QUERY = "0" * 24
_WRONG_KEY = "credentials_refused"
_NONE_LISTED = "no cohort is listed: they may be too new, or archived"
_WORD = re.compile(r"[\w .-]{1,40}")

T = t.TypeVar("T")
_OF_COHORTS = ("list_shows_cohorts", "name_finds_cohorts", "get_shows_cohorts")
_OF_ANALYTICS = [*STATEMENTS][[*STATEMENTS].index("id_attribute_exists") :]


class Probed(t.NamedTuple):
    """What was found out, and the errors of keys that MoEngage refuses, each with its API."""

    assumptions: list[Assumption]
    refused: list[tuple[str, TargetError]]


def probe(
    settings: Settings, wait: Callable[[float], bool], ledgers: LedgerStore, timing: Timing
) -> Probed:
    """Ask MoEngage, and return which assumptions hold; its errors are also answers.

    Raise a `LedgerError` if the ledger cannot be read.
    """
    entries = [each for each in ledgers.entries() if each.last_timestamp and not each.is_retired]
    store = ledgers if ledgers.exists else None
    opening = functools.partial(opener, wait=wait, store=store, timing=timing)
    of_segments = _SegmentsProbe(settings, opening, entries)
    of_analytics = _AnalyticsProbe(settings, opening, wait)
    found = [*of_segments.assumptions()]
    found += of_analytics.assumptions(_some_uids(entries, ledgers), of_segments.cohort)
    errors = (("segments", of_segments.error), ("analytics", of_analytics.error))
    refused = [(api, each) for api, each in errors if each is not None and each.code == _WRONG_KEY]
    return Probed(found, refused)


def _scope(name: str, error: TargetError | None) -> Assumption:
    """Return whether an API's first call shows the key's scope; a wrong key shows nothing."""
    if error is None:
        return answer(name, fact=True, note="the API answers")
    return answer(name, False if error.code == "scope_missing" else None, reason(error))


def _exists(name: str, users: Sequence[int] | None, note: str) -> Assumption:
    """Return whether any user has an attribute; their number is the first one."""
    if users and not users[0]:
        note = f"no user has it, {note}"
    return answer(name, users and users[0], note)


def _ask(call: Callable[[], T]) -> tuple[T | None, TargetError | None]:
    """Return the result of a call, or its error."""
    try:
        return call(), None
    except LedgerError:
        raise
    except TargetError as error:
        return None, error


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
        error: Why it cannot list the segments, if it cannot.
    """

    def __init__(
        self, settings: Settings, opening: Opening, entries: Sequence[CohortEntry]
    ) -> None:
        self._settings, self._opening = settings, opening
        self._names = {each.name: each for each in entries}
        self.cohort: Segment | None = None
        self.error: TargetError | None = None

    def assumptions(self) -> Iterator[Assumption]:
        """Yield the answers."""
        listed, self.error = self._list(self._settings)
        yield _scope("segments_scope", self.error)
        yield self._needs_db_name(self.error)
        if listed is None:
            yield from unknown(_OF_COHORTS, "the segments cannot be listed")
        elif not self._names:
            yield from unknown(_OF_COHORTS, "the ledger has no cohort that was synced")
        else:
            yield from self._of_cohorts([each for each in listed if each.name in self._names])

    def _of_cohorts(self, own: Sequence[Segment]) -> Iterator[Assumption]:
        """Yield what holds of cohorts, of which the list has some or none.

        A missing cohort may be archived, or too new: only of a listed cohort is it known that
        MoEngage cannot find it.
        """
        name = own[0].name if own else next(iter(self._names))
        named, name_error = self._list(self._settings, name)
        found = [each for each in named or () if each.name == name]
        cohort = next(iter(own or found), None)
        shown, error = (None, None) if cohort is None else self._show(cohort.id)
        if shown is not None and shown.included_filters:
            yield from unknown(_OF_COHORTS, "a filter segment has that name")
            return
        self.cohort = cohort
        yield answer(_OF_COHORTS[0], own or None, self._kinds(own) if own else _NONE_LISTED)
        note = "found" if found else "a listed cohort is not found" if own else _NONE_LISTED
        missed = False if own and named is not None else None
        yield answer(_OF_COHORTS[1], found or missed, reason(name_error) if name_error else note)
        note = "found" if cohort else _NONE_LISTED
        missed = False if error and error.code == "segment_not_found" else None
        yield answer(_OF_COHORTS[2], shown or missed, reason(error) if error else note)

    def _show(self, segment_id: str) -> tuple[SegmentDetails | None, TargetError | None]:
        with self._opening(self._settings)() as send:
            return _ask(lambda: Segments(send).get(segment_id))

    def _list(
        self, settings: Settings, name: str | None = None
    ) -> tuple[tuple[Segment, ...] | None, TargetError | None]:
        with self._opening(settings)() as send:
            return _ask(lambda: Segments(send).list(name))

    def _needs_db_name(self, error: TargetError | None) -> Assumption:
        name = "db_name_needed"
        if self._settings.db_name is not None:
            if error is not None and error.code == "db_name_refused":
                return answer(name, None, reason(error))
            _, error = self._list(msgspec.structs.replace(self._settings, db_name=None))
        if error is None:
            return answer(name, fact=False, note="the list works without it")
        if error.code == "db_name_refused":
            return answer(name, fact=True, note="the list is rejected without it")
        return answer(name, None, reason(error))

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
    """Asks the Analytics API.

    Attributes:
        error: Why it does not answer, if it does not.
    """

    def __init__(self, settings: Settings, opening: Opening, wait: Callable[[float], bool]) -> None:
        self._attribute = settings.id_attribute or ""
        self._open, self._wait = opening(settings), wait
        self.error: TargetError | None = None

    def assumptions(self, uids: Sequence[str], cohort: Segment | None) -> Iterator[Assumption]:
        """Yield the answers; the user IDs are accepted members."""
        with self._open() as send:
            _, error = _ask(lambda: Analytics(send, self._attribute).status(_NO_QUERY))
        self.error = None if error and error.code == "query_not_found" else error
        yield _scope("analytics_scope", self.error)
        if self.error is not None:
            yield from unknown(_OF_ANALYTICS, "the Analytics API cannot be queried")
        elif not self._attribute:
            yield from unknown(_OF_ANALYTICS, "id_attribute is not set")
        else:
            yield from self._of_attribute(uids)
            yield from self._of_others(cohort)

    def _of_attribute(self, uids: Sequence[str]) -> Iterator[Assumption]:
        groups = [all_of(attribute_exists(self._attribute))]
        groups += [all_of(attribute_in(self._attribute, uids))] if uids else []
        users, note = self._count(groups)
        yield _exists("id_attribute_exists", users, note)
        if not uids:
            note = "the ledger has no accepted member with a uid"
        elif users:
            is_more = users[1] > len(uids)
            share = f"{100 * users[1] / len(uids):.0f} percent of a sample, {note}"
            note = "more users than IDs were counted" if is_more else share
            yield answer("id_attribute_matches", None if is_more else users[1], note)
            return
        yield from unknown(["id_attribute_matches"], note)

    def _of_others(self, cohort: Segment | None) -> Iterator[Assumption]:
        groups = [all_of(attribute_exists(ANONYMOUS_ID))]
        groups += [all_of(in_segment(cohort.id, cohort.name))] if cohort else []
        users, note = self._count(groups)
        yield _exists("anonymous_id_exists", users, note)
        if cohort is None:
            note = "no cohort is listed"
        elif users and not users[1]:
            note = "no users were counted: they may be unknown, or not processed yet"
        yield answer("cohort_is_counted", (users and cohort and users[1]) or None, note)

    def _count(self, groups: Sequence[FilterGroup]) -> tuple[Sequence[int] | None, str]:
        """Return the users of each group, and how long MoEngage took, or why it did not count.

        The time is that of its answers and of the pauses between polls, without waits for permits.
        The count may have finished at any time between two polls.
        """
        seconds = 0.0

        def wait(pause: float) -> bool:
            nonlocal seconds
            seconds += pause
            return self._wait(pause)

        def timed(send: Send, call: Call) -> Answer:
            nonlocal seconds
            answered = send(call)
            seconds += answered.seconds
            return answered

        with self._open() as send:
            analytics = Analytics(functools.partial(timed, send), self._attribute)
            users, error = _ask(lambda: analytics.users(groups, wait))
        return users, reason(error) if error else f"counted within {max(seconds, 1):.0f} s"
