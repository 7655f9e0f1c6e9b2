from __future__ import annotations

import json
from email.utils import formatdate

import hypothesis.strategies as st
import pytest
from hypothesis import example, given

from target_moengage_cohort.core.errors import (
    InputError,
    InternalError,
    SettingsError,
    TryAgainError,
)
from target_moengage_cohort.moengage.answers import (
    LONGEST_WAIT_SECONDS,
    Answer,
    Outcome,
    classify,
    final_error,
    login_error,
    rejection_reason,
    wait_seconds,
)

NOW = 1_800_000_000.0
DATE = formatdate(NOW, usegmt=True)


def answer(status, content=b"", headers=None, secrets=()):
    return classify(status, headers or {}, content, now=NOW, secrets=lambda: secrets)


def fail(**error) -> bytes:
    return json.dumps({"status": "fail", "error": error}).encode()


@pytest.mark.parametrize(
    ("outcome", "status"),
    [
        (Outcome.REFUSED, 400),
        (Outcome.CREDENTIALS, 401),
        (Outcome.CREDENTIALS, 403),
        (Outcome.RETRY, 408),
        (Outcome.TOO_LARGE, 413),
        (Outcome.OUR_FAULT, 415),
        (Outcome.RATE_LIMITED, 429),
        *((Outcome.RETRY, status) for status in (500, 502, 503, 504, 599)),
        *((Outcome.UNEXPECTED, status) for status in (201, 204, 301, 302, 307, 308, 404, 405, 410)),
    ],
)
@pytest.mark.parametrize(
    "content",
    [b"", b"<html>", fail(type="t", message="m"), b'{"status":"success"}', b"[" * 99_999],
    ids=["empty", "html", "error", "success", "deep"],
)
def test_the_status_says_what_happens_next(outcome, status, content):
    """Every status but 200 has one meaning, whatever its body is."""
    assert outcome is answer(status, content).outcome


@pytest.mark.parametrize(
    ("outcome", "content"),
    [
        (Outcome.ACCEPTED, b'{"status":"success","message":"Your request has been accepted"}'),
        (Outcome.ACCEPTED, b' {"status":"success","error":null,"more":[1]}\n'),
        (Outcome.REFUSED, fail(message="no")),
        (Outcome.RETRY, b""),
        (Outcome.UNEXPECTED, b"<html>Sign in to the hotel's network</html>"),
        (Outcome.RETRY, b'{"status":"success"'),
        (Outcome.UNEXPECTED, b'"success"'),
        (Outcome.UNEXPECTED, b'{"status":true}'),
        (Outcome.UNEXPECTED, b"\xff\xfe"),
    ],
)
def test_a_200_counts_only_if_its_body_says_success(outcome, content):
    """A proxy's page, or half an answer, does not count as accepted."""
    assert outcome is answer(200, content).outcome


@pytest.mark.parametrize(
    ("summary", "content"),
    [
        ("HTTP 400", b"<html>"),
        ("HTTP 400", b'{"error":{}}'),
        (
            "HTTP 400 T: M (attribute a) (request_id r)",
            fail(type="T", message="M", request_id="r", attribute="a"),
        ),
        ("HTTP 400 M", fail(message="M", type=None)),
        ("HTTP 400 T: M (request_id 5)", fail(message="M", type="T", request_id=5)),
        ("HTTP 400 words", b'{"status":"fail","error":"words"}'),
        ("HTTP 400 two lines", fail(message="two\r\n lines")),
    ],
    ids=["html", "nothing", "all", "message", "number", "text", "lines"],
)
def test_the_summary_is_what_the_api_says(summary, content):
    """An error's type, message, attribute and request_id are shown, whatever their types are."""
    assert summary == answer(400, content).summary


def test_the_status_is_never_redacted():
    """The status is shown even if it is a member's id."""
    assert (
        "HTTP 400 No user [redacted]"
        == answer(400, fail(message="No user 400"), secrets=["400"]).summary
    )


