"""Compares the cohorts of a ledger with the settings, for `moengage-cohort check`.

One list has all findings: cohorts without a stream, changed names, other owners and partners.
"""

from __future__ import annotations

import typing as t

import msgspec

from target_moengage_cohort.core.commands import suggest
from target_moengage_cohort.core.errors import BusyError, RowError, SettingsError, TargetError
from target_moengage_cohort.core.text import format_count
from target_moengage_cohort.sync.segments.segment_directory import taken_name

if t.TYPE_CHECKING:
    from collections.abc import Container, Sequence

    from target_moengage_cohort.ledger.interface import LedgerStore
    from target_moengage_cohort.ledger.records import CohortEntry
    from target_moengage_cohort.settings import Config, StreamMapping


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """What is unusual about a cohort."""

    code: str
    message: str
    stream: str
    cohort_id: str | None  # none if it is about all cohorts of the stream
    is_error: bool  # whether a run would fail because of it


class CohortFindings(msgspec.Struct, frozen=True):
    """The cohorts of each stream, and what is unusual about any."""

    entries: dict[str, list[CohortEntry] | None]  # by stream; ``None`` if they cannot be used
    findings: list[Finding]
    faults: list[TargetError]  # one for each finding that is an error


def find(
    config: Config,
    mappings: Sequence[StreamMapping],
    ledgers: LedgerStore,
    names: Container[str],
) -> CohortFindings:
    """Compare the mappings with a ledger that can be used; change nothing.

    `names` are those of the segments that MoEngage lists.
    """
    found = CohortFindings({}, [], [])
    for mapping in mappings:
        entries: list[CohortEntry] | None = None
        try:
            entries = _entries(mapping, ledgers, names)
        except RowError as error:
            if error.code == "name_taken":  # by a segment, so the cohort has no ledger yet
                entries = []
            _add(found, mapping, SettingsError(error.code, _where(mapping, error)))
        except TargetError as error:
            for fault in error.faults:
                _add(found, mapping, fault)
        found.entries[mapping.stream] = entries
    if config.mappings:
        found.findings.extend(map(_orphan, _orphans(config, ledgers.entries())))
    return found


def _where(mapping: StreamMapping, error: RowError) -> str:
    return f"cohorts.{mapping.stream}: {error.reason}"


def _add(found: CohortFindings, mapping: StreamMapping, fault: TargetError) -> None:
    cohort_id = None if mapping.cohort is None else mapping.cohort.cohort_id
    found.faults.append(fault)
    found.findings.append(
        Finding(
            code=fault.code,
            message=str(fault),
            stream=mapping.stream,
            cohort_id=cohort_id,
            is_error=True,
        )
    )


def _entries(
    mapping: StreamMapping, ledgers: LedgerStore, names: Container[str]
) -> list[CohortEntry]:
    """Return the cohorts of a stream whose members are kept.

    Raise the error with which a run would refuse its cohort.
    """
    entries = ledgers.entries()
    try:
        if (cohort := mapping.cohort) is not None:
            entries = [each for each in entries if each.cohort_id == cohort.cohort_id]
            if not entries:
                ledgers.check_new(cohort)
                if cohort.name in names:
                    raise RowError("name_taken", taken_name(cohort, mapping))
            elif entries[0].has_members:
                ledgers.open(cohort, mapping.stream)
            else:
                ledgers.open_without_members(cohort, mapping.stream)
        elif mapping.cohort_id_column is not None:
            entries = [each for each in entries if each.stream == mapping.stream]
    except BusyError:  # another run, which will have ended before the next one starts
        pass
    return [entry for entry in entries if entry.has_members and not entry.is_retired]


def _orphans(config: Config, entries: Sequence[CohortEntry]) -> list[CohortEntry]:
    """Return the cohorts with members that no stream of the configuration populates."""
    fixed = {each.cohort.cohort_id for each in config.mappings.values() if each.cohort}
    fan_outs = {stream for stream, each in config.mappings.items() if each.cohort is None}
    return [
        entry
        for entry in entries
        if entry.counts.base
        and not entry.is_retired
        and entry.cohort_id not in fixed  # else its stream is right, or another finding names it
        and entry.stream not in fan_outs
    ]


def _orphan(entry: CohortEntry) -> Finding:
    members = format_count(entry.counts.base, "member")
    message = (
        f"cohort {entry.cohort_id!r} has {members}, but no stream populates it; map stream "
        f"{entry.stream!r} to it again, or remove the members: "
        f"{suggest('empty', entry.cohort_id)}"
    )
    return Finding(
        code="cohort_without_stream",
        message=message,
        stream=entry.stream,
        cohort_id=entry.cohort_id,
        is_error=False,
    )
