from __future__ import annotations

import html
import json
from email.utils import formatdate
from urllib.parse import quote, quote_plus

import hypothesis.strategies as st
import pytest
from hypothesis import assume, example, given

from target_moengage_cohort.moengage.answers import (
    LONGEST_WAIT_SECONDS,
    Outcome,
    classify,
    scrub,
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
    """Every status but 200 means the same, whatever its body is."""
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
    """A page of some proxy, or half an answer, is no acceptance."""
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
    """An error's type, message, attribute and request_id are shown; odd types hide nothing."""
    assert summary == answer(400, content).summary


def test_the_status_is_never_redacted():
    """A member whose id is the status does not hide it."""
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
    """The longer of reset and Retry-After, by the server's own clock, at most two minutes."""
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
    """Whatever the headers hold, the wait is unknown, or from 0 to two minutes."""
    seconds = wait_seconds(headers, NOW, limited=limited)
    assert seconds is None or 0.0 <= seconds <= LONGEST_WAIT_SECONDS


@pytest.mark.parametrize(("reset", "status"), [(9.0, 429), (None, 503), (None, 400)])
def test_the_limits_reset_is_waited_for_after_a_429_alone(reset, status):
    """Every answer may tell the limit's reset; only the one that is limited asks to wait for it."""
    headers = {"x-ratelimit-reset": f"{NOW + 9:.0f}", "Date": DATE}
    assert reset == answer(status, headers=headers).wait_seconds
    headers = {"Retry-After": "7", "Date": DATE}
    assert 7.0 == answer(status, headers=headers).wait_seconds


FORMS = {
    "plain": str,
    "json": lambda secret: json.dumps(secret)[1:-1],
    "utf-8 json": lambda secret: json.dumps(secret, ensure_ascii=False)[1:-1],
    "url": lambda secret: quote(secret, safe=""),
    "path": quote,
    "form": quote_plus,
    "html": html.escape,
}
QUOTES = [
    "{}",
    "No such user: {}.",
    '"{}"',
    "({})",
    "user={}&x",
    "x/{}/y",
    "{}, q",
    "uid:{}…",
    "#{}!",
]
ids = st.text(
    st.sampled_from("abcXYZ019") | st.sampled_from("-_.@ \"'\\/&<%+()\u00fc\u20ac\n"),
    min_size=4,
    max_size=24,
).filter(lambda text: text.strip() and any(map(str.isalnum, text)))


@given(
    secret=ids,
    others=st.lists(ids, max_size=3),
    form=st.sampled_from(sorted(FORMS)),
    around=st.sampled_from(QUOTES),
    case=st.sampled_from([str, str.upper, str.lower]),
)
@example(secret='\u00fcbermensch"geheim', others=[], form="utf-8 json", around="{}", case=str)
@example(secret="a/bcdef", others=[], form="url", around="x {}", case=str)
@example(secret="jo  ann", others=[], form="plain", around="{}", case=str)
def test_no_form_of_a_secret_survives(secret, others, form, around, case):
    """An id that an error quotes is gone, escaped in any way and in any case of letters."""
    assume(secret.lower() not in "[redacted] no such user: uid:")
    planted = FORMS[form](secret)
    assume(case is str or planted.isascii())
    shown = scrub(around.format(case(planted)), [*others, secret])
    assert " ".join(planted.split()).lower().strip() not in shown.lower()


@given(secret=ids, length=st.integers(4, 24), around=st.sampled_from(QUOTES))
@example(secret="ab cd efgh", length=5, around="got {} e")
def test_no_beginning_of_a_secret_survives(secret, length, around):
    """An id that an error cuts off after four characters or more is gone as well."""
    cut = " ".join(secret.split())[:length].strip()
    assume(len(cut) >= 4)
    assume(cut.lower() not in "[redacted] no such user: uid:")
    shown = scrub(around.format(cut), [secret])
    assert cut.lower() not in shown.lower()


@pytest.mark.parametrize("around", QUOTES)
@pytest.mark.parametrize("secret", ["u7", "7", "x-1", "\u20ac"])
def test_short_ids_are_redacted_as_words(secret, around):
    """An id of less than four characters is gone where it stands as a word, in any case."""
    assert around.format("[redacted]") == scrub(around.format(secret.upper()), [secret])


@pytest.mark.parametrize(
    ("text", "secrets"),
    [
        ("MissingAttributeError: members is required", ["missy88", "u7", "me", "4711"]),
        ("Rate Limits Exceeded", ["rate-1@example.com"]),
        ("", ["u1"]),
    ],
)
def test_other_words_stay(text, secrets):
    """Words of the API that only look a little like an id are shown."""
    assert text.split()[-1:] == scrub(text, secrets).split()[-1:]


def test_the_text_is_short_and_on_one_line():
    """A log line stays a log line."""
    shown = scrub("a\r\n\x1b[31m\u2028b" + "c" * 1_000, [])
    assert 300 == len(shown)
    assert shown.startswith("a [31m b")


def test_many_members_do_not_take_long():
    """A request full of members is scrubbed from a long answer."""
    secrets = [f"{number:036}" for number in range(3_300)]
    shown = scrub("; ".join(secrets), secrets)
    assert {"[redacted]"} == {part.strip("; ") for part in shown[:240].split(";") if part.strip()}


def test_what_looks_like_an_identifier_is_masked():
    """MoEngage may quote a member of an earlier request, whom nobody remembers."""
    content = fail(type="Conflict", message="user-00017 and Ana@x are duplicates of members[4]")
    found = classify(400, {}, content, now=0.0, secrets=lambda: ["k"])
    assert "[redacted] and [redacted] are duplicates of [redacted]" in found.summary