@pytest.mark.parametrize(
    ("seconds", "headers"),
    [
        (None, {}),
        (7.0, {"Retry-After": "7"}),
        (7.5, {"Retry-After": " 7.5 "}),
        (9.0, {"Retry-After": formatdate(NOW + 9, usegmt=True)}),
        (5.0, {"x-ratelimit-reset": f"{NOW + 5:.0f}"}),
        (5.0, {"x-ratelimit-reset": f"{NOW + 5:.0f}", "Retry-After": "3"}),
        (8.0, {"x-ratelimit-reset": f"{NOW + 5:.0f}", "Retry-After": "8"}),
        (0.0, {"x-ratelimit-reset": f"{NOW - 5:.0f}"}),
        (0.0, {"Retry-After": formatdate(NOW - 9, usegmt=True)}),
        (120.0, {"Retry-After": "86400"}),
        (30.0, {"x-ratelimit-reset": f"{NOW + 3_630:.0f}", "Date": formatdate(NOW + 3_600)}),
        (30.0, {"Retry-After": formatdate(NOW - 3_570), "Date": formatdate(NOW - 3_600)}),
        (None, {"Retry-After": "soon", "x-ratelimit-reset": "later", "Date": "today"}),
    ],
)
def test_waits_are_what_the_server_asks_for(seconds, headers):
    """The wait is the longer of reset and Retry-After, by the server's own clock, at most two
    minutes."""
    assert seconds == wait_seconds(headers, NOW, limited=True)


header_texts = (
    st.text(st.sampled_from("0123456789.-+eE:, nadiftyGMTSun\u0661"), max_size=20) | st.text()
)


@given(
    st.dictionaries(st.sampled_from(["Date", "Retry-After", "x-ratelimit-reset"]), header_texts),
    st.booleans(),
)
@example(headers={"Retry-After": "9" * 400, "Date": "Wed, 21 Oct 99999 07:28:00 GMT"}, limited=True)
@example(headers={"x-ratelimit-reset": "nan"}, limited=True)
@example(headers={"x-ratelimit-reset": "-inf"}, limited=True)
def test_no_header_makes_a_wait_unreasonable(headers, limited):
    """For any headers, the wait is unknown, or from 0 to two minutes."""
    seconds = wait_seconds(headers, NOW, limited=limited)
    assert seconds is None or 0.0 <= seconds <= LONGEST_WAIT_SECONDS


@pytest.mark.parametrize(("reset", "status"), [(9.0, 429), (None, 503), (None, 400)])
def test_the_limits_reset_is_waited_for_after_a_429_alone(reset, status):
    """Every answer may contain the limit's reset; only a 429 asks to wait for it."""
    headers = {"x-ratelimit-reset": f"{NOW + 9:.0f}", "Date": DATE}
    assert reset == answer(status, headers=headers).wait_seconds
    headers = {"Retry-After": "7", "Date": DATE}
    assert 7.0 == answer(status, headers=headers).wait_seconds


def test_what_looks_like_an_identifier_is_masked():
    """MoEngage may quote a member of an earlier request, whose identifiers are not at hand."""
    content = fail(type="Conflict", message="user-00017 and Ana@x are duplicates of members[4]")
    summary = answer(400, content, secrets=["k"]).summary
    assert "[redacted] and [redacted] are duplicates of [redacted]" in summary


@pytest.mark.parametrize(
    ("error", "code", "outcome"),
    [
        (SettingsError, "credentials_refused", Outcome.CREDENTIALS),
        (InputError, "request_refused", Outcome.REFUSED),
        (InputError, "request_refused", Outcome.TOO_LARGE),
        (InternalError, "malformed_request", Outcome.OUR_FAULT),
        (SettingsError, "unexpected_answer", Outcome.UNEXPECTED),
        (TryAgainError, "retries_exhausted", Outcome.RETRY),
        (TryAgainError, "retries_exhausted", Outcome.RATE_LIMITED),
    ],
)
def test_a_final_answer_ends_the_run_with_an_error(error, code, outcome):
    """Each answer that allows no retry becomes an error of the class that fits its remedy."""
    ended = final_error(Answer(outcome, "HTTP 999"), "vip", 300)
    assert (error, code) == (type(ended), ended.code)
    assert "HTTP 999" in str(ended)


