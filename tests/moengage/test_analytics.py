"""The client of the Analytics Query API, against the emulator."""

import pytest

from target_moengage_cohort.core.errors import SettingsError, TargetError, TryAgainError
from target_moengage_cohort.moengage.analytics import QueryState
from target_moengage_cohort.moengage.api_errors import ApiError
from target_moengage_cohort.moengage.filters import (
    all_of,
    attribute_in,
    in_segment,
)
from tests.moengage.test_segments import SECRET, code, sync
from tests.support.apis import all_users, any_of, nested


def results(callers, *groups):
    request_id = callers.analytics.count(groups)
    assert QueryState.SUCCESSFUL is callers.analytics.status(request_id).state
    return callers.analytics.results(request_id, len(groups))


def test_up_to_five_groups_are_counted_in_one_query(start):
    """The users of a segment, of a sample, of both and of either, and all, are counted in order."""
    callers = start()
    sync(callers, "u1", "u2", "u3", "nobody")
    callers.emulator.apis.know(["u1", "u2", "u3", "u4"])
    (segment,) = callers.segments.list("VIP users")
    vip, sample = in_segment(segment.id, segment.name), attribute_in("uid", ["u3", "u4", "x"])
    groups = (
        all_of(vip),
        all_of(sample),
        all_of(sample, vip),
        any_of(vip, nested(any_of(sample))),
        all_of(all_users()),
    )
    assert (3, 2, 1, 4, 4) == results(callers, *groups)


def test_a_query_has_one_to_five_groups(start):
    """No query is made of none or of six."""
    analytics = start().analytics
    for count in (0, 6):
        with pytest.raises(ValueError, match="1 to 5"):
            analytics.count([all_of(all_users())] * count)


def test_a_query_takes_its_time(start):
    """A slow query is pending, then processing, then has its results."""
    callers = start(query_seconds=60)
    request_id = callers.analytics.count([all_of(all_users())])
    states = []
    for _ in range(3):
        states.append(callers.analytics.status(request_id).state)
        if states[-1] is not QueryState.SUCCESSFUL:
            assert "query_not_found" == code(callers.analytics.results, request_id, 1)
        callers.emulator.clock.advance(30)
    assert [QueryState.PENDING, QueryState.PROCESSING, QueryState.SUCCESSFUL] == states


def test_a_query_that_fails_has_a_reason(start):
    """The status of a failed query has the reason without identifiers; its results are a 424."""
    callers = start()
    callers.emulator.apis.fail_queries(reason=f"too much data for {SECRET}")
    request_id = callers.analytics.count([all_of(all_users())])
    status = callers.analytics.status(request_id)
    assert QueryState.FAILED is status.state
    assert status.failure_reason.startswith("too much data")
    assert SECRET not in status.failure_reason
    assert "query_failed" == code(callers.analytics.results, request_id, 1)


@pytest.mark.parametrize(
    "quoted", ["annaschmidt", "anna-schmidt", "'annasch...'", "anna&amp;schmidt"]
)
def test_the_reason_of_a_failed_query_has_no_identifier_of_letters(start, quoted):
    """Identifiers that have letters only, or parts of them, are not in the reason either."""
    callers = start()
    callers.emulator.apis.fail_queries(reason=f"too much data for the values {quoted} of uid")
    group = all_of(attribute_in("uid", ["annaschmidt", "anna-schmidt", "anna&schmidt"]))
    status = callers.analytics.status(callers.analytics.count([group]))
    masked = quoted.replace(quoted.strip("'."), "[redacted]")
    assert f"too much data for the values {masked} of uid" == status.failure_reason


@pytest.mark.parametrize("quoted", ["annaschmidt", "annasch"])
def test_what_is_asked_of_a_query_does_not_show_its_identifiers(start, quoted):
    """An error about a query that was started before quotes no identifier in it."""
    callers, group = start(), all_of(attribute_in("uid", ["annaschmidt"]))
    request_id = callers.analytics.count([group])
    for ask in (callers.analytics.status, lambda number: callers.analytics.results(number, 1)):
        callers.emulator.apis.fail_next(400, error_type="Bad", message=f"value {quoted}")
        with pytest.raises(TargetError) as error:
            ask(request_id)
        assert "value [redacted]" in str(error.value)


