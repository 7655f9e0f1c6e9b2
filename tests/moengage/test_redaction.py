"""Redaction of secrets and identifiers in the API's messages."""

from __future__ import annotations

import html
import json
import re
from urllib.parse import quote, quote_plus

import hypothesis.strategies as st
import pytest
from hypothesis import assume, example, given

from target_moengage_cohort.moengage.redaction import mask_identifiers, scrub

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
    """An ID that an error quotes is redacted, however it is escaped and in any case."""
    assume(secret.lower() not in "[redacted] no such user: uid:")
    planted = FORMS[form](secret)
    assume(case is str or planted.isascii())
    shown = scrub(around.format(case(planted)), [*others, secret])
    assert " ".join(planted.split()).lower().strip() not in shown.lower()


@given(secret=ids, length=st.integers(4, 24), around=st.sampled_from(QUOTES))
@example(secret="ab cd efgh", length=5, around="got {} e")
def test_no_beginning_of_a_secret_survives(secret, length, around):
    """An ID that an error cuts off after four characters or more is also redacted."""
    cut = " ".join(secret.split())[:length].strip()
    assume(len(cut) >= 4)
    assume(cut.lower() not in "[redacted] no such user: uid:")
    shown = scrub(around.format(cut), [secret])
    assert cut.lower() not in shown.lower()


@given(
    secret=st.text("abcdXYZ", min_size=8, max_size=24) | ids,
    length=st.integers(4, 24),
    around=st.sampled_from(["ends with ****{}", "...{} is wrong", "key {}"]),
)
@example(secret="QWERTYuiopASDFGHjklz", length=8, around="ends with ****{}")
def test_no_end_of_a_secret_survives(secret, length, around):
    """A key of which an error shows only the end is redacted, though it has letters only."""
    end = " ".join(secret.split())[-length:].strip()
    assume(len(end.strip(".!?/\\#*|&-_")) >= 4)
    assume(end.replace("-", "").replace("_", "").isalnum())
    assume(end.lower() not in "[redacted] ends with is wrong key")
    assert end.lower() not in scrub(around.format(end), [secret]).lower()


@pytest.mark.parametrize(
    "around", [r"\n{}", r"\u0022{}\u0022", "%22{}%22", "uid{}", "{}s", "x_{}1"]
)
@pytest.mark.parametrize("secret", ["annaschmidt", "Workspace"])
def test_letters_around_a_secret_do_not_hide_it(secret, around):
    """An ID of letters that an error escapes twice, or joins to a word, is redacted."""
    assert around.format("[redacted]") == scrub(around.format(secret), [secret])


@pytest.mark.parametrize("around", QUOTES)
@pytest.mark.parametrize("secret", ["u7", "7", "x-1", "\u20ac"])
def test_short_ids_are_redacted_as_words(secret, around):
    """An ID of fewer than four characters is redacted as a whole word, in any case."""
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
    """Words of the API that merely resemble an ID are shown."""
    assert text.split()[-1:] == scrub(text, secrets).split()[-1:]


DOCUMENTED = [
    "Entity Not Found: Custom segment not found for the given name or cs_id: Staff 2026",
    "Resource not created: Name already exists: Staff 2026",
    "Too Many Requests: File segment operations limit breached. Please retry after some time.",
    "Invalid request: file_url - must be an https url",
    "Invalid bson object-id passed in the request",
    "MoEngage Client not found. Please check values for headers",
    "The file can\u2019t be larger than 150 MB, in UTF-8",
    "Please retry after 3600 seconds",
]
SENT = [
    "https://files.example.com/users/moengage-segment-0f1e2d.csv?X-Amz-Signature=abcdef",
    "https://hooks.example.com/moengage/custom-file/tok3n",
    *("user-4711", "name@example.com", "file_7", "given surname", "Client-Resource", "ject"),
]


@pytest.mark.parametrize("text", DOCUMENTED)
def test_a_documented_message_is_told_whole(text):
    """Words of the API stay though what was sent has them within; a word that is all of an
    identifier does not."""
    masked = mask_identifiers(text, ["Staff 2026"])
    assert text == scrub(masked, SENT)
    expected = re.sub(r"\b(retry|found)\b", "[redacted]", text, flags=re.IGNORECASE)
    assert expected == scrub(masked, [*SENT, "retry", "found"])


@pytest.mark.parametrize("part", ["abcdef", "moengage-segment-0f1e2d.csv", "tok3n", "user-47"])
def test_what_is_secret_in_an_address_is_not_told(part):
    """A signature, the name that nobody can guess, and a part of an identifier are redacted."""
    shown = scrub(f"cannot fetch {part} for the segment", SENT)
    assert "cannot fetch [redacted] for the segment" == shown


def test_a_decoded_signature_is_not_told():
    """A signature that the address has escaped is redacted without its escapes, too."""
    address = "https://example.com/f?Signature=abCd%2BefGh%2FijKl%3D"
    assert "[redacted] is wrong" == scrub("abCd+efGh/ijKl is wrong", [address])


@pytest.mark.parametrize("address", [SENT[0], SENT[0].replace("/", "\\/"), SENT[0][:-4]])
def test_an_address_is_not_told(address):
    """No address is shown, not even if it was cut off, or escaped as PHP does."""
    shown = scrub(f"cannot fetch {address}", SENT)
    assert not [part for part in ("example", "0f1e2d", "csv", "abc") if part in shown]


@pytest.mark.parametrize(
    "text",
    [
        "4711",
        "u4711 bytes",
        "471100bytes@x",
        "Ana@x",
        "\u00fcbermensch",
        "4711, hours",
        "49711seconds7",
        "4711B:anna@example.com",
        "4711MB;anna99@x",
        "128KB.anna@x",
    ],
)
def test_what_looks_like_an_identifier_is_masked(text):
    """Only quantities and names that are shown anyway are not taken for identifiers."""
    assert "[redacted]" == mask_identifiers(text, ["Staff 2026"]).split(",")[0].split()[0]


def test_the_text_is_short_and_on_one_line():
    """The result is short and on one line."""
    shown = scrub("a\r\n\x1b[31m\u2028b" + "c" * 1_000, [])
    assert 300 == len(shown)
    assert shown.startswith("a [31m b")


def test_many_members_do_not_take_long():
    """A long answer to a full request is redacted quickly."""
    secrets = [f"{number:036}" for number in range(3_300)]
    shown = scrub("; ".join(secrets), secrets)
    assert {"[redacted]"} == {part.strip("; ") for part in shown[:240].split(";") if part.strip()}