@pytest.mark.parametrize(
    ("error", "code", "outcome"),
    [
        (SettingsError, "credentials_refused", Outcome.CREDENTIALS),
        (SettingsError, "credentials_refused", Outcome.REFUSED),
        (InternalError, "malformed_request", Outcome.OUR_FAULT),
        (SettingsError, "unexpected_answer", Outcome.UNEXPECTED),
        (SettingsError, "unexpected_answer", Outcome.TOO_LARGE),
        (TryAgainError, "moengage_unavailable", Outcome.RETRY),
        (TryAgainError, "moengage_unavailable", Outcome.RATE_LIMITED),
    ],
)
def test_a_log_in_that_fails_is_an_error(error, code, outcome):
    """Each answer to a log-in except an acceptance becomes an error of the class that fits its
    remedy."""
    failed = login_error(Answer(outcome, "HTTP 999"))
    assert (error, code) == (type(failed), failed.code)
    assert "HTTP 999" in str(failed)
    assert login_error(Answer(Outcome.ACCEPTED, "accepted")) is None


@pytest.mark.parametrize(
    ("outcome", "message"),
    [
        (
            Outcome.CREDENTIALS,
            (
                "MoEngage refused the credentials (HTTP 999); check workspace_id, data_api_key and "
                "data_center, and that the key may use Cohort Sync"
            ),
        ),
        (
            Outcome.REFUSED,
            (
                "MoEngage refused a request for cohort 'vip': HTTP 999. Retrying it unchanged "
                "will not help; check what the message names in the cohort's mapping, its rows, "
                "or the settings"
            ),
        ),
        (
            Outcome.OUR_FAULT,
            (
                "MoEngage rejected a request for cohort 'vip' as malformed: HTTP 999. This is a "
                "bug in target-moengage-cohort; please report it"
            ),
        ),
        (
            Outcome.UNEXPECTED,
            (
                "unexpected answer to a request for cohort 'vip': HTTP 999; check api_url and "
                "data_center"
            ),
        ),
        (
            Outcome.RETRY,
            (
                "no request was accepted within 300 s (max_retry_seconds). The last one was for "
                "cohort 'vip': HTTP 999. Check the network and MoEngage's status, then run "
                "again"
            ),
        ),
    ],
)
def test_a_final_error_says_what_to_do(outcome, message):
    """An error names the cohort, the answer and the next step."""
    assert message == str(final_error(Answer(outcome, "HTTP 999"), "vip", 300))


def test_the_reason_of_a_rejection_is_moengages():
    """A rejected row's reason is MoEngage's."""
    refused = rejection_reason(Answer(Outcome.REFUSED, "HTTP 400 No profile"))
    too_large = rejection_reason(Answer(Outcome.TOO_LARGE, "HTTP 413"))
    assert "MoEngage refused it: HTTP 400 No profile" == refused
    assert "MoEngage refused it as too large: HTTP 413" == too_large


@pytest.mark.parametrize(
    ("code", "parts", "content"),
    [
        ("blocked_by_firewall", ("firewall",), b" <html>Access denied</html>"),
        (
            "credentials_refused",
            ("suspended", "client", "Cohort Sync", "firewall", "Pay first"),
            fail(type="Account Suspended", message="Pay first"),
        ),
    ],
)
def test_a_403_names_its_causes(code, parts, content):
    """A 403 names all four causes, unless a page shows that it came from a firewall."""
    refused = answer(403, content)
    for error in (final_error(refused, "vip", 300), login_error(refused)):
        assert code == error.code
        assert all(part in str(error) for part in parts)


@pytest.mark.parametrize(("code", "asked"), [("rate_limited", 3_600), ("retries_exhausted", 60)])
def test_a_429_that_asks_for_too_long_says_how_long(code, asked):
    """Only a 429 that asks for longer than max_retry_seconds is said to, with how long."""
    limited = answer(429, fail(message="no"), {"Retry-After": str(asked)})
    assert (float(asked), min(asked, LONGEST_WAIT_SECONDS)) == (
        limited.asked_seconds,
        limited.wait_seconds,
    )
    error = final_error(limited, "vip", 300)
    assert (TryAgainError, code) == (type(error), error.code)
    assert (code == "rate_limited") == ("3,600 s" in str(error))