@pytest.mark.parametrize(("seconds", "expected"), [(40.0, None), (400.0, "query_pending")])
def test_a_query_is_waited_for_within_a_bound(start, seconds, expected):
    """A query that has no result is looked at ever less often, for three minutes at most, within
    the limits of calls."""
    callers = start(query_seconds=seconds)
    groups = [all_of(all_users()), all_of(attribute_in("uid", ["u1"]))]
    for _ in range(5):
        began, before = callers.emulator.clock.monotonic(), len(callers.waits)
        if expected is None:
            assert (0, 0) == callers.analytics.users(groups, callers.wait)
            assert [2, 4, 8, 16, 30] == callers.waits[before:]
        else:
            assert expected == code(callers.analytics.users, groups, callers.wait)
            assert 180 <= callers.emulator.clock.monotonic() - began <= 240
    assert {200} == {each.status for each in callers.emulator.apis.calls()}


def test_a_query_that_fails_is_not_waited_for(start):
    """A query that fails ends the wait with its reason."""
    callers = start()
    callers.emulator.apis.fail_queries(1, "too much data")
    with pytest.raises(TryAgainError, match="too much data") as error:
        callers.analytics.users([all_of(all_users())], callers.wait)
    assert ("query_failed", []) == (error.value.code, callers.waits)


def test_an_interrupt_ends_the_wait_for_a_query(start):
    """After an interrupt nothing more is asked."""
    callers = start(query_seconds=40)
    assert "interrupted" == code(
        callers.analytics.users, [all_of(all_users())], lambda _seconds: True
    )
    assert ["query", "status"] == [each.endpoint for each in callers.emulator.apis.calls()]


def test_the_monthly_quota_ends(start):
    """When the quota is used up, a query is refused with a code, and not tried again."""
    callers = start(monthly_queries=1)
    callers.analytics.count([all_of(all_users())])
    assert "quota_exceeded" == code(callers.analytics.count, [all_of(all_users())])
    assert [] == callers.waits


def test_other_refusals_have_a_code(start):
    """A query that does not exist, an unknown segment and a wrong attribute are told apart."""
    callers = start(most_filter_values=2)
    for call in (callers.analytics.status, lambda each: callers.analytics.results(each, 1)):
        assert "query_not_found" == code(call, "none")
    unknown = all_of(in_segment("a" * 24, "none"))
    assert "request_refused" == code(callers.analytics.count, [unknown])
    many = all_of(attribute_in("uid", ["u1", "u2", "u3"]))
    with pytest.raises(ApiError) as error:
        callers.analytics.count([many])
    assert "request_refused" == error.value.code
    callers = start({"id_attribute": "wrong"})
    assert "request_refused" == code(callers.analytics.count, [all_of(all_users())])


def test_results_that_are_not_complete_are_an_error(start):
    """A group without a number is an error, never a zero."""
    callers = start()
    request_id = callers.analytics.count([all_of(all_users())])
    for rows in ("[]", '[{"metric": 1, "cseq": 1}]', '[{"metric": null, "cseq": 0}]'):
        callers.emulator.apis.fail_next(200, body=f'{{"data": {rows}}}')
        with pytest.raises(SettingsError) as error:
            callers.analytics.results(request_id, 1)
        assert "unexpected_answer" == error.value.code


def test_changes_count_once_they_are_processed(start):
    """For a while after it was accepted, an addition is not counted; a lost removal, and a member
    from elsewhere, are there from when they are put."""
    callers = start(processing_seconds=600)
    sync(callers, "u1", "u2")
    (segment,) = callers.segments.list("VIP users")
    group = all_of(in_segment(segment.id, segment.name))
    assert (0,) == results(callers, group)
    callers.emulator.clock.advance(599)
    sync(callers, "u3")
    callers.emulator.clock.advance(1)
    assert (2,) == results(callers, group)
    callers.emulator.clock.advance(600)
    assert (3,) == results(callers, group)
    callers.emulator.apis.put_members("vip", "remove_members", ["u1", "u2"])
    callers.emulator.apis.put_members("vip", "add_members", ["stranger"])
    assert (2,) == results(callers, group)


@pytest.mark.parametrize("counts", [True, False])
def test_whether_a_query_counts_as_a_run_is_a_switch(start, counts):
    """Whether a query keeps a segment from being archived is open, so the emulator does both."""
    callers = start(counts_as_run=counts, archive_seconds=10)
    made = callers.segments.create("First", all_of(attribute_in("uid", ["u1"])))
    callers.emulator.clock.advance(9)
    callers.analytics.count([all_of(in_segment(made.id, made.name))])
    callers.emulator.clock.advance(9)
    assert [not counts] == [each.is_archived for each in callers.emulator.apis.segments()]
